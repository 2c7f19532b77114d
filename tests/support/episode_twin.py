"""A naive twin of a buffer: episodes are lists of steps, in memory, and nothing is clever."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH = 3


@dataclass
class Step:
    """A transition of a number, which is its write id, too."""

    number: int
    env: int
    done: bool = False
    truncated: bool = False

    @property
    def reward(self) -> float:
        return float(np.float32(np.sin(self.number + 1.0)))

    @property
    def state(self) -> NDArray[np.float32]:
        return np.arange(WIDTH, dtype=np.float32) + self.number * 10

    @property
    def next_state(self) -> NDArray[np.float32]:
        return self.state + 1  # never the state of a later step: it is the true last observation

    def row(self) -> dict[str, Any]:
        return {
            "state": self.state, "action": self.number % 5, "reward": self.reward,
            "next_state": self.next_state, "done": self.done, "truncated": self.truncated,
            "env": self.env, "x": self.number,
        }  # fmt: skip


def columns(steps: list[Step]) -> dict[str, Any]:
    """Return steps as the arguments of `extend`."""
    names = {"env": "env", "x": "x"}
    rows = [step.row() for step in steps]
    return {names.get(n, f"{n}s"): np.stack([row[n] for row in rows]) for n in rows[0]}


@dataclass
class EpisodeTwin:
    """All steps ever pushed, as episodes; of these the last `capacity` steps are live.

    after:  of each episode, the one of the same env that follows it
    """

    capacity: int
    steps: list[Step] = field(default_factory=list)
    episodes: list[list[int]] = field(default_factory=list)
    place: dict[int, tuple[int, int]] = field(default_factory=dict)  # episode, place in it
    after: dict[int, int] = field(default_factory=dict)
    open: dict[int, int | None] = field(default_factory=dict)  # by env: the open episode
    last: dict[int, int] = field(default_factory=dict)  # by env: the last episode of this run

    @property
    def first(self) -> int:
        return max(0, len(self.steps) - self.capacity)

    def push(self, env: int, *, done: bool = False, truncated: bool = False) -> Step:
        step = Step(len(self.steps), env, done, truncated)
        self.steps.append(step)
        episode = self.open.get(env)
        if episode is None:
            episode = len(self.episodes)
            self.episodes.append([])
            if env in self.last:
                self.after[self.last[env]] = episode
            self.last[env] = episode
        self.place[step.number] = episode, len(self.episodes[episode])
        self.episodes[episode].append(step.number)
        self.open[env] = None if done or truncated else episode
        return step

    def end_episode(self, env: int) -> None:
        self.open[env] = None

    def reopen(self) -> None:
        """Begin a run: it links nothing to what was pushed before."""
        self.open, self.last = {}, {}

    def following(self, number: int, length: int, *, across: bool = False) -> list[int]:
        """Return at most `length` steps of the episode from one on, or of later ones, too."""
        episode, place = self.place[number]
        found = self.episodes[episode][place:]
        while across and len(found) < length and episode in self.after:
            episode = self.after[episode]
            found = found + self.episodes[episode]
        return found[:length]

    def n_step(self, number: int, n: int, gamma: float) -> tuple[float, Step, int]:
        """Return the n-step return of a step, the last step of it, and how many rewards it has."""
        numbers = self.following(number, n)
        total = 0.0
        for one in reversed(numbers):
            total = total * gamma + self.steps[one].reward
        return total, self.steps[numbers[-1]], len(numbers)

    def is_first(self, number: int) -> bool:
        return self.place[number][1] == 0

    def whole_episodes(self) -> list[list[int]]:
        """Return the episodes that have ended, and of which every step is live."""
        found = []
        for episode, numbers in enumerate(self.episodes):
            last = self.steps[numbers[-1]]
            has_ended = last.done or last.truncated or episode in self.after
            if has_ended and numbers[0] >= self.first:
                found.append(numbers)
        return found


def check_n_step(twin: EpisodeTwin, batch: Any, n: int, gamma: float) -> None:
    """Compare a batch of n-step returns, in all its elements but the weights."""
    assert batch._fields[-1] == "discounts"
    for at, number in enumerate(batch.indices.tolist()):
        total, last, m = twin.n_step(number, n, gamma)
        first = twin.steps[number]
        assert batch.rewards[at] == np.float32(total)
        assert batch.discounts[at] == np.float32(gamma**m)
        assert batch.states[at].tolist() == first.state.tolist()
        assert (batch.actions[at], batch.x[at]) == (number % 5, number)
        assert batch.next_states[at].tolist() == last.next_state.tolist()
        assert (batch.dones[at], batch.truncated[at]) == (last.done, last.truncated)


def check_sequences(
    twin: EpisodeTwin, batch: Any, length: int, *, pad: bool = True, across: bool = False
) -> None:
    """Compare a batch of sequences, in all its elements but the weights."""
    for at, start in enumerate(batch.indices[:, 0].tolist()):
        numbers = twin.following(start, length, across=across)
        m = len(numbers)
        assert pad or m == length
        assert batch.indices[at].tolist() == numbers + [-1] * (length - m)
        assert batch.mask[at].tolist() == [True] * m + [False] * (length - m)
        assert batch.firsts[at, :m].tolist() == [twin.is_first(number) for number in numbers]
        rows = [twin.steps[number] for number in numbers]
        for name, values in {
            "states": [row.state for row in rows], "actions": [row.number % 5 for row in rows],
            "rewards": [row.reward for row in rows], "next_states": [r.next_state for r in rows],
            "dones": [row.done for row in rows], "truncated": [row.truncated for row in rows],
            "x": numbers,
        }.items():  # fmt: skip
            column = getattr(batch, name)[at]
            np.testing.assert_array_equal(column[:m], np.array(values).astype(column.dtype))
            assert not column[m:].any()
        assert not batch.firsts[at, m:].any()

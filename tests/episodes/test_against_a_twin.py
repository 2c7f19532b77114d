"""n-step returns, sequences and episodes against lists of steps in memory, after any pushes."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episode_twin import EpisodeTwin, Step, check_n_step, check_sequences, columns
from hypothesis import given, settings
from hypothesis import strategies as st

from diskreplay import ArgumentError, PrioritizedReplayBuffer, ReplayBuffer, SampleError

GAMMA = 0.9
ENDS = st.sampled_from([(False, False)] * 5 + [(True, False), (False, True), (True, True)])
PUSH = st.tuples(st.just("push"), st.integers(0, 2), ENDS)
OTHER = st.sampled_from(
    [("settle",), ("flush",), ("reopen",), ("compare",), ("end", 0), ("end", 1)]
)
LAYOUTS: list[dict[str, Any]] = [
    {}, {"window_bytes": 0}, {"observations": "log"}, {"observations": "log", "window_bytes": 0},
]  # fmt: skip


def compare(buffer: Any, twin: EpisodeTwin) -> None:
    size = len(buffer)
    assert (buffer.first, buffer.count) == (twin.first, len(twin.steps))
    if not size:
        return
    for n in (2, 3, size + 1):
        if n <= buffer.capacity:
            check_n_step(twin, buffer.sample(size, n_step=n, gamma=GAMMA), n, GAMMA)
    for length in (1, min(3, buffer.capacity), size):
        for across in (False, True):
            batch = buffer.sample_sequences(size, length, across=across)
            check_sequences(twin, batch, length, across=across)
            whole = [
                number
                for number in range(twin.first, len(twin.steps))
                if len(twin.following(number, length, across=across)) == length
            ]
            compare_whole(buffer, twin, whole, length, across)
    for newest_first in (False, True):
        found = list(buffer.episodes(newest_first=newest_first))
        expected = twin.whole_episodes()
        expected.sort(key=lambda numbers: numbers[0], reverse=newest_first)
        assert [batch.indices.tolist() for batch in found] == expected
        assert [batch.x.tolist() for batch in found] == expected


def compare_whole(
    buffer: Any, twin: EpisodeTwin, whole: list[int], length: int, across: bool
) -> None:
    """Draw whole sequences; of a uniform buffer all of them."""
    if not whole:
        with pytest.raises(SampleError, match="begin a whole sequence"):
            buffer.sample_sequences(1, length, pad=False, across=across)
        return
    n = len(whole) if isinstance(buffer, ReplayBuffer) else 1
    batch = buffer.sample_sequences(n, length, pad=False, across=across)
    check_sequences(twin, batch, length, pad=False, across=across)
    if isinstance(buffer, ReplayBuffer):
        assert sorted(batch.indices[:, 0].tolist()) == whole


class Both:
    """A buffer and its twin, which take the same calls."""

    def __init__(self, make: Any, capacity: int) -> None:
        self.make = make
        self.buffer = make()
        self.twin = EpisodeTwin(capacity)
        self.waiting: list[Step] = []

    def do(self, name: str, *arguments: Any) -> None:
        if name == "push":
            env, (done, truncated) = arguments
            self.waiting.append(self.twin.push(env, done=done, truncated=truncated))
            if len(self.waiting) < 3:
                return
        if self.waiting:  # some come one by one, others together
            if len(self.waiting) == 1:
                self.buffer.push(**self.waiting[0].row())
            else:
                self.buffer.extend(**columns(self.waiting))
            self.waiting.clear()
        if name == "flush":
            self.buffer.flush()
        elif name == "end":
            known = self.twin.last.keys()
            is_refused = known and arguments[0] not in known
            with pytest.raises(ArgumentError) if is_refused else nullcontext():
                self.buffer.end_episode(*arguments)
            self.twin.end_episode(*arguments)
        elif name == "reopen":
            self.buffer.close()
            self.buffer = self.make()
            self.twin.reopen()
        elif name == "compare":
            compare(self.buffer, self.twin)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
@given(capacity=st.integers(1, 12), calls=st.lists(st.one_of(PUSH, PUSH, OTHER), max_size=40))
@settings(max_examples=settings.default.max_examples // 10)
def test_any_pushes(kind: Any, layout: Any, capacity: int, calls: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "b"
        both = Both(
            lambda: kind(capacity, path=path, seed=1, commit_interval=1e9, **layout), capacity
        )
        try:
            for call in [*calls, ("compare",), ("reopen",), ("compare",)]:
                both.do(*call)
            both.buffer.check()
        finally:
            both.buffer.close()


@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_seam_at_every_offset(n_envs: int) -> None:
    capacity = 7
    twin = EpisodeTwin(capacity)
    with ReplayBuffer(capacity, seed=1) as buffer:
        for number in range(4 * capacity):
            step = twin.push(number % n_envs, done=number % 5 == 4, truncated=number % 11 == 3)
            buffer.push(**step.row())
            compare(buffer, twin)


def test_all_live_transitions_are_drawn() -> None:
    twin = EpisodeTwin(50)
    steps = [twin.push(i % 2, truncated=i % 7 == 6) for i in range(80)]
    with ReplayBuffer(50, seed=1) as buffer:
        buffer.extend(**columns(steps))
        batch = buffer.sample(50, n_step=4)
        assert np.unique(batch.indices).size == 50
        assert np.unique(buffer.sample_sequences(50, 4).indices[:, 0]).size == 50

"""n-step returns, sequences and episodes against lists of steps in memory, after any pushes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episode_twin import EpisodeTwin, check_n_step, check_sequences, columns
from hypothesis import given, settings
from hypothesis import strategies as st

from diskreplay import PrioritizedReplayBuffer, ReplayBuffer, SampleError

GAMMA = 0.9
ENDS = st.sampled_from([(False, False)] * 5 + [(True, False), (False, True), (True, True)])
PUSH = st.tuples(st.just("push"), st.integers(0, 2), ENDS)
OTHER = st.sampled_from(
    [("extend",), ("flush",), ("reopen",), ("compare",), ("end", 0), ("end", 1)]
)
LAYOUTS: list[dict[str, Any]] = [
    {}, {"window_bytes": 0}, {"observations": "log"}, {"observations": "log", "window_bytes": 0},
]  # fmt: skip


def compare(buffer: Any, twin: EpisodeTwin) -> None:
    size = len(buffer)
    assert (buffer.first, buffer.count) == (twin.first, len(twin.steps))
    for n in (2, 3, size + 1):
        if size and n <= buffer.capacity:
            check_n_step(twin, buffer.sample(size, n_step=n, gamma=GAMMA), n, GAMMA)
    for length in (1, 3, size):
        if not size:
            continue
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
        with pytest.raises(SampleError, match="begin a whole sequence of"):
            buffer.sample_sequences(1, length, pad=False, across=across)
        return
    n = len(whole) if isinstance(buffer, ReplayBuffer) else 1
    batch = buffer.sample_sequences(n, length, pad=False, across=across)
    check_sequences(twin, batch, length, pad=False, across=across)
    if isinstance(buffer, ReplayBuffer):
        assert sorted(batch.indices[:, 0].tolist()) == whole


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
@given(capacity=st.integers(1, 12), calls=st.lists(st.one_of(PUSH, PUSH, OTHER), max_size=40))
@settings(max_examples=25)
def test_any_pushes(kind: Any, layout: Any, capacity: int, calls: list[Any]) -> None:
    twin, waiting = EpisodeTwin(capacity), []
    arguments = {"seed": 1, "commit_interval": 1e9, **layout}
    with tempfile.TemporaryDirectory() as place:
        buffer = kind(capacity, path=Path(place) / "b", **arguments)
        for name, *more in [*calls, ("extend",), ("compare",), ("reopen",), ("compare",)]:
            if name == "push":
                env, (done, truncated) = more
                step = twin.push(env, done=done, truncated=truncated)
                waiting.append(step)
                if len(waiting) % 3:  # some one by one, others together
                    continue
            if waiting:
                if len(waiting) > 1:
                    buffer.extend(**columns(waiting))
                else:
                    buffer.push(**waiting[0].row())
                waiting.clear()
            if name == "flush":
                buffer.flush()
            elif name == "end":
                buffer.end_episode(*more)
                twin.end_episode(*more)
            elif name == "reopen":
                buffer.close()
                buffer = kind(capacity, path=Path(place) / "b", **arguments)
                twin.reopen()
            elif name == "compare":
                compare(buffer, twin)
        buffer.check()
        buffer.close()


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

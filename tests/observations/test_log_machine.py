"""A buffer with an observation log against a twin with plain records: the same calls, any order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from env_streams import FRAME, LARGE_FRAME, EnvStream, columns_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import diskreplay
from diskreplay import PrioritizedReplayBuffer
from diskreplay.store import State, Store

ENVS = 3
numbers = st.integers(0, 5) | st.integers(0, 254)


class LogAgainstTwin(RuleBasedStateMachine):
    """Two buffers with one seed; the twin keeps whole records."""

    access = "exclusive"
    frame = FRAME

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.envs = [EnvStream(self.frame) for _ in range(ENVS)]
        self.pushed = 0

    @initialize(
        capacity=st.integers(1, 40),
        window_bytes=st.sampled_from([0, 1 << 20]),
        log=st.sampled_from(
            [{"frame_axis": 0}, {"frame_axis": -1}, {"observations": "log"}, {"frame_axis": 1}]
        ),
    )
    def start(self, capacity: int, window_bytes: int, log: dict[str, Any]) -> None:
        self.capacity = capacity
        self.settings = {"window_bytes": window_bytes, "commit_interval": 1e9, "seed": 3}
        self.log = log
        self.open()

    def open(self) -> None:
        self.logged = self.made("logged", **self.log)
        self.twin = self.made("twin")

    def made(self, name: str, **log: Any) -> Any:
        path = self.directory / name
        return PrioritizedReplayBuffer(
            self.capacity, path=path, access=self.access, **self.settings, **log
        )

    def both(self, call: Any) -> tuple[Any, Any]:
        return call(self.logged), call(self.twin)

    @rule(env=st.integers(0, ENVS - 1), number=numbers, done=st.booleans())
    def push(self, env: int, number: int, done: bool) -> None:
        row = self.envs[env].step(number, done=done)
        found, expected = self.both(lambda buffer: buffer.push(**row))
        assert found == expected
        if done:
            self.envs[env].reset(number + 1)

    @rule(env=st.integers(0, ENVS - 1), number=numbers)
    def reset(self, env: int, number: int) -> None:
        self.envs[env].reset(number)

    @rule(
        envs=st.lists(st.integers(0, ENVS - 1), min_size=1, max_size=90),
        number=numbers,
        different=st.sampled_from([2, 6, 255]),
    )
    def extend(self, envs: list[int], number: int, different: int) -> None:
        rows = [self.envs[env].step((number + i) % different) for i, env in enumerate(envs)]
        found, expected = self.both(lambda buffer: buffer.extend(**columns_of(rows)))
        assert found.tolist() == expected.tolist()

    @rule()
    def flush(self) -> None:
        self.both(lambda buffer: buffer.flush())

    @rule()
    def clear(self) -> None:
        self.both(lambda buffer: buffer.clear())

    @rule()
    def reopen(self) -> None:
        self.both(lambda buffer: buffer.close())
        self.open()

    @rule(n=st.integers(1, 12))
    def sample(self, n: int) -> None:
        if self.twin.is_ready(n):
            found, expected = self.both(lambda buffer: buffer.sample(n))
            same(found, expected)
            self.both(lambda buffer: buffer.update_priorities(found.indices, found.rewards))

    @rule(prefetch=st.integers(0, 3))
    def batches(self, prefetch: int) -> None:
        if self.twin.is_ready(2):
            with self.logged.batches(2, prefetch=prefetch) as found, self.twin.batches(2) as twins:
                for _ in range(3):
                    same(next(found), next(twins))

    @invariant()
    def is_equal(self) -> None:
        if hasattr(self, "twin") and self.access == "exclusive":
            assert (self.logged.first, self.logged.count) == (self.twin.first, self.twin.count)
            if len(self.twin):
                ids = np.arange(self.twin.first, self.twin.count)
                same(*self.both(lambda buffer: buffer.get(ids)))

    def teardown(self) -> None:
        if hasattr(self, "twin"):
            self.both(lambda buffer: buffer.flush())
            self.both(lambda buffer: buffer.check())
            path = self.logged.path
            self.both(lambda buffer: buffer.close())
            assert diskreplay.verify(path) == []
            holds_no_more_than_stated(path)
        shutil.rmtree(self.directory)


class SharedLogAgainstTwin(LogAgainstTwin):
    """The same, written to as one of several processes would."""

    access = "shared"


class LargeLogAgainstTwin(LogAgainstTwin):
    """The same, of transitions that are in the window as records."""

    frame = LARGE_FRAME


class SharedLargeLogAgainstTwin(LargeLogAgainstTwin):
    """The same, written to as one of several processes would."""

    access = "shared"


def same(found: Any, expected: Any) -> None:
    for name in expected._fields:
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def holds_no_more_than_stated(path: Path) -> None:
    """Check that the log holds what live records refer to, and little more."""
    store = Store(path)
    try:
        with store.snapshot() as snapshot:
            state = State.parse(snapshot.meta("state"), store.identity)
            layout = snapshot.meta("layout") or {}
            log = layout.get("observations", {"entries_per_value": 1, "reach": 0})
            first, count = state.observations.first, state.observations.count
            live = state.live(store.identity).size
            keys = snapshot.entries("observations")
    finally:
        store.close()
    per_value, reach = log["entries_per_value"], log["reach"]
    # A transition adds at most its own frames; what lies a reach behind is needed by none.
    assert count - first <= 6 * live + reach
    assert keys <= -(-count // per_value) - first // per_value


@pytest.mark.parametrize(
    "machine",
    [LogAgainstTwin, SharedLogAgainstTwin, LargeLogAgainstTwin, SharedLargeLogAgainstTwin],
)
def test_log_equals_whole_records(machine: Any, long: bool) -> None:
    n = 1000 if long else 12
    run_state_machine_as_test(
        machine, settings=settings(max_examples=n, stateful_step_count=30, deadline=None)
    )

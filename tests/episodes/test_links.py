"""Links: against a twin that keeps the env of each write id, over every way that they change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupted import interrupted_at

from diskreplay import ArgumentError
from diskreplay.episodes import Links
from diskreplay.live_range import LiveRange

MAX_DISTANCE = 2**31 - 1


class Twin:
    """The env and the episode of each write id, as plain lists."""

    def __init__(self, capacity: int) -> None:
        self.live = LiveRange(capacity, 0, 0)
        self.rows: list[tuple[int, int]] = []  # env, number of the episode
        self.open: dict[int, int] = {}  # the number of the open episode of an env
        self.last: dict[int, int] = {}  # the last write id of an env
        self.episodes = 0

    def push(self, env: int, ends: bool) -> int:
        """Add a row, and return its link."""
        write_id, before = len(self.rows), self.last.get(env)
        goes_on = env in self.open
        if not goes_on:
            self.open[env] = self.episodes
            self.episodes += 1
        self.rows.append((env, self.open[env]))
        self.last[env] = write_id
        if ends:
            del self.open[env]
        self.live = self.live.until(write_id + 1)
        return 0 if before is None else (write_id - before) * (1 if goes_on else -1)

    def clear(self) -> None:
        self.open, self.last = {}, {}
        self.live = LiveRange(self.live.capacity, len(self.rows), len(self.rows))

    def near(self, write_id: int, *, step: int, across: bool) -> int:
        """Return the next row, or the one before, of the same env; -1 where there is none."""
        env, episode = self.rows[write_id]
        other = write_id + step
        while self.live.first <= other < self.live.count:
            if self.rows[other][0] == env:
                return other if across or self.rows[other][1] == episode else -1
            other += step
        return -1


def check(links: Links, twin: Twin) -> None:
    live = twin.live
    ids = np.arange(live.first, live.count)
    for across in (False, True):
        found = links.forward(ids, live, across=across).tolist()
        assert found == [twin.near(i, step=1, across=across) for i in ids.tolist()]
        found = links.back(ids, live, across=across).tolist()
        assert found == [twin.near(i, step=-1, across=across) for i in ids.tolist()]


STEPS = st.lists(
    st.one_of(
        st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=12),
        st.sampled_from(["clear", "check", "load", "reload"]),
    ),
    max_size=20,
)


@given(capacity=st.integers(1, 9), steps=STEPS)
def test_links_lead_to_the_rows_of_the_twin(capacity: int, steps: list[Any]) -> None:
    links, twin, blocks = Links(capacity), Twin(capacity), {}
    follower = Links(capacity)  # as a reader: it loads blocks
    check(links, twin)
    for step in steps:
        if isinstance(step, list):
            first = twin.live.count
            new = [twin.push(*row) for row in step]
            links.stage(first, len(new), np.array(new, np.int32))
        elif step == "clear":
            twin.clear()
            links.clear(twin.live.count)
            follower.clear(twin.live.count)
        elif step == "check":
            check(links, twin)
        elif step == "load":
            blocks = dict(links.dirty_blocks(twin.live))
            follower.load(blocks, twin.live)
            check(follower, twin)
        else:
            reader = Links(capacity)
            reader.load(dict(links.dirty_blocks(twin.live)), twin.live)
            check(reader, twin)
    check(links, twin)


def test_a_reader_of_few_changed_blocks_follows_them_in_its_forward_table() -> None:
    links, twin, follower = Links(20_000), Twin(20_000), Links(20_000)
    generator = np.random.default_rng(1)
    for n in (5_000, 900, 16_000, 1, 400, 700):
        rows = [(int(generator.integers(0, 5)), generator.random() < 0.1) for _ in range(n)]
        first = twin.live.count
        links.stage(first, n, np.array([twin.push(*row) for row in rows], np.int32))
        blocks = links.dirty_blocks(twin.live)
        follower.load(dict(blocks), twin.live)
        links.mark_committed(blocks)
        check(follower, twin)


def test_the_longest_distances_are_followed() -> None:
    links, live = Links(3), LiveRange(3, 0, MAX_DISTANCE + 3)
    links.clear(MAX_DISTANCE)
    links.stage(MAX_DISTANCE, 3, np.array([MAX_DISTANCE, -MAX_DISTANCE - 1, 2], np.int32))
    ids = np.arange(MAX_DISTANCE, MAX_DISTANCE + 3)
    assert links.back(ids, live, across=True).tolist() == [-1, -1, MAX_DISTANCE]
    assert links.forward(ids, live).tolist() == [MAX_DISTANCE + 2, -1, -1]


def test_the_forward_table_is_made_and_counted_when_it_is_asked_for() -> None:
    links, live = Links(1000), LiveRange(1000, 0, 2)
    links.stage(0, 2, np.array([0, 1], np.int32))
    assert links.back(np.arange(2), live).tolist() == [-1, 0]
    assert links.nbytes == Links(1000).nbytes
    assert links.forward(np.arange(2), live).tolist() == [1, -1]
    assert links.nbytes == Links(1000).nbytes + 4000
    links.clear(2)
    assert links.nbytes == Links(1000).nbytes


def test_links_that_do_not_fit_memory_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"capacity .* GiB of memory for its links, 4 bytes"):
        Links(2**50)


@pytest.mark.parametrize("name", ["settle", "load", "forward"])
def test_after_an_interrupt_at_any_line_the_call_can_be_made_again(name: str) -> None:
    line, came_so_far = 0, True
    while came_so_far:
        line += 1
        links, twin = Links(7), Twin(7)
        links.stage(0, 6, np.array([twin.push(i % 2, i == 3) for i in range(6)], np.int32))
        if name != "forward":
            check(links, twin)
        new = [twin.push(i % 3, i == 1) for i in range(5)]
        if name == "load":
            other = Links(7)
            other.stage(0, 11, np.array([0] * 11, np.int32))
            other.load(dict(links.dirty_blocks(LiveRange(7, 0, 6))), LiveRange(7, 0, 6))
            other.stage(6, 5, np.array(new, np.int32))
            blocks = dict(other.dirty_blocks(twin.live))
            came_so_far = interrupted_at(line, lambda: links.load(blocks, twin.live))  # noqa: B023
            links.load(blocks, twin.live)
        else:
            links.stage(6, 5, np.array(new, np.int32))
            call = {
                "settle": lambda: links.settle(twin.live),  # noqa: B023
                "forward": lambda: links.forward(np.arange(4, 11), twin.live),  # noqa: B023
            }[name]
            came_so_far = interrupted_at(line, call)
        check(links, twin)
    assert line > {"settle": 15, "load": 15, "forward": 20}[name]

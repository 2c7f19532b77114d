"""LiveRange, against a ring in which each slot remembers the write id that was written last."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diskreplay.live_range import BLOCK_SLOTS, LiveRange, block_span, blocks_in, slot_spans


class Ring:
    """A naive twin: slot by slot, the newest write id, and whether it came after the clear."""

    def __init__(self, live: LiveRange) -> None:
        n = live.capacity + live.keep_rows
        self.held = {write_id % n: write_id for write_id in range(live.count)}
        oldest = max(live.start, live.count - live.capacity)
        self.ids = sorted(write_id for write_id in self.held.values() if write_id >= oldest)
        self.slots = [write_id % n for write_id in self.ids]


@st.composite
def ranges(draw: st.DrawFn) -> LiveRange:
    """Small rings, and some of a few blocks."""
    capacity = draw(st.integers(1, 20) | st.sampled_from([999, 1000, 1001, 2500]))
    count = draw(st.integers(0, 60) | st.integers(0, 3 * capacity))
    start, keep_rows = draw(st.integers(0, count)), draw(st.sampled_from([0, 0, 1, 7, 1001]))
    return LiveRange(capacity, start, count, keep_rows)


def slots_of(spans: Iterator[slice]) -> list[int]:
    return [slot for span in spans for slot in range(span.start, span.stop)]


@given(ranges(), st.integers(1, 20))
@example(LiveRange(8, 0, 0), 1)
@example(LiveRange(8, 13, 13), 3)
@example(LiveRange(2500, 0, 1000), 7)  # to the last slot of a block
@example(LiveRange(2500, 999, 1001), 7)
@example(LiveRange(2500, 2400, 2600), 7)
def test_the_live_write_ids_and_their_slots_are_those_of_the_ring(
    live: LiveRange, most: int
) -> None:
    ring = Ring(live)
    assert list(range(live.first, live.count)) == ring.ids
    assert live.size == len(ring.ids)
    assert live.slots(np.array(ring.ids, np.int64)).tolist() == ring.slots
    assert slots_of(live.spans()) == slots_of(live.spans(most)) == ring.slots
    assert len(list(live.spans())) <= 2
    assert all(0 < span.stop - span.start <= most for span in live.spans(most))
    assert live.blocks() == sorted({slot // BLOCK_SLOTS for slot in ring.slots})


@given(ranges())
def test_the_newest_write_id_of_a_slot_is_that_of_the_ring(live: LiveRange) -> None:
    ring = Ring(live)
    slots = np.arange(live.ring_slots).reshape(-1, 1)
    found = live.newest_ids(slots)
    assert found.shape == slots.shape
    for slot, write_id in enumerate(found.ravel().tolist()):
        assert write_id == ring.held[slot] if slot in ring.held else write_id < 0
    assert np.flatnonzero(found >= live.first).tolist() == sorted(ring.slots)


@given(ranges(), st.integers(-5, 80), st.integers(0, 80))
def test_it_holds_what_the_ring_holds_in_part_and_later(
    live: LiveRange, write_id: int, more: int
) -> None:
    ring = Ring(live)
    asked = np.array([*range(-3, live.count + 3), -(2**63), 2**63 - 1])
    assert asked[live.holds(asked)].tolist() == ring.ids
    assert live.holds(asked[:0]).tolist() == []
    since = live.since(write_id)
    assert list(range(since.first, since.count)) == [i for i in ring.ids if i >= write_id]
    assert (since.capacity, since.count) == (live.capacity, live.count)
    assert live.start <= since.start
    assert since.first <= since.count
    later = live.until(live.count + more)
    assert list(range(later.first, later.count)) == (Ring(live.until(live.count + more)).ids)
    assert later.until(live.count) == live


@given(ranges(), st.integers(0, 60))
def test_evicted_spans_are_the_slots_that_are_live_no_more_and_kept(
    live: LiveRange, more: int
) -> None:
    later = live.until(live.count + more)
    before, after = Ring(live), Ring(later)
    found = slots_of(later.evicted_spans(live.count))
    assert set(found) >= set(before.slots) - set(after.slots)
    assert not set(found) & set(after.slots)
    assert len(found) == len(set(found)) <= live.keep_rows
    if not live.keep_rows:
        assert found == []


@given(st.integers(0, 300), st.integers(0, 120), st.integers(1, 50), st.integers(1, 20))
def test_spans_go_around_the_ring_as_often_as_asked(
    first: int, size: int, capacity: int, most: int
) -> None:
    spans = list(slot_spans(first, first + size, capacity, most))
    assert slots_of(iter(spans)) == [i % capacity for i in range(first, first + size)]
    assert all(0 < span.stop - span.start <= min(most, capacity) for span in spans)


@pytest.mark.parametrize("capacity", [1, 999, 1000, 1001, 2400])
def test_blocks_are_the_slots_in_order(capacity: int) -> None:
    spans = [block_span(number, capacity) for number in range(blocks_in(capacity))]
    assert slots_of(iter(spans)) == list(range(capacity))
    assert [span.start for span in spans] == list(range(0, capacity, 1000))
    assert block_span(blocks_in(capacity), capacity).stop == capacity  # there is none


def test_write_ids_are_as_large_as_a_store_can_count() -> None:
    live = LiveRange(8, 0, 2**62 + 5)
    assert (live.first, live.size) == (2**62 - 3, 8)
    assert list(live.spans()) == [slice(5, 8), slice(0, 5)]
    assert live.newest_ids(np.array([4, 5])).tolist() == [2**62 + 4, 2**62 - 3]
    assert live.holds(np.array([2**62 - 4, 2**62 - 3, 2**62 + 5])).tolist() == [False, True, False]

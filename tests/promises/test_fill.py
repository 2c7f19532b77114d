"""Masses of slots in a row: set by slices, they must be what they would be one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling import mass, sampler

from diskreplay import SumTree
from diskreplay.live_range import slot_spans


@given(st.integers(1, 70), st.data())
def test_to_fill_is_to_set(capacity: int, data: st.DataObject) -> None:
    filled, twin = SumTree(capacity), SumTree(capacity)
    for _ in range(3):
        begin = data.draw(st.integers(0, capacity - 1))
        n = data.draw(st.integers(1, capacity - begin))
        floats = st.floats(0.0, 9.0)
        masses = np.array(data.draw(st.lists(floats, min_size=n, max_size=n)))
        filled.fill(begin, masses)
        twin.set(np.arange(begin, begin + n), masses)
        for level, expected in zip(filled._levels, twin._levels, strict=True):
            assert level.tobytes() == expected.tobytes()
        filled.check()


@given(st.integers(0, 300), st.integers(0, 50), st.integers(1, 50), st.integers(1, 20))
def test_spans_are_the_slots_in_order(first: int, size: int, capacity: int, most: int) -> None:
    count = first + min(size, capacity)
    spans = list(slot_spans(first, count, capacity, most))
    found = [slot for span in spans for slot in range(span.start, span.stop)]
    assert found == [write_id % capacity for write_id in range(first, count)]
    assert all(0 < span.stop - span.start <= most for span in spans)


@pytest.mark.parametrize("others", [1, 30])
def test_a_slot_that_was_left_out_is_drawn_again_once_others_wrote_to_it(others: int) -> None:
    writer, reader = sampler(64), sampler(64)
    writer.hold(0, 64, None)
    reader.load_blocks(writer.dirty_blocks(0, 64), 0, 64)
    reader.leave_out(np.array([0, 5]), 0, 64)
    assert reader._tree.masses([0, 5]).tolist() == [0.0, 0.0]
    writer.hold(64, others, None)
    count = 64 + others
    reader.load_blocks(writer.dirty_blocks(count - 64, count), count - 64, count)
    expected = [mass(1.0), mass(1.0) if others > 5 else 0.0]
    assert reader._tree.masses([0, 5]).tolist() == expected
    reader.check(count - 64, count)

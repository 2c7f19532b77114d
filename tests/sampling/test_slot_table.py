"""SlotTable: values by slot, staged before they are live, and the blocks that a commit writes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from interrupted import interrupted_at

from diskreplay import DamageError
from diskreplay.live_range import BLOCK_SLOTS, LiveRange
from diskreplay.sampling import Blocks, Priorities, SlotTable, Values
from diskreplay.sampling.slot_table import _STAGED_KEPT


class Floats(SlotTable[np.float32]):
    """A table that nothing follows."""

    database, item, dtype = "floats", "block of floats", np.dtype(np.float32)


def floats(*values: float) -> Values:
    return np.array(values, np.float32)


def numbered(capacity: int, count: int) -> tuple[Floats, LiveRange]:
    """A table in which each write id is its own value, and what is live."""
    target = Floats(capacity)
    target.stage(0, count, np.arange(count, dtype=np.float32))
    return target, LiveRange(capacity, 0, count)


# Staging


def test_values_are_those_that_were_staged_each_or_one_for_all() -> None:
    target = Floats(10)
    assert target.live_values(LiveRange(10, 0, 0)).tolist() == []
    target.stage(0, 2, floats(3, 4))
    target.stage(2, 3, 0.5)
    target.stage(5, 1, floats(5))
    target.stage(6, 1, 0.0)
    found = target.live_values(LiveRange(10, 0, 7))
    assert (found.dtype, found.tolist()) == (np.float32, [3, 4, 0.5, 0.5, 0.5, 5, 0])
    assert target.live_values(LiveRange(10, 5, 7)).tolist() == [5, 0]


def test_values_of_any_number_are_staged_unchanged() -> None:
    generator, target, parts, first = np.random.default_rng(3), Floats(100_000), [], 0
    for n in (_STAGED_KEPT - 1, 1, 1, 100, 2 * _STAGED_KEPT, 3 * _STAGED_KEPT):
        parts.append(generator.exponential(size=n).astype(np.float32))
        target.stage(first, n, parts[-1])
        first += n
    more = target._staged.nbytes - 4 * _STAGED_KEPT
    assert target.nbytes == Floats(100_000).nbytes + more
    assert np.array_equal(target.live_values(LiveRange(100_000, 0, first)), np.concatenate(parts))
    assert target._staged.size == _STAGED_KEPT  # the memory of the others is given back
    assert target.nbytes == Floats(100_000).nbytes


def test_clear_forgets_all_below_a_count() -> None:
    target, live = numbered(10, 8)
    target.settle(live)
    target.stage(8, 1, floats(99))
    target.clear(8)
    assert target.values.tolist() == [0] * 10
    target.stage(8, 3, floats(1, 2, 3))
    assert target.live_values(LiveRange(10, 8, 11)).tolist() == [1, 2, 3]
    target.stage(11, 3 * _STAGED_KEPT, 0.0)
    target.clear(10**6)
    target.stage(10**6, 1, floats(4))
    assert target.nbytes == Floats(10).nbytes
    assert target.live_values(LiveRange(10, 10**6, 10**6 + 1)).tolist() == [4]


# Blocks


def test_only_changed_blocks_are_dirty_until_they_are_committed() -> None:
    target, live = Floats(2500), LiveRange(2500, 0, 1700)
    assert dict(target.dirty_blocks(live.until(0))) == {}
    target.stage(0, 1700, np.ones(1700, np.float32))
    blocks = dict(target.dirty_blocks(live))
    assert list(blocks) == [0, 1]
    assert blocks[0] == np.ones(1000, "<f4").tobytes()
    assert blocks[1] == np.repeat(np.array([1.0, 0.0], "<f4"), [700, 300]).tobytes()
    assert target.dirty_blocks(live) == blocks  # nothing was committed
    target.mark_committed(blocks)
    target.set(np.array([999]), floats(3))
    assert sorted(target.dirty_blocks(live)) == [0]
    target.mark_committed([0])
    target.stage(1700, 900, 0.0)  # around the end, into block 0
    blocks = dict(target.dirty_blocks(live.until(2600)))
    assert {number: len(block) for number, block in blocks.items()} == {0: 4000, 1: 4000, 2: 2000}
    target.mark_committed([0, 2])
    assert sorted(target.dirty_blocks(live.until(2600))) == [1]
    target.mark_committed([1])
    for first, n, dirty in ((2600, 900, [0]), (3500, 1, [0, 1])):  # to the end of block 0, beyond
        target.stage(first, n, 0.0)
        assert sorted(target.dirty_blocks(live.until(first + n))) == dirty


def test_blocks_are_a_mapping_of_stored_bytes() -> None:
    blocks = Blocks(np.arange(2500, dtype=np.float32), [0, 2])
    assert (len(blocks), list(blocks), 2 in blocks) == (2, [0, 2], True)
    assert blocks[2] == np.arange(2000, 2500, dtype="<f4").tobytes()
    assert Blocks(np.arange(3, dtype=">f4"), [0])[0] == np.arange(3, dtype="<f4").tobytes()


def test_a_block_that_no_commit_wrote_is_refused() -> None:
    target = Priorities(1500, alpha=0.6, epsilon=1e-6)
    live = LiveRange(1500, 0, 1500)
    largest = np.full(500, np.finfo(np.float32).max, "<f4")
    assert Priorities.block_of(1, largest.tobytes(), 1500).tolist() == largest.tolist()
    for number, size, expected in [(0, 3999, 4000), (1, 4000, 2000), (2, 0, 0), (2, 4000, 0)]:
        message = rf"priority block {number} has {size:,} bytes \(expected {expected:,}\)"
        with pytest.raises(DamageError, match=message):
            target.load({number: bytes(size)}, live)
    for bad in (-1.0, np.nan, np.inf):
        content = np.array([0.0] * 499 + [bad], "<f4").tobytes()
        with pytest.raises(
            DamageError, match="priority block 1 holds a value that is not a priority"
        ):
            target.load({1: content}, live)


def test_values_are_laid_over_stored_blocks() -> None:
    target, live = numbered(2500, 1700)
    stored, asked = dict(target.dirty_blocks(live)), []

    def read(numbers: list[int]) -> dict[int, bytes]:
        asked.append(numbers)
        return {number: stored[number] for number in numbers}

    write_ids = np.array([3, 1000, 2000, 2499, 1000, 2503, 2])
    found = Floats.overlaid(2500, read, live, write_ids, floats(11, 12, 13, 14, 15, 16, 17))
    assert asked == [[0, 1]]  # block 2 has no live slot, so it need not be there
    expected = np.zeros(2500, "<f4")
    expected[:1700] = np.arange(1700)
    expected[[3, 1000, 2000, 2499, 2]] = [16, 15, 13, 14, 17]  # 2503 is in slot 3
    assert found == dict(Blocks(expected, [0, 1, 2]))
    assert dict(target.dirty_blocks(live)) == stored
    assert Floats.overlaid(2500, read, live, write_ids[:0], floats()) == {}


# Interrupts


@pytest.mark.parametrize("name", ["stage", "settle", "set"])
def test_after_an_interrupt_at_any_line_the_call_can_be_made_again(name: str) -> None:
    new = np.arange(40_000, dtype=np.float32)
    line, came_so_far = 0, True
    while came_so_far:
        line += 1
        target, live = numbered(2500, 2400)
        if name != "settle":
            target.mark_committed(target.dirty_blocks(live))
        before = target.values.copy()
        arguments = {
            "stage": (2400, new.size, new),
            "settle": (live,),
            "set": (np.array([5, 2300]), floats(7, 8)),
        }
        call = partial(getattr(target, name), *arguments[name])
        came_so_far = interrupted_at(line, call)
        if came_so_far:
            changed = np.flatnonzero(target.values != before) // BLOCK_SLOTS
            assert target._dirty[changed].all()  # or no commit would write them
            call()
        expected = np.arange(2400)
        if name == "stage":
            live, expected = live.until(42_400), new[-2500:]
        elif name == "set":
            expected[[5, 2300]] = [7, 8]
        assert target.live_values(live).tolist() == expected.tolist()
        assert sorted(target.dirty_blocks(live)) == ([0, 2] if name == "set" else [0, 1, 2])
    assert line > {"stage": 5, "settle": 10, "set": 3}[name]

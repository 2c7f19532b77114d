"""The tree of the priorities: it follows them, without left-out slots, and after interrupts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from interrupted import interrupted_at
from sampling import mass, new_priorities, of_ones, stage, tree_bytes, written

from diskreplay import DamageError
from diskreplay.live_range import LiveRange
from diskreplay.sampling import Priorities, checked_priorities, priorities_nbytes
from diskreplay.sampling.prioritized import PrioritizedSampler
from diskreplay.sampling.slot_table import PART_SLOTS


def masses(target: Priorities, live: LiveRange, slots: list[int]) -> list[float]:
    target.settle(live)
    return target.tree.masses(slots).tolist()


def test_the_memory_is_that_of_table_and_tree() -> None:
    target = new_priorities(100_000)
    arrays = [*target.tree._levels, target.values, target._dirty, target._staged]
    assert target.nbytes == pytest.approx(sum(array.nbytes for array in arrays), rel=1e-3)
    assert target.nbytes == priorities_nbytes(100_000)
    target.stage(0, 50_000, None)
    arrays[-1] = target._staged
    assert target.nbytes == pytest.approx(sum(array.nbytes for array in arrays), rel=1e-3)


def test_more_slots_than_are_worked_on_in_one_step() -> None:
    capacity, count = PART_SLOTS + 5000, 2 * PART_SLOTS
    target, live = new_priorities(capacity), LiveRange(capacity, 0, count)
    new = checked_priorities(np.random.default_rng(3).exponential(size=count), count)
    target.stage(0, count, new)
    assert np.array_equal(target.live_values(live), new[live.first :])
    target.check(live)
    other = new_priorities(capacity)
    other.load(target.dirty_blocks(live), live)
    assert tree_bytes(other.tree) == tree_bytes(target.tree)


@pytest.mark.parametrize("capacity", [1000, 10_000])  # a loaded block is all, or little of it
def test_slots_of_a_loaded_block_that_are_not_live_have_no_mass(capacity: int) -> None:
    target, live = new_priorities(capacity), LiveRange(capacity, 100, 700)
    stage(target, 0, [1.0] * 600)
    target.check(LiveRange(capacity, 0, 600))
    target.clear(100)
    stored = checked_priorities(np.linspace(1, 2, 1000), 1000)
    target.load({0: stored.tobytes()}, live)  # it has values of the time before the clear, too
    target.check(live)
    found = target.tree.masses(np.arange(1000)).tolist()
    expected = [mass(p) if 100 <= slot < 700 else 0.0 for slot, p in enumerate(stored)]
    assert found == pytest.approx(expected, rel=1e-15)


def test_a_slot_that_was_left_out_has_no_mass_until_it_is_written_over() -> None:
    for others in (1, 30):
        (writer, live), (reader, _) = of_ones(64), of_ones(64)
        reader.load(writer.dirty_blocks(live), live)
        for each in (writer, reader):
            each.leave_out(np.array([0, 5]), live)
            each.leave_out(np.array([63]), live)
            assert masses(each, live, [0, 4, 5, 63]) == [0.0, mass(1.0), 0.0, 0.0]
            each.update(np.array([5, 4]), np.array([3.0, 3.0], np.float32), live)
            assert masses(each, live, [0, 4, 5]) == [0.0, mass(3.0), 0.0]
            each.mark_broken()
            each.check(live)
            assert masses(each, live, [0, 4, 5]) == [0.0, mass(3.0), 0.0]
        writer.stage(64, others, np.ones(others, np.float32))
        live = live.until(64 + others)
        reader.load(writer.dirty_blocks(live), live)
        for each in (writer, reader):
            expected = [mass(1.0), mass(1.0) if others > 5 else 0.0, 0.0]
            assert masses(each, live, [0, 5, 63]) == expected
            each.check(live)


def test_check_finds_a_tree_that_is_not_that_of_the_priorities() -> None:
    target, live = of_ones(10)
    target.check(live)
    target.values[3] = 2.0
    with pytest.raises(DamageError, match=r"priorities of 1 slot \(the first: 3\)"):
        target.check(live)
    target.values[3] = 1.0
    target.check(live)
    with pytest.raises(DamageError, match="masses of 2 slots without a transition"):
        target.check(LiveRange(10, 2, 10))


def test_a_tree_that_is_not_trusted_is_built_again_once() -> None:
    target, live = new_priorities(9000), LiveRange(9000, 0, 9000)
    stage(target, 0, list(range(9000)))
    block = dict(target.dirty_blocks(live))[3]
    ways: list[Callable[[], object]] = [
        lambda: PrioritizedSampler(target).draw(5, live, np.random.default_rng(0)),
        lambda: target.update(np.array([7]), np.ones(1, np.float32), live),
        lambda: target.load({3: block}, live),
    ]
    for way in ways:
        target.tree._levels[2][50:] = 7.0
        with pytest.raises(DamageError, match="is not left"):
            target.check(live)
        target.mark_broken()
        way()
        target.check(live)
    target.mark_broken()
    target.check(LiveRange(9000, 10, 8000))  # the others have no mass left
    target.clear(9000)
    target.tree._levels[-1][:] = 7.0
    with pytest.raises(DamageError, match="is not left"):
        target.check(LiveRange(9000, 9000, 9000))


@pytest.mark.parametrize("name", ["settle", "update", "load", "leave_out", "clear"])
def test_an_interrupt_at_any_line_leaves_tree_and_priorities_agreeing(name: str) -> None:
    def prepared() -> tuple[Priorities, LiveRange, Callable[[], object]]:
        target, live = written(5000, 7000, seed=2)
        target.leave_out(np.array([2500, 2001, 2002]), live)
        target.mark_committed(target.dirty_blocks(live))
        ids, new = np.array([3000, 6999]), np.array([0.5, 40.0], np.float32)
        later = live.until(7003)  # write ids 2000 to 2002 are evicted, two of which were left out
        if name == "settle":
            stage(target, 7000, [4.0, 5.0, 6.0])
        block = np.concatenate([target.values[2000:2003], np.arange(997)]).astype("<f4").tobytes()
        return {
            "settle": (target, later, partial(target.settle, later)),
            "update": (target, live, partial(target.update, ids, new, live)),
            "load": (target, later, partial(target.load, {2: block}, later)),
            "leave_out": (target, live, partial(target.leave_out, ids, live)),
            "clear": (target, live, partial(target.clear, 7000)),
        }[name]

    twin, _, call = prepared()
    call()
    line, came_so_far = 0, True
    while came_so_far:
        line += 1
        target, live, call = prepared()
        came_so_far = interrupted_at(line, call)
        if came_so_far:
            target.check(live)
            call()
        target.check(LiveRange(5000, 7000, 7000) if name == "clear" else live)
        assert tree_bytes(target.tree) == tree_bytes(twin.tree)
        assert target.values.tobytes() == twin.values.tobytes()
        assert target._left_out == twin._left_out
    assert line > 10

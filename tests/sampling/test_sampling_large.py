"""Trees and tables beyond the sizes from which they work in other ways."""

from __future__ import annotations

import numpy as np
import pytest
from common import columns
from sampling import new_priorities, tree_bytes

from diskreplay import PrioritizedReplayBuffer, SumTree
from diskreplay.live_range import LiveRange
from diskreplay.sampling import checked_priorities
from diskreplay.sampling.slot_table import PART_SLOTS


@pytest.mark.parametrize("leaves", [1024, 1025, 5000, 70_000])
def test_each_of_many_leaves_begins_at_its_left_edge(leaves: int) -> None:
    tree = SumTree(leaves)
    tree.fill(0, np.ones(leaves))
    edges = np.arange(leaves)
    assert tree.find(edges)[0].tolist() == edges.tolist()
    assert tree.find(np.nextafter(edges + 1.0, 0.0))[0].tolist() == edges.tolist()


@pytest.mark.parametrize("leaves", [3, 1000, 1025, 5000, 70_000])
def test_a_value_is_found_where_the_sums_of_whole_numbers_say(leaves: int) -> None:
    generator = np.random.default_rng(leaves)
    masses = generator.integers(0, 5, leaves).astype(float)
    tree = SumTree(leaves)
    tree.fill(0, masses)
    ends = masses.cumsum()
    values = np.concatenate([ends[:-1], ends - 1, generator.random(1000) * ends[-1]])
    values = np.concatenate([values, [-1.0, 0.0, ends[-1], np.inf]])
    within = values.clip(0.0, np.nextafter(ends[-1], 0.0))
    expected = ends.searchsorted(within, side="right")
    slots, found = tree.find(values)
    assert slots.tolist() == expected.tolist()
    assert found.tolist() == masses[expected].tolist()
    some = slice(None, None, max(1, values.size // 1000))
    assert [tree._walk(value) for value in within[some]] == expected[some].tolist()


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


def test_a_commit_writes_the_blocks_that_changed_and_no_others() -> None:
    with PrioritizedReplayBuffer(5000, commit_interval=1e9) as buffer:
        buffer.extend(**columns(0, 5000))
        buffer.flush()
        [priorities] = buffer._guard.replica.tables
        live = LiveRange(5000, 0, 5000)
        assert dict(priorities.dirty_blocks(live)) == {}
        buffer.update_priorities([2500, 4999], [2.0, 3.0])
        assert sorted(priorities.dirty_blocks(live)) == [2, 4]
        buffer.flush()
        assert dict(priorities.dirty_blocks(live)) == {}

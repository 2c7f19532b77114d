"""Trees and samplers beyond the sizes from which they work in other ways."""

from __future__ import annotations

import numpy as np
import pytest
from common import columns
from sampling import append, mass, sampler

from diskreplay import PrioritizedReplayBuffer, SumTree
from diskreplay.sampling.priorities import checked_priorities
from diskreplay.sampling.prioritized import _WAITING_KEPT


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


def test_new_priorities_of_any_number_wait_unchanged_for_the_next_draw() -> None:
    generator = np.random.default_rng(3)
    target, parts, first = sampler(100_000), [], 0
    for n in (_WAITING_KEPT - 1, 1, 1, 100, 2 * _WAITING_KEPT, 3 * _WAITING_KEPT):
        parts.append(generator.exponential(size=n).astype(np.float32))
        target.hold(first, n, parts[-1])
        first += n
    assert np.array_equal(target.live_priorities(0, first), np.concatenate(parts))
    target.check(0, first)
    assert target.max_priority == max(part.max() for part in parts)
    assert target._waiting.size == _WAITING_KEPT  # what more it took is given back


def test_a_changed_block_of_many_gives_no_mass_to_slots_that_are_not_live() -> None:
    target = sampler(10_000)
    append(target, 0, [1.0] * 600)
    target.check(0, 600)
    target.clear(100)
    stored = checked_priorities(np.linspace(1, 2, 1000), 1000)
    target.load_blocks({0: stored.tobytes()}, 100, 700)  # it holds those of before, too
    target.check(100, 700)
    found = target._tree.masses(np.arange(1000))
    assert not found[:100].any()
    assert found[100:700].tolist() == pytest.approx([mass(p) for p in stored[100:700]])
    assert not found[700:].any()


def test_a_commit_writes_the_blocks_that_changed_and_no_others() -> None:
    with PrioritizedReplayBuffer(5000, commit_interval=1e9) as buffer:
        buffer.extend(**columns(0, 5000))
        buffer.flush()
        assert dict(buffer._sampler.dirty_blocks(0, 5000)) == {}
        buffer.update_priorities([2500, 4999], [2.0, 3.0])
        assert sorted(buffer._sampler.dirty_blocks(0, 5000)) == [2, 4]
        buffer.flush()
        assert dict(buffer._sampler.dirty_blocks(0, 5000)) == {}

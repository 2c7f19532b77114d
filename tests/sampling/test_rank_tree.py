"""The classes of a rank tree against naive ones, and the shares of ranks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling import EPSILON

from diskreplay import DamageError
from diskreplay.live_range import LiveRange
from diskreplay.sampling import DrawBasis, Priorities, PrioritySettings, RandomStream, new_seed
from diskreplay.sampling.rank_based import RankBased, RankBasedSampler
from diskreplay.sampling.rank_tree import RankTree, classes_of


def members(tree: RankTree) -> dict[int, list[int]]:
    """Return the slots of each class, ascending, from the masses alone."""
    found: dict[int, list[int]] = {}
    for slot, number in enumerate(classes_of(tree.masses(range(tree.capacity))).tolist()):
        if number:
            found.setdefault(number, []).append(slot)
    return found


def assert_finds_all(tree: RankTree) -> None:
    tree.check()
    expected = members(tree)
    sizes = tree.class_sizes()
    assert {number: len(slots) for number, slots in expected.items()} == {
        number: sizes[number] for number in np.flatnonzero(sizes)
    }
    numbers = [(number, place) for number, slots in expected.items() for place in range(len(slots))]
    classes, places = np.array(numbers, np.int64).reshape(-1, 2).T
    found = tree.find_in_classes(classes, places).tolist()
    assert found == [slot for slots in expected.values() for slot in slots]


masses = st.sampled_from([0.0, 0.0, 1e-12, 0.1, 0.101, 1.0, 1.03, 2.0, 7.0, 1e12])
changes = st.one_of(
    st.just("clear"),
    st.tuples(st.integers(0, 69), st.lists(masses, min_size=1, max_size=70)),
    st.lists(st.tuples(st.integers(0, 69), masses), min_size=1, max_size=20),
)


@given(st.lists(changes, max_size=8), st.integers(1, 70))
def test_classes_follow_any_changes(steps: list[Any], capacity: int) -> None:
    tree = RankTree(capacity)
    for step in steps:
        if step == "clear":
            tree.clear()
        elif isinstance(step, tuple):
            begin = step[0] % capacity
            tree.fill(begin, np.array(step[1][: capacity - begin]))
        else:
            slots, values = zip(*step, strict=True)
            tree.set([slot % capacity for slot in slots], values)
        assert_finds_all(tree)


@pytest.mark.parametrize("capacity", [1024, 1025, 32 * 1024, 32 * 1024 + 1, 40_000])
def test_slots_are_found_in_trees_of_any_height(capacity: int) -> None:
    tree, generator = RankTree(capacity), np.random.default_rng(capacity)
    tree.fill(0, generator.choice([0.0, 0.5, 1.0, 8.0], capacity))
    assert_finds_all(tree)
    slots = generator.integers(0, capacity, 3000)  # some of them twice
    tree.set(slots, generator.choice([0.0, 1.0, 3.0], slots.size))
    assert_finds_all(tree)
    tree.fill(0, np.ones(capacity))
    assert_finds_all(tree)


def test_classes_are_of_masses_that_differ_little() -> None:
    values = 2.0 ** np.linspace(-31.9, 31.9, 200_000)
    numbers = classes_of(values)
    assert (np.diff(numbers) >= 0).all()
    assert (np.diff(numbers) <= 1).all()
    borders = np.flatnonzero(np.diff(numbers)) + 1
    ratios = values[borders[1:] - 1] / values[borders[:-1]]
    assert ratios.max() < 1 + 1 / 32
    ends = classes_of(np.array([0.0, 5e-324, 1e-30, 2.0**-33, 2.0**33, 1e38, 1e295]))
    assert ends.tolist() == [0, 1, 1, 1, 2047, 2047, 2047]


def test_a_check_tells_what_is_wrong() -> None:
    tree = RankTree(100)
    tree.fill(0, np.ones(100))
    tree._classes[3] += 1
    with pytest.raises(DamageError, match="a slot of the tree is in a wrong class"):
        tree.check()
    tree._classes[3] -= 1
    tree._counts[0][5, 0] += 1
    with pytest.raises(DamageError, match="the counts of a class of masses are wrong"):
        tree.check()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0, 1.0 + 1e-12, 2.0, 10.0])
def test_the_shares_of_ranks_are_sums_of_their_formula(alpha: float) -> None:
    sampler = RankBasedSampler(Priorities(1, alpha=1.0, epsilon=EPSILON, tree=RankTree), alpha)
    each = np.arange(1.0, 100_001) ** -alpha
    borders = np.array([0, 1, 2, 700, 1023, 1024, 1025, 1026, 5000, 50_000, 99_999, 100_000])
    found = sampler._masses(borders[:-1], borders[1:])
    expected = [each[a:b].sum() for a, b in itertools.pairwise(borders)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_updates_evictions_and_damage_change_the_ranks() -> None:
    distribution, live = RankBased(1.0), LiveRange(4, 0, 6, keep_rows=2)
    table = distribution.table(live.ring_slots, PrioritySettings(epsilon=EPSILON))
    sampler = distribution.sampler(DrawBasis(table))

    def shares() -> dict[int, float]:
        stream = RandomStream(new_seed(1))
        draws = [sampler.draw(8, live, stream.of_draw(number)) for number in range(50)]
        pairs = [pair for ids, p in draws for pair in zip(ids.tolist(), p.tolist(), strict=True)]
        assert len(set(pairs)) == len({i for i, _ in pairs})
        return dict(sorted(pairs))

    table.stage(0, 6, np.array([9.0, 8.0, 1.0, 2.0, 3.0, 4.0], np.float32))
    total = 1 + 1 / 2 + 1 / 3 + 1 / 4
    expected = {2: 1 / 4, 3: 1 / 3, 4: 1 / 2, 5: 1.0}
    assert shares() == pytest.approx({i: share / total for i, share in expected.items()})
    assert sampler.total_mass(live) == pytest.approx(total)
    table.update(np.array([2, 3]), np.array([1e9, 3.0], np.float32), live)
    tied = (1 / 3 + 1 / 4) / 2
    expected = {2: 1.0, 3: tied, 4: tied, 5: 1 / 2}
    assert shares() == pytest.approx({i: share / total for i, share in expected.items()})
    sampler.leave_out(np.array([2]), live)
    table.stage(6, 1, np.array([5.0], np.float32))
    live = live.until(7)  # 3 to 6
    table.check(live)
    expected = {3: tied, 4: tied, 5: 1 / 2, 6: 1.0}
    assert shares() == pytest.approx({i: share / total for i, share in expected.items()})

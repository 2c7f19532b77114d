"""SumTree: plain tests first, then a naive twin under random operations, then the edges."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from sampling import STEPS, use_steps

from diskreplay import ArgumentError, DamageError, PriorityError, SampleError, SumTree
from diskreplay.sampling import sum_tree

ULP = 2.0**-52  # the spacing of float64 in [1, 2)


@pytest.fixture(scope="module", params=[1, 1024], autouse=True)
def _wide(request: pytest.FixtureRequest) -> Iterator[None]:
    """Search small trees as large ones, level by level, and as they are, all nodes at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sum_tree, "_WIDE", request.param)
        yield


@pytest.fixture(scope="module", params=STEPS, autouse=True)
def _steps(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test with numpy, and where numba is with the compiled functions."""
    with pytest.MonkeyPatch.context() as patch:
        use_steps(patch, STEPS[request.param])
        yield


def masses_of(tree: SumTree) -> list[float]:
    return tree.masses(np.arange(tree.capacity)).tolist()


def filled(masses: list[float]) -> SumTree:
    tree = SumTree(len(masses))
    tree.set(range(len(masses)), masses)
    return tree


# One operation at a time


def test_an_empty_tree_has_nothing_to_draw() -> None:
    tree = SumTree(5)
    assert (tree.total_priority, tree.max_priority, tree.min_priority) == (0.0, 0.0, 0.0)
    assert masses_of(tree) == [0.0] * 5
    with pytest.raises(SampleError, match="no slot of the tree has a mass above zero"):
        tree.get(0.0)
    tree.set([0, 4], [0.0, 0.0])
    with pytest.raises(SampleError, match="nothing to draw"):
        tree.find([0.0])
    tree.check()


def test_add_returns_the_slots_in_order_and_overwrites_the_oldest_when_full() -> None:
    tree = SumTree(3)
    assert [tree.add(float(i + 1), f"data {i}") for i in range(3)] == [0, 1, 2]
    assert tree.total_priority == 6.0
    assert tree.get(0.5) == (0, 1.0, "data 0")
    assert tree.get(5.9) == (2, 3.0, "data 2")
    assert [tree.add(float(i + 1), i) for i in range(3, 7)] == [0, 1, 2, 0]
    assert masses_of(tree) == [7.0, 5.0, 6.0]
    assert [tree.get(value)[2] for value in (0.0, 7.0, 12.0)] == [6, 4, 5]
    tree.check()


def test_data_is_returned_itself_and_kept_when_the_mass_changes() -> None:
    tree, data = SumTree(3), object()
    tree.add(1.0, data)
    tree.update(0, 5.0)
    tree.set([0], [7.0])
    assert tree.get(3.0)[:2] == (0, 7.0)
    assert tree.get(3.0)[2] is data
    tree.update(2, 1.0)  # set, and never added
    assert tree.get(7.5) == (2, 1.0, None)


def test_a_large_set_with_duplicates_equals_one_by_one() -> None:
    generator = np.random.default_rng(1)
    slots, masses = generator.integers(0, 70_000, 3000), generator.random(3000)
    at_once, one_by_one = SumTree(70_000), SumTree(70_000)
    at_once.set(slots, masses)
    for slot, mass in zip(slots.tolist(), masses.tolist(), strict=True):
        one_by_one.update(slot, mass)
    assert at_once.total_priority == one_by_one.total_priority
    assert masses_of(at_once) == masses_of(one_by_one)
    at_once.check()


def test_setting_and_finding_nothing_does_nothing() -> None:
    tree = filled([1.0, 2.0])
    tree.set([], [])
    assert [array.size for array in tree.find([])] == [0, 0]
    assert masses_of(tree) == [1.0, 2.0]


def test_clear_forgets_masses_data_and_position() -> None:
    tree = SumTree(3)
    for i in range(4):
        tree.add(1.0, i)
    tree.clear()
    assert (tree.total_priority, tree.max_priority, tree.min_priority) == (0.0, 0.0, 0.0)
    tree.update(1, 2.0)
    assert tree.get(0.0) == (1, 2.0, None)
    assert tree.add(4.0, "new") == 0
    tree.check()


def test_min_and_max_of_a_large_tree_are_found_in_each_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sum_tree, "_PART", 8)
    for slot in range(33):
        for mass, expected in ((0.5, (0.5, 1.0)), (2.0, (1.0, 2.0))):
            tree = filled([1.0] * 33)
            tree.update(slot, mass)
            assert (tree.min_priority, tree.max_priority) == expected


def test_the_tree_takes_16_bytes_a_slot() -> None:
    for capacity in (1000, 65_537, 100_000):
        assert sum(level.nbytes for level in SumTree(capacity)._levels) <= 16.01 * capacity + 100


# What is refused


@pytest.mark.parametrize("capacity", [0, -1, 1.5, "3", None, True])
def test_a_capacity_that_is_no_positive_whole_number_is_refused(capacity: Any) -> None:
    with pytest.raises(ArgumentError, match=r"capacity must be a whole number of at least 1 \(f"):
        SumTree(capacity)


BAD_MASSES = [math.nan, math.inf, -math.inf, -1.0, -5e-324, 1e296]
MASS = r"must be finite and not negative \(found {}\), at most 1e\+295"
BAD_SLOTS: list[tuple[list[Any], str]] = [
    ([0, 5], r"a slot must be in \[0, 5\) \(found 0 to 5\)"),
    ([-1, 0], r"a slot must be in \[0, 5\) \(found -1 to 0\)"),
    ([0, 2**62], r"a slot must be in \[0, 5\)"),
    ([0.0, 1.0], r"slots must be whole numbers \(found float64\)"),
    ([True, False], r"slots must be whole numbers \(found bool\)"),
]
BAD_SHAPES = [([0, 1], [1.0]), ([0], [1.0, 2.0]), ([0, 1], 1.0), ([[0], [1]], [1, 2])]
REFUSED: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
    *(("add", (m,), PriorityError, MASS.format(re.escape(str(m)))) for m in BAD_MASSES),
    *(("update", (2, m), PriorityError, MASS.format(re.escape(str(m)))) for m in BAD_MASSES),
    *(("set", ([0, 1], [9, m]), PriorityError, MASS.format(re.escape(str(m)))) for m in BAD_MASSES),
    *(("set", (slots, [7.0, 8.0]), ArgumentError, message) for slots, message in BAD_SLOTS),
    *(("masses", (slots,), ArgumentError, message) for slots, message in BAD_SLOTS),
    *(("set", both, ArgumentError, "one mass for each slot") for both in BAD_SHAPES),
    ("find", ([0.0, math.nan],), ArgumentError, "cannot find NaN"),
    ("get", (math.nan,), ArgumentError, "cannot find NaN"),
]


@pytest.mark.parametrize(("name", "arguments", "error", "message"), REFUSED)
def test_a_refused_call_changes_nothing(
    name: str, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    tree = filled([1.0, 2.0, 3.0, 0.0, 5.0])
    tree.add(1.0, "kept")
    before = [level.tobytes() for level in tree._levels]
    with pytest.raises(error, match=message):
        getattr(tree, name)(*arguments)
    assert [level.tobytes() for level in tree._levels] == before
    assert tree.add(2.0) == 1
    tree.check()


def test_the_total_of_the_largest_masses_is_a_number() -> None:
    tree = filled([1e295] * 1000)
    assert tree.total_priority < math.inf
    assert tree.find([0.4995 * tree.total_priority])[0].tolist() == [499]
    tree.check()


# Against a naive twin


class Twin:
    """The same contract with a list and a linear scan. Only the sum keeps the order of a tree."""

    def __init__(self, capacity: int) -> None:
        self.masses = [0.0] * capacity
        self.data: dict[int, Any] = {}
        self.next = 0

    def add(self, mass: float, data: Any) -> int:
        slot = self.next
        self.masses[slot], self.data[slot] = mass, data
        self.next = (slot + 1) % len(self.masses)
        return slot

    @property
    def total(self) -> float:
        sums = self.masses
        while len(sums) > 1:
            sums = [sum(sums[i : i + 2]) for i in range(0, len(sums), 2)]
        return sums[0]

    def find(self, value: float) -> int:
        """Scan from the left. Exact where the masses have few bits."""
        value, seen = min(max(value, 0.0), math.nextafter(self.total, 0.0)), 0.0
        for slot, mass in enumerate(self.masses):
            if mass > 0.0 and value < seen + mass:
                return slot
            seen += mass
        raise AssertionError("a value below the total is on some leaf")


few_bits = st.integers(0, 2**20).map(lambda n: n / 256.0)
parts = st.floats(-0.25, 1.25) | st.sampled_from([0.0, 1.0, 5e-324, math.nextafter(1.0, 0.0)])
places = st.integers(0, 10_000)


class TreeAndTwin(RuleBasedStateMachine):
    @initialize(capacity=st.integers(1, 70))
    def start(self, capacity: int) -> None:
        self.capacity, self.tree, self.twin = capacity, SumTree(capacity), Twin(capacity)

    @rule(mass=few_bits, data=st.integers())
    def add(self, mass: float, data: int) -> None:
        assert self.tree.add(mass, data) == self.twin.add(mass, data)

    @rule(place=places, mass=few_bits)
    def update(self, place: int, mass: float) -> None:
        self.tree.update(place % self.capacity, mass)
        self.twin.masses[place % self.capacity] = mass

    @rule(pairs=st.lists(st.tuples(places, few_bits), max_size=60))
    def set(self, pairs: list[tuple[int, float]]) -> None:
        slots = [place % self.capacity for place, _ in pairs]
        self.tree.set(slots, [mass for _, mass in pairs])
        for slot, (_, mass) in zip(slots, pairs, strict=True):
            self.twin.masses[slot] = mass

    @rule()
    def clear(self) -> None:
        self.tree.clear()
        self.twin = Twin(self.capacity)

    @rule(parts=st.lists(parts, min_size=1, max_size=30))
    def get_and_find(self, parts: list[float]) -> None:
        if self.twin.total == 0.0:
            return
        values = [part * self.twin.total for part in parts]
        slots, masses = self.tree.find(values)
        expected = [self.twin.find(value) for value in values]
        assert slots.tolist() == expected
        assert masses.tolist() == [self.twin.masses[slot] for slot in expected]
        assert self.tree.get(values[0]) == (
            expected[0],
            self.twin.masses[expected[0]],
            self.twin.data.get(expected[0]),
        )

    @invariant()
    def equal(self) -> None:
        self.tree.check()
        assert masses_of(self.tree) == self.twin.masses
        assert self.tree.total_priority == self.twin.total
        used = [mass for mass in self.twin.masses if mass > 0.0]
        assert self.tree.max_priority == max(used, default=0.0)
        assert self.tree.min_priority == min(used, default=0.0)


def test_random_operations_agree_with_a_naive_twin() -> None:
    run_machine(TreeAndTwin, settings=settings(stateful_step_count=30))


def _around(value: float) -> tuple[float, float, float]:
    return math.nextafter(value, -math.inf), value, math.nextafter(value, math.inf)


wild = st.one_of(
    st.just(0.0),
    st.floats(1.0, 10.0).flatmap(lambda x: st.integers(-300, 293).map(lambda e: x * 10.0**e)),
    st.integers(1, 60).flatmap(lambda k: st.integers(0, 7).map(lambda m: (8 + m) * 2.0**-k)),
    st.floats(0.0, 1e-307),
)


@given(st.lists(wild, min_size=1, max_size=70).filter(any), st.lists(parts, max_size=20))
def test_masses_of_any_magnitude_are_found_where_they_lie(
    masses: list[float], parts: list[float]
) -> None:
    tree, twin = filled(masses), Twin(len(masses))
    twin.masses = masses
    total = twin.total
    assert tree.total_priority == total
    tree.check()
    edges = [0.0, *itertools.accumulate(map(Fraction, masses))]
    near = [around for edge in edges for around in _around(float(edge))]
    values = [*near, *(part * total for part in parts)]
    slots, found = tree.find(values)
    assert (found > 0.0).all()
    slack = Fraction(total) / 2**46 + Fraction(5e-324) * 16
    for value, slot in zip(values, slots.tolist(), strict=True):
        value = min(max(value, 0.0), total)
        assert edges[slot] - slack <= Fraction(value) <= edges[slot + 1] + slack


# The edges


def test_a_slot_out_of_use_is_never_found_at_either_edge_of_any_capacity() -> None:
    generator = np.random.default_rng(3)
    for capacity, round_ in itertools.product(range(1, 71), range(30)):
        masses = [
            10.0 ** generator.uniform(-300, 294, capacity),
            generator.random(capacity) * 2.0 ** -generator.integers(0, 60, capacity),
            generator.integers(1, 50, capacity) * 5e-324,
        ][round_ % 3]
        used = generator.random(capacity) < generator.random()
        used[generator.integers(capacity)] = True
        tree = SumTree(capacity)
        tree.set(np.flatnonzero(used), masses[used])
        zeroed = np.flatnonzero(~used)[::2]  # the others are never set
        tree.set(zeroed, masses[zeroed])
        tree.set(zeroed, np.zeros(zeroed.size))
        total = tree.total_priority
        edges = np.cumsum(np.where(used, masses, 0.0))
        values = [0.0, -1.0, 5e-324, 1e-310, *_around(total), 2.0 * total]
        values += [*edges, *np.nextafter(edges, 0.0), *(generator.random(50) * total)]
        slots, found = tree.find(values)
        assert used[slots].all(), capacity
        assert (found == masses[slots]).all(), capacity
        assert slots[:2].tolist() == [np.flatnonzero(used)[0]] * 2, capacity


def test_a_descent_that_rounding_drives_into_an_empty_leaf_is_walked_again() -> None:
    # 1.5 + 1.5 ulp rounds up to 1.5 + 2 ulp, so the largest value that may be asked for is
    # 1.5 + 1 ulp. Less the 1.5 ulp on the left it rounds to 1.5: all of slot 2, and so beyond it.
    tree = filled([1.5 * ULP, 0.0, 1.5, 0.0])
    assert tree.total_priority == 1.5 + 2 * ULP
    rest = (1.5 + ULP) - tree.masses([0])[0]
    assert rest >= tree.masses([2])[0]
    assert tree.get(tree.total_priority) == (2, 1.5, None)
    assert tree.find([0.0, 1.5 + ULP, 1.0])[0].tolist() == [0, 2, 2]


def test_a_descent_that_rounding_drives_past_the_last_slot_is_walked_again() -> None:
    for capacity in range(2, 71):
        for last in range(1, capacity):
            tree = SumTree(capacity)
            tree.set([0, last], [1.5 * ULP, 1.5])
            assert tree.find([tree.total_priority, 1.5 + ULP])[0].tolist() == [last, last]


@pytest.mark.parametrize("leaves", [3, 1024, 1025, 70_000])
def test_a_value_is_found_where_the_sums_of_whole_numbers_say(leaves: int) -> None:
    generator = np.random.default_rng(leaves)
    masses = generator.integers(0, 5, leaves).astype(float)
    tree = SumTree(leaves)
    tree.fill(0, masses)
    ends = masses.cumsum()
    values = np.concatenate([ends, ends - 1, np.nextafter(ends, 0.0), [-1.0, 0.0, np.inf]])
    values = np.concatenate([values, generator.random(1000) * ends[-1]])
    within = values.clip(0.0, np.nextafter(ends[-1], 0.0))
    expected = ends.searchsorted(within, side="right")
    slots, found = tree.find(values)
    assert slots.tolist() == expected.tolist()
    assert found.tolist() == masses[expected].tolist()
    some = slice(None, None, max(1, values.size // 1000))
    assert [tree._walk(value) for value in within[some]] == expected[some].tolist()


# check() finds what is planted


@pytest.mark.parametrize("part", [4, 1 << 20])
def test_check_finds_a_planted_fault_in_every_node_of_every_level(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sum_tree, "_PART", part)
    for height in range(1, 5):
        for node in range(-(-11 // 2**height)):
            tree = filled([float(i + 1) for i in range(11)])
            tree.check()
            level = tree._levels[height]
            level[node] = np.nextafter(level[node], np.inf)
            with pytest.raises(DamageError, match=f"node {node} of level {height} is not left [+]"):
                tree.check()


@pytest.mark.parametrize(
    ("slots", "value", "message"),
    [
        ([3], -1.0, "a mass is negative, NaN or infinite"),
        ([10], np.nan, "a mass is negative, NaN or infinite"),
        ([11], 1.0, "a leaf beyond the capacity has a mass"),
        ([3], 2.0, "node 1 of level 1 is not left [+] right"),
        ([3, 8], 2.0, "node 1 of level 1 .*; node 4 of level 1 "),  # all faults together
    ],
)
def test_check_finds_planted_faults_in_the_leaves(
    slots: list[int], value: float, message: str
) -> None:
    tree = filled([float(i + 1) for i in range(11)])
    tree._levels[0][slots] = value
    with pytest.raises(DamageError, match=message):
        tree.check()


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

"""Some spans of a sum-tree, against a naive search."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diskreplay import SumTree
from diskreplay.sampling.tree_part import TreePart


@st.composite
def trees(draw: Any) -> tuple[SumTree, list[float], list[slice]]:
    capacity = draw(st.integers(1, 70))
    mass = st.sampled_from([0.0, 1e-9, 0.1, 1.0, 3.0, 1e12])
    masses = draw(st.lists(mass, min_size=capacity, max_size=capacity))
    borders = sorted(draw(st.sets(st.integers(0, capacity), max_size=6)))
    spans = [slice(a, b) for a, b in zip(borders[::2], borders[1::2], strict=False)]
    tree = SumTree(capacity)
    tree.set(range(capacity), masses)
    return tree, masses, spans


@given(trees(), st.lists(st.floats(0, 1), max_size=20))
def test_values_fall_on_leaves_of_the_spans(
    case: tuple[SumTree, list[float], list[slice]], places: list[float]
) -> None:
    tree, masses, spans = case
    parts = [tree.part(spans)]  # of a small tree, these are slots
    for highest in range(1, len(tree._levels)):
        parts.append(TreePart(tree._levels, spans, highest))
    for part in parts:
        assert_finds(part, masses, spans, places)


def assert_finds(
    part: TreePart, masses: list[float], spans: list[slice], places: list[float]
) -> None:
    slots = [slot for span in spans for slot in range(span.start, span.stop)]
    total = sum(masses[slot] for slot in slots)
    np.testing.assert_allclose(part.total_priority, total, rtol=1e-12)
    if total == 0.0:
        return
    values = np.array(places) * part.total_priority
    found, found_masses = part.find(values)
    assert set(found.tolist()) <= set(slots)
    assert found_masses.tolist() == [masses[slot] for slot in found.tolist()]
    assert (found_masses > 0.0).all()
    ends = np.cumsum([masses[slot] for slot in slots])
    for value, slot in zip(values.tolist(), found.tolist(), strict=True):
        end = float(ends[slots.index(slot)])
        near = 1e-12 * total  # where a value is at the end of a leaf, the last bit decides
        assert end - masses[slot] - near <= value <= end + near


def test_a_small_part_of_a_large_tree_keeps_its_digits() -> None:
    tree = SumTree(1 << 12)
    tree.set(range(1 << 12), [1e15] * 2000 + [1e-6, 2e-6, 3e-6] + [1e15] * 2093)
    part = tree.part([slice(2000, 2003)])
    assert part.total_priority == 1e-6 + 2e-6 + 3e-6
    slots, masses = part.find(np.array([0.5e-6, 1.5e-6, 3.5e-6]))
    assert slots.tolist() == [2000, 2001, 2002]
    assert masses.tolist() == [1e-6, 2e-6, 3e-6]


def test_a_value_between_two_leaves_falls_on_the_second() -> None:
    tree = SumTree(8)
    tree.set(range(8), [9.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 9.0])
    part = tree.part([slice(1, 7)])
    assert part.find(np.arange(4.0))[0].tolist() == [1, 4, 5, 6]
    assert part.find(np.array([4.0]))[0].tolist() == [6]  # moved to the end

"""Nested values of any structure, for Hypothesis, and the fields that they have."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

KEYS = st.text(min_size=1, max_size=4).filter(lambda k: k.isprintable() and not set(".[]") & set(k))
ARRAYS = st.tuples(
    st.sampled_from(["u1", "i4", "f4", "f8", "?"]), st.lists(st.integers(0, 3), max_size=2)
).map(lambda given: np.ones(given[1], given[0]))


def groups(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(KEYS, parts, min_size=1, max_size=4) | st.lists(
        parts, min_size=1, max_size=4
    ).map(tuple)


VALUES = st.recursive(ARRAYS, groups, max_leaves=12)


def fields_in(root: str, value: Any) -> dict[str, Any]:
    """Return the fields of a value by flat names, also of tuples that would be one array."""
    found: dict[str, Any] = {}

    def add(name: str, part: Any) -> None:
        if isinstance(part, dict):
            for key, inner in part.items():
                add(f"{name}.{key}", inner)
        elif isinstance(part, tuple):
            for place, inner in enumerate(part):
                add(f"{name}[{place}]", inner)
        else:
            found[name] = (part.dtype, part.shape)

    add(root, value)
    return found

"""Nested values of any structure, through a buffer and a store, against what was pushed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from nested_rows import assert_same, each
from nested_values import VALUES, fields_in

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


@settings(max_examples=40)
@given(VALUES, VALUES, st.sampled_from(KINDS))
def test_any_structure_is_pushed_extended_and_read(state: Any, info: Any, kind: Any) -> None:
    def numbered(value: Any, number: int) -> Any:
        return each(value, lambda part: (part * number).astype(part.dtype))

    def column(value: Any, first: int, n: int) -> Any:
        if isinstance(value, dict):
            return {key: column(part, first, n) for key, part in value.items()}
        if isinstance(value, tuple):
            return tuple(column(part, first, n) for part in value)
        return np.stack([numbered(value, number) for number in range(first, first + n)])

    schema = fields_in("state", state) | fields_in("info", info)
    with tempfile.TemporaryDirectory() as place, kind(20, schema=schema) as buffer:
        for number in range(3):
            one, after = numbered(state, number), numbered(state, number + 1)
            buffer.push(one, number, 0.5, after, False, info=numbered(info, number))
        many, after = column(state, 3, 4), column(state, 4, 4)
        zeros = np.zeros(4)
        buffer.extend(many, range(3, 7), zeros, after, zeros, info=column(info, 3, 4))
        buffer.save(Path(place) / "b")
        with diskreplay.open(Path(place) / "b", window_bytes=0) as saved:
            for replay in (buffer, saved):
                batch = replay.get(range(7))
                assert_same(batch.states, column(state, 0, 7))
                assert_same(batch.next_states, column(state, 1, 7))
                assert_same(batch.info, column(info, 0, 7))
                found = replay.get([6], fields=["info", "state"])
                assert_same(found["info"], column(info, 6, 1))
                assert_same([*replay][5].state, numbered(state, 5))

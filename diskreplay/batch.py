"""What a buffer gives back: named tuples of arrays, and of one transition."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from diskreplay.schema import Array

_NO_EXTRA: Mapping[str, Any] = MappingProxyType({})


class _ExperienceFields(NamedTuple):
    state: Any
    action: Any
    reward: Any
    next_state: Any
    done: Any


class Experience(_ExperienceFields):
    """One transition. Extra fields are in `extra`, by name, so that it always unpacks into five.

    >>> state, action, reward, next_state, done = Experience([0.0], 1, 0.5, [1.0], False)
    """

    extra: Mapping[str, Any] = _NO_EXTRA


class _BatchFields(NamedTuple):
    states: Array
    actions: Array
    rewards: Array
    next_states: Array
    dones: Array


class Batch(_BatchFields):
    """n transitions as arrays whose first dimension is n. Extra fields are in `extra`, by name."""

    extra: Mapping[str, Array] = _NO_EXTRA


class _PrioritizedBatchFields(NamedTuple):
    states: Array
    actions: Array
    rewards: Array
    next_states: Array
    dones: Array
    weights: Array
    indices: Array


class PrioritizedBatch(_PrioritizedBatchFields):
    """A Batch with `weights`, float32 (n,), and `indices`, the write ids, int64 (n,)."""

    extra: Mapping[str, Array] = _NO_EXTRA

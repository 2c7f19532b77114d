"""NStepRows: the rows of a batch of n-step returns.

Such a row has fields of two transitions, and the rewards of all between them::

    chain           7 .......... 8 .......... 9
    row             state        reward       reward
                    action                    next_state, done, truncated
                    reward
                    all others
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from diskreplay.aliases import Array, Columns, Ints
from diskreplay.buffer.batch_form import BatchForm
from diskreplay.buffer.rows import Rows
from diskreplay.buffer.stored_rows import RowsPart
from diskreplay.episodes import Chains
from diskreplay.errors import DamageError
from diskreplay.records import LARGE_ROW
from diskreplay.schema import Schema, root_of
from diskreplay.store import Snapshot

_OF_THE_LAST = ("next_state", "done", "truncated")


class _Fields(NamedTuple):
    """The places of the fields that a row takes from the first of a chain, and from the last."""

    first: tuple[int, ...]
    last: tuple[int, ...]
    reward: int


@lru_cache(maxsize=64)
def _fields_of(schema: Schema) -> _Fields:
    roots = [root_of(name) for name in schema.names]
    reward = roots.index("reward")
    last = tuple(place for place, root in enumerate(roots) if root in _OF_THE_LAST)
    first = tuple(place for place in range(len(roots)) if place not in (*last, reward))
    return _Fields(first, last, reward)


class NStepRows:
    """Reads the rows of chains, as Rows and StoredRows read those of write ids.

    form:  of the batch; with Frames only where the schema allows it
    """

    def __init__(self, rows: Rows, form: BatchForm) -> None:
        schema, n_step = rows.schema, form.n_step
        if schema is None or n_step is None:
            raise TypeError("there are no such rows without a schema and n_step")
        self._rows = rows
        self._schema = schema
        self._n_step = n_step
        self._has_frames = form.frames and schema.has_frames
        self._fields = _fields_of(schema)

    def fetch(
        self,
        chains: Chains,
        committed: int,
        snapshot: Snapshot | None,
        out: Columns | None = None,
    ) -> Columns:
        """Return the rows of live chains as columns of all fields, those of `out` if it is given.

        committed:  the write ids from this one on are in the window alone
        """
        if out is None or not self._has_frames:
            return self._fetch_arrays(chains, committed, snapshot, out)
        if self._schema.payload_bytes > LARGE_ROW:
            others = self.take_uncommitted(out, chains, committed, snapshot)
            if not others.size:
                return out
            with contextlib.suppress(DamageError):  # where the window may have the rows
                self.read_into(out, chains.take(others), others, snapshot)
                return out
        whole = self._fetch_arrays(chains, committed, snapshot)
        self._rows.put_whole(out, np.arange(chains.lengths.size), whole)
        return out

    def read_into(
        self,
        columns: Sequence[Any],
        chains: Chains,
        places: Ints,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Read the rows of committed chains from the store into columns, at some places."""
        first, last, reward = self._fields
        rewards = self._rewards(len(columns[reward]))
        if not self._has_frames:
            self._rows.stored.read(self._parts(columns, rewards, chains, places), snapshot)
        else:
            of_rewards = [
                RowsPart([of_step], write_ids, [reward], places)
                for of_step, write_ids in zip(rewards, chains.write_ids, strict=True)
            ]
            self._rows.stored.read(of_rewards, snapshot)
            ends = [(chains.write_ids[0], first), (chains.write_ids[-1], last)]
            parts = [RowsPart([], *end) for end in ends]
            self._rows.stored.read_joined(columns, places, parts, snapshot)
        with np.errstate(over="ignore"):  # a sum beyond float32 is infinite
            columns[reward][places] = self._n_step.returns(rewards[:, places], chains.lengths)

    def take_uncommitted(
        self,
        columns: Columns,
        chains: Chains,
        committed: int,
        snapshot: Snapshot | None = None,
    ) -> Ints:
        """Write the rows that end with an uncommitted transition; return the others' places."""
        is_new = chains.write_ids[-1] >= committed
        places = np.flatnonzero(is_new)
        new: Columns = self._schema.empty_columns(0)
        if places.size:
            new = self._fetch_arrays(chains.take(places), committed, snapshot)
        self._rows.put_whole(columns, places, new)  # also of none: it empties Frames
        return np.flatnonzero(~is_new)

    # Inside

    def _fetch_arrays(
        self,
        chains: Chains,
        committed: int,
        snapshot: Snapshot | None,
        out: Columns | None = None,
    ) -> Columns:
        n, reward = chains.lengths.size, self._fields.reward
        columns = self._schema.empty_columns(n) if out is None else out
        rewards = self._rows.take_chains(columns, chains.write_ids, *self._fields)
        if rewards is None:
            rewards = self._rewards(n)
            self._rows.fetch_parts(self._parts(columns, rewards, chains), committed, snapshot)
        found = self._n_step.returns(rewards, chains.lengths)
        with np.errstate(over="ignore"):  # a sum beyond float32 is infinite
            if out is None:
                columns[reward] = found.astype(self._n_step.dtype_of(rewards.dtype))
            else:
                columns[reward][...] = found
        return columns

    def _rewards(self, n: int) -> Array:
        """Return an array for the rewards of n chains."""
        field = self._schema.fields[self._fields.reward]
        return np.empty((self._n_step.steps, n, *field.shape), field.dtype)

    def _parts(
        self, columns: Sequence[Any], rewards: Array, chains: Chains, places: Ints | None = None
    ) -> list[RowsPart]:
        """Return the parts of rows: one for each step, with its reward.

        So each record is decoded, and checked, once. The first step has the fields of the first
        transition, too, and the last step those of the last one.
        """
        first, last, reward = self._fields
        fields = [first, *[()] * (len(rewards) - 2), last]
        return [
            RowsPart(
                [*(columns[place] for place in of_step), rewards[step]],
                chains.write_ids[step],
                (*of_step, reward),
                places,
            )
            for step, of_step in enumerate(fields)
        ]

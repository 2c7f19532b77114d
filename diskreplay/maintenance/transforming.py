"""Transforming: write a new store of the transitions of another one, with changed fields."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeAlias
from uuid import uuid4

import numpy as np

from diskreplay.aliases import Array, Bools, Columns, Ints, PathLike, Progress
from diskreplay.episodes import LinkValues
from diskreplay.errors import ArgumentError, SchemaError, StorageError
from diskreplay.maintenance.building import StoreBuilder
from diskreplay.maintenance.sources import SoundStore
from diskreplay.schema import STANDARD_FIELDS, Field, Schema, infer_fields, unpacked
from diskreplay.store import (
    ObservationRange,
    Store,
    beside,
    holds_store,
    raising_own_errors,
    real_path,
)
from diskreplay.validation import as_array, checked_path
from diskreplay.wording import shown

Transformation: TypeAlias = Callable[[Mapping[str, Array]], Mapping[str, Any]]

_Columns: TypeAlias = dict[str, Array]

_CHUNK_BYTES = 1 << 20
_LEAST_BYTES = 128  # of a row: a function may add fields to small ones
_VARYING_ROWS = 1024
_KINDS = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}  # a kind converts to itself or a later one


@raising_own_errors
def transform(
    path: PathLike, out: PathLike, function: Transformation, *, progress: Progress | None = None
) -> int:
    """Write the transitions of a store to a new store at `out`, with fields changed by a function.

    The function gets columns, by the names of fields, of some transitions at a time, in the order
    of their write ids. They are arrays that cannot be written to, and of values that vary in size
    arrays of objects. It returns a dictionary of what changes: columns in place of others, columns
    of new fields, and None for a field to remove. A field keeps its type if the new values have its
    shape and their numbers convert to it, as those of a push; otherwise, and of a new field, the
    type is that which a push of the first of them would give. Of a store without transitions the
    function gets columns without rows.

    All else is as in the old store: kind, capacity, write ids, priorities, episodes, runs, notes,
    settings, annealing and random stream. An episode ends where `done` or `truncated` becomes true.
    Marks are dropped, with the evicted transitions that `keep_rows` keeps for them. The old store
    is not changed. One commit of it is read; until the end, its writer uses none of its pages
    again, so that the file may grow. Returns the number of transitions.

    Cost: reads, checks and writes each transition once. Memory: 1 byte a transition, and 60 MB,
    beside what the function takes.

    Raises SchemaError for columns that do not fit, and an error of the function as it is;
    ArgumentError for what is no function, or returns no dictionary; NotAStoreError, LockedError and
    DamageError as `open`; StorageError when `out` is in use, or the disk refuses or has too little
    room. After an error there is nothing at `out`.

    >>> with ReplayBuffer(capacity=10, path="runs/raw") as buffer:
    ...     _ = buffer.push(state=[0.0], action=0, reward=7.0, next_state=[1.0], done=False)
    >>> def clip(columns):
    ...     return {"reward": np.clip(columns["reward"], -1, 1), "raw_reward": columns["reward"]}
    >>> transform("runs/raw", "runs/clipped", clip)
    1
    >>> open("runs/clipped").get([0], fields=["reward", "raw_reward"])
    {'reward': array([1.], dtype=float32), 'raw_reward': array([7.], dtype=float32)}

    progress:  called now and then with the numbers of transitions written and of all transitions
    """
    place, target = checked_path(path), real_path(checked_path(out))
    if not callable(function):
        raise ArgumentError(
            "transform() needs a function that takes columns by name and returns those that change "
            f"(found {shown(function)})"
        )
    if holds_store(target):
        raise StorageError(f"{target} holds a store already: choose a new directory")
    with contextlib.ExitStack() as stack:
        store = Store(place)
        stack.callback(store.close)
        snapshot = stack.enter_context(store.snapshot())
        source = SoundStore(store, snapshot)
        rows = _rows_in_chunk(source.schema)
        schema, chunks = _changed(source, function, rows)
        identity = replace(source.identity, uuid=str(uuid4()), plain={})
        state = replace(source.state, start=source.live.first, observations=ObservationRange())
        log_bytes = snapshot.disk_bytes("observations")
        with (
            beside(target) as hidden,
            StoreBuilder(hidden, identity, state, schema, progress, log_bytes=log_bytes) as builder,
        ):
            is_over = np.zeros(source.live.size, np.bool_)
            for write_ids, columns in zip(builder.parts(rows), chunks, strict=True):
                priorities = source.priorities(write_ids) if identity.has_priorities else None
                is_over[write_ids - source.live.first] = _ends(schema, columns)
                links = _links(source, write_ids, is_over)
                builder.append_rows(int(write_ids[0]), columns, priorities, links)
            kept = {name: fact for name, fact in source.facts.items() if name != "layout"}
            builder.finish(snapshot.runs(), kept, notes=source.notes())
    return source.live.size


def _rows_in_chunk(schema: Schema | None) -> int:
    rows = _CHUNK_BYTES // max(_LEAST_BYTES, 0 if schema is None else schema.payload_bytes)
    return max(1, min(rows, _VARYING_ROWS) if schema is not None and schema.varying else rows)


def _changed(
    source: SoundStore, function: Transformation, rows: int
) -> tuple[Schema | None, Iterator[Columns]]:
    """Return the schema of the new store, and the columns of all transitions, in chunks."""
    if source.schema is None:
        return None, iter(())
    given = _given(source, source.schema, rows)
    called = ((ids, columns, _returned(function, columns)) for ids, columns in given)
    first = next(called, None)
    if first is None:  # no transitions: of no rows
        columns = dict(zip(source.schema.names, source.schema.empty_columns(0), strict=True))
        return _new_schema(source.schema, columns, _returned(function, columns)), iter(())
    schema = _new_schema(source.schema, *first[1:])
    chunks = itertools.chain([first], called)
    return schema, (_accepted(schema, ids, values) for ids, _, values in chunks)


def _given(source: SoundStore, schema: Schema, rows: int) -> Iterator[tuple[Ints, _Columns]]:
    """Yield the write ids and columns of all live transitions, in chunks of one slice of slots."""
    at = source.live.first
    for span in source.live.spans(rows):
        write_ids = np.arange(at, at + span.stop - span.start)
        at += write_ids.size
        columns = {}
        for field, column in zip(schema.fields, source.columns(write_ids), strict=True):
            found = column
            if field.varies:
                found = np.empty(write_ids.size, object)
                for row, content in enumerate(column):
                    found[row] = unpacked(field, content)
            found.flags.writeable = False
            columns[field.name] = found
        yield write_ids, columns


def _returned(function: Transformation, columns: _Columns) -> dict[str, Any]:
    """Return the columns of the new store, as the function gives them."""
    changed = function(MappingProxyType(columns))
    if not isinstance(changed, Mapping):
        raise ArgumentError(
            "transform() expects a dictionary of the columns that change from its function (found "
            f"{shown(changed)})"
        )
    for name in changed:
        if not isinstance(name, str):
            raise SchemaError(f"expected columns by the names of fields (found {shown(name)})")
    values = {**columns, **changed}
    for name in [name for name, value in changed.items() if value is None]:
        if name not in columns:
            raise SchemaError(
                f"the function removes the field {shown(name)}, which is not there (found "
                f"{', '.join(columns)})"
            )
        del values[name]
    return values


def _new_schema(old: Schema, given: _Columns, values: Mapping[str, Any]) -> Schema:
    """Return the schema of columns, of which those that were given have the fields of the old."""
    known = {name: old[name] for name in given if name in values}
    for name, field in [*known.items()]:
        if values[name] is not given[name] and not _keeps_type(field, values[name]):
            del known[name]
    inferred = infer_fields(values, known, lead=1)
    return Schema(
        [
            _kept_as(old[field.name], field) if field.name in given else field
            for field in inferred.fields
            if field.name in values  # others are of a next_state that has fewer parts
        ]
    )


def _keeps_type(field: Field, column: Any) -> bool:
    """Return whether the values of a column are those of a field, or convert to them."""
    is_text = field.dtype.kind not in _KINDS
    if field.varies and (is_text or not isinstance(column, np.ndarray) or column.dtype == object):
        return not (is_text and isinstance(column, np.ndarray) and column.dtype.kind in _KINDS)
    found = as_array(column, SchemaError, f"field {field.name!r}: expected an array of n values")
    if field.varies:
        return found.ndim == 1 + len(field.shape)
    converts = _KINDS.get(found.dtype.kind, len(_KINDS)) <= _KINDS[field.dtype.kind]
    return found.shape[1:] == field.shape and (converts or not found.size)


def _kept_as(old: Field, new: Field) -> Field:
    """Return a field with a new type, whose arrays are kept and compressed as the old ones."""
    if old.type == new.type or new.varies or not old.log or not new.shape:
        return new
    axis = old.frame_axis if len(old.shape) == len(new.shape) and all(new.shape) else None
    return Field.stored(new.name, new.dtype, new.shape, log=True, frame_axis=axis, codec=old.codec)


def _accepted(schema: Schema, write_ids: Ints, values: Mapping[str, Any]) -> Columns:
    """Return columns as a schema accepts them; name the write ids in an error."""
    try:
        if values.keys() != {*schema.names}:
            raise SchemaError(
                f"expected the fields {', '.join(schema.names)}, as at first (found "
                f"{', '.join(map(str, values))})"
            )
        nested = schema.nested([values[name] for name in schema.names])
        standard, others = nested[: len(STANDARD_FIELDS)], nested[len(STANDARD_FIELDS) :]
        columns = schema.accept_columns(
            standard, dict(zip(schema.extra_names, others, strict=True))
        )
        if len(columns[0]) != write_ids.size:
            raise SchemaError(
                f"expected columns of {write_ids.size} values (found {len(columns[0])})"
            )
    except SchemaError as error:
        where = f"write ids {write_ids[0]} to {write_ids[-1]}"
        raise SchemaError(f"{where}, changed by the function: {error}") from None
    return columns


def _ends(schema: Schema | None, columns: Columns) -> Bools:
    """Return which of some transitions end their episode."""
    is_over = np.zeros(len(columns[0]), np.bool_)
    for field, column in zip(schema.fields if schema is not None else (), columns, strict=True):
        if field.name in ("done", "truncated") and field.payload_bytes == field.dtype.itemsize:
            is_over |= column.reshape(is_over.size) != 0
    return is_over


def _links(source: SoundStore, write_ids: Ints, is_over: Bools) -> LinkValues:
    """Return the links of transitions, which begin an episode after one that ends it.

    is_over:  of all live transitions up to these ones
    """
    links = source.links(write_ids)
    places = write_ids - source.live.first - links
    goes_on = (links > 0) & (places >= 0)
    links[goes_on & is_over[np.where(goes_on, places, 0)]] *= -1
    return links

"""BatchArrays: the arrays of a batch, and the check of those that a user gives to be used again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array, Ints
from diskreplay.buffer.batch import Batch, PrioritizedBatch, with_extra
from diskreplay.buffer.batch_form import DISCOUNTS, BatchForm
from diskreplay.buffer.batch_values import values_of
from diskreplay.episodes import Chains
from diskreplay.errors import ArgumentError, SchemaError
from diskreplay.observations import (
    ArraySpec,
    Frames,
    LoggedFields,
    copied_frames,
    frame_columns,
    shapes_of_frames,
)
from diskreplay.schema import STANDARD_FIELDS, Field, Schema, mapped, root_of

Weights = NDArray[np.float32]

_STANDARD = len(STANDARD_FIELDS)
_INT64, _FLOAT32 = np.dtype(np.int64), np.dtype(np.float32)
_NO_MASKS: Mapping[str, Any] = {}
_WAY_OUT = "give an earlier batch of the same size, or leave out= away"


def batch_shapes(schema: Schema, n: int, form: BatchForm) -> list[ArraySpec]:
    """Return the dtypes and shapes of the arrays of a batch, in the order of `batch_arrays`.

    The arrays of Frames come last.
    """
    fields = [field for field in schema.fields if not (form.frames and field.log)]
    shapes: list[ArraySpec] = [(_INT64, (n,))]
    if form.n_step is not None:
        shapes += [(_INT64, (form.n_step.steps, n)), (_INT64, (n,)), (_FLOAT32, (n,))]
    shapes += [(dtype_in(field, form), (n, *field.shape)) for field in fields if not field.varies]
    shapes.append((_FLOAT32, (n,)))
    return shapes + shapes_of_frames(LoggedFields(schema), n) if form.frames else shapes


def dtype_in(field: Field, form: BatchForm) -> np.dtype[Any]:
    """Return the type of a field in a batch: a sum of rewards may have another."""
    if field.name == "reward" and form.n_step is not None:
        return form.n_step.dtype_of(field.dtype)
    return field.dtype


class BatchArrays(NamedTuple):
    """The columns of a batch, its write ids, and its weights, None in a uniform batch.

    A column is an array, or Frames where a batch has the frames of logged fields.

    lists:      of values that vary in size, each with its field and its column
    discounts:  of n-step returns, else None
    chains:     of n-step returns, in memory that processes share
    """

    columns: list[Any]
    indices: Ints
    weights: Weights | None
    lists: Sequence[tuple[list[Any], Field, Array]] = ()
    discounts: Array | None = None
    chains: Chains | None = None

    def fill(self, indices: Ints, weights: Weights | None, discounts: Array | None = None) -> None:
        """Write everything but the columns into arrays, and the values of columns into lists."""
        for values, field, column in self.lists:
            values[:] = values_of(field, column, column.shape)
        self.indices[...] = indices
        if self.weights is not None:
            self.weights[...] = weights
        if self.discounts is not None:
            self.discounts[...] = discounts

    def to_batch(self, schema: Schema) -> Any:
        """Return a batch of the arrays, which are the columns of a schema."""
        return batch_of(schema, self.columns, self.indices, self.weights, self.discounts)


def batch_arrays(
    schema: Schema, n: int, arrays: Iterator[Array], form: BatchForm, *, are_weighted: bool
) -> BatchArrays:
    """Return the batch of n transitions that lies in arrays of the shapes of `batch_shapes`."""
    indices, chains, discounts, frames = next(arrays), None, None, form.frames
    if form.n_step is not None:
        chains = Chains(next(arrays), next(arrays))
        discounts = next(arrays)
    columns: list[Any] = []
    for field in schema.fields:
        if field.varies:
            columns.append([None] * n)  # a list in this process: no other one reads such rows
        else:
            columns.append(None if frames and field.log else next(arrays))
    weights = next(arrays)
    if frames:
        for place, column in frame_columns(LoggedFields(schema), n, list(arrays)).items():
            columns[place] = column
    of_batch = columns, indices, weights if are_weighted else None
    return BatchArrays(*of_batch, discounts=discounts, chains=chains)


def batch_of(
    schema: Schema,
    columns: Sequence[Any],
    indices: Ints,
    weights: Weights | None = None,
    discounts: Array | None = None,
    masks: Mapping[str, Any] = _NO_MASKS,
) -> Any:
    """Return a batch of the values of all fields: a PrioritizedBatch if it has weights.

    masks:  further elements after the fields, by name; discounts come last
    """
    values, names = columns if schema.is_flat else schema.nested(columns), schema.extra_names
    if discounts is not None:
        masks = {**masks, DISCOUNTS: discounts}
    if masks:
        values, names = [*values, *masks.values()], (*names, *masks)
    if weights is not None:
        kind = with_extra(PrioritizedBatch, names)
        return kind._make((*values[:_STANDARD], weights, indices, *values[_STANDARD:]))
    batch = tuple.__new__(with_extra(Batch, names), values)
    batch.__dict__["indices"] = indices
    return batch


def copied(batch: Any) -> Any:
    """Return a batch of fresh arrays with the same contents."""
    memories: dict[int, Any] = {}

    def fresh_of(value: Any) -> Any:
        return copied_frames(value, memories) if isinstance(value, Frames) else np.array(value)

    fresh = batch._make(mapped(value, fresh_of) for value in batch)
    if "indices" not in batch._fields:
        fresh.__dict__["indices"] = batch.indices.copy()
    return fresh


def frame_arrays(
    out: Any, schema: Schema, n: int, form: BatchForm, *, are_weighted: bool
) -> BatchArrays:
    """Return arrays for a batch of Frames: those of an earlier batch, or fresh ones for None."""
    if out is not None:
        values, weights, discounts = list(out), None, None
        if form.n_step is not None:
            discounts = values.pop()
        if are_weighted:
            weights = out.weights
            del values[_STANDARD : _STANDARD + 2]
        return BatchArrays(schema.flat(values), out.indices, weights, discounts=discounts)
    shapes = batch_shapes(schema, n, form)
    arrays = iter([np.empty(shape, dtype) for dtype, shape in shapes])
    return batch_arrays(schema, n, arrays, form, are_weighted=are_weighted)


def reused_arrays(
    out: Any, schema: Schema, n: int, form: BatchForm, *, are_weighted: bool
) -> BatchArrays:
    """Return the arrays of an earlier batch; raise ArgumentError if they cannot be used again.

    n:             the number of transitions of the new batch
    are_weighted:  whether batches have weights
    """
    plain: Any = PrioritizedBatch if are_weighted else Batch
    further = () if form.n_step is None else (DISCOUNTS,)
    kind: Any = with_extra(plain, (*schema.extra_names, *further))
    if type(out) is not kind:
        raise ArgumentError(
            f"out must be an earlier batch of this buffer, {_described_kind(kind)} (found "
            f"{_described(out)}): leave out= away for a fresh one"
        )
    columns: list[Any] = list(out)
    names: list[str] = list(kind._fields)
    weights = discounts = None
    if further:
        discounts = columns.pop()
        names.pop()
    if are_weighted:
        weights, indices = columns[_STANDARD : _STANDARD + 2]
        del columns[_STANDARD : _STANDARD + 2], names[_STANDARD : _STANDARD + 2]
    else:
        indices = getattr(out, "indices", None)
    if not schema.is_flat:
        names, columns = _parts(names, columns, schema)
    are_apart, lists = True, []
    for place, (name, array, field) in enumerate(zip(names, columns, schema.fields, strict=True)):
        if field.varies:
            lists.append((_checked_list(name, array, n), field, np.empty(n, object)))
            columns[place] = lists[-1][2]
        else:
            are_apart &= _checked(name, array, dtype_in(field, form), (n, *field.shape))
    if len({id(values) for values, _, _ in lists}) < len(lists):
        raise ArgumentError(f"out has one list in two places: {_WAY_OUT}")
    are_apart &= _checked("indices", indices, _INT64, (n,))
    if are_weighted:
        are_apart &= _checked("weights", weights, _FLOAT32, (n,))
    if further:
        are_apart &= _checked(DISCOUNTS, discounts, _FLOAT32, (n,))
    of_all = {"indices": indices, "weights": weights, DISCOUNTS: discounts}
    others = {name: array for name, array in of_all.items() if array is not None}
    arrays = [*columns, *others.values()]
    if not are_apart or len(set(map(id, arrays))) < len(arrays):
        _check_overlap([*names, *others], arrays)
    return BatchArrays(columns, indices, weights, lists, discounts)


def _parts(
    names: Sequence[str], values: Sequence[Any], schema: Schema
) -> tuple[list[str], list[Any]]:
    """Return the parts of the elements of a batch, with names such as states.camera."""
    try:
        columns = schema.flat(values)
    except SchemaError as error:
        raise ArgumentError(
            f"out must be an earlier batch of this buffer, nested alike: {error}: {_WAY_OUT}"
        ) from None
    elements = dict(zip((*STANDARD_FIELDS, *schema.extra_names), names, strict=True))
    roots = [(root_of(name), name) for name in schema.names]
    return [elements[root] + name.removeprefix(root) for root, name in roots], columns


def _checked(name: str, found: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    """Return whether an array has memory of its own; raise ArgumentError if it is unusable."""
    if type(found) is not np.ndarray:
        problem = f"it is {_described(found)}"
    elif found.dtype != dtype or found.shape != shape:
        problem = f"it is {found.dtype} {found.shape}"
    elif (flags := found.flags).carray:
        return flags.owndata
    elif not flags.c_contiguous:
        problem = "it is not contiguous"
    elif not flags.writeable:
        problem = "it is read-only"
    else:
        problem = "it is not aligned"
    raise ArgumentError(
        f"out.{name} must be a writeable, aligned, C-contiguous array, {dtype} {shape} "
        f"({problem}): {_WAY_OUT}"
    )


def _checked_list(name: str, found: Any, n: int) -> list[Any]:
    """Return the list of values that vary in size; raise ArgumentError if it is none."""
    if type(found) is not list or len(found) != n:
        what = f"a list of {len(found)}" if type(found) is list else _described(found)
        raise ArgumentError(f"out.{name} must be a list of {n} values (it is {what}): {_WAY_OUT}")
    return found


def _check_overlap(names: Sequence[str], arrays: Sequence[Array]) -> None:
    """Raise ArgumentError if two contiguous arrays have bytes in common."""
    places = [
        (array.__array_interface__["data"][0], array.nbytes, name)
        for name, array in zip(names, arrays, strict=False)
        if array.nbytes
    ]
    places.sort(key=itemgetter(0))  # of two at one place the first in the batch stays first
    for (begin, size, name), (next_begin, _, next_name) in itertools.pairwise(places):
        if next_begin < begin + size:
            raise ArgumentError(
                f"out.{next_name} must have memory of its own (it has bytes in common with "
                f"out.{name}): {_WAY_OUT}"
            )


def _described_kind(kind: Any) -> str:
    return f"a {kind.__name__} with the elements {', '.join(kind._fields)}"


def _described(value: Any) -> str:
    if value is None:
        return "None"
    kind = type(value)
    return _described_kind(kind) if hasattr(kind, "_fields") else f"a {kind.__name__}"

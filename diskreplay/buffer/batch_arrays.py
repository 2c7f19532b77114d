"""BatchArrays: the arrays of a batch, and the check of those that a user gives to be used again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array, Columns, Ints
from diskreplay.buffer.batch import Batch, PrioritizedBatch, with_extra
from diskreplay.errors import ArgumentError
from diskreplay.schema import STANDARD_FIELDS, Schema

Weights = NDArray[np.float32]

_STANDARD = len(STANDARD_FIELDS)


class BatchArrays(NamedTuple):
    """The columns of a batch, its write ids, and its weights, None in a uniform batch."""

    columns: Columns
    indices: Ints
    weights: Weights | None

    def fill(self, indices: Ints, weights: Weights | None) -> None:
        """Write write ids and weights into the arrays."""
        self.indices[...] = indices
        if self.weights is not None:
            self.weights[...] = weights

    def to_batch(self, names: tuple[str, ...]) -> Any:
        """Return a batch of the arrays, the standard fields and then those with `names`."""
        return batch_of(self.columns, names, self.indices, self.weights)


def batch_of(
    columns: Sequence[Array], names: tuple[str, ...], indices: Ints, weights: Weights | None = None
) -> Any:
    """Return a batch of columns: a PrioritizedBatch if it has weights, else a Batch."""
    if weights is not None:
        kind = with_extra(PrioritizedBatch, names)
        return kind._make((*columns[:_STANDARD], weights, indices, *columns[_STANDARD:]))
    batch = tuple.__new__(with_extra(Batch, names), columns)
    batch.__dict__["indices"] = indices
    return batch


def copied(batch: Any) -> Any:
    """Return a batch of fresh arrays with the same contents."""
    fresh = batch._replace(**{name: np.array(getattr(batch, name)) for name in batch._fields})
    if "indices" not in batch._fields:
        fresh.__dict__["indices"] = batch.indices.copy()
    return fresh


def reused_arrays(out: Any, schema: Schema, n: int, *, are_weighted: bool) -> BatchArrays:
    """Return the arrays of an earlier batch; raise ArgumentError if they cannot be used again.

    n:             the number of transitions of the new batch
    are_weighted:  whether batches have weights
    """
    plain: Any = PrioritizedBatch if are_weighted else Batch
    kind: Any = with_extra(plain, schema.extra_names)
    if type(out) is not kind:
        raise ArgumentError(
            f"out must be an earlier batch of this buffer, a {kind.__name__} with the elements "
            f"{', '.join(kind._fields)} (found {_described(out)})"
        )
    found = dict(zip(kind._fields, out, strict=True))
    if not are_weighted:
        found["indices"] = getattr(out, "indices", None)
    expected = zip(_column_names(kind), schema.fields, strict=True)
    types = {name: (field.dtype, field.shape) for name, field in expected}
    types["indices"] = (np.dtype(np.int64), ())
    if are_weighted:
        types["weights"] = (np.dtype(np.float32), ())
    for name, (dtype, shape) in types.items():
        _check(name, found[name], dtype, (n, *shape))
    columns = [found[name] for name in _column_names(kind)]
    return BatchArrays(columns, found["indices"], found.get("weights"))


def _column_names(kind: Any) -> Iterable[str]:
    return [name for name in kind._fields if name not in ("weights", "indices")]


def _check(name: str, found: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if type(found) is not np.ndarray:
        problem = f"it is {_described(found)}"
    elif (found.dtype, found.shape) != (dtype, shape):
        problem = f"it is {found.dtype} {found.shape}"
    elif not found.flags.c_contiguous:
        problem = "it is not contiguous"
    elif not found.flags.writeable:
        problem = "it is read-only"
    else:
        return
    raise ArgumentError(
        f"out.{name} must be a writeable, C-contiguous array, {dtype} {shape} ({problem}): give an "
        "earlier batch of the same size, or leave out= away"
    )


def _described(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"

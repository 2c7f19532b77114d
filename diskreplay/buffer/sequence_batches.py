"""Batches of sequences: arrays of transitions that follow each other, with zeros after an end."""

from __future__ import annotations

from typing import Any

import numpy as np

from diskreplay.aliases import Array, Bools, Columns, Ints
from diskreplay.buffer.batch import PrioritizedSequenceBatch, SequenceBatch, with_extra
from diskreplay.buffer.batch_arrays import Weights
from diskreplay.errors import SchemaError
from diskreplay.schema import STANDARD_FIELDS, Field, Schema, unpacked

_STANDARD = len(STANDARD_FIELDS)
_ELEMENTS = ("mask", "firsts", "indices")


def check_sequence_names(schema: Schema) -> None:
    """Raise SchemaError if a field has the name of an element that sequences add."""
    for name in _ELEMENTS:
        if name in schema.extra_names:
            raise SchemaError(
                f"sample_sequences adds the element {name!r}, which is the name of a field here: "
                "sequences need a buffer whose field has another name"
            )


def sequence_batch(
    schema: Schema, columns: Columns, write_ids: Ints, firsts: Bools, weights: Weights | None
) -> Any:
    """Return a batch of sequences, a PrioritizedSequenceBatch if it has weights.

    columns:    the rows of the write ids that are no -1, one sequence after the other
    write_ids:  int64 (n, length)
    """
    mask = write_ids >= 0
    pairs = zip(schema.fields, columns, strict=True)
    values = schema.nested([_spread(field, column, mask) for field, column in pairs])
    own: list[Any] = [mask, firsts, write_ids]
    kind: Any = SequenceBatch
    if weights is not None:
        kind, own = PrioritizedSequenceBatch, [weights, *own]
    made = with_extra(kind, schema.extra_names)
    return made._make((*values[:_STANDARD], *own, *values[_STANDARD:]))


def _spread(field: Field, column: Array, mask: Bools) -> Any:
    """Return the values of a column where the mask is true, and zeros elsewhere.

    Of values that vary in size these are lists of lists, with empty values in place of zeros.
    """
    if field.varies:
        values = iter(column)
        return [
            [unpacked(field, next(values)) if is_there else _empty(field) for is_there in row]
            for row in mask.tolist()
        ]
    if mask.all():
        return column.reshape(mask.shape + column.shape[1:])
    found = np.zeros(mask.shape + column.shape[1:], column.dtype)
    found[mask] = column
    return found


def _empty(field: Field) -> Any:
    """Return a value without content, of a field whose values vary in size."""
    if field.dtype.kind in "US":
        return "" if field.dtype.kind == "U" else b""
    return np.zeros([length or 0 for length in field.shape], field.dtype)

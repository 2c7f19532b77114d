"""The values of a batch: columns as a user sees them, with values that vary in size unpacked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from diskreplay.aliases import Array, Columns
from diskreplay.errors import ArgumentError, SchemaError
from diskreplay.schema import STANDARD_FIELDS, Field, Schema, root_of, unpacked
from diskreplay.validation import true_or_false

Shape = tuple[int, ...]


def values_of(field: Field, column: Array, shape: Shape) -> Any:
    """Return the values of a column: an array, or of values that vary in size a list.

    shape:  of the write ids, several dimensions of which make lists of lists
    """
    if not field.varies:
        return column if len(shape) == 1 else column.reshape(shape + column.shape[1:])
    values = [unpacked(field, content) for content in column]
    if len(shape) == 1:
        return values
    return as_objects(values).reshape(shape).tolist()


def as_objects(values: Sequence[Any]) -> Array:
    """Return values as an array of objects of one dimension, also where they are arrays."""
    objects = np.empty(len(values), object)
    for place, value in enumerate(values):
        objects[place] = value
    return objects


class Padded(NamedTuple):
    """Arrays of several lengths in one, filled with zeros, and where they are, as bools.

    The mask has the dimensions of the array but those of a length that is the same in all values.
    """

    array: Array
    mask: Array


def padded(field: Field, column: Array, shape: Shape) -> Padded:
    """Return the arrays of a column in one, as long as the longest of them."""
    values = [unpacked(field, content) for content in column]
    lengths = np.array([value.shape for value in values], np.int64).reshape(-1, len(field.shape))
    most = lengths.max(axis=0, initial=0).tolist()
    whole = tuple(
        m if length is None else length for m, length in zip(most, field.shape, strict=True)
    )
    varying = [axis for axis, length in enumerate(field.shape) if length is None]
    try:
        array = np.zeros((len(values), *whole), field.dtype)
        mask = np.zeros((len(values), *(whole[axis] for axis in varying)), np.bool_)
    except (MemoryError, ValueError):
        raise ArgumentError(
            f"pad=True: {len(values)} arrays of the field {field.name!r}, each of the shape "
            f"{tuple(whole)}, take more memory than there is: leave pad= away for a list of arrays"
        ) from None
    for place, value in enumerate(values):
        array[place][tuple(map(slice, value.shape))] = value
        mask[place][tuple(slice(value.shape[axis]) for axis in varying)] = True
    return Padded(array.reshape(shape + array.shape[1:]), mask.reshape(shape + mask.shape[1:]))


def checked_pad(pad: bool, *, out: Any = None, reuse: bool = False) -> bool:
    """Return `pad` as a bool, or raise ArgumentError; padded arrays are always fresh."""
    is_padded = true_or_false("pad", pad)
    if is_padded and (out is not None or reuse):
        raise ArgumentError(
            f"pad=True makes arrays of a new shape for each batch (found "
            f"{'reuse=True' if reuse else 'out='}): leave one of them away"
        )
    return is_padded


def batch_values(
    schema: Schema, columns: Columns, shape: Shape, *, pad: bool = False
) -> tuple[Columns, dict[str, Any]]:
    """Return the values of all fields, and the masks by the names of their elements.

    shape:  of the write ids
    """
    if not schema.varying and len(shape) == 1:
        return columns, {}
    names = mask_names(schema) if pad else {}
    found, masks = some_values(schema, range(len(columns)), columns, shape, pad=pad)
    return found, {name: mask_of(schema, masks, root) for root, name in names.items()}


def some_values(
    schema: Schema, places: Sequence[int], columns: Columns, shape: Shape, *, pad: bool
) -> tuple[Columns, dict[int, Array]]:
    """Return the values of the fields at some places, and the masks of the padded ones."""
    found: list[Any] = []
    masks: dict[int, Array] = {}
    for place, column in zip(places, columns, strict=True):
        field = schema.fields[place]
        if pad and None in field.shape:
            array, masks[place] = padded(field, column, shape)
            found.append(array)
        else:
            found.append(values_of(field, column, shape))
    return found, masks


@lru_cache(maxsize=64)
def mask_names(schema: Schema) -> dict[str, str]:
    """Return the names of the elements of a padded batch with its masks, by root.

    Raises SchemaError where the schema has a field of such a name.
    """
    roots = dict.fromkeys(root_of(field.name) for field in schema.fields if None in field.shape)
    names = {root: f"{root}{'s' * (root in STANDARD_FIELDS)}_mask" for root in roots}
    for name in names.values():
        check_mask_name(name, schema.extra_names)
    return names


def check_mask_name(name: str, taken: Iterable[str]) -> None:
    """Raise SchemaError if the name of a mask is that of a field."""
    if name in taken:
        raise SchemaError(
            f"pad=True adds the mask {name!r}, which is the name of a field here: leave pad= away"
        )


def mask_of(schema: Schema, masks: Mapping[int, Array], name: str) -> Any:
    """Return the mask of a field; of one with parts a dictionary, by the rest of their names."""
    if name in schema.names:
        return masks[schema.names.index(name)]
    return {
        rest.removeprefix("."): masks[place]
        for place in masks
        if (rest := schema.names[place].removeprefix(name)) != schema.names[place]
        and rest[:1] in (".", "[")
    }

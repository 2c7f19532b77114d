"""Field: one named column of a schema: its dtype, its shape, and the conversion to it.

The values of some fields vary in size: text, bytes, and arrays with a length that is None.
packing.py says how they are kept.
"""

from __future__ import annotations

import keyword
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from diskreplay.aliases import Array
from diskreplay.errors import SchemaError
from diskreplay.schema.names import root_of, steps_of
from diskreplay.schema.numbers import (
    COMPLEX,
    DONES,
    REAL,
    are_dones,
    are_finite,
    as_numbers,
    not_numbers,
    shape_advice,
)
from diskreplay.validation import as_whole
from diskreplay.wording import cut, shown

Lengths: TypeAlias = Sequence[int | None]
FieldLike: TypeAlias = "Field | DTypeLike | tuple[DTypeLike, Lengths] | Mapping[str, FieldLike]"

MAX_TRANSITION_BYTES = 2**30
CODECS = ("lz4", "zstd")
TYPES = frozenset(
    ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16")
)
WORDS = {"U": "str", "S": "bytes"}  # for the types without numbers, by numpy's kind
# Parameters and results of the buffer's methods, which an extra field would shadow.
_RESERVED_NAMES = frozenset(
    ("states", "actions", "rewards", "next_states", "dones", "weights", "indices")
    + ("priority", "priorities", "self", "with_notes")
)
_MAX_DIMENSIONS, _MAX_LENGTH = 32, 2**31 - 1  # of numpy's structured dtypes
_RANKS = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}  # a kind converts to itself or a later one
_FEW_TO_CAST = 32


@dataclass(frozen=True, init=False, repr=False)
class Field:
    """One named column: a dtype and the shape of one transition's value.

    >>> Field("state", "float32", (60,))
    Field(name='state', dtype=dtype('float32'), shape=(60,))
    >>> Field("state", "uint8", (4, 84, 84), frame_axis=0, codec="lz4").frames
    4
    >>> Field("prompt", str).type, Field("points", "float32", (None, 3)).type
    ('str', 'float32[None, 3]')

    dtype:       of numpy, or `str` for text, or `bytes`
    shape:       a length that is None varies from value to value
    log:         keep its values in the observation log: equal ones are kept once. A frame axis or a
                 codec implies it, and so does a value that varies in size
    frame_axis:  the axis along which the value is a stack of frames, each of which is kept once
    codec:       the compression of what is in the log: "lz4", "zstd", or None
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Any, ...]  # of int or None
    log: bool
    frame_axis: int | None
    codec: str | None

    def __init__(
        self,
        name: str,
        dtype: DTypeLike = np.float32,
        shape: Lengths = (),
        *,
        log: bool = False,
        frame_axis: int | None = None,
        codec: str | None = None,
    ) -> None:
        root = root_of(name) if isinstance(name, str) else ""
        if root.startswith("_") or keyword.iskeyword(root):
            raise SchemaError(
                f"{root!r} cannot name a field, since batches are named tuples: expected a name "
                "that is no Python keyword and does not begin with an underscore"
            )
        self._set(name, *_dtype_and_shape(name, dtype, shape), log, frame_axis, codec)

    @classmethod
    def stored(
        cls,
        name: str,
        dtype: DTypeLike,
        shape: Lengths,
        *,
        log: bool = False,
        frame_axis: int | None = None,
        codec: str | None = None,
    ) -> Field:
        """Return a field of a store, which may have a name that a new field may not have."""
        field = object.__new__(cls)
        field._set(name, dtype, shape, log, frame_axis, codec)
        return field

    def _set(
        self,
        name: str,
        dtype: DTypeLike,
        shape: Lengths,
        log: bool,
        frame_axis: int | None,
        codec: str | None,
    ) -> None:
        root, *_ = steps_of(name)
        if root in _RESERVED_NAMES:
            raise SchemaError(f"{root!r} cannot name a field, it is a word of the buffer's methods")
        try:
            found = np.dtype(_without_torch(dtype)).newbyteorder("=")
            lengths = tuple(map(_length, shape))
            if found.subdtype is not None:
                found, inner = found.subdtype
                found, lengths = found.newbyteorder("="), lengths + inner
        except Exception as error:  # an object may raise anything when it is iterated
            raise _unusable(name, error) from None
        is_text = found.kind in WORDS and not found.itemsize
        if is_text and lengths:
            raise SchemaError(
                f"field {name!r}: {WORDS[found.kind]} has no shape (found {shown(lengths)}): leave "
                "it away; a value is one text"
            )
        if found.str[1:] not in TYPES and not is_text:
            raise SchemaError(
                f"field {name!r}: expected numbers or bools, or str or bytes (found {found})"
            )
        known = [length for length in lengths if length is not None]
        if any(length < 0 for length in known):
            raise SchemaError(f"field {name!r} has a negative length in its shape {shown(lengths)}")
        if len(lengths) > _MAX_DIMENSIONS or any(length > _MAX_LENGTH for length in known):
            raise SchemaError(
                f"field {name!r} has {len(lengths)} dimensions, the longest of "
                f"{shown(max(known))} (expected at most {_MAX_DIMENSIONS}, each of at most "
                f"{_MAX_LENGTH})"
            )
        # Where one length is 0, numpy still multiplies the others.
        if found.itemsize * math.prod(filter(None, known)) > MAX_TRANSITION_BYTES:
            raise SchemaError(
                f"field {name!r} has the shape {lengths} (expected at most {MAX_TRANSITION_BYTES} "
                "bytes): store large values elsewhere and their names here"
            )
        values = (
            name,
            found,
            lengths,
            *_kept(name, lengths, log, frame_axis, codec, varies=is_text or None in lengths),
        )
        for attribute, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, attribute, value)

    def __repr__(self) -> str:
        kept = {"log": self.log, "frame_axis": self.frame_axis, "codec": self.codec}
        if self.varies:
            kept = {"codec": self.codec}
        more = "".join(f", {name}={value!r}" for name, value in kept.items() if self.log)
        return f"Field(name={self.name!r}, dtype={self.dtype!r}, shape={self.shape}{more})"

    @cached_property
    def varies(self) -> bool:
        """Whether its values vary in size: text, bytes, or arrays with a length that is None."""
        return self.dtype.kind in WORDS or None in self.shape

    @cached_property
    def open_lengths(self) -> struct.Struct:
        """The form of the lengths that are None, in the bytes of a packed array."""
        return struct.Struct(f"<{self.shape.count(None)}q")

    @cached_property
    def little_endian(self) -> np.dtype[Any]:
        """The dtype in the byte order of stored values."""
        return self.dtype.newbyteorder("<")

    @property
    def in_column(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """The dtype and the shape of a value in a column; of one that varies, its packed bytes."""
        return (np.dtype(object), ()) if self.varies else (self.dtype, self.shape)

    @property
    def frames(self) -> int:
        """The number of frames that a value is a stack of; 1 without a frame axis."""
        return 1 if self.frame_axis is None else self.shape[self.frame_axis]

    @cached_property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of a frame, that of the value without its frame axis."""
        axis = self.frame_axis
        return self.shape if axis is None else self.shape[:axis] + self.shape[axis + 1 :]

    @cached_property
    def frame_bytes(self) -> int:
        """The bytes of a frame; 0 where values vary in size."""
        return 0 if self.varies else self.dtype.itemsize * math.prod(self.frame_shape)

    @property
    def place(self) -> str:
        """The place where values are kept, in words."""
        if not self.log:
            return "in the record"
        parts = ["in the log"]
        if self.frame_axis is not None:
            parts.append(f"frame axis {self.frame_axis}")
        if self.codec is not None:
            parts.append(f"codec {self.codec}")
        return ", ".join(parts)

    @property
    def type(self) -> str:
        """The dtype and the shape in one word, such as float32[60]."""
        return f"{WORDS.get(self.dtype.kind, self.dtype)}{list(self.shape) if self.shape else ''}"

    @cached_property
    def payload_bytes(self) -> int:
        """The bytes of one value, without framing; 0 where they vary."""
        return 0 if self.varies else self.dtype.itemsize * math.prod(self.shape)

    @cached_property
    def _narrower(self) -> frozenset[np.dtype[Any]]:
        """The dtypes of which every value is one of this field's, too."""
        return frozenset(d for d in map(np.dtype, TYPES) if np.can_cast(d, self.dtype, "safe"))

    @cached_property
    def _largest(self) -> float:
        """The largest number of a float field, 0.0 for any other."""
        return float(np.finfo(self.dtype).max) if self.dtype.kind == "f" else 0.0

    def __str__(self) -> str:
        is_chosen = self.log and (not self.varies or self.codec is not None)
        return f"{self.name}: {self.type}{f' ({self.place})' * is_chosen}"

    def convert(self, value: Any, lead: tuple[int, ...]) -> Array:
        """Return `value` as an array of this field's dtype and of shape `lead + shape`.

        Numbers are rounded to the precision of a float field and must fit a whole-number field
        exactly; floats are not turned into whole numbers. Raises SchemaError with what was expected
        and found.
        """
        found = as_numbers(self.name, value)
        shape = lead + self.shape
        if found.shape != shape:
            advice = shape_advice(self.name, found, self.shape, len(lead), self.dtype)
            raise SchemaError(
                f"field {self.name!r}: expected shape {shape} (found {found.shape}, "
                f"{found.dtype}){': ' * bool(advice)}{', or '.join(advice)}"
            )
        return self.fit(found)

    def fit(self, found: Array) -> Array:
        """Return an array of the right shape as one of this field's dtype, as `convert` does."""
        array = found
        if found.dtype != self.dtype:
            if found.size <= _FEW_TO_CAST and self._fits_as_float(found):
                return found.astype(self.dtype)
            array = self._cast(found)
        if self.name == "reward" and not are_finite(array):
            raise SchemaError(
                "field 'reward': expected finite numbers "
                f"(found {array[~np.isfinite(array)].flat[0]}): "
                "one such reward spoils every value learnt from it"
            )
        if self.name == "done" and not are_dones(array):
            wrong = array[~np.isin(array, (0, 1))].flat[0]
            raise SchemaError(f"field 'done': expected True or False, 1 or 0 (found {wrong})")
        return array

    def _fits_as_float(self, found: Array) -> bool:
        """Return whether a few real numbers can be stored as floats without any other check.

        For the columns of a few environments this is several times faster than `_cast`.
        """
        if not self._largest or found.dtype.char not in REAL:
            return False
        numbers = (found if found.ndim == 1 else found.ravel()).tolist()
        if self.name == "done":
            return DONES.issuperset(numbers)
        most = self._largest
        return not numbers or (
            math.isfinite(sum(numbers)) and -most <= min(numbers) and max(numbers) <= most
        )

    def _cast(self, found: Array) -> Array:
        """Return an array of another type as one of this field's, or raise SchemaError."""
        if found.dtype in self._narrower:
            return found.astype(self.dtype)
        if found.dtype.char not in REAL + COMPLEX:
            raise not_numbers(self.name, found.dtype)
        if found.size and _RANKS[found.dtype.kind] > _RANKS[self.dtype.kind]:
            takes_bools = self.dtype.kind == "b" or self.name == "done"
            if not takes_bools or found.dtype.kind == "c" or not np.isin(found, (0, 1)).all():
                raise SchemaError(
                    f"field {self.name!r}: expected {self.dtype} (found {found.dtype}): "
                    "the first transition or schema= has set the type; convert the value to it"
                )
        try:
            with np.errstate(over="raise", invalid="ignore"):
                array = found.astype(self.dtype)
        except FloatingPointError:
            raise SchemaError(
                f"field {self.name!r}: a number is beyond {self.dtype} "
                f"(found {found.min()} to {found.max()}): schema= can set a wider type"
            ) from None
        if self.dtype.kind in "biu" and not np.array_equal(array, found):
            raise SchemaError(
                f"field {self.name!r}: values do not fit {self.dtype} "
                f"(found {found.min()} to {found.max()})"
            )
        return array


def _dtype_and_shape(name: str, dtype: Any, shape: Any) -> tuple[Any, Any]:
    """Return dtype and shape of a field, also where one object has both, as a space has."""
    try:
        if isinstance(dtype, type) or not (hasattr(dtype, "dtype") and hasattr(dtype, "shape")):
            return dtype, shape
        own, found, given = dtype.dtype, dtype.shape, tuple(shape)
        items = getattr(dtype, "feature_space", None)  # of a Sequence of Gymnasium
        if items is not None and items.dtype is not None and items.shape is not None:
            own, found = items.dtype, (None, *items.shape)
        elif found is None and own == np.str_:  # a Text of Gymnasium has no shape
            found = ()
        fits = own is None or found is None or given in ((), tuple(found))
    except Exception as error:
        raise _unusable(name, error) from None
    if own is None or found is None:
        raise SchemaError(
            f"field {name!r}: a {type(dtype).__name__} has not one dtype and one shape: give each "
            "of its parts as a field"
        )
    if not fits:
        raise SchemaError(
            f"field {name!r}: expected the shape {tuple(found)} of the {type(dtype).__name__}, or "
            f"none (found {shown(given)})"
        )
    return own, found


def _kept(
    name: str, shape: tuple[Any, ...], log: Any, frame_axis: Any, codec: Any, *, varies: bool
) -> tuple[bool, int | None, str | None]:
    """Return whether a field is in the log, its frame axis and its codec, or raise SchemaError."""
    if codec is not None and codec not in CODECS:
        raise SchemaError(
            f"field {name!r}: expected a codec, {', '.join(CODECS)} or None (found {shown(codec)})"
        )
    axis = None
    if frame_axis is not None:
        if varies:
            raise SchemaError(
                f"field {name!r} varies in size, so it has no frame axis (found frame_axis="
                f"{shown(frame_axis)}): leave it away"
            )
        axis = as_whole(frame_axis)
        if axis is None or not -len(shape) <= axis < len(shape) or not shape[axis]:
            raise SchemaError(
                f"field {name!r}: expected the number of an axis of the shape {shape} as "
                f"frame_axis (found {shown(frame_axis)})"
            )
        axis %= len(shape)
    in_log = bool(log) or axis is not None or codec is not None or varies
    if varies and name in ("reward", "done"):
        raise SchemaError(f"field {name!r} cannot vary in size: it is one number")
    if in_log and name in ("reward", "done"):
        raise SchemaError(
            f"field {name!r} cannot be in the log, since it is one number: leave its codec, its "
            "frame_axis and log= away"
        )
    return in_log, axis, codec


def _without_torch(dtype: Any) -> Any:
    """Return a dtype of PyTorch as the name of the dtype that its tensors are stored with."""
    if type(dtype).__module__ != "torch":
        return dtype
    return str(dtype).removeprefix("torch.").replace("bfloat16", "float32")


def _length(value: Any) -> int | None:
    if value is None:
        return None
    length = as_whole(value)
    if length is None:
        raise TypeError(f"a length must be a whole number (found {shown(value)})")
    return length


def _unusable(name: str, error: Exception) -> SchemaError:
    return SchemaError(f"field {name!r} has no usable dtype or shape: {cut(str(error))}")

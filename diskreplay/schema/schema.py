"""Schema: the named, typed fields of a transition, and the check that a transition fits them.

The first five fields are always state, action, reward, next_state and done; extra fields follow.
"""

from __future__ import annotations

import contextlib
import keyword
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from diskreplay.errors import SchemaError
from diskreplay.schema.row_check import Sight, are_dones, are_finite
from diskreplay.validation import as_array, as_whole

Array: TypeAlias = NDArray[Any]
FieldLike: TypeAlias = "Field | DTypeLike | tuple[DTypeLike, Sequence[int]]"

STANDARD_FIELDS = ("state", "action", "reward", "next_state", "done")
# Parameters and results of the buffer's methods, which an extra field would shadow.
RESERVED_NAMES = frozenset(
    ("states", "actions", "rewards", "next_states", "dones", "weights", "indices")
    + ("priority", "priorities", "self")
)
MAX_TRANSITION_BYTES = 2**30
_MAX_DIMENSIONS, _MAX_LENGTH = 32, 2**31 - 1  # of numpy's structured dtypes
_MAX_FIELDS = 2**16 - 3  # a msgpack array of 16 bits, with the checksum and the write id
_TYPES = frozenset(
    ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16")
)


@dataclass(frozen=True, init=False)
class Field:
    """One named column: a dtype and the shape of one transition's value.

    >>> Field("state", "float32", (60,))
    Field(name='state', dtype=dtype('float32'), shape=(60,))
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __init__(self, name: str, dtype: DTypeLike = np.float32, shape: Sequence[int] = ()) -> None:
        if isinstance(name, str) and (name.startswith("_") or keyword.iskeyword(name)):
            raise SchemaError(
                f"{name!r} cannot name a field, since batches are named tuples: expected a name "
                "that is no Python keyword and does not begin with an underscore"
            )
        self._set(name, *_described(name, dtype, shape))

    @classmethod
    def stored(cls, name: str, dtype: DTypeLike, shape: Sequence[int]) -> Field:
        """Return a field of a store, which may have a name that a new field may not have."""
        field = object.__new__(cls)
        field._set(name, dtype, shape)
        return field

    def _set(self, name: str, dtype: DTypeLike, shape: Sequence[int]) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise SchemaError(f"a field's name must be a Python identifier (found {name!r})")
        if name in RESERVED_NAMES:
            raise SchemaError(f"{name!r} cannot name a field, it is a word of the buffer's methods")
        try:
            found = np.dtype(dtype).newbyteorder("=")
            lengths = tuple(map(_length, shape))
            if found.subdtype is not None:
                found, inner = found.subdtype
                found, lengths = found.newbyteorder("="), lengths + inner
        except Exception as error:  # an object may raise anything when it is iterated
            raise SchemaError(f"field {name!r} has no usable dtype or shape: {error}") from None
        if found.str[1:] not in _TYPES:
            raise SchemaError(_not_numbers(name, str(found)))
        if any(length < 0 for length in lengths):
            raise SchemaError(f"field {name!r} has a negative length in its shape {lengths}")
        if len(lengths) > _MAX_DIMENSIONS or any(length > _MAX_LENGTH for length in lengths):
            raise SchemaError(
                f"field {name!r} has {len(lengths)} dimensions, the longest of {max(lengths)} "
                f"(expected at most {_MAX_DIMENSIONS}, each of at most {_MAX_LENGTH})"
            )
        # Also where another length is 0: numpy counts the others all the same.
        if found.itemsize * math.prod(filter(None, lengths)) > MAX_TRANSITION_BYTES:
            raise SchemaError(
                f"field {name!r} has the shape {lengths} (expected at most {MAX_TRANSITION_BYTES} "
                "bytes): store large values elsewhere and their names here"
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "dtype", found)
        object.__setattr__(self, "shape", lengths)

    @property
    def type(self) -> str:
        """The dtype and the shape in one word, such as float32[60]."""
        return f"{self.dtype}{list(self.shape) if self.shape else ''}"

    @cached_property
    def payload_bytes(self) -> int:
        """The bytes of one value, without framing."""
        return self.dtype.itemsize * math.prod(self.shape)

    @cached_property
    def narrower(self) -> frozenset[np.dtype[Any]]:
        """The dtypes of which every value is one of this field's, too."""
        return frozenset(d for d in map(np.dtype, _TYPES) if np.can_cast(d, self.dtype, "safe"))

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"

    def accept(self, value: Any) -> Any:
        """Return one transition's value as it is stored, or raise SchemaError.

        Numbers and arrays of the right type pass untouched; everything else is converted by
        `convert`. What is returned assigns to a row of the column without a further check.
        """
        return Sight([self]).accepted([value])[0]

    def convert(self, value: Any, lead: tuple[int, ...]) -> Array:
        """Return `value` as an array of this field's dtype and of shape `lead + shape`.

        Numbers are rounded to the precision of a float field and must fit a whole-number field
        exactly; floats are not turned into whole numbers. Raises SchemaError with what was expected
        and found.
        """
        found = _as_array(self.name, value)
        shape = lead + self.shape
        if found.shape != shape:
            ways_out = _ways_out(found, self.shape, len(lead))
            raise SchemaError(
                f"field {self.name!r}: expected shape {shape} (found {found.shape}, "
                f"{found.dtype}){': ' * bool(ways_out)}{', or '.join(ways_out)}"
            )
        if found.dtype == self.dtype:
            array = found
        elif found.dtype in self.narrower:
            array = found.astype(self.dtype)
        else:
            if found.size and _rank(found.dtype) > _rank(self.dtype) and not self._is_bools(found):
                raise SchemaError(
                    f"field {self.name!r}: expected {self.dtype} (found {found.dtype}): "
                    "the first transition or schema= has set the type; convert the value to it"
                )
            array = self._cast(found)
            if self.dtype.kind in "biu" and not np.array_equal(array, found):
                raise SchemaError(
                    f"field {self.name!r}: values do not fit {self.dtype} "
                    f"(found {found.min()} to {found.max()})"
                )
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

    def _cast(self, found: Array) -> Array:
        try:
            with np.errstate(over="raise", invalid="ignore"):
                return found.astype(self.dtype)
        except FloatingPointError:
            raise SchemaError(
                f"field {self.name!r}: a number is beyond {self.dtype} "
                f"(found {found.min()} to {found.max()}): schema= can set a wider type"
            ) from None

    def _is_bools(self, found: Array) -> bool:
        only_bools = self.dtype.kind == "b" or self.name == "done"
        return only_bools and found.dtype.kind != "c" and bool(np.isin(found, (0, 1)).all())


class Schema:
    """The ordered fields of a transition.

    >>> schema = Schema({"state": ("float32", (60,)), "action": "int64", "log_prob": "float32"})
    Traceback (most recent call last):
    diskreplay.errors.SchemaError: a schema needs the field 'reward' (found state, action, log_prob)
    """

    def __init__(self, fields: Mapping[str, FieldLike] | Iterable[Field]) -> None:
        given = fields_of(fields)
        for name in STANDARD_FIELDS:
            if name not in given:
                raise SchemaError(f"a schema needs the field {name!r} (found {', '.join(given)})")
        extras = [name for name in given if name not in STANDARD_FIELDS]
        if len(given) > _MAX_FIELDS:
            raise SchemaError(f"a schema has {len(given)} fields (expected at most {_MAX_FIELDS})")
        self.fields = tuple(given[name] for name in (*STANDARD_FIELDS, *extras))
        self.names = tuple(field.name for field in self.fields)
        self.extra_names = tuple(extras)
        self._name_set = frozenset(self.names)
        self._sight = Sight(self.fields)
        if self.payload_bytes > MAX_TRANSITION_BYTES:
            raise SchemaError(
                f"a transition of this schema takes {self.payload_bytes} bytes (expected at most "
                f"{MAX_TRANSITION_BYTES}): store large values elsewhere and their names here"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(self.fields)

    def __repr__(self) -> str:
        return f"Schema({', '.join(map(str, self.fields))})"

    def __getitem__(self, name: str) -> Field:
        return self.fields[self.names.index(name)]

    @cached_property
    def payload_bytes(self) -> int:
        """The bytes of one transition's values, without framing."""
        return sum(field.payload_bytes for field in self.fields)

    def accept_row(self, values: Mapping[str, Any]) -> list[Any]:
        """Return one transition's values in the order of the fields, ready to be stored.

        Raises SchemaError for a missing or unknown field and for a value that does not fit.
        """
        self._check_names(values)
        return self._sight.accepted([values[name] for name in self.names])

    def accept_values(self, standard: Iterable[Any], extra: Mapping[str, Any]) -> list[Any]:
        """Return what `accept_row` does, given the values of the standard fields in their order."""
        row = [*standard]
        if extra or self.extra_names:
            row += self._extras(extra)
        return self._sight.accepted(row)

    def accept_columns(self, values: Mapping[str, Any]) -> list[Array]:
        """Return n transitions as columns in the order of the fields, each of length n.

        Raises SchemaError for a missing or unknown field, for columns of different lengths and for
        values that do not fit.
        """
        self._check_names(values)
        return self._accept_all([values[name] for name in self.names])

    def accept_arrays(self, standard: Iterable[Any], extra: Mapping[str, Any]) -> list[Array]:
        """Return what `accept_columns` does, given the columns of the standard fields in order."""
        columns = [*standard]
        if extra or self.extra_names:
            columns += self._extras(extra)
        return self._accept_all(columns)

    def _extras(self, extra: Mapping[str, Any]) -> list[Any]:
        self._check_names({**dict.fromkeys(STANDARD_FIELDS), **extra})
        return [extra[name] for name in self.extra_names]

    def _accept_all(self, given: list[Any]) -> list[Array]:
        if (accepted := self._sight.accepted_columns(given)) is not None:
            return accepted
        columns = list(map(_as_array, self.names, given))
        lengths = {n: len(c) if c.ndim else None for n, c in zip(self.names, columns, strict=True)}
        if None in lengths.values():
            single = ", ".join(name for name, length in lengths.items() if length is None)
            raise SchemaError(
                f"expected n values of each field (found one number as {single}): "
                "push() takes a single transition"
            )
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise SchemaError(f"expected columns of one length (found {found})")
        lead = (len(columns[0]),)
        return [f.convert(array, lead) for f, array in zip(self.fields, columns, strict=True)]

    def to_plain(self) -> list[list[Any]]:
        """Return the schema as lists, strings and numbers; `from_plain` is the way back."""
        return [[f.name, f.dtype.newbyteorder("<").str, list(f.shape)] for f in self.fields]

    @classmethod
    def from_plain(cls, plain: Any) -> Schema:
        """Return the schema that `to_plain` described; raise SchemaError for anything else."""
        try:
            entries = [(name, str(dtype), tuple(shape)) for name, dtype, shape in plain]
            for _, dtype, _ in entries:
                if dtype.lstrip("<|") not in _TYPES:
                    raise SchemaError(f"it has a field of type {dtype[:20]!r}")
            return cls([Field.stored(*entry) for entry in entries])
        except (TypeError, ValueError) as error:
            raise SchemaError(f"not a schema: {error}") from None

    def _check_names(self, values: Mapping[str, Any]) -> None:
        if values.keys() != self._name_set:
            missing = [name for name in self.names if name not in values]
            unknown = [name for name in values if name not in self.names]
            found = f"missing: {', '.join(missing) or 'none'}; new: {', '.join(unknown) or 'none'}"
            raise SchemaError(f"expected the fields {', '.join(self.names)} ({found})")


SchemaLike: TypeAlias = Schema | Mapping[str, FieldLike]


def fields_of(fields: Schema | Mapping[str, FieldLike] | Iterable[Field]) -> dict[str, Field]:
    """Return fields by name, from any of the forms in which a user may give them."""
    if isinstance(fields, Schema):
        fields = fields.fields
    found: dict[str, Field] = {}
    entries: Any = None
    with contextlib.suppress(Exception):  # an object may raise anything when it is iterated
        if isinstance(fields, Mapping):
            entries = [*fields.items()]
        elif not isinstance(fields, str):
            entries = [(None, field) for field in fields]
    if entries is None:
        raise SchemaError(f"expected a Schema, or fields by name (found {fields!r})")
    for key, entry in entries:
        name = entry.name if key is None and isinstance(entry, Field) else str(key)
        if not isinstance(entry, Field):
            parts = entry if isinstance(entry, tuple) else (entry, ())
            if key is None or entry is None or len(parts) != 2 or isinstance(parts[1], str | int):
                raise SchemaError(
                    f"field {name!r}: expected a dtype, or a dtype and a shape (found {entry!r})"
                )
            entry = Field(name, *parts)
        if entry.name != name or name in found:
            raise SchemaError(f"field {entry.name!r} is given twice or under the name {name!r}")
        found[name] = entry
    return found


def infer_schema(values: Mapping[str, Any], given: Mapping[str, Field], *, lead: int) -> Schema:
    """Make a schema from the first transitions, whose values have `lead` leading dimensions.

    Float states, rewards, dones and extras become float32, whole-number actions int64, other whole
    numbers keep their type (Python's are int64). next_state is what state is. `given` wins.
    """
    fields = {}
    for name in dict.fromkeys((*values, *given)):
        if name in given:
            fields[name] = given[name]
        elif name == "next_state":
            state = given.get("state") or _infer_field("state", values["state"], lead)
            fields[name] = Field(name, state.dtype, state.shape)
        else:
            fields[name] = _infer_field(name, values[name], lead)
    return Schema(fields)


def _infer_field(name: str, value: Any, lead: int) -> Field:
    found = _as_array(name, value)
    if name in ("reward", "done") and found.ndim > lead:
        ways_out = [
            *_ways_out(found, (), lead),
            f"set its shape with schema=, where a {name} has one",
        ]
        raise SchemaError(
            f"field {name!r}: expected one number a transition (found shape {found.shape}"
            f"{', the first dimension of which counts the transitions' * lead}): "
            f"{', or '.join(ways_out)}"
        )
    dtype = found.dtype
    if dtype.kind == "f" or name in ("reward", "done"):
        dtype = np.dtype(np.float32)
    elif name == "action" and dtype.kind in "iu":
        dtype = np.dtype(np.int64)
    return Field(name, dtype, found.shape[lead:])


def _as_array(name: str, value: Any) -> Array:
    if value is None:
        way_out = " (at the end of an episode give the last observation, done masks it)"
        raise SchemaError(f"field {name!r} is None{way_out if name == 'next_state' else ''}")
    if isinstance(value, Mapping):
        raise SchemaError(f"field {name!r} is a dictionary: give each of its entries as a field")
    array = as_array(value, SchemaError, f"field {name!r} is not an array of numbers")
    if array.dtype.str[1:] not in _TYPES:
        raise SchemaError(_not_numbers(name, str(array.dtype)))
    return array


def _ways_out(found: Array, shape: tuple[int, ...], lead: int) -> list[str]:
    """Return what to do about a value of a wrong shape, where there is something to say."""
    ways = []
    if not lead and not shape and found.size == 1:
        ways.append("give a plain number")
    if lead and not shape and found.shape[:lead] and found.size == found.shape[0]:
        ways.append(f"give shape {found.shape[:lead]}")
    if not lead and found.ndim and found.shape[1:] == shape:
        ways.append("call extend(), which takes the transitions of several environments at once")
    return ways


def _described(name: str, dtype: Any, shape: Any) -> tuple[Any, Any]:
    """Return dtype and shape of a field, also where one object has both, as a space has."""
    try:
        if isinstance(dtype, type) or not (hasattr(dtype, "dtype") and hasattr(dtype, "shape")):
            return dtype, shape
        own, found, given = dtype.dtype, dtype.shape, tuple(shape)
        fits = own is None or found is None or given in ((), tuple(found))
    except Exception as error:
        raise SchemaError(f"field {name!r} has no usable dtype or shape: {error}") from None
    if own is None or found is None:
        raise SchemaError(
            f"field {name!r}: a {type(dtype).__name__} has not one dtype and one shape: give each "
            "of its parts as a field"
        )
    if not fits:
        raise SchemaError(
            f"field {name!r}: expected the shape {tuple(found)} of the {type(dtype).__name__}, or "
            f"none (found {given})"
        )
    return own, found


def _length(value: Any) -> int:
    length = as_whole(value)
    if length is None:
        raise TypeError(f"a length must be a whole number (found {value!r})")
    return length


def _not_numbers(name: str, found: str) -> str:
    return f"field {name!r}: expected numbers or bools of a fixed shape (found {found})"


def _rank(dtype: np.dtype[Any]) -> int:
    """Order of kinds: a value converts to its own kind or a later one."""
    return {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}[dtype.kind]

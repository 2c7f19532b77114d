"""Schema: the ordered fields of a transition, and the check of rows and columns.

The first five fields are always state, action, reward, next_state and done; extra fields follow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from diskreplay.aliases import Columns, Ints
from diskreplay.errors import DamageError, SchemaError
from diskreplay.schema.field import MAX_TRANSITION_BYTES, TYPES, WORDS, Field, FieldLike
from diskreplay.schema.field_forms import entries_in, field_of
from diskreplay.schema.names import nested_names, root_of, steps_of
from diskreplay.schema.nesting import fill, leaves, mapped, misfit, unusable
from diskreplay.schema.numbers import as_numbers
from diskreplay.schema.packing import packed_column
from diskreplay.schema.row_check import RowCheck
from diskreplay.wording import shown

STANDARD_FIELDS = ("state", "action", "reward", "next_state", "done")
_OBJECT_BYTES = 48  # of a bytes object in memory, beside its content
_MAX_FIELDS = 2**16 - 3  # a msgpack array of 16 bits, with the checksum and the write id


class Schema:
    """The ordered fields of a transition.

    A value that is a dictionary or a tuple has a field for each of its parts, whose name says where
    it is: state.camera, state.robot[1]. The parts of a value stand one after the other.

    names:        of the fields
    extra_names:  of the values after the five standard ones, nested or not
    is_flat:      whether each value is one field
    varying:      the places of the fields whose values vary in size

    >>> schema = Schema({"state": ("float32", (60,)), "action": "int64", "log_prob": "float32"})
    Traceback (most recent call last):
    diskreplay.errors.SchemaError: a schema needs the field 'reward' (found state, action, log_prob)
    """

    def __init__(self, fields: Mapping[str, FieldLike] | Iterable[Field]) -> None:
        given = fields_of(fields)
        nested = nested_names(given)
        for name in STANDARD_FIELDS:
            if name not in nested:
                raise SchemaError(f"a schema needs the field {name!r} (found {', '.join(given)})")
        for name in ("reward", "done"):
            if name not in given:
                raise SchemaError(
                    f"field {name!r} cannot have parts (found {next(leaves(nested[name]))}): "
                    "it is one number"
                )
        if len(given) > _MAX_FIELDS:
            raise SchemaError(f"a schema has {len(given)} fields (expected at most {_MAX_FIELDS})")
        self.extra_names = tuple(name for name in nested if name not in STANDARD_FIELDS)
        self._nested_names = {name: nested[name] for name in STANDARD_FIELDS + self.extra_names}
        self.names = tuple(leaves(self._nested_names))
        self.fields = tuple(given[name] for name in self.names)
        self.is_flat = self.names == tuple(self._nested_names)
        self._index_of = {name: index for index, name in enumerate(self.names)}
        self._structures = mapped(self._nested_names, self._index_of.__getitem__)
        self.varying = tuple(i for i, field in enumerate(self.fields) if field.varies)
        self._is_standard = self.is_flat and not self.extra_names
        self._check = RowCheck(self.fields)
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
        if name not in self._index_of:
            raise SchemaError(
                f"the schema has no field {shown(name)} (found {', '.join(self.names)}): a nested "
                "value has a field for each of its parts"
            )
        return self.fields[self._index_of[name]]

    @classmethod
    def from_spaces(cls, observation_space: Any, action_space: Any, **fields: FieldLike) -> Schema:
        """Return the schema of an environment of Gymnasium, with the exact types of its spaces.

        Takes Box, Discrete, MultiDiscrete, MultiBinary and Text, Dict and Tuple of them, nested or
        not, and a Sequence of arrays of one shape, which varies in length. `reward`, `done` and
        `truncated` are float32. Of a vector environment give `single_observation_space` and
        `single_action_space`. Raises SchemaError, naming the part, for other spaces, such as Graph
        and OneOf: a wrapper of the environment can make a Dict of arrays of them.

        >>> from gymnasium.spaces import Box, Dict, Discrete
        >>> camera = Box(0, 255, (4, 84, 84), "uint8")
        >>> schema = Schema.from_spaces(Dict(camera=camera), Discrete(6), log_prob="float32")
        >>> schema["next_state.camera"].type, schema["action"].type, schema.extra_names
        ('uint8[4, 84, 84]', 'int64', ('truncated', 'log_prob'))

        fields:  further fields, and others than these: reward="float64"
        """
        found: dict[str, FieldLike] = {
            "state": observation_space,
            "action": action_space,
            "reward": np.float32,
            "next_state": observation_space,
            "done": np.float32,
            "truncated": np.float32,
        }
        return cls({**found, **fields})

    @cached_property
    def payload_bytes(self) -> int:
        """The bytes of one transition's values, without framing and without those that vary."""
        return sum(field.payload_bytes for field in self.fields)

    @cached_property
    def logged(self) -> tuple[int, ...]:
        """The places of the fields whose values are in the observation log."""
        return tuple(index for index, field in enumerate(self.fields) if field.log)

    @cached_property
    def done_place(self) -> int:
        """The place of the field `done`."""
        return self._index_of["done"]

    @cached_property
    def state_places(self) -> tuple[int, ...]:
        """The places of the fields of state; none if next_state has other fields."""
        found, others = self._of_root("state"), self._of_root("next_state")
        types = [(f"next_{self.names[i]}", self.fields[i].type) for i in found]
        return found if types == [(self.names[i], self.fields[i].type) for i in others] else ()

    @cached_property
    def next_state_places(self) -> tuple[int, ...]:
        """The places of the fields of next_state that correspond to `state_places`."""
        return self._of_root("next_state") if self.state_places else ()

    def _of_root(self, root: str) -> tuple[int, ...]:
        return tuple(i for i, name in enumerate(self.names) if root_of(name) == root)

    @property
    def has_frames(self) -> bool:
        """Whether batches may have frames in place of whole values: not beside varying ones."""
        return bool(self.logged) and not self.varying

    def packed_bytes(self, row: Sequence[Any]) -> int:
        """Return the memory of the values in a row that vary in size; the row was accepted."""
        return sum([len(row[index]) + _OBJECT_BYTES for index in self.varying])

    def packed_sizes(self, columns: Columns) -> Ints:
        """Return the memory of such values in each row of columns."""
        sizes = np.full(len(columns[0]), _OBJECT_BYTES * len(self.varying))
        for index in self.varying:
            sizes += np.fromiter(map(len, columns[index]), np.int64, sizes.size)
        return sizes

    @property
    def types(self) -> frozenset[tuple[str, str]]:
        """The name and the type of each field: what batches show, wherever it is kept."""
        return frozenset((field.name, field.type) for field in self.fields)

    @cached_property
    def record_schema(self) -> Schema:
        """The fields as they stand in a record: observation ids for what is in the log."""
        if not self.logged:
            return self
        return Schema(
            Field.stored(f.name, np.int64, () if f.frame_axis is None else (f.frames,))
            if f.log
            else f
            for f in self.fields
        )

    def empty_columns(self, n: int, fields: Sequence[int] | None = None) -> Columns:
        """Return arrays of n arbitrary values, of all fields or of those at some places."""
        chosen = self.fields if fields is None else [self.fields[index] for index in fields]
        types = [field.in_column for field in chosen]
        return [np.empty((n, *shape), dtype) for dtype, shape in types]

    def columns_of(self, row: Sequence[Any]) -> Columns:
        """Return one row, as it was accepted, as columns."""
        columns = self.empty_columns(1)
        for column, value in zip(columns, row, strict=True):
            column[0] = value
        return columns

    def accept_row(self, standard: Iterable[Any], extra: Mapping[str, Any]) -> list[Any]:
        """Return one transition's values in the order of the fields, ready to be stored.

        Raises SchemaError for a missing or unknown field or part and for a value that does not fit.

        standard:  the values of the standard fields, in their order
        extra:     the others, by name
        """
        row = [*standard]
        if extra or not self._is_standard:
            row = self._in_order(row, extra)
        return self._check.row(row)

    def accept_columns(self, standard: Iterable[Any], extra: Mapping[str, Any]) -> Columns:
        """Return n transitions as columns in the order of the fields, each of length n.

        Raises SchemaError as `accept_row` does, and for columns of different lengths.
        """
        given = [*standard]
        if extra or not self._is_standard:
            given = self._in_order(given, extra)
        if (converted := self._check.columns(given)) is not None:
            return converted
        for f, c in zip(self.fields, given, strict=True):
            if type(c) is tuple and not f.name.isidentifier() and not f.varies:
                # Its length does not tell whether it is a column of rows or of parts.
                raise SchemaError(
                    f"field {f.name!r} is one array, {f.type}: give an array whose first dimension "
                    f"counts the transitions (found a tuple of {len(c)})"
                )
        columns = [
            packed_column(f, c) if f.varies else as_numbers(f.name, c)
            for f, c in zip(self.fields, given, strict=True)
        ]
        single = [name for name, c in zip(self.names, columns, strict=True) if not c.ndim]
        if single:
            raise SchemaError(
                f"expected n values of each field (found one number as {', '.join(single)}): "
                "push() takes a single transition"
            )
        if len(set(map(len, columns))) > 1:
            found = ", ".join(f"{n} {len(c)}" for n, c in zip(self.names, columns, strict=True))
            advice = "" if self.is_flat else ": a nested field is a dictionary or tuple of columns"
            raise SchemaError(f"expected columns of one length (found {found}){advice}")
        lead = (len(columns[0]),)
        return [
            c if f.varies else f.convert(c, lead) for f, c in zip(self.fields, columns, strict=True)
        ]

    def _in_order(self, standard: list[Any], extra: Mapping[str, Any]) -> list[Any]:
        """Return values in the order of the fields; raise SchemaError for other parts."""
        missing = [name for name in self.extra_names if name not in extra]
        unknown = [name for name in extra if name not in self.extra_names]
        if missing or unknown:
            raise SchemaError(
                f"expected the fields {', '.join(self.names)} (missing: "
                f"{', '.join(missing) or 'none'}; new: {', '.join(unknown) or 'none'})"
            )
        values = [*standard, *(extra[name] for name in self.extra_names)]
        return values if self.is_flat else self.flat(values)

    def flat(self, values: Sequence[Any]) -> list[Any]:
        """Return nested values, one for each root, in the order of the fields.

        Raises SchemaError, and names the parts, if they have other parts than the schema.
        """
        row: list[Any] = []
        for (name, structure), value in zip(self._structures.items(), values, strict=True):
            try:
                fits = fill(structure, value, row)
            except Exception as error:  # an object may raise anything when it is asked
                raise unusable(name, error) from None
            if not fits:
                raise misfit(name, self._nested_names[name], value)
        return row

    def nested(self, columns: Sequence[Any]) -> Sequence[Any]:
        """Return values in the order of the fields as nested values, one for each root."""
        if self.is_flat:
            return columns
        return [mapped(part, columns.__getitem__) for part in self._structures.values()]

    def structure(self, name: Any) -> Any:
        """Return the places of the fields in a value or in a part of one, nested as it is.

        That is an int for the name of one field, and None for a name that the schema does not have.
        """
        if name in self._index_of:
            return self._index_of[name]
        found: Any = self._structures
        try:
            for step in steps_of(name):
                found = found[step]
        except (SchemaError, LookupError, TypeError):  # TypeError: a place has no parts
            return None
        return found

    def to_plain(self) -> list[list[Any]]:
        """Return the schema as lists, strings and numbers; `from_plain` is the way back."""
        plain: list[list[Any]] = []
        for f in self.fields:
            word = WORDS.get(f.dtype.kind, f.dtype.newbyteorder("<").str)
            plain.append([f.name, word, list(f.shape)])
            if f.log:
                plain[-1].append({"frame_axis": f.frame_axis, "codec": f.codec})
        return plain

    @classmethod
    def from_plain(cls, plain: Any) -> Schema:
        """Return the schema that `to_plain` described; raise SchemaError for anything else."""
        try:
            fields = []
            for name, dtype, shape, *log in plain:
                if not isinstance(dtype, str) or dtype.lstrip("<|") not in (*TYPES, "str", "bytes"):
                    raise SchemaError(f"it has a field of type {shown(dtype)}")
                kept: Any = {}
                if log:
                    [kept] = log
                    kept = {"log": True, **{key: kept[key] for key in ("frame_axis", "codec")}}
                fields.append(Field.stored(name, dtype, tuple(shape), **kept))
            return cls(fields)
        except (
            TypeError,
            ValueError,
            KeyError,
            RecursionError,
        ) as error:  # it may be nested deeply
            raise SchemaError(f"not a schema: {error}") from None

    @classmethod
    def from_stored(cls, plain: Any, where: str) -> Schema:
        """Return the schema that a store holds; raise DamageError for anything else."""
        try:
            return cls.from_plain(plain)
        except SchemaError as error:
            raise DamageError(f"the schema of {where} is damaged: {error!s:.200}") from None


SchemaLike: TypeAlias = Schema | Mapping[str, FieldLike]


def fields_of(fields: Schema | Mapping[str, FieldLike] | Iterable[Field]) -> dict[str, Field]:
    """Return fields by name, from any of the forms in which a user may give them."""
    if isinstance(fields, Schema):
        fields = fields.fields
    entries: list[Any] | None = None
    with contextlib.suppress(Exception):  # an object may raise anything when it is iterated
        if isinstance(fields, Mapping):
            entries = [*fields.items()]
        elif not isinstance(fields, str):
            entries = [(None, field) for field in fields]
    if entries is None:
        raise SchemaError(f"expected a Schema, or fields by name (found {shown(fields)})")
    found: dict[str, Field] = {}
    for key, value in entries:
        root = value.name if key is None and isinstance(value, Field) else str(key)
        for name, entry in entries_in(root, value):
            field = field_of(name, entry, is_named=key is not None)
            if field.name != name and field.name == steps_of(name)[-1]:
                # A part may be named by its key alone.
                field = replace(field, name=name)
            if field.name != name or name in found:
                raise SchemaError(f"field {field.name!r} is given twice or under the name {name!r}")
            found[name] = field
    nested_names(found)
    return found


def missing_in(fields: Iterable[str]) -> list[str]:
    """Return the standard fields that are not among fields, neither themselves nor in parts."""
    there = set(map(root_of, fields))
    return [name for name in STANDARD_FIELDS if name not in there]

"""Schema: the ordered fields of a transition, and the check of rows and columns.

The first five fields are always state, action, reward, next_state and done; extra fields follow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from diskreplay.aliases import Columns
from diskreplay.errors import DamageError, SchemaError
from diskreplay.schema.field import MAX_TRANSITION_BYTES, TYPES, Field, FieldLike, as_numbers
from diskreplay.schema.row_check import RowCheck
from diskreplay.wording import shown

STANDARD_FIELDS = ("state", "action", "reward", "next_state", "done")
_MAX_FIELDS = 2**16 - 3  # a msgpack array of 16 bits, with the checksum and the write id


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
        if len(given) > _MAX_FIELDS:
            raise SchemaError(f"a schema has {len(given)} fields (expected at most {_MAX_FIELDS})")
        self.extra_names = tuple(name for name in given if name not in STANDARD_FIELDS)
        self.names = STANDARD_FIELDS + self.extra_names
        self.fields = tuple(given[name] for name in self.names)
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
        return self.fields[self.names.index(name)]

    @cached_property
    def payload_bytes(self) -> int:
        """The bytes of one transition's values, without framing."""
        return sum(field.payload_bytes for field in self.fields)

    def empty_columns(self, n: int, fields: Sequence[int] | None = None) -> Columns:
        """Return arrays of n arbitrary values, of all fields or of those at some places."""
        chosen = self.fields if fields is None else [self.fields[index] for index in fields]
        return [np.empty((n, *field.shape), field.dtype) for field in chosen]

    def accept_row(self, standard: Iterable[Any], extra: Mapping[str, Any]) -> list[Any]:
        """Return one transition's values in the order of the fields, ready to be stored.

        Raises SchemaError for a missing or unknown extra field and for a value that does not fit.

        standard:  the values of the standard fields, in their order
        extra:     the others, by name
        """
        row = [*standard]
        if extra or self.extra_names:
            row += self._extras(extra)
        return self._check.row(row)

    def accept_columns(self, standard: Iterable[Any], extra: Mapping[str, Any]) -> Columns:
        """Return n transitions as columns in the order of the fields, each of length n.

        Raises SchemaError as `accept_row` does, and for columns of different lengths.
        """
        given = [*standard]
        if extra or self.extra_names:
            given += self._extras(extra)
        if (converted := self._check.columns(given)) is not None:
            return converted
        columns = list(map(as_numbers, self.names, given))
        single = [name for name, c in zip(self.names, columns, strict=True) if not c.ndim]
        if single:
            raise SchemaError(
                f"expected n values of each field (found one number as {', '.join(single)}): "
                "push() takes a single transition"
            )
        if len(set(map(len, columns))) > 1:
            found = ", ".join(f"{n} {len(c)}" for n, c in zip(self.names, columns, strict=True))
            raise SchemaError(f"expected columns of one length (found {found})")
        lead = (len(columns[0]),)
        return [f.convert(c, lead) for f, c in zip(self.fields, columns, strict=True)]

    def _extras(self, extra: Mapping[str, Any]) -> list[Any]:
        """Return the values of the extra fields in their order."""
        missing = [name for name in self.extra_names if name not in extra]
        unknown = [name for name in extra if name not in self.extra_names]
        if missing or unknown:
            raise SchemaError(
                f"expected the fields {', '.join(self.names)} (missing: "
                f"{', '.join(missing) or 'none'}; new: {', '.join(unknown) or 'none'})"
            )
        return [extra[name] for name in self.extra_names]

    def to_plain(self) -> list[list[Any]]:
        """Return the schema as lists, strings and numbers; `from_plain` is the way back."""
        return [[f.name, f.dtype.newbyteorder("<").str, list(f.shape)] for f in self.fields]

    @classmethod
    def from_plain(cls, plain: Any) -> Schema:
        """Return the schema that `to_plain` described; raise SchemaError for anything else."""
        try:
            fields = []
            for name, dtype, shape in plain:
                if not isinstance(dtype, str) or dtype.lstrip("<|") not in TYPES:
                    raise SchemaError(f"it has a field of type {shown(dtype)}")
                fields.append(Field.stored(name, dtype, tuple(shape)))
            return cls(fields)
        except (TypeError, ValueError, RecursionError) as error:  # it may be nested deeply
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
    for key, entry in entries:
        name = entry.name if key is None and isinstance(entry, Field) else str(key)
        if not isinstance(entry, Field):
            parts = entry if isinstance(entry, tuple) else (entry, ())
            if key is None or entry is None or len(parts) != 2 or isinstance(parts[1], str | int):
                raise SchemaError(
                    f"field {name!r}: expected a dtype, or a dtype and a shape "
                    f"(found {shown(entry)})"
                )
            entry = Field(name, *parts)
        if entry.name != name or name in found:
            raise SchemaError(f"field {entry.name!r} is given twice or under the name {name!r}")
        found[name] = entry
    return found

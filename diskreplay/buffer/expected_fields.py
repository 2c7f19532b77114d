"""ExpectedFields: the fields that a user gave, compared with those of the store."""

from __future__ import annotations

from typing import Any

from diskreplay.errors import MismatchError
from diskreplay.schema import Field, LogOptions, Schema, infer_schema
from diskreplay.store import Store

_AS_STORED = LogOptions()


class ExpectedFields:
    """The fields that a user gave, all or some; the fields of the store must equal them.

    all_given:   whether the store may have no others
    log:         the place of the observations
    any_place:   whether fields of the store may be kept elsewhere than the given ones
    """

    def __init__(
        self,
        fields: dict[str, Field],
        *,
        all_given: bool,
        log: LogOptions = _AS_STORED,
        any_place: bool = False,
    ) -> None:
        self.fields = fields
        self._all_given = all_given
        self._log = log
        self._any_place = any_place
        self.log_of_new_fields = log  # of the store, where the user gave none

    def inferred(self, values: dict[str, Any], *, lead: int) -> Schema:
        """Return the schema of a new store, inferred from the first transitions."""
        return self.applied(infer_schema(values, self.fields, lead=lead))

    def applied(self, schema: Schema) -> Schema:
        """Return a new schema with its observations where the user wants them."""
        return self.log_of_new_fields.applied(schema)

    def placed(self, schema: Schema) -> Schema:
        """Return the schema of another store, to be kept as the user wants it."""
        given = {name: field for name, field in self.fields.items() if field.log}
        placed = self.log_of_new_fields.placed(schema)
        return Schema([given.get(field.name, field) for field in placed.fields])

    def check(self, schema: Schema, store: Store) -> None:
        """Raise MismatchError if the schema of a store has other fields."""
        way_out = f"open it with diskreplay.open({str(store.path)!r}), or choose a new path"
        for name, field in self.fields.items():
            stored = schema[name].type if name in schema.names else "no such field"
            if stored != field.type:
                raise MismatchError(
                    f"field {name!r} is {stored} in {store.path} (expected {field.type}): {way_out}"
                )
        if self._all_given and set(schema.names) != set(self.fields):
            raise MismatchError(
                f"the fields are {', '.join(schema.names)} in {store.path} (expected "
                f"{', '.join(self.fields)}): {way_out}"
            )
        if self._any_place:
            return
        differing = self._log.differing(schema) or next(
            ((schema[n], f) for n, f in self.fields.items() if f.log and f != schema[n]), None
        )
        if differing is not None:
            found, expected = differing
            raise MismatchError(
                f"field {found.name!r} is kept {found.place} in {store.path} (expected "
                f"{expected.place}): {way_out}; load() puts a store into a new one of these "
                "arguments"
            )

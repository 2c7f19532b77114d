"""LogOptions: the arguments of a buffer that say where its observations are kept."""

from __future__ import annotations

from typing import NamedTuple

from diskreplay.errors import ArgumentError, SchemaError
from diskreplay.schema.field import CODECS, Field
from diskreplay.schema.names import root_of
from diskreplay.schema.schema import Schema
from diskreplay.validation import as_whole, check_word
from diskreplay.wording import shown

_OBSERVATIONS = ("state", "next_state")


class LogOptions(NamedTuple):
    """The place of the observations: "record", "log", or None for an existing store's own."""

    observations: str | None = None
    frame_axis: int | None = None
    codec: str | None = None

    @classmethod
    def checked(
        cls, observations: str | None, frame_axis: int | None, codec: str | None
    ) -> LogOptions:
        """Return the options, or raise ArgumentError; a frame axis or a codec implies "log"."""
        if observations is not None:
            check_word("observations", observations, ("record", "log"))
        if codec is not None:
            check_word("codec", codec, CODECS)
        axis = None if frame_axis is None else as_whole(frame_axis)
        if axis is None and frame_axis is not None:
            raise ArgumentError(
                "frame_axis must be the number of an axis of the states (found "
                f"{shown(frame_axis)})"
            )
        if axis is not None or codec is not None:
            if observations == "record":
                raise ArgumentError(
                    "frame_axis and codec are for observations in the log (found "
                    "observations='record'): leave them away, or set observations='log'"
                )
            observations = "log"
        return cls(observations, axis, codec)

    def applied(self, schema: Schema) -> Schema:
        """Return a schema with its states in the log, where these options say so.

        A field that is in the log by itself stays as it is. The frame axis is that of states with
        more than one dimension; raises SchemaError if there is none.
        """
        if self.observations != "log":
            return schema
        states = [field for field in schema.fields if _is_observation(field)]
        if self.frame_axis is not None and not any(map(_can_be_stacked, states)):
            raise SchemaError(
                "frame_axis is for states with several dimensions (found "
                f"{', '.join(map(str, states))}): leave it away"
            )
        return Schema([self._applied_to(field) for field in schema.fields])

    def placed(self, schema: Schema) -> Schema:
        """Return the schema of another store with its states where these options say."""
        if self.observations is None:
            return schema
        return self.applied(
            Schema(
                [
                    Field.stored(field.name, field.dtype, field.shape)
                    if _is_observation(field) and not field.varies
                    else field
                    for field in schema.fields
                ]
            )
        )

    def differing(self, schema: Schema) -> tuple[Field, Field] | None:
        """Return a field of a store that is kept elsewhere than these options say, and as they say.

        None where all are as they should be.
        """
        if self.observations is None:
            return None
        for field in filter(_is_observation, schema.fields):
            expected = self._applied_to(Field.stored(field.name, field.dtype, field.shape))
            if field != expected:
                return field, expected
        return None

    def _applied_to(self, field: Field) -> Field:
        is_set = field.codec is not None if field.varies else field.log
        if is_set or self.observations != "log" or not _is_observation(field):
            return field
        axis = self.frame_axis if _can_be_stacked(field) else None
        return Field.stored(
            field.name, field.dtype, field.shape, log=True, frame_axis=axis, codec=self.codec
        )


def _can_be_stacked(field: Field) -> bool:
    return len(field.shape) > 1 and not field.varies


def _is_observation(field: Field) -> bool:
    return root_of(field.name) in _OBSERVATIONS

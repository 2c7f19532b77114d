"""Schema: the named, typed fields of a transition, and the check that values fit them."""

from __future__ import annotations

from diskreplay.schema.field import WORDS, Field
from diskreplay.schema.inference import infer_fields, infer_schema
from diskreplay.schema.log_options import LogOptions
from diskreplay.schema.names import root_of
from diskreplay.schema.nesting import leaves, mapped
from diskreplay.schema.packing import MAX_VALUE_BYTES, unpacked
from diskreplay.schema.row_check import only_row
from diskreplay.schema.schema import STANDARD_FIELDS, Schema, SchemaLike, fields_of, missing_in

__all__ = [
    "MAX_VALUE_BYTES",
    "STANDARD_FIELDS",
    "WORDS",
    "Field",
    "LogOptions",
    "Schema",
    "SchemaLike",
    "fields_of",
    "infer_fields",
    "infer_schema",
    "leaves",
    "mapped",
    "missing_in",
    "only_row",
    "root_of",
    "unpacked",
]

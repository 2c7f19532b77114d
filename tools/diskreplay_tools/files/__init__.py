"""Files: reading and writing npz, parquet and JSON lines, and outputs that appear whole."""

from __future__ import annotations

from diskreplay_tools.files.columns import (
    FORMAT,
    STANDARD,
    Column,
    columns_of,
    metadata_of,
    rows_in_chunk,
)
from diskreplay_tools.files.outputs import new_file, new_store, refuse_existing, refuse_same
from diskreplay_tools.files.selecting import (
    conditions_of,
    range_option,
    selected,
    span_of,
    where_option,
)
from diskreplay_tools.files.sinks import WRITERS
from diskreplay_tools.files.sources import Source, check_row, open_source

__all__ = [
    "FORMAT",
    "STANDARD",
    "WRITERS",
    "Column",
    "Source",
    "check_row",
    "columns_of",
    "conditions_of",
    "metadata_of",
    "new_file",
    "new_store",
    "open_source",
    "range_option",
    "refuse_existing",
    "refuse_same",
    "rows_in_chunk",
    "selected",
    "span_of",
    "where_option",
]

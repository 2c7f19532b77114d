"""Files: reading and writing npz, parquet and JSON lines, and outputs that appear whole."""

from __future__ import annotations

from diskreplay_tools.files.columns import Column, columns_of, metadata_of, rows_in_chunk
from diskreplay_tools.files.mapping import (
    NUMBERS,
    PRIORITY,
    as_exported,
    map_columns,
    metadata_in,
    schema_of,
)
from diskreplay_tools.files.outputs import new_file, new_store, refuse_existing, refuse_same
from diskreplay_tools.files.readers import TableFile, open_table
from diskreplay_tools.files.selecting import (
    conditions_of,
    range_option,
    selected,
    span_of,
    where_option,
)
from diskreplay_tools.files.writers import WRITERS

__all__ = [
    "NUMBERS",
    "PRIORITY",
    "WRITERS",
    "Column",
    "TableFile",
    "as_exported",
    "columns_of",
    "conditions_of",
    "map_columns",
    "metadata_in",
    "metadata_of",
    "new_file",
    "new_store",
    "open_table",
    "range_option",
    "refuse_existing",
    "refuse_same",
    "rows_in_chunk",
    "schema_of",
    "selected",
    "span_of",
    "where_option",
]

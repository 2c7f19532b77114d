"""Files: reading and writing npz, parquet and JSON lines, and outputs that appear whole."""

from __future__ import annotations

from diskreplay_tools.files.columns import (
    LINK,
    PRIORITY,
    Column,
    columns_of,
    metadata_of,
    rows_in_chunk,
)
from diskreplay_tools.files.links import ExportedLinks, FoundLinks, link_columns
from diskreplay_tools.files.mapping import (
    NUMBERS,
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
    "LINK",
    "NUMBERS",
    "PRIORITY",
    "WRITERS",
    "Column",
    "ExportedLinks",
    "FoundLinks",
    "TableFile",
    "as_exported",
    "columns_of",
    "conditions_of",
    "link_columns",
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

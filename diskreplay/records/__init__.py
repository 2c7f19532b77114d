"""Records: transitions as checksummed bytes, and how many of them share a value."""

from __future__ import annotations

from diskreplay.records.codec import Codec, checksum_in, record_head, write_id_in
from diskreplay.records.compression import Buffer, Compression, codec_named
from diskreplay.records.features import (
    KEPT_ROWS,
    LINKS,
    MARKS_FEATURE,
    check_features,
    has_links,
)
from diskreplay.records.grouping import (
    ALONE,
    BLOCK_BYTES,
    PAGE_BYTES,
    PAGE_HEADER,
    Grouping,
    slot_bytes,
    tree_bytes,
)
from diskreplay.records.layout import (
    Layout,
    layout_of,
    new_grouping,
    schema_facts,
    stored_grouping,
    with_features,
)
from diskreplay.records.log_entries import (
    ENTRY_HEAD,
    ENTRY_HEADER,
    content_of,
    entries_in,
    entry_bytes_in,
    entry_in,
    entry_of,
    observation_id_in,
    pack,
)
from diskreplay.records.row_copier import LARGE_ROW
from diskreplay.records.seals import fingerprint, seal, unseal

__all__ = [
    "ALONE",
    "BLOCK_BYTES",
    "ENTRY_HEAD",
    "ENTRY_HEADER",
    "KEPT_ROWS",
    "LARGE_ROW",
    "LINKS",
    "MARKS_FEATURE",
    "PAGE_BYTES",
    "PAGE_HEADER",
    "Buffer",
    "Codec",
    "Compression",
    "Grouping",
    "Layout",
    "check_features",
    "checksum_in",
    "codec_named",
    "content_of",
    "entries_in",
    "entry_bytes_in",
    "entry_in",
    "entry_of",
    "fingerprint",
    "has_links",
    "layout_of",
    "new_grouping",
    "observation_id_in",
    "pack",
    "record_head",
    "schema_facts",
    "seal",
    "slot_bytes",
    "stored_grouping",
    "tree_bytes",
    "unseal",
    "with_features",
    "write_id_in",
]

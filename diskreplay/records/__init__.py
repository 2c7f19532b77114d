"""Records: transitions as checksummed bytes, and how many of them share a value."""

from __future__ import annotations

from diskreplay.records.codec import Codec
from diskreplay.records.features import KNOWN_FEATURES, check_features
from diskreplay.records.grouping import (
    ALONE,
    BLOCK_BYTES,
    PAGE_BYTES,
    Packing,
    slot_bytes,
    tree_bytes,
)
from diskreplay.records.layout import layout_of, new_packing, packing_in, schema_facts
from diskreplay.records.seals import fingerprint, seal, unseal

__all__ = [
    "ALONE",
    "BLOCK_BYTES",
    "KNOWN_FEATURES",
    "PAGE_BYTES",
    "Codec",
    "Packing",
    "check_features",
    "fingerprint",
    "layout_of",
    "new_packing",
    "packing_in",
    "schema_facts",
    "seal",
    "slot_bytes",
    "tree_bytes",
    "unseal",
]

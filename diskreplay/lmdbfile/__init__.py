"""The file format of LMDB, read without LMDB: no damage ends the process."""

from __future__ import annotations

from diskreplay.lmdbfile.pages import (
    HEADER,
    INTEGER_KEYS,
    NO_PAGE,
    DataFile,
    Meta,
    Tree,
    last_page_of,
    meta_pages,
    newest_of,
    page_bytes_in,
    transaction_of,
)
from diskreplay.lmdbfile.walk import Faults, Walk

__all__ = [
    "HEADER",
    "INTEGER_KEYS",
    "NO_PAGE",
    "DataFile",
    "Faults",
    "Meta",
    "Tree",
    "Walk",
    "last_page_of",
    "meta_pages",
    "newest_of",
    "page_bytes_in",
    "transaction_of",
]

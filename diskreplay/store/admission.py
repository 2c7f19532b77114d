"""Admission: whether a store needs a newer reader, found out before anything is opened or written.

The manifest lists the features of a store, and so does the data file: either may be a copy.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from diskreplay.errors import DamageError
from diskreplay.lmdbfile import DataFile, Walk
from diskreplay.records import layout_of, unseal
from diskreplay.store.directory import read_manifest
from diskreplay.store.files import DATA, StoreDirectory


def check_known(path: Path) -> None:
    """Raise FormatVersionError for a store that this version does not know. Nothing is written."""
    read_manifest(path)
    check_layout(path)


def check_layout(path: Path) -> None:
    """Do so for what the data file says of its layout; one that cannot be read is left to others.

    It is read without the engine, which writes to its lock file. Cost: a few pages.
    """
    with contextlib.suppress(OSError, DamageError):
        with StoreDirectory(path) as directory:
            data = DataFile(directory.open(DATA))
        with contextlib.closing(data):
            metas, _ = data.metas()
            if metas:
                walk = Walk(data, metas[0])
                tree = walk.trees().get(b"meta")
                for key, _, raw in walk.values(b"meta", tree) if tree else ():
                    if key == b"layout":
                        layout_of(unseal(raw, "layout", "the layout"), str(path))

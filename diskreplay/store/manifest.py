"""Manifest: the file that makes a directory a store; it says by which format the store is read."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from diskreplay.errors import DamageError, FormatVersionError, NotAStoreError, StorageError
from diskreplay.records import check_features
from diskreplay.store.directory import FILES, HIDDEN, LOCK, MANIFEST, OPENERS, StoreDirectory
from diskreplay.store.os_errors import explained, system_errors

FORMAT = 3
KNOWN_FORMATS = (1, 2, 3)

_MANIFEST_BYTES = 1 << 16
_MOST_LOCK_BYTES = 16 << 20  # some 250 times as much as the table of readers takes


class Manifest(NamedTuple):
    """The content of a manifest."""

    format: int
    uuid: str


def holds_store(path: Path) -> bool:
    """Return whether `path` is a store; False means that one may be made there.

    Raises NotAStoreError when something else is in the way.
    """
    return _is_store(path, "choose a new directory")


def check_store(path: Path) -> None:
    """Raise NotAStoreError where there is no store to read."""
    way_out = "give the path of a store"
    if not _is_store(path, way_out):
        raise NotAStoreError(
            f"{path} holds no store: {way_out}; ReplayBuffer(capacity, path=...) makes one"
        )


def _is_store(path: Path, way_out: str) -> bool:
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise NotAStoreError(f"{path} is a file or inside one, not a store: {way_out}") from None
    except OSError as error:
        raise StorageError(f"cannot look into {path}: {explained(error, path)}") from None
    if names and MANIFEST not in names:
        shown = [name for name in names if not name.startswith(HIDDEN)] or names
        raise NotAStoreError(
            f"{path} is not a diskreplay store: expected {MANIFEST} in it (found "
            f"{', '.join(shown[:3])}{' ...' if len(shown) > 3 else ''}): {way_out}"
        )
    return bool(names)


def check_entries(path: Path) -> None:
    """Raise DamageError for an entry that could change other files, hang, or take all memory.

    That is a link or a pipe in a store, and a lock file that LMDB would map whole.
    """
    with system_errors(f"cannot look into {path}", path), StoreDirectory(path) as directory:
        for name in (*FILES, OPENERS):
            try:
                found = directory.status(name)
            except FileNotFoundError:
                continue
            kind, is_kind = (
                ("directory", stat.S_ISDIR) if name == OPENERS else ("file", stat.S_ISREG)
            )
            if not is_kind(found.st_mode):
                raise DamageError(
                    f"{path / name} is not a {kind}: a store holds no links and no pipes (the "
                    "whole directory may be a link)"
                )
            if name == LOCK and found.st_size > _MOST_LOCK_BYTES:
                raise DamageError(
                    f"{path / name} has {found.st_size} bytes (expected {_MOST_LOCK_BYTES} at "
                    "most): remove it while nobody has the store open, and it is made anew"
                )


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of a store.

    Raises FormatVersionError where its format or one of its features is not known.
    """
    file = path / MANIFEST
    try:
        with StoreDirectory(path) as directory:
            manifest = json.loads(directory.read_small(MANIFEST, _MANIFEST_BYTES))
        version, uuid = manifest["format"], manifest["uuid"]
        if type(version) is not int or not isinstance(uuid, str):
            raise TypeError
    except FileNotFoundError:
        raise NotAStoreError(f"{path} is not a diskreplay store: {MANIFEST} is missing") from None
    except OSError as error:
        raise StorageError(f"cannot read {file}: {explained(error, path)}") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DamageError(f"{file} is damaged: expected a format version and a uuid") from None
    if version not in KNOWN_FORMATS:
        raise FormatVersionError(
            f"{path} has format {version} (this diskreplay reads "
            f"{', '.join(map(str, KNOWN_FORMATS))}): install a newer version of diskreplay"
        )
    check_features(manifest.get("features", []), str(path))
    return Manifest(version, uuid)


def new_manifest(uuid: str) -> str:
    """Return the text of the manifest of a new store, whose layout lists its features."""
    return json.dumps({"format": FORMAT, "uuid": uuid, "features": []}) + "\n"


def raise_format(path: Path) -> None:
    """Write the newest format into the manifest, so that older versions refuse the store.

    One byte is changed where it stands: that is done or not done, whatever ends the process or the
    machine, and every process that has the store open finds the file that it knows.
    """
    failed = f"cannot make the manifest of {path} say format {FORMAT}"
    with system_errors(failed, path), StoreDirectory(path) as directory:
        found = directory.read_small(MANIFEST, _MANIFEST_BYTES)
        number = re.search(rb'"format"\s*:\s*(\d)\s*[,}]', found)
        if number is None:
            raise StorageError(f"{failed}: there is no format in it that could be changed")
        descriptor = directory.open(MANIFEST, os.O_WRONLY)
        try:
            os.pwrite(descriptor, b"%d" % FORMAT, number.start(1))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

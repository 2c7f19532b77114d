"""The directory of a store: what is in it, and whether it is one.

::

    PATH/
      diskreplay.json       format version and uuid, written before the directory has its name
      data.mdb  lock.mdb    the LMDB environment
      data.known            what data.mdb looked like when diskreplay wrote it last, see notes.py
      *.lock  openers/      who has the store open, see locks.py
"""

from __future__ import annotations

import json
import stat
from pathlib import Path

from diskreplay.errors import (
    DamageError,
    FormatVersionError,
    NotAStoreError,
    StorageError,
)
from diskreplay.refusals import explained
from diskreplay.store_directory import (
    FILES,
    HIDDEN,
    LOCK,
    MANIFEST,
    OPENERS,
    StoreDirectory,
)

FORMAT = 1

_MANIFEST_BYTES = 1 << 16
_MOST_LOCK_BYTES = 16 << 20  # some 250 times as much as the table of readers takes


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
        shown = [name for name in names if not name.startswith(".diskreplay-")] or names
        raise NotAStoreError(
            f"{path} is not a diskreplay store: expected {MANIFEST} in it (found "
            f"{', '.join(shown[:3])}{' ...' if len(shown) > 3 else ''}): {way_out}"
        )
    return bool(names)


def is_of_store(name: str) -> bool:
    """Return whether a name in a store's directory is one of a store's own."""
    return name in (*FILES, OPENERS) or name.startswith(HIDDEN)


def check_kinds(path: Path) -> None:
    """Raise DamageError for what could change other files, hang, or take all memory.

    That is a link or a pipe in a store, and a lock file that the engine would map whole.
    """
    try:
        with StoreDirectory(path) as directory:
            for name in (*FILES, OPENERS):
                try:
                    found = directory.status(name)
                except FileNotFoundError:
                    continue
                what, is_right = "file", stat.S_ISREG(found.st_mode)
                if name == OPENERS:
                    what, is_right = "directory", stat.S_ISDIR(found.st_mode)
                if not is_right:
                    raise DamageError(
                        f"{path / name} is not a {what}: a store holds no links and no pipes (the "
                        "whole directory may be a link)"
                    )
                if name == LOCK and found.st_size > _MOST_LOCK_BYTES:
                    raise DamageError(
                        f"{path / name} has {found.st_size} bytes (expected {_MOST_LOCK_BYTES} at "
                        "most): remove it while nobody has the store open, and it is made anew"
                    )
    except OSError as error:
        raise StorageError(f"cannot look into {path}: {explained(error, path)}") from None


def read_uuid(path: Path) -> str:
    """Return the uuid in the manifest of a store, after checking its format version."""
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
    if version != FORMAT:
        raise FormatVersionError(
            f"{path} has format {version} (this diskreplay reads format {FORMAT}): "
            "install a version of diskreplay that knows it"
        )
    return uuid

"""The directory of a store: what is in it, who holds it, how it comes to be.

::

    PATH/
      diskreplay.json       format version and uuid, written before the directory has its name
      data.mdb  lock.mdb    the LMDB environment
      writer.lock           held by the exclusive writer; its pid, host and start time inside
      openers.lock          held, shared, by everyone who has the store open
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import lmdb.verify

from diskreplay.errors import (
    DamageError,
    FormatVersionError,
    LockedError,
    NotAStoreError,
    StorageError,
)

FORMAT = 1
MANIFEST = "diskreplay.json"
DATA = "data.mdb"
WRITER_LOCK = "writer.lock"
OPENERS_LOCK = "openers.lock"

_META_PAGES = 2
_PAGE_SIZE_AT, _LAST_PAGE_AT, _TXN_AT = 40, 136, 144  # in a meta page of LMDB 0.9, see lmdb's mdb.c
_WALKS = 10
_held_here: set[tuple[int, int, int]] = set()
_held_guard = threading.Lock()


def holds_store(path: Path) -> bool:
    """Return whether `path` is a store; False means that one may be made there.

    Raises NotAStoreError when something else is in the way.
    """
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise NotAStoreError(
            f"{path} is a file or inside one, not a store: choose another path"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot look into {path}: {error.strerror}") from None
    if names and MANIFEST not in names:
        raise NotAStoreError(
            f"{path} is not a diskreplay store: expected {MANIFEST} in it (found "
            f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}): choose a new directory"
        )
    return bool(names)


def read_uuid(path: Path) -> str:
    """Return the uuid in the manifest of a store, after checking its format version."""
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_bytes()[:4096])
        version, uuid = manifest["format"], manifest["uuid"]
        if type(version) is not int or not isinstance(uuid, str):
            raise TypeError
    except OSError as error:
        raise NotAStoreError(f"{path} is not a diskreplay store: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DamageError(f"{file} is damaged: expected a format version and a uuid") from None
    if version != FORMAT:
        raise FormatVersionError(
            f"{path} has format {version} (this diskreplay reads format {FORMAT}): "
            "install a version of diskreplay that knows it"
        )
    return uuid


def check_data_file(path: Path) -> None:
    """Raise DamageError when the data file is absent, empty or short of pages that it refers to.

    The engine would make a new empty database of the first two, and die of the third.
    """
    file = path / DATA
    try:
        size, last_page, page_size = _extent(file)
        # Free pages at the end may never have been written, so only a walk can tell whether pages
        # are missing; and a walk beside a writer only when nothing was committed meanwhile.
        faults: list[str] = []
        for _ in range(_WALKS):
            if page_size < 512 or size >= (last_page + 1) * page_size:
                faults = []
                break
            faults = _faults(file)
            before, (size, last_page, page_size) = (size, last_page), _extent(file)
            if before == (size, last_page):
                break
    except FileNotFoundError:
        raise DamageError(
            f"{file} is missing beside its manifest: restore it from a copy, or choose a new path"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot read {file}: {error.strerror}") from None
    if size < _META_PAGES * max(page_size, 512):
        raise DamageError(
            f"{file} is short: it has {size} bytes, less than its first two pages: "
            "restore it from a copy, or choose a new path"
        )
    if faults:
        raise DamageError(
            f"{file} is short: it has {size} bytes (expected up to {(last_page + 1) * page_size}) "
            f"and pages are missing: {faults[0]}"
        )


def _extent(file: Path) -> tuple[int, int, int]:
    """Return size, last page number and page size of a data file, as of its newest meta page."""
    with file.open("rb") as stream:
        head = stream.read(_META_PAGES * 65536)
        size = os.fstat(stream.fileno()).st_size  # after the head: a writer makes it grow first
    page_size = int.from_bytes(head[_PAGE_SIZE_AT : _PAGE_SIZE_AT + 4], sys.byteorder)
    last_page = max(
        int.from_bytes(head[at + _LAST_PAGE_AT : at + _TXN_AT], sys.byteorder)
        for at in (0, page_size)
    )
    return size, last_page, page_size


def _faults(file: Path) -> list[str]:
    try:
        found: list[str] = lmdb.verify.verify(str(file))  # type: ignore[no-untyped-call]
    except (lmdb.verify.VerifyError, OSError) as error:
        return [str(error)]
    return found


@contextlib.contextmanager
def building(path: Path, uuid: str) -> Iterator[Path]:
    """Give a new directory beside `path` to build a store in; at the end it gets its name.

    Whoever looks sees no store or a whole one, also after a kill. When the block raises, or
    another process was faster, nothing is left.
    """
    path = path.resolve()  # a symbolic link cannot be renamed to
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".diskreplay-new-", dir=path.parent))
    except OSError as error:
        raise StorageError(f"cannot make a store at {path}: {error.strerror}") from None
    try:
        yield place
        (place / WRITER_LOCK).touch()
        (place / OPENERS_LOCK).touch()
        (place / MANIFEST).write_text(json.dumps({"format": FORMAT, "uuid": uuid}) + "\n")
        place.chmod(0o777 & ~_umask())
        for entry in place.iterdir():
            _sync(entry)
        _sync(place)
        os.rename(place, path)
        _sync(path.parent)
    except OSError as error:
        if isinstance(error, StorageError | NotAStoreError):
            raise
        raise StorageError(f"cannot make a store at {path}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)


class Hold:
    """The locks that an opener of a store holds until `release` or the end of its process."""

    def __init__(self, path: Path, *, writing: bool) -> None:
        try:
            status = path.stat()
        except OSError as error:
            raise NotAStoreError(f"cannot open {path}: {error.strerror}") from None
        self._key = (os.getpid(), status.st_dev, status.st_ino)
        self._files: list[IO[str]] = []
        with _held_guard:
            if self._key in _held_here:
                raise LockedError(
                    f"{path} is open in this process already: use that buffer, or close it first"
                )
            _held_here.add(self._key)
        try:
            self._lock(path, OPENERS_LOCK, fcntl.LOCK_SH)
            if writing:
                self._lock(path, WRITER_LOCK, fcntl.LOCK_EX)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the locks back. In a forked child, close the descriptors: the parent keeps them."""
        for file in self._files:
            file.close()
        with _held_guard:
            _held_here.discard(self._key)

    def _lock(self, path: Path, name: str, kind: int) -> None:
        try:
            file = (path / name).open("r+" if kind == fcntl.LOCK_EX else "r")
        except FileNotFoundError:
            raise DamageError(
                f"{path / name} is missing: make an empty file of that name"
            ) from None
        except OSError as error:
            raise StorageError(f"cannot open {path / name}: {error.strerror}") from None
        self._files.append(file)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            holder = file.read(1000).strip() or "another process"
            raise LockedError(
                f"{path} is held by {holder}: close it there, or read it with access='read'"
            ) from None
        if kind == fcntl.LOCK_EX:
            file.truncate()
            file.write(
                f"pid {os.getpid()} on {socket.gethostname()}, "
                f"since {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n"
            )
            file.flush()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

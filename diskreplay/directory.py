"""The directory of a store: what is in it, how it comes to be.

::

    PATH/
      diskreplay.json       format version and uuid, written before the directory has its name
      data.mdb  lock.mdb    the LMDB environment
      data.known            what data.mdb looked like when diskreplay wrote it last
      *.lock  openers/      who has the store open, see locks.py
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from diskreplay.errors import (
    DamageError,
    DiskReplayError,
    FormatVersionError,
    NotAStoreError,
    StorageError,
)
from diskreplay.locks import OPENERS, OPENERS_LOCK, WRITER_LOCK
from diskreplay.pages import DataFile
from diskreplay.walk import Walk

FORMAT = 1
MANIFEST = "diskreplay.json"
DATA = "data.mdb"
KNOWN = "data.known"
NEW = ".diskreplay-new-"

_NOTE_BYTES = 4096  # more than it has
_META_PAGES = 2
_PAGE_SIZE_AT, _LAST_PAGE_AT, _TXN_AT = 40, 136, 144  # in a meta page of LMDB 0.9, see lmdb's mdb.c


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
        raise StorageError(f"cannot look into {path}: {error.strerror}") from None
    if names and MANIFEST not in names:
        shown = [name for name in names if not name.startswith(".diskreplay-")] or names
        raise NotAStoreError(
            f"{path} is not a diskreplay store: expected {MANIFEST} in it (found "
            f"{', '.join(shown[:3])}{' ...' if len(shown) > 3 else ''}): {way_out}"
        )
    return bool(names)


def is_of_store(name: str) -> bool:
    """Return whether a name in a store's directory is one of a store's own."""
    return name in (MANIFEST, DATA, KNOWN, "lock.mdb", OPENERS_LOCK, WRITER_LOCK, OPENERS) or (
        name.startswith(".diskreplay-")
    )


def check_kinds(path: Path) -> None:
    """Raise DamageError for a link or a pipe in a store: it could change other files, or hang."""
    for name in (MANIFEST, DATA, KNOWN, "lock.mdb", OPENERS_LOCK, WRITER_LOCK, OPENERS):
        try:
            mode = (path / name).lstat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StorageError(f"cannot look at {path / name}: {error.strerror}") from None
        expected = stat.S_ISDIR if name == OPENERS else stat.S_ISREG
        if not expected(mode):
            raise DamageError(
                f"{path / name} is not a {'directory' if name == OPENERS else 'file'}: a store "
                "holds no links and no pipes (the whole directory may be a link)"
            )


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


def check_data_file(path: Path, *, trusted: bool = False) -> None:
    """Raise DamageError when the engine could not open the data file without harm.

    The engine would make a new empty database of a file that is absent or empty, and end the
    process over one that is short or damaged. So the file's structure is walked, unless it is
    `trusted`, or as diskreplay left it. Cost: then it reads the file, about 0.5 GB a second.
    """
    file = path / DATA
    faults: list[str] = []
    try:
        before = _extent(file)
        size, page_size, *_ = before
        if size < _META_PAGES * max(page_size, 512):
            raise DamageError(
                f"{file} is short: it has {size} bytes, less than its first two pages: "
                "restore it from a copy, or choose a new path"
            )
        if not (trusted or is_known(path)):
            likeness = _likeness(os.stat(file))
            faults = structural_faults(file)
            if _extent(file) != before:
                faults = []  # who commits meanwhile has found it sound
            elif not faults:
                make_known(path, likeness)
    except FileNotFoundError:
        raise DamageError(
            f"{file} is missing beside its manifest: restore it from a copy, or choose a new path"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot read {file}: {error.strerror}") from None
    if faults:
        more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
        raise DamageError(
            f"{file} is damaged: {faults[0]}{more}: restore it from a copy, or save what is "
            f"readable with diskreplay.repair({str(path)!r}, ...)"
        )


class Note:
    """Remembers in a file what the data file looks like, where that can be written.

    The file is written over in place: to truncate it would cost half a millisecond on ext4.
    """

    def __init__(self, path: Path, *, lasting: bool = True) -> None:
        """Take a path, and whether what is committed stays whole when the power fails."""
        self._path = path
        self._data = str(path / DATA)
        self._boot = b"-" if lasting else _boot()
        self._descriptor: int | None = None

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """Note what the file looks like after the block, if it was as noted before.

        In between the note says that the file is being written to, which holds until the machine
        is started again: a killed commit damages no page of the one before, a power failure may.
        Who else writes waits. Cost: about 10 microseconds.
        """
        descriptor = self._open()
        if descriptor is None:
            yield
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        known = False
        try:
            with contextlib.suppress(OSError):
                found = os.stat(self._data)
                known = _is_note_of(found, os.pread(descriptor, _NOTE_BYTES, 0))
                if known:
                    os.pwrite(descriptor, _mark(found), 0)
            try:
                yield
            finally:
                if known:
                    self.write()
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def write(self, likeness: bytes | None = None) -> None:
        """Note what the data file looks like now, or looked like."""
        with contextlib.suppress(OSError):
            descriptor = self._open()
            if descriptor is not None:
                os.pwrite(descriptor, likeness or _likeness(os.stat(self._data), self._boot), 0)

    def close(self) -> None:
        """Give the file back. Twice is once."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int | None:
        if self._descriptor is None:
            with contextlib.suppress(OSError):
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
                self._descriptor = os.open(self._path / KNOWN, flags, 0o666)
        return self._descriptor


def make_known(path: Path, likeness: bytes | None = None) -> None:
    """Note once what the data file looks like."""
    with contextlib.closing(Note(path)) as note:
        note.write(likeness)


def is_known(path: Path) -> bool:
    """Return whether the data file is as it was noted."""
    with contextlib.suppress(OSError):
        return _is_note_of(os.stat(path / DATA), (path / KNOWN).read_bytes())
    return False


def _is_note_of(found: os.stat_result, noted: bytes) -> bool:
    return noted in (_likeness(found), _likeness(found, _boot()), _mark(found))


def _likeness(found: os.stat_result, boot: bytes = b"-") -> bytes:
    """Return what changes whenever a file is written to, or is another file."""
    numbers = (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
    return b"%-40s %20d %20d %20d %20d\n" % (boot, *numbers)  # of one length, whatever they are


def _mark(found: os.stat_result) -> bytes:
    return b"%-40s %20d %20d %20s %20s\n" % (_boot(), found.st_dev, found.st_ino, b"?", b"?")


@functools.cache
def _boot() -> bytes:
    """Return what is another with each start of the machine; where unknown, of the process."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    return os.urandom(16).hex().encode()


def _extent(file: Path) -> list[int]:
    """Return size, page size, last page number and newest transaction of a data file."""
    with file.open("rb") as stream:
        head = stream.read(_META_PAGES * 65536)
        size = os.fstat(stream.fileno()).st_size  # after the head: a writer makes it grow first
    page_size = int.from_bytes(head[_PAGE_SIZE_AT : _PAGE_SIZE_AT + 4], sys.byteorder)
    numbers = [
        max(
            int.from_bytes(head[at + place : at + place + 8], sys.byteorder)
            for at in (0, page_size)
        )
        for place in (_LAST_PAGE_AT, _TXN_AT)
    ]
    return [size, page_size, *numbers]


def structural_faults(file: Path) -> list[str]:
    """Return what is wrong with the pages of a data file that nobody writes to, [] if nothing."""
    with contextlib.closing(DataFile(file)) as data:
        metas, found = data.metas()
        if found:
            return found
        walk = Walk(data, metas[0])
        walk.collect_free()
        for name, tree in walk.trees().items():
            walk.exhaust(name, tree)
        if not walk.faults.count:
            walk.check_all_used()
        return walk.faults.sentences()


@contextlib.contextmanager
def building(path: Path, uuid: str) -> Iterator[Path]:
    """Give a new directory beside `path` to build a store in; at the end it gets its name.

    Whoever looks sees no store or a whole one, also after a kill. When the block raises, or
    another process was faster, nothing is left.
    """
    path = path.resolve()  # a symbolic link cannot be renamed to
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=NEW, dir=path.parent))
    except OSError as error:
        raise StorageError(f"cannot make a store at {path}: {error.strerror}") from None
    try:
        yield place
        (place / WRITER_LOCK).touch()
        (place / OPENERS_LOCK).touch()
        (place / OPENERS).mkdir()
        (place / MANIFEST).write_text(json.dumps({"format": FORMAT, "uuid": uuid}) + "\n")
        make_known(place)
        place.chmod(0o777 & ~_umask())
        for entry in place.iterdir():
            sync(entry)
        sync(place)
        os.rename(place, path)
        sync(path.parent)
    except OSError as error:
        if isinstance(error, StorageError | NotAStoreError):
            raise
        raise StorageError(f"cannot make a store at {path}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def work_directory(parent: Path, prefix: str = NEW) -> Iterator[Path]:
    """Give a hidden directory, which is gone at the end of the block with what is still in it."""
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=parent, ignore_cleanup_errors=True
    ) as hidden:
        yield Path(hidden)


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a path to make a store at; at the end of the block the store gets its name."""
    check_outside(target)
    failed = f"cannot make a store at {target}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with work_directory(target.parent) as hidden:
            try:
                yield hidden / "store"
            except StorageError as error:
                raise StorageError(str(error).replace(str(hidden / "store"), str(target))) from None
            os.rename(hidden / "store", target)
            sync(target.parent)
    except OSError as error:
        if isinstance(error, DiskReplayError):
            raise
        raise StorageError(f"{failed}: {error.strerror}") from None


def check_outside(target: Path) -> None:
    """Raise StorageError for a path inside a store: what changes that one would take it along."""
    for parent in target.resolve().parents:
        if (parent / MANIFEST).is_file():
            raise StorageError(f"{target} is inside the store {parent}: choose another directory")


def exchange(one: Path, other: Path) -> None:
    """Give two directories each other's names, in one step where the system has one for it."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    here, swap = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    if sys.platform == "darwin":
        failed = libc.renamex_np(*names, swap)
    else:
        try:
            failed = libc.renameat2(here, names[0], here, names[1], swap)
        except AttributeError:
            failed, _ = -1, ctypes.set_errno(errno.ENOSYS)
    if failed:
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise OSError(code, os.strerror(code), str(other))
        between = one.with_name(f"{one.name}-replaced")
        os.rename(other, between)
        os.rename(one, other)
        os.rename(between, one)
    sync(one.parent)
    sync(other.parent)


def sync(path: Path) -> None:
    """Have what is in a file, or the names in a directory, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

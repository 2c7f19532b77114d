"""Creation: how the directory of a store comes to be, and takes the place of another one.

Every store is built under a hidden name, and gets its own name by a rename when it is whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from diskreplay.errors import NotAStoreError, StorageError
from diskreplay.store.directory import (
    FILES,
    HIDDEN,
    MANIFEST,
    OPENERS,
    OPENERS_LOCK,
    WRITER_LOCK,
)
from diskreplay.store.known_note import make_known
from diskreplay.store.locks import StoreLocks
from diskreplay.store.manifest import new_manifest
from diskreplay.store.openers import ALONE
from diskreplay.store.os_errors import system_errors

_NEW = f"{HIDDEN}new-"


@contextlib.contextmanager
def building(path: Path, uuid: str) -> Iterator[Path]:
    """Make a store: give a hidden directory to put the data file in, and name it `path` at the end.

    Whoever looks sees no store or a whole one, also after a kill. When the block raises, or
    another process was faster, nothing is left.
    """
    path = real_path(path)  # a symbolic link cannot be renamed to
    with system_errors(f"cannot make a store at {path}", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden, mode = path.parent / f"{_NEW}{os.urandom(8).hex()}", None
        if path.is_dir():  # an empty one, whose owner has said who may look into it
            mode = stat.S_IMODE(path.stat().st_mode)
        with _hidden_directory(hidden, 0o777 if mode is None else 0o700) as place:
            yield place
            (place / WRITER_LOCK).touch()
            (place / OPENERS_LOCK).touch()
            (place / OPENERS).mkdir()
            (place / MANIFEST).write_text(new_manifest(uuid))
            make_known(place)
            if mode is not None:
                place.chmod(mode)
            for entry in place.iterdir():
                sync(entry)
            sync(place)
            os.rename(place, path)
            sync(path.parent)


def work_directory(parent: Path, prefix: str = _NEW) -> contextlib.AbstractContextManager[Path]:
    """Make a hidden directory for the block, which is removed at its end with all that is in it."""
    return _hidden_directory(parent / f"{prefix}{os.urandom(8).hex()}")


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Yield a hidden path for a new store; rename the store to `target` after the block."""
    with system_errors(f"cannot make a store at {target}", target):
        check_outside(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _hidden_store(target.parent, target) as place:
            yield place
            os.rename(place, target)
            sync(target.parent)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden path for a new store; replace the store at `path` by it after the block.

    The old store stays whole until then, also when the block raises or is killed, and is removed
    afterwards. Raises LockedError while anyone has it open, and NotAStoreError for a directory that
    is no store, or holds other files that would be removed with it.
    """
    target = real_path(path)  # a link stays, and leads to the new store
    with system_errors(f"cannot replace the store at {path}", path):
        if not (target / MANIFEST).is_file():
            raise NotAStoreError(f"{path} is not a store, so it is not replaced: choose another")
        names = sorted(entry.name for entry in target.iterdir())
        others = [n for n in names if n not in (*FILES, OPENERS) and not n.startswith(HIDDEN)]
        if others:
            shown = ", ".join(others[:3]) + " ..." * (len(others) > 3)
            raise NotAStoreError(
                f"{path} holds {shown} beside the store, which would be removed, too: move that, "
                "or choose another path"
            )
        locks = StoreLocks(target, ALONE)
        try:
            check_outside(target)
            with _hidden_store(target.parent, path) as place:
                yield place
                exchange(place, target)
        finally:
            locks.release()


def check_outside(target: Path) -> None:
    """Raise StorageError for a path inside a store: replacing that store would remove it."""
    for parent in real_path(target).parents:
        if (parent / MANIFEST).is_file():
            raise StorageError(f"{target} is inside the store {parent}: choose another directory")


def exchange(one: Path, other: Path) -> None:
    """Exchange the names of two directories, in one step where the system has one for it."""
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
    """Write the content of a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def real_path(path: Path) -> Path:
    """Return a path without links; where they lead in a circle, as far as it can be followed."""
    return Path(os.path.realpath(path))


def remove_tree(path: Path) -> None:
    """Remove a directory of our own as far as that can be done; after a failure it tries again."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            _remove(path)
            return


@contextlib.contextmanager
def _hidden_store(parent: Path, shown: Path) -> Iterator[Path]:
    """Yield a path for a store in a hidden directory; name `shown` in errors instead of it."""
    with work_directory(parent) as hidden:
        place = hidden / "store"
        try:
            yield place
        except StorageError as error:
            raise StorageError(str(error).replace(str(place), str(shown))) from None


@contextlib.contextmanager
def _hidden_directory(place: Path, mode: int = 0o700) -> Iterator[Path]:
    """Make a directory for the block, which is removed at its end with all that is in it.

    A descriptor is kept for that: a process that has none left could not remove it.
    """
    spare = os.open(place.parent, os.O_RDONLY)
    try:
        os.mkdir(place, mode)
        yield place
    finally:
        os.close(spare)
        remove_tree(place)


def _remove(path: Path) -> None:
    """Remove a directory. It takes one descriptor at a time, where shutil.rmtree takes many."""
    try:
        os.rmdir(path)  # takes none
        return
    except FileNotFoundError:
        return
    except OSError:
        pass
    for name in os.listdir(path):
        inner = path / name
        if inner.is_dir() and not inner.is_symlink():
            _remove(inner)
        else:
            inner.unlink()
    os.rmdir(path)

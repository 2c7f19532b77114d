"""Creation: how the directory of a store comes to be, is replaced, and what is built beside it.

Whatever is built has a hidden name until it is whole.
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

from diskreplay.errors import StorageError
from diskreplay.store.directory import new_manifest
from diskreplay.store.files import HIDDEN, MANIFEST, OPENERS, OPENERS_LOCK, WRITER_LOCK
from diskreplay.store.notes import make_known
from diskreplay.store.os_errors import hidden_directory, real_path, refusals

NEW = f"{HIDDEN}new-"


@contextlib.contextmanager
def building(path: Path, uuid: str) -> Iterator[Path]:
    """Give a new directory beside `path` to build a store in; at the end it gets its name.

    Whoever looks sees no store or a whole one, also after a kill. When the block raises, or
    another process was faster, nothing is left.
    """
    path = real_path(path)  # a symbolic link cannot be renamed to
    with refusals(f"cannot make a store at {path}", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden, mode = path.parent / f"{NEW}{os.urandom(8).hex()}", None
        if path.is_dir():  # an empty one, whose owner has said who may look into it
            mode = stat.S_IMODE(path.stat().st_mode)
        with hidden_directory(hidden, 0o777 if mode is None else 0o700) as place:
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


def work_directory(parent: Path, prefix: str = NEW) -> contextlib.AbstractContextManager[Path]:
    """Give a hidden directory, which is gone at the end of the block with what is still in it."""
    return hidden_directory(parent / f"{prefix}{os.urandom(8).hex()}")


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a path to make a store at; at the end of the block the store gets its name."""
    with refusals(f"cannot make a store at {target}", target):
        check_outside(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with work_directory(target.parent) as hidden:
            try:
                yield hidden / "store"
            except StorageError as error:
                raise StorageError(str(error).replace(str(hidden / "store"), str(target))) from None
            os.rename(hidden / "store", target)
            sync(target.parent)


def check_outside(target: Path) -> None:
    """Raise StorageError for a path inside a store: what changes that one would take it along."""
    for parent in real_path(target).parents:
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

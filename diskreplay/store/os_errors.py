"""Refusals: errors of the operating system as errors of ours, with the way out; one table for all.

What goes on between a store and the system is done below one of these, so that no call lets an
error of the system out: blocks of `refusals`, functions that are `ours`, threads to be `started`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from diskreplay.errors import DiskReplayError, StorageError
from diskreplay.store.files import DATA, LOCK

P = ParamSpec("P")
T = TypeVar("T")

_OF_THE_DISK = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_WAYS_OUT = {
    **dict.fromkeys(
        (errno.EIO, errno.ENOSPC, errno.EDQUOT), "it may be full: make room, and call again"
    ),
    errno.EFBIG: "raise the limit of the size of files (ulimit -f), and call again",
    errno.EROFS: "read it with access='read', or copy it to where one may write",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change the permissions, or take another path"),
    errno.EMFILE: "close files of this process, or raise its limit (ulimit -n), and call again",
    errno.ENFILE: "the whole system has too many: end what holds them, and call again",
    errno.ENOMEM: "make memory free, and call again",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "take away the link, or choose a path whose links do not lead in a circle",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
    errno.ENOENT: "was it removed meanwhile? Choose a path that exists",
    errno.ESTALE: "its file system went away: open it again",
    **dict.fromkeys(
        (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS),
        "its file system cannot do that: choose a path on a local disk",
    ),
    errno.EBUSY: "another program uses it: wait for that, and call again",
}


def explained(error: BaseException, path: Path) -> str:
    """Return what an error of the system, or of the engine about it, means, and the way out.

    path:  what it is about: how much of that disk is free, or what this user may not do with it
    """
    code = error.errno if isinstance(error, OSError) else None
    if code is None:
        code = next((known for known in _WAYS_OUT if os.strerror(known) in str(error)), None)
    if code is None:
        said = str(error) or type(error).__name__
        return said if isinstance(error, OSError) else f"the storage engine refused: {said}"
    if code == errno.EACCES and (path / DATA).exists():
        return (
            f"user {os.geteuid()} may not {_forbidden(path)}: {os.strerror(code)}: change "
            "the permissions of its files"
        )
    way_out = f": {_WAYS_OUT[code]}" if code in _WAYS_OUT else ""
    if code not in _OF_THE_DISK:
        return f"{os.strerror(code)}{way_out}"
    free = "unknown"
    with contextlib.suppress(OSError):
        free = f"{shutil.disk_usage(path).free >> 20} MiB"
    return f"the disk refused: {os.strerror(code)} ({free} free){way_out}"


@contextlib.contextmanager
def refusals(what: str, path: Path) -> Iterator[None]:
    """Raise StorageError for an error of the system in the block: `what` says what was tried."""
    try:
        yield
    except (DiskReplayError, BrokenPipeError):  # of an output, not of a store
        raise
    except OSError as error:
        raise StorageError(f"{what}: {explained(error, path)}") from error


def ours(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that raises StorageError for an error of the system, naming its file."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except (DiskReplayError, BrokenPipeError):
            raise
        except OSError as error:
            place = _place(error, args, kwargs)
            raise StorageError(f"{place}: {explained(error, place)}") from error

    return called


def _place(error: OSError, args: Sequence[object], kwargs: Mapping[str, object]) -> Path:
    """Return what an error of the system is about: a file, or the store that a call was for."""
    owner = args[0] if args else None
    for found in (error.filename, kwargs.get("path"), *args, getattr(owner, "path", None)):
        if isinstance(found, Path) or (isinstance(found, str) and os.sep in found):
            return Path(found)
    return Path()


def started(thread: threading.Thread) -> threading.Thread:
    """Start a thread; raise StorageError where the process may have no more of them."""
    try:
        thread.start()
    except RuntimeError as error:
        raise StorageError(
            f"a thread cannot be started: {error}: end some, or raise the limit of processes "
            "(ulimit -u), and call again"
        ) from None
    return thread


def real_path(path: Path) -> Path:
    """Return a path without links; where some lead in a circle, as far as that can be found out."""
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def hidden_directory(place: Path, mode: int = 0o700) -> Iterator[Path]:
    """Make a directory for the block, which is gone at its end with what is still in it.

    A descriptor is kept for that: a process that has none left could not remove it.
    """
    spare = os.open(place.parent, os.O_RDONLY)
    try:
        os.mkdir(place, mode)
        yield place
    finally:
        os.close(spare)
        remove_tree(place)


def remove_tree(path: Path) -> None:
    """Remove a directory of our own, as far as that can be done: what fails is tried again."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            _remove(path)
            return


def _remove(path: Path) -> None:
    """Remove a directory. It takes one descriptor at a time, where shutil.rmtree takes many."""
    try:
        os.rmdir(path)  # takes none
    except FileNotFoundError:
        return
    except OSError:
        pass
    else:
        return
    for name in os.listdir(path):
        inner = path / name
        if inner.is_dir() and not inner.is_symlink():
            _remove(inner)
        else:
            inner.unlink()
    os.rmdir(path)


def _forbidden(path: Path) -> str:
    """Return what this user may not do with a store."""
    effective = os.access in os.supports_effective_ids

    def may(name: str, mode: int) -> bool:
        return os.access(path / name, mode, effective_ids=effective)

    if not (path / LOCK).exists():
        return "make lock.mdb, which readers, too, need"
    if not may(LOCK, os.R_OK | os.W_OK):
        return "write to lock.mdb, which readers, too, have to"
    return f"{'write to' if may(DATA, os.R_OK) else 'read'} data.mdb"

"""Errors of the operating system, raised as errors of diskreplay with the way out; in one table.

Every call of the system on behalf of a store is made inside one of these, so that none of its
errors gets out: a block of `system_errors`, a function that is `raising_own_errors`, a thread
started by `start_thread`.
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
from diskreplay.store.directory import DATA, LOCK

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
    """Return the meaning of an error of the system, or of LMDB about one, and the way out.

    path:  the file or store of the error; the message tells the free space of its disk, or what
           this user may not do with it
    """
    code = error.errno if isinstance(error, OSError) else None
    if code is None:
        code = next((known for known in _WAYS_OUT if os.strerror(known) in str(error)), None)
    if code is None:
        said = str(error) or type(error).__name__
        return said if isinstance(error, OSError) else f"the storage engine refused: {said}"
    if code == errno.EACCES:
        user = f"user {os.geteuid()} may not"
        if closed := _forbidden_directory(path):
            return f"{user} {closed}: {os.strerror(code)}: {_WAYS_OUT[code]}"
        if os.path.exists(path / DATA):
            return (
                f"{user} {_forbidden(path)}: {os.strerror(code)}: change the permissions of its "
                "files"
            )
    way_out = f": {_WAYS_OUT[code]}" if code in _WAYS_OUT else ""
    if code not in _OF_THE_DISK:
        return f"{os.strerror(code)}{way_out}"
    free = "unknown"
    with contextlib.suppress(OSError):
        free = f"{shutil.disk_usage(path).free >> 20} MiB"
    return f"the disk refused: {os.strerror(code)} ({free} free){way_out}"


@contextlib.contextmanager
def system_errors(what: str, path: Path) -> Iterator[None]:
    """Raise StorageError for an error of the system in the block.

    what:  what was tried, the beginning of the message
    """
    try:
        yield
    except (DiskReplayError, BrokenPipeError):  # of an output, not of a store
        raise
    except OSError as error:
        raise StorageError(f"{what}: {explained(error, path)}") from error


def raising_own_errors(function: Callable[P, T]) -> Callable[P, T]:
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
    """Return the path of an error of the system: a file, or the store that a call was for."""
    owner = args[0] if args else None
    for found in (error.filename, kwargs.get("path"), *args, getattr(owner, "path", None)):
        if isinstance(found, Path) or (isinstance(found, str) and os.sep in found):
            return Path(found)
    return Path()


def start_thread(thread: threading.Thread) -> threading.Thread:
    """Start a thread; raise StorageError where the process may have no more threads."""
    try:
        thread.start()
    except RuntimeError as error:
        raise StorageError(
            f"a thread cannot be started: {error}: end some, or raise the limit of processes "
            "(ulimit -u), and call again"
        ) from None
    return thread


# The functions below look for the cause of an error of the system. So they take those of `os.path`
# and `os.access`, which return False where a path cannot be followed: `Path.exists` would raise.


def _forbidden_directory(path: Path) -> str:
    """Return the use of a directory on the way to `path` that is forbidden, or an empty text."""
    for place in (*reversed(path.parents), path):
        if os.path.isdir(place) and not _may(place, os.X_OK):
            return f"enter {place}"
    if os.path.isdir(path) and not _may(path, os.R_OK):
        return f"list {path}"
    return ""


def _forbidden(path: Path) -> str:
    """Return the operation on a store that this user has no permission for."""
    if not os.path.exists(path / LOCK):
        return "make lock.mdb, which readers, too, need"
    if not _may(path / LOCK, os.R_OK | os.W_OK):
        return "write to lock.mdb, which readers, too, have to"
    return f"{'write to' if _may(path / DATA, os.R_OK) else 'read'} data.mdb"


def _may(path: Path, mode: int) -> bool:
    """Return whether this user has permissions for a file or directory."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)

"""Refusals: errors of the operating system as errors of ours, with the way out; one table for all.

What goes on between a store and the system is done below one of these, so that no call can let an
error of the system out: `refusals` for a block, `ours` for a function, `started` for a thread.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from diskreplay.errors import DiskReplayError, StorageError

P = ParamSpec("P")
T = TypeVar("T")

_OF_THE_DISK = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WAYS_OUT = {
    **dict.fromkeys(
        (errno.EIO, errno.ENOSPC, errno.EDQUOT), "it may be full: make room, and call again"
    ),
    errno.EFBIG: "raise the limit of the size of files (ulimit -f), and call again",
    errno.EROFS: "read it with access='read', or copy it to where one may write",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        "a reader, too, must be allowed to write to lock.mdb: change the permissions",
    ),
    errno.EMFILE: "close files of this process, or raise its limit (ulimit -n), and call again",
    errno.ENFILE: "the whole system has too many: end what holds them, and call again",
    errno.ENOMEM: "make memory free, and call again",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "choose a path without links that lead in a circle",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
    errno.ENOENT: "was it removed meanwhile, or the working directory? Choose a path that exists",
    errno.ESTALE: "its file system went away: open it again",
    **dict.fromkeys(
        (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS),
        "its file system cannot do that: choose a path on a local disk",
    ),
    errno.EBUSY: "another program uses it: wait for that, and call again",
}


def explained(error: BaseException, path: Path | str | None = None) -> str:
    """Return what an error of the system, or of the engine about it, means, and the way out.

    path:  whose disk it is about, to say how much of it is free
    """
    code = getattr(error, "errno", None) if isinstance(error, OSError) else None
    if code is None:
        code = next((known for known in _WAYS_OUT if os.strerror(known) in str(error)), None)
    if code is None:
        return f"the system refused: {error or type(error).__name__}"
    way_out = f": {_WAYS_OUT[code]}" if code in _WAYS_OUT else ""
    if code not in _OF_THE_DISK or path is None:
        return f"{os.strerror(code)}{way_out}"
    free = "unknown"
    with contextlib.suppress(OSError):
        free = f"{shutil.disk_usage(path).free >> 20} MiB"
    return f"the disk refused: {os.strerror(code)} ({free} free){way_out}"


@contextlib.contextmanager
def refusals(what: str, path: Path | str | None = None) -> Iterator[None]:
    """Raise StorageError for an error of the system in the block: `what` says what was tried."""
    try:
        yield
    except (
        DiskReplayError,
        BrokenPipeError,
    ):  # of an output, not of a store
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
            name = error.filename if isinstance(error.filename, str) else None
            where = name or f"{function.__name__}()"
            raise StorageError(f"{where}: {explained(error, name)}") from error

    return called


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


def remove_tree(path: Path) -> None:
    """Remove a directory as far as that can be done: what fails once is tried twice."""
    for _ in range(2):
        with contextlib.suppress(OSError):
            shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            return

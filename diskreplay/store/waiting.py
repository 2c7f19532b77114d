"""Waiting for a lock that another process holds, as long as it takes, with a warning of which."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from diskreplay.errors import StorageError, warn_caller
from diskreplay.store.openers import is_stopped, openers
from diskreplay.store.os_errors import explained

_PATIENCE_SECONDS = 1.0
_LONGEST_PAUSE = 0.002  # a lock that is held most of the time would else hardly ever be met free


class WaitingWarning(UserWarning):
    """A call has been waiting for another process for more than a second."""


def wait_for(descriptor: int, path: Path, work: str) -> None:
    """Lock a file of the store at `path` exclusively; a Ctrl-C ends the waiting.

    A call that blocks could say nothing. After a second there is one warning, which names the
    process that holds the lock for its `work`, and says whether it is stopped.
    """
    started, is_told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            waited = time.monotonic() - started
        except OSError as error:
            raise StorageError(f"cannot lock {path}: {explained(error, path)}") from None
        if waited > _PATIENCE_SECONDS and not is_told:
            is_told = True
            names = _holders(descriptor, path)
            warn_caller(f"waiting for {names} to end {work} of {path}", WaitingWarning)
        time.sleep(min(_LONGEST_PAUSE, 0.00005 + waited / 8))


def _holders(descriptor: int, path: Path) -> str:
    """Return the names of the processes that hold the lock of a file, or else of those that may."""
    known = {opener.pid: opener for opener in openers(path)}
    pids = _pids_with_lock(descriptor)
    if not pids:  # another kind of system, or another namespace of processes
        pids = [opener.pid for opener in known.values() if opener.access != "read"]
    names = []
    for pid in pids:
        name = str(known.get(pid, f"pid {pid}"))
        way_out = f" (it is stopped: kill -CONT {pid} lets it go on)" * is_stopped(pid)
        names.append(name + way_out)
    return " or ".join(names) or "another process"


def _pids_with_lock(descriptor: int) -> list[int]:
    """Return the pids that hold an flock lock of an opened file, as far as the system tells."""
    status = os.fstat(descriptor)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    place = f"{device}:{status.st_ino}".encode()
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/locks").read_bytes().splitlines():
            parts = line.split()
            if parts[1] == b"FLOCK" and parts[5] == place and int(parts[4]) > 0:
                found.append(int(parts[4]))
    return found

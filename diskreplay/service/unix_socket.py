"""Unix sockets that only their user can connect to, from the first moment on."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from diskreplay.errors import ArgumentError, DiskReplayError, LockedError, StorageError

_T = TypeVar("_T")
_SCHEME = "grpc+unix://"
_MOST_BYTES = 80  # of 107 that a socket's path can have; a directory is added while it is made


def listening_at(location: str, start: Callable[[str], _T]) -> tuple[_T, Callable[[], None]]:
    """Start a server that listens at a location; return it, and a function that removes its socket.

    `start` makes the socket, in a directory that others cannot enter; then it gets the mode 0600
    and its place. A mode that is set at its place would come too late for a moment, and the umask
    is one for all threads. A socket that a killed server has left is replaced, and nothing else,
    also if it comes while this server starts.
    """
    if not location.startswith(_SCHEME):
        return start(location), lambda: None
    path = Path(location.removeprefix(_SCHEME))
    if len(os.fsencode(path)) > _MOST_BYTES:
        raise ArgumentError(
            f"the path of a Unix socket has at most {_MOST_BYTES} bytes here (found {path}): "
            "choose a shorter one, as /run/replay.sock"
        )
    _check_free(path)
    try:
        with tempfile.TemporaryDirectory(prefix=".diskreplay-", dir=path.parent) as place:
            made = Path(place) / "s"
            started = start(f"{_SCHEME}{made}")
            made.chmod(0o600)
            own = made.lstat()
            _check_free(path)
            path.unlink(missing_ok=True)
            path.hardlink_to(made)  # a rename would replace the socket of a server that came first
    except DiskReplayError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be made a socket: {error.strerror}") from None

    def remove() -> None:
        """Remove the socket, unless another server has one at this path by now."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.lstat(), own):
                path.unlink()

    return started, remove


def _check_free(path: Path) -> None:
    """Raise an error if a path holds anything but the socket of a server that is gone."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ArgumentError(f"{path} is no socket: choose another path, or remove it")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:  # so many wait for the server that none more can
            pass
        except OSError as error:
            raise StorageError(f"the socket {path} cannot be tried: {error.strerror}") from None
    raise LockedError(f"another server listens at {path}: stop it, or choose another path")

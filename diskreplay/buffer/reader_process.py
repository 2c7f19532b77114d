"""ReaderProcess: a reader process, seen from the process that draws."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from diskreplay.buffer.batch_slots import BatchSlots
from diskreplay.buffer.row_reader import MESSAGE
from diskreplay.errors import StorageError

_PATIENCE = 5.0  # seconds, for a process to end by itself
# The first line makes the modules of this process importable, wherever they come from.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "
    "from diskreplay.buffer.row_reader import main; main()"
)


_ending: list[subprocess.Popen[bytes]] = []  # processes that may not have ended yet


class ReaderProcess:
    """A process that runs row_reader.py, and the pipes to it.

    It has a session of its own, so that Ctrl-C at a terminal reaches this process alone. It ends
    when this process does, since the pipe of the requests ends then.
    """

    def __init__(self, path: Path, slots: BatchSlots) -> None:
        memory = slots.descriptor
        if memory is None or not sys.executable:
            raise StorageError(
                "reader processes need the Python interpreter, whose path is unknown here "
                "(sys.executable is empty): use readers=0"
            )
        self._requests = self._replies = -1
        _ending[:] = [process for process in _ending if process.poll() is None]
        theirs: list[int] = []
        mine: list[int] = []
        try:
            for pair in (os.pipe(), os.pipe()[::-1]):
                theirs.append(pair[0])
                mine.append(pair[1])
            numbers = (slots.batch_size, len(slots.slots), memory, *theirs, os.getpid())
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, "\n".join(sys.path), os.fspath(path)]
                + list(map(str, numbers)),
                stdin=subprocess.DEVNULL,
                pass_fds=(memory, *theirs),
                start_new_session=True,
            )
        except BaseException as error:
            for descriptor in mine:
                os.close(descriptor)
            if isinstance(error, OSError):
                raise StorageError(
                    f"a reader process cannot be started ({error.strerror}): use readers=0"
                ) from None
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._requests, self._replies = mine
        self.has_replied = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, slot: int, request: int) -> bool:
        """Send a request; return False if the process is dead."""
        try:
            return os.write(self._requests, MESSAGE.pack(slot, request)) == MESSAGE.size
        except OSError:
            return False

    def kill(self) -> None:
        """End the process at once: it writes nothing any more."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def stop(self) -> None:
        """Let the process end, when it has done its requests."""
        self._close_pipes()
        _ending.append(self._process)

    __del__ = stop  # the collector may call it anywhere, so it does not wait

    def join(self) -> None:
        """Wait for the end of the process."""
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()

    def abandon(self) -> None:
        """Close the pipes in a forked child, which must not keep the process alive."""
        self._close_pipes()
        self._process.returncode = 0  # it is no child of this process, and nobody waits for it

    def _close_pipes(self) -> None:
        for name in ("_requests", "_replies"):
            descriptor, self.__dict__[name] = self.__dict__[name], -1
            if descriptor >= 0:
                os.close(descriptor)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with a reply, and at the end."""
        return self._replies


def wait_for_reply(readers: Iterable[ReaderProcess], seconds: float) -> list[ReaderProcess]:
    """Wait for a reply, at most some time; return the readers that are dead."""
    poll = select.poll()
    by_descriptor = {reader.fileno(): reader for reader in readers}
    # A reader without pipes is one that an interrupted call has ended.
    dead = [reader for descriptor, reader in by_descriptor.items() if descriptor < 0]
    if dead:
        return dead
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    for descriptor, _ in poll.poll(1000 * seconds):
        reader, reply = by_descriptor[descriptor], b""
        with contextlib.suppress(OSError):
            reply = os.read(descriptor, 4096)
        if reply:
            reader.has_replied = True
        else:
            dead.append(reader)
    return dead

"""ReaderProcess: a reader process, seen from the process that draws."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterable

from diskreplay.buffer.batch_slots import BatchSlots
from diskreplay.buffer.row_reader import MESSAGE
from diskreplay.episodes import NStep
from diskreplay.errors import StorageError
from diskreplay.forks import call_in_child
from diskreplay.store import Store

_PATIENCE = 5.0  # seconds, for a process to end by itself
# The first line makes the modules of this process importable, wherever they come from.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "
    "from diskreplay.buffer.row_reader import main; main()"
)


_ending: list[subprocess.Popen[bytes]] = []  # processes that may not have ended yet


def _forget_ended() -> None:
    for process in list(_ending):
        if process.poll() is not None:
            with contextlib.suppress(ValueError):  # another thread was faster
                _ending.remove(process)


@call_in_child
def _forget_those_of_the_parent() -> None:
    for process in list(_ending):
        process.returncode = 0  # it is no child of this process


class ReaderProcess:
    """A process that runs row_reader.py, and the pipes to it.

    It has a session of its own, so that Ctrl-C at a terminal reaches this process alone. It ends
    when this process does, since the pipe of the requests ends then.

    generation:  the number of deaths that ReaderQueue had counted when it started the process
    """

    def __init__(self, store: Store, slots: BatchSlots, generation: int) -> None:
        self.generation = generation
        self._requests = self._replies = -1
        self._descriptors: list[int] = []  # to be closed
        self._process: subprocess.Popen[bytes] | None = None
        memory = slots.descriptor
        if not sys.executable or getattr(sys, "frozen", False):
            raise StorageError(
                "reader processes need the Python interpreter, whose path is unknown here "
                "(sys.executable is empty, or this program is frozen): use readers=0"
            )
        store.check_place()  # the reader opens what is at its path
        _forget_ended()
        try:
            self._descriptors += os.pipe()
            self._descriptors += os.pipe()
            theirs = self._descriptors[0], self._descriptors[3]
            n_step = slots.form.n_step or NStep()
            form = int(slots.form.frames), n_step.steps, n_step.gamma.hex()
            sizes = slots.batch_size, len(slots.slots)
            numbers = (*form, *sizes, memory, *theirs, os.getpid(), *store.data_file)
            modules = "\n".join(place for place in sys.path if isinstance(place, str))
            program = [sys.executable, "-c", _PROGRAM, modules, os.fspath(store.path)]
            self._process = subprocess.Popen(
                [*program, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                pass_fds=(memory, *theirs),
                start_new_session=True,
            )
            os.close(self._descriptors.pop())
            os.close(self._descriptors.pop(0))
            self._requests, self._replies = self._descriptors
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError | ValueError):  # or an entry of sys.path is no text
                cause = getattr(error, "strerror", None) or error
                raise StorageError(
                    f"a reader process cannot be started ({cause}): use readers=0"
                ) from None
            raise

    def send(self, slot: int, request: int) -> bool:
        """Send a request; return False if the process is dead."""
        try:
            return os.write(self._requests, MESSAGE.pack(slot, request)) == MESSAGE.size
        except OSError:
            return False

    def signal_end(self) -> None:
        """End the process at once, and neither wait nor close the pipes."""
        if self._process is not None:
            self._process.kill()

    def kill(self) -> None:
        """End the process at once: it writes nothing any more."""
        self.signal_end()
        if self._process is not None:
            self._process.wait()
        self._close_pipes()

    def stop(self) -> None:
        """Close the pipes: the process ends after its present request."""
        self._close_pipes()
        if self._process is not None and self._process.returncode is None:
            _ending.append(self._process)

    def join(self) -> None:
        """Close the pipes, and wait for the end of the process."""
        self.stop()
        try:
            if self._process is not None:
                self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()

    def abandon(self) -> None:
        """Close the pipes in a forked child, which must not keep the process alive."""
        self._close_pipes()
        if self._process is not None:
            self._process.returncode = 0  # it is no child of this process

    def _close_pipes(self) -> None:
        self._requests = self._replies = -1
        while self._descriptors:
            os.close(self._descriptors.pop())

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
        reply = b""
        with contextlib.suppress(OSError):
            reply = os.read(descriptor, 4096)
        if not reply:
            dead.append(by_descriptor[descriptor])
    return dead

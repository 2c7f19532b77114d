"""Transitions that any process can make again from their number, and children that report.

The number of a transition says which process pushed it, and as its how-manieth::

    number = author << 32 | sequence        author: a process that writes; never given twice
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Event = list[Any]  # its name, when (time.monotonic_ns) and what
Tell = Callable[..., None]

_SEQUENCE = (1 << 32) - 1


class WrongRead(Exception):
    """What was read is not what anybody pushed."""


def numbers_from(author: int, first: int, n: int) -> Ints:
    """Return the numbers of n transitions of an author, from a sequence number on."""
    return (author << 32) + np.arange(first, first + n, dtype=np.int64)


def authors_of(numbers: Ints) -> Ints:
    """Return who pushed each transition."""
    return numbers >> 32


def sequences_of(numbers: Ints) -> Ints:
    """Return as its author's how-manieth each transition was pushed, from 0."""
    return numbers & _SEQUENCE


def columns_of(numbers: Ints, width: int) -> list[NDArray[Any]]:
    """Return states, actions, rewards, next states and dones; a state is `width` numbers."""
    places = np.arange(1, 2 * width + 1)
    states = (_mixed(numbers[:, None] * 4099 + places) >> 41).astype(np.float32)
    more = _mixed(numbers)
    rewards = (more >> 41).astype(np.float32)
    return [states[:, :width], numbers, rewards, states[:, width:], (more & 1).astype(np.bool_)]


def numbers_of(batch: Sequence[Any]) -> Ints:
    """Return the numbers of the transitions in a batch; raise WrongRead when one is not whole."""
    numbers: Ints = batch[1]
    expected = columns_of(numbers, batch[0].shape[1])
    broken = np.zeros(len(numbers), np.bool_)
    for found, wanted in zip(batch, expected, strict=False):
        broken |= (found != wanted.astype(found.dtype)).reshape(len(numbers), -1).any(axis=1)
    if broken.any():
        raise WrongRead(
            f"{broken.sum()} of {len(numbers)} transitions are not whole: "
            f"those with the numbers {numbers[broken][:10].tolist()}"
        )
    return numbers


def pushed_priorities(numbers: Ints) -> Floats:
    """Return the priorities that transitions are pushed with, in [0.5, 1)."""
    return (0.5 + (_mixed(numbers) >> 41) / 2.0**24).astype(np.float32)


def updated_priorities(author: int, first: int, n: int) -> Floats:
    """Return the priorities of an author's n updates from the first-th on, in [1, 2)."""
    return (1 + (_mixed(numbers_from(author, first, n)) >> 41) / 2.0**23).astype(np.float32)


def tell_seen(numbers: Ints, tell: Tell) -> None:
    """Tell of each author the newest transition that was read."""
    authors = authors_of(numbers)
    tell(
        "seen",
        [[int(a), int(sequences_of(numbers[authors == a]).max())] for a in np.unique(authors)],
    )


def _mixed(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return 64 bits for each number that look random. Source: Vigna's splitmix64."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Child:
    """A forked process that runs a function, which tells events over a pipe.

    What it told before a kill is read after it. An error is told as the event "failed".
    """

    _pipes: ClassVar[set[int]] = set()

    def __init__(self, run: Callable[[Tell], None], *, seconds: int = 0) -> None:
        self._pipe, write = os.pipe()
        self._pipes.add(self._pipe)
        self._text = b""
        self.ended = False
        self.pid = os.fork()
        if self.pid == 0:
            self._live(run, write, seconds)
        os.close(write)
        os.set_blocking(self._pipe, False)

    def _live(self, run: Callable[[Tell], None], write: int, seconds: int) -> None:
        status = 1

        def tell(name: str, *what: Any) -> None:
            os.write(write, json.dumps([name, time.monotonic_ns(), *what]).encode() + b"\n")

        try:
            for pipe in self._pipes:
                os.close(pipe)  # so that nobody writes on when the parent is gone
            signal.signal(signal.SIGINT, signal.default_int_handler)  # `nohup` has it ignored
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            run(tell)
            status = 0
        except BaseException:
            tell("failed", traceback.format_exc())
        finally:
            os._exit(status)

    def events(self) -> list[Event]:
        """Return what was told since the last call, without waiting."""
        while not self.ended:
            try:
                part = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                break
            self._text += part
            if not part:
                self.ended = True
                self._pipes.discard(self._pipe)
                os.close(self._pipe)
        *lines, self._text = self._text.split(b"\n")
        return [json.loads(line) for line in lines]

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self) -> tuple[int, list[Event]]:
        """Wait for the end; return its status (-9 after a kill) and what was told until then."""
        events = []
        while not self.ended:
            select.select([self._pipe], [], [])
            events += self.events()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), events

    @classmethod
    def select(cls, children: Iterable[Child], seconds: float) -> None:
        """Wait until one of them tells something or ends, or the time is over."""
        pipes = [child._pipe for child in children if not child.ended]
        select.select(pipes, [], [], max(0.0, seconds))


def ask(function: Callable[[], Any], seconds: int = 120) -> Any:
    """Return what a function returns in a child; raise RuntimeError when the child dies of it."""
    status, events = Child(lambda tell: tell("result", function()), seconds=seconds).wait()
    name, _, what = events[-1] if events else ("failed", 0, f"it ended with status {status}")
    if name == "failed":
        raise RuntimeError(what)
    return what

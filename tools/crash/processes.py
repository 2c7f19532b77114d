"""Forked processes that tell events over a pipe, so that a kill or a crash is seen and counted."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import diskreplay

Event = list[Any]  # its name, when (time.monotonic_ns) and what
Tell = Callable[..., None]


@dataclass(frozen=True)
class Outcome:
    """How a process ended: with a value, an exception or a signal."""

    value: Any = None
    error: str = ""
    refused: bool = False  # the exception is one of diskreplay's
    signal: int = 0

    @property
    def ended(self) -> str:
        """The end in words, "" when it returned a value."""
        if self.signal == signal.SIGALRM:
            return "did not end in time"
        return f"died of {signal.Signals(self.signal).name}" if self.signal else self.error


class Child:
    """A forked process that runs a function, which tells events; what it returns is the last one.

    What it told before a kill is read after it. An exception is told as the event "failed". The
    value has to fit JSON. With `seconds` it dies of SIGALRM when it takes longer.
    """

    _pipes: ClassVar[set[int]] = set()

    def __init__(self, run: Callable[[Tell], Any], *, seconds: int = 0) -> None:
        self._pipe, write = os.pipe()
        self._pipes.add(self._pipe)
        self._text = b""
        self._last: Event = ["failed", 0, "ended without a word", None]
        self.ended = False
        self.pid = os.fork()
        if self.pid == 0:
            self._live(run, write, seconds)
        os.close(write)
        os.set_blocking(self._pipe, False)

    def _live(self, run: Callable[[Tell], Any], write: int, seconds: int) -> None:
        def tell(name: str, *what: Any) -> None:
            os.write(write, json.dumps([name, time.monotonic_ns(), *what]).encode() + b"\n")

        try:
            for pipe in self._pipes:
                os.close(pipe)  # so that no other process keeps them open when the parent is gone
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGINT, signal.default_int_handler)  # `nohup` has it ignored
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            tell("result", run(tell))
        except diskreplay.DiskReplayError as error:
            tell("failed", traceback.format_exc(), f"{type(error).__name__}: {error}")
        except BaseException:
            tell("failed", traceback.format_exc(), None)
        finally:
            # Nothing of the parent may run here: neither its exit handlers nor its test runner.
            os._exit(0)

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
        events = [json.loads(line) for line in lines]
        self._last = [self._last, *events][-1]
        return events

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

    def outcome(self) -> Outcome:
        """Wait for the end, and return how it came."""
        status, _ = self.wait()
        if status < 0:
            return Outcome(signal=-status)
        name, _, *what = self._last
        if name == "failed":
            return Outcome(error=what[1] or what[0], refused=what[1] is not None)
        return Outcome(what[0])

    @classmethod
    def select(cls, children: Iterable[Child], seconds: float) -> None:
        """Wait until one of them tells something or ends, or the time is over."""
        pipes = [child._pipe for child in children if not child.ended]
        select.select(pipes, [], [], max(0.0, seconds))


def run_apart(function: Callable[[], Any], seconds: int = 60) -> Outcome:
    """Run a function in a process of its own to its end."""

    def run(_: Tell) -> Any:
        # The engine tells of its failed assertions there, once for each.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        return function()

    return Child(run, seconds=seconds).outcome()


def ask(function: Callable[[], Any], seconds: int = 120) -> Any:
    """Return what a function returns in a child; raise RuntimeError when the child fails."""
    outcome = run_apart(function, seconds)
    if outcome.ended:
        raise RuntimeError(outcome.ended)
    return outcome.value

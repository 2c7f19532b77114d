"""Start workers, each a process of one system, and run their rounds in turns."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from bench.limits import MemoryGroup, NoLimitError, memory_group
from bench.rows import Task

TOOLS = Path(__file__).parents[1]
OWN = (
    "diskreplay",
    "arrays",
    "service",
    "flight",
)  # they run in the environment that this process runs in
PEERS = ("cpprb", "sb3", "tianshou", "torchrl", "reverb")

Tell = Callable[[str], None]


class WorkerError(click.ClickException):
    """A worker could not do what it was told, or ended."""


@dataclass(frozen=True)
class Leg:
    """One side of a comparison: what one system does in each round."""

    system: str
    bench: str
    task: Task
    rounds: int | None = None  # at most; None is as many as were asked for
    is_fresh: bool = False  # a new process for each round
    fill: bool = False  # another process makes what is stored, first
    limit_bytes: int = 0  # of the memory of the process; 0 is none
    warms_up: bool = True  # with rounds that do not count; new processes never do


@dataclass
class Measured:
    """What was measured of a leg: each figure of each round, or why there is none."""

    leg: Leg
    rounds: dict[str, list[float]] = field(default_factory=dict)
    missing: str = ""
    has_failed: bool = False  # and could have worked

    def take(self, figures: dict[str, float]) -> None:
        """Append the figures of a round."""
        for name, value in figures.items():
            self.rounds.setdefault(name, []).append(value)

    def as_json(self) -> dict[str, Any]:
        """Return everything but where things were stored."""
        facts = asdict(self.leg)
        del facts["task"]["path"]
        return {**facts, "missing": self.missing, "figures": self.rounds}


class Worker:
    """A process that measures one system."""

    def __init__(self, python: Path, system: str, group: MemoryGroup | None = None) -> None:
        self.system = system
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, "-m", f"bench.workers.{system}"],
            cwd=TOOLS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        if group is not None:
            try:
                group.hold(self._process.pid)
            except OSError as error:
                self.kill()
                raise NoLimitError(f"no process could be held: {error}") from error

    def ask(self, what: str, **more: Any) -> dict[str, Any]:
        """Return the answer to a request; raise WorkerError in its stead."""
        line = json.dumps({"do": what, **more})
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            status = self._process.wait()
            self._errors.seek(0)
            last = ([""] + [line for line in self._errors.read().splitlines() if line.strip()])[-1]
            raise WorkerError(f"the worker of {self.system} ended with status {status}: {last}")
        found: dict[str, Any] = json.loads(answer)
        if "error" in found:
            raise WorkerError(f"the worker of {self.system} failed: {found['error']}")
        return found

    def start(self, leg: Leg) -> None:
        """Prepare a leg."""
        self.ask("start", bench=leg.bench, task=asdict(leg.task))

    def round(self) -> dict[str, float]:
        """Measure one round."""
        figures: dict[str, float] = self.ask("round")["figures"]
        return figures

    def close(self) -> None:
        """End the process, which closes what it has open."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@dataclass(frozen=True)
class Pythons:
    """Where the interpreters of the systems are."""

    peers: Path

    def of(self, system: str) -> Path:
        """Return the interpreter of a system, which may not exist."""
        if system in OWN:
            return Path(sys.executable)
        return self.peers.absolute() / system / "bin" / "python"

    def has(self, system: str) -> bool:
        """Return whether a system is installed."""
        return self.of(system).exists()

    @contextlib.contextmanager
    def worker(self, system: str, limit_bytes: int = 0) -> Iterator[Worker]:
        """Start a worker; it closes what it has open at the end, and is killed on an error."""
        with contextlib.ExitStack() as stack:
            group = stack.enter_context(memory_group(limit_bytes)) if limit_bytes else None
            worker = Worker(self.of(system), system, group)
            try:
                yield worker
            except BaseException:
                worker.kill()
                raise
            worker.close()

    def versions(self, system: str) -> dict[str, str]:
        """Return the versions of a system and of what it needs."""
        with self.worker(system) as worker:
            found: dict[str, str] = worker.ask("versions")["versions"]
            return found


def measure(
    legs: dict[str, Leg], pythons: Pythons, rounds: int, warm_up: int, tell: Tell
) -> dict[str, Measured]:
    """Run legs in turns, a round each: the first, the second, ..., the first again.

    A leg whose system is not installed, or fails, has a reason in the place of figures; so do those
    that need a limit on memory, where there is none.
    """
    measured = {name: Measured(leg) for name, leg in legs.items()}
    sides: dict[str, Side] = {}
    with contextlib.ExitStack() as stack:
        for name, leg in legs.items():
            if not pythons.has(leg.system):
                measured[name].missing = "not installed"
                continue
            tell(f"  {name}: preparing")
            with noted(measured[name], name, tell):
                sides[name] = Side(leg, pythons, stack)
        os.sync()  # what filling left to be written must not come between the rounds
        for number in range(-warm_up, rounds):
            for name, side in sides.items():
                found = measured[name]
                if found.missing or not side.has_round(number, rounds):
                    continue
                with noted(found, name, tell):
                    figures = side.round()
                    if number >= 0:
                        found.take(figures)
    return measured


@contextlib.contextmanager
def noted(measured: Measured, name: str, tell: Tell) -> Iterator[None]:
    """Note an error as the reason why a leg is missing."""
    try:
        yield
    except (WorkerError, NoLimitError, OSError) as error:
        measured.missing = str(error)
        measured.has_failed = not isinstance(error, NoLimitError)
        measured.rounds.clear()
        tell(f"  {name}: {error}")


class Side:
    """A leg that is prepared: with a worker of its own, or one for each round."""

    def __init__(self, leg: Leg, pythons: Pythons, stack: contextlib.ExitStack) -> None:
        self._leg, self._pythons = leg, pythons
        if leg.fill:
            with pythons.worker(leg.system) as filler:
                filler.ask("start", bench="fill", task=asdict(leg.task))
        self._worker: Worker | None = None
        if not leg.is_fresh:
            self._worker = stack.enter_context(pythons.worker(leg.system, leg.limit_bytes))
            self._worker.start(leg)

    def has_round(self, number: int, rounds: int) -> bool:
        """Return whether it takes part in a round; those below 0 are for warming up."""
        most = rounds if self._leg.rounds is None else min(rounds, self._leg.rounds)
        warms_up = self._leg.warms_up and not self._leg.is_fresh
        return number < most and (number >= 0 or warms_up)

    def round(self) -> dict[str, float]:
        """Measure a round."""
        if self._worker is not None:
            return self._worker.round()
        with self._pythons.worker(self._leg.system, self._leg.limit_bytes) as fresh:
            fresh.start(self._leg)
            return fresh.round()

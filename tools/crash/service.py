"""`python -m crash.service`: kill a service again and again while clients push and sample.

Actors push rows and flush now and then; learners draw batches, check every row and set priorities.
The server is killed (SIGKILL) and started again on the same store and address. Then the clients end
by themselves, the server by SIGTERM, and what is in the store is compared with what was told. What
must hold::

    each row      of which an actor was told that it is committed is in the store, once and whole,
                  in the order of its pushes
    each client   goes on after every kill, and ends by itself; its memory stays within a bound
    each batch    holds whole rows alone
    the server    ends with the exit status 0 after SIGTERM
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

import diskreplay
from crash import report
from crash.processes import ask
from crash.rows import Ints, changed, sequences_of, writers_of

ROOM = 64 << 20  # bytes that the memory of a client may grow by, with the rows that it holds back
COLUMNS = ("clients", "kills", "rows", "batches", "lost", "wrong", "failed")
BAD = ("lost", "wrong", "failed")
_PATIENCE = 60  # seconds
_LEAST = 600  # seconds that a run of a few kills may take on a busy machine
_READ = 4096  # rows read at once, at the end


class Service:
    """A server process on one store and address, which is killed and started again."""

    def __init__(self, place: Path, capacity: int) -> None:
        self.path, self._log = place / "store", (place / "server.log").open("ab")
        ask(lambda: _make(self.path, capacity))
        self.url = f"grpc://127.0.0.1:{_free_port()}"
        self._process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        """Start the server, and return when clients can connect."""
        command = [sys.executable, "-m", "diskreplay_tools", "serve", str(self.path)]
        process = subprocess.Popen(
            [*command, "--listen", self.url], stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        with process.stdout as said:  # type: ignore[union-attr]
            if not said.readline():
                raise RuntimeError(f"the server does not start: see {self._log.name}")
        return process

    def kill(self) -> None:
        """Kill the server."""
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        """Start the server again."""
        self._process = self._started()

    def stop(self) -> int:
        """End the server by SIGTERM, and return its exit status."""
        self._process.terminate()
        return self._process.wait(_PATIENCE)


def _make(path: Path, capacity: int) -> None:
    diskreplay.PrioritizedReplayBuffer(capacity, path=path, seed=0).close()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Clients:
    """The actors and learners, and what they told."""

    def __init__(self, place: Path, url: str, roles: list[str], seed: int, pace: float) -> None:
        self._processes, self._files = [], []
        for number, role in enumerate(roles):
            file = place / f"{role}-{number}.jsonl"
            words = [role, url, number, seed, pace, file]
            command = [sys.executable, "-m", "crash.service_roles", *map(str, words)]
            with (place / f"{role}-{number}.log").open("ab") as log:
                self._processes.append(subprocess.Popen(command, stderr=log))
            self._files.append(file)
        self.roles = roles

    def stop(self) -> None:
        """Send SIGTERM to all clients, and wait a while for their end; `kill` ends the others."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)

    def kill(self) -> None:
        """Kill those that are left."""
        for process in self._processes:
            process.kill()
            process.wait()

    def wait_for_news(self) -> None:
        """Return when each client has told something new, or after a while."""
        before = [self._size(file) for file in self._files]
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            now = [self._size(file) for file in self._files]
            if all(new > old for new, old in zip(now, before, strict=True)):
                return
            time.sleep(0.02)

    @staticmethod
    def _size(file: Path) -> int:
        return file.stat().st_size if file.exists() else 0

    def told(self, number: int) -> list[tuple[str, Any]]:
        """Return the events of a client."""
        path = self._files[number]
        lines = path.read_text().splitlines() if path.exists() else []
        return [(name, what) for name, what in map(json.loads, lines)]


@contextlib.contextmanager
def _running(place: Path, capacity: int) -> Iterator[Service]:
    service = Service(place, capacity)
    try:
        yield service
    finally:
        service.kill()


def run(
    place: Path,
    roles: list[str],
    seconds: float,
    kills: int,
    every: float,
    seed: int,
    pace: float,
) -> tuple[Counter[str], list[str]]:
    """Play one run; return what was counted, and the failures in words."""
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter(clients=len(roles))
    failures: list[str] = []
    capacity = int(roles.count("actor") * pace * max(seconds, _LEAST) * 2)
    with _running(place, capacity) as service:
        clients = Clients(place, service.url, roles, seed, pace)
        try:
            end = time.monotonic() + seconds
            while counts["kills"] < kills or time.monotonic() < end:
                clients.wait_for_news()
                time.sleep(every * rng.uniform(0, 2))
                service.kill()
                counts["kills"] += 1
                time.sleep(rng.uniform(0, min(2.0, every)))
                service.start()
            clients.wait_for_news()
            clients.stop()
        finally:
            clients.kill()
        if status := service.stop():
            failures.append(f"the server ended with the exit status {status} after SIGTERM")
    acknowledged = {}
    for number, role in enumerate(roles):
        events = clients.told(number)
        failures += _faults_of(f"{role} {number}", events)
        counts["wrong"] += sum(name == "wrong" for name, _ in events)
        counts["batches"] += sum(what for name, what in events if name == "batches")
        if role == "actor":
            acknowledged[number] = max([0, *(n for name, n in events if name == "acknowledged")])
    lost, wrong = ask(lambda: _judge(service.path, acknowledged), seconds=600)
    failures += [*lost, *wrong]
    counts.update(
        rows=sum(acknowledged.values()),
        lost=len(lost),
        wrong=len(wrong),
        failed=len(failures) - len(lost) - len(wrong),
    )
    return counts, failures


def _faults_of(name: str, events: list[tuple[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with the events of a client."""
    names = [event for event, _ in events]
    yield from (f"{name} failed: {what}" for event, what in events if event == "failed")
    if "end" not in names and "failed" not in names:
        yield f"{name} did not end by itself"
    memory = [what for event, what in events if event == "memory"]
    if memory and max(memory) > memory[0] + ROOM:
        yield f"{name} grew from {memory[0]:,} to {max(memory):,} bytes"


def _judge(path: Path, acknowledged: dict[int, int]) -> tuple[list[str], list[str]]:
    """Compare the store with the rows that were acknowledged, by their writers."""
    lost, wrong = [], [str(fault) for fault in diskreplay.verify(path)]
    with diskreplay.open(path, access="read") as buffer:
        numbers, broken = _read(buffer)
    if broken:
        wrong.append(f"{len(broken)} rows are not whole: those with the numbers {broken[:10]}")
    for writer, n in acknowledged.items():
        found = sequences_of(numbers[writers_of(numbers) == writer])
        missing = np.setdiff1d(np.arange(n), found)
        if len(missing):
            lost.append(f"{len(missing)} acknowledged rows of actor {writer} are lost")
        if len(np.unique(found)) != len(found):
            wrong.append(f"{len(found) - len(np.unique(found))} rows of actor {writer} came twice")
        elif not np.array_equal(found, np.arange(len(found))):
            wrong.append(f"the rows of actor {writer} are out of order, or some are left out")
    if unknown := {*writers_of(numbers).tolist()} - {*acknowledged}:
        wrong.append(f"there are rows of no known actor: {sorted(unknown)}")
    return lost, wrong


def _read(buffer: Any) -> tuple[Ints, list[int]]:
    """Return the numbers of the rows in a store, and of those that are not what was pushed."""
    parts, broken = [np.zeros(0, np.int64)], []
    for at in range(buffer.first, buffer.count, _READ):
        batch = buffer.get(np.arange(at, min(at + _READ, buffer.count)))
        parts.append(batch[1])
        broken += changed(batch, batch[1])
    return np.concatenate(parts), broken


@click.command()
@report.number("--actors", 16, "Clients that push.")
@report.number("--learners", 2, "Clients that sample and update.", least=0)
@report.duration("--seconds", 600, "Until the last kill.")
@report.number("--kills", 1, "As many at least.")
@report.duration("--every", 30, "Seconds of work before a kill, on average.")
@report.duration("--pace", 200, "Rows that an actor pushes in a second.")
@report.seed("Of when the server is killed, and what the learners set.")
def main(
    actors: int, learners: int, seconds: float, kills: int, every: float, pace: float, seed: int
) -> None:
    """Kill a service again and again, and count what its clients lose.

    The exit status is 1 when anything is lost or wrong.
    Example: python -m crash.service --actors 4 --seconds 30 --every 5
    """
    roles = ["actor"] * actors + ["learner"] * learners
    with report.kept_place("service") as home:
        place = home / "run"
        place.mkdir()
        counts, failures = run(place, roles, seconds, kills, every, seed, pace)
        report.keep_or_remove(place, failures)
    of = report.Counts("service", COLUMNS)
    of.add("killed", counts)
    click.echo(of.table())
    sys.exit(of.has(BAD))


if __name__ == "__main__":
    main()

"""The commands that read, beside a process that pushes as fast as it can."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import facts, run, shown
from common import STATE, SUPPORT, columns, numbers_of

import diskreplay

WRITER = """
import sys, time
from pathlib import Path
import diskreplay
from common import columns

path, log = Path(sys.argv[1]), open(sys.argv[2], "w", buffering=1)
capacity, interval, clears = int(sys.argv[3]), float(sys.argv[4]), sys.argv[5] == "True"
first, n = 0, min(4000, capacity)
buffer = diskreplay.PrioritizedReplayBuffer(capacity, path=path, commit_interval=interval)
while True:
    rows = columns(first, n)
    # Not the making of the transitions is what is measured.
    took = -time.perf_counter()
    for state, action, reward, next_state, done in zip(*rows.values()):
        buffer.push(state, action, reward, next_state, done, priority=reward)
    took += time.perf_counter()
    first += n
    log.write(f"{time.monotonic()} {first} {took}\\n")
    if clears and first % (20 * n) == 0:
        buffer.clear()
"""


class Writer:
    """The process, and what it says of its pushes."""

    def __init__(self, place: Path, capacity: int, interval: float, clears: bool) -> None:
        self.path, self._log = place / "b", place / "log"
        self.capacity, self.clears = capacity, clears
        given = map(str, (self.path, self._log, capacity, interval, clears))
        self._process = subprocess.Popen([sys.executable, "-c", WRITER, *given], cwd=SUPPORT)

    def lines(self) -> list[tuple[float, int, float]]:
        """When, how many pushes there were, and the seconds that the last ones took."""
        assert self._process.poll() is None
        text = self._log.read_text() if self._log.exists() else ""
        words = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [(float(when), int(count), float(took)) for when, count, took in words]

    def pushed(self) -> int:
        return self.lines()[-1][1]

    def wait_for(self, count: int) -> None:
        while not (self.lines() and self.pushed() >= count):
            time.sleep(0.01)

    def rate(self, spans: list[tuple[float, float]]) -> float:
        """Pushes a second within spans of time."""
        took = [
            took
            for when, _, took in self.lines()
            if any(begin <= when - took and when <= end for begin, end in spans)
        ]
        return 4000 * len(took) / sum(took)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def inspect(writer: Writer, place: Path) -> None:
    for view in ([], ["--top", 60], ["--bottom", 5], ["--last", 60], ["--last", 5]):
        before = writer.pushed()
        found = facts(writer.path, *view)
        size, first, count = found["size"], found["first"], found["count"]
        assert count - first == size <= writer.capacity
        assert size == writer.capacity or writer.clears
        # What is committed is up to a second old, and the log is behind by one of its lines.
        assert before - 1_000_000 <= count <= writer.pushed() + 8000
        assert found["runs"][0]["end"] >= count
        if "priority" in found.get("histograms", {}):
            histogram = found["histograms"]["priority"]
            assert sum(histogram["counts"]) == histogram["of"] <= size
        for each in found.get("transitions", []):
            number = each["write_id"]
            assert first <= number < count
            assert each["age"] == count - 1 - number
            assert each["fields"]["reward"] == number / 8
            assert each["fields"]["state"] == columns(number, 1)["states"][0].tolist()
            assert each.get("priority", number / 8) == number / 8
        if not writer.clears and found["priority_max"] == found["max_priority"]:
            assert found["priority_max"] == pytest.approx((count - 1) / 8)
        shown(writer.path, *view)


def verify(writer: Writer, place: Path) -> None:
    for deep in ([], ["--deep"]):
        assert "sound" in run("verify", *deep, writer.path).stdout


def copy(writer: Writer, place: Path) -> None:
    out = place / f"copy-{time.monotonic_ns()}"
    run("copy", writer.path, out)
    assert diskreplay.verify(out) == []
    with diskreplay.open(out) as copied:
        ids = np.arange(copied.first, copied.count)[::50]
        assert len(copied) == writer.capacity or writer.clears
        assert not ids.size or (numbers_of(copied.get(ids)) == ids).all()
        copied.check()


def export(writer: Writer, place: Path) -> None:
    out = place / f"{time.monotonic_ns()}.npz"
    told = run("export", writer.path, out).stderr
    left_out = (
        int(told.split()[2].replace(",", "")) if "evicted before they were read" in told else 0
    )
    with np.load(out, allow_pickle=False) as found:
        ids = found["write_id"]
        assert ids.size + left_out == writer.capacity or writer.clears
        assert (np.diff(ids) > 0).all()
        if ids.size:
            assert found["state"].shape == (ids.size, STATE)
            assert (found["state"][:, 0] == np.float32(STATE) * ids).all()
            assert (found["reward"] == (ids / 8).astype(np.float32)).all()
            assert (found["priority"] == found["reward"]).all()
    out.unlink()


COMMANDS: list[Callable[[Writer, Path], None]] = [inspect, verify, copy, export]


@pytest.fixture
def writer(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Writer]:
    found = Writer(tmp_path, *request.param)
    try:
        found.wait_for(3 * found.capacity // 2)
        yield found
    finally:
        found.stop()
    with diskreplay.open(found.path) as buffer:
        buffer.check()


@pytest.mark.parametrize("writer", [(500, 0, False), (60, 0, True)], indirect=True)
def test_nothing_is_wrong_beside_a_writer_that_evicts_all_the_time(
    writer: Writer, tmp_path: Path
) -> None:
    size = (writer.path / "data.mdb").stat().st_size
    for command in COMMANDS * 3:
        command(writer, tmp_path)
    assert (writer.path / "data.mdb").stat().st_size < size + (64 << 20)


@pytest.mark.parametrize("writer", [(100_000, 1.0, False)], indirect=True)
def test_nothing_is_wrong_beside_a_writer_at_full_speed(
    writer: Writer, tmp_path: Path, long: bool, capsys: Any
) -> None:
    size = (writer.path / "data.mdb").stat().st_size
    beside, alone = [], []
    began = time.monotonic()
    for command in itertools.cycle(COMMANDS) if long else COMMANDS:
        begin = time.monotonic()
        command(writer, tmp_path)
        end = time.monotonic()
        beside.append((begin, end))
        if long:
            while writer.lines()[-1][0] < 2 * end - begin:  # as long again, alone
                time.sleep(0.01)
            alone.append((end, time.monotonic()))
            if time.monotonic() > began + 60:
                break
    grown = (writer.path / "data.mdb").stat().st_size / size
    if long:
        rates = writer.rate(beside), writer.rate(alone)
        with capsys.disabled():
            print(
                f"\n{time.monotonic() - began:.0f} s: {rates[0]:,.0f} pushes a second beside "
                f"{len(beside)} commands, {rates[0] / rates[1]:.2f} of the {rates[1]:,.0f} between "
                f"them; the data file grew {grown:.2f} x"
            )
    # A reader keeps the pages that a commit replaces meanwhile, until it is done.
    assert grown < 8
    assert diskreplay.verify(writer.path) == []

"""The commands that read, beside a process that pushes as fast as it can."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import STATE, SUPPORT, numbers_of

import diskreplay

CAPACITY = 100_000
NAMES = ("states", "actions", "rewards", "next_states", "dones")
WRITER = """
import sys, time
from pathlib import Path
import diskreplay
from common import columns

path, log = Path(sys.argv[1]), open(sys.argv[2], "w", buffering=1)
first, buffer = 0, diskreplay.PrioritizedReplayBuffer(int(sys.argv[3]), path=path)
while True:
    rows = columns(first, 4000)
    # Not the making of the transitions is what is measured.
    took = -time.perf_counter()
    for state, action, reward, next_state, done in zip(*rows.values()):
        buffer.push(state, action, reward, next_state, done, priority=reward)
    took += time.perf_counter()
    first += 4000
    log.write(f"{time.monotonic()} {first} {took}\\n")
"""


class Writer:
    """The process, and what it says of its pushes."""

    def __init__(self, place: Path) -> None:
        self.path, self._log = place / "b", place / "log"
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(self.path), str(self._log), str(CAPACITY)],
            cwd=SUPPORT,
        )

    def lines(self) -> list[tuple[float, int, float]]:
        """When, how many pushes there were, and the seconds that the last 4000 took."""
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


def run(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "diskreplay_tools", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout


def inspect(writer: Writer, place: Path) -> None:
    before = writer.pushed()
    found = json.loads(run("inspect", writer.path, "--json", "--last", 3))
    # What is committed is up to a second old, and the log is behind by up to 4000.
    assert found["size"] == CAPACITY
    assert found["count"] <= writer.pushed() + 8000
    assert found["count"] >= before - 1_000_000
    assert found["priority_max"] == pytest.approx((found["count"] - 1) / 8)
    assert found["priority_min"] == pytest.approx((found["count"] - CAPACITY) / 8)


def verify(writer: Writer, place: Path) -> None:
    assert "sound" in run("verify", writer.path)


def verify_deep(writer: Writer, place: Path) -> None:
    assert "sound" in run("verify", "--deep", writer.path)


def copy(writer: Writer, place: Path) -> None:
    out = place / f"copy-{time.monotonic_ns()}"
    run("copy", writer.path, out)
    assert diskreplay.verify(out) == []
    with diskreplay.open(out) as copied:
        ids = np.arange(copied.count - CAPACITY, copied.count)
        assert (numbers_of(copied.get(ids[::50])) == ids[::50]).all()
        copied.check()


def export(writer: Writer, place: Path) -> None:
    out = place / f"{time.monotonic_ns()}.npz"
    run("export", writer.path, out)
    with np.load(out, allow_pickle=False) as found:
        ids = found["write_id"]
        assert 0 < ids.size <= CAPACITY
        assert (np.diff(ids) > 0).all()
        assert found["state"].shape == (ids.size, STATE)
        assert (found["state"][:, 0] == np.float32(STATE) * ids).all()
        assert (found["reward"] == (ids / 8).astype(np.float32)).all()
        assert (found["priority"] == found["reward"]).all()
    out.unlink()


COMMANDS: list[Callable[[Writer, Path], None]] = [inspect, verify, copy, export]


def test_commands_beside_a_writer(tmp_path: Path, long: bool, capsys: Any) -> None:
    writer = Writer(tmp_path)
    try:
        writer.wait_for(3 * CAPACITY // 2)
        size = (writer.path / "data.mdb").stat().st_size
        beside, alone = [], []
        began = time.monotonic()
        for command in itertools.cycle(COMMANDS) if long else COMMANDS:
            begin = time.monotonic()
            command(writer, tmp_path)
            end = time.monotonic()
            beside.append((begin, end))
            while writer.lines()[-1][0] < 2 * end - begin:  # as long again, alone
                time.sleep(0.01)
            alone.append((end, time.monotonic()))
            if long and time.monotonic() > began + 60:
                break
        grown = (writer.path / "data.mdb").stat().st_size / size
        rates = writer.rate(beside), writer.rate(alone)
        with capsys.disabled():
            print(
                f"\n{time.monotonic() - began:.0f} s: {rates[0]:,.0f} pushes a second beside "
                f"{len(beside)} commands, {rates[0] / rates[1]:.2f} of the {rates[1]:,.0f} between "
                f"them; the data file grew {grown:.2f} x"
            )
        verify_deep(writer, tmp_path)
        # A reader keeps the pages that a commit replaces meanwhile, until it is done.
        assert grown < 8
        assert diskreplay.verify(writer.path) == []
    finally:
        writer.stop()
    with diskreplay.open(writer.path) as buffer:
        buffer.check()

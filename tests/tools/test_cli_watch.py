"""`diskreplay inspect --watch`: again and again until it is interrupted."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import click
import pytest
import stores
from commands import COMMAND, refused, strict_json
from others import Other


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Write ids 1000 to 1349 are live, with the priorities 0, 1/3, 2/3, ..."""
    return stores.prioritized(tmp_path / "b")


def watching(path: Path, *arguments: str, **settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "inspect", str(path), "--watch", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings,
    )  # fmt: skip


def test_watching_in_a_pipe_is_a_line_a_look_until_it_is_interrupted(tmp_path: Path) -> None:
    with Other(tmp_path / "b") as writer:
        writer.open(1000)
        writer.extend(0, 10)
        writer.flush()
        watcher = watching(tmp_path / "b", "0.1")
        assert watcher.stdout is not None
        first = watcher.stdout.readline()
        assert "size 10  written 10  pushes/s -  batches/s -  disk " in first
        writer.extend(10, 20)
        writer.sample(8)
        writer.flush()
        line = first
        while "written 30" not in line:
            line = watcher.stdout.readline()
            assert line
        while re.search(r"pushes/s [\d.]+  batches/s [\d.]+  ", line) is None:
            line = watcher.stdout.readline()
            assert line
        watcher.send_signal(signal.SIGINT)
        rest, errors = watcher.communicate(timeout=60)
        assert (watcher.returncode, errors) == (0, "")
        assert all(line.count("pushes/s") == 1 for line in rest.splitlines())


def test_watching_as_json_is_an_object_a_look(store: Path) -> None:
    with Other(store) as writer:
        writer.open(1100)
        watcher = watching(store, "--json")
        assert watcher.stdout is not None
        found = strict_json(watcher.stdout.readline())
        watcher.send_signal(signal.SIGINT)
        assert watcher.communicate(timeout=60)[1] == ""
        assert watcher.returncode == 0
        assert (found["size"], found["first"], found["frame"]) == (350, 1000, 1)
        assert [who["pid"] for who in found["openers"]] == [writer.process.pid]
        assert found["pushes_per_second"] is None


def test_a_reader_of_the_pipe_may_go(store: Path) -> None:
    watcher = watching(store, "0.1")
    assert watcher.stdout is not None
    assert watcher.stdout.readline()
    watcher.stdout.close()
    assert watcher.stderr is not None
    assert watcher.stderr.read() == ""
    watcher.stderr.close()
    assert watcher.wait(timeout=60) == 1


def test_watching_on_a_terminal_draws_in_place(tmp_path: Path) -> None:
    with Other(tmp_path / "b") as writer:
        writer.open(1000)
        writer.extend(0, 10)
        writer.flush()
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        watcher = subprocess.Popen(
            [*COMMAND, "inspect", tmp_path / "b", "--watch", "0.1"],
            stdout=theirs, stderr=subprocess.PIPE, env={**environment, "TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        text = b""
        while text.count(b"next draw") < 3:
            text += os.read(ours, 4096)
        writer.extend(10, 5)
        writer.flush()
        while b"15 of 1,000 transitions" not in text:
            text += os.read(ours, 4096)
        watcher.send_signal(signal.SIGINT)
        while True:
            try:
                if not (more := os.read(ours, 4096)):
                    break
            except OSError:  # the other end is closed
                break
            text += more
        assert watcher.wait(timeout=60) == 0
        assert watcher.stderr is not None
        assert watcher.stderr.read() == b""
        watcher.stderr.close()
        os.close(ours)
    frames = text.decode().split("\x1b[0J")[1:]
    assert len(frames) >= 4
    lines = [click.unstyle(line) for line in frames[1].splitlines()]
    assert max(map(len, lines)) < 60
    for before in frames[:2]:  # the cursor goes up to where the lines begin
        height = before.count("\n")
        assert height > 5
        assert before.endswith(f"\r\x1b[{height}A")
    assert "10 of 1,000 transitions" in frames[0]
    assert "pushes/s" in frames[1]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "x"])
def test_watch_needs_a_time(seconds: str, store: Path) -> None:
    assert refused("inspect", store, f"--watch={seconds}", status=2)


def test_watch_may_stand_before_the_path(store: Path) -> None:
    watcher = subprocess.Popen(
        [*COMMAND, "inspect", "--watch", store], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert watcher.stdout is not None
    assert b"size 350" in watcher.stdout.readline()
    watcher.send_signal(signal.SIGINT)
    assert watcher.communicate(timeout=60)[1] == b""
    assert watcher.returncode == 0


def test_watching_in_the_background_ends_when_it_is_told_to(store: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup` and scripts do
    watcher = watching(store, "0.1")
    assert watcher.stdout is not None
    assert "size 350" in watcher.stdout.readline()
    watcher.send_signal(signal.SIGINT)
    assert "size 350" in watcher.stdout.readline()
    watcher.terminate()
    assert watcher.communicate(timeout=60)[1] == ""
    assert watcher.returncode == -signal.SIGTERM

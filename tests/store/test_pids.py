"""Pids that come again: a container's first process is always pid 1."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from common import columns
from inside import store_of
from talking import Talking

import diskreplay
from diskreplay import ReplayBuffer

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def can_unshare() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not can_unshare(), reason="pid namespaces need root"
)


def in_namespace(code: str, *arguments: object) -> Talking:
    """Run code as the first process of a pid namespace."""
    return Talking(code, *arguments, within=NAMESPACE)


def result(code: str, *arguments: object) -> str:
    process = in_namespace(code, *arguments)
    out = process.end()
    assert process.returncode == 0, out
    return out.strip()


HOLD = """
import os, sys, diskreplay
from inside import store_of
buffer = diskreplay.ReplayBuffer(2000, path=sys.argv[1], access="shared", commit_interval=1e9)
with store_of(buffer).snapshot() as snapshot:
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    assert snapshot.meta("state")["count"] == 0
    print(store_of(buffer)._env.readers(), flush=True)
"""
OPEN = """
import os, sys, diskreplay
from inside import store_of
buffer = diskreplay.{call}
len(buffer)
slots = [line.split() for line in store_of(buffer)._env.readers().splitlines()[1:]]
print(os.getpid(), [number for pid, _, number in slots if pid == "1" and number != "-"])
"""


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Talking]:
    """A process with pid 1 that is reading a store."""
    ReplayBuffer(2000, path=tmp_path / "b").close()
    process = in_namespace(HOLD, tmp_path / "b")
    assert process.hear() == "1"
    yield process
    process.kill()
    process.end()


CALLS = [
    "ReplayBuffer(2000, path=sys.argv[1], access='shared')",
    "open(sys.argv[1], access='shared')",
    "open(sys.argv[1], access='read')",
    "verify(sys.argv[1])",
    "repair(sys.argv[1], sys.argv[1] + '-repaired')",
]


def test_a_second_process_with_the_pid_of_a_live_one_is_refused_by_name(
    first: Talking, tmp_path: Path
) -> None:
    code = """
import sys, diskreplay
for call in sys.argv[2:]:
    try:
        eval("diskreplay." + call)
    except diskreplay.LockedError as error:
        print(error)
"""
    path = tmp_path / "b"
    for line in result(code, path, *CALLS).splitlines():
        assert line.startswith(f"{path} is open in a process that has the same pid, 1, in another")
        assert "--pid=container:NAME" in line
    inspect = "from diskreplay_tools.cli import main; main()"
    said = in_namespace(inspect, "inspect", path).end()
    assert "the same pid, 1, in another pid namespace" in said
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b"]

    with diskreplay.open(path, access="shared") as buffer:  # with another pid it works
        for number in range(0, 2000, 100):
            buffer.extend(**columns(number, 100))
            buffer.flush()
    out = first.end("go on\n")  # its snapshot is what it was
    assert first.returncode == 0, out
    assert " 1 " in out  # and its place among the readers is there


@pytest.mark.parametrize("call", CALLS[:3])
def test_a_process_with_the_pid_of_a_killed_one_has_none_of_its_places(
    call: str, first: Talking, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    with diskreplay.open(path, access="read") as monitor:  # else the last one clears them all
        first.kill()
        first.wait(60)  # before the end of its input, at which it would end by itself
        slots = [line.split()[0] for line in store_of(monitor)._env.readers().splitlines()[1:]]
        assert "1" in slots
        assert result(OPEN.format(call=call), path) == "1 []"


def test_a_child_with_the_pid_of_its_parent_leaves_it_its_locks(tmp_path: Path) -> None:
    code = """
import ctypes, os, sys, diskreplay
from common import columns
from diskreplay.store.openers import openers
assert os.getpid() == 1
buffer = diskreplay.ReplayBuffer(100, path=sys.argv[1])
buffer.extend(**columns(0, 50))
buffer.flush()
batches = buffer.batches(8, prefetch=1)
next(batches)
assert ctypes.CDLL(None, use_errno=True).unshare(0x20000000) == 0  # CLONE_NEWPID
child = os.fork()
if child == 0:
    status = 1
    try:
        assert os.getpid() == 1
        try:
            next(batches)
        except diskreplay.ClosedError:
            pass
        try:
            len(buffer)  # no thread can be started after unshare, which keeps calls from it
        except diskreplay.StorageError as error:
            assert "when this process was forked" in str(error), error
        else:
            raise AssertionError
        buffer.close()
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(child, 0)[1] == 0
batches.close()
assert [opener.access for opener in openers(buffer.path)] == ["exclusive"]
with open(buffer.path / "writer.lock") as lock:
    import fcntl
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        print("held")
buffer.close()
"""
    assert result(code, tmp_path / "b") == "held"

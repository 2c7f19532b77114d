"""Who has a store open: named while alive, forgotten when killed; and reader slots given back."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from common import columns, run_python
from others import Other

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.store.openers import openers


def test_openers_are_known_until_they_close_or_are_killed(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with Other(path) as first, Other(path) as second, Other(path) as third:
        first.open(10, access="shared")
        second.open(10, access="shared")
        third.open(10, access="read")
        found = {opener.pid: opener.access for opener in openers(path)}
        pids = [other.process.pid for other in (first, second, third)]
        assert found == dict(zip(pids, ["shared", "shared", "read"], strict=True))
        with pytest.raises(diskreplay.LockedError) as refused:
            PrioritizedReplayBuffer(10, path=path)
        message = str(refused.value)
        for pid in pids[:2]:
            assert re.search(rf"pid {pid} on \S+, since \d{{4}}-", message)
        assert f"pid {pids[2]} " not in message
        assert "access='shared'" in message
        first.kill()
        second.close()
        assert [opener.pid for opener in openers(path)] == pids[2:]
        PrioritizedReplayBuffer(10, path=path).close()
    assert openers(path) == []
    assert list((path / "openers").iterdir()) == []


def test_a_store_without_its_list_of_openers_still_opens(tmp_path: Path) -> None:
    ReplayBuffer(10, path=tmp_path / "b").close()
    (tmp_path / "b" / "openers").rmdir()
    (tmp_path / "b" / "data.known").unlink()
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 5))
        assert [opener.access for opener in openers(tmp_path / "b")] == ["exclusive"]


def test_an_opener_with_a_time_that_no_calendar_has_is_passed_over(tmp_path: Path) -> None:
    with Other(tmp_path / "b") as other:
        other.open(10, access="exclusive")
        for since in ("1e300", "NaN", "1e17"):
            [entry] = (tmp_path / "b" / "openers").iterdir()
            entry.write_text(f'{{"pid": 1, "host": "h", "since": {since}, "access": "exclusive"}}')
            with pytest.raises(diskreplay.LockedError, match="is held by another process"):
                ReplayBuffer(10, path=tmp_path / "b")
        other.kill()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_that_opens_the_store_again_in_its_own_child_is_told(
    method: str, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(
        f"""
import multiprocessing, sys
import diskreplay

try:
    buffer = diskreplay.ReplayBuffer(10, path=sys.argv[1])
except diskreplay.LockedError as error:
    print(error, flush=True)  # a child of forkserver ends without
    sys.exit()
multiprocessing.set_start_method({method!r})
process = multiprocessing.Process(target=print)
process.start()
process.join()
"""
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path / "b"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "is held by pid" in done.stdout, done
    assert "use access='read'. This process was started by spawn or forkserver and" in done.stdout
    assert "must open the store under if __name__ == '__main__'" in done.stdout


def open_and_tell(path: str, pipe: Any) -> None:
    try:
        diskreplay.open(path)
    except diskreplay.LockedError as error:
        pipe.send(str(error))


def test_a_function_that_opens_the_store_of_its_parent_is_told_of_the_lock_alone(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    with ReplayBuffer(10, path=tmp_path / "b"):
        process = context.Process(target=open_and_tell, args=(str(tmp_path / "b"), there))
        process.start()
        there.close()
        assert here.recv().endswith("use access='read'")
        process.join()


READER = """
import os, signal, sys
import diskreplay
from common import columns
from inside import store_of

def start_reader():
    '''Fork a child that reads the store until it is killed.'''
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        len(buffer)  # opens
        with store_of(buffer).snapshot():
            os.write(tell, b"1")
            signal.pause()
    os.read(told, 1)
    return child

def end(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

"""


def test_slots_of_killed_readers_are_given_back_when_there_are_no_others(tmp_path: Path) -> None:
    code = """
import pytest
import diskreplay.store.environment
for module in (diskreplay.store.engine, diskreplay.store.environment):
    module.MAX_READERS = 4  # the first opener decides
buffer = diskreplay.ReplayBuffer(100, path=sys.argv[1])
buffer.extend(**columns(0, 50))
buffer.flush()
children = [start_reader() for _ in range(4)]
with pytest.raises(diskreplay.StorageError, match="is being read in 4 places at once"):
    buffer.check()
for child in children:
    end(child)
buffer.check()
assert store_of(buffer)._env.readers().count("\\n") <= 2
"""
    run_python(READER + code, tmp_path / "b")


def test_a_pipe_among_the_openers_is_not_waited_for(tmp_path: Path) -> None:
    ReplayBuffer(10, path=tmp_path / "b").close()
    os.mkfifo(tmp_path / "b" / "openers" / "x")
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "b" / "openers" / "y").symlink_to(tmp_path / "victim")
    (tmp_path / "b" / "openers" / "z").write_bytes(b"\xff{")
    with ReplayBuffer(10, path=tmp_path / "b"):
        assert len(openers(tmp_path / "b")) == 1
    assert (tmp_path / "victim").read_text() == "mine"


def test_an_entry_nested_too_deeply_among_the_openers_is_not_taken(tmp_path: Path) -> None:
    ReplayBuffer(10, path=tmp_path / "b").close()
    with (tmp_path / "b" / "openers" / "x").open("w") as entry:
        entry.write("[" * 1000)
        entry.flush()
        fcntl.flock(entry, fcntl.LOCK_EX)
        with ReplayBuffer(10, path=tmp_path / "b"):
            assert len(openers(tmp_path / "b")) == 1


def test_an_opener_that_is_taken_for_dead_registers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ReplayBuffer(10, path=tmp_path / "b").close()
    lock, calls = fcntl.flock, []

    def looked_at_first(file: Any, kind: int) -> None:
        if kind == fcntl.LOCK_EX and not calls:  # the entry is there, and not locked yet
            calls.append(kind)
            assert openers(tmp_path / "b") == []
        lock(file, kind)

    monkeypatch.setattr(fcntl, "flock", looked_at_first)
    with ReplayBuffer(10, path=tmp_path / "b"):
        assert calls
        assert [opener.pid for opener in openers(tmp_path / "b")] == [os.getpid()]


def test_a_forked_child_leaves_the_entry_of_its_parent(tmp_path: Path) -> None:
    code = """
        import os, sys, diskreplay
        from diskreplay.store.openers import openers
        buffer = diskreplay.ReplayBuffer(10, path=sys.argv[1])
        if os.fork() == 0:
            buffer.close()
            os._exit(0)
        assert os.wait()[1] == 0
        assert [opener.pid for opener in openers(buffer.path)] == [os.getpid()]
    """
    run_python(code, tmp_path / "b")


def test_a_killed_reader_does_not_keep_pages(tmp_path: Path) -> None:
    code = """
buffer = diskreplay.ReplayBuffer(2000, path=sys.argv[1], commit_interval=1e9)
buffer.extend(**columns(0, 4000))
buffer.flush()
end(start_reader())
sizes = []
for lap in range(30):
    for _ in range(10):
        buffer.extend(**columns(buffer.count, 200))
        buffer.flush()
    sizes.append(buffer.stats()["disk_bytes"])
assert sizes[-1] == sizes[2], sizes
"""
    run_python(READER + code, tmp_path / "b")


def test_who_has_a_store_open_is_not_told_wrong_where_descriptors_are_used_up(
    tmp_path: Path,
) -> None:
    code = """
        import os, resource, sys
        import diskreplay

        buffer = diskreplay.ReplayBuffer(10, path=sys.argv[1])
        assert [opener["pid"] for opener in buffer.stats()["openers"]] == [os.getpid()]
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        files = []
        try:
            while True:
                files.append(os.dup(0))
        except OSError:
            pass
        for left in range(4):
            try:
                found = buffer.stats()["openers"]
            except diskreplay.StorageError as error:
                assert "Too many open files" in str(error), error
                assert "ulimit -n" in str(error), error
            else:
                assert left > 2 and len(found) == 1, (left, found)
            os.close(files.pop())
    """
    run_python(code, tmp_path / "b")

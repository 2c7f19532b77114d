"""Who has a store open: named while alive, forgotten when killed; and reader slots given back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from common import columns, run_python
from others import Other

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.locks import openers


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


def test_slots_of_killed_readers_are_given_back_when_there_are_no_others(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        import diskreplay
        import diskreplay.engine
        from common import columns, numbers_of

        diskreplay.engine._MAX_READERS = 4  # whoever opens first decides
        buffer = diskreplay.ReplayBuffer(100, path=sys.argv[1])
        buffer.extend(**columns(0, 50))
        buffer.flush()
        told, tell = os.pipe()
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                len(buffer)  # opens
                with buffer._store.snapshot():
                    os.write(tell, b"1")
                    signal.pause()
            os.read(told, 1)
            children.append(child)
        try:
            buffer.check()
        except diskreplay.StorageError as error:
            assert "is being read in 4 places at once" in str(error), error
        else:
            raise AssertionError("there was a slot left")
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        buffer.check()
        assert buffer._store._env.readers().count("\\n") <= 2
    """
    run_python(code, tmp_path / "b")

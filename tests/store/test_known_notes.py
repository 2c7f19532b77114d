"""Whether a data file is known: which changes make the next opening check all of its pages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from common import columns, run_python

import diskreplay
from diskreplay import ReplayBuffer
from diskreplay.store import known_note
from diskreplay.store.known_note import is_known


def test_a_store_is_walked_only_when_it_was_changed_by_others(tmp_path: Path) -> None:
    code = """
        import sys, diskreplay, diskreplay.store.trust
        from common import columns
        from inside import store_of
        walk = diskreplay.store.trust.structural_faults
        walks = []
        def counted(data, meta):
            walks.append(data)
            return walk(data, meta)
        diskreplay.store.trust.structural_faults = counted
        access = "read" if sys.argv[2] == "read" else "exclusive"
        buffer = diskreplay.open(sys.argv[1], access=access)
        assert len(buffer) == 1000
        if sys.argv[2] != "read":
            buffer.extend(**columns(1000, 10))
            buffer.flush()
        print(len(walks), flush=True)
        import os
        if sys.argv[2] == "kill":
            os._exit(9)
        if sys.argv[2] == "kill in a commit":
            buffer.extend(**columns(1010, 10))
            with store_of(buffer).transaction():
                os.utime(buffer.path / "data.mdb")  # it has been changed, and more was to come
                os._exit(9)
    """
    with ReplayBuffer(1000, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 1000))

    def walks(path: Path, how: str = "") -> int:
        return int(run_python(code, path, how, check=False).stdout)

    assert walks(tmp_path / "b") == 0
    assert walks(tmp_path / "b", "kill") == 0
    assert walks(tmp_path / "b") == 0
    assert walks(tmp_path / "b", "kill in a commit") == 0
    marked = (tmp_path / "b" / "data.known").read_bytes()
    shutil.copytree(tmp_path / "b", tmp_path / "killed")
    assert walks(tmp_path / "killed") == 1
    assert walks(tmp_path / "b") == 0
    boot = marked.split()[0]
    (tmp_path / "b" / "data.known").write_bytes(marked.replace(boot, boot[::-1]))
    assert walks(tmp_path / "b") == 1  # what a power failure left
    shutil.copytree(tmp_path / "b", tmp_path / "copy")
    assert walks(tmp_path / "copy") == 1
    assert walks(tmp_path / "copy") == 0
    os.utime(tmp_path / "copy" / "data.mdb")
    assert walks(tmp_path / "copy") == 1
    with diskreplay.open(tmp_path / "b") as buffer:
        buffer.save(tmp_path / "saved")
        buffer.extend(**columns(0, 20))
        os.utime(tmp_path / "b" / "data.mdb")
        assert walks(tmp_path / "b", "read") == 1  # company is no reason to trust
    assert walks(tmp_path / "saved") == 0


def test_a_change_by_others_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "b"
    buffer = ReplayBuffer(100, path=path)
    buffer.extend(**columns(0, 50))
    buffer.flush()
    assert is_known(path)
    os.utime(path / "data.mdb")  # somebody was at it
    buffer.extend(**columns(50, 10))
    buffer.close()
    assert not is_known(path)
    ReplayBuffer(100, path=path).close()  # walked
    assert is_known(path)


def test_with_durability_process_a_file_is_known_until_the_machine_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for durability, lasts in (("process", False), ("system", True), ("full", True)):
        path = tmp_path / durability
        with ReplayBuffer(100, path=path, durability=durability) as buffer:
            buffer.extend(**columns(0, 50))
        assert is_known(path)
        with monkeypatch.context() as patch:
            patch.setattr(known_note, "_boot", lambda: b"another")
            assert is_known(path) is lasts

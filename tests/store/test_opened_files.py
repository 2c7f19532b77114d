"""Files of an open store that are removed, replaced, cut or put back: nothing is lost unnoticed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from common import columns, run_python
from inside import store_of
from others import Other

import diskreplay
from diskreplay import PrioritizedReplayBuffer
from diskreplay.store import opened_files
from diskreplay.store.store import Store

NAMES = ["data.mdb", "lock.mdb", "openers.lock", "writer.lock", "diskreplay.json"]


def numbers(buffer: Any) -> list[int]:
    return [int(e.reward * 8) for e in buffer]


def removed(file: Path) -> None:
    file.unlink()


def replaced(file: Path) -> None:
    """Put a copy in its place, as a backup does that is restored."""
    shutil.copy2(file, file.with_name("copy"))
    file.with_name("copy").rename(file)


def told(message: str) -> Any:
    """Expect a StorageError of another process."""
    return pytest.raises(RuntimeError, match=f"StorageError: .*{message}")


@pytest.mark.parametrize("how", [removed, replaced])
@pytest.mark.parametrize("name", NAMES)
def test_a_writer_is_told_at_its_next_commit(
    name: str, how: Callable[[Path], None], tmp_path: Path
) -> None:
    buffer = PrioritizedReplayBuffer(100, path=tmp_path / "b", commit_interval=1e9)
    buffer.extend(**columns(0, 20))
    buffer.flush()
    buffer.extend(**columns(20, 5))
    (tmp_path / "b" / name).rename(tmp_path / "kept")
    shutil.copy2(tmp_path / "kept", tmp_path / "b" / name)
    how(tmp_path / "b" / name)
    for call in (buffer.flush, lambda: buffer.extend(**columns(0, 200_000)), buffer.clear):
        with pytest.raises(diskreplay.StorageError, match=rf"{name} .* was it removed .* save\("):
            call()
    assert len(buffer) == 25
    buffer.save(tmp_path / "saved")
    with diskreplay.open(tmp_path / "saved") as saved:
        assert numbers(saved) == list(range(25))
    (tmp_path / "kept").rename(tmp_path / "b" / name)
    buffer.extend(**columns(25, 5))
    buffer.close()  # it was put back
    with diskreplay.open(tmp_path / "b") as buffer:
        assert numbers(buffer) == list(range(30))
    assert diskreplay.verify(tmp_path / "b") == []


@pytest.mark.parametrize("name", NAMES)
def test_the_first_commit_of_an_opening_looks_too(name: str, tmp_path: Path) -> None:
    PrioritizedReplayBuffer(100, path=tmp_path / "b").close()
    store = Store(tmp_path / "b", access="exclusive")
    removed(tmp_path / "b" / name)
    with (
        pytest.raises(diskreplay.StorageError, match=f"{name} .* was it removed"),
        store.transaction(),
    ):
        pytest.fail("something is committed where nobody finds it")
    store.close()


@pytest.mark.parametrize("how", [removed, replaced])
@pytest.mark.parametrize("name", sorted({*NAMES} - {"writer.lock"}))
def test_a_reader_is_told_at_its_next_look(
    name: str, how: Callable[[Path], None], tmp_path: Path
) -> None:
    with PrioritizedReplayBuffer(100, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 20))
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        shutil.copytree(tmp_path / "b", tmp_path / "kept")
        assert len(reader) == 20
        how(tmp_path / "b" / name)
        for call in (lambda: len(reader), lambda: reader.sample(5), lambda: reader.get([1])):
            with pytest.raises(diskreplay.StorageError, match=f"{name} .* was it removed"):
                call()


def test_damage_that_is_read_while_a_file_is_replaced_is_none(tmp_path: Path) -> None:
    PrioritizedReplayBuffer(100, path=tmp_path / "b").close()
    with diskreplay.open(tmp_path / "b", access="read") as reader:

        def read_damage(meanwhile: Callable[[], None]) -> None:
            with store_of(reader).snapshot():
                meanwhile()
                raise diskreplay.DamageError("a record is damaged")

        with pytest.raises(diskreplay.DamageError, match="a record is damaged"):
            read_damage(lambda: None)
        with pytest.raises(diskreplay.StorageError, match="mdb is another file now"):
            read_damage(lambda: replaced(tmp_path / "b" / "data.mdb"))


def test_a_directory_that_was_quiet_for_long_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PrioritizedReplayBuffer(100, path=tmp_path / "b").close()
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        files = store_of(reader)._files
        monkeypatch.setattr(opened_files, "_CLOCK_NS", 10**18)
        len(reader)
        assert files._unchanged is None  # it could change again, and bear the same time
        monkeypatch.setattr(opened_files, "_CLOCK_NS", 50_000_000)
        while files._unchanged is None:  # until its time is one that cannot come again
            len(reader)
        replaced(tmp_path / "b" / "diskreplay.json")
        with pytest.raises(diskreplay.StorageError, match="json is another file now"):
            len(reader)


@pytest.mark.parametrize("access", ["exclusive", "shared", "read"])
@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
def test_a_file_that_is_cut_in_place_ends_no_process(
    name: str, access: str, tmp_path: Path
) -> None:
    code = """
        import os, pytest, sys, diskreplay
        from common import columns
        path, access, size = sys.argv[1] + "/b", sys.argv[3], int(sys.argv[4])
        buffer = diskreplay.PrioritizedReplayBuffer(1000, path=path)
        buffer.extend(**columns(0, 1000))
        buffer.close()
        buffer = diskreplay.open(path, access=access, window_bytes=0, commit_interval=1e9)
        buffer.sample(5)
        if access != "read":
            buffer.update_priorities([3], [7.0])
        os.truncate(path + "/" + sys.argv[2], size)
        calls = [lambda: buffer.sample(64), lambda: buffer.get(range(100)), lambda: list(buffer)]
        calls += [buffer.check, lambda: buffer.save(sys.argv[1] + "/saved")]
        if access != "read":
            calls += [buffer.flush, buffer.clear, buffer.close]
        for call in calls:
            message = f"{sys.argv[2]} was cut: it has {size} bytes"
            with pytest.raises(diskreplay.StorageError, match=message):
                call()
        assert os.listdir(sys.argv[1]) == ["b"]
        guard = buffer._guard
        guard.close_at_last() if access == "read" else guard._close_store(sync=False)
    """
    for size in (4096, 0):
        run_python(code, tmp_path, name, access, str(size))
        if name == "lock.mdb":
            with diskreplay.open(tmp_path / "b") as buffer:
                assert numbers(buffer) == list(range(1000))
            assert diskreplay.verify(tmp_path / "b") == []
        shutil.rmtree(tmp_path / "b")


def test_nobody_makes_a_second_lock_file_beside_those_who_have_the_first(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with PrioritizedReplayBuffer(100, path=path) as buffer:
        buffer.extend(**columns(0, 20))
    with Other(path) as other:
        other.open(100, access="shared")
        (path / "lock.mdb").unlink()
        message = rf"lock.mdb was removed while .* by pid {other.process.pid} on .*: close it there"
        for access in ("shared", "read"):
            with pytest.raises(diskreplay.StorageError, match=message):
                diskreplay.open(path, access=access)
        with pytest.raises(diskreplay.StorageError, match=message):
            diskreplay.verify(path)
        with pytest.raises(RuntimeError, match=r"lock.mdb cannot be reached"):
            other.size()
        other.kill()
    with diskreplay.open(path) as buffer:
        assert len(buffer) == 20


def test_two_worlds_of_writers_overwrite_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "b"
    PrioritizedReplayBuffer(1000, path=path).close()
    with Other(path) as first, Other(path) as second, Other(path) as reader:
        first.open(1000, access="shared")
        reader.open(1000, access="read", window_bytes=0)
        first.extend(0, 50)
        first.flush()
        assert reader.size() == 50
        (path / "lock.mdb").rename(tmp_path / "lock.mdb")  # a backup of its files puts
        shutil.copy2(tmp_path / "lock.mdb", path / "lock.mdb")  # another one there
        second.open(1000, access="shared")
        for lap in range(1, 5):
            second.extend(lap * 50, 50)
            second.flush()
        with told("lock.mdb is another file now"):
            reader.size()
        (tmp_path / "lock.mdb").rename(path / "lock.mdb")  # and takes it back
        first.extend(900, 50)
        with told("lock.mdb is not the one that oth"):
            first.flush()
        with told("lock.mdb is not the one that oth"):
            reader.size()
        second.extend(900, 50)
        with told("lock.mdb is another file now"):
            second.close()
        for other in (first, second, reader):
            other.kill()
    with diskreplay.open(path) as buffer:
        assert numbers(buffer) == list(range(250))
    assert diskreplay.verify(path) == []


def test_an_older_file_that_is_copied_over_it_is_told_by_all(tmp_path: Path) -> None:
    path = tmp_path / "b"
    PrioritizedReplayBuffer(1000, path=path).close()
    with Other(path) as writer, Other(path) as reader:
        writer.open(1000, access="shared")
        writer.extend(0, 50)
        writer.flush()
        older = (path / "data.mdb").read_bytes()
        reader.open(1000, access="read")
        for lap in range(1, 4):
            writer.extend(lap * 50, 50)
            writer.flush()
        assert reader.size() == 200
        with (path / "data.mdb").open("r+b") as file:
            file.write(older)
        with told("data.mdb is not the one that oth"):
            reader.size()
        writer.extend(0, 5)
        with told("lock.mdb is not the one that oth"):
            writer.flush()


def test_counts_cannot_go_back(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with PrioritizedReplayBuffer(100, path=path) as buffer:
        buffer.extend(**columns(0, 20))
    with Other(path) as reader:
        reader.open(100, access="read")
        assert reader.size() == 20
        store = Store(path, access="exclusive")
        for name in ("commits", "count"):
            with store.transaction() as txn:
                state = txn.meta("state")
                txn.put_meta({"state": {**state, name: state[name] - 1}})
            with told("there were 20 in .* again"):
                reader.size()
            with store.transaction() as txn:
                txn.put_meta({"state": state})
        store.close()
        assert reader.size() == 20


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_reader_below_an_overlay_is_told_when_the_file_is_copied_up(tmp_path: Path) -> None:
    for name in ("image", "upper", "work", "container"):
        (tmp_path / name).mkdir()
    with PrioritizedReplayBuffer(1000, path=tmp_path / "image" / "b") as buffer:
        buffer.extend(**columns(0, 500))
    places = ",".join(f"{name}dir={tmp_path / name}" for name in ("upper", "work"))
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={tmp_path / 'image'},{places}"]
        + [str(tmp_path / "container")],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("an overlay cannot be mounted here")
    path = tmp_path / "container" / "b"
    code = """
        import sys, diskreplay
        from common import columns
        with diskreplay.open(sys.argv[1]) as buffer:
            buffer.extend(**columns(500, 100))
    """
    try:
        with diskreplay.open(path, access="read") as reader:
            assert len(reader) == 500
            for _ in range(3):
                run_python(code, path)
                with pytest.raises(diskreplay.StorageError, match=r"data.mdb is .*Open the store"):
                    len(reader)
        with diskreplay.open(path, access="read") as reader:
            assert len(reader) == 800
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "container")], check=True)

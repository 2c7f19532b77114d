"""compact and resize: what they refuse, and whom they keep out."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from common import columns, contents, run_python
from others import Other
from stores import told

import diskreplay
from diskreplay import ReplayBuffer
from diskreplay.store.creation import exchange
from diskreplay.store.known_note import is_known
from diskreplay.store.locks import StoreLocks


@pytest.mark.parametrize("access", ["exclusive", "shared", "read"])
def test_who_has_it_open_is_named(access: str, tmp_path: Path, other: Other) -> None:
    path = stores.prioritized(tmp_path / "b")
    before = told(path)
    other.open(1100, access=access)
    with pytest.raises(diskreplay.LockedError, match=f"held by pid {other.process.pid} .*alone"):
        diskreplay.compact(path)
    reader = diskreplay.open(path, access="read")
    with pytest.raises(diskreplay.LockedError, match="open in this process"):
        diskreplay.resize(path, 10)
    reader.close()
    other.close()
    assert told(path) == before


def test_nobody_opens_it_meanwhile(tmp_path: Path, other: Other) -> None:
    path = stores.prioritized(tmp_path / "b")
    refusals = []

    def look(_: int, __: int) -> None:
        for access in ("read", "exclusive", "shared"):
            with pytest.raises(RuntimeError) as refused:
                other.open(1100, access=access)
            refusals.append(str(refused.value))

    diskreplay.compact(path, progress=look)
    assert refusals
    for said in refusals:
        assert said.startswith("LockedError")
        assert f"made anew by pid {os.getpid()}" in said
    assert other.open(1100, access="read") == 350


def test_a_damaged_record_is_not_copied(tmp_path: Path) -> None:
    path = stores.large(tmp_path / "s")
    raw = bytearray((path / "data.mdb").read_bytes())
    at = raw.find(np.arange(15_000, 15_100).tobytes())
    raw[at] ^= 1
    (path / "data.mdb").write_bytes(raw)
    before = contents(path)
    with pytest.raises(diskreplay.DamageError, match=r"write id 10 .*nothing was changed"):
        diskreplay.compact(path)
    assert contents(path) == before


def test_a_capacity_must_be_one(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    for wrong in (0, -1, 1.5, "many"):
        with pytest.raises(diskreplay.ArgumentError, match="capacity"):
            diskreplay.resize(path, wrong)  # type: ignore[arg-type]
    with pytest.raises(diskreplay.NotAStoreError):
        diskreplay.compact(tmp_path / "none")


def test_a_capacity_whose_priorities_do_not_fit_memory(tmp_path: Path) -> None:
    path = stores.prioritized(tmp_path / "s")
    before = told(path)
    with pytest.raises(diskreplay.ArgumentError, match="for its priorities, 20 bytes a slot"):
        diskreplay.resize(path, 2**39)
    assert told(path) == before
    uniform = stores.uniform(tmp_path / "u")
    with pytest.raises(diskreplay.ArgumentError, match="for its links, 4 bytes a slot"):
        diskreplay.resize(uniform, 2**39)
    diskreplay.resize(uniform, 2**30)
    with pytest.warns(diskreplay.DiskSpaceWarning), diskreplay.open(tmp_path / "u") as buffer:
        assert len(buffer) == 300


def test_a_disk_with_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    with ReplayBuffer(20_000, path=path) as buffer:
        buffer.extend(**columns(0, 30_000))
    before, size = contents(path), (path / "data.mdb").stat().st_size
    usage = shutil.disk_usage(path)._replace(free=size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        diskreplay.StorageError, match=r"as it was: .* needs .* for its data file .*save\(\)"
    ):
        diskreplay.compact(path)
    assert contents(path) == before
    usage = usage._replace(free=size + (1 << 20))
    assert diskreplay.resize(path, 10**9).size == 20_000  # what is there counts, not the capacity


def test_owners_and_modes_stay(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    (path / "data.mdb").chmod(0o640)
    (path / "lock.mdb").chmod(0o666)
    if os.geteuid() == 0:
        os.chown(path / "data.mdb", 1234, 2345)
        os.chown(path / "lock.mdb", 1235, 2346)

    def look() -> list[tuple[int, int, int]]:
        found = [(path / name).stat() for name in ("data.mdb", "lock.mdb")]
        return [(one.st_mode, one.st_uid, one.st_gid) for one in found]

    before = look()
    diskreplay.compact(path)
    assert look() == before
    assert is_known(path)  # or the next opening would walk over all pages


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_the_store_of_another_user_is_refused(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    for place in (path, *path.rglob("*")):
        place.chmod(0o777)
    for place in path.parents:
        if place.stat().st_uid == 0 and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o055)
    before = told(path)
    code = """
        import os, sys
        import diskreplay
        # What is imported late may be where another user may not look.
        diskreplay.compact(sys.argv[1])
        os.setuid(65534)
        try:
            diskreplay.compact(sys.argv[1])
        except diskreplay.StorageError as error:
            print(error)
    """
    assert "belongs to user 0" in run_python(code, path).stdout
    assert told(path) == before


def test_the_new_file_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stores.uniform(tmp_path / "s")
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        done.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def noted_rename(old: Any, new: Any, **inside: int) -> None:
        at = os.readlink(f"/proc/self/fd/{inside['dst_dir_fd']}") if inside else Path(new).parent
        done.append(f"rename to {Path(at).name}/{Path(new).name}")
        rename(old, new, **inside)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    diskreplay.compact(path)
    at = done.index("rename to s/data.mdb")
    assert done[at - 1] == "sync data.mdb"
    assert "sync s" in done[at:]


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_store(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    children = []

    def fork(_: int, __: int) -> None:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)

    diskreplay.compact(path, progress=fork)
    try:
        diskreplay.open(path).close()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert children


def test_an_interrupted_opening_does_not_hold_the_store(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    StoreLocks(path, "alone")  # nobody has it, as when an interrupt comes before it is assigned
    diskreplay.open(path).close()
    hold = StoreLocks(path, "read")
    with pytest.raises(diskreplay.LockedError):
        StoreLocks(path, "read")
    with pytest.raises(diskreplay.LockedError):  # which the one before did not give back
        StoreLocks(path, "read")
    hold.release()


def test_a_store_that_is_replaced_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = stores.uniform(tmp_path / "s"), stores.uniform(tmp_path / "t")
    flock = fcntl.flock

    def slow(*arguments: Any) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        exchange(other, path)
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", slow)
    with pytest.raises(diskreplay.LockedError, match="replaced by another store meanwhile"):
        diskreplay.open(path)
    diskreplay.open(path).close()

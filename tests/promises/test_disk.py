"""A disk that refuses: full, read-only, forbidden, a limit, or not there any more."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from common import columns, row, run_python
from refused import small_file_system

import diskreplay
from diskreplay import ReplayBuffer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_file_system(tmp_path / "disk", "2m") as place:
        yield place


FILL = """
import os, resource, signal, sys, warnings
import diskreplay
from common import columns
from inside import replica_of

warnings.simplefilter("ignore", diskreplay.DiskSpaceWarning)  # that it will not do is the point

def fill(buffer, access):
    first = 0
    try:
        while True:
            buffer.extend(**columns(first, 100))
            first += 100
            buffer.flush()
    except diskreplay.StorageError as error:
        print(error)
        assert "the disk refused" in str(error) and "call again" in str(error)
    committed = len(buffer) if access == "shared" else replica_of(buffer).committed
    assert 0 < committed < first, (committed, first)
    for call in (buffer.flush, lambda: buffer.extend(**columns(first, 60_000))):
        try:
            call()
        except diskreplay.StorageError:
            continue
        raise AssertionError("it was not refused")
    assert buffer.sample(10) is not None
    return committed, first

def goes_on(buffer, first):
    buffer.flush()
    for number in range(first, first + 1000, 100):
        buffer.extend(**columns(number, 100))
    buffer.close()
    with diskreplay.open(sys.argv[1]) as buffer:
        numbers = [int(e.reward * 8) for e in buffer]
        assert numbers == list(range(first + 1000)), (len(numbers), first)
        buffer.check()
"""


@needs_root
@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_a_full_disk_loses_nothing_and_writing_goes_on(access: str, small_disk: Path) -> None:
    code = """
buffer = diskreplay.PrioritizedReplayBuffer(
    1_000_000, path=sys.argv[1], commit_interval=1e9, access=sys.argv[3])
with open(sys.argv[2], "wb") as ballast:
    ballast.write(bytes(1 << 20))
committed, first = fill(buffer, sys.argv[3])
if os.fork() == 0:  # what another process finds meanwhile
    assert [int(e.reward * 8) for e in buffer] == list(range(committed))
    buffer.check()
    os._exit(0)
assert os.wait()[1] == 0
os.unlink(sys.argv[2])
goes_on(buffer, first)
"""
    result = run_python(FILL + code, small_disk / "b", small_disk / "ballast", access)
    assert "Input/output error" in result.stdout or "No space left" in result.stdout
    assert "make room, and call again" in result.stdout


def test_a_limit_of_the_size_of_files_loses_nothing(tmp_path: Path) -> None:
    code = """
buffer = diskreplay.PrioritizedReplayBuffer(1_000_000, path=sys.argv[1], commit_interval=1e9)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
committed, first = fill(buffer, "exclusive")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
goes_on(buffer, first)
"""
    # The second where a part of the commit was written up to the limit.
    told = run_python(FILL + code, tmp_path / "b").stdout
    assert re.search("File too large|Input/output error", told)


@needs_root
def test_no_store_is_left_where_none_could_be_made(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes((2 << 20) - 4096))
    with pytest.raises(diskreplay.StorageError):
        ReplayBuffer(100, path=small_disk / "b")
    assert [p.name for p in small_disk.iterdir()] == ["ballast"]


@needs_root
def test_a_read_only_file_system_can_be_read(small_disk: Path) -> None:
    with ReplayBuffer(100, path=small_disk / "b") as buffer:
        buffer.extend(**columns(0, 50))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with diskreplay.open(small_disk / "b", access="read") as reader:
        assert [int(e.reward * 8) for e in reader] == list(range(50))
        reader.sample(20)
        reader.check()
    for access in ("exclusive", "shared"):
        with pytest.raises(diskreplay.StorageError, match=r"Read-only file system.*access='read'"):
            diskreplay.open(small_disk / "b", access=access)
    with pytest.raises(diskreplay.StorageError, match="Read-only file system"):
        ReplayBuffer(100, path=small_disk / "c")


@needs_root
def test_what_may_not_be_written_or_read_is_refused_by_name(tmp_path: Path) -> None:
    with ReplayBuffer(100, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 50))
    shutil.copytree(tmp_path / "b", tmp_path / "hidden")
    (tmp_path / "hidden" / "data.mdb").chmod(0o600)
    for place in (tmp_path, *tmp_path.parents):
        if place.stat().st_uid == 0 and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o055)
    code = """
        import os, sys, diskreplay
        diskreplay.ReplayBuffer(10).close()  # imports all that may not be found later
        os.setgid(65534); os.setuid(65534)
        for asked in ("b exclusive", "b shared", "b read", "hidden read"):
            path, access = asked.split()
            try:
                diskreplay.open(f"{sys.argv[1]}/{path}", access=access)
            except diskreplay.StorageError as error:
                assert "Permission denied" in str(error), error
            else:
                raise AssertionError(asked)
        try:
            diskreplay.ReplayBuffer(10, path=f"{sys.argv[1]}/new")
        except diskreplay.StorageError as error:
            assert "cannot make a store" in str(error), error
    """
    run_python(code, tmp_path)
    with diskreplay.open(tmp_path / "b") as buffer:
        buffer.check()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_directory_that_goes_while_it_is_open_is_noticed(how: str, tmp_path: Path) -> None:
    buffer = ReplayBuffer(100, path=tmp_path / "b", commit_interval=1e9, seed=0)
    buffer.extend(**columns(0, 20))
    buffer.flush()
    buffer.extend(**columns(20, 5))
    shutil.rmtree(tmp_path / "b")
    if how == "replaced":
        run_python(
            "import sys, diskreplay; diskreplay.ReplayBuffer(100, path=sys.argv[1])", tmp_path / "b"
        )
    with pytest.raises(diskreplay.StorageError, match=r"was it removed while .* save\(\) writes"):
        buffer.flush()
    with pytest.raises(diskreplay.StorageError, match="was it removed"):
        buffer.extend(**columns(0, 200_000))
    assert len(buffer) == 25
    buffer.sample(10)
    buffer.save(tmp_path / "saved")
    with diskreplay.open(tmp_path / "saved") as saved:
        assert [int(e.reward * 8) for e in saved] == list(range(25))
    if how == "replaced":
        assert len(diskreplay.open(tmp_path / "b")) == 0
    buffer.push(**row(25))
    with pytest.raises(diskreplay.StorageError, match="was it removed"):
        buffer.close()
    buffer._guard._close_store(sync=False)


def test_a_reader_notices_that_its_store_is_gone(tmp_path: Path) -> None:
    ReplayBuffer(100, path=tmp_path / "b").close()
    reader = diskreplay.open(tmp_path / "b", access="read")
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(diskreplay.StorageError, match="was it removed"):
        len(reader)
    reader.close()

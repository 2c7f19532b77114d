"""File modes: the umask decides, a directory keeps what its owner gave it, temporary is private."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from common import columns, run_python
from users import let_others_in, needs_root

import diskreplay
from diskreplay import ReplayBuffer


@pytest.fixture(params=[0o022, 0o002, 0o007, 0o077], ids=lambda mask: f"{mask:04o}")
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(path: Path) -> dict[str, int]:
    """Return the modes of a store's directory and of what is in it, but of its note."""
    found = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.iterdir()}
    assert found.pop("data.known") & 0o133 == 0
    return {"": stat.S_IMODE(path.stat().st_mode), **found}


def test_the_umask_decides_on_the_modes_of_all_that_is_made(mask: int, tmp_path: Path) -> None:
    with ReplayBuffer(100, path=tmp_path / "made") as buffer:
        buffer.extend(**columns(0, 50))
        buffer.save(tmp_path / "saved")
    diskreplay.repair(tmp_path / "made", tmp_path / "repaired")
    diskreplay.merge([tmp_path / "made", tmp_path / "saved"], tmp_path / "merged")
    expected = {
        **dict.fromkeys(
            ("data.mdb", "lock.mdb", "diskreplay.json", "writer.lock", "openers.lock"),
            0o666 & ~mask,
        ),
        **dict.fromkeys(("", "openers"), 0o777 & ~mask),
    }
    for name in ("made", "saved", "repaired", "merged"):
        assert modes(tmp_path / name) == expected
    diskreplay.compact(tmp_path / "made")
    diskreplay.resize(tmp_path / "saved", 60)
    for name in ("made", "saved"):
        assert modes(tmp_path / name) == expected


def test_a_data_file_that_is_made_anew_keeps_its_mode(tmp_path: Path) -> None:
    ReplayBuffer(100, path=tmp_path / "b").close()
    for name in ("data.mdb", "lock.mdb"):
        (tmp_path / "b" / name).chmod(0o640)
    diskreplay.compact(tmp_path / "b")
    for name in ("data.mdb", "lock.mdb"):
        assert stat.S_IMODE((tmp_path / "b" / name).stat().st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o700, 0o2770, 0o755])
def test_a_store_in_an_empty_directory_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b").chmod(mode)
    ReplayBuffer(100, path=tmp_path / "b").close()
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == mode


def test_a_temporary_buffer_can_be_read_by_its_user_only(mask: int) -> None:
    with ReplayBuffer(100) as buffer:
        buffer.extend(**columns(0, 50))
        buffer.flush()
        assert stat.S_IMODE(buffer.path.stat().st_mode) == 0o700


def test_the_umask_is_never_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(mask: int) -> int:
        raise AssertionError("files of other threads would be made with it")

    monkeypatch.setattr(os, "umask", refused)
    with ReplayBuffer(3, path=tmp_path / "b") as buffer:
        buffer.save(tmp_path / "saved")
    diskreplay.compact(tmp_path / "b")
    ReplayBuffer(3).close()


@needs_root
@pytest.mark.parametrize(
    ("name", "mode", "access", "message"),
    [
        ("data.mdb", 0o644, "shared", "may not write to data.mdb: Permission denied"),
        ("data.mdb", 0o600, "read", "data.mdb: Permission denied"),
        ("lock.mdb", 0o644, "read", "may not write to lock.mdb, which readers, too, have to: Perm"),
    ],
)
def test_what_another_user_may_not_do_is_said_of_the_right_file(
    name: str, mode: int, access: str, message: str, tmp_path: Path
) -> None:
    with ReplayBuffer(100, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 50))
    for file in (tmp_path / "b").iterdir():
        file.chmod(file.stat().st_mode | 0o066)
    (tmp_path / "b" / name).chmod(mode)
    let_others_in(tmp_path)
    code = """
        import os, sys, diskreplay
        from users import NOBODY
        diskreplay.ReplayBuffer(10).close()  # imports all that may not be found later
        os.setgid(NOBODY), os.setuid(NOBODY)
        try:
            diskreplay.open(sys.argv[1], access=sys.argv[2]).close()
        except diskreplay.StorageError as error:
            print(error)
    """
    said = run_python(code, tmp_path / "b", access).stdout
    assert message in said
    assert ("lock.mdb" in said) == (name == "lock.mdb")

"""What strangers may name or store never reaches a terminal raw: no escape, no broken line."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
from changed_values import fact, put_fact
from click.testing import CliRunner
from common import columns
from diskreplay_tools.cli import main

import diskreplay
from diskreplay import DiskReplayError, ReplayBuffer

TITLE = "\x1b]0;gone\x07"
ODD_NAMES = ["two\nlines", TITLE, os.fsdecode(b"\xff\xfe"), "right\u202eto left", "\x9b2J"]
ERRORS = [
    found
    for found in vars(diskreplay).values()
    if isinstance(found, type) and issubclass(found, DiskReplayError)
]


@pytest.mark.parametrize("error", ERRORS)
def test_the_text_of_an_error_is_printable(error: type[DiskReplayError]) -> None:
    found = error("a " + TITLE + os.fsdecode(b"\xff"))
    assert str(found) == r"a \x1b]0;gone\x07\udcff"
    assert found.args == (str(found),)


def test_the_kind_of_a_store_from_a_stranger_is_printable(tmp_path: Path) -> None:
    ReplayBuffer(10, path=tmp_path / "b").close()
    put_fact(tmp_path / "b", "identity", {**fact(tmp_path / "b", "identity"), "kind": TITLE})
    for call in (
        lambda: diskreplay.open(tmp_path / "b"),
        lambda: ReplayBuffer(10, path=tmp_path / "b"),
    ):
        with pytest.raises(DiskReplayError) as found:
            call()
        assert str(found.value).isprintable()
    faults = diskreplay.verify(tmp_path / "b")
    assert faults
    assert all(fault.isprintable() for fault in faults)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_store_of_an_odd_name_works_and_its_errors_are_printable(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name / "store"
    with ReplayBuffer(50, path=path) as buffer:
        buffer.extend(**columns(0, 20))
        buffer.stats()
        assert repr(buffer).isprintable()
        buffer.save(tmp_path / name / "saved")
        with pytest.raises(diskreplay.SampleError) as found:
            buffer.sample(30)
        assert str(found.value).isprintable()
    assert diskreplay.verify(path) == []
    diskreplay.compact(path)
    with pytest.raises(diskreplay.MismatchError) as mismatch:
        ReplayBuffer(60, path=path)
    assert str(mismatch.value).isprintable()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", diskreplay.EpisodeWarning)
        with ReplayBuffer(2**30, path=tmp_path / name / "large") as buffer:
            buffer.extend(**columns(0, 2))
    assert [str(one.message).isprintable() for one in told] == [True]
    (path / "data.mdb").write_bytes(b"no")
    faults = [str(fault) for fault in diskreplay.verify(path)]
    assert all(fault.isprintable() for fault in faults)


COMMANDS = [
    "inspect STORE", "inspect STORE --json", "inspect STORE --at 3", "schema STORE", "verify STORE",
    "verify STORE --json", "copy STORE OUT/copy", "repair STORE OUT/repaired",
    "merge STORE OUT/copy OUT/merged", "export STORE OUT/x.npz", "export STORE OUT/x.jsonl",
    "import OUT/x.npz OUT/imported", "compact STORE", "resize STORE 60", "inspect OUT/none",
    "copy STORE OUT/copy", "export STORE OUT/x.npz", "verify OUT", "import OUT/x.npz STORE",
    "clear STORE --yes", "gone-STORE",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_no_command_sends_the_name_of_a_store_to_the_terminal_raw(
    name: str, tmp_path: Path
) -> None:
    top = tmp_path / name
    with ReplayBuffer(50, path=top / "store") as buffer:
        buffer.extend(**columns(0, 20))
    for command in COMMANDS:
        store, out = str(top / "store"), str(top)
        words = [word.replace("STORE", store).replace("OUT", out) for word in command.split()]
        done = CliRunner().invoke(main, words, terminal_width=200)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        lines = (done.output + done.stderr).split("\n")
        assert all(line.isprintable() for line in lines), (command, lines)

"""What becomes of a store that is there already: gone on with and logged, refused, or replaced."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stores
from common import columns, contents, numbers_of, run_python
from inside import store_of

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


# One line in the log


@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_going_on_is_logged(
    kind: Any, access: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "b"
    for run in range(3):
        with kind(100, path=path, access=access) as buffer:
            buffer.extend(**columns(60 * run, 60))
    with diskreplay.open(path, access=access):
        pass
    with diskreplay.open(path, access="read"):
        pass
    kind(100).close()
    held = ["60 transitions, this is run 1", "100 transitions, this is run 2"]
    held += ["100 transitions, this is run 3"]
    expected = [("diskreplay", logging.INFO, f"{path} holds {what}") for what in held]
    assert caplog.record_tuples == expected


def test_the_log_has_no_control_characters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(2):
        ReplayBuffer(10, path=tmp_path / "a\x1b[2Jb").close()
    [message] = caplog.messages
    assert message.isprintable()
    assert message.endswith("b holds 0 transitions, this is run 0")


def test_nothing_is_printed_unless_a_program_asks_for_it(tmp_path: Path) -> None:
    code = """
        import logging, sys, diskreplay
        for _ in range(2):
            diskreplay.ReplayBuffer(10, path=sys.argv[1]).close()
        assert not logging.getLogger().handlers
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        diskreplay.open(sys.argv[1]).close()
    """
    result = run_python(code, tmp_path / "b")
    said = f"diskreplay: {tmp_path / 'b'} holds 0 transitions, this is run 0\n"
    assert (result.stdout, result.stderr) == ("", said)


# The words


@pytest.mark.parametrize("word", ["resume", "fail", "replace"])
@pytest.mark.parametrize("kind", KINDS)
def test_where_there_is_none_each_makes_one(kind: Any, word: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "new" / "b", tmp_path / "empty", None):
        with kind(100, path=path, if_exists=word) as buffer:
            buffer.extend(**columns(0, 60))
    with diskreplay.open(tmp_path / "empty") as buffer:
        assert len(buffer) == 60


def test_fail_refuses_a_store_and_says_what_to_do(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "b")
    before = contents(path)
    for capacity, kind in ((300, ReplayBuffer), (7, PrioritizedReplayBuffer)):
        with pytest.raises(diskreplay.MismatchError, match=r"holds a store already.*'resume'"):
            kind(capacity, path=path, if_exists="fail")
    assert contents(path) == before
    with ReplayBuffer(300, path=path), pytest.raises(diskreplay.MismatchError, match="'fail'"):
        ReplayBuffer(300, path=path, if_exists="fail")


def test_of_several_that_fail_one_makes_the_store(tmp_path: Path) -> None:
    code = """
import sys, diskreplay
print("ready", flush=True)
for line in sys.stdin:
    path, access = line.split()
    try:
        buffer = diskreplay.ReplayBuffer(10, path=path, access=access, if_exists="fail")
        print("made", flush=True)
    except diskreplay.MismatchError as error:
        print("refused", flush=True)
"""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(3)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
        for lap in range(20):
            for process in processes:
                access = "shared" if lap % 2 else "exclusive"
                process.stdin.write(f"{tmp_path / str(lap)} {access}\n")
                process.stdin.flush()
            said = [process.stdout.readline() for process in processes]
            assert sorted(said) == ["made\n"] + ["refused\n"] * 2
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_replace_makes_an_empty_store_of_any_kind(kind: Any, access: str, tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "b")
    uuid = store_of(diskreplay.open(path, access="read")).identity.uuid
    schema = {"state": ("float64", (2,))}
    with kind(7, path=path, schema=schema, access=access, if_exists="replace") as buffer:
        assert (len(buffer), buffer.count, buffer.capacity) == (0, 0, 7)
        assert buffer.stats()["runs"] == []
        assert store_of(buffer).identity.uuid != uuid
        buffer.push([0.0, 1.0], 0, 0.0, [0.0, 1.0], False)
    assert diskreplay.verify(path) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]
    with diskreplay.open(path) as buffer:
        assert (type(buffer), len(buffer)) == (kind, 1)


def test_replace_leaves_a_link_and_replaces_what_it_leads_to(tmp_path: Path) -> None:
    stores.uniform(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with ReplayBuffer(7, path=tmp_path / "link", if_exists="replace"):
        pass
    assert (tmp_path / "link").is_symlink()
    with diskreplay.open(tmp_path / "real") as buffer:
        assert (len(buffer), buffer.capacity) == (0, 7)


def test_replace_waits_for_nobody_and_takes_nothing_from_them(tmp_path: Path, other: Any) -> None:
    other.open(10)
    other.extend(0, 5)
    for access in ("exclusive", "shared"):
        with pytest.raises(diskreplay.LockedError, match=f"held by pid {other.process.pid}"):
            ReplayBuffer(7, path=tmp_path / "b", access=access, if_exists="replace")
    assert other.size() == 5
    path = stores.uniform(tmp_path / "own")
    with diskreplay.open(path, access="read") as buffer:
        with pytest.raises(diskreplay.LockedError, match="open in this process already"):
            ReplayBuffer(7, path=path, if_exists="replace")
        assert len(buffer) == 300
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b", "own"]


def test_replace_touches_nothing_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    (tmp_path / "file").write_text("mine")
    store = stores.uniform(tmp_path / "b")
    (store / "model.pt").write_text("mine")
    before = contents(tmp_path)
    for name, message in {
        "mine": "is not a diskreplay store", "file": "is a file", "b": "holds model.pt beside",
    }.items():  # fmt: skip
        with pytest.raises(diskreplay.NotAStoreError, match=message):
            ReplayBuffer(10, path=tmp_path / name, if_exists="replace")
    assert contents(tmp_path) == before


def test_a_store_that_is_damaged_can_be_replaced(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "b")
    os.truncate(path / "data.mdb", 10_000)
    with ReplayBuffer(300, path=path, if_exists="replace") as buffer:
        buffer.extend(**columns(0, 9))
        assert numbers_of(buffer.get(range(9))).tolist() == list(range(9))


def test_a_refused_replacement_leaves_the_old_store(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "b")
    before = contents(path)
    refused: list[dict[str, Any]] = [
        {"capacity": 0}, {"schema": {"state": "text"}}, {"durability": "none"}, {"seed": -1},
    ]  # fmt: skip
    for wrong in refused:
        with pytest.raises((diskreplay.ArgumentError, diskreplay.SchemaError)):
            ReplayBuffer(**{"capacity": 9, "path": path, "if_exists": "replace", **wrong})
        assert contents(path) == before


def test_wrong_words_are_refused(tmp_path: Path) -> None:
    path = stores.empty(tmp_path / "b")
    with pytest.raises(diskreplay.ArgumentError, match=r"resume, fail, replace .*'append'"):
        ReplayBuffer(10, path=path, if_exists="append")
    for word in ("fail", "replace"):
        with pytest.raises(diskreplay.ArgumentError, match="needs a buffer that writes"):
            ReplayBuffer(10, path=path, access="read", if_exists=word)
    with pytest.raises(diskreplay.ArgumentError, match="'if_exists' is no setting"):
        diskreplay.open(path, if_exists="fail")

"""What must not be overwritten, and what a stranger's words must not do."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from commands import refused, run
from common import columns, contents
from diskreplay_tools.cli import main
from runner import runner

import diskreplay

# The commands that write, as they are called with a store, a file and an output.
FILES: dict[str, Any] = {
    "export": lambda a, file, out: ["export", a, out, "--format", "npz"],
    "report": lambda a, file, out: ["report", a, "-o", out],
}
STORES: dict[str, Any] = {
    "copy": lambda a, file, out: ["copy", a, out],
    "merge": lambda a, file, out: ["merge", a, "-o", out],
    "repair": lambda a, file, out: ["repair", a, out],
    "transform": lambda a, file, out: ["transform", a, out, "builtins:dict"],
    "import": lambda a, file, out: ["import", file, out],
}


@pytest.fixture(params=FILES | STORES)
def command(request: pytest.FixtureRequest) -> Any:
    if request.param == "report":
        pytest.importorskip("matplotlib")
    return (FILES | STORES)[request.param]


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return stores.uniform(tmp_path / "a")


@pytest.fixture
def file(a: Path, tmp_path: Path) -> Path:
    run("export", a, tmp_path / "a.npz")
    return tmp_path / "a.npz"


def test_nothing_is_written_into_a_store(command: Any, a: Path, file: Path) -> None:
    b = stores.uniform(a.with_name("b"))
    before = contents(a.parent)
    outs = [b / "data.mdb", b / "diskreplay.json", b / "x", a / "x"]
    for out in outs if command in FILES.values() else outs[2:]:
        assert "is inside the store" in refused(*command(a, file, out), "--force")
    assert contents(a.parent) == before


@pytest.mark.parametrize("through_link", [False, True])
def test_what_exists_is_replaced_with_force_and_whole(
    command: Any, through_link: bool, a: Path, file: Path
) -> None:
    b, link = a.with_name("b"), a.with_name("link")
    link.symlink_to(b)
    b.write_text("mine") if command in FILES.values() else stores.empty(b)
    given = command(a, file, link if through_link else b)
    before = contents(a.parent)
    assert "exists: give another name, or --force to overwrite it" in refused(*given)
    assert contents(a.parent) == before
    run(*given, "--force")
    assert contents(a.parent) != before
    assert link.is_symlink()
    assert {each.name for each in a.parent.iterdir()} == {"a", "a.npz", "b", "link"}
    if command in STORES.values():
        assert diskreplay.verify(b) == []
        with diskreplay.open(b, access="read") as buffer:
            assert len(buffer) == 300


@pytest.mark.parametrize("name", STORES)
def test_only_a_store_is_replaced_by_a_store(name: str, a: Path, file: Path) -> None:
    command, b, mine, empty = STORES[name], *(a.with_name(n) for n in ("b", "mine", "empty"))
    stores.uniform(b)
    (b / "model.pt").write_text("weights")
    mine.mkdir()
    (mine / "file").touch()
    before = contents(a.parent)
    assert "holds model.pt beside the store" in refused(*command(a, file, b), "--force")
    assert "is not a store" in refused(*command(a, file, mine), "--force")
    assert contents(a.parent) == before
    empty.mkdir()
    run(*command(a, file, empty))  # which is nothing in the way


def test_a_source_without_a_format_replaces_nothing(a: Path) -> None:
    broken = a.with_name("broken")
    broken.mkdir()
    (broken / "diskreplay.json").write_text("{}")
    before = contents(a)
    assert "expected a format version and a uuid" in refused("copy", broken, a, "--force")
    assert contents(a) == before


@pytest.mark.parametrize("name", STORES)
def test_what_is_read_is_not_replaced(name: str, a: Path, file: Path) -> None:
    inner = shutil.copytree(a, a / "inner")
    shutil.copy(file, a / "x.npz")
    before = contents(a)
    given = STORES[name](inner, a / "x.npz", a)
    assert f" is inside of {a}: give a new directory" in refused(*given, "--force", status=2)
    if name != "import":
        itself = STORES[name](a, file, a)
        assert "is the store itself: give a new directory" in refused(*itself, "--force", status=2)
    assert contents(a) == before


def test_what_is_no_regular_file_is_not_replaced(a: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    given = ["export", a, tmp_path / "pipe", "--format", "jsonl", "--force"]
    assert "is no regular file" in refused(*given)
    assert (tmp_path / "pipe").is_fifo()
    assert "give the name of a file" in refused("export", a, "-", "--format", "jsonl")


def test_words_of_strangers_do_not_command_the_terminal(tmp_path: Path) -> None:
    names = {"state": 1.0, "action": 1, "reward": 1.0, "next_state": 1.0, "done": False}
    values = {name: np.array([value] * 3) for name, value in names.items()}
    np.savez(tmp_path / "x.npz", **values, **{"\x1b]0;gone\x07": np.zeros(3)})  # type: ignore[arg-type]
    said = refused("import", tmp_path / "x.npz", tmp_path / "b")
    assert "\x1b" not in said
    assert r"\x1b]0;gone\x07" in said


@pytest.mark.parametrize(
    "facts",
    [
        {"pid": "1\x1b[2J", "host": "h", "since": 0.0, "access": "read"},
        {"pid": 1, "host": "h", "since": 0.0, "access": "\x1b]0;gone\x07"},
        {"pid": 1, "host": "h\x1b[2J", "since": 0.0, "access": "read"},
    ],
)
def test_an_opener_that_lies(facts: dict[str, Any], tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    with (path / "openers" / "1-aa").open("w") as file:
        file.write(json.dumps(facts))
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        done = runner().invoke(main, ["inspect", str(path)], color=True)
    assert done.exit_code == 0
    assert "\x1b[2J" not in done.output
    assert "\x1b]" not in done.output


def test_whole_numbers_that_no_float_tells_apart(tmp_path: Path) -> None:
    rows = columns(0, 20)
    rows["rewards"] = 2**60 + np.arange(20)
    schema = {"reward": "int64"}
    more = {"id": np.arange(20).astype(np.uint64) + np.uint64(2**63)}
    with diskreplay.ReplayBuffer(20, path=tmp_path / "s", schema=schema) as buffer:
        buffer.extend(**rows, **more)
    done = runner().invoke(main, ["inspect", str(tmp_path / "s")])
    assert done.exit_code == 0, done.exception
    assert "1.15" in done.output
    for condition, n in (
        (f"id=={2**63 + 1}", 1), (f"id>{2**63 + 1}", 18), (f"reward<{2**60 + 3}", 3),
        (f"id<{10**30}", 20), (f"reward>-{10**30}", 20), ("reward==1_0", None),
    ):  # fmt: skip
        out = str(tmp_path / "out.jsonl")
        given = ["export", str(tmp_path / "s"), out, "--force", "--where", condition]
        done = runner().invoke(main, given)
        if n is None:
            assert done.exit_code == 2
        else:
            assert f": {n} transition" in done.stdout, condition


def test_a_field_whose_shape_numpy_has_no_room_for() -> None:
    for shape in ((0, 2**30, 2**30), (2**30, 2**30, 0), (2**30, 2)):
        with pytest.raises(diskreplay.SchemaError, match="store large values elsewhere"):
            diskreplay.Field("x", "uint8", shape)
    assert diskreplay.Field("x", "uint8", (0, 5)).payload_bytes == 0

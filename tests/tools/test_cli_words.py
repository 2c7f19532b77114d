"""What commands and errors say: the way out for who reads, the name given, one thing as one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stores
from commands import refused, run, shown
from common import contents, run_python

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

# A path without a store

READERS: dict[str, Callable[[Path, Path], Any]] = {
    "open": lambda path, out: diskreplay.open(path),
    "open to read": lambda path, out: diskreplay.open(path, access="read"),
    "construct to read": lambda path, out: ReplayBuffer(10, path=path, access="read"),
    "verify": lambda path, out: diskreplay.verify(path),
    "repair": lambda path, out: diskreplay.repair(path, out),
    "merge": lambda path, out: diskreplay.merge([path], out),
    "compact": lambda path, out: diskreplay.compact(path),
    "resize": lambda path, out: diskreplay.resize(path, 5),
    "load": lambda path, out: ReplayBuffer(10).load(path),
}
MAKERS: dict[str, Callable[[Path, Path], Any]] = {
    "construct": lambda path, out: ReplayBuffer(10, path=path),
    "save": lambda path, out: ReplayBuffer(10).save(path),
    "repair to": lambda path, out: diskreplay.repair(stores.uniform(out), path),
    "merge to": lambda path, out: diskreplay.merge([stores.uniform(out)], path),
}
COMMANDS = {
    "inspect": [], "inspect --watch": [], "schema": [], "report": ["-o", "OUT"], "verify": [],
    "compact": [], "resize": ["--capacity", "5"], "clear": ["--yes"], "copy": ["OUT"],
    "merge": ["-o", "OUT"], "repair": ["OUT"], "export": ["OUT.npz"], "bench --estimate --like": [],
}  # fmt: skip


@pytest.fixture(params=["files", "a file", "nothing", "no directory"])
def no_store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "place"
    if request.param == "a file":
        path.write_text("x")
    elif request.param != "no directory":
        path.mkdir()
        if request.param == "files":
            (path / "notes.txt").write_text("x")
            (path / ".diskreplay-new-1").mkdir()  # which is ours, and nothing to tell of
    return path


@pytest.mark.parametrize("name", READERS)
def test_who_reads_is_told_to_give_a_store(name: str, no_store: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    with pytest.raises(diskreplay.NotAStoreError) as caught:
        READERS[name](no_store, tmp_path / "out")
    assert "give the path of a store" in str(caught.value)
    assert "choose" not in str(caught.value)
    assert ".diskreplay-" not in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", MAKERS)
def test_who_makes_a_store_is_told_to_choose_a_directory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "place"
    path.mkdir()
    (path / "notes.txt").write_text("x")
    with pytest.raises(
        diskreplay.NotAStoreError, match=r"found notes\.txt\): choose a new directory"
    ):
        MAKERS[name](path, tmp_path / "out")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_to_give_a_store(command: str, tmp_path: Path) -> None:
    if command == "report":
        pytest.importorskip("matplotlib")
    path, empty, file = tmp_path / "place", tmp_path / "empty", tmp_path / "file"
    path.mkdir()
    empty.mkdir()
    file.touch()
    (path / "notes.txt").write_text("x")
    rest = [word.replace("OUT", str(tmp_path / "out")) for word in COMMANDS[command]]
    said = refused(*command.split(), path, *rest)
    assert "expected diskreplay.json in it (found notes.txt): give the path of a store" in said
    assert "empty holds no store" in refused(*command.split(), empty, *rest)
    assert "is a file" in refused(*command.split(), file, *rest, status=2)
    assert "does not exist" in refused(*command.split(), tmp_path / "none", *rest, status=2)


# Commands and fields


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("inspekt", "'inspect'"), ("Verify", "'verify'"), ("exprot", "'export'"),
        ("rep", "'report' or 'repair'"), ("zzz", None),
    ],
)  # fmt: skip
def test_a_mistyped_command_is_answered_with_what_was_meant(given: str, meant: str | None) -> None:
    said = refused(given, status=2)
    assert f"No such command '{given}'." in said
    assert ("Did you mean" in said) is (meant is not None)
    assert meant is None or f"Did you mean {meant}?" in said


def test_a_mistyped_option_is_answered_with_what_was_meant() -> None:
    assert "--json" in refused("inspect", "--jsno", ".", status=2)


@pytest.mark.parametrize("name", ["state", "next_state", "action", "logit"])
@pytest.mark.parametrize("given", ["foo", "U5", "uint8:-3", "uint8:9999999999"])
def test_bench_names_the_field_that_is_wrong(name: str, given: str) -> None:
    said = refused("bench", "--estimate", "--field", f"{name}={given}", status=2)
    assert f"field '{name}'" in said


# One, none and many


def test_of_one_thing_there_is_one(tmp_path: Path) -> None:
    names = ("state", "action", "reward", "next_state", "done")
    path = tmp_path / "b"
    with PrioritizedReplayBuffer(1, path=path, schema=dict.fromkeys(names, "uint8")) as buffer:
        buffer.push(0, 0, 0, 0, 0)
        buffer.sample(1)
    out = tmp_path / "c"
    said = {
        "inspect": shown(path), "top": shown(path, "--top", 1), "schema": run("schema", path),
        "copy": run("copy", path, out), "merge": run("merge", path, "-o", tmp_path / "d"),
        "export": run("export", path, tmp_path / "x.npz"),
        "import": run("import", tmp_path / "x.npz", tmp_path / "e"),
        "bench": run("bench", "--like", path, "--estimate"),
        "compact": run("compact", path), "resize": run("resize", path, "--capacity", 2),
        "clear": run("clear", path, "--yes"),
    }  # fmt: skip
    texts = {k: v if isinstance(v, str) else v.stdout for k, v in said.items()}
    for command, text in texts.items():
        plain = " ".join(text.split())
        assert " 1 bytes" not in plain, command
        assert " 1 transitions" not in plain, command
        assert " 1 calls" not in plain, command
        assert " 1 stores" not in plain, command
    assert "state uint8 1 byte " in " ".join(texts["inspect"].split())
    assert "prioritized: 1 of 1 transition\n" in texts["inspect"]
    assert "after 1 call of sample" in texts["inspect"]
    assert "wrote 1, which is live" in texts["inspect"]
    assert "1 of 1 transition: the largest priorities" in texts["top"]
    assert "1 transition of 5 bytes" in texts["bench"]
    assert texts["merge"] == f"{tmp_path / 'd'}: 1 transition of 1 store\n"
    assert texts["clear"] == f"{path}: 1 transition removed\n"
    assert "#  1 byte" in texts["schema"] or "# 1 byte\n" in texts["schema"]


def test_a_uniform_overview_has_no_empty_section(tmp_path: Path) -> None:
    """Of each heading there is something below; what is told in the heading's line is told."""
    text = shown(stores.uniform(tmp_path / "b"))
    sections = text.split("\n\n")
    assert all(len(section.splitlines()) > 1 or ": by nobody" in section for section in sections)
    assert "Age" not in text
    assert json.loads(run("inspect", tmp_path / "b", "--json").stdout)["histograms"]["age"]


# Settings that are refused


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"alpha": 1.5}, "give powers of priorities"),
        ({"epsilon": 0.0}, "a transition of priority 0 would never be drawn"),
    ],
)
def test_a_refused_setting_says_why(given: dict[str, float], why: str) -> None:
    with pytest.raises(diskreplay.ArgumentError, match=why):
        PrioritizedReplayBuffer(10, **given)  # type: ignore[arg-type]


# Modules that not everybody has

NEEDED = {
    "gymnasium": (["demo"], "the demo", "demo"),
    "matplotlib": (["report", "PATH", "-o", "OUT"], "a report", "report"),
    "pyarrow": (["export", "PATH", "OUT.parquet"], "parquet", "parquet"),
}


@pytest.mark.parametrize("module", NEEDED)
def test_a_missing_module_is_said_with_how_to_get_it(module: str, tmp_path: Path) -> None:
    words, needs, extra = NEEDED[module]
    names = {"PATH": str(stores.uniform(tmp_path / "b")), "OUT": str(tmp_path / "out")}
    given = [word.replace("PATH", names["PATH"]).replace("OUT", names["OUT"]) for word in words]
    code = f"""
        import sys
        sys.modules["{module}"] = None  # importing it now fails as if it were not installed
        from diskreplay_tools.cli import main
        main(sys.argv[1:])
    """
    done = run_python(code, *given, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: {needs} needs {module}, which is not installed: "
        f"pip install 'diskreplay[{extra}]'\n"
    )
    assert [place.name for place in tmp_path.iterdir()] == ["b"]

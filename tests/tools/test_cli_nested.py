"""The commands and stores whose fields are dictionaries and tuples."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run, strict_json
from exported import FORMS, arrow, npz, refused
from nested_rows import NAMES, assert_same, columns, each, numbers_of
from reports import report

import diskreplay
from diskreplay import PrioritizedReplayBuffer, Schema

ODD = {"two words": {"left/right": 1, "ärm$x$": (0.5, [1, 2])}, "<b>": 3}
ODD_NAMES = (
    "info.two words.left/right", "info.two words.ärm$x$[0]", "info.two words.ärm$x$[1]", "info.<b>",
)  # fmt: skip


def store(path: Path, n: int = 20, **more: Any) -> Path:
    with PrioritizedReplayBuffer(30, path=path, seed=0) as buffer:
        buffer.extend(**columns(0, n), priorities=np.arange(n) % 5, **more)
    return path


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    return store(tmp_path / "b", info=each(ODD, lambda value: np.repeat([value], 20, 0)))


@pytest.mark.parametrize("form", FORMS)
def test_an_export_becomes_the_same_nested_store(form: str, nested: Path, tmp_path: Path) -> None:
    if form == "parquet":
        arrow()
    file, again = tmp_path / f"x.{form}", tmp_path / "again"
    run("export", nested, file)
    run("import", file, again)
    assert diskreplay.verify(again) == []
    with diskreplay.open(nested) as buffer, diskreplay.open(again) as found:
        assert found.schema == buffer.schema
        assert found.schema.names == (*NAMES, *ODD_NAMES)
        batch, ids = found.get(range(20)), np.arange(20)
        assert numbers_of(batch).tolist() == ids.tolist()
        assert_same(tuple(batch), tuple(buffer.get(ids)))
        assert found.priorities(ids).tolist() == buffer.priorities(ids).tolist()


def test_the_columns_of_a_file_have_the_names_of_the_fields(nested: Path, tmp_path: Path) -> None:
    run("export", nested, tmp_path / "x.npz")
    run("export", nested, tmp_path / "x.jsonl", "--where", "state.robot.grip>=4")
    with np.load(tmp_path / "x.npz") as members:
        names = [name for name in members.files if name != "diskreplay.json"]
        assert names == ["write_id", "link", *NAMES, *ODD_NAMES, "priority"]
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["write_id"] for line in lines] == [16, 17, 18, 19]
    assert list(lines[0]) == ["write_id", "link", *NAMES, *ODD_NAMES, "priority"]
    assert lines[0]["state.goal[0]"] == [48, 49]


def test_other_files_name_parts_in_their_columns_or_by_options(tmp_path: Path) -> None:
    whole = columns(0, 6)
    values = {
        "state.camera": whole["states"]["camera"],
        "state.goal[1]": np.arange(6.0),
        "state.goal[0]": np.arange(6.0) + 1,
        "turn": whole["actions"]["turn"].astype(np.int32),
        "reward": whole["rewards"],
        "next_state.camera": whole["next_states"]["camera"],
        "next_state.goal[0]": np.arange(6.0) + 2,
        "next_state.goal[1]": np.arange(6.0) + 3,
        "done": whole["dones"],
        "info.x": np.zeros(6),
    }
    file = npz(tmp_path / "x.npz", values)
    run("import", file, tmp_path / "b", "--field", "action.turn=turn")
    with diskreplay.open(tmp_path / "b") as buffer:
        assert buffer.schema.names == (
            "state.camera", "state.goal[0]", "state.goal[1]", "action.turn", "reward",
            "next_state.camera", "next_state.goal[0]", "next_state.goal[1]", "done", "info.x",
        )  # fmt: skip
        batch = buffer.get(range(6))
        assert_same(batch.states["goal"], (np.arange(6.0) + 1, np.arange(6.0)))
        assert batch.actions["turn"].dtype == np.int64
        assert batch.info["x"].dtype == np.float32
    for change, message in [
        ({"state": np.zeros(6)}, "contradict each other: 'state.* leave columns out with --drop"),
        ({"info": np.zeros(6)}, "contradict each other: 'info.* leave columns out with --drop"),
        ({"x[1]": np.zeros(6)}, r"'x\[1\]' is there without 'x\[0\]': name fields with --field"),
        ({"x.": np.zeros(6)}, r"column 'x\.': a part of a field is named as in state.camera or "),
        ({"states.x": np.zeros(6)}, "'states' cannot name a field"),
        ({"reward.x": np.zeros(6)}, "contradict each other: 'reward' is a value, and 'reward.x'"),
    ]:
        file = npz(tmp_path / "y.npz", values | change)
        told = refused(tmp_path / "c", file, "--field", "action.turn=turn")
        assert re.search(message, told), told


def test_what_schema_prints_is_the_schema(nested: Path) -> None:
    with diskreplay.open(nested) as buffer:
        schema = buffer.schema
    assert Schema(ast.literal_eval(run("schema", nested).stdout)) == schema
    found = strict_json(run("schema", nested, "--json").stdout)
    assert found["payload_bytes"] == schema.payload_bytes


def test_inspect_shows_parts_by_their_names(nested: Path) -> None:
    text = run("inspect", nested, columns=120).stdout
    assert f"{len(NAMES) + len(ODD_NAMES)} fields" in text
    for name in (*NAMES, *ODD_NAMES):
        assert f"    {name} " in text
    text = run("inspect", nested, "--at", "7", columns=120).stdout
    for name in (*NAMES, *ODD_NAMES):
        assert f"  {name} " in text
    found = strict_json(run("inspect", nested, "--at", "7", "--json").stdout)
    assert found["transitions"][0]["fields"]["state.goal[0]"] == [21, 22]
    run("verify", nested)


def test_bench_takes_parts(nested: Path, tmp_path: Path) -> None:
    for options in (
        ("--like", nested),
        ("--field", "state.camera=uint8:3x4", "--field", "state.speed=float32"),
        ("--field", "action[0]=int8", "--field", "action[1]=float32:2"),
    ):
        found = run("bench", tmp_path, "--seconds", "0.1", "--json", *options).stdout
        assert strict_json(found)["pushes_per_second"] > 0
    for fields, message in [
        (("x=float32", "x.a=float32"), "contradict each other: 'x' is a value"),
        (("x.=float32",), "a part of a field is named as in"),
    ]:
        options = [word for field in fields for word in ("--field", field)]
        told = run("bench", tmp_path, *options, status=1 if len(fields) > 1 else 2).stderr
        assert message in " ".join(told.split())


def test_a_report_draws_each_part(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    frames = (
        np.arange(12 * 12, dtype=np.uint8).reshape(1, 12, 12)
        + np.arange(41, dtype=np.uint8)[:, None, None]
    )

    def states(first: int, n: int) -> dict[str, Any]:
        numbers = np.arange(first, first + n)
        goal = (numbers, np.zeros((n, 12)))
        return {"camera": frames[numbers], "$x$ < y": {"speed": numbers / 2}, "goal": goal}

    with PrioritizedReplayBuffer(50, path=tmp_path / "b") as buffer:
        buffer.extend(
            states(0, 40), {"turn": np.arange(40) % 3, "push": np.zeros((40, 2))}, np.ones(40),
            states(1, 40), np.arange(40) % 10 == 9, priorities=np.arange(40),
        )  # fmt: skip
    page = report(tmp_path / "b", tmp_path / "x.html")
    text = page.text
    assert "state.camera: 12 x 12 pixels." in text
    assert "state.$x$ < y.speed: All 40 transitions: from 0 to 19.5" in text
    assert "state.goal[1]: All 40 transitions: 12 components, from 0 to 0" in text
    assert "action.turn: All 40 transitions: mean" in text
    assert "4 whole episodes" in text
    assert {frame["alt"].split(" of ")[0] for frame in page.frames()} == {"State.camera"}


def test_a_report_of_many_parts_says_which_are_not_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    state = {f"s{i:02}": float(i) for i in range(12)}
    with PrioritizedReplayBuffer(50, path=tmp_path / "b") as buffer:
        for i in range(3):
            buffer.push(state, {"turn": i}, 0.0, state, False)
    text = report(tmp_path / "b", tmp_path / "x.html").text
    assert "state.s07: All 3 transitions: every one is 7." in text
    assert "Not drawn: 4 more parts, state.s08, state.s09, state.s10, state.s11." in text


def test_a_report_of_other_next_states_says_why_it_has_no_episodes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    schema = {"state.a": "f4", "next_state.b": "f4", "action": "i8", "reward": "f4", "done": "?"}
    with PrioritizedReplayBuffer(50, path=tmp_path / "b", schema=schema) as buffer:
        buffer.push({"a": 1}, 0, 0.0, {"b": 1}, False)
    text = report(tmp_path / "b", tmp_path / "x.html").text
    assert "state and next_state have different parts" in text

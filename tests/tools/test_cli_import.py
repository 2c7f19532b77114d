"""The command `import`: exports become the same store, bad files a sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from commands import run
from common import columns, contents
from exported import (
    FORMS,
    MAKERS,
    NAMES,
    arrow,
    assert_same,
    expected,
    many,
    npz,
    plain,
    refused,
)
from inside import replica_of

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.buffer import scan

FOREIGN = {
    "observations": np.arange(24, dtype=np.float32).reshape(6, 2, 2),
    "actions": np.arange(6, dtype=np.int32),
    "rewards": np.arange(6) / 4,
    "next_observations": np.arange(24, dtype=np.float32).reshape(6, 2, 2) + 4,
    "terminals": np.arange(6) % 3 == 2,
}
PAIRS = (
    "state=observations", "action=actions", "reward=rewards", "next_state=next_observations",
    "done=terminals",
)  # fmt: skip
MAP = [f"--field={pair}" for pair in PAIRS]


def parquet(file: Path, values: dict[str, Any]) -> Path:
    """A parquet file as others write it: lists of lists, and no metadata."""
    pa = arrow()
    import pyarrow.parquet as pq

    listed = {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in values.items()}
    types = {
        n: pa.from_numpy_dtype(v.dtype) if isinstance(v, np.ndarray) and v.ndim == 1 else None
        for n, v in values.items()
    }
    pq.write_table(
        pa.table({n: pa.array(v, types[n]) for n, v in listed.items()}), file, row_group_size=2
    )
    return file


# Exports


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", MAKERS)
def test_exported_and_imported_it_is_the_same(tmp_path: Path, make: Any, form: str) -> None:
    if form == "parquet":
        arrow()
    path, file, new = make(tmp_path / "b"), tmp_path / f"x.{form}", tmp_path / "new"
    run("export", path, file)
    result = run("import", file, new)
    wanted = expected(path)
    n = len(wanted["write_id"])
    assert_same(expected(new), {**wanted, "write_id": np.arange(n)})
    with (
        diskreplay.open(path, access="read") as before,
        diskreplay.open(new) as after,
    ):
        assert (after.schema, after.capacity) == (before.schema, before.capacity)
        assert type(after) is type(before)
        assert replica_of(after).settings == replica_of(before).settings
        if isinstance(before, PrioritizedReplayBuffer):
            assert isinstance(after, PrioritizedReplayBuffer)
            assert after.max_priority == before.max_priority
        after.check()
        kind = before.stats()["kind"]
        said = f"{new}: {n:,} transitions of {file}, {kind}, capacity {before.capacity:,}\n"
    assert (result.stdout, result.stderr) == (said, "")
    assert diskreplay.verify(new) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "new", file.name]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
@pytest.mark.parametrize("has_schema", [False, True])
def test_an_empty_store(tmp_path: Path, form: str, kind: str, has_schema: bool) -> None:
    if form == "parquet":
        arrow()
    make: Any = ReplayBuffer if kind == "uniform" else PrioritizedReplayBuffer
    with make(10, path=tmp_path / "b") as buffer:
        if has_schema:
            buffer.extend(**columns(0, 3))
            buffer.clear()
    run("export", tmp_path / "b", tmp_path / f"x.{form}")
    run("import", tmp_path / f"x.{form}", tmp_path / "new")
    with diskreplay.open(tmp_path / "b") as before, diskreplay.open(tmp_path / "new") as after:
        assert (type(after), len(after), after.capacity) == (make, 0, 10)
        assert after.schema == before.schema
        assert (after.schema is not None) is has_schema


@pytest.mark.parametrize("form", FORMS)
def test_many_chunks(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "parquet":
        arrow()
    from diskreplay_tools.files import columns as file_columns
    from diskreplay_tools.files import writers

    monkeypatch.setattr(file_columns, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(scan, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(writers, "_GROUP_BYTES", 4000)
    path, file = many(tmp_path / "b", 300, 200), tmp_path / f"x.{form}"
    run("export", path, file)
    run("import", file, tmp_path / "new", "--capacity", 77)
    wanted = {name: values[-77:] for name, values in expected(path).items()}
    wanted["write_id"] = np.arange(77)
    assert_same(expected(tmp_path / "new"), wanted)


def test_of_more_rows_than_the_capacity_the_last_are_kept(tmp_path: Path) -> None:
    file = npz(tmp_path / "x.npz", plain(100))
    result = run("import", file, tmp_path / "new", "--capacity", 30)
    assert "left out the first 70 rows: the capacity is 30" in result.stderr
    found = expected(tmp_path / "new")
    np.testing.assert_array_equal(found["reward"], columns(70, 30)["rewards"])
    with diskreplay.open(tmp_path / "new", access="read") as buffer:
        assert buffer.count == 30


def test_a_disk_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    file, new = npz(tmp_path / "x.npz", plain(100)), tmp_path / "new"
    said = run("import", file, new, "--capacity", 10**7).stderr
    assert said.startswith(f"warning: {new} takes 732 MB of disk when it holds all of its 10000000")
    usage = usage._replace(free=1 << 20)
    assert f"{tmp_path / 'no'} needs 1.07 MB for its data file" in refused(tmp_path / "no", file)


def test_another_kind(tmp_path: Path) -> None:
    run("export", many(tmp_path / "b"), tmp_path / "x.npz")
    result = run("import", tmp_path / "x.npz", tmp_path / "u", "--kind", "uniform")
    assert "the priorities are left out: a uniform buffer has none" in result.stderr
    with diskreplay.open(tmp_path / "u", access="read") as buffer:
        assert type(buffer) is ReplayBuffer
        assert replica_of(buffer).settings == {
            "durability": "system",
            "commit_interval": float("inf"),
        }
    run("export", tmp_path / "u", tmp_path / "u.npz")
    run("import", tmp_path / "u.npz", tmp_path / "p", "--kind", "prioritized")
    assert set(expected(tmp_path / "p")["priority"]) == {1.0}


# Files of others


@pytest.mark.parametrize("write", [npz, parquet, "compressed"])
def test_columns_of_other_names(tmp_path: Path, write: Any) -> None:
    values = {**FOREIGN, "timeouts": np.zeros(6, np.bool_), "priority": np.arange(6.0)}
    if write == "compressed":
        np.savez_compressed(tmp_path / "x", **values)
    else:
        write(tmp_path / "x.npz", values)
    run("import", tmp_path / "x.npz", tmp_path / "new", *MAP)
    found = expected(tmp_path / "new")
    assert list(found) == ["write_id", "link", *NAMES, "timeouts", "priority"]
    types = {"action": np.int64, "timeouts": np.bool_}
    for field, values_of in zip([*NAMES, "timeouts"], values.values(), strict=False):
        wanted = values_of.astype(types.get(field, np.float32))
        np.testing.assert_array_equal(found[field], wanted, strict=True)
    np.testing.assert_array_equal(found["priority"], np.arange(6, dtype=np.float32))
    with diskreplay.open(tmp_path / "new", access="read") as buffer:
        assert buffer.capacity == 6


def episode(n: int = 6) -> dict[str, Any]:
    """Columns in the types that other programs save them in."""
    values = {name: column.astype(np.float64) for name, column in plain(n).items()}
    return {
        **values,
        "action": values["action"].astype(np.int32),
        "done": values["done"] > 0,
        "log_prob": np.linspace(-1, 0, n),
        "step": np.arange(n, dtype=np.int16),
        "truncated": np.zeros(n, np.bool_),
    }


@pytest.mark.parametrize("reward_shape", [(), (1,)])
@pytest.mark.parametrize("write", [npz, parquet])
def test_a_loop_of_pushes_goes_on_with_what_was_imported(
    tmp_path: Path, write: Any, reward_shape: tuple[int, ...]
) -> None:
    values = episode()
    shaped = {
        name: values[name].reshape(6, *reward_shape) if name in ("reward", "done") else values[name]
        for name in values
    }
    run("import", write(tmp_path / "x.npz", shaped), tmp_path / "new", "--capacity", 20)
    with ReplayBuffer(20, path=tmp_path / "new") as imported, ReplayBuffer(20) as pushed:
        for buffer in (imported, pushed):
            for at in range(0 if buffer is pushed else 6, 9):
                row = {name: column[at % 6] for name, column in values.items()}
                types = {"action": int, "reward": float, "done": bool}
                row |= {name: type_(row[name]) for name, type_ in types.items()}
                buffer.push(**row)
        assert imported.schema == pushed.schema
        for found, wanted in zip(imported.get(range(9)), pushed.get(range(9)), strict=True):
            np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize("form", FORMS)
def test_the_types_of_an_export_stay(tmp_path: Path, form: str) -> None:
    if form == "parquet":
        arrow()
    fields: dict[str, Any] = {
        "state": ("float64", (3,)), "action": "int32", "reward": ("float64", (1,)),
        "next_state": ("float16", (3,)), "done": "bool", "log_prob": "float64",
    }  # fmt: skip
    given = columns(0, 4) | {"rewards": np.full((4, 1), 1 / 3), "log_prob": np.full(4, 1 / 3)}
    with ReplayBuffer(10, path=tmp_path / "b", schema=fields) as buffer:
        buffer.extend(**given)
        schema = buffer.schema
    run("export", tmp_path / "b", tmp_path / f"x.{form}")
    run("import", tmp_path / f"x.{form}", tmp_path / "new")
    assert_same(expected(tmp_path / "new"), expected(tmp_path / "b"))
    with diskreplay.open(tmp_path / "new") as buffer:
        assert buffer.schema == schema


def test_a_type_can_be_named(tmp_path: Path) -> None:
    values = {**episode(), "a:b": np.linspace(0, 1, 6)}
    file, new = npz(tmp_path / "x.npz", values), tmp_path / "new"
    named = ["state=state:float64", "done=done:bool", "log_prob=log_prob:>f8", "more=a:b"]
    run("import", file, new, *(f"--field={pair}" for pair in named))
    found = expected(new)
    types = {name: str(column.dtype) for name, column in found.items() if name in values}
    assert types == {
        "state": "float64", "action": "int64", "reward": "float32", "next_state": "float64",
        "done": "bool", "log_prob": "float64", "step": "int16", "truncated": "bool",
    }  # fmt: skip
    np.testing.assert_array_equal(found["more"], values["a:b"].astype("f4"), strict=True)
    told = {"state=state:text": "state", "state=nothing:float64": "no column 'nothing'",
            "priority=step:float64": "'priority'", "reward=reward:": "reward"}  # fmt: skip
    for pair, said in told.items():
        assert said in refused(tmp_path / "no", file, f"--field={pair}", status=2)
    large = npz(tmp_path / "y.npz", {**plain(), "log_prob": np.full(6, 1e300)})
    said = refused(tmp_path / "no", large)
    assert "beyond float32 (found 1e+300 to 1e+300): --field FIELD=COLUMN:DTYPE can set" in said


def test_parquet_of_fixed_size_lists_of_lists_and_of_polars(tmp_path: Path) -> None:
    pa = arrow()
    import pyarrow.parquet as pq

    flat = pa.array(np.arange(24, dtype=np.uint8))
    nested = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(flat, 2), 2)
    table = {**{n: pa.array(v) for n, v in plain().items() if v.ndim == 1}}
    pq.write_table(pa.table({**table, "state": nested, "next_state": nested}), tmp_path / "x")
    run("import", tmp_path / "x", tmp_path / "a")
    wanted = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    np.testing.assert_array_equal(expected(tmp_path / "a")["state"], wanted, strict=True)

    pl = pytest.importorskip("polars", reason="polars writes it here")
    frame = pl.DataFrame({n: v.tolist() for n, v in plain().items()})
    frame.write_parquet(tmp_path / "y")
    run("import", tmp_path / "y", tmp_path / "b")
    np.testing.assert_array_equal(expected(tmp_path / "b")["state"], columns(0, 6)["states"])
    run("export", tmp_path / "b", tmp_path / "z.parquet")
    pl.read_parquet(tmp_path / "z.parquet").write_parquet(tmp_path / "z")  # no metadata of ours
    run("import", tmp_path / "z", tmp_path / "c")
    assert_same(expected(tmp_path / "c"), expected(tmp_path / "b"))


def test_numbers_of_the_other_byte_order_and_bools_of_any_byte(tmp_path: Path) -> None:
    values = plain()
    values["reward"] = values["reward"].astype(">f4")
    values["done"] = np.array([0, 1, 2, 255, 0, 1], np.uint8).view(np.bool_)
    values["flags"] = np.array([[0, 2], [1, 255]] * 3, np.uint8).view(np.bool_)
    run("import", npz(tmp_path / "x.npz", values), tmp_path / "new")
    found = expected(tmp_path / "new")
    assert found["flags"].view(np.uint8).tolist() == [[0, 1], [1, 1]] * 3
    np.testing.assert_array_equal(found["reward"], values["reward"].astype("f4"), strict=True)
    assert found["done"].tolist() == [0, 1, 1, 1, 0, 1]


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "length": ({"ends": np.zeros(2)}, "have different lengths (state 6, action 6, reward 6, "),
    "objects": ({"info": np.array([{}] * 6)}, "column 'info': it holds Python objects"),
    "text": ({"info": np.array(["a"] * 6)}, "column 'info': field 'info': expected numbers"),
    "name": ({"obs/x": np.zeros(6)}, "must be a Python identifier"),
    "reserved": ({"weights": np.zeros(6)}, "name a field for it with --field NAME=weights, or "
                 "leave it out with --drop weights"),
    "single": ({"version": np.array(3)}, "'version': it is a single value"),
    "order": ({"map": np.zeros((2, 6)).T}, "'map': it is in Fortran order: save it again with"),
    "priorities": ({"priority": np.zeros((6, 1))}, "expected a number a row as priorities (found "
                   "float64[1])"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_column_that_cannot_be_used_can_be_dropped(tmp_path: Path, name: str) -> None:
    more, told = BROKEN[name]
    file = tmp_path / "x.npz"
    np.savez(file, **{**plain(), **more})
    said = refused(tmp_path / "new", file)
    assert told in said
    assert "--drop" in said
    run("import", file, tmp_path / "new", "--drop", next(iter(more)))
    assert len(expected(tmp_path / "new")["state"]) == 6


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("reward", [1.0, float("nan")] * 3, "rows 0 to 5: field 'reward': expected finite"),
        ("done", [0, 1, 2, 0, 0, 0], "rows 0 to 5: field 'done': expected True or False"),
        ("priority", [1.0, -1.0] * 3, "rows 0 to 5: a priority must be finite"),
    ],
)
@pytest.mark.parametrize("write", [npz, parquet])
def test_values_that_no_buffer_takes(
    tmp_path: Path, name: str, values: list[float], told: str, write: Any
) -> None:
    file = write(tmp_path / "x", {**plain(), name: np.array(values)})
    file = file if file.exists() else tmp_path / "x.npz"
    assert told.lower() in refused(tmp_path / "new", file).lower()


RAGGED = [[1.0, 2.0, 3.0]] * 4 + [[1.0, 2.0]] * 2


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"more": RAGGED}, "column 'more': a list of row 4 has 2 values (expected 3, as the first"),
        ({"more": [[[1, 2]], [[1, 2]], [[1]], [[1, 2]], [[1, 2]], [[1, 2]]]}, "of row 2 has 1"),
        ({"more": [1, 2, None, 4, 5, 6]}, "column 'more': row 2 has a null (expected numbers)"),
        ({"more": [[1], [2], [3], None, [5], [6]]}, "column 'more': row 3 has a null"),
        ({"more": [[1], [2], [3], [4], [None], [6]]}, "column 'more': row 4 has a null"),
        ({"more": ["a"] * 6}, "column 'more': expected numbers or lists of them (found string)"),
        ({"more": [{"a": 1}] * 6}, "expected numbers or lists of them (found struct<a: int64>)"),
        ({"weights": [1] * 6}, "'weights' cannot name a field"),
    ],
)
def test_parquet_that_is_not_of_one_shape(
    tmp_path: Path, more: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diskreplay_tools.files import columns as file_columns

    monkeypatch.setattr(file_columns, "CHUNK_BYTES", 64)  # rows one by one
    file = parquet(tmp_path / "x", {**plain(), **more})
    said = refused(tmp_path / "new", file)
    assert told in said
    assert "--drop" in said
    run("import", file, tmp_path / "new", "--drop", next(iter(more)))
    assert len(expected(tmp_path / "new")["state"]) == 6


def test_a_missing_field_and_a_wrong_mapping_name_the_way_out(tmp_path: Path) -> None:
    file, new = npz(tmp_path / "x.npz", FOREIGN), tmp_path / "new"
    said = refused(new, file)
    assert "has no column 'state' (found observations, actions, rewards, next_" in said
    assert "name it with --field state=COLUMN" in said
    said = refused(new, file, *MAP[:3], *MAP[4:], "--drop", "next_observations")
    assert "--field next_state=COLUMN; where it has none, save the observation that" in said
    for option, told in {
        "state": "expected FIELD=COLUMN (found 'state')",
        "more=x": "has no column 'x' (found observations",
        "done=actions": "'done' is given twice",
    }.items():
        assert told in refused(new, file, *MAP, f"--field={option}", status=2)
    assert "has no column 'y'" in refused(new, file, *MAP, "--drop=y", status=2)
    both = npz(tmp_path / "y.npz", {**plain(), "gain": np.zeros(6)})
    assert "leave one out with --drop reward" in refused(new, both, "--field=reward=gain")


# What is there


def test_a_store_is_replaced_with_force_and_only_by_a_whole_one(tmp_path: Path) -> None:
    good = npz(tmp_path / "x.npz", plain(9))
    bad = npz(tmp_path / "y.npz", {**plain(9), "reward": np.full(9, np.nan)})
    new = stores.uniform(tmp_path / "b")
    old = contents(new)
    assert "finite" in refused(new, bad, "--force")
    assert contents(new) == old
    with diskreplay.open(new, access="read"):
        assert "is open in this process already" in refused(new, good, "--force")
    assert contents(new) == old
    run("import", good, new, "--force")
    assert len(expected(new)["reward"]) == 9


def test_a_store_that_another_process_has_open_is_not_replaced(tmp_path: Path, other: Any) -> None:
    other.open(10)
    other.extend(0, 5)
    file = npz(tmp_path / "x.npz", plain())
    assert f"is held by pid {other.process.pid}" in refused(tmp_path / "b", file, "--force")
    assert other.size() == 5


def test_what_is_neither(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1,2,3\n")
    said = refused(tmp_path / "new", tmp_path / "x")
    assert "is neither npz nor parquet: expected a file that begins with PK or PAR1" in said
    (tmp_path / "y").write_text('{"state": 1}\n')
    assert "looks like jsonl, which has neither types" in refused(tmp_path / "new", tmp_path / "y")


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    file = npz(tmp_path / "x.npz", plain())
    command = [sys.executable, "-W", "error", "-m", "diskreplay_tools", "import", file]
    done = subprocess.run([*command, tmp_path / "b"], capture_output=True, text=True)
    said = "cut 4 open episodes, where the next row has another state; --field truncated=COLUMN"
    assert done.returncode == 0
    assert done.stderr == f"{said} names a column that is true at such ends\n"

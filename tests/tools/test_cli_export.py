"""The command `export`: what is in the files, which rows, and what kills and writers do to them."""

from __future__ import annotations

import json
import operator
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from commands import run
from common import columns
from exported import MAKERS, assert_same, expected, many, read
from hypothesis import given, settings
from hypothesis import strategies as st

import diskreplay
from diskreplay import PrioritizedReplayBuffer
from diskreplay.buffer import scan

COMMAND = [sys.executable, "-W", "error", "-m", "diskreplay_tools"]
# npz


@pytest.mark.parametrize("make", MAKERS)
def test_an_npz_has_the_columns_of_the_store(tmp_path: Path, make: Any) -> None:
    path, out = make(tmp_path / "b"), tmp_path / "out.npz"
    result = run("export", path, out)
    found = read(out)
    says = json.loads(found.pop("diskreplay.json"))
    wanted = expected(path)
    assert_same(found, wanted)
    with diskreplay.open(path, access="read") as buffer:
        assert buffer.schema is not None
        assert (says["format"], says["capacity"]) == (1, buffer.capacity)
        assert says["schema"] == buffer.schema.to_plain()
        assert says["kind"] == buffer.stats()["kind"]
    assert result.stdout.startswith(f"{out}: {len(wanted['write_id']):,} transitions of {path}, ")
    assert result.stderr == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "out.npz"]


def test_the_settings_and_the_largest_priority_are_in_the_file(tmp_path: Path) -> None:
    run("export", many(tmp_path / "b"), tmp_path / "out.npz")
    says = json.loads(read(tmp_path / "out.npz")["diskreplay.json"])
    assert says["max_priority"] == 50.0
    assert says["settings"] == {
        "durability": "system", "commit_interval": "Infinity", "alpha": 0.7, "beta_start": 0.4,
        "beta_end": 1.0, "beta_frames": 77, "epsilon": 1e-6,
    }  # fmt: skip
    assert says["versions"]["diskreplay"] == diskreplay.__version__


def test_an_empty_store(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    path = stores.empty(tmp_path / "b")
    for form in ("npz", "parquet", "jsonl"):
        out = tmp_path / f"out.{form}"
        assert f"{out}: 0 transitions" in run("export", path, out).stdout
    assert list(read(tmp_path / "out.npz")) == ["diskreplay.json", "write_id", "link"]
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_many_chunks_are_one_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    import pyarrow.parquet as pq
    from diskreplay_tools.files import columns as file_columns
    from diskreplay_tools.files import writers

    path = many(tmp_path / "b", 300, 200)
    monkeypatch.setattr(file_columns, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(scan, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(writers, "_GROUP_BYTES", 4000)
    run("export", path, tmp_path / "out.npz")
    found = read(tmp_path / "out.npz")
    del found["diskreplay.json"]
    assert_same(found, expected(path))
    run("export", path, tmp_path / "out.parquet")
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups > 3
    found["write_id"] = pq.read_table(tmp_path / "out.parquet")["write_id"].to_numpy()
    assert_same(found, expected(path))


# parquet


@pytest.mark.parametrize("make", MAKERS)
def test_parquet_read_with_pyarrow(tmp_path: Path, make: Any) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="parquet needs pyarrow")
    path, out = make(tmp_path / "b"), tmp_path / "out.parquet"
    run("export", path, out)
    table, wanted = pq.read_table(out), expected(path)
    assert table.column_names == list(wanted)
    for name, values in wanted.items():
        field, column = table.schema.field(name), table[name].combine_chunks()
        assert json.loads(field.metadata[b"shape"]) == list(values.shape[1:])
        assert np.dtype(field.metadata[b"dtype"].decode()) == values.dtype
        flat = column.flatten() if hasattr(column.type, "value_type") else column
        found = np.ascontiguousarray(flat.to_numpy(zero_copy_only=False))
        if values.dtype.kind == "c":
            found = found.view(values.dtype)
        if values.dtype == np.float16:
            assert found.dtype == np.float32
        else:
            assert found.dtype == values.dtype
        np.testing.assert_array_equal(found.reshape(values.shape), values)
    if values.shape[1:]:
        assert column.type.list_size == np.prod(values.shape[1:])
    assert json.loads(table.schema.metadata[b"diskreplay"])["format"] == 1


def test_parquet_read_with_polars(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    pl = pytest.importorskip("polars", reason="polars reads it here")
    path, out = many(tmp_path / "b"), tmp_path / "out.parquet"
    run("export", path, out)
    frame, wanted = pl.read_parquet(out), expected(path)
    assert frame.columns == list(wanted)
    assert frame.schema["state"] == pl.Array(pl.UInt8, 18)
    assert frame.schema["action"] == pl.Array(pl.Float64, 2)
    assert frame.schema["reward"] == pl.Float32
    assert frame.schema["done"] == pl.Boolean
    assert frame.schema["big"] == pl.UInt64
    for name in ("write_id", "reward", "done", "count", "big", "flag", "priority"):
        np.testing.assert_array_equal(frame[name].to_numpy(), wanted[name], strict=True)
    for name in ("state", "action", "half"):
        found = frame[name].to_numpy().reshape(wanted[name].shape)
        np.testing.assert_array_equal(found, wanted[name])


# jsonl


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_every_line_of_a_jsonl_is_json(tmp_path: Path) -> None:
    path, out = many(tmp_path / "b"), tmp_path / "out.jsonl"
    run("export", path, out)
    rows = [json.loads(x, parse_constant=no_constant) for x in out.read_text().splitlines()]
    wanted = expected(path)
    assert len(rows) == 20
    for i, row in enumerate(rows):
        assert list(row) == list(wanted)
        for name, values in wanted.items():
            found = np.array(row[name], np.float64 if values.dtype.kind in "fc" else None)
            if values.dtype.kind == "c":
                np.testing.assert_array_equal(found[..., 0], values[i].real)
                np.testing.assert_array_equal(found[..., 1], values[i].imag)
            else:
                np.testing.assert_array_equal(found, values[i])
    words = {w for row in rows for w in [*row["action"], *row["half"]] if isinstance(w, str)}
    assert words == {"NaN", "-Infinity"}


# --where and --range

OPERATORS = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne,
    ">=": operator.ge, ">": operator.gt,
}  # fmt: skip
numbers = st.integers(-3, 420) | st.sampled_from([0.5, 12.125, 1e300, -0.1, 33.3])
conditions = st.tuples(
    st.sampled_from(["write_id", "reward", "done", "action", "priority"]),
    st.sampled_from(sorted(OPERATORS)),
    numbers,
)
ends = st.none() | st.integers(-200, 0) | st.integers(200, 420) | st.integers(-500, 500)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "b"
    with PrioritizedReplayBuffer(capacity=150, path=path) as buffer:
        buffer.extend(**columns(0, 400), priorities=np.arange(400) % 40 / 3)
    return path


@settings(max_examples=100)
@given(st.lists(conditions, max_size=3), st.none() | st.tuples(ends, ends))
def test_the_rows_are_those_of_a_naive_twin(
    filled: Path, wheres: list[tuple[str, str, Any]], span: tuple[Any, Any] | None
) -> None:
    out = filled.parent / "out.npz"
    arguments: list[object] = ["export", filled, out, "--force"]
    for name, sign, number in wheres:
        arguments += ["--where", f"{name} {sign}{number}"]
    taken = range(250, 400)
    if span is not None:
        low, high = span
        arguments += ["--range", f"{'' if low is None else low}:{'' if high is None else high}"]
        taken = range(400)[low:high]
    result = run(*arguments)
    whole = expected(filled)
    rows = []
    for i, write_id in enumerate(whole["write_id"]):
        if write_id in taken and all(
            OPERATORS[sign](
                float(whole[name][i]),
                float(np.float32(number)) if whole[name].dtype.kind == "f" and number < 1e38
                else number,
            )
            for name, sign, number in wheres
        ):  # fmt: skip
            rows.append(i)
    assert result.stdout.startswith(f"{out}: {len(rows)} transitions")
    live = [write_id for write_id in taken if 250 <= write_id < 400]
    assert result.stderr == "" if live else "live are the write ids 250 to 399" in result.stderr
    found = read(out)
    del found["diskreplay.json"]
    assert_same(found, {name: values[rows] for name, values in whole.items()})


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--where=reward", "'reward' is no condition: expected a field, one of"),
        ("--where=reward>=x", "'reward>=x' compares with 'x': expected a number"),
        ("--where=reward>nan", "compares with 'nan': expected a number"),
        ("--where=__import__('os')>1", "there is no field \"__import__('os')\""),
        ("--where=gain>1", "there is no field 'gain': the conditions are over single numbers: "
         "write_id, link, action, reward, done, priority"),
        ("--where=state>1", "'state' is float32[3]: the conditions are over single numbers"),
        ("--range=5", "'5' is no range: expected A:B"),
        ("--range=1:2:3", "'1:2:3' is no range"),
        ("--range=a:", "'a:' is no range"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_a_usage_error(
    filled: Path, tmp_path: Path, option: str, told: str
) -> None:
    result = run("export", filled, tmp_path / "x.npz", option, status=2)
    assert told in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())


# Outputs


def test_the_format_is_that_of_the_suffix_or_of_the_option(filled: Path, tmp_path: Path) -> None:
    run("export", filled, tmp_path / "x.JSONL")
    run("export", filled, tmp_path / "x.npz", "--format", "jsonl")
    assert (tmp_path / "x.JSONL").read_bytes() == (tmp_path / "x.npz").read_bytes()
    result = run("export", filled, tmp_path / "x.csv", status=2)
    assert "does not say its format: end it with .npz, .parquet, .jsonl" in result.stderr


def test_a_damaged_record_leaves_no_output(tmp_path: Path) -> None:
    path, out = stores.uniform(tmp_path / "b"), tmp_path / "x.npz"
    record = stores.stored(path, "transitions", 7)
    stores.change(path, "transitions", 7, record[:-1] + bytes([record[-1] ^ 1]))
    result = run("export", path, out, status=1)
    assert "Error: " in result.stderr
    assert "repair" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["b"]

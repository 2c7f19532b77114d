"""The commands with values that vary in size: text, bytes, arrays with lengths that are None."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import refused, run
from stores import varying

import diskreplay
from diskreplay import ReplayBuffer


def rows_of(path: Path) -> list[Any]:
    with diskreplay.open(path, access="read") as buffer:
        return list(buffer)


def test_jsonl_has_the_values(tmp_path: Path) -> None:
    path, out = varying(tmp_path / "b"), tmp_path / "out.jsonl"
    run("export", path, out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    rows = rows_of(path)
    assert [line["note"] for line in lines] == [row.note for row in rows]
    assert [line["tokens"] for line in lines] == [row.tokens.tolist() for row in rows]
    assert [line["points"] for line in lines] == [row.points.tolist() for row in rows]
    assert [base64.b64decode(line["blob"]) for line in lines] == [row.blob for row in rows]


def test_parquet_has_the_values_in_lists_of_any_size(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path, out = varying(tmp_path / "b"), tmp_path / "out.parquet"
    run("export", path, out, "--where", "action>=100")
    table = parquet.read_table(out)
    rows = [row for row in rows_of(path) if row.action >= 100]
    assert table["note"].to_pylist() == [row.note for row in rows]
    assert table["blob"].to_pylist() == [row.blob for row in rows]
    assert table["tokens"].to_pylist() == [row.tokens.tolist() for row in rows]
    flat = [row.points.reshape(-1).tolist() for row in rows]
    assert table["points"].to_pylist() == flat
    says = table.schema.field("points").metadata
    assert (says[b"dtype"], says[b"shape"]) == (b"<f4", b"[null, 3]")
    run("import", out, tmp_path / "new", "--capacity", 50)
    with diskreplay.open(tmp_path / "new") as new, diskreplay.open(path, access="read") as old:
        assert new.schema == old.schema
    for found, row in zip(rows_of(tmp_path / "new"), rows[-50:], strict=True):
        for name, value in row._asdict().items():
            assert type(getattr(found, name)) is type(value)
            np.testing.assert_array_equal(getattr(found, name), value, strict=True)
    assert diskreplay.verify(tmp_path / "new") == []


def test_complex_and_half_numbers_in_lists(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    schema = {"z": ("complex64", (2, None)), "h": ("float16", (None,))}
    with ReplayBuffer(5, path=tmp_path / "b", schema=schema) as buffer:
        buffer.push(0.0, 0, 0.0, 0.0, True, z=np.array([[1 + 2j], [3j]]), h=[0.5])
        buffer.push(0.0, 0, 0.0, 0.0, True, z=np.zeros((2, 0)), h=[])
    run("export", tmp_path / "b", tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table["z"].to_pylist() == [[1.0, 2.0, 0.0, 3.0], []]
    assert table["h"].to_pylist() == [[0.5], []]
    run("import", tmp_path / "out.parquet", tmp_path / "new")
    found = rows_of(tmp_path / "new")
    for row, wanted in zip(found, rows_of(tmp_path / "b"), strict=True):
        np.testing.assert_array_equal(row.z, wanted.z, strict=True)
        np.testing.assert_array_equal(row.h, wanted.h, strict=True)


SPOILT: dict[str, tuple[Any, str]] = {
    "note": ([None, *"abcdefghi"], "column 'note': row 0 has a null (expected str)"),
    "blob": ([*[b"x"] * 9, None], "column 'blob': row 9 has a null (expected bytes)"),
    "tokens": (
        [[1, 2], [], [3, None], *[[1]] * 7],
        "column 'tokens': row 2 has a null (expe",
    ),
    "points": (
        [[], [1.0] * 6, [1.0] * 4, *[[]] * 7],
        "row 2 has 4 numbers (expected a multiple",
    ),
}
TYPES = {"note": "str", "blob": "bytes", "tokens": "int32[None]", "points": "float32[None, 3]"}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_values_are_told(name: str, tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    run("export", varying(tmp_path / "b"), tmp_path / "x.parquet", "--range=-10:")
    table = parquet.read_table(tmp_path / "x.parquet")
    place, field = table.column_names.index(name), table.schema.field(name)

    def imported(column: Any, of: Any, out: str) -> str:
        parquet.write_table(table.set_column(place, of, column), tmp_path / "y.parquet")
        return refused("import", tmp_path / "y.parquet", tmp_path / out)

    values, told = SPOILT[name]
    said = imported(pa.array(values, field.type), field, "new")
    assert told in said
    assert f"--drop {name}" in said
    run("import", tmp_path / "y.parquet", tmp_path / "new", "--drop", name)
    other = pa.field(name, pa.list_(pa.list_(pa.int8())), metadata=field.metadata)
    said = imported(pa.array([[[1]]] * 10, other.type), other, "no")
    assert f"column '{name}': expected {TYPES[name]}, as export writes it (found list<" in said


@pytest.mark.parametrize(
    ("form", "shape", "message"),
    [
        ("npz", (None,), "the values of 'x' vary in size, and npz has columns of one shape"),
        ("parquet", (None, None), "'x' is uint8[None, None], and a list in parquet tells one"),
        ("parquet", (None, 0), "'x' is uint8[None, 0], and a list in parquet tells one"),
    ],
)
def test_a_format_that_does_not_have_them_refuses(
    tmp_path: Path, form: str, shape: Any, message: str
) -> None:
    pytest.importorskip("pyarrow")
    value = np.zeros([n or 0 for n in shape], "u1")
    with ReplayBuffer(5, path=tmp_path / "b", schema={"x": ("u1", shape)}) as buffer:
        buffer.push(0.0, 0, 0.0, 0.0, True, x=value)
    told = refused("export", tmp_path / "b", tmp_path / f"out.{form}")
    assert message in told
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_inspect_and_schema_show_them(tmp_path: Path) -> None:
    path = varying(tmp_path / "b")
    shown = run("inspect", path).stdout
    assert re.search(r"tokens +int32\[None\] .*varies", shown)
    last = run("inspect", path, "--last", "1").stdout
    assert "'text 149 text 149 " in last
    assert "... 149 bytes" in last
    plain = json.loads(run("inspect", path, "--last", "1", "--json").stdout)
    assert plain["transitions"][0]["fields"]["note"] == "text 149 " * 5
    told = run("schema", path).stdout
    fields: dict[str, Any] = eval(told)
    assert fields["points"] == ("float32", (None, 3))
    assert (fields["note"], fields["blob"]) == ("str", "bytes")
    with diskreplay.open(path, access="read") as buffer:
        schema = buffer.schema
    assert diskreplay.Schema(fields) == schema
    found = json.loads(run("schema", path, "--json").stdout)
    assert found["fields"][-1] == {
        "name": "note", "dtype": "str", "shape": [], "bytes": None,
        "log": True, "frame_axis": None, "codec": None,
    }  # fmt: skip


def test_a_text_of_a_stranger_is_shown_without_its_control_characters(tmp_path: Path) -> None:
    with ReplayBuffer(5, path=tmp_path / "b") as buffer:
        buffer.push("\x1b[2J\x07evil", 0, 0.0, "", True)
    shown = run("inspect", tmp_path / "b", "--last", "1").stdout
    assert r"'\x1b[2J\x07evil'" in shown
    assert "\x1b[2J" not in shown


def test_a_report_draws_their_lengths(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    schema = {"state": {"seen": ("float32", (None,)), "goal": str}, "action": ("int32", (None,))}
    with ReplayBuffer(100, path=tmp_path / "b", schema=schema) as buffer:
        for i in range(80):
            states = [{"seen": [j] * (j % 9), "goal": "g" * (j % 3)} for j in (i, i + 1)]
            buffer.push(states[0], [1] * (i % 4), 1.0, states[1], i % 10 == 9)
    run("report", tmp_path / "b", "--out", tmp_path / "out.html")
    page = (tmp_path / "out.html").read_text()
    assert "the lengths of its values" in page
    assert page.count("of any size") == 5


def test_stores_are_resized_and_merged(tmp_path: Path) -> None:
    path, other = varying(tmp_path / "b"), varying(tmp_path / "c")
    diskreplay.resize(path, 20)
    diskreplay.merge([path, other], tmp_path / "d")
    assert diskreplay.verify(tmp_path / "d") == []
    found = [row.note for row in rows_of(tmp_path / "d")]
    assert found == [row.note for row in [*rows_of(path), *rows_of(other)]]
    assert found[:20] == found[-20:]

"""Parts of nested observations in the log: the batches are those of whole records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from changed_values import fact
from nested_rows import NAMES, columns, numbers_of, row

import diskreplay
from diskreplay import ReplayBuffer, SchemaError


@pytest.mark.parametrize("log", [{"observations": "log"}, {"frame_axis": 0}, {"frame_axis": -1}])
def test_parts_may_be_in_the_log(log: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "b"
    with ReplayBuffer(30, path=path, seed=0, window_bytes=0, **log) as buffer:
        buffer.extend(**columns(0, 40))
        for number in range(40, 50):
            buffer.push(**row(number))
        buffer.flush()
        assert numbers_of(buffer.get(range(20, 50))).tolist() == list(range(20, 50))
        for _ in range(3):
            batch = buffer.sample(8)
            assert numbers_of(batch).tolist() == batch.indices.tolist()
        with buffer.batches(8, prefetch=2, readers=1, reuse=True) as batches:
            for _ in range(3):
                batch = next(batches)
                assert numbers_of(batch).tolist() == batch.indices.tolist()
    assert fact(path, "layout")["features"] == ["observation-log", "nested-fields", "links"]
    assert diskreplay.verify(path) == []
    with diskreplay.open(path) as buffer:
        assert numbers_of(buffer.get(range(20, 50))).tolist() == list(range(20, 50))
        logged = {field.name for field in buffer.schema.fields if field.log}
        assert logged == {name for name in NAMES if "state" in name}
        axis = log.get("frame_axis")
        assert buffer.schema["next_state.camera"].frame_axis == (1 if axis == -1 else axis)


def test_a_part_may_be_in_the_log_alone() -> None:
    camera = diskreplay.Field("state.camera", "uint8", (3, 4), frame_axis=0)
    buffer = ReplayBuffer(30, schema={"state": {"camera": camera}})
    buffer.extend(**columns(0, 20))
    logged = [field.name for field in buffer.schema.fields if field.log]
    assert logged == ["state.camera", "next_state.camera"]
    assert numbers_of(buffer.get(range(20))).tolist() == list(range(20))
    with pytest.raises(SchemaError, match=r"frame_axis is for .* \(found state.a: float32, next"):
        ReplayBuffer(10, frame_axis=0).push({"a": 1.0}, 0, 0.0, {"a": 2.0}, False)

"""Frames: values of logged fields as rows of bytes, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diskreplay import Field, Schema
from diskreplay.observations.frames import FrameKind, LoggedFields


def schema_of(state: Field, next_state: Field, *extra: Field) -> Schema:
    others = [Field("action", "i8"), Field("reward", "f4"), Field("done", "f4")]
    return Schema([state, next_state, *others, *extra])


@given(
    shape=hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4),
    dtype=st.sampled_from(["u1", "i2", "f4", "f8", "c8", "?"]),
    data=st.data(),
)
def test_values_come_back(shape: tuple[int, ...], dtype: str, data: st.DataObject) -> None:
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    field = Field("state", dtype, shape, log=True, frame_axis=axis)
    logged = LoggedFields(schema_of(field, Field("next_state", dtype, shape)))
    n = data.draw(st.integers(1, 3))
    numbers = np.arange(n * int(np.prod(shape))) % 251
    column = numbers.reshape(n, *shape).astype(field.dtype)
    [one] = logged.fields
    frames = one.frames_of(column)
    assert frames.shape == (n, field.frames, field.frame_bytes)
    source = frames.reshape(-1, field.frame_bytes)
    rows = np.arange(len(source)).reshape(n, field.frames)
    for places in (None, np.arange(n)[::-1]):
        back = np.zeros_like(column)
        one.write(back, places, source, rows)
        np.testing.assert_array_equal(back if places is None else back[places], column)


def test_a_frame_is_a_slice_along_the_axis() -> None:
    field = Field("state", "u1", (2, 3, 4), frame_axis=1)
    column = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    [one] = LoggedFields(schema_of(field, Field("next_state", "u1", (1,)))).fields
    for at in range(3):
        assert one.frames_of(column)[0, at].tolist() == column[0, :, at].reshape(-1).tolist()


def test_fields_of_one_size_and_codec_share_a_kind() -> None:
    schema = schema_of(
        Field("state", "u1", (4, 6), frame_axis=0),
        Field("next_state", "u1", (6,), log=True),
        Field("map", "u1", (6,), codec="lz4"),
        Field("goal", "f4", (2,), log=True),
    )
    logged = LoggedFields(schema)
    assert logged.kinds == [FrameKind(None, 6), FrameKind("lz4", 6), FrameKind(None, 8)]
    assert [one.kind for one in logged.fields] == [0, 0, 1, 2]
    assert logged.frames_in_row == 7
    assert schema.record_schema["state"].type == "int64[4]"
    assert schema.record_schema["next_state"].type == "int64"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"shape": (4, 2), "frame_axis": 2}, r"axis of the shape \(4, 2\).*found 2"),
        ({"shape": (4, 2), "frame_axis": "0"}, "found '0'"),
        ({"shape": (), "frame_axis": 0}, r"axis of the shape \(\)"),
        ({"shape": (0, 2), "frame_axis": 0}, r"axis of the shape \(0, 2\)"),
        ({"shape": (4,), "codec": "gzip"}, "lz4, zstd or None.*found 'gzip'"),
    ],
)
def test_refused_fields(arguments: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        Field("state", "u1", **arguments)


@pytest.mark.parametrize("name", ["reward", "done"])
def test_single_numbers_stay_in_the_record(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' cannot be in the log"):
        Field(name, "f4", (), codec="lz4")


def test_a_schema_keeps_where_its_fields_are() -> None:
    state = Field("state", "u1", (4, 8, 8), frame_axis=-3, codec="zstd")
    schema = schema_of(state, Field("next_state", "u1", (4, 8, 8), log=True))
    assert Schema.from_plain(schema.to_plain()) == schema
    assert schema["state"].place == "in the log, frame axis 0, codec zstd"
    assert repr(state).endswith("shape=(4, 8, 8), log=True, frame_axis=0, codec='zstd')")
    assert schema != schema_of(Field("state", "u1", (4, 8, 8)), schema["next_state"])

"""Fields whose values vary in size: text, bytes, and arrays with lengths that are None."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from diskreplay import Field, ReplayBuffer, Schema, SchemaError
from diskreplay.errors import DamageError
from diskreplay.schema.packing import MAX_VALUE_BYTES, packed, packed_column, unpacked

TEXT, BLOB, TOKENS = Field("prompt", str), Field("blob", bytes), Field("tokens", "int32", (None,))
POINTS = Field("points", "float32", (None, 3))
STANDARD = {"action": "int64", "reward": "float32", "done": "float32"}


def test_such_a_field_is_in_the_log_and_says_its_type() -> None:
    fields = [TEXT, BLOB, TOKENS, POINTS, Field("x", "uint8", (2, None, None), codec="zstd")]
    assert all(field.log and field.varies for field in fields)
    assert [field.type for field in fields] == [
        "str", "bytes", "int32[None]", "float32[None, 3]", "uint8[2, None, None]"
    ]  # fmt: skip
    assert Field("prompt", "str") == TEXT
    assert Field("blob", "bytes") == BLOB
    assert repr(TEXT) == "Field(name='prompt', dtype=dtype('<U'), shape=(), codec=None)"
    assert not Field("x", "f4", (3,), log=True).varies


def test_a_schema_keeps_them() -> None:
    schema = Schema(
        {**STANDARD, "state": str, "next_state": str, "tokens": ("int32", (None,)), "b": bytes}
    )
    assert Schema.from_plain(schema.to_plain()) == schema
    assert schema.to_plain()[0] == ["state", "str", [], {"frame_axis": None, "codec": None}]
    assert [schema.names[place] for place in schema.varying] == [
        "state", "next_state", "tokens", "b"
    ]  # fmt: skip
    assert schema.record_schema.payload_bytes == 4 * 8 + 8 + 4 + 4


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (("x", str, (3,)), {}, r"str has no shape \(found \(3,\)\): leave it away"),
        (("x", bytes, (None,)), {}, "bytes has no shape"),
        (("reward", "f4", (None,)), {}, "'reward' cannot vary in size: it is one number"),
        (("done", str), {}, "'done' cannot vary in size"),
        (("x", "u1", (None, 4)), {"frame_axis": 1}, "'x' varies in size, so it has no frame axis"),
        (("x", "f4", (None, -1)), {}, "negative length"),
        (("x", "f4", (None, 2**30)), {}, "expected at most 1073741824 bytes"),
    ],
)
def test_a_field_that_cannot_be_is_refused(
    arguments: tuple[Any, ...], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        Field(*arguments, **more)


ARRAYS = st.sampled_from(["i4", "f4", "u1", "f8", "c8", "b1", "i2"]).flatmap(
    lambda dtype: st.tuples(
        st.just(dtype),
        st.lists(st.integers(0, 4), min_size=1, max_size=3),
        st.lists(st.booleans(), min_size=3, max_size=3),
    )
)


@given(ARRAYS, st.data())
def test_arrays_are_packed_bit_for_bit(
    drawn: tuple[str, list[int], list[bool]], data: st.DataObject
) -> None:
    dtype, shape, open_axes = drawn
    open_axes[0] = True
    lengths = [None if is_open else n for n, is_open in zip(shape, open_axes, strict=False)]
    value = data.draw(arrays_of.arrays(dtype, tuple(shape)))
    field = Field("x", dtype, lengths)
    found = unpacked(field, packed(field, value))
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert found.tobytes() == value.tobytes()
    assert found.flags.writeable


@given(st.text(), st.binary())
def test_texts_and_bytes_are_packed_as_they_are(text: str, blob: bytes) -> None:
    if text.isascii() or text == text.encode(errors="ignore").decode():
        assert unpacked(TEXT, packed(TEXT, text)) == text
    assert unpacked(BLOB, packed(BLOB, blob)) == blob == packed(BLOB, bytearray(blob))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (TEXT, b"x", "'prompt': expected str (found b'x')"),
        (TEXT, 3, "'prompt': expected str (found 3)"),
        (TEXT, "\ud800", "'prompt' cannot be stored: 'utf-8' codec can't encode"),
        (BLOB, "x", "'blob': expected bytes (found 'x')"),
        (BLOB, [1], "'blob': expected bytes (found [1])"),
        (BLOB, bytes(MAX_VALUE_BYTES + 1), "has 67,108,865 bytes (expected at most 67,108,864"),
        (TOKENS, 3, "expected shape (None,), with any length in place of None (found ()"),
        (TOKENS, [[1]], "(found (1, 1), int64)"),
        (TOKENS, [0.5], "expected int32 (found float64)"),
        (TOKENS, [2**40], "values do not fit int32"),
        (TOKENS, "text", "expected numbers or bools"),
        (TOKENS, None, "field 'tokens' is None"),
        (TEXT, None, "field 'prompt' is None"),
        (POINTS, np.zeros((2, 4)), "expected shape (None, 3)"),
        (POINTS, np.zeros((2, 4)), "(found (2, 4), float64)"),
        (TOKENS, np.zeros((2**25,), "i4"), "expected at most 67,108,864 bytes"),
        (Field("x", "u1", (None, None)), np.zeros((0, 2**27)), "has the shape (0, 134217728)"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(field: Field, value: Any, message: str) -> None:
    if message.startswith("expected at most"):
        value = np.zeros(2**24 + 1, "i4")
    with pytest.raises(SchemaError, match=re.escape(message)):
        packed(field, value)


def test_an_empty_list_is_a_value() -> None:
    assert unpacked(TOKENS, packed(TOKENS, [])).shape == (0,)
    assert unpacked(POINTS, packed(POINTS, [])).shape == (0, 3)


def test_columns_come_as_lists_and_as_arrays() -> None:
    values = [np.arange(2), np.arange(5)]
    as_objects = np.empty(2, object)
    as_objects[:] = values
    for column in (values, tuple(values), as_objects, [[0, 1], range(5)]):
        found = [unpacked(TOKENS, content).tolist() for content in packed_column(TOKENS, column)]
        assert found == [[0, 1], [0, 1, 2, 3, 4]]
    assert len(packed_column(TOKENS, np.zeros((3, 7), "i4"))) == 3
    assert packed_column(TEXT, np.array(["a", "bc"])).tolist() == [b"a", b"bc"]
    for wrong in ("text", b"text", 3, None):
        with pytest.raises(SchemaError, match=r"expected a list of n values"):
            packed_column(TEXT, wrong)


@pytest.mark.parametrize(
    ("field", "content"),
    [
        (TOKENS, b""),
        (TOKENS, b"\1\0\0\0\0\0\0"),
        (TOKENS, b"\2\0\0\0\0\0\0\0" + bytes(4)),
        (TOKENS, b"\1\0\0\0\0\0\0\0" + bytes(5)),
        (TOKENS, b"\xff" * 8),
        (POINTS, b"\1\0\0\0\0\0\0\0" + bytes(8)),
        (Field("x", "u1", (None, None)), bytes(8) + b"\xff\xff\xff\xff\0\0\0\0"),
        (TEXT, b"\xff"),
    ],
)
def test_bytes_that_no_value_packs_to_are_damage(field: Field, content: bytes) -> None:
    with pytest.raises(DamageError):
        unpacked(field, content)


# Inference


def test_texts_and_bytes_are_inferred_and_lengths_are_not() -> None:
    buffer = ReplayBuffer(capacity=10)
    buffer.push("look", b"\0", 1.0, "see", False, note="a", tokens=[1, 2])
    assert [str(field) for field in buffer.schema.fields] == [  # type: ignore[union-attr]
        "state: str", "action: bytes", "reward: float32", "next_state: str", "done: float32",
        "note: str", "tokens: int64[2]",
    ]  # fmt: skip
    way_out = r'where lengths vary, say so with schema=\{"tokens": \("int64", \(None,\)\)\}'
    with pytest.raises(SchemaError, match=way_out):
        buffer.push("look", b"\0", 1.0, "see", False, note="a", tokens=[1, 2, 3])
    buffer = ReplayBuffer(capacity=10)
    columns = (["a", "b"], np.array([b"x", b"y"]), [0.0, 1.0], ["b", "c"], [0, 1])
    assert buffer.extend(*columns).tolist() == [0, 1]
    assert buffer.get([0, 1]).next_states == ["b", "c"]
    with pytest.raises(SchemaError, match=r'say so with schema=\{"tokens": \("float32", \(None,'):
        ReplayBuffer(capacity=10).extend(*columns, tokens=[[1], [1, 2]])
    with pytest.raises(SchemaError, match="'reward': expected numbers or bools"):
        ReplayBuffer(capacity=10).push("a", 0, "good", "b", False)


def test_a_part_of_a_dictionary_may_vary() -> None:
    buffer = ReplayBuffer(capacity=10, schema={"state": {"points": ("float32", (None, 3))}})
    for i in range(4):
        state = {"image": np.full((2, 2), i, "u1"), "instruction": f"pick up {i}", "points": []}
        buffer.push(state, i, 0.0, state, False)
    batch = buffer.get([3, 1])
    assert batch.states["instruction"] == ["pick up 3", "pick up 1"]
    assert [points.shape for points in batch.next_states["points"]] == [(0, 3), (0, 3)]
    assert batch.states["image"].shape == (2, 2, 2)

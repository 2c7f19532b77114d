"""Schema: what is inferred, what is converted, what is refused and in which words."""

from __future__ import annotations

import itertools
from typing import Any

import msgpack
import numpy as np
import pytest

from diskreplay import Field, Schema, SchemaError
from diskreplay.schema.schema import STANDARD_FIELDS, fields_of, infer_schema

DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"]
KINDS = {
    "state": ("f4", (2,)),
    "action": "i8",
    "reward": "f4",
    "next_state": ("f4", (2,)),
    "done": "f4",
}


def row(**changes: Any) -> dict[str, Any]:
    values = {"state": [1.0, 2.0], "action": 1, "reward": 0.5, "next_state": [3.0, 4.0], "done": 0}
    return {**values, **changes}


def infer(given: dict[str, Any] | None = None, lead: int = 0, **changes: Any) -> Schema:
    return infer_schema(row(**changes), fields_of(given or {}), lead=lead)


def stored(field: Field, value: Any) -> np.ndarray[Any, Any]:
    """Store one value as a push does and as an extend does, and return what both made of it."""
    by_row, by_column = np.zeros((2, 1, *field.shape), field.dtype)
    by_row[0] = field.accept(value)
    by_column[:] = field.convert([value], (1,))
    assert by_row.tobytes() == by_column.tobytes()
    return by_row[0]


def refuse(field: Field, value: Any, message: str) -> None:
    """A push and an extend refuse the value."""
    with pytest.raises(SchemaError, match=f"field '{field.name}'.*{message}"):
        field.accept(value)
    with pytest.raises(SchemaError, match=f"field '{field.name}'.*{message}"):
        field.convert([value], (1,))


# Fields


def test_a_field_is_a_float32_number_unless_said_otherwise() -> None:
    assert Field("x") == Field("x", np.dtype("f4"), ()) == Field("x", "float32")
    assert (str(Field("x")), str(Field("x", "u1", (2, 3)))) == ("x: float32", "x: uint8[2, 3]")
    assert Field("x", "f8", [2, 3]).payload_bytes == 48


def test_a_field_has_native_byte_order() -> None:
    assert Field("x", ">i4").dtype.isnative
    assert Field("x", ">i4") == Field("x", "<i4")


def test_a_name_that_is_no_identifier_is_refused() -> None:
    for name in ("", "two words", "1st", "a-b", None, 3, b"x"):
        with pytest.raises(SchemaError, match=r"name must be a Python identifier \(found"):
            Field(name)


def test_names_of_parameters_and_results_are_reserved() -> None:
    names = ["states", "actions", "rewards", "next_states", "dones", "weights", "indices"]
    for name in (*names, "priority", "priorities"):
        with pytest.raises(SchemaError, match=f"'{name}' cannot name a field"):
            Field(name)
        with pytest.raises(SchemaError, match=f"'{name}' cannot name a field"):
            infer(**{name: 1.0})


def test_a_dtype_that_is_no_number_is_refused() -> None:
    for dtype in ("O", "U3", "S3", "M8[s]", "V4", [("a", "f4")], np.clongdouble):
        with pytest.raises(SchemaError, match="field 'x': expected numbers or bools of a fixed sh"):
            Field("x", dtype)
    with pytest.raises(SchemaError, match=r"field 'x' has no usable dtype or shape: .*nonsense"):
        Field("x", "nonsense")


def test_a_shape_that_is_none_is_refused() -> None:
    for shape in (3, None, ["a"], [None]):
        with pytest.raises(SchemaError, match="field 'x' has no usable dtype or shape"):
            Field("x", "f4", shape)
    with pytest.raises(SchemaError, match=r"has a negative length in its shape \(2, -1\)"):
        Field("x", "f4", (2, -1))


def test_a_shape_with_a_length_that_is_no_whole_number_is_refused() -> None:
    for shape in ((2.5,), "12", (float("inf"),)):
        with pytest.raises(SchemaError, match="field 'x' has no usable dtype or shape"):
            Field("x", "f4", shape)


# Schemas


def test_the_standard_fields_come_first_and_the_extras_as_given() -> None:
    schema = Schema({"zeta": "f4", **dict(reversed(KINDS.items())), "alpha": "u1"})
    assert schema.names == (*STANDARD_FIELDS, "zeta", "alpha")
    assert schema.extra_names == ("zeta", "alpha")
    assert schema["alpha"] == Field("alpha", "u1")
    assert schema == Schema(schema.fields)
    assert hash(schema) == hash(Schema(schema.fields))
    assert schema != Schema(KINDS)
    assert Schema(KINDS) != Schema({**KINDS, "action": "i4"})
    assert repr(Schema(KINDS)) == (
        "Schema(state: float32[2], action: int64, reward: float32, "
        "next_state: float32[2], done: float32)"
    )


def test_each_standard_field_is_needed() -> None:
    for name in STANDARD_FIELDS:
        others = {other: kind for other, kind in KINDS.items() if other != name}
        found = ", ".join(others)
        with pytest.raises(SchemaError, match=rf"needs the field '{name}' \(found {found}\)"):
            Schema(others)


def test_a_name_given_twice_or_as_another_is_refused() -> None:
    with pytest.raises(SchemaError, match="field 'state' is given twice"):
        Schema([Field("state"), Field("action"), Field("state")])
    with pytest.raises(SchemaError, match=r"field 'a' is given .* under the name 'b'"):
        Schema({**KINDS, "b": Field("a")})


def test_a_field_given_as_another_tuple_than_dtype_and_shape_is_refused() -> None:
    for entry in [("f4", 3), ("f4",), ("f4", (3,), 1), ()]:
        with pytest.raises(SchemaError, match="state"):
            Schema({**KINDS, "state": entry})


def test_a_transition_may_take_one_gibibyte_and_no_more() -> None:
    rest = Schema(KINDS).payload_bytes - 8
    assert Schema({**KINDS, "state": ("u1", (2**30 - rest,))}).payload_bytes == 2**30
    with pytest.raises(SchemaError, match=r"takes 1073741825 bytes \(expected at most 1073741824"):
        Schema({**KINDS, "state": ("u1", (2**30 - rest + 1,))})


# Inference


def test_types_and_shapes_are_inferred_from_the_first_transition() -> None:
    for name, value, dtype, shape in [
        ("state", [0.1, 0.2, 0.3], "f4", (3,)),
        ("state", np.zeros(4, np.float16), "f4", (4,)),
        ("state", np.zeros((2, 3), ">f8"), "f4", (2, 3)),
        ("state", 1.5, "f4", ()),
        ("state", np.zeros((84, 84), np.uint8), "u1", (84, 84)),
        ("state", np.zeros(2, ">i2"), "i2", (2,)),
        ("state", [1, 2], "i8", (2,)),
        ("state", [True, False], "?", (2,)),
        ("state", np.zeros(2, np.complex64), "c8", (2,)),
        ("state", np.zeros((2, 0)), "f4", (2, 0)),
        ("action", 1, "i8", ()),
        ("action", np.int32(1), "i8", ()),
        ("action", np.zeros(3, np.uint8), "i8", (3,)),
        ("action", [0.5, 1.0], "f4", (2,)),
        ("action", np.float64(0.5), "f4", ()),
        ("action", True, "?", ()),
        ("reward", 1, "f4", ()),
        ("reward", True, "f4", ()),
        ("reward", np.float64(1), "f4", ()),
        ("done", True, "f4", ()),
        ("done", np.uint8(1), "f4", ()),
        ("more", 0.5, "f4", ()),
        ("more", 5, "i8", ()),
        ("more", np.uint8(5), "u1", ()),
        ("more", np.zeros(2, np.complex128), "c16", (2,)),
        ("more", np.bool_(True), "?", ()),
    ]:
        assert infer(**{name: value})[name] == Field(name, dtype, shape)
        columns = {other: [one, one] for other, one in row(**{name: value}).items()}
        assert infer(lead=1, **columns)[name] == Field(name, dtype, shape)


def test_next_state_is_what_state_is() -> None:
    schema = infer(state=np.zeros(3, np.uint8), next_state=[0.0, 1.0])
    assert schema["next_state"] == Field("next_state", "u1", (3,))
    with pytest.raises(SchemaError, match=r"'next_state': expected shape \(3,\) \(found \(2,\)"):
        schema.accept_row(row(state=np.zeros(3, np.uint8), next_state=[0.0, 1.0]))
    with pytest.raises(SchemaError, match=r"'next_state': expected uint8 \(found float64\)"):
        schema.accept_row(row(state=np.zeros(3, np.uint8), next_state=[0.0, 1.0, 2.0]))


def test_given_fields_win_and_the_others_are_inferred() -> None:
    schema = infer({"state": ("f8", (2,)), "action": "i2", "more": "u1"}, more=300)
    assert schema["state"] == Field("state", "f8", (2,))
    assert schema["next_state"] == Field("next_state", "f8", (2,))
    assert (schema["action"].dtype, schema["reward"].dtype) == (np.int16, np.float32)
    with pytest.raises(SchemaError, match=r"'more': values do not fit uint8 \(found 300"):
        schema.accept_row(row(more=300))
    assert infer({"next_state": ("f8", (5,))})["next_state"] == Field("next_state", "f8", (5,))
    assert infer({"next_state": ("f8", (5,))})["state"] == Field("state", "f4", (2,))


def test_a_given_field_that_no_transition_has_is_missed() -> None:
    schema = infer({"more": "u1"})
    assert schema.names == (*STANDARD_FIELDS, "more")
    with pytest.raises(SchemaError, match=r"expected the fields .*, more \(missing: more; new: n"):
        schema.accept_row(row())


# Values


def test_values_are_converted_where_nothing_but_precision_is_lost() -> None:
    for dtype, shape, value, expected in [
        ("f4", (), 1, 1.0),
        ("f4", (), True, 1.0),
        ("f4", (), np.int64(3), 3.0),
        ("f4", (), 0.1, np.float32(0.1)),
        ("f4", (), 2**24 + 1, 2.0**24),
        ("f2", (), np.float64(0.1), np.float16(0.1)),
        ("f8", (2,), [1, 2.5], [1.0, 2.5]),
        ("f4", (2,), np.array([0.1, 0.2]), np.array([0.1, 0.2], np.float32)),
        ("f4", (2,), np.array([0.1, 0.2], ">f4"), np.array([0.1, 0.2], np.float32)),
        ("f4", (2, 0), np.zeros((2, 0)), np.zeros((2, 0))),
        ("u1", (0,), [], []),
        ("u1", (), 255, 255),
        ("u1", (), np.int64(255), 255),
        ("i8", (), -(2**63), -(2**63)),
        ("u8", (), 2**64 - 1, 2**64 - 1),
        ("i4", (), np.uint64(7), 7),
        ("i2", (), np.array(5), 5),
        ("i8", (), True, 1),
        ("?", (), 1, True),
        ("?", (), 0.0, False),
        ("?", (2,), [0, 1], [False, True]),
        ("c8", (), 1.5, 1.5),
        ("c16", (), 1 + 2j, 1 + 2j),
    ]:
        found = stored(Field("x", dtype, shape), value)
        np.testing.assert_array_equal(found, np.asarray(expected, dtype), strict=True)


def test_values_that_do_not_fit_are_refused() -> None:
    for dtype, shape, value, message in [
        ("i8", (), 1.0, r"expected int64 \(found float64\)"),
        ("i8", (), np.float32(1), r"expected int64 \(found float32\)"),
        ("i8", (2,), [0.5, 1], r"expected int64 \(found float64\)"),
        ("f4", (), 1j, r"expected float32 \(found complex128\)"),
        ("?", (), 2, r"expected bool \(found int64\)"),
        ("?", (), 0.5, r"expected bool \(found float64\)"),
        ("?", (), float("nan"), r"expected bool \(found float64\)"),
        ("u1", (), 256, r"values do not fit uint8 \(found 256 to 256\)"),
        ("u1", (3,), [0, 300, -1], r"values do not fit uint8 \(found -1 to 300\)"),
        ("u1", (), np.int64(-1), r"values do not fit uint8 \(found -1 to -1\)"),
        ("i1", (), 128, r"values do not fit int8 \(found 128"),
        ("i8", (), 2**63, r"values do not fit int64 \(found 9223372036854775808"),
        ("i8", (), np.uint64(2**63), r"values do not fit int64 \(found 9223372036854775808"),
        ("u8", (), -1, r"values do not fit uint64 \(found -1"),
        ("i8", (), 2**64, r"expected numbers or bools of a fixed shape \(found object\)"),
        ("f4", (), "text", r"expected numbers or bools of a fixed shape \(found <U4\)"),
        ("f4", (), b"text", r"expected numbers or bools of a fixed shape \(found \|S4\)"),
        ("f4", (2,), [1.0, None], r"expected numbers or bools of a fixed shape \(found object\)"),
        ("i8", (), np.datetime64(0, "s"), r"of a fixed shape \(found datetime64\[s\]\)"),
        ("f4", (2,), [[1.0], [1.0, 2.0]], "is not an array of numbers: .*inhomogeneous"),
    ]:
        refuse(Field("x", dtype, shape), value, message)


def test_other_shapes_are_refused() -> None:
    for shape, value, found in [
        ((2,), [1.0, 2.0, 3.0], r"\(3,\), float64"),
        ((2,), 1.0, r"\(\), float64"),
        ((), np.zeros(1, np.float32), r"\(1,\), float32"),
        ((2, 3), np.zeros((3, 2), np.float32), r"\(3, 2\), float32"),
    ]:
        with pytest.raises(SchemaError, match=rf"'x': expected shape .* \(found {found}\)"):
            Field("x", "f4", shape).accept(value)
    with pytest.raises(SchemaError, match=r"expected shape \(4, 2\) \(found \(4, 3\), float64\)"):
        Field("x", "f4", (2,)).convert(np.zeros((4, 3)), (4,))


def test_none_and_dictionaries_are_refused_with_the_way_out() -> None:
    for name in ("x", "state", "done", "reward"):
        with pytest.raises(SchemaError, match=f"field '{name}' is None$"):
            Field(name).accept(None)
    with pytest.raises(
        SchemaError, match=r"'next_state' is None .*give the last observation, done"
    ):
        Field("next_state").accept(None)
    with pytest.raises(
        SchemaError, match=r"'next_state' is None .*give the last observation, done"
    ):
        infer().accept_row(row(next_state=None))
    with pytest.raises(SchemaError, match=r"field 'state' is None$"):
        infer(state=None)
    with pytest.raises(SchemaError, match="field 'state' is a dictionary: give each of its entr"):
        infer(state={"image": [1], "speed": 2})


def test_an_array_of_the_right_type_passes_untouched() -> None:
    array = np.zeros((2, 3), np.float32)
    assert Field("x", "f4", (2, 3)).accept(array) is array


def test_one_value_is_treated_like_a_column_of_it() -> None:
    values: list[Any] = [0, 1, -1, 255, 256, 60_001, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1]
    values += [0.0, -0.0, 1.0, 0.5, 65_504.0, 65_520.0, 1e39, float("nan"), float("inf"), 10**400]
    values += [True, False, 1j, None, "a", b"a", {}, [1], np.array(1), np.array(300, ">i4")]
    values += [np.dtype(dtype).type(1) for dtype in DTYPES]
    differences = []
    for name, dtype in itertools.product(("x", "reward", "done"), DTYPES):
        field = Field(name, dtype)
        for value in values:
            by_row, by_column = np.zeros((2, 1), dtype)
            refused = []
            try:
                by_row[0] = field.accept(value)
            except SchemaError:
                refused.append("the row")
            try:
                by_column[:] = field.convert([value], (1,))
            except SchemaError:
                refused.append("the column")
            if len(refused) == 1 or by_row.tobytes() != by_column.tobytes():
                differences.append(f"{field} = {value!r}: refused as {refused}")
    assert differences == []


def test_done_is_true_or_false() -> None:
    for field in (Field("done", dtype) for dtype in ("f4", "f8", "?")):
        for kind in (bool, int, float, np.bool_, np.float32, np.uint8, np.array):
            assert stored(field, kind(1)) == 1
            assert stored(field, kind(0)) == 0
        for value in (2, -1, 0.5, float("nan"), float("inf"), np.int64(2), np.array(0.5)):
            refuse(field, value, "expected (True or False, 1 or 0|bool)")
    several = np.array([0, 2], np.float32)
    refuse(Field("done", "f4", (2,)), several, "expected True or False, 1 or 0 .found ")


def test_a_reward_that_is_not_finite_is_refused() -> None:
    inf, nan = float("inf"), float("nan")
    for dtype, values in {
        "f4": [nan, inf, -inf, 1e39, -1e300, np.float32(nan), np.float64(inf), np.array(-inf)],
        "f2": [nan, 65_520.0, 70_000, np.float32(1e5)],
        "f8": [nan, inf, -inf, np.float16(inf)],
    }.items():
        message = (
            f"(expected finite numbers .found (nan|inf|-inf).: one such|beyond {np.dtype(dtype)})"
        )
        for value in values:
            refuse(Field("reward", dtype), value, message)


def test_a_reward_of_several_numbers_must_be_finite_in_each() -> None:
    field = Field("reward", "f4", (2,))
    refuse(field, np.array([1.0, np.nan], np.float32), "expected finite numbers")
    assert stored(field, np.array([1.0, 2.0], np.float32)).tolist() == [1.0, 2.0]


def test_a_large_reward_is_kept() -> None:
    assert stored(Field("reward"), 3.4e38) == np.float32(3.4e38)
    assert stored(Field("reward", "f2"), 65_504) == 65_504.0
    assert stored(Field("reward", "f8"), 1e308) == 1e308


def test_nan_and_infinity_elsewhere_are_kept_bit_for_bit() -> None:
    bits = np.array([0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x80000000], "u4")
    values = bits.view(np.float32)
    for name in ("state", "next_state", "action", "more"):
        assert stored(Field(name, "f4", (6,)), values).tobytes() == bits.tobytes()
        for value, pattern in zip(values, bits, strict=True):
            assert stored(Field(name), np.array(value)).tobytes() == pattern.tobytes()
        assert np.isnan(stored(Field(name), float("nan")))
        assert stored(Field(name), -float("inf")) == -np.inf


# Rows and columns


def test_a_row_is_returned_in_the_order_of_the_fields() -> None:
    schema = infer(more=7)
    accepted = schema.accept_row(dict(reversed(row(more=9).items())))
    assert [np.asarray(value).tolist() for value in accepted] == [[1, 2], 1, 0.5, [3, 4], 0, 9]


def test_missing_and_unknown_fields_are_named() -> None:
    values = row(more=1, other=2)
    del values["action"]
    message = r"expected the fields state, .*, done \(missing: action; new: more, other\)"
    with pytest.raises(SchemaError, match=message):
        infer().accept_row(values)
    with pytest.raises(SchemaError, match=message):
        infer().accept_columns({name: [value] for name, value in values.items()})
    renamed = {("Reward" if name == "reward" else name): one for name, one in row().items()}
    with pytest.raises(SchemaError, match=r"\(missing: reward; new: Reward\)"):
        infer().accept_row(renamed)


def test_columns_are_converted_and_have_one_length() -> None:
    schema = Schema(KINDS)
    columns = schema.accept_columns({name: [one] * 3 for name, one in row().items()})
    assert [column.shape for column in columns] == [(3, 2), (3,), (3,), (3, 2), (3,)]
    assert [column.dtype for column in columns] == [field.dtype for field in schema.fields]
    values = {name: [one] * 3 for name, one in row().items()}
    with pytest.raises(SchemaError, match=r"of one length \(found state 3, action 2, reward 3, "):
        schema.accept_columns({**values, "action": [1, 2]})
    with pytest.raises(SchemaError, match=r"found one number as reward\): push\(\)"):
        schema.accept_columns({**values, "reward": 1.0})
    with pytest.raises(SchemaError, match=r"'state': expected shape \(3, 2\) \(found \(3, 1\)"):
        schema.accept_columns({**values, "state": [[1.0]] * 3})
    empty = schema.accept_columns(
        {name: np.zeros((0, *Schema(KINDS)[name].shape)) for name in KINDS}
    )
    assert [len(column) for column in empty] == [0] * 5


# Plain


def test_plain_is_lists_strings_and_numbers_and_round_trips() -> None:
    extras = {f"x{i}": (dtype, (i % 3, 2)[: i % 3]) for i, dtype in enumerate(DTYPES)}
    schema = Schema({**KINDS, **extras})
    plain = schema.to_plain()
    assert plain[:3] == [["state", "<f4", [2]], ["action", "<i8", []], ["reward", "<f4", []]]
    found = Schema.from_plain(msgpack.unpackb(msgpack.packb(plain)))
    assert found == schema
    assert all(field.dtype.isnative for field in found.fields)


GOOD = [[name, "<f4", []] for name in STANDARD_FIELDS]


def test_a_malformed_plain_schema_is_refused() -> None:
    wrong: list[Any] = [None, 3, "text", b"text", {}, {"state": 1}, [], [1], [[]], GOOD[:4]]
    entries: list[Any] = [GOOD[0], ["x"], ["x", "<f4"], ["x", "<f4", [], 1], ["x", 7, []]]
    entries += [["x", dtype, []] for dtype in ("", "|O", "<U3", "<M8[s]", "(2,3)f4", "V8", "f3")]
    entries += [["x", "<f4", shape] for shape in (3, None, [-1], ["a"], [[1]], [float("nan")])]
    entries += [[name, "<f4", []] for name in ("", "a b", "states", 3)]
    entries += [["x", "<f4", [2**40, 2**40]]]
    for plain in (*wrong, *([*GOOD, entry] for entry in entries)):
        with pytest.raises(SchemaError, match="not a schema: "):
            Schema.from_plain(plain)


def test_a_plain_schema_that_numpy_or_int_choke_on_is_refused() -> None:
    for entry in (["x", "i4,(", []], ["x", ",", []], ["x", "<f4", [float("inf")]]):
        with pytest.raises(SchemaError, match="not a schema: "):
            Schema.from_plain([*GOOD, entry])

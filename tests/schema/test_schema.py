"""Schema: what is inferred, what is converted, what is refused and in which words."""

from __future__ import annotations

import itertools
from typing import Any

import msgpack
import numpy as np
import pytest

from diskreplay import DamageError, Field, Schema, SchemaError
from diskreplay.schema.inference import infer_schema
from diskreplay.schema.row_check import RowCheck
from diskreplay.schema.schema import STANDARD_FIELDS, fields_of

DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"]
KINDS = {
    "state": ("f4", (2,)), "action": "i8", "reward": "f4", "next_state": ("f4", (2,)), "done": "f4"
}  # fmt: skip
INF, NAN = float("inf"), float("nan")


def row(**changes: Any) -> dict[str, Any]:
    values = {"state": [1.0, 2.0], "action": 1, "reward": 0.5, "next_state": [3.0, 4.0], "done": 0}
    return {**values, **changes}


def infer(given: dict[str, Any] | None = None, lead: int = 0, **changes: Any) -> Schema:
    return infer_schema(row(**changes), fields_of(given or {}), lead=lead)


def accept(schema: Schema, values: dict[str, Any]) -> list[Any]:
    extra = {name: value for name, value in values.items() if name not in STANDARD_FIELDS}
    return schema.accept_row([values[name] for name in STANDARD_FIELDS], extra)


def pushed(field: Field, value: Any) -> Any:
    """Return what a push makes of one value."""
    return RowCheck([field]).row([value])[0]


def stored(field: Field, value: Any) -> np.ndarray[Any, Any]:
    """Store one value as a push does and as an extend does, and return what both made of it."""
    by_row, by_column = np.zeros((2, 1, *field.shape), field.dtype)
    found = pushed(field, value)
    assert type(found) is not np.ndarray or (found.dtype, found.shape) == (field.dtype, field.shape)
    by_row[0] = found
    by_column[:] = field.convert([value], (1,))
    assert by_row.tobytes() == by_column.tobytes()
    return by_row[0]


def refuse(field: Field, value: Any, message: str) -> None:
    """A push and an extend refuse the value."""
    for convert in (lambda: pushed(field, value), lambda: field.convert([value], (1,))):
        with pytest.raises(SchemaError, match=f"field '{field.name}'.*{message}"):
            convert()


# Names


def test_names_of_parameters_and_results_are_reserved() -> None:
    names = ["states", "actions", "rewards", "next_states", "dones", "weights", "indices"]
    for name in (*names, "priority", "priorities", "self"):
        for make in (lambda name=name: Field(name), lambda name=name: infer(**{name: 1.0})):
            with pytest.raises(SchemaError, match=f"'{name}' cannot name a field"):
                make()


# Schemas


def test_the_standard_fields_come_first_and_the_extras_as_given() -> None:
    schema = Schema({"zeta": "f4", **dict(reversed(KINDS.items())), "alpha": "u1"})
    assert schema.names == (*STANDARD_FIELDS, "zeta", "alpha")
    assert schema.extra_names == ("zeta", "alpha")
    assert schema["alpha"] == Field("alpha", "u1")
    assert schema == Schema(schema.fields)
    assert hash(schema) == hash(Schema(schema.fields))
    assert Schema(KINDS) not in (schema, Schema({**KINDS, "action": "i4"}))
    assert repr(Schema(KINDS)) == (
        "Schema(state: float32[2], action: int64, reward: float32, "
        "next_state: float32[2], done: float32)"
    )


@pytest.mark.parametrize("name", STANDARD_FIELDS)
def test_each_standard_field_is_needed(name: str) -> None:
    others = {other: kind for other, kind in KINDS.items() if other != name}
    with pytest.raises(SchemaError, match=rf"needs the field '{name}' \(found {', '.join(others)}"):
        Schema(others)


def test_what_is_no_schema_is_refused() -> None:
    with pytest.raises(SchemaError, match="field 'state' is given twice"):
        Schema([Field("state"), Field("action"), Field("state")])
    with pytest.raises(SchemaError, match=r"field 'a' is given .* under the name 'b'"):
        Schema({**KINDS, "b": Field("a")})
    for entry in [("f4", 3), ("f4",), ("f4", (3,), 1), ()]:
        with pytest.raises(SchemaError, match="'state': expected a dtype, or a dtype and a shape"):
            Schema({**KINDS, "state": entry})
    with pytest.raises(SchemaError, match=r"has 65534 fields \(expected at most 65533\)"):
        Schema({**KINDS, **{f"x{i}": "u1" for i in range(65_529)}})


def test_a_transition_may_take_one_gibibyte_and_no_more() -> None:
    rest = Schema(KINDS).payload_bytes - 8
    assert Schema({**KINDS, "state": ("u1", (2**30 - rest,))}).payload_bytes == 2**30
    with pytest.raises(SchemaError, match=r"takes 1073741825 bytes \(expected at most 1073741824"):
        Schema({**KINDS, "state": ("u1", (2**30 - rest + 1,))})


# Inference


INFERRED: dict[str, list[tuple[Any, str]]] = {
    "state": [
        ([0.1, 0.2, 0.3], "float32[3]"), (np.zeros(4, np.float16), "float32[4]"),
        (np.zeros((2, 3), ">f8"), "float32[2, 3]"), (1.5, "float32"),
        (np.zeros((84, 84), np.uint8), "uint8[84, 84]"), (np.zeros(2, ">i2"), "int16[2]"),
        ([1, 2], "int64[2]"), ([True, False], "bool[2]"),
        (np.zeros(2, np.complex64), "complex64[2]"), (np.zeros((2, 0)), "float32[2, 0]"),
    ],
    "action": [
        (1, "int64"), (np.int32(1), "int64"), (np.zeros(3, np.uint8), "int64[3]"),
        ([0.5, 1.0], "float32[2]"), (np.float64(0.5), "float32"), (True, "bool"),
    ],
    "reward": [(1, "float32"), (True, "float32"), (np.float64(1), "float32")],
    "done": [(True, "float32"), (np.uint8(1), "float32")],
    "more": [
        (0.5, "float32"), (5, "int64"), (np.uint8(5), "uint8"), (np.bool_(True), "bool"),
        (np.zeros(2, np.complex128), "complex128[2]"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", INFERRED)
def test_types_and_shapes_are_inferred_from_the_first_transition(name: str) -> None:
    for value, expected in INFERRED[name]:
        assert infer(**{name: value})[name].type == expected
        columns = {other: [one, one] for other, one in row(**{name: value}).items()}
        assert infer(lead=1, **columns)[name].type == expected
        assert infer(**{name: value})[name].dtype.isnative


def test_next_state_is_what_state_is() -> None:
    values = row(state=np.zeros(3, np.uint8), next_state=[0.0, 1.0])
    schema = infer(**values)
    assert schema["next_state"] == Field("next_state", "u1", (3,))
    with pytest.raises(SchemaError, match=r"'next_state': expected shape \(3,\) \(found \(2,"):
        accept(schema, values)
    with pytest.raises(SchemaError, match=r"'next_state': expected uint8 \(found float64\)"):
        accept(schema, values | {"next_state": [0.0, 1.0, 2.0]})


def test_given_fields_win_and_the_others_are_inferred() -> None:
    schema = infer({"state": ("f8", (2,)), "action": "i2", "more": "u1"}, more=300)
    assert schema["state"] == Field("state", "f8", (2,))
    assert schema["next_state"] == Field("next_state", "f8", (2,))
    assert (schema["action"].dtype, schema["reward"].dtype) == (np.int16, np.float32)
    with pytest.raises(SchemaError, match=r"'more': values do not fit uint8 \(found 300"):
        accept(schema, row(more=300))
    schema = infer({"next_state": ("f8", (5,))})
    assert schema["next_state"] == Field("next_state", "f8", (5,))
    assert schema["state"] == Field("state", "f4", (2,))


# Values


CONVERTED: dict[str, list[tuple[Any, Any]]] = {
    "float32": [
        (1, 1.0), (True, 1.0), (np.int64(3), 3.0), (0.1, np.float32(0.1)), (2**24 + 1, 2.0**24)
    ],
    "float32[2]": [(np.array([0.1, 2]), [0.1, 2]), (np.array([0.1, 2], ">f4"), [0.1, 2])],
    "float32[2, 0]": [(np.zeros((2, 0)), np.zeros((2, 0)))],
    "float16": [(np.float64(0.1), np.float16(0.1))],
    "float64[2]": [([1, 2.5], [1.0, 2.5])],
    "uint8": [(255, 255), (np.int64(255), 255)],
    "uint8[0]": [([], [])],
    "int64": [(-(2**63), -(2**63)), (True, 1)],
    "uint64": [(2**64 - 1, 2**64 - 1)],
    "int32": [(np.uint64(7), 7)],
    "int16": [(np.array(5), 5)],
    "bool": [(1, True), (0.0, False)],
    "bool[2]": [([0, 1], [False, True])],
    "complex64": [(1.5, 1.5)],
    "complex128": [(1 + 2j, 1 + 2j)],
}  # fmt: skip
KIND = r"expected numbers or bools of a fixed shape \(found"
REFUSED: dict[str, list[tuple[Any, str]]] = {
    "int64": [
        (1.0, r"expected int64 \(found float64\)"), (2**64, rf"{KIND} object\)"),
        (np.float32(1), r"expected int64 \(found float32\)"),
        (2**63, r"values do not fit int64 \(found 9223372036854775808"),
        (np.uint64(2**63), r"values do not fit int64 \(found 9223372036854775808"),
        (np.datetime64(0, "s"), rf"{KIND} datetime64\[s\]\)"),
    ],
    "int64[2]": [([0.5, 1], r"expected int64 \(found float64\)")],
    "uint64": [(-1, r"values do not fit uint64 \(found -1")],
    "uint8": [
        (256, r"values do not fit uint8 \(found 256 to 256\)"),
        (np.int64(-1), r"values do not fit uint8 \(found -1 to -1\)"),
    ],
    "uint8[3]": [([0, 300, -1], r"values do not fit uint8 \(found -1 to 300\)")],
    "int8": [(128, r"values do not fit int8 \(found 128")],
    "bool": [
        (2, r"expected bool \(found int64\)"), (0.5, r"expected bool \(found float64\)"),
        (NAN, r"expected bool \(found float64\)"),
    ],
    "float32": [
        (1j, r"expected float32 \(found complex128\)"), ("text", rf"{KIND} <U4\)"),
        (b"text", rf"{KIND} \|S4\)"), (np.longdouble(1), rf"{KIND} float1"),
        (1e39, r"a number is beyond float32 \(found 1e\+39 to 1e\+39\): schema= can set a wider"),
    ],
    "float32[2]": [
        ([1.0, None], rf"{KIND} object\)"),
        ([[1.0], [1.0, 2.0]], "is not an array of numbers: .*inhomogeneous"),
    ],
}  # fmt: skip


def field_of(type_: str) -> Field:
    """Return the field whose type, in one word, is this."""
    dtype, _, shape = type_.rstrip("]").partition("[")
    return Field("x", dtype, [int(length) for length in shape.split(",") if length])


@pytest.mark.parametrize("type_", CONVERTED)
def test_values_are_converted_where_nothing_but_precision_is_lost(type_: str) -> None:
    for value, expected in CONVERTED[type_]:
        field = field_of(type_)
        found = stored(field, value)
        np.testing.assert_array_equal(found, np.asarray(expected, field.dtype), strict=True)


@pytest.mark.parametrize("type_", REFUSED)
def test_values_that_do_not_fit_are_refused(type_: str) -> None:
    for value, message in REFUSED[type_]:
        refuse(field_of(type_), value, message)


@pytest.mark.parametrize(
    ("shape", "value", "found"),
    [
        ((2,), [1.0, 2.0, 3.0], r"\(3,\), float64"),
        ((2,), 1.0, r"\(\), float64"),
        ((), np.zeros(1, np.float32), r"\(1,\), float32"),
        ((2, 3), np.zeros((3, 2), np.float32), r"\(3, 2\), float32"),
    ],
)
def test_other_shapes_are_refused(shape: tuple[int, ...], value: Any, found: str) -> None:
    with pytest.raises(SchemaError, match=rf"'x': expected shape .* \(found {found}\)"):
        pushed(Field("x", "f4", shape), value)
    expected = r"expected shape \(4, 2\) \(found \(4, 3\), float64\)"
    with pytest.raises(SchemaError, match=expected):
        Field("x", "f4", (2,)).convert(np.zeros((4, 3)), (4,))


def test_none_and_a_dictionary_for_one_field_are_refused_with_the_way_out() -> None:
    for name in ("x", "state", "done", "reward"):
        with pytest.raises(SchemaError, match=f"field '{name}' is None$"):
            pushed(Field(name), None)
    with pytest.raises(SchemaError, match=r"'next_state' is None .*give the last observation, don"):
        pushed(Field("next_state"), None)
    with pytest.raises(SchemaError, match=r"field 'state' is None$"):
        infer(state=None)
    message = r"'state' is a dictionary \(expected numbers or an array, as the first transition or"
    with pytest.raises(SchemaError, match=message):
        pushed(Field("state"), {"image": [1], "speed": 2})


def test_an_array_of_the_right_type_passes_untouched() -> None:
    array = np.zeros((2, 3), np.float32)
    assert pushed(Field("x", "f4", (2, 3)), array) is array


def test_one_value_is_treated_like_a_column_of_it() -> None:
    values: list[Any] = [0, 1, -1, 255, 256, 60_001, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1]
    values += [0.0, -0.0, 1.0, 0.5, 65_504.0, 65_520.0, 1e39, NAN, INF, 10**400]
    values += [2**53 + 1, 2**54 + 2**30 + 1, -(2**60) - 1, 10**17 + 3]  # rounded once, not twice
    values += [True, False, 1j, None, "a", b"a", {}, [1], np.array(1), np.array(300, ">i4")]
    values += [np.dtype(dtype).type(1) for dtype in DTYPES]
    differences = []
    for name, dtype, value in itertools.product(("x", "reward", "done"), DTYPES, values):
        field, found = Field(name, dtype), []
        for convert in (pushed, lambda field, value: field.convert([value], (1,))):
            column = np.zeros(1, dtype)
            try:
                column[:] = convert(field, value)
                found.append(column.tobytes())
            except SchemaError:
                found.append(b"refused")
        if found[0] != found[1]:
            differences.append(f"{field} = {value!r}: {found}")
    assert differences == []


@pytest.mark.parametrize("dtype", ["f4", "f8", "?"])
def test_done_is_true_or_false(dtype: str) -> None:
    field = Field("done", dtype)
    for kind in (bool, int, float, np.bool_, np.float32, np.uint8, np.array):
        assert (stored(field, kind(1)), stored(field, kind(0))) == (1, 0)
    for value in (2, -1, 0.5, NAN, INF, np.int64(2), np.array(0.5)):
        refuse(field, value, "expected (True or False, 1 or 0|bool)")
    several = np.array([0, 2], np.float32)
    refuse(Field("done", "f4", (2,)), several, "expected True or False, 1 or 0 .found ")


@pytest.mark.parametrize(
    ("dtype", "values", "largest"),
    [
        ("f4", [NAN, INF, -INF, 1e39, -1e300, np.float32(NAN), np.float64(INF), np.array(-INF)],
         3.4e38),
        ("f2", [NAN, 65_520.0, 70_000, np.float32(1e5)], 65_504),
        ("f8", [NAN, INF, -INF, np.float16(INF)], 1e308),
    ],
)  # fmt: skip
def test_a_reward_that_is_not_finite_is_refused_and_a_large_one_kept(
    dtype: str, values: list[Any], largest: float
) -> None:
    one = f"(expected finite numbers .found (nan|inf|-inf).: one such|beyond {np.dtype(dtype)})"
    for value in values:
        refuse(Field("reward", dtype), value, one)
    assert stored(Field("reward", dtype), largest) == np.dtype(dtype).type(largest)
    several = Field("reward", dtype, (2,))
    refuse(several, np.array([1.0, np.nan], dtype), "expected finite numbers")
    assert stored(several, np.array([1.0, 2.0], dtype)).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ["state", "next_state", "action", "more"])
def test_nan_and_infinity_elsewhere_are_kept_bit_for_bit(name: str) -> None:
    bits = np.array([0x7FC00001, 0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x80000000], "u4")
    values = bits.view(np.float32)
    assert stored(Field(name, "f4", (6,)), values).tobytes() == bits.tobytes()
    for value, pattern in zip(values, bits, strict=True):
        assert stored(Field(name), np.array(value)).tobytes() == pattern.tobytes()
    assert np.isnan(stored(Field(name), NAN))
    assert stored(Field(name), -INF) == -np.inf


# Rows and columns


def test_a_row_is_returned_in_the_order_of_the_fields() -> None:
    values = row(more=9, most=8)
    found = accept(infer(more=7, most=0), dict(reversed(values.items())))
    assert [np.asarray(value).tolist() for value in found] == [[1, 2], 1, 0.5, [3, 4], 0, 9, 8]


def test_missing_and_unknown_fields_are_named() -> None:
    schema = infer({"given": "u1"}, more=1)  # a field that was given, and no transition has
    assert schema.names == (*STANDARD_FIELDS, "more", "given")
    message = r"expected the fields state, .*, given \(missing: given; new: MORE, other\)"
    for call in (schema.accept_row, schema.accept_columns):
        with pytest.raises(SchemaError, match=message):
            call(row().values(), {"MORE": [0], "other": [1], "more": [2]})
    with pytest.raises(SchemaError, match=r"\(missing: more, given; new: none\)"):
        accept(schema, row())
    with pytest.raises(SchemaError, match=r"\(missing: none; new: more\)"):
        accept(Schema(KINDS), row(more=1))


def test_columns_are_converted_and_have_one_length() -> None:
    schema = Schema(KINDS)

    def accepted(**changes: Any) -> list[np.ndarray[Any, Any]]:
        three = {name: [one] * 3 for name, one in row().items()}
        return schema.accept_columns({**three, **changes}.values(), {})

    assert [column.shape for column in accepted()] == [(3, 2), (3,), (3,), (3, 2), (3,)]
    assert [column.dtype for column in accepted()] == [field.dtype for field in schema.fields]
    for changes, message in [
        ({"action": [1, 2]}, r"of one length \(found state 3, action 2, reward 3, "),
        ({"reward": 1.0}, r"found one number as reward\): push\(\)"),
        ({"state": [[1.0]] * 3}, r"'state': expected shape \(3, 2\) \(found \(3, 1\)"),
    ]:
        with pytest.raises(SchemaError, match=message):
            accepted(**changes)
    empty = {field.name: np.zeros((0, *field.shape)) for field in schema.fields}
    assert [len(column) for column in accepted(**empty)] == [0] * 5


# Plain


def test_plain_is_lists_strings_and_numbers_and_round_trips() -> None:
    extras = {f"x{i}": (dtype, (i % 3, 2)[: i % 3]) for i, dtype in enumerate(DTYPES)}
    schema = Schema({**KINDS, **extras})
    plain = schema.to_plain()
    assert plain[:3] == [["state", "<f4", [2]], ["action", "<i8", []], ["reward", "<f4", []]]
    found = Schema.from_stored(msgpack.unpackb(msgpack.packb(plain)), "it")
    assert found == schema
    assert all(field.dtype.isnative for field in found.fields)


DEEP: list[Any] = []
for _ in range(1020):
    DEEP = [DEEP]
GOOD = [[name, "<f4", []] for name in STANDARD_FIELDS]
NO_SCHEMAS: list[Any] = [None, 3, "text", b"text", {}, {"state": 1}, [], [1], [[]], GOOD[:4]]
NO_FIELDS: list[Any] = [
    *(GOOD[0], ["x"], ["x", "<f4"], ["x", "<f4", [], 1], ["x", 7, []]),
    *(["x", t, []] for t in ("", "|O", "<U3", "<M8[s]", "(2,3)f4", "V8", "f3", "i4,(", ",", b"f4")),
    *(["x", "<f4", shape] for shape in (3, None, [-1], ["a"], [[1]], [NAN], [INF], [2**40, 2**40])),
    *([name, "<f4", []] for name in ("", "a b", "states", 3)),
    *([DEEP, "<f4", []], ["x", DEEP, []], ["x", "<f4", DEEP]),
]


@pytest.mark.parametrize("plain", [*NO_SCHEMAS, *([*GOOD, entry] for entry in NO_FIELDS)])
def test_a_malformed_plain_schema_is_refused(plain: Any) -> None:
    with pytest.raises(SchemaError, match="not a schema: "):
        Schema.from_plain(plain)
    with pytest.raises(DamageError, match=r"^the schema of runs/a is damaged: not a schema: ") as e:
        Schema.from_stored(plain, "runs/a")
    assert len(str(e.value)) < 300

"""Nesting: names tell where a part is, and every nested value comes back as it was given."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nested_values import VALUES, fields_in

from diskreplay import Field, Schema, SchemaError
from diskreplay.schema import infer_schema, leaves, mapped, root_of
from diskreplay.schema.names import MAX_DEPTH
from diskreplay.schema.nesting import flattened
from diskreplay.schema.schema import STANDARD_FIELDS, fields_of

OTHERS = {"action": "i8", "reward": "f4", "done": "f4"}
ROBOT = {"camera": ("u1", (4, 4)), "arm": {"angles": ("f4", (3,)), "grip": "f4"}}
CAMERA = np.arange(16, dtype=np.uint8).reshape(4, 4)
STATE = {"camera": CAMERA, "arm": {"angles": [1.0, 2.0, 3.0], "grip": 0.5}}
NAMES = ("state.camera", "state.arm.angles", "state.arm.grip")


def row(state: Any, next_state: Any = None, **more: Any) -> dict[str, Any]:
    after = state if next_state is None else next_state
    return {"state": state, "action": 1, "reward": 0.5, "next_state": after, "done": 0, **more}


def infer(state: Any, given: dict[str, Any] | None = None, lead: int = 0, **more: Any) -> Schema:
    return infer_schema(row(state, **more), fields_of(given or {}), lead=lead)


def names_of(schema: Schema, root: str = "state") -> list[str]:
    return [name for name in schema.names if root_of(name) == root]


def accept(schema: Schema, values: dict[str, Any]) -> Any:
    extra = {name: value for name, value in values.items() if name not in STANDARD_FIELDS}
    return schema.accept_row([values[name] for name in STANDARD_FIELDS], extra)


def test_rewards_and_dones_have_no_parts() -> None:
    for name in ("reward", "done"):
        fields = {**OTHERS, "state": "f4", "next_state": "f4"}
        del fields[name]
        with pytest.raises(
            SchemaError, match=rf"'{name}' cannot have parts \(found {name}.a\): it"
        ):
            Schema({**fields, f"{name}.a": "f4"})
        with pytest.raises(
            SchemaError, match=rf"'{name}' cannot have parts \(found {name}.a\): it"
        ):
            infer(1.0, **{name: {"a": 1}})


# Given schemas


def test_a_schema_may_be_given_nested_or_by_flat_names() -> None:
    nested = Schema({**OTHERS, "state": ROBOT, "next_state": ROBOT})
    assert nested.names == (*NAMES, "action", "reward", *(f"next_{n}" for n in NAMES), "done")
    assert not nested.is_flat
    flat = {field.name: (field.dtype, field.shape) for field in nested.fields}
    assert (
        Schema(flat) == nested == Schema(dict(sorted(flat.items(), key=lambda f: f[0] != NAMES[0])))
    )
    assert Schema(nested.fields) == Schema(nested) == Schema.from_plain(nested.to_plain()) == nested
    fields = {"camera": Field("state.camera", "u1", (4, 4)), "arm.angles": ("f4", (3,))}
    with pytest.raises(SchemaError, match=r"printable strings without .* since they name its"):
        fields_of({"state": fields})
    assert list(fields_of({"state": {"camera": fields["camera"]}})) == ["state.camera"]
    with pytest.raises(SchemaError, match=r"'state.camera' is given twice or under the name 'sta"):
        fields_of({"state": {"other": fields["camera"]}})
    for empty in ({}, {"a": {}}):
        with pytest.raises(SchemaError, match="has no parts at all"):
            fields_of({"state": empty})


def test_parts_of_tuples_come_in_order_however_they_are_given() -> None:
    fields = {f"x[{i}]": "f4" for i in (10, 2, 1, 0, *range(3, 10))}
    schema = Schema({**OTHERS, "state": "f4", "next_state": "f4", **fields})
    assert list(schema.names[5:]) == [f"x[{i}]" for i in range(11)]
    assert schema.extra_names == ("x",)
    values = tuple(float(i) for i in range(11))
    assert schema.nested(accept(schema, row(1.0, x=values)))[5] == values


class Box(SimpleNamespace):
    """What a space of Gymnasium has; one with parts has `spaces`."""


def test_spaces_with_parts_are_nested_fields() -> None:
    pixels, speed = Box(dtype=np.dtype("u1"), shape=(4, 4)), Box(dtype=np.dtype("f4"), shape=())
    space = Box(
        spaces={"camera": pixels, "arm": Box(spaces=(speed, pixels), dtype=None, shape=None)},
        dtype=None,
        shape=None,
    )
    found = fields_of({"state": space})
    assert list(found) == ["state.camera", "state.arm[0]", "state.arm[1]"]
    assert found["state.arm[1]"] == Field("state.arm[1]", "u1", (4, 4))


def test_spaces_of_gymnasium_with_parts_are_nested_fields() -> None:
    spaces = pytest.importorskip("gymnasium").spaces
    inner = spaces.Tuple([spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float64)])
    space = spaces.Dict(camera=spaces.Box(0, 255, (4, 4), np.uint8), arm=inner)
    found = fields_of({"state": space, "action": inner})
    assert {name: field.type for name, field in found.items()} == {
        "state.camera": "uint8[4, 4]", "state.arm[0]": "int64", "state.arm[1]": "float64[2]",
        "action[0]": "int64", "action[1]": "float64[2]",
    }  # fmt: skip
    schema = infer(space.sample(), {"state": space, "action": inner}, action=inner.sample())
    value = space.sample()
    state, action, *_ = schema.nested(accept(schema, row(value, action=inner.sample())))
    assert (state["camera"] == value["camera"]).all()
    assert [state["arm"][0], *state["arm"][1]] == [value["arm"][0], *value["arm"][1]]
    assert isinstance(action, tuple)


# First values


def test_the_first_values_tell_structure_types_and_shapes() -> None:
    schema = infer(STATE, action={"turn": 1, "speed": 0.5}, goal=(CAMERA, 1))
    assert {field.name: field.type for field in schema.fields} == {
        "state.camera": "uint8[4, 4]", "state.arm.angles": "float32[3]",
        "state.arm.grip": "float32", "action.turn": "int64", "action.speed": "float32",
        "reward": "float32", "next_state.camera": "uint8[4, 4]",
        "next_state.arm.angles": "float32[3]", "next_state.arm.grip": "float32", "done": "float32",
        "goal[0]": "uint8[4, 4]", "goal[1]": "int64",
    }  # fmt: skip
    many = mapped(STATE, lambda value: np.stack([np.asarray(value)] * 2))
    assert (
        infer(many, lead=1, action=[1, 2], reward=[0, 0], done=[0, 0]).fields[:3]
        == schema.fields[:3]
    )


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ((0.1, 0.2), ["x"]),  # numpy makes one array of numbers of these
        ((1, 0.5, True), ["x"]),
        ((np.zeros(3), np.ones(3)), ["x"]),
        (((1, 2), [3, 4]), ["x"]),
        ((), ["x"]),
        ((np.zeros((0, 2)), np.zeros((0, 2))), ["x"]),
        ((np.zeros((0, 2)), np.zeros(0)), ["x[0]", "x[1]"]),
        ([(1, 2), (3, 4)], ["x"]),
        ((CAMERA, 1), ["x[0]", "x[1]"]),
        ((np.zeros(3), np.zeros(2)), ["x[0]", "x[1]"]),
        (({"a": 1}, {"a": 2}), ["x[0].a", "x[1].a"]),
        ({"a": (1, 2), "b": (1, (2, 3))}, ["x.a", "x.b[0]", "x.b[1]"]),
        (OrderedDict(b=1, a=2), ["x.b", "x.a"]),
        (UserDict(b=UserDict(c=1)), ["x.b.c"]),
    ],
)
def test_a_tuple_nests_where_numpy_makes_no_one_array_of_it(value: Any, names: list[str]) -> None:
    assert list(flattened("x", value)) == names
    schema = infer(1.0, x=value)
    assert names_of(schema, "x") == names
    found = schema.nested(accept(schema, row(1.0, x=value)))[5]
    for part, expected in zip(leaves(found), flattened("x", value).values(), strict=True):
        np.testing.assert_array_equal(part, np.asarray(expected, np.asarray(part).dtype))


def test_a_given_schema_decides_what_nests() -> None:
    pair = (np.zeros(3), np.ones(3))
    schema = infer(pair, {"state[0]": ("f8", (3,)), "state[1]": ("f4", (3,))})
    assert [field.type for field in schema.fields[:2]] == ["float64[3]", "float32[3]"]
    assert names_of(schema, "next_state") == ["next_state[0]", "next_state[1]"]
    schema = infer(STATE, {"state": {"camera": ("f4", (4, 4))}})  # the others are inferred
    assert names_of(schema) == list(NAMES)
    assert schema["state.camera"].dtype == schema["next_state.camera"].dtype == np.float32
    schema = infer(STATE, {"next_state.camera": ("u2", (4, 4))})
    assert [schema[f"{name}.camera"].dtype for name in ("state", "next_state")] == ["u1", "u2"]
    with pytest.raises(
        SchemaError, match=r"'state': expected a dictionary with camera, .* ndarray"
    ):
        infer(CAMERA, {"state": {"camera": ("u1", (4, 4))}})
    with pytest.raises(SchemaError, match=r"'state': expected a tuple of 2, .* \(found dict\)"):
        infer(STATE, {"state[0]": "f4", "state[1]": "f4"})
    with pytest.raises(
        SchemaError, match=r"'state' is a dictionary \(expected numbers or an array"
    ):
        accept(infer(STATE, {"state": "f4", "next_state": "f4"}), row(STATE))


CIRCLE: dict[str, Any] = {}
CIRCLE["again"] = CIRCLE
DEEP: Any = 1.0
for _ in range(MAX_DEPTH):
    DEEP = {"d": DEEP}


class Silent(UserDict):  # type: ignore[type-arg]
    """A mapping that does not tell its entries."""

    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *(({key: 1}, "'x': the keys of a dictionary must be printable strings without") for key in
          ("a.b", "a[0]", "]", "", 3, None, ("a",), "a\n", "\x1b", "\udcff")),
        ({"a": {"b.c": 1}}, r"'x.a': the keys .* \(found 'b.c'\)"),
        ({}, r"'x' is an empty dictionary \(expected at least one key\)"),
        ({"a": {}}, "'x.a' is an empty dictionary"),
        (({},), r"'x\[0\]' is an empty dictionary"),
        ({"a": None}, "'x.a' is None$"),
        ({"a": 1 << 70}, "'x.a': expected numbers or bools"),
        ((np.timedelta64(1, "s"), 1), r"'x\[0\]': expected numbers or bools"),
        ((None, 1), r"'x\[0\]' is None$"),
        ({"a": [[1], [2, 3]]}, "'x.a' is not an array of numbers"),
        (CIRCLE, f"'x' is nested too deeply .expected at most {MAX_DEPTH} levels"),
        (DEEP, "'x' is nested too deeply"),
        (Silent(a=1), "'x' is no usable dictionary: not today"),
    ],
)  # fmt: skip
def test_what_cannot_be_nested_is_refused(value: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=f"field {message}"):
        infer(1.0, x=value)


def test_a_name_of_a_part_is_no_name_of_a_value() -> None:
    for name in ("x.a", "x[0]"):
        with pytest.raises(SchemaError, match="name must be a Python identifier"):
            infer(1.0, **{name: 1})
        with pytest.raises(SchemaError, match=rf"missing: x; new: {name[0]}"):
            accept(infer(1.0, x={"a": 1}), row(1.0, **{name: 1}))


# Later values


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"camera": CAMERA}, r"\(missing: state.arm.angles, state.arm.grip; new: none\)$"),
        ({**STATE, "speed": 1}, r"\(missing: none; new: state.speed\)$"),
        (
            {**STATE, "arm": {"angle": 1, "grip": 2}},
            r"missing: state.arm.angles; new: state.arm.angle\)",
        ),
        (
            {"camera": CAMERA, "ARM": 1},
            r"missing: state.arm.angles, state.arm.grip; new: state.ARM\)",
        ),
        ({**STATE, 3: 1}, r"'state': the keys of a dictionary .* \(found 3\)"),
        (CAMERA, r"'state': expected a dictionary with camera, arm, as .* \(found ndarray\)"),
        (None, "'state' is None$"),
        (
            {**STATE, "arm": (1, 2)},
            r"'state.arm': expected a dictionary with angles, grip, .*tuple",
        ),
        ({**STATE, "arm": None}, "'state.arm' is None$"),
        ({**STATE, "camera": {"left": 1}}, "'state.camera' is a dictionary "),
        (
            {**STATE, "camera": CAMERA[1:]},
            r"'state.camera': expected shape \(4, 4\) \(found \(3, 4\)",
        ),
        ({**STATE, "camera": CAMERA + 0.5}, "'state.camera': expected uint8"),
        (Silent(camera=1, arm=2), "'state' is no usable dictionary: not today"),
    ],
)
def test_a_part_that_does_not_fit_is_named(state: Any, message: str) -> None:
    schema = infer(STATE)
    with pytest.raises(SchemaError, match=message):
        accept(schema, row(state, STATE))


def test_a_part_of_the_next_state_is_named() -> None:
    schema = infer(STATE)
    values = row(STATE, next_state={"camera": CAMERA})
    with pytest.raises(
        SchemaError, match=r"missing: next_state.arm.angles, next_state.arm.grip; new"
    ):
        accept(schema, values)
    for nothing, name in ((None, ""), ({**STATE, "arm": None}, ".arm")):
        with pytest.raises(SchemaError, match=f"'next_state{name}' is None .*give the last observ"):
            accept(schema, {**values, "next_state": nothing})


def test_missing_places_are_named() -> None:
    schema = infer((CAMERA, 1.0, {"a": 1}))
    expected = r"expected the fields state\[0\], state\[1\], state\[2\].a "
    for state, message in [
        ((CAMERA, 1.0), r"\(missing: state\[2\].a; new: none\)"),
        ((CAMERA, 1.0, {"a": 1}, 5), r"\(missing: none; new: state\[3\]\)"),
        ((CAMERA, 1.0, {"b": 1}), r"\(missing: state\[2\].a; new: state\[2\].b\)"),
    ]:
        with pytest.raises(SchemaError, match=expected + message):
            accept(schema, row(state))
    with pytest.raises(SchemaError, match=r"'state': expected a tuple of 3, .*\(found ndarray\)"):
        accept(schema, row(CAMERA))
    assert len(accept(schema, row([CAMERA, 1.0, {"a": 1}]))) == 9  # as a list, where it is known


def test_any_mapping_in_any_order_is_taken_and_a_dictionary_comes_back() -> None:
    schema = infer(STATE)
    expected = schema.nested(accept(schema, row(STATE)))[0]
    arm = defaultdict(list, reversed(STATE["arm"].items()))
    for state in (UserDict(reversed(STATE.items())), OrderedDict(arm=arm, camera=CAMERA)):
        found = schema.nested(accept(schema, row(state)))[0]
        assert [type(found), type(found["arm"])] == [dict, dict]
        assert list(found) == ["camera", "arm"]
        np.testing.assert_equal(found, expected)
    wrong = defaultdict(list, camera=CAMERA, other=1)
    with pytest.raises(SchemaError, match=r"missing: state.arm.angles, .*; new: state.other\)"):
        accept(schema, row(wrong))
    assert list(wrong) == ["camera", "other"]  # asking for a key would have made it


def test_columns_have_one_length_in_all_parts() -> None:
    schema = infer(STATE)
    many = mapped(STATE, lambda value: np.stack([np.asarray(value)] * 3))
    others = [np.zeros(3, int), np.zeros(3)]
    columns = schema.accept_columns([many, *others, many, np.zeros(3)], {})
    assert [len(column) for column in columns] == [3] * 9
    short = {**many, "arm": {**many["arm"], "grip": [0.5]}}
    with pytest.raises(SchemaError, match=r"of one length \(found .*, state.arm.grip 1, action 3"):
        schema.accept_columns([short, *others, many, np.zeros(3)], {})
    rows = tuple({"camera": CAMERA} for _ in range(3))  # one dictionary a row
    schema_of_rows = infer(rows, lead=1, action=[0] * 3, reward=[0] * 3, done=[0] * 3)
    with pytest.raises(
        SchemaError, match=r"of one length .*: a nested field is a dictionary or tup"
    ):
        schema_of_rows.accept_columns([rows, *others, rows, np.zeros(3)], {})
    with pytest.raises(
        SchemaError, match=r"found one number as state.arm.grip, next_state.arm.grip"
    ):
        schema.accept_columns([STATE, *others, STATE, np.zeros(3)], {})


def test_the_structure_of_a_part_has_the_places_of_its_fields() -> None:
    schema = infer((CAMERA, {"a": 1, "b": 2}), x=1)
    assert schema.structure("state") == (0, {"a": 1, "b": 2})
    assert schema.structure("state[1]") == {"a": 1, "b": 2}
    assert [schema.structure(name) for name in ("state[1].b", "action", "x")] == [2, 3, 9]
    for name in (
        "stat",
        "state.a",
        "state[2]",
        "state[1].c",
        "state[0].x",
        "x[0]",
        "state.",
        3,
        None,
    ):
        assert schema.structure(name) is None


# All of it, for any structure


@given(VALUES, st.randoms())
def test_any_nested_value_round_trips(value: Any, random: Any) -> None:
    fields = fields_in("state", value)
    shuffled = random.sample(list(fields.items()), len(fields))
    schema = infer(value, dict(shuffled))
    assert sorted(names_of(schema)) == sorted(fields)
    again = Schema.from_plain(schema.to_plain())
    assert again == schema
    accepted = again.accept_row([value, 1, 0.5, value, 0], {})
    assert len(accepted) == len(schema.fields) == 2 * len(fields) + 3
    for place, field in enumerate(again.fields):
        assert again.structure(field.name) == place
        assert np.shape(accepted[place]) == field.shape
    for found in (again.nested(accepted)[0], again.nested(accepted)[3]):
        assert mapped(found, lambda part: None) == mapped(value, lambda part: None)
        assert again.flat([found, 1, 0.5, found, 0])[: len(fields)] == accepted[: len(fields)]
        for part, expected in zip(leaves(found), leaves(mapped_like(found, value)), strict=True):
            assert part is expected


def mapped_like(found: Any, value: Any) -> Any:
    """Return a value with its keys in the order of another one of the same structure."""
    if isinstance(found, dict):
        return {key: mapped_like(part, value[key]) for key, part in found.items()}
    if isinstance(found, tuple):
        return tuple(map(mapped_like, found, value))
    return value

"""Names: the name of a field says which part of a value it is, and nothing else can be a name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diskreplay import DamageError, Field, Schema, SchemaError
from diskreplay.schema import leaves, root_of
from diskreplay.schema.names import MAX_DEPTH, nested_names, steps_of
from diskreplay.schema.schema import STANDARD_FIELDS, fields_of


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("state", ("state",)),
        ("state.camera", ("state", "camera")),
        ("state.two words/é", ("state", "two words/é")),
        ("state.0[0].x", ("state", "0", 0, "x")),
        ("x[10][0]", ("x", 10, 0)),
        ("x" + ".y" * (MAX_DEPTH - 1), ("x", *"y" * (MAX_DEPTH - 1))),
    ],
)
def test_a_name_says_where_a_part_is(name: str, steps: tuple[Any, ...]) -> None:
    assert steps_of(name) == steps
    assert root_of(name) == steps[0]
    assert Field(name).name == name


@pytest.mark.parametrize(
    "name",
    [
        "x.", "x..y", "x.[0]", "x[", "x[]", "x[0", "x[a]", "x[-1]", "x[01]", "x[0]y", "x[1.5]",
        "x[٣]", "x[+1]", "x[0].", "x.a\n", "x.a\x1b[2J", "x.\u202e", "x.\udcff", f"x[{10**99}]",
    ],
)  # fmt: skip
def test_what_names_no_part_is_refused(name: str) -> None:
    for make in (lambda: Field(name), lambda: Field.stored(name, "f4", ())):
        with pytest.raises(SchemaError, match=r"part of a field is named as in state.camera or st"):
            make()


@pytest.mark.parametrize("name", [".a", "[0]", "", "x]", "1x.a", "a b.c", "a-b[0]", None, 3, b"x"])
def test_the_root_of_a_name_is_an_identifier(name: Any) -> None:
    with pytest.raises(SchemaError, match=r"name must be a Python identifier \(found"):
        Field(name)


def test_the_root_of_a_name_is_free_to_be_used() -> None:
    for name in ("states.a", "priority[0]", "self.x"):
        with pytest.raises(
            SchemaError, match=f"'{root_of(name)}' cannot name a field, it is a wor"
        ):
            Field(name)
    for name in ("_x.a", "class[0]"):
        with pytest.raises(
            SchemaError, match=f"'{root_of(name)}' cannot name a field, since batch"
        ):
            Field(name)
    assert Field("x._y").name == "x._y"  # names no element of a batch
    assert Field("x.class").name == "x.class"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["state", "state.a"], "'state' is a value, and 'state.a' a part of it"),
        (["state.a", "state"], "'state' is a value, and has parts"),
        (["state.a[0]", "state.a.b", "state.a"], "'state.a' is a value, and has parts"),
        (["state[0]", "state.a"], "'state' has both keys and places"),
        (["state.0", "state[0]"], "'state' has both keys and places"),
        (["state[1]"], r"'state\[1\]' is there without 'state\[0\]'"),
        (["state[0]", "state[2]"], r"'state\[2\]' is there without 'state\[1\]'"),
        (["state.a[0].b[7]"], r"'state.a\[0\].b\[7\]' is there without 'state.a\[0\].b\[0\]'"),
        (["state[999999999]"], r"'state\[999999999\]' is there without 'state\[0\]'"),
    ],
)
def test_names_that_contradict_each_other_are_refused(names: list[str], message: str) -> None:
    others = [name for name in STANDARD_FIELDS if name != "state"]
    message = f"names of the fields contradict each other: {message}$"
    with pytest.raises(SchemaError, match=message):
        Schema(dict.fromkeys([*names, *others], "f4"))
    with pytest.raises(SchemaError, match=message):
        fields_of(dict.fromkeys(names, "f4"))  # as a buffer takes them, before there is a schema
    plain = [[name, "<f4", []] for name in (*names, *others)]
    with pytest.raises(
        DamageError, match=f"the schema of it is damaged: not a schema: .*{message}"
    ):
        Schema.from_stored(plain, "it")


@given(
    st.lists(
        st.sampled_from(["x", "x.a", "x.a.b", "x[0]", "x[1]", "x.a[0]", "x[0].b"]), unique=True
    )
)
def test_names_contradict_each_other_or_nest_to_themselves(names: list[str]) -> None:
    try:
        nested = nested_names(names)
    except SchemaError:
        assert len(names) > 1 or names == ["x[1]"]
        return
    assert sorted(leaves(nested)) == sorted(names)
    assert nested_names(leaves(nested)) == nested

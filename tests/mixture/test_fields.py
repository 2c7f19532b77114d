"""The sources of a mixture have the same fields, or a sentence says which differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run
from common import columns

from diskreplay import MismatchError, Mixture, ReplayBuffer, SchemaError


def holding(n: int = 4, schema: Any = None, **extra: Any) -> ReplayBuffer:
    buffer = ReplayBuffer(10, schema=schema)
    buffer.extend(**columns(0, n), **extra)
    return buffer


def test_another_type_is_named_with_both_types() -> None:
    one, other = holding(), holding(schema={"action": "int32"})
    message = (
        r"field 'action' is int64 in source 'online' and int32 in source 'demos', and the sources "
        r"of a mixture have the same fields: .*--field action=action:DTYPE"
    )
    with pytest.raises(MismatchError, match=message):
        Mixture({"online": one, "demos": other})


def test_another_shape_is_named_with_a_way_out_that_can_change_it() -> None:
    buffers = {}
    for name, width in (("online", 4), ("demos", 3)):
        buffers[name] = ReplayBuffer(10)
        buffers[name].push(np.zeros(width), 0, 0.0, np.zeros(width), False)
    message = r"is float32\[4\] .* float32\[3\] .* of the other shape with diskreplay.transform"
    with pytest.raises(MismatchError, match=message):
        Mixture(buffers)


@pytest.mark.parametrize(("first", "second"), [("with", "without"), ("without", "with")])
def test_a_field_that_only_one_has_is_named_with_the_way_out(first: str, second: str) -> None:
    buffers = {"with": holding(x=np.zeros(4)), "without": holding()}
    message = (
        r"field 'x' is float32 in source 'with' and missing in source 'without', .* "
        r"--drop x\", or give it to the pushes of 'without'"
    )
    with pytest.raises(MismatchError, match=message):
        Mixture({first: buffers[first], second: buffers[second]})


def test_fields_that_are_known_later_are_compared_then() -> None:
    online = ReplayBuffer(10)
    mixture = Mixture({"demos": holding(), "online": online})
    assert mixture.sample(3).states.shape == (3, 3)
    online.extend(**columns(0, 4), x=np.zeros(4))
    for call in (lambda: mixture.sample(3), lambda: mixture.schema):
        with pytest.raises(MismatchError, match="field 'x' is float32 in source 'online' and miss"):
            call()
    assert mixture.draws == 1


def test_the_order_of_extra_fields_does_not_matter() -> None:
    x, y = np.arange(4.0), np.arange(4.0) + 10
    mixture = Mixture({"a": holding(x=x, y=y), "b": holding(y=y, x=x)}, {"a": 1, "b": 1})
    for n in (8, 2, 8):
        batch = mixture.sample(n)
        assert batch._fields[5:] == ("x", "y", "sources")
        assert (batch.x == batch.indices).all()
        assert (batch.y == batch.x + 10).all()
    assert Mixture({"b": mixture["b"], "a": mixture["a"]}).sample(2)._fields[5:7] == ("y", "x")


def test_where_fields_are_kept_does_not_matter(tmp_path: Path) -> None:
    log = ReplayBuffer(10, observations="log")
    log.extend(**columns(0, 4))
    batch = Mixture({"record": holding(), "log": log}).sample(8)
    assert batch.states.shape == (8, 3)


def test_a_field_called_sources_is_refused() -> None:
    with pytest.raises(
        SchemaError, match=r"source 'a' has a field 'sources'.*--field NAME=sources"
    ):
        Mixture({"a": holding(sources=np.zeros(4))})


def test_the_way_out_leads_out(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "a") as buffer:
        buffer.extend(**columns(0, 4), x=np.zeros(4))
    run("export", tmp_path / "a", tmp_path / "a.npz")
    words = ("--drop", "x", "--field", "action=action:int32")
    run("import", tmp_path / "a.npz", tmp_path / "b", *words)
    with Mixture({"a": holding(schema={"action": "int32"}), "b": tmp_path / "b"}) as mixture:
        assert mixture.sample(8).actions.dtype == np.int32

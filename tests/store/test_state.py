"""The state of a store, as plain data: the range of the observation log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stores import change, stored, uniform

import diskreplay
from diskreplay import DamageError
from diskreplay.records.seals import seal, unseal
from diskreplay.store import Identity, State
from diskreplay.store.state import ObservationRange

IDENTITY = Identity("uniform", 10, "")
RANGE = {"first": 3, "count": 9}


def plain_state(**facts: Any) -> dict[str, Any]:
    return {**State(bytes(16), {}).to_plain(IDENTITY), **facts}


def test_the_range_of_the_log_is_stored_once_there_is_one() -> None:
    plain = plain_state()
    assert "observations" not in plain
    assert State.parse(plain, IDENTITY).observations == ObservationRange(0, 0)
    state = State(bytes(16), {}, observations=ObservationRange(3, 9))
    assert state.to_plain(IDENTITY) == {**plain, "observations": RANGE}
    assert State.parse(state.to_plain(IDENTITY), IDENTITY) == state
    later = State.parse(plain_state(observations={**RANGE, "later": [1]}), IDENTITY)
    assert later.to_plain(IDENTITY)["observations"] == {**RANGE, "later": [1]}
    empty = State.parse(plain_state(observations={"first": 0, "count": 0}), IDENTITY)
    assert empty.to_plain(IDENTITY)["observations"] == {"first": 0, "count": 0}


ODD = [
    [], {}, 7, "", {"first": 0}, {"count": 3}, {"first": 4, "count": 3},
    *({**RANGE, "first": n} for n in (-1, 2.0, True, None, "3", 2**63)),
    *({**RANGE, "count": n} for n in (-1, 9.0, True, None, 2**62, 2**63, 2**64 - 1)),
]  # fmt: skip


@pytest.mark.parametrize("plain", ODD)
def test_what_is_no_range_is_damage(plain: Any) -> None:
    with pytest.raises(DamageError, match="range of observations"):
        State.parse(plain_state(observations=plain), IDENTITY)


def test_a_store_that_holds_none_is_refused_and_verified(tmp_path: Path) -> None:
    path = uniform(tmp_path / "s")
    state = unseal(stored(path, "meta", "state"), "state", "state")
    change(path, "meta", "state", seal("state", {**state, "observations": {"first": -1}}))
    with pytest.raises(DamageError, match="range of observations holds no number of first"):
        diskreplay.open(path)
    [fault] = diskreplay.verify(path)
    assert "range of observations" in fault

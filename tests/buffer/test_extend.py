"""`extend` in small portions: what it takes, refuses and stores is what `push` does, row by row."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from diskreplay import PrioritizedReplayBuffer, PriorityError, ReplayBuffer, Schema, SchemaError

Columns = dict[str, NDArray[Any]]
KINDS = [ReplayBuffer, PrioritizedReplayBuffer]
NAMES = ("state", "action", "reward", "next_state", "done")


def some(n: int, seed: int = 0) -> Columns:
    """n transitions as a vector environment gives them: 496 bytes each as they are stored."""
    rng = np.random.default_rng([seed, n])
    return {
        "states": rng.random((n, 60), np.float32),
        "actions": rng.integers(0, 4, n),
        "rewards": rng.standard_normal(n, np.float32),
        "next_states": rng.random((n, 60), np.float32),
        "dones": rng.random(n) < 0.5,
    }


FORMS: dict[str, Callable[[Columns], dict[str, Any]]] = {
    "arrays": dict,
    "dones as floats": lambda c: c | {"dones": c["dones"].astype(np.float32)},
    "dones as whole numbers": lambda c: c | {"dones": c["dones"].astype(np.int64)},
    "rewards of double precision": lambda c: c | {"rewards": c["rewards"].astype(np.float64)},
    "everything of another type": lambda c: {
        "states": c["states"].astype(np.float16),
        "actions": c["actions"].astype(np.int8),
        "rewards": c["rewards"].astype(np.float64),
        "next_states": c["next_states"].astype(">f4"),
        "dones": c["dones"].astype(np.uint8),
    },
    "lists": lambda c: {name: column.tolist() for name, column in c.items()},
    "lists of arrays": lambda c: {name: list(column) for name, column in c.items()},
    "tuples": lambda c: {name: tuple(column) for name, column in c.items()},
    "views": lambda c: {name: np.repeat(column, 2, axis=0)[::2] for name, column in c.items()},
}


def push_all(buffer: Any, given: dict[str, Any]) -> None:
    for row in zip(*given.values(), strict=True):
        buffer.push(*row)


@pytest.mark.parametrize("n", [1, 2, 9, 64, 65, 130])
@pytest.mark.parametrize("form", FORMS)
def test_rows_are_those_of_pushes(form: str, n: int) -> None:
    given = FORMS[form](some(n))
    with ReplayBuffer(1000, window_bytes=0) as buffer, ReplayBuffer(1000) as twin:
        for one in (buffer, twin):
            one.push(*(column[0] for column in some(1).values()))
        for lap in range(3):
            push_all(twin, given)
            expected = np.arange(1 + lap * n, 1 + (lap + 1) * n)
            ids = buffer.extend(**given)
            np.testing.assert_array_equal(ids, expected)
            assert ids.dtype == np.int64
        assert buffer.schema == twin.schema
        everything = np.arange(3 * n + 1)
        for found, wanted in zip(buffer.get(everything), twin.get(everything), strict=True):
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype
        buffer.check()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("given", [None, np.float32, list])
def test_priorities_are_those_of_pushes(n: int, access: str, given: Any, tmp_path: Path) -> None:
    priorities = None if given is None else [i + 0.5 for i in range(n)]
    with PrioritizedReplayBuffer(100, path=tmp_path / "b", access=access) as buffer:
        for lap in range(40):  # around the places of the window and of the ring
            taken = given if given in (None, list) else np.array(priorities, given)
            ids = buffer.extend(**some(n, lap), priorities=priorities if given is list else taken)
            assert ids.tolist() == (
                [-1] * n if access == "shared" else list(range(lap * n, lap * n + n))
            )
            if lap % 7 == 0:
                buffer.flush()
        buffer.flush()
        live = np.arange(max(0, 40 * n - 100), 40 * n)
        expected = [1.0 if priorities is None else priorities[i % n] for i in live]
        assert buffer.priorities(live).tolist() == expected
        rewards = np.concatenate([some(n, lap)["rewards"] for lap in range(40)])
        np.testing.assert_array_equal(buffer.get(live).rewards, rewards[live])
        buffer.check()


def test_a_single_row_keeps_the_bits_of_nan() -> None:
    state = np.array([0xFF800081], np.uint32).view(np.float32)  # a number of Python would be quiet
    with ReplayBuffer(10, schema={"state": "f4", "next_state": "f4"}) as buffer:
        for _ in range(3):  # before the schema is known, and after
            buffer.extend(state, [0], [0.0], state, [False])
            buffer.push(state[0], 0, 0.0, state.reshape(()), False)
        found = buffer.get(range(6))
        assert found.states.tobytes() == found.next_states.tobytes() == state.tobytes() * 6
        assert buffer.stats()["cuts"] == 0


def broken(name: str, at: int, value: Any) -> Callable[[Columns], dict[str, Any]]:
    def spoil(columns: Columns) -> dict[str, Any]:
        spoilt = columns[name].astype(np.float32)
        spoilt[at] = value
        return columns | {name: spoilt}

    return spoil


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Columns], dict[str, Any]]:
    return lambda columns: columns | {name: change(columns[name])}


REFUSED: dict[str, tuple[Callable[[Columns], dict[str, Any]], str]] = {
    "NaN at last": (broken("rewards", -1, np.nan), r"'reward'.*finite numbers \(found nan\)"),
    "an infinite reward": (broken("rewards", 0, -np.inf), r"finite numbers \(found -inf\)"),
    "a done of 2": (broken("dones", -1, 2), r"'done'.*1 or 0 \(found 2.0\)"),
    "a done of a half": (broken("dones", 0, 0.5), r"'done'.*\(found 0.5\)"),
    "a done of NaN": (broken("dones", -1, np.nan), r"'done'.*\(found nan\)"),
    "a reward beyond float32": (
        changed("rewards", lambda c: np.double(c) + 1e300), r"'reward': a number is beyond float32"
    ),
    "rewards of long precision": (
        changed("rewards", lambda c: c.astype(np.longdouble)), r"'reward': expected numbers"
    ),
    "floats as actions": (
        changed("actions", lambda c: c * 1.0), r"'action': expected int64 \(found float64\)"
    ),
    "objects": (
        changed("actions", lambda c: c.astype(object)),
        r"'action': expected numbers or bools of a fixed shape \(found object\)",
    ),
    "names": (changed("actions", lambda c: c.astype(str)), r"'action': expected numbers"),
    "one state for all": (
        changed("states", lambda c: c[0]), r"one length|expected shape \(\d+, 60\)"
    ),
    "states too wide": (
        changed("states", lambda c: np.repeat(c, 2, axis=1)),
        r"'state': expected shape \(\d+, 60\) \(found \(\d+, 120\)",
    ),
    "rewards as a table": (
        changed("rewards", lambda c: c[:, None]),
        r"'reward': expected shape \(\d+,\) \(found \(\d+, 1\)",
    ),
    "numbers alone": (
        lambda c: {name: np.array(column[0]) for name, column in c.items()} | {"states": 1.0},
        r"expected n values of each field",
    ),
    "no actions": (changed("actions", lambda c: None), r"'action' is None"),
    "fewer rewards": (changed("rewards", lambda c: c[:0]), r"expected columns of one length"),
}  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 100])
@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_whole(what: str, n: int) -> None:
    spoil, message = REFUSED[what]
    with ReplayBuffer(1000) as buffer:
        buffer.extend(**some(2))
        with pytest.raises(SchemaError, match=message):
            buffer.extend(**spoil(some(n)))
        assert buffer.count == 2
        np.testing.assert_array_equal(buffer.get([0, 1]).states, some(2)["states"])


@pytest.mark.parametrize("pair", [[np.inf, -np.inf], [-np.inf, np.inf], [np.nan, np.inf]])
def test_infinite_rewards_do_not_hide_each_other(pair: list[float]) -> None:
    with ReplayBuffer(10) as buffer:
        buffer.extend(**some(2))
        with pytest.raises(SchemaError, match="finite"):
            buffer.extend(**some(2) | {"rewards": np.array(pair, np.float32)})


FAR = [6e4, 65519.0, 65520.0, 3.4e38, 3.5e38, 1e300, -1e300, np.inf, np.nan, 2**63, -(2**63)]


@pytest.mark.parametrize("reward_type", ["float16", "float32"])
@pytest.mark.parametrize("field", ["state", "reward", "done"])
def test_a_few_numbers_of_a_wider_type_are_those_of_many(field: str, reward_type: str) -> None:
    # Few numbers are looked at by Python, and many by numpy: they must see the same.
    schema = {"state": "float32", "reward": reward_type}
    with ReplayBuffer(1000, schema=schema) as buffer:
        buffer.push(0.0, 0, 0.0, 0.0, False)
        for number in (0, 1, 0.5, *FAR):
            found = []
            for n in (2, 100):
                column = np.full(n, number)
                column[0] = 0
                columns = {f"{name}s": np.zeros(n, np.int64) for name in NAMES}
                try:
                    ids = buffer.extend(**columns | {f"{field}s": column})
                    found.append(repr(buffer.get(ids[-1:], fields=[field])))
                except SchemaError as error:
                    found.append(str(error))
            assert found[0] == found[1]
        buffer.check()


def test_states_that_are_single_numbers_are_not_taken_for_columns() -> None:
    with ReplayBuffer(10) as buffer:
        buffer.push(1.0, 0, 1.0, 2.0, False)
        with pytest.raises(SchemaError, match="push\\(\\) takes a single transition"):
            buffer.extend(*map(np.float32, (1, 0, 1, 2)), np.float32(0))
        with pytest.raises(SchemaError, match="push\\(\\) takes a single transition"):
            buffer.extend(*(np.array(x, t) for x, t in zip((1, 0, 1, 2, 0), "fqfff", strict=True)))
        assert buffer.extend(np.ones(1, "f"), np.ones(1, "q"), [1.0], [2.0], [True]).tolist() == [1]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_push_refuses_the_arguments_of_extend_by_name(is_first: bool) -> None:
    row = {"state": [0.0], "action": 0, "reward": 0.0, "next_state": [1.0], "done": False}
    with PrioritizedReplayBuffer(10) as buffer:
        if not is_first:
            buffer.push(**row)
        for plural, name in {
            "states": "state", "actions": "action", "rewards": "reward", "dones": "done",
            "next_states": "next_state", "truncateds": "truncated", "priorities": "priority",
        }.items():  # fmt: skip
            wanted = rf"push takes '{name}' as {name}, with one value \(found {plural}=\): give"
            with pytest.raises(SchemaError, match=wanted):
                buffer.push(**row, **{plural: [1.0]})
        with pytest.raises(SchemaError, match="extend takes 'priority' as priorities"):
            buffer.extend([[0.0]], [0], [0.0], [[1.0]], [False], priority=[1.0])
        assert len(buffer) == (not is_first)
    fields = {"truncateds": "float32"}
    with ReplayBuffer(10, schema=Schema({**dict.fromkeys(row, "float32"), **fields})) as buffer:
        values = dict.fromkeys(row, 0.0)
        buffer.push(**values, truncateds=1.0)  # a field that was declared is one
        buffer.push(**values, truncateds=1.0)
        assert buffer.get([0, 1]).truncateds.tolist() == [1.0, 1.0]


class Scaled(ReplayBuffer):
    """A buffer of a user that changes each row, by way of `extend`."""

    def push(  # type: ignore[override]
        self, state: Any, action: Any, reward: Any, next_state: Any, done: Any
    ) -> int:
        """Add one transition with a tenth of its reward."""
        return int(self.extend([state], [action], [reward / 10], [next_state], [done])[0])


@pytest.mark.parametrize("n", [1, 2])
def test_a_push_of_a_subclass_is_not_what_extend_calls(n: int) -> None:
    with Scaled(10) as buffer:
        assert [buffer.push([0.0], 0, 50.0, [0.0], False) for _ in range(3)] == [0, 1, 2]
        buffer.extend([[0.0]] * n, [0] * n, [50.0] * n, [[0.0]] * n, [False] * n)
        assert buffer.get(range(3 + n)).rewards.tolist() == [5.0] * 3 + [50.0] * n


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_no_priority_among_priorities_is_refused(kind: Any, n: int) -> None:
    with kind(10) as buffer:
        buffer.extend(**some(2))
        with pytest.raises(PriorityError):
            buffer.extend(**some(n), priorities=[None] * n)
        assert buffer.count == 2


def calls_of(work: Callable[[], object]) -> int:
    """How many functions a piece of work calls, those that are compiled among them."""
    seen = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal seen
        seen += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return seen


@pytest.mark.parametrize(
    "form", ["arrays", "dones as floats", "dones as whole numbers", "rewards of double precision"]
)
@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_are_little_work(kind: Any, access: str, form: str, tmp_path: Path) -> None:
    # `python -m bench run --only few` tells the times; here the functions that are called count.
    with kind(1000, path=tmp_path / "b", access=access, commit_interval=1e9) as buffer:
        row = [column[0] for column in some(1).values()]
        row[1:3] = int(row[1]), float(row[2])
        buffer.push(*row)
        pushes = calls_of(lambda: buffer.push(*row))
        calls = {}
        for n in (1, 4, 16):
            given = FORMS[form](some(n))  # rewards of vector environments are float64
            buffer.extend(**given)
            calls[n] = calls_of(lambda given=given: buffer.extend(**given))  # type: ignore[misc]
    assert calls[1] <= 3 * pushes
    assert calls[4] <= 2.5 * pushes
    assert calls[16] <= 0.4 * 16 * pushes

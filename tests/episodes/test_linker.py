"""Linker: against a twin of plain Python, over refused calls, several envs and their cuts."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupted import interrupted_at

from diskreplay import ArgumentError, EpisodeWarning, ReplayBuffer, Schema
from diskreplay.episodes import Linker
from diskreplay.episodes import linker as linker_file


@pytest.fixture(scope="module", params=[0, 16], ids=["vectorised", "few"], autouse=True)
def few_rows(request: pytest.FixtureRequest) -> Iterator[None]:
    """Rows are linked one by one up to this number of them: both ways give the same links."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linker_file, "_FEW_ROWS", request.param)
        yield


STATE = ("float32", (2,))
SCHEMAS = {
    "flat": Schema(
        {"state": STATE, "action": "i8", "reward": "f4", "next_state": STATE, "done": "f4"}
    ),
    "numbers": Schema(
        {"state": "f4", "action": "i8", "reward": "f4", "next_state": "f4", "done": "f4"}
    ),
    "nested": Schema(
        {
            "state": {"a": "f8", "b": ("c16", (1,)), "words": str},
            "action": "i8",
            "reward": "f4",
            "next_state": {"a": "f8", "b": ("c16", (1,)), "words": str},
            "done": "?",
        }
    ),
    "others": Schema(
        {"state": STATE, "action": "i8", "reward": "f4", "next_state": ("f4", (3,)), "done": "f4"}
    ),
}


def value(kind: str, number: int) -> Any:
    if kind == "flat":
        return np.array([number, -0.0], np.float32)
    if kind == "numbers":
        return float(number)
    if kind == "nested":
        return {"a": 0.5, "b": [1j if number else 2], "words": "x" * number}
    return np.full(2, number, np.float32)


def as_row(kind: str, state: int, next_state: int, done: bool) -> tuple[Any, ...]:
    after = np.full(3, next_state, np.float32) if kind == "others" else value(kind, next_state)
    return value(kind, state), 0, 0.0, after, done


def as_columns(kind: str, rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    columns: list[Any] = [list(column) for column in zip(*rows, strict=True)]
    for at in (0, 3):
        if isinstance(columns[at][0], dict):
            columns[at] = {name: [v[name] for v in columns[at]] for name in ("a", "b", "words")}
    return tuple(columns)


class Twin:
    """What is known of each env, by plain comparison of numbers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.last: dict[int | None, tuple[int, bool, int]] = {}
        self.cuts = 0

    def push(self, number: int, env: int | None, state: int, after: int, ends: bool) -> int:
        link = 0
        if env in self.last:
            before, goes_on, expected = self.last[env]
            link = number - before
            if goes_on and env is None and (state != expected or self.kind == "others"):
                self.cuts += 1
                goes_on = False
            link = link if goes_on else -link
        self.last[env] = number, not ends, after
        return link


def end_or_refused(linker: Linker, count: int, env: int | None) -> None:
    """End the episode of an env, which is refused where only others have rows."""
    with contextlib.suppress(ArgumentError):
        linker.end_episode(count, env)


ROWS = st.tuples(
    st.integers(0, 1), st.integers(0, 1), st.booleans(), st.sampled_from([False, False, True])
)  # state, next_state, done, truncated
ENV = st.one_of(st.none(), st.integers(0, 2))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), ENV, ROWS, st.booleans()),
        st.tuples(
            st.just("extend"),
            st.one_of(ENV, st.just("each")),
            st.lists(st.tuples(ROWS, st.integers(0, 3)), min_size=1, max_size=9),
            st.booleans(),
        ),
        st.tuples(st.just("end"), ENV),
        st.just(("forget",)),
    ),
    max_size=25,
)


@pytest.mark.filterwarnings("ignore::diskreplay.EpisodeWarning")
@pytest.mark.parametrize("kind", SCHEMAS)
@given(steps=STEPS)
def test_links_are_those_of_the_twin(kind: str, steps: list[Any]) -> None:
    linker, twin, schema, count = Linker(), Twin(kind), SCHEMAS[kind], 0
    for name, *arguments in steps:
        if name == "forget":
            linker.forget()
            twin = Twin(kind)
        elif name == "end":
            [env] = arguments
            end_or_refused(linker, count, env)
            if env in twin.last:
                twin.last[env] = (twin.last[env][0], False, 0)
        else:
            env, given_rows, is_refused = arguments
            if name == "push":
                state, after, done, truncated = given_rows
                row = schema.accept_row(as_row(kind, state, after, done), {})
                found = [linker.push(count, schema, row, truncated, env)]
                rows = [(env, given_rows)]
            else:
                each = [of_row for _, of_row in given_rows]
                rows = [(of_row if env == "each" else env, row) for row, of_row in given_rows]
                plain = [as_row(kind, row[0], row[1], row[2]) for _, row in rows]
                columns = schema.accept_columns(as_columns(kind, plain), {})
                truncateds = np.array([row[3] for _, row in rows])
                envs = np.array(each) if env == "each" else env
                found = linker.extend(count, schema, columns, truncateds, envs).tolist()
            if is_refused:  # or interrupted: the rows never are there
                continue
            for (of_row, (state, after, done, truncated)), link in zip(rows, found, strict=True):
                assert link == twin.push(count, of_row, state, after, done or truncated)
                count += 1
        assert linker.cuts(count) == twin.cuts
        assert sorted(linker.numbers(count)) == sorted(last[0] for last in twin.last.values())


def flat(state: float, after: float, done: bool = False) -> list[Any]:
    schema = SCHEMAS["flat"]
    return schema.accept_row(as_row("flat", int(state), int(after), done), {})


def test_states_are_compared_bit_for_bit() -> None:
    schema = SCHEMAS["flat"]
    nan, other_nan = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    pairs = [
        ([nan, 0], [nan, 0], True),
        ([nan, 0], [other_nan, 0], False),
        ([0.0, 1], [-0.0, 1], False),
        ([1, 2], [1, 2], True),
    ]
    for after, state, goes_on in pairs:
        row = schema.accept_row(([0, 0], 0, 0.0, np.array(after, np.float32), False), {})
        then = schema.accept_row((np.array(state, np.float32), 0, 0.0, [0, 0], False), {})
        linker = Linker()
        linker.push(0, schema, row, False, None)
        if goes_on:
            assert linker.push(1, schema, then, False, None) == 1
        else:
            with pytest.warns(EpisodeWarning):
                assert linker.push(1, schema, then, False, None) == -1
        linker = Linker()
        columns = [np.stack(column) for column in zip(row, then, strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EpisodeWarning)
            assert linker.extend(0, schema, columns, None, None).tolist() == [0, 2 * goes_on - 1]


def test_the_array_of_a_user_may_change_after_the_call() -> None:
    linker, schema, after = Linker(), SCHEMAS["flat"], np.ones(2, np.float32)
    linker.push(0, schema, [after, 0, 0.0, after, False], False, None)
    after += 1
    assert linker.push(1, schema, [np.ones(2, np.float32), 0, 0, after, False], False, None) == 1


@pytest.mark.parametrize("dtype", ["?", "float32"])
def test_done_may_be_an_array_of_one(dtype: str) -> None:
    types = {"state": STATE, "action": "i8", "reward": "f4", "next_state": STATE}
    schema = Schema({**types, "done": (dtype, (1,))})
    with ReplayBuffer(10, schema=schema) as buffer:
        for state, done in ((0, [False]), (1, [True]), (5, [False]), (6, [True])):
            after = value("flat", state + 1)
            buffer.push(value("flat", state), 0, 0.0, after, np.array(done, dtype))
        assert [episode.dones.tolist() for episode in buffer.episodes()] == [[[0], [1]]] * 2
        assert buffer.stats()["cuts"] == 0


def test_the_first_cut_warns_and_changes_nothing_where_that_is_an_error() -> None:
    linker, schema = Linker(), SCHEMAS["flat"]
    linker.push(0, schema, flat(0, 1), False, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(EpisodeWarning, match=r"truncated=True .* env=0, 1"):
                linker.push(1, schema, flat(0, 1), False, None)
            assert linker.cuts(1) == 0
        assert linker.push(1, schema, flat(1, 1), False, None) == 1
    with pytest.warns(EpisodeWarning):
        assert linker.push(2, schema, flat(0, 1), False, None) == -1
    for number in (3, 4):  # once
        assert linker.push(number, schema, flat(0, 1), False, None) == -1
    assert linker.cuts(4) == 2  # the last was not done


def test_far_rows_of_an_env_are_not_linked() -> None:
    linker, schema = Linker(), SCHEMAS["flat"]
    columns = [np.stack([v, v]) for v in flat(0, 1)]
    for number, distance in ((2**31 - 1, 2**31 - 1), (2**32 - 1, 0), (2**33, 0)):
        linker.forget()
        linker.push(0, schema, flat(0, 1), False, 4)
        assert linker.push(number, schema, flat(0, 1), False, 4) == distance
        linker.forget()
        linker.push(0, schema, flat(0, 1), False, 4)
        assert linker.extend(number, schema, columns, None, 4).tolist() == [distance, 1]


def test_the_number_of_envs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linker_file, "MAX_ENVS", 64)
    linker, schema = Linker(), SCHEMAS["flat"]
    for env in range(64):
        linker.push(env, schema, flat(0, 1), False, env)
    assert linker.numbers(64).size == 64
    linker.push(64, schema, flat(0, 1), False, 0)
    linker.push(65, schema, flat(0, 1), False, 64)  # the oldest four and one are forgotten
    assert sorted(linker.numbers(66)) == [*range(6, 66)]
    assert linker.cuts(66) == 5
    assert linker.push(66, schema, flat(0, 1), False, 1) == 0
    assert linker.push(67, schema, flat(0, 1), False, 0) == 3
    columns = [np.stack([v] * 100) for v in flat(0, 1)]
    linker.extend(68, schema, columns, None, np.arange(1000, 1100))
    assert sorted(linker.numbers(168)) == [*range(108, 168)]


@pytest.mark.parametrize("n", [4, 100])
def test_rows_of_one_env_of_which_none_continues_another_are_told_once(n: int) -> None:
    schema = SCHEMAS["flat"]
    apart = [np.stack([v] * n) for v in flat(0, 1)]
    linker = Linker()
    linker.extend(0, schema, apart, np.ones(n, np.bool_), 4)  # each is an episode of its own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(EpisodeWarning):
            linker.extend(n, schema, apart, None, 4)
    with pytest.warns(EpisodeWarning, match=r"extend with env=4 .* Give env=\[0, 1, ...\]") as told:
        links = linker.extend(n, schema, apart, None, 4)
    assert [found.filename for found in told] == [__file__]
    assert links[1:].tolist() == [1] * (n - 1)  # env= is trusted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linker.extend(2 * n, schema, apart, None, 4)
        linker = Linker()
        linker.extend(0, schema, apart, None, np.arange(n))
        linker.extend(n, schema, [column[:1] for column in apart], None, 4)
        some = [column.copy() for column in apart]
        some[0][n // 2] = some[3][n // 2 - 1]  # one row continues the one before it
        linker.extend(n + 1, schema, some, None, 4)
        following = [np.stack([v] * n) for v in flat(1, 1)]
        linker.extend(2 * n + 1, schema, following, None, 4)


def test_of_very_many_envs_some_were_forgotten_and_may_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linker_file, "MAX_ENVS", 64)
    linker, schema = Linker(), SCHEMAS["flat"]
    for env in range(66):
        linker.push(env, schema, flat(0, 1), False, env)
    linker.end_episode(66, 0)  # which was forgotten
    assert linker.push(66, schema, flat(0, 1), False, 0) == 0


@pytest.mark.parametrize("name", ["push", "extend", "end_episode"])
def test_an_interrupt_at_any_line_leaves_what_is_known_of_the_rows_that_are_there(
    name: str,
) -> None:
    schema, line, came_so_far = SCHEMAS["flat"], 0, True
    columns = [np.stack([v] * 4) for v in flat(0, 1)]
    envs = np.array([1, 0, 1, 2])
    while came_so_far:
        line += 1
        linker = Linker()
        for number, env in enumerate((None, 0, 1, 1)):
            linker.push(number, schema, flat(0, 1), number == 2, env)
        if name == "push":
            came_so_far = interrupted_at(
                line,
                lambda: linker.push(4, schema, flat(1, 1), False, 0),  # noqa: B023
                over=("schema",),
            )
        elif name == "extend":
            came_so_far = interrupted_at(
                line,
                lambda: linker.extend(4, schema, columns, None, envs),  # noqa: B023
            )
        else:
            linker.extend(4, schema, columns, None, envs)
            end = lambda: end_or_refused(linker, 4, 7)  # noqa: B023, E731
            came_so_far = interrupted_at(line, end)
        assert linker.push(4, schema, flat(1, 1), False, None) == 4
        assert linker.push(5, schema, flat(1, 1), False, 0) == 4
        assert linker.push(6, schema, flat(1, 1), False, 1) == 3
        assert linker.push(7, schema, flat(1, 1), False, 2) == 0
    assert line > {"push": 12, "extend": 20, "end_episode": 12}[name]

"""merge."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import stores
from changed_values import fact, put_fact
from common import columns, contents, numbers_of
from hypothesis import example, given, settings
from others import Other

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.store.store import Store


def make(
    kind: Any, path: Path, first: int, n: int, capacity: int, runs: int = 1, **arguments: Any
) -> list[int]:
    """Make a store of consecutive numbers, and return those that are live."""
    for run in range(runs):
        with kind(capacity, path=path, **arguments) as buffer:
            numbers = np.array_split(np.arange(first, first + n), runs)[run]
            more = {"priorities": numbers / 4} if kind is PrioritizedReplayBuffer else {}
            if numbers.size:
                buffer.extend(**columns(int(numbers[0]), numbers.size), **more)
    return list(range(first, first + n))[-capacity:]


def interleaved(parts: list[list[int]]) -> list[int]:
    """Each transition at the place that is its share of its store."""
    marked = [
        ((2 * i + 1) / (2 * len(part)), number, value)
        for number, part in enumerate(parts)
        for i, value in enumerate(part)
    ]
    return [value for _, _, value in sorted(marked)]


@settings(max_examples=40)
@given(
    kind=st.sampled_from([ReplayBuffer, PrioritizedReplayBuffer]),
    parts=st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 30), st.integers(1, 3)),
        min_size=1,
        max_size=4,
    ),
    order=st.sampled_from(["sequence", "interleaved"]),
    capacity=st.none() | st.integers(1, 60),
    logged=st.sets(st.integers(0, 3)),
)
@example(PrioritizedReplayBuffer, [(40, 10, 3), (7, 30, 1)], "interleaved", 12, set())
@example(PrioritizedReplayBuffer, [(40, 10, 3), (7, 30, 1)], "interleaved", 12, {0, 1})
def test_against_lists(
    tmp_path_factory: pytest.TempPathFactory,
    kind: Any,
    parts: list[tuple[int, int, int]],
    order: str,
    capacity: int | None,
    logged: set[int],
) -> None:
    place = tmp_path_factory.mktemp("s")
    paths = [place / str(i) for i in range(len(parts))]
    lists = [
        make(kind, path, 1000 * i, n, size, runs, observations="log" if i in logged else "record")
        for i, (path, (n, size, runs)) in enumerate(zip(paths, parts, strict=True))
    ]
    whole = list(itertools.chain(*lists)) if order == "sequence" else interleaved(lists)
    total = len(whole)
    n = diskreplay.merge(list(paths), place / "out", order=order, capacity=capacity)
    expected = whole[-(capacity or max(1, total)) :]
    assert n == len(expected)
    assert diskreplay.verify(place / "out") == []
    with diskreplay.open(place / "out") as merged:
        assert merged.count == total
        ids = np.arange(total - n, total)
        if n:
            assert numbers_of(merged.get(ids)).tolist() == expected
        merged.check()
        if isinstance(merged, PrioritizedReplayBuffer) and n:
            assert merged.priorities(ids).tolist() == [number / 4 for number in expected]
            assert merged.frame == 0
        # Each run says what of it is there.
        owner = [number // 1000 for number in whole]
        for run in merged.stats()["runs"] if total else []:
            of_store = {owner[run["first"]], owner[run["end"] - 1]}
            assert len(of_store) == 1
            wrote = [o for o in owner[run["first"] : run["end"]] if o in of_store]
            assert run["rows"] == len(wrote)
        if total:
            assert sum(run["rows"] for run in merged.stats()["runs"]) == total


def test_settings_extras_and_largest_priority(tmp_path: Path) -> None:
    for name, alpha in (("a", 0.3), ("b", 0.9)):
        path = tmp_path / name
        with PrioritizedReplayBuffer(50, path=path, alpha=alpha, commit_interval=0) as buffer:
            more = {"logit": np.arange(20.0), "priorities": np.full(20, 5.0)}
            ids = buffer.extend(**columns(0, 20), **more)
            buffer.sample(4)
            buffer.update_priorities(ids, np.full(20, 2.0))
    diskreplay.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    with diskreplay.open(tmp_path / "out") as merged:
        assert isinstance(merged, PrioritizedReplayBuffer)
        stats = merged.stats()
        assert (stats["alpha"], stats["max_priority"], stats["priority_max"]) == (0.3, 5.0, 2.0)
        assert merged.get([0, 39]).logit.tolist() == [0, 19]


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    a, b = stores.uniform(tmp_path / "a"), stores.prioritized(tmp_path / "b")
    wide, out = stores.large(tmp_path / "wide"), tmp_path / "out"
    before = contents(tmp_path)
    refusals: list[tuple[type[Exception], str, Any, Path, dict[str, Any]]] = [
        (diskreplay.MismatchError, "only stores of one kind", [a, b], out, {}),
        (diskreplay.MismatchError, "only stores of the same fields", [a, wide], out, {}),
        (diskreplay.StorageError, "holds a store already", [a], b, {}),
        (diskreplay.StorageError, "inside the store", [a], wide / "inner", {}),
        (diskreplay.LockedError, "in this process", [a, a], out, {}),
        (diskreplay.NotAStoreError, "none", [a, tmp_path / "none"], out, {}),
        (diskreplay.ArgumentError, "capacity", [a], out, {"capacity": 0}),
    ]
    for order in ("random", np.array(["sequence"] * 2)):
        refusals.append((diskreplay.ArgumentError, "order", [a], out, {"order": order}))
    for nothing in ([], iter([]), "path", b"path", a, 5, None):
        refusals.append((diskreplay.ArgumentError, "list of the paths of sto", nothing, out, {}))
    for error, message, paths, place, arguments in refusals:
        with pytest.raises(error, match=message):
            diskreplay.merge(paths, place, **arguments)
    assert contents(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "wide"]


@pytest.mark.parametrize("order", ["sequence", "interleaved"])
def test_a_store_that_claims_more_transitions_than_it_has_takes_no_memory(
    order: str, tmp_path: Path
) -> None:
    make(ReplayBuffer, tmp_path / "a", 0, 5, 10)
    make(ReplayBuffer, tmp_path / "b", 0, 5, 10)
    put_fact(tmp_path / "b", "identity", fact(tmp_path / "b", "identity") | {"capacity": 2**40})
    put_fact(tmp_path / "b", "state", fact(tmp_path / "b", "state") | {"count": 2**40})
    with pytest.raises(diskreplay.DamageError, match="there are 1 groups"):
        diskreplay.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c", order=order)
    assert not (tmp_path / "c").exists()


def test_an_empty_store_takes_the_fields_of_the_others(tmp_path: Path) -> None:
    ReplayBuffer(10, path=tmp_path / "empty").close()
    a = stores.uniform(tmp_path / "a")
    assert diskreplay.merge([tmp_path / "empty", a], tmp_path / "out") == 300
    assert diskreplay.merge([tmp_path / "empty"], tmp_path / "nothing") == 0
    assert diskreplay.verify(tmp_path / "nothing") == []


def test_one_commit_is_read_whatever_a_writer_evicts_meanwhile(
    tmp_path: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diskreplay.maintenance.building._PART_BYTES", 5000)
    path = stores.prioritized(tmp_path / "b")
    before = stores.told(path)
    other.open(1100)
    steps = []

    def write(done: int, total: int) -> None:
        steps.append(done)
        other.extend(1350 + 300 * len(steps), 300)
        other.flush()

    assert diskreplay.merge([path], tmp_path / "out", progress=write) == 350
    assert len(steps) > 4  # so that all that is merged was evicted before the end
    assert diskreplay.verify(path) == diskreplay.verify(tmp_path / "out") == []
    assert stores.told(tmp_path / "out")[1:3] == before[1:3]


@pytest.mark.parametrize("name", ["first", "end", "rows", "pid", "host", "started"])
def test_what_a_damaged_description_of_a_run_says_is_left_out(name: str, tmp_path: Path) -> None:
    for letter in "ab":
        with ReplayBuffer(10, path=tmp_path / letter) as buffer:
            buffer.extend(**columns(0, 3))
    store = Store(tmp_path / "a", access="exclusive")
    try:
        with store.transaction() as txn:
            txn.put_run(0, {**(txn.run(0) or {}), name: b"?"})
    finally:
        store.close()
    assert diskreplay.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out") == 6
    assert diskreplay.verify(tmp_path / "out") == []
    with diskreplay.open(tmp_path / "out") as merged:
        assert len(merged.stats()["runs"]) >= 1

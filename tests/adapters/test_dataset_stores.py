"""Stores made of datasets: rows in order become transitions, and nothing is left half-made."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import stores
from common import contents
from hypothesis import given
from refused import writes_refused

import diskreplay
from diskreplay.adapters.dataset_stores import Rows, new_store, transitions

Twin = list[tuple[float, float, float, bool, bool]]


def twin(dones: list[bool], ends: list[bool]) -> Twin:
    """The transitions of rows that are numbered, made one by one."""
    found: Twin = []
    n = len(dones)
    for row in range(n):
        is_last = dones[row] or ends[row] or row == n - 1
        if dones[row]:
            found.append((row, row, row / 2, True, False))
        elif not is_last:
            follows = row + 1
            has_ended = ends[follows] or follows == n - 1
            found.append((row, follows, row / 2, False, has_ended and not dones[follows]))
    return found


@given(
    rows=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30),
    cuts=st.sets(st.integers(0, 30)),
    is_table=st.booleans(),
)
def test_rows_in_chunks_against_a_twin(
    rows: list[tuple[bool, bool]], cuts: set[int], is_table: bool
) -> None:
    dones, ends = (np.array(column) for column in zip(*rows, strict=True))
    numbers = np.arange(len(rows), dtype=np.float64)
    columns: Rows = {"state": numbers, "state.x[1]": numbers[:, None], "reward": numbers / 2}
    columns |= {"done": dones[:, None] if is_table else dones, "end": ends}
    edges = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]

    def chunks() -> Iterator[Rows]:
        for begin, end in itertools.pairwise(edges):  # some without rows
            yield {name: column[begin:end] for name, column in columns.items()}

    parts = [*transitions(chunks())]
    found: dict[str, Any] = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    assert found["next_state.x[1]"][:, 0].tolist() == found["next_state"].tolist()
    made = zip(
        found["state"], found["next_state"], found["reward"], found["done"].reshape(-1),
        found["truncated"], strict=True,
    )  # fmt: skip
    assert [*made] == twin(dones.tolist(), ends.tolist())


@given(rows=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_rows_with_a_next_state_are_all_transitions(rows: list[tuple[bool, bool]]) -> None:
    dones, ends = (np.array(column) for column in zip(*rows, strict=True))
    numbers = np.arange(len(rows))
    columns = {"state": numbers, "next_state": numbers * 7, "done": dones, "end": ends}
    parts = [*transitions({name: c[i : i + 5] for name, c in columns.items()}
                          for i in range(0, len(rows), 5))]  # fmt: skip
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert found["next_state"].tolist() == (numbers * 7).tolist()
    ends[-1] = True
    assert found["truncated"].tolist() == (ends & ~dones).tolist()


SCHEMA = {**stores.FIELDS, "truncated": "float32"}


def fill(buffer: Any, then: Callable[[], object] = lambda: None) -> None:
    for _ in range(20):
        states = np.zeros((1000, 3), np.float32)
        buffer.extend(states, np.zeros(1000, int), np.zeros(1000), states, np.zeros(1000))
        buffer.flush()
    then()


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    arguments: Any = tmp_path / "deep" / "a", "uniform", 50_000, SCHEMA, {}
    with pytest.raises(KeyboardInterrupt), new_store(*arguments) as buffer:
        fill(buffer, then=lambda: os.kill(os.getpid(), signal.SIGINT))
    assert not contents(tmp_path)
    with (
        pytest.raises(diskreplay.StorageError, match="File too large"),
        new_store(*arguments) as buffer,
        writes_refused(),
    ):
        fill(buffer)
    assert not contents(tmp_path)
    with new_store(*arguments) as buffer:
        fill(buffer)
        assert not (tmp_path / "deep" / "a").exists()
    assert [place.name for place in (tmp_path / "deep").iterdir()] == ["a"]
    assert diskreplay.verify(tmp_path / "deep" / "a") == []


def test_a_path_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with new_store(tmp_path / "empty", "prioritized", 10, SCHEMA, {"seed": 3}) as buffer:
        assert isinstance(buffer, diskreplay.PrioritizedReplayBuffer)
    (tmp_path / "file").touch()
    before = contents(tmp_path)
    for name in ("empty", "file", "file/inside"):
        with (
            pytest.raises(diskreplay.StorageError),
            new_store(tmp_path / name, "uniform", 10, SCHEMA, {}),
        ):
            pass
    with (
        pytest.raises(diskreplay.ArgumentError, match="kind must be one of uniform, prioritized"),
        new_store(tmp_path / "new", "other", 10, SCHEMA, {}),
    ):
        pass
    assert contents(tmp_path) == before

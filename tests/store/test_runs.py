"""How many rows of a run are live, and who wrote one: what is told holds, whoever wrote in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns
from hypothesis import given
from hypothesis import strategies as st
from others import Other, shared

import diskreplay
from diskreplay.store.runs import RunRanges, with_live, writer_of

# What happens: a run commits rows, all are cleared, or a store is loaded, with new write ids.
commits = st.tuples(st.integers(0, 4), st.integers(0, 9))
steps = st.one_of(commits, st.just("clear"), st.tuples(st.just("load"), st.integers(1, 9)))


def history(steps: list[Any], capacity: int) -> tuple[list[dict[str, int]], list[int], int, int]:
    """The descriptions of runs, who wrote each write id (-1 nobody), and the live write ids."""
    runs: dict[int, dict[str, int]] = {}
    owners: list[int] = []
    start = 0
    order: list[int] = []
    for step in steps:
        if step == "clear":
            start = len(owners)
            continue
        who, n = step
        if who == "load":  # it needs the store alone: a new run, and write ids that nobody has
            who = 100 + len(order)
            owners += [-1] * 3
            start = len(owners)
        if who not in runs:
            order.append(who)
            runs[who] = {"first": len(owners), "end": len(owners), "rows": 0}
        owners += [order.index(who)] * n
        runs[who] |= {"end": len(owners), "rows": runs[who]["rows"] + n}
    return [runs[who] for who in order], owners, max(start, len(owners) - capacity), len(owners)


@given(st.lists(steps, max_size=14), st.integers(1, 60))
def test_the_bounds_hold_of_any_history(steps: list[Any], capacity: int) -> None:
    runs, owners, first, count = history(steps, capacity)
    found = with_live(runs, first, count)
    assert [{**run, "live": None} for run in found] == [{**run, "live": None} for run in runs]
    for number, run in enumerate(found):
        least, most = run["live"]
        there = owners[first:count].count(number)
        assert 0 <= least <= there <= most <= run["rows"]
        span = range(max(run["first"], first), min(run["end"], count))
        if all(owners[i] == number for i in range(run["first"], run["end"])):
            assert least == most
        assert most <= len(span)
    ranges = RunRanges(runs)
    numbers = ranges.numbers(np.arange(-1, count + 2)).tolist()
    writers = [writer_of(runs, i) for i in range(-1, count + 2)]
    assert numbers == [-1 if writer is None else writer for writer in writers]
    some = {i for begin, end in ranges.of([0, 2]) for i in range(begin, end)}
    assert some == {i for i in range(count) if writer_of(runs, i) in (0, 2)}
    for write_id in range(first, count):
        assert writer_of(runs, write_id) in (owners[write_id], None)
        in_range = [n for n, run in enumerate(runs) if run["first"] <= write_id < run["end"]]
        if in_range == [owners[write_id]]:
            assert writer_of(runs, write_id) == owners[write_id]


@pytest.mark.parametrize(
    ("runs", "live", "expected"),
    [
        # A learner that wrote nothing, beside the only actor.
        ([(0, 100, 100), (0, 100, 0)], (40, 100), [(60, 60), (0, 0)]),
        # Two actors, nothing evicted; then a part.
        ([(0, 100, 60), (0, 100, 40)], (0, 100), [(60, 60), (40, 40)]),
        ([(0, 100, 60), (0, 100, 40)], (50, 100), [(10, 50), (0, 40)]),
        # A run that wrote all of its range leaves none of it to another.
        ([(0, 100, 100), (50, 150, 50)], (50, 100), [(50, 50), (0, 0)]),
        ([(0, 10, 10), (10, 30, 20)], (5, 30), [(5, 5), (20, 20)]),
    ],
)
def test_what_is_known_of_runs(
    runs: list[tuple[int, int, int]], live: tuple[int, int], expected: list[tuple[int, int]]
) -> None:
    told = [dict(zip(("first", "end", "rows"), run, strict=True)) for run in runs]
    assert [run["live"] for run in with_live(told, *live)] == expected


def test_nothing_is_said_of_a_description_that_makes_no_sense() -> None:
    sound = {"first": 0, "end": 10, "rows": 10}
    senseless: list[Any] = [
        {}, {"first": 0, "end": 5, "rows": 6}, {"first": 3, "end": 2, "rows": 0},
        {"first": 0, "end": 2**63, "rows": 1}, {"first": 0.0, "end": 5, "rows": 5},
        {"first": 0, "end": 5, "rows": 2, "rows_least": 3}, "no run", None, [1],
    ]  # fmt: skip
    for wrong in senseless:
        found = with_live([sound, wrong], 0, 10)
        assert found[0]["live"] == (10, 10)
        assert not isinstance(wrong, dict) or found[1]["live"] is None
        assert writer_of([sound, wrong], 3) is None
        assert RunRanges([sound, wrong]).numbers(np.array([3])).tolist() == [-1]
        assert RunRanges([sound, wrong], (2, 10)).of([0, 1, 2]) == [(10, 2**62)]
    mixed = [{"first": 0, "end": 100, "rows": 60}, {"rows": "forty"}]  # whose the others may be
    assert with_live(mixed, 50, 100)[0]["live"] == (10, 50)
    assert with_live([], 0, 0) == []


def test_runs_of_processes_that_wrote_in_turn(tmp_path: Path, other: Other) -> None:
    """What a real store says: the rows of two actors and a learner, as the actors know them."""
    other.open(100, access="shared")
    owners: list[int] = []
    with shared(tmp_path / "b", 100) as buffer:
        buffer.extend(**columns(0, 10))
        buffer.flush()
        owners += [0] * 10
        for n in range(1, 9):
            other.extend(n * 20 - 10, 10)
            other.flush()
            owners += [1] * 10
            buffer.extend(**columns(n * 20, n))
            buffer.flush()
            owners += [0] * n
        with_learner = [run["live"] for run in buffer.stats()["runs"]]
        live = owners[-100:]
        for number, (least, most) in enumerate(with_learner):
            assert least <= live.count(number) <= most < 100
    assert [owners.count(0), owners.count(1)] == [46, 80]


def test_a_merge_says_what_it_knows_of_runs_that_wrote_in_turn(
    tmp_path: Path, other: Other
) -> None:
    other.open(60, access="shared")
    with shared(tmp_path / "b", 60) as buffer:
        for first in range(0, 90, 30):
            buffer.extend(**columns(first, 20))
            buffer.flush()
            other.extend(first + 20, 10)
            other.flush()
    other.close()
    for order in ("sequence", "interleaved"):
        out = tmp_path / order
        diskreplay.merge([tmp_path / "b"], out, order=order)
        again = tmp_path / f"{order} again"
        diskreplay.merge([out], again)
        for path in (out, again):
            assert diskreplay.verify(path) == []
            with diskreplay.open(path, access="read") as merged:
                lives = [run["live"] for run in merged.stats()["runs"]]
            for (least, most), truth in zip(lives, (40, 20), strict=True):
                assert least <= truth <= most

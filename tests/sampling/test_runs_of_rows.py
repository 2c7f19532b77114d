"""Who wrote a transition, and draws from the transitions of some runs."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, run_python
from others import Other

import diskreplay
from diskreplay import ArgumentError, NotLiveError, PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.samplers import Runs

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]
N = 60


def written(kind: Any, path: Path) -> Path:
    """Three runs: write ids [0, 20), [20, 50) and [50, 75), of which 15 and on are live."""
    for first, end in ((0, 20), (20, 50), (50, 75)):
        with kind(N, path=path, seed=1, commit_interval=1e9) as buffer:
            buffer.extend(**columns(first, end - first))
    return path


def ids_of(buffer: Any, draws: int = 100, n: int = 5) -> set[int]:
    return {i for _ in range(draws) for i in buffer.sample(n).indices.tolist()}


@pytest.mark.parametrize("access", ["exclusive", "shared", "read"])
@pytest.mark.parametrize("kind", KINDS)
def test_draws_from_some_runs(kind: Any, access: str, tmp_path: Path) -> None:
    path = written(kind, tmp_path / "b")
    with diskreplay.open(path, access=access, sampler=Runs([0, 2])) as buffer:
        assert ids_of(buffer, 200) == {*range(15, 20), *range(50, 75)}
        expected = np.repeat([0, 1, 2], [5, 30, 25])
        assert buffer.runs_of(range(15, 75)).tolist() == expected.tolist()
        assert buffer.runs_of([[74, 15]]).tolist() == [[2, 0]]
        for dead in (14, 75, -1):
            with pytest.raises(NotLiveError, match=f"write id {dead} is not live"):
                buffer.runs_of([20, dead])
    with pytest.raises(diskreplay.SampleError, match=r"Runs\(numbers=\(7,\)\) may draw (0|none)"):
        diskreplay.open(path, sampler=Runs(7)).sample(1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lone_writer_draws_from_its_own_run_at_once(kind: Any, tmp_path: Path) -> None:
    path = written(kind, tmp_path / "b")
    with diskreplay.open(path, sampler=Runs(3), commit_interval=1e9) as buffer:
        first = 75
        for _ in range(3):
            buffer.extend(**columns(first, 10))  # over the end of the ring
            assert ids_of(buffer) == set(range(75, first + 10))
            assert buffer.runs_of([74, 75, first + 9]).tolist() == [2, 3, 3]
            buffer.flush()
            first += 10
            assert ids_of(buffer) == set(range(75, first))
            assert buffer.runs_of([first - 1]).tolist() == [3]
        assert [run["rows"] for run in buffer.stats()["runs"]] == [20, 30, 25, 30]
    with diskreplay.open(path, sampler=Runs(3), access="read") as buffer:
        assert ids_of(buffer) == set(range(75, 105))


@pytest.mark.parametrize("kind", KINDS)
def test_runs_after_clear_and_load_and_an_undone_commit(kind: Any, tmp_path: Path) -> None:
    path = written(kind, tmp_path / "b")
    with diskreplay.open(path, sampler=Runs(3), commit_interval=1e9) as buffer:
        buffer.extend(**columns(0, 5))
        buffer.clear()
        buffer.extend(**columns(0, 7))
        assert ids_of(buffer) == set(range(80, 87))
        buffer.flush()
        buffer.load(written(kind, tmp_path / "other"))  # its write ids are moved, and now its own
        live = range(buffer.first, buffer.count)
        assert buffer.runs_of(live).tolist() == [3] * len(live)
        assert ids_of(buffer, 200) <= set(live)
        buffer.extend(**columns(0, 7))
        buffer._guard.replica.undo()
        assert ids_of(buffer, 200) <= set(live)


@pytest.mark.parametrize("kind", KINDS)
def test_what_several_wrote_in_turns_is_not_known(kind: Any, tmp_path: Path) -> None:
    path = written(kind, tmp_path / "b")
    with Other(path) as other:
        other.open(N, kind=kind.__name__, access="shared")
        with diskreplay.open(
            path, access="shared", sampler=Runs([2, 3]), commit_interval=1e9
        ) as buffer:
            buffer.extend(**columns(0, 5))  # [75, 80), known as long as nobody else writes
            buffer.flush()
            assert ids_of(buffer) == set(range(50, 80))
            other.extend(0, 5)  # [80, 85) of run 4
            other.flush()
            assert buffer.runs_of([79, 80, 84]).tolist() == [3, 4, 4]
            assert ids_of(buffer) == set(range(50, 80))
            buffer.extend(**columns(0, 5))
            buffer.flush()
            # Run 3 wrote 10 of [75, 90), and run 4 all of [80, 85).
            expected = [2, *[3] * 5, *[4] * 5, *[3] * 5]
            assert buffer.runs_of(range(74, 90)).tolist() == expected
            other.extend(0, 5)
            other.flush()
            assert buffer.runs_of(range(74, 95)).tolist() == [
                2, *[3] * 5, *[-1] * 10, *[4] * 5,
            ]  # fmt: skip
            assert ids_of(buffer) == set(range(50, 80))


TRAIN = """
import os, sys
import diskreplay
from diskreplay.samplers import Runs

path, begin, end = sys.argv[1:]
buffer = diskreplay.open(path, sampler=Runs([1, 2]), commit_interval=1e9)
with buffer.batches(8, prefetch=2) as batches:
    for step in range(int(begin), int(end)):
        print(next(batches).indices.tolist())
    buffer.flush()
    print(next(batches).indices.tolist(), "is not committed", flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_with_the_draws_from_runs(kind: Any, tmp_path: Path) -> None:
    def train(path: Path, begin: int, end: int) -> list[str]:
        return run_python(TRAIN, path, begin, end, check=False).stdout.splitlines()[:-1]

    whole = train(written(kind, tmp_path / "whole"), 0, 9)
    assert len(whole) == 9
    parts = written(kind, tmp_path / "parts")
    assert train(parts, 0, 4) + train(parts, 4, 9) == whole


def test_the_numbers_of_runs_are_checked() -> None:
    assert Runs([2, 0, 2]) == Runs((0, 2)) == Runs(np.array([0, 2]))
    assert Runs(3).numbers == (3,)
    assert pickle.loads(pickle.dumps(Runs([1, 2]))) == Runs([1, 2])  # noqa: S301
    bad: Any
    for bad in ([], "1", None, 1.5, [1.5], [-1], [None], [[1]], True):
        with pytest.raises(ArgumentError, match="numbers must be"):
            Runs(bad)

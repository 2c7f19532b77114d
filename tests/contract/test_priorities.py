"""What every Replay that draws by priorities does with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, row
from replays import CAPACITY, COUNT, LIVE, Exclusive, priorities_of

from diskreplay import ArgumentError, ClosedError, NotLiveError, PriorityError


def test_priorities_have_the_shape_of_the_ids(prioritized: Exclusive, tmp_path: Path) -> None:
    with prioritized.filled(tmp_path / "b") as buffer:
        for ids in (np.arange(20, 80).reshape(4, 15), [], 79, [[21]]):
            found = buffer.priorities(ids)
            assert (found.dtype, found.shape) == (np.float32, np.shape(ids))
            assert found.tolist() == priorities_of(ids).tolist()
        for ids, dead in (([[20, 80]], 80), (19, 19)):
            with pytest.raises(NotLiveError, match=f"write id {dead} is not live"):
                buffer.priorities(ids)
        stats = buffer.stats()
        assert (stats["priority_min"], stats["priority_max"]) == (0, 6)
        assert stats["priority_mean"] == priorities_of(LIVE).mean()
        assert stats["max_priority"] == buffer.max_priority == 6


@pytest.mark.parametrize(
    "settings", [{}, {"alpha": 0.9, "epsilon": 0.5, "beta_start": 0.1, "beta_end": 0.2}]
)
def test_weights_follow_the_formula(
    prioritized: Exclusive, settings: dict[str, float], tmp_path: Path
) -> None:
    with prioritized.filled(tmp_path / "b", **settings) as buffer:
        assert buffer.stats().items() >= settings.items()
        assert buffer.beta == settings.get("beta_start", 0.4)
        exponents = {name: settings[name] for name in ("alpha", "epsilon") if settings}
        masses = prioritized.draws.masses(priorities_of(LIVE), **exponents)
        assert buffer.total_mass == pytest.approx(masses.sum(), rel=1e-12)
        for beta in (None, 0.0, 0.75, 1, None):
            batch = None
            for _ in range(2):  # fresh, and written into the earlier one
                exponent = buffer.beta if beta is None else beta
                batch = buffer.sample(40, beta=beta, out=batch)
                assert batch._fields[5:7] == ("weights", "indices")
                assert (batch.weights.dtype, batch.weights.shape) == (np.float32, (40,))
                probabilities = masses[batch.indices - LIVE[0]] / masses.sum()
                expected = (CAPACITY * probabilities) ** -exponent
                np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-6)
                assert batch.largest_weight == pytest.approx(expected.max(), rel=1e-9)
        for bad in (-0.1, 1.1, float("nan"), "1", True):
            with pytest.raises(ArgumentError, match=r"beta must be a number in \[0, 1\]"):
                buffer.sample(20, beta=bad)


def test_every_draw_counts_and_beta_follows(prioritized_writer: Exclusive, tmp_path: Path) -> None:
    ends = {"beta_start": 0.2, "beta_end": 0.7}
    with prioritized_writer.filled(tmp_path / "b", beta_frames=50, **ends) as buffer:
        assert (buffer.frame, buffer.beta) == (0, 0.2)
        batches = buffer.batches(4)
        draws: list[Callable[[], Any]] = [
            lambda: buffer.sample(4),
            lambda: buffer.draw(4),
            lambda: next(batches),
            lambda: buffer.sample(4, beta=0.5),
        ]
        for frame in range(1, 61):
            draws[frame % len(draws)]()
            expected = 0.2 + 0.5 * min(frame, 50) / 50
            assert (buffer.frame, buffer.beta) == (frame, pytest.approx(expected))
            assert buffer.stats()["beta"] == buffer.beta
        buffer.clear()
        assert buffer.frame == 60
    with prioritized_writer.open(tmp_path / "b") as again:
        assert (again.frame, again.beta, again.stats()["frame"]) == (60, 0.7, 60)


def test_updates_are_by_write_id_and_stale_ones_are_counted(
    prioritized_writer: Exclusive, tmp_path: Path
) -> None:
    with prioritized_writer.make(tmp_path / "b", 4) as buffer:
        buffer.extend(**columns(0, 6), priorities=np.ones(6))
        prioritized_writer.settle(buffer)
        applied = buffer.update_priorities([0, 1, 2, 5, 6, -1], [7, 7, 3, 4, 7, 7])
        assert applied == 2
        assert buffer.priorities(range(2, 6)).tolist() == [3, 1, 1, 4]
        assert buffer.update_priorities([3, 3, 3], [9, 8, 2]) == 3  # the last of duplicates
        assert buffer.priorities([3]).tolist() == [2]
        assert buffer.update_priorities([], []) == 0
        prioritized_writer.settle(buffer)
        assert buffer.stats()["stale_updates"] == 4
        batch = buffer.sample(4)
        assert buffer.update_priorities(batch.indices, abs(batch.rewards) + 1) == 4
        buffer.check()
        kept = buffer.priorities(range(2, 6)).tolist()
    for call in (lambda: buffer.update_priorities([], []), lambda: buffer.beta):
        with pytest.raises(ClosedError, match="is closed: open it again"):
            call()
    with prioritized_writer.open(tmp_path / "b") as buffer:
        assert buffer.stats()["stale_updates"] == 4
        assert buffer.priorities(range(2, 6)).tolist() == kept


def test_new_transitions_get_the_largest_priority_so_far(
    prioritized_writer: Exclusive, tmp_path: Path
) -> None:
    settle = prioritized_writer.settle
    with prioritized_writer.make(tmp_path / "b", 10) as buffer:
        assert buffer.max_priority == 1.0
        buffer.push(**row(0), priority=0.25)
        settle(buffer)
        assert buffer.max_priority == 0.25
        buffer.push(**row(1))
        settle(buffer)
        buffer.update_priorities([0], [5.0])
        buffer.update_priorities([0], [0.5])
        settle(buffer)
        buffer.push(**row(2))
        buffer.extend(**columns(3, 2))
        settle(buffer)
        assert buffer.priorities(range(5)).tolist() == [0.5, 0.25, 5.0, 5.0, 5.0]
        buffer.clear()
        assert buffer.max_priority == 1.0
        assert [buffer.stats()[f"priority_{of}"] for of in ("min", "mean", "max")] == [None] * 3
        assert buffer.update_priorities([4], [7.0]) == 0  # stale
        buffer.push(**row(5))
        settle(buffer)
        assert buffer.priorities([5]).tolist() == [1.0]


@pytest.mark.parametrize("bad", [-1.0, -1e-300, float("nan"), float("inf"), 1e39, "high", None])
def test_a_bad_priority_is_refused_and_nothing_changes(
    prioritized_writer: Exclusive, bad: Any, tmp_path: Path
) -> None:
    with prioritized_writer.filled(tmp_path / "b") as buffer:
        before = buffer.stats()
        more = {**columns(COUNT, 2), "x": [1, 2]}
        for call in (
            lambda: buffer.update_priorities([40, 41], [5.0, bad]),
            lambda: buffer.extend(**more, priorities=[5.0, bad]),
            *([] if bad is None else [lambda: buffer.push(**row(COUNT), x=0, priority=bad)]),
        ):
            with pytest.raises(PriorityError):
                call()
        assert buffer.stats() == before
        assert buffer.count == COUNT


def test_priorities_and_ids_of_other_shapes_are_refused(
    prioritized_writer: Exclusive, tmp_path: Path
) -> None:
    with prioritized_writer.filled(tmp_path / "b") as buffer:
        before = buffer.stats()
        ragged: Any = [[1], [1, 2]]
        with pytest.raises(PriorityError, match=r"expected 2 priorities, shape \(2,\)"):
            buffer.update_priorities([40, 41], [1.0])
        for indices, priorities in (([0.5], [1.0]), (40, 1), (ragged, [1, 1])):
            with pytest.raises(ArgumentError, match="indices must be"):
                buffer.update_priorities(indices, priorities)
        sequences = buffer.sample_sequences(2, 3)
        starts = r"give batch.indices\[:, 0\]"
        for indices, found in (
            (
                sequences.indices,
                rf"\(found shape \(2, 3\)\): {starts} of sequences",
            ),
            (sequences, rf"\(found a batch of sequences\): {starts}"),
            (buffer.get([40, 41]), "indices must be"),
        ):
            with pytest.raises(ArgumentError, match=found):
                buffer.update_priorities(indices, [1.0, 1.0])
        batch = buffer.sample(2)
        before = buffer.stats()
        with pytest.raises(ArgumentError, match=r"\(found a batch\): give batch.indices, with a"):
            buffer.update_priorities(batch, [1.0, 1.0])
        for priorities in (ragged, [1.0]):
            with pytest.raises(PriorityError):
                buffer.update_priorities([40, 41], priorities)
            with pytest.raises(PriorityError):
                buffer.extend(**columns(COUNT, 2), x=[1, 2], priorities=priorities)
        assert buffer.stats() == before

"""Whole sequences over shards are drawn as from one buffer, wherever those that begin them are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frequencies import assert_not_too_far, chi_square

import diskreplay

pytest.importorskip("ray")

from sharded import PrioritizedSharded, Sharded, start_actors

LENGTH, N = 3, 60
# Episodes of 15 in shard 0, and of 4, 2, 4, 2, ... in shard 1.
DONES = np.isin(np.arange(N), [14, 29, *(30 + np.cumsum([4, 2] * 5) - 1)])
ENVS = np.arange(N) // 30
PRIORITIES = np.arange(N) % 5 + 0.5


@pytest.fixture(scope="session", autouse=True)
def actors() -> None:
    start_actors(2)


@pytest.fixture(params=[Sharded, PrioritizedSharded])
def replay(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with request.param(2, 200, directory=tmp_path / "r", seed=11) as replay:
        numbers = np.arange(N, dtype=np.float32)
        given = {} if request.param is Sharded else {"priorities": PRIORITIES}
        replay.extend(
            numbers[:, None], np.zeros(N, int), numbers, numbers[:, None] + 1, DONES,
            env=ENVS, **given,
        )  # fmt: skip
        replay.flush()
        yield replay


def are_starts() -> Any:
    """Whether each row begins a whole sequence."""
    ends = np.flatnonzero(DONES)
    return ends[np.searchsorted(ends, np.arange(N))] - np.arange(N) >= LENGTH - 1


def masses(replay: Any) -> Any:
    found = np.ones(N) if isinstance(replay, Sharded) else (PRIORITIES + 1e-6) ** 0.6
    return np.where(are_starts(), found, 0.0)


def test_a_shard_takes_part_by_its_whole_sequences(replay: Any) -> None:
    n, draws = 6, 300
    found = np.zeros(N, int)
    for _ in range(draws):
        batch = replay.sample_sequences(n, LENGTH, pad=False)
        starts = batch.rewards[:, 0].astype(int)
        assert batch.mask.all()
        assert (batch.rewards == starts[:, None] + np.arange(LENGTH)).all()
        assert (batch.indices % 2 == ENVS[starts][:, None]).all()
        assert len(set(starts.tolist())) == n or not isinstance(replay, Sharded)
        found += np.bincount(starts, minlength=N)
    assert (found[~are_starts()] == 0).all()
    expected = masses(replay) / masses(replay).sum() * n * draws
    # Of the rows of both shards are as many; of the whole sequences 26 and 10.
    assert_not_too_far(*chi_square(found[are_starts()], expected[are_starts()]))


def test_weights_of_whole_sequences_are_those_of_their_starts(replay: Any) -> None:
    if isinstance(replay, Sharded):
        return
    batch = replay.sample_sequences(8, LENGTH, pad=False, beta=0.7)
    all_masses = (PRIORITIES + 1e-6) ** 0.6
    starts = batch.rewards[:, 0].astype(int)
    expected = (N * all_masses[starts] / all_masses.sum()) ** -0.7
    np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-6)


def test_all_whole_sequences_can_be_drawn_and_no_more(replay: Any) -> None:
    n = int(are_starts().sum())
    assert n == 36
    if isinstance(replay, Sharded):
        batch = replay.sample_sequences(n, LENGTH, pad=False)
        assert sorted(batch.rewards[:, 0].tolist()) == np.flatnonzero(are_starts()).tolist()
        with pytest.raises(diskreplay.SampleError, match="of 60 starts drawn, 36 begin a whole"):
            replay.sample_sequences(n + 1, LENGTH, pad=False)
    with pytest.raises(diskreplay.SampleError, match=r"0 begin a whole sequence .* .expected 2"):
        replay.sample_sequences(2, 16, pad=False)
    assert replay.sample_sequences(2, LENGTH, pad=False).mask.all()

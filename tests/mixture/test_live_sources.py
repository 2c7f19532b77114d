"""Sources that another process writes to meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from common import columns, numbers_of
from mixed import APART, counts_of, uniform
from others import Other

from diskreplay import Mixture, SampleError


def test_demos_that_are_being_written_are_followed(tmp_path: Path) -> None:
    online = uniform(0, 60)
    with Other(tmp_path / "demos") as writer:
        writer.open(100)
        with Mixture({"online": online, "demos": tmp_path / "demos"}, seed=1) as mixture:
            assert counts_of(mixture.sample(20), 2) == [20, 0]
            assert mixture.schema == online.schema
            writer.extend(APART, 60, np.ones(60))
            writer.flush()
            seen = set()
            for _ in range(20):
                batch = mixture.sample(20)
                assert counts_of(batch, 2) == [10, 10]
                assert (numbers_of(batch) // APART == batch.sources).all()
                seen |= set(batch.indices[batch.sources == 1].tolist())
            assert len(seen) > 50
            writer.extend(APART + 60, 100, np.ones(100))  # evicts all that were there
            writer.flush()
            mixture.refresh()
            assert mixture.sizes == {"online": 60, "demos": 100}
            for _ in range(5):
                batch = mixture.sample(16)
                assert (batch.indices[batch.sources == 1] >= 60).all()
                assert (numbers_of(batch) // APART == batch.sources).all()
            # Priorities of the other process count from its commit on.
            ids = np.arange(60, 160)
            writer.update(ids, np.where(ids == 100, 1e6, 0.0))
            writer.flush()
            batch = mixture.sample(16)
            assert set(batch.indices[batch.sources == 1].tolist()) == {100}
            writer.clear()
            writer.flush()
            assert counts_of(mixture.sample(16), 2) == [16, 0]


def test_batches_stay_whole_while_another_process_writes_and_is_killed(tmp_path: Path) -> None:
    online = uniform(0, 60)
    writer = Other(tmp_path / "demos")
    with writer:
        writer.open(50, commit_interval=0)
        writer.extend(APART, 20)
        sources = {"online": online, "demos": tmp_path / "demos"}
        with Mixture(sources, {"online": 1, "demos": 1}, seed=1) as mixture:
            for turn in range(30):
                writer.extend(APART + 20 + 7 * turn, 7)
                batch = mixture.sample(20)
                assert (numbers_of(batch) // APART == batch.sources).all()
                assert mixture.update_priorities(batch, np.ones(20)) == 0  # it only reads them
            writer.kill()
            assert (numbers_of(mixture.sample(20)) // APART == batch.sources).all()
            with mixture.batches(20, prefetch=2) as batches:
                assert counts_of(next(batches), 2) == [10, 10]


def test_what_is_pushed_meanwhile_is_drawn(tmp_path: Path) -> None:
    online = uniform(0, 4)
    mixture = Mixture({"online": online, "demos": uniform(1, 60)}, {"online": 1, "demos": 1})
    with mixture.batches(10, prefetch=2) as batches:
        with pytest.raises(SampleError, match="source 'online' holds 4"):
            next(batches)
        online.extend(**columns(4, 56))
        found = [next(batches) for _ in range(6)]
    assert max(batch.indices[batch.sources == 0].max() for batch in found) > 4

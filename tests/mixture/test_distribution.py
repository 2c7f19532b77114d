"""Frequencies and weights of mixtures against a naive computation.

Each test of a frequency has a fixed seed and an error rate of 1e-3: a right mixture would fail it
with one seed of a thousand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mixed import APART, counts_of, prioritized, uniform, whole
from numpy.typing import NDArray
from scipy.stats import chi2

import diskreplay
from diskreplay import Mixture

BATCH, BATCHES = 50, 1000
SIZES = (60, 48)


def masses_of(place: int) -> NDArray[np.float64]:
    """The masses of the transitions of the buffers below: uniform, and of the priorities 1 to 3."""
    n = SIZES[place]
    return np.ones(n) if place == 0 else (np.arange(n) % 3 + 1) + 1e-6


def buffers(seed: int = 0) -> dict[str, Any]:
    return {
        "online": uniform(0, SIZES[0], seed=seed),
        "demos": prioritized(1, SIZES[1], seed=seed + 1),
    }


def assert_as_expected(found: Any, expected: Any) -> None:
    """Compare frequencies by Pearson's statistic, which draws without replacement make smaller."""
    statistic = ((found - expected) ** 2 / expected).sum()
    assert statistic <= chi2.ppf(1 - 1e-3, expected.size - 1)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("online", "demos"), [(0.5, 0.5), (0.43, 0.57), (0.9, 0.1)])
def test_transitions_are_drawn_by_share_and_mass(online: float, demos: float, exact: bool) -> None:
    shares = (online, demos)
    mixture = Mixture(
        buffers(), {"online": online, "demos": demos}, exact=exact, seed=round(online * 100)
    )
    drawn = np.concatenate([whole(mixture.sample(BATCH)) for _ in range(BATCHES)])
    for place, share in enumerate(shares):
        of_source = drawn[drawn // APART == place] % APART
        variance = 0.25 if exact else share * (1 - share) * BATCH  # of a count, or more
        mean = share * BATCH * BATCHES
        assert abs(of_source.size - mean) < 3.3 * np.sqrt(variance * BATCHES)
        masses = masses_of(place)
        expected = masses / masses.sum() * of_source.size
        assert_as_expected(np.bincount(of_source, minlength=SIZES[place]), expected)


def test_by_default_all_transitions_of_uniform_sources_are_equally_frequent() -> None:
    # As from one buffer, also where the share of a batch is no whole number.
    sizes = (70, 23, 7)
    mixture = Mixture({str(k): uniform(k, n) for k, n in enumerate(sizes)}, seed=9)
    drawn = np.concatenate([whole(mixture.sample(7)) for _ in range(3000)])
    found = np.concatenate(
        [np.bincount(drawn[drawn // APART == k] % APART, minlength=n) for k, n in enumerate(sizes)]
    )
    assert_as_expected(found, np.full(100, drawn.size / 100))
    by_source = np.add.reduceat(found, [0, 70, 93])
    assert_as_expected(by_source, np.array(sizes) / 100 * drawn.size)


def test_counts_vary_by_at_most_one_around_their_mean() -> None:
    mixture = Mixture(buffers(), {"online": 1, "demos": 2}, seed=4)
    found = np.array([counts_of(mixture.sample(10), 2) for _ in range(2000)])
    assert set(found[:, 0].tolist()) == {3, 4}
    assert abs(found[:, 0].mean() - 10 / 3) < 3.3 * np.sqrt(2 / 9 / 2000)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("large", [False, True])
def test_weights_are_those_of_each_source_over_the_largest_of_the_batch(
    beta: float, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr("diskreplay.mixture.assembly._LARGE", 0)
    sources = {**buffers(), "third": prioritized(2, 30, alpha=0.5)}
    third = np.sqrt(np.arange(30) % 3 + 1 + 1e-6)
    masses = [masses_of(0), masses_of(1), third]
    mixture = Mixture(sources, {"online": 2, "demos": 5, "third": 3}, seed=1)
    for n in (20, 20, 20, 5, 1):
        batch = mixture.sample(n, beta=beta)
        ids, of = batch.indices, batch.sources
        of_rows = [(masses[k], i) for k, i in zip(of, ids, strict=True)]
        shares = [mass.size * mass[i] / mass.sum() for mass, i in of_rows]
        expected = np.array(shares) ** -beta
        np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-5)
        assert batch.largest_weight == pytest.approx(expected.max(), rel=1e-6)
        assert batch.weights.max() == 1.0
        assert batch.weights.dtype == np.float32


@pytest.mark.parametrize("draw", ["sample", "sample_sequences"])
def test_all_weights_of_a_batch_have_the_beta_of_the_first_source_that_is_written(
    draw: str, tmp_path: Path
) -> None:
    prioritized(1, 30, path=tmp_path / "demos", beta_start=0.25).close()
    for is_path in (True, False):
        path = tmp_path / "demos"
        source: Any = path if is_path else diskreplay.open(path, access="read")
        written = prioritized(0, 30, beta_start=0.0, beta_end=1.0, beta_frames=4)
        other = prioritized(2, 30, beta_start=0.75, beta_frames=8)
        sources = {"demos": source, "online": written, "other": other}
        masses = np.arange(30) % 3 + 1 + 1e-6
        with Mixture(sources, {"demos": 1, "online": 1, "other": 1}) as mixture:
            for step in range(6):
                beta = min(1.0, step / 4)
                assert mixture.stats()["beta"] == beta == written.beta
                batch = mixture.sample(30) if draw == "sample" else mixture.sample_sequences(30, 2)
                ids = batch.indices if draw == "sample" else batch.indices[:, 0]
                expected = (30 * masses[ids] / masses.sum()) ** -beta
                np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-5)
            assert other.beta > 0.9  # which counts its draws, too
        if not is_path:
            source.close()


def test_where_no_source_is_written_beta_is_that_of_the_first_prioritized_one(
    tmp_path: Path,
) -> None:
    for place, beta in ((1, 0.25), (2, 0.5)):
        prioritized(place, 30, path=tmp_path / str(place), beta_start=beta).close()
    uniform(0, 30, path=tmp_path / "0").close()
    paths = {name: tmp_path / name for name in ("0", "1", "2")}
    with Mixture(paths) as mixture:
        assert mixture.stats()["beta"] == 0.25
        batch = mixture.sample(30)
        masses = np.where(batch.sources == 0, 2, batch.indices % 3 + 1)
        expected = (masses / 2) ** -0.25
        np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-5)
    with Mixture({"0": tmp_path / "0"}) as alone:
        assert alone.stats()["beta"] is None


def test_weighted_means_of_a_source_are_means_over_its_buffer() -> None:
    # With beta 1 the weights undo the priorities, and leave the shares: error rate 1e-3.
    mixture = Mixture(buffers(), {"online": 1, "demos": 3}, seed=6)
    sums, total = np.zeros(2), np.zeros(2)
    squares: list[Any] = []
    for _ in range(BATCHES):
        batch = mixture.sample(BATCH, beta=1.0)
        raw = batch.weights.astype(np.float64) * batch.largest_weight
        for place in (0, 1):
            rows = batch.sources == place
            sums[place] += (raw * batch.indices)[rows].sum()
            total[place] += rows.sum()
        squares.append((raw * batch.indices)[batch.sources == 1])
    spread = np.concatenate(squares).std()
    for place, n in enumerate(SIZES):
        mean = sums[place] / total[place]
        assert abs(mean - (n - 1) / 2) < 3.3 * spread / np.sqrt(total[place])

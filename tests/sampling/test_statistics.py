"""The frequencies of draws.

The statistical tests have fixed seeds and a significance of 1e-3: a correct sampler passes for
999 of 1000 seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from frequencies import assert_neither_too_far_nor_too_near, assert_not_too_far, chi_square
from sampling import mass, new_priorities, of_ones, stage, written

from diskreplay.live_range import LiveRange
from diskreplay.sampling import Priorities
from diskreplay.sampling.prioritized import PrioritizedSampler
from diskreplay.sampling.uniform import UniformSampler

BATCH, BATCHES = 64, 3200  # 204,800 draws


def shares_of(priorities: Priorities, live: LiveRange) -> Any:
    """The probability of each live write id."""
    masses = np.array([mass(p) for p in priorities.live_values(live)])
    return masses / masses.sum()


@pytest.mark.parametrize("capacity", [1, 3, 1000, 4097])
@pytest.mark.parametrize("laps", [0.5, 1.0, 3.4])
def test_write_ids_are_drawn_in_proportion_to_their_masses(capacity: int, laps: float) -> None:
    count = max(1, int(laps * capacity))
    priorities, live = written(capacity, count, seed=capacity)
    shares = shares_of(priorities, live)
    generator = np.random.default_rng(11)
    draws = [PrioritizedSampler(priorities).draw(BATCH, live, generator) for _ in range(BATCHES)]
    drawn = np.stack([write_ids for write_ids, _ in draws]) - live.first
    assert drawn.min() >= 0
    assert drawn.max() < live.size
    probabilities = np.stack([found for _, found in draws])
    np.testing.assert_allclose(probabilities, shares[drawn], rtol=1e-12)

    # All draws together. A batch is stratified, which can only lower the variance of a frequency:
    # so there is an upper limit here, and no lower one.
    frequencies = np.bincount(drawn.ravel(), minlength=shares.size)
    assert_not_too_far(*chi_square(frequencies, shares * drawn.size))

    # Each share of the total by itself. There the draws of different batches are independent, so
    # the statistic has its distribution exactly, and may not be too small either.
    by_slot = np.argsort(np.arange(live.first, count) % capacity)
    ends = np.cumsum(shares[by_slot])
    begins = ends - shares[by_slot]
    statistic, freedom = 0.0, 0
    for i in range(BATCH):
        overlap = np.minimum(ends, (i + 1) / BATCH) - np.maximum(begins, i / BATCH)
        expected = np.maximum(overlap, 0.0) * BATCH * BATCHES
        found = np.bincount(drawn[:, i], minlength=shares.size)[by_slot]
        assert found[expected == 0.0].sum() <= 1  # by a last bit at the end of the share
        one = chi_square(found, expected)
        statistic, freedom = statistic + one[0], freedom + max(0, one[1])
    if freedom:
        assert_neither_too_far_nor_too_near(statistic, freedom)


def test_the_places_within_a_share_change_from_batch_to_batch() -> None:
    priorities, live = of_ones(6400)
    sampler, generator = PrioritizedSampler(priorities), np.random.default_rng(5)
    drawn = np.stack([sampler.draw(BATCH, live, generator)[0] for _ in range(500)])
    assert (drawn // 100 == np.arange(BATCH)).all()  # a share of the total is 100 slots here
    different = [np.unique(column).size for column in drawn.T]
    assert min(different) > 90  # of 100; all but 0.7 are expected
    offsets = drawn % 100
    assert max(np.unique(row).size for row in offsets) > 40  # not one offset for a whole batch


def test_single_draws_are_independent() -> None:
    # A batch of one is not stratified: the frequencies may not be too good to be true.
    priorities, live = written(60, 150, seed=8)
    sampler, generator = PrioritizedSampler(priorities), np.random.default_rng(13)
    drawn = np.array([sampler.draw(1, live, generator)[0][0] for _ in range(5000)])
    expected = shares_of(priorities, live) * drawn.size
    found = np.bincount(drawn - live.first, minlength=60)
    assert_neither_too_far_nor_too_near(*chi_square(found, expected))


@pytest.mark.parametrize("alpha", [1.0, 0.6, 0.0])
def test_a_priority_of_100_among_ones_is_drawn_in_its_share(alpha: float) -> None:
    priorities, live = new_priorities(1000, alpha=alpha), LiveRange(1000, 0, 1000)
    stage(priorities, 0, [1.0] * 700 + [100.0] + [1.0] * 299)
    sampler, generator = PrioritizedSampler(priorities), np.random.default_rng(17)
    draws = [sampler.draw(BATCH, live, generator)[0] for _ in range(BATCHES)]
    found = np.mean(np.concatenate(draws) == 700)
    share = mass(100.0, alpha) / (mass(100.0, alpha) + 999 * mass(1.0, alpha))
    assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / (BATCH * BATCHES))


def test_what_is_not_live_is_never_drawn_at_any_capacity() -> None:
    generator = np.random.default_rng(19)
    for capacity in range(1, 71):
        for count in {1, capacity // 2 or 1, capacity, capacity + 1, 3 * capacity + 1}:
            priorities, live = new_priorities(capacity), LiveRange(capacity, 0, count)
            sampler = PrioritizedSampler(priorities)
            stage(priorities, 0, generator.integers(0, 3, count).tolist())
            drawn, probabilities = sampler.draw(500, live, generator)
            assert live.first <= drawn.min() <= drawn.max() < count
            assert (probabilities > 0.0).all()
            priorities.clear(count)
            priorities.stage(count, 1, None)
            one = live.since(count).until(count + 1)
            assert (sampler.draw(50, one, generator)[0] == count).all()


def test_uniform_draws_are_equally_frequent_and_without_duplicates_in_a_batch() -> None:
    generator, size = np.random.default_rng(23), 1000
    live = LiveRange(size, 0, 500 + size)
    draws = [UniformSampler().draw(BATCH, live, generator) for _ in range(BATCHES)]
    drawn = np.stack([write_ids for write_ids, _ in draws])
    assert all((probabilities == 1 / size).all() for _, probabilities in draws)
    assert drawn.min() == 500
    assert drawn.max() == 500 + size - 1
    assert all(np.unique(row).size == BATCH for row in drawn)
    frequencies = np.bincount(drawn.ravel() - 500)
    for bins in (1000, 10, 2):  # the coarse bins show a trend that single ones hide
        found = frequencies.reshape(bins, -1).sum(axis=1)
        statistic, freedom = chi_square(found, np.full(bins, drawn.size / bins))
        # Without replacement the variance of a frequency is this much lower.
        statistic *= (size - 1) / (size - BATCH)
        assert_neither_too_far_nor_too_near(statistic, freedom)


def test_a_uniform_batch_of_everything_is_a_random_order() -> None:
    live, generator = LiveRange(5, 0, 12), np.random.default_rng(29)
    draws = np.stack([UniformSampler().draw(5, live, generator)[0] for _ in range(4000)])
    assert (np.sort(draws, axis=1) == np.arange(7, 12)).all()
    for place in draws.T:
        statistic = chi_square(np.bincount(place - 7), np.full(5, 800.0))
        assert_neither_too_far_nor_too_near(*statistic)

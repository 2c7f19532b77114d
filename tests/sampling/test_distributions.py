"""The frequencies of the draws of each distribution, and what must hold for any of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from distributions import RUNS, drawn, shares
from frequencies import assert_neither_too_far_nor_too_near, assert_not_too_far, chi_square
from hypothesis import given
from hypothesis import strategies as st
from sampling import EPSILON, stage

from diskreplay import SampleError
from diskreplay.live_range import LiveRange
from diskreplay.samplers import Epoch, Mixed, Newest, Range, RankBased, Recent, Runs
from diskreplay.sampling import DrawBasis, Priorities, PrioritySettings

CAPACITY = 60
LIVE = LiveRange(CAPACITY, 30, 150)  # after a clear, and more than one lap: [90, 150)
LEFT_OUT = {91, 120, 121, 147, 149}
SOME = [
    Newest(25), Range(100, 130), Range(0), Recent(7.5), Recent(1e6), Epoch(), Mixed(0.25),
    Mixed(1.0), Runs([1, 2, 4]), RankBased(), RankBased(1.0), RankBased(0.0),
]  # fmt: skip
DRAWS, LONG_DRAWS = 1_500, 4_000
SETTINGS = PrioritySettings(alpha=0.6, epsilon=EPSILON)


def priorities_of(distribution: Any, live: LiveRange) -> tuple[list[float], Priorities]:
    """Return random priorities of all write ids, as a list and in their table."""
    given = np.random.default_rng(1).exponential(size=live.count).astype(np.float32).tolist()
    table = distribution.table(live.ring_slots, SETTINGS)
    stage(table, 0, given)
    return given, table


def sampler_of(distribution: Any, kind: str, left_out: set[int]) -> tuple[Any, dict[int, float]]:
    """Return a sampler, and the shares that its draws must have."""
    given, table = priorities_of(distribution, LIVE)
    is_uniform = kind == "uniform"
    sampler = distribution.sampler(DrawBasis(None if is_uniform else table, RUNS))
    if left_out:
        sampler.leave_out(np.array(sorted(left_out)), LIVE)
    return sampler, shares(distribution, LIVE, None if is_uniform else given, left_out)


BOTH = [
    (distribution, kind)
    for distribution in SOME
    for kind in ("uniform", "prioritized")
    if kind == "prioritized" or not distribution.needs_priorities
]


@pytest.mark.parametrize("left_out", [set(), LEFT_OUT], ids=["whole", "damaged"])
@pytest.mark.parametrize(("distribution", "kind"), BOTH, ids=str)
def test_the_frequencies_are_those_of_the_distribution(
    distribution: Any, kind: str, left_out: set[int], long: bool
) -> None:
    draws = LONG_DRAWS if long else DRAWS
    sampler, expected = sampler_of(distribution, kind, left_out)
    wanted = np.array([expected.get(i, 0.0) for i in range(LIVE.first, LIVE.count)])
    for n in (1, 8):  # each draw by itself, and batches, of which the shares are more even
        ids, probabilities = drawn(sampler, LIVE, n, draws // n)
        places = ids - LIVE.first
        np.testing.assert_allclose(probabilities, wanted[places], rtol=1e-12)
        found = np.bincount(places.ravel(), minlength=CAPACITY)
        statistic, freedom = chi_square(found, wanted * ids.size)
        if n == 1 and not isinstance(distribution, Epoch):
            assert_neither_too_far_nor_too_near(statistic, freedom)
        else:
            assert_not_too_far(statistic, freedom)


@pytest.mark.parametrize("n", [3, 8])
@pytest.mark.parametrize(
    "distribution", [Newest(25), Range(100, 130), Runs([2, 4]), Epoch()], ids=str
)
def test_a_uniform_batch_holds_no_transition_twice(distribution: Any, n: int) -> None:
    sampler, _ = sampler_of(distribution, "uniform", set())
    ids, _ = drawn(sampler, LIVE, n, 300)
    doubled = [len(set(row)) < n for row in ids.tolist()]
    # The batches that end an epoch hold transitions of two of them.
    ends = {(epoch * 60 - 1) // n for epoch in range(1, 50) if epoch * 60 % n}
    allowed = ends if isinstance(distribution, Epoch) else set()
    assert {number for number, is_doubled in enumerate(doubled) if is_doubled} <= allowed


@pytest.mark.parametrize(("distribution", "n"), [(Recent(7.5), 8), (Mixed(0.25), 8)], ids=str)
def test_batches_have_one_draw_from_each_equal_share(distribution: Any, n: int) -> None:
    # So a transition with a share of P comes between P * n - 2 and P * n + 2 times in a batch: a
    # mixture lays it out in two places, and each piece of a line overlaps two shares in part.
    sampler, expected = sampler_of(distribution, "prioritized", set())
    ids, _ = drawn(sampler, LIVE, n, 500)
    for write_id, share in expected.items():
        times = (ids == write_id).sum(axis=1)
        assert times.min() >= share * n - 2
        assert times.max() <= share * n + 2


def test_recent_draws_halve_with_each_half_life() -> None:
    live = LiveRange(10**6, 0, 10**6)
    sampler = Recent(1000.0).sampler(DrawBasis())
    ids, _ = drawn(sampler, live, 64, 2000)
    half_lives = (live.count - 1 - ids.ravel()) // 1000
    found = np.bincount(np.minimum(half_lives, 12), minlength=13)
    expected = np.append(0.5 ** np.arange(1, 13), 0.5**12) * ids.size
    assert_not_too_far(*chi_square(found, expected))


@pytest.mark.parametrize("half_life", [1e-6, 0.01, 1e9, 2.0**62])
def test_any_half_life_draws_what_is_live(half_life: float) -> None:
    sampler = Recent(half_life).sampler(DrawBasis())
    sampler.leave_out(np.arange(130, 150), LIVE)  # the newest, so that the others are very old
    ids, probabilities = drawn(sampler, LIVE, 32, 20)
    assert ids.min() >= 90
    assert ids.max() < 130
    if half_life < 1:
        assert (ids == 129).all()
        assert (probabilities == 1.0).all()
    else:
        np.testing.assert_allclose(probabilities, 1 / 40, rtol=1e-6)


@st.composite
def cases(draw: Any) -> tuple[Any, LiveRange, list[float] | None, set[int]]:
    capacity = draw(st.integers(1, 40))
    count = draw(st.integers(1, 100))
    keep_rows = draw(st.sampled_from([0, 0, 1, 7]))
    live = LiveRange(capacity, draw(st.integers(0, count - 1)), count, keep_rows)
    ids = st.integers(0, count + 3)
    distribution = draw(
        st.one_of(
            st.builds(Newest, st.integers(1, 50)),
            st.tuples(ids, st.none() | ids).map(
                lambda pair: Range(pair[0], None if pair[1] is None else sum(pair) + 1)
            ),
            st.builds(Recent, st.floats(1e-6, 1e9)),
            st.just(Epoch()),
            st.builds(Runs, st.sets(st.integers(0, 5), min_size=1)),
            st.builds(Mixed, st.floats(0, 1)),
            st.builds(RankBased, st.floats(0, 10)),
        )
    )
    needs = distribution.needs_priorities
    values = st.sampled_from([0.0, 1e-3, 1.0, 7.5, 1e9])
    given = draw(st.lists(values, min_size=count, max_size=count)) if needs else None
    if not needs and draw(st.booleans()):
        given = draw(st.lists(values, min_size=count, max_size=count))
    return distribution, live, given, draw(st.sets(st.integers(live.first, count - 1)))


@given(cases(), st.integers(1, 12), st.integers(0, 99))
def test_only_what_may_be_drawn_is_drawn_with_its_true_probability(
    case: tuple[Any, LiveRange, list[float] | None, set[int]], n: int, number: int
) -> None:
    distribution, live, given_priorities, left_out = case
    table = None
    if given_priorities is not None:
        table = distribution.table(live.ring_slots, SETTINGS)
        stage(table, 0, given_priorities)
    sampler = distribution.sampler(DrawBasis(table, RUNS))
    if left_out:
        sampler.leave_out(np.array(sorted(left_out)), live)
    expected = shares(distribution, live, given_priorities, left_out)
    without_duplicates = table is None and not isinstance(distribution, Recent | Mixed)
    without_duplicates |= isinstance(distribution, Epoch)
    if len(expected) < (n if without_duplicates else 1):
        with pytest.raises(SampleError, match=r"cannot draw|nothing to draw"):
            drawn(sampler, live, n, 1)
        return
    assert sum(expected.values()) == pytest.approx(1.0)
    assert sampler.total_mass(live) > 0.0
    for _ in range(2):  # a draw follows from its number alone
        ids, probabilities = drawn(sampler, live, n, 1, seed=number)
        assert (ids.dtype, probabilities.dtype) == (np.int64, np.float64)
        assert set(ids.ravel().tolist()) <= expected.keys()
        wanted = [expected[i] for i in ids.ravel().tolist()]
        np.testing.assert_allclose(probabilities.ravel(), wanted, rtol=1e-6)
        assert (probabilities > 0.0).all()
    again, _ = drawn(sampler, live, n, 1, seed=number)
    assert again.tolist() == ids.tolist()

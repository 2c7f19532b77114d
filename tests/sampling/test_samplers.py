"""The samplers: prioritized and uniform draws, importance weights, and the settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from common import columns
from sampling import mass, new_priorities

from diskreplay import ArgumentError, PriorityError, ReplayBuffer, SampleError, importance_weights
from diskreplay.live_range import LiveRange
from diskreplay.sampling import PrioritySettings
from diskreplay.sampling.prioritized import PrioritizedSampler
from diskreplay.sampling.uniform import UniformSampler

# Prioritized draws


def test_what_is_left_out_is_not_drawn() -> None:
    priorities, live = new_priorities(8), LiveRange(8, 0, 12)
    priorities.stage(0, 12, None)
    sampler = PrioritizedSampler(priorities)
    assert sampler.total_mass(live) == pytest.approx(8 * mass(1.0))
    sampler.leave_out(np.array([4, 11]), live)
    assert sampler.total_mass(live) == pytest.approx(6 * mass(1.0))
    drawn, probabilities = sampler.draw(60, live, np.random.default_rng(3))
    assert set(drawn.tolist()) == set(range(5, 11))
    assert probabilities.tolist() == pytest.approx([1 / 6] * 60)
    sampler.leave_out(np.arange(5, 11), live)
    with pytest.raises(SampleError, match="nothing to draw"):
        sampler.draw(1, live, np.random.default_rng(3))


# Uniform draws


def test_a_uniform_sampler_never_draws_what_is_left_out() -> None:
    sampler, generator = UniformSampler(), np.random.default_rng(3)
    live = LiveRange(10, 0, 25)
    sampler.leave_out(np.array([24, 17]), live)
    sampler.leave_out(np.array([15, 17, 16]), live)
    assert sampler.total_mass(live) == 6.0
    for _ in range(5):
        drawn, probabilities = sampler.draw(6, live, generator)
        assert (drawn.dtype, probabilities.dtype) == (np.int64, np.float64)
        assert sorted(drawn.tolist()) == [18, 19, 20, 21, 22, 23]
        assert probabilities.tolist() == [1 / 6] * 6
    message = "cannot draw 7 transitions of 10, of which damaged: 4"
    with pytest.raises(SampleError, match=message):
        sampler.draw(7, live, generator)
    later = live.until(32)  # only 24 of the four is still live
    assert sampler.total_mass(later) == 9.0
    assert sorted(sampler.draw(9, later, generator)[0].tolist()) == [22, 23, *range(25, 32)]


def test_a_uniform_buffer_takes_no_priorities() -> None:
    with ReplayBuffer(4) as buffer:
        for n, given in ((3, [1.0] * 3), (1, [1.0])):
            with pytest.raises(
                PriorityError, match="draws uniformly and keeps no priorities: leav"
            ):
                buffer.extend(**columns(0, n), priorities=given)
        assert len(buffer) == 0


# Importance weights


@pytest.mark.parametrize("beta", [0.0, 0.4, 0.73, 1.0])
def test_importance_weights_follow_the_formula(beta: float) -> None:
    probabilities = [0.5, 0.2, 1e-3, 3.7e-9, 0.2, 1.0]
    for size in (1, 6, 1_000_000):
        raw = [(size * p) ** -beta for p in probabilities]
        expected = [w / max(raw) for w in raw]
        found = importance_weights(np.array(probabilities), size, beta)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2e-7)
        assert found.max() == 1.0
        assert importance_weights(np.full(5, 0.1), size, beta).tolist() == [1.0] * 5
    assert importance_weights([], 3, beta).tolist() == []
    for bad, size in (([0.5, 0.0], 3), ([0.5], 0), ([0.5, -0.1], 3), ([np.nan], 3)):
        with pytest.raises(ArgumentError, match=r"probabilities and size must be above zero"):
            importance_weights(bad, size, beta)


# Settings


def test_the_settings_are_plain_data_and_come_back() -> None:
    settings = PrioritySettings(alpha=1, beta_start=0, beta_frames=7.0)  # type: ignore[arg-type]
    plain = {"alpha": 1.0, "beta_start": 0.0, "beta_end": 1.0, "beta_frames": 7, "epsilon": 1e-6}
    assert settings.to_plain() == plain
    assert list(plain) == PrioritySettings.names()
    kinds = [type(value) for value in settings.to_plain().values()]
    assert kinds == [float, float, float, int, float]
    assert PrioritySettings.of({**plain, "durability": "system"}) == settings
    usual = PrioritySettings(0.6, 0.4, 1.0, 100_000, 1e-6)
    assert PrioritySettings.of({}) == PrioritySettings() == usual
    assert PrioritySettings.of({"alpha": 0.5}) == PrioritySettings(alpha=0.5)


@pytest.mark.parametrize("name", ["alpha", "beta_start", "beta_end"])
def test_exponents_are_numbers_from_zero_to_one(name: str) -> None:
    for good in (0, 1, 0.5, np.float32(0.25)):
        assert getattr(PrioritySettings(**{name: good}), name) == good
    bad: Any
    for bad in (-0.1, 1.1, float("nan"), float("inf"), "x", "0.6", 10**400, None, True, [0.5, 0.6]):
        with pytest.raises(ArgumentError, match=rf"{name} must be a number in \[0, 1\]") as caught:
            PrioritySettings(**{name: bad})
        assert ("give powers of priorities" in str(caught.value)) == (name == "alpha")


def test_epsilon_is_above_zero_and_the_frames_are_at_least_one() -> None:
    assert PrioritySettings(epsilon=5e-324).epsilon == 5e-324
    bad: Any
    for bad in (0, 0.0, -1.0, float("nan"), float("inf"), 1e39, None, True):
        message = r"epsilon must be a number in \(0, 3.40282e\+38\].* would never be drawn"
        with pytest.raises(ArgumentError, match=message):
            PrioritySettings(epsilon=bad)
    for bad in (0, -1, 1.5, "3", None, True, 2**53 + 1):
        with pytest.raises(ArgumentError, match="beta_frames must be a whole number of at"):
            PrioritySettings(beta_frames=bad)

"""Which counts shares give: their sum, their bounds, their mean; and which weights are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from diskreplay import ArgumentError, SampleError
from diskreplay.mixture.shares import Shares, exact_counts, mean_counts

weights = st.lists(st.floats(0, 1e6) | st.integers(0, 5), min_size=1, max_size=8).filter(
    lambda found: sum(found) > 0
)


class Fixed:
    """A generator whose random number is chosen."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return float(self.number)


def shares_of(given: list[float]) -> Any:
    found = np.array(given, np.float64)
    return found / found.sum()


def exact(n: int, shares: Any, number: float) -> Any:
    """The exact counts where the random number is this."""
    counts = exact_counts(n, shares.tolist(), Fixed(number))  # type: ignore[arg-type]
    assert {type(count) for count in counts} == {int}
    return np.array(counts)


@given(weights, st.integers(1, 5000), st.floats(0, 1, exclude_max=True))
def test_exact_counts_are_shares_rounded_down_or_up(
    given: list[float], n: int, number: float
) -> None:
    shares = shares_of(given)
    counts = exact(n, shares, number)
    assert counts.sum() == n
    assert (counts >= np.floor(shares * n - 1e-6)).all()
    assert (counts <= np.ceil(shares * n + 1e-6)).all()
    assert not counts[shares == 0].any()


@given(weights, st.integers(1, 100))
def test_the_mean_of_exact_counts_is_right(given: list[float], n: int) -> None:
    shares = shares_of(given)
    numbers = (np.arange(1000) + 0.5) / 1000  # as an integral over the random number
    found = [exact(n, shares, number) for number in numbers]
    np.testing.assert_allclose(np.mean(found, axis=0), shares * n, atol=2e-3)


@pytest.mark.parametrize(
    ("given", "n", "wanted"),
    [
        ([1, 1], 256, [128, 128]),
        ([0.1] * 10, 30, [3] * 10),
        ([1, 2, 0], 3, [1, 2, 0]),
        ([0.7, 0.2, 0.1], 10, [7, 2, 1]),
        ([0, 1, 0], 7, [0, 7, 0]),
    ],
)
def test_whole_shares_are_exact_whatever_is_drawn(
    given: list[float], n: int, wanted: list[int]
) -> None:
    for number in (0.0, 0.5, 1 - 2**-53):
        assert exact(n, shares_of(given), number).tolist() == wanted


@given(weights, st.integers(1, 5000), st.integers(0, 2**32))
def test_drawn_counts_add_up(given: list[float], n: int, seed: int) -> None:
    shares = shares_of(given)
    counts = np.array(mean_counts(n, shares.tolist(), np.random.default_rng(seed)))
    assert counts.sum() == n
    assert not counts[shares == 0].any()


def test_drawn_counts_are_multinomial() -> None:
    # Error rate 1e-3. The variance tells drawn counts from exact ones.
    shares, n, generator = shares_of([5, 3, 2]), 10, np.random.default_rng(3)
    found = np.array([mean_counts(n, shares.tolist(), generator) for _ in range(4000)])
    total = found.sum(axis=0)
    expected = shares * n * len(found)
    assert ((total - expected) ** 2 / expected).sum() <= chi2.ppf(1 - 1e-3, 2)
    np.testing.assert_allclose(found.var(axis=0), n * shares * (1 - shares), rtol=0.1)


def test_weights_become_shares_in_the_order_of_the_names() -> None:
    names, none = ("a", "b", "c"), [0, 0, 0]
    assert Shares(names, {"c": 2, "a": 1, "b": 1}).of(0, none) == [0.25, 0.25, 0.5]
    seen: list[int] = []

    def schedule(number: int) -> dict[str, float]:
        seen.append(number)
        return {"a": number, "b": 1, "c": 0}

    assert Shares(names, schedule).of(3, none) == [0.75, 0.25, 0.0]
    assert seen == [3]
    sizes = [6, 0, 2]
    assert Shares(names, None).of(0, sizes) == [0.75, 0.0, 0.25]
    with pytest.raises(SampleError, match="sources 'a', 'b', 'c' hold no transitions"):
        Shares(names, None).of(0, none)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"a": 1}, r"weights must name each source.* \(missing: 'b'; unknown: none\)"),
        ({"a": 1, "b": 1, "x": 1}, r"\(missing: none; unknown: 'x'\)"),
        ({"a": 1, "b": -0.5}, r"weights\['b'\] must be a finite number .*\(found -0.5\)"),
        ({"a": float("inf"), "b": 1}, r"weights\['a'\] must be a finite .*\(found inf\)"),
        ({"a": 1, "b": float("nan")}, r"weights\['b'\] .*\(found nan\)"),
        ({"a": "1", "b": 1}, r"weights\['a'\] .*\(found '1'\)"),
        ({"a": None, "b": 1}, r"weights\['a'\] .*\(found None\)"),
        ({"a": 0, "b": 0}, "weights must have a sum above 0"),
        ({"a": 1e308, "b": 1e308}, "weights must have a sum above 0"),
        ([1, 1], r"weights must give each source's share .*'a': 1.*\(found \[1, 1\]\)"),
        (0.5, "weights must give each source's share"),
    ],
)
def test_other_weights_are_refused(bad: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Shares(("a", "b"), bad)
    schedule = Shares(("a", "b"), lambda number: bad)
    in_schedule = message.replace("weights", r"weights\(7\)", 1)
    with pytest.raises(ArgumentError, match=in_schedule):
        schedule.of(7, [1, 1])

"""The orders of the epochs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from frequencies import assert_neither_too_far_nor_too_near, assert_not_too_far, chi_square
from hypothesis import given
from hypothesis import strategies as st

from diskreplay.sampling.permutation import permuted


def bits(key: int) -> np.random.Philox:
    return np.random.Philox(key=key)


@given(st.integers(1, 5000), st.integers(0, 2**64))
def test_every_number_comes_once(size: int, key: int) -> None:
    whole = permuted(np.arange(size), size, bits(key))
    assert np.sort(whole).tolist() == list(range(size))
    some = np.arange(size)[:: max(1, size // 7)][::-1]
    assert permuted(some, size, bits(key)).tolist() == whole[some].tolist()
    assert permuted(some[:0], size, bits(key)).tolist() == []


@pytest.mark.parametrize("size", [2**20, 2**20 + 1, 2**40])
def test_no_number_comes_twice_in_a_large_order(size: int) -> None:
    places = np.append(np.arange(20_000), size - 1 - np.arange(20_000))
    found = permuted(places, size, bits(4))
    assert np.unique(found).size == found.size
    assert 0 <= found.min() <= found.max() < size


def test_all_orders_of_five_are_equally_frequent() -> None:
    orders = dict.fromkeys(itertools.permutations(range(5)), 0)
    for key in range(6000):
        orders[tuple(permuted(np.arange(5), 5, bits(key)).tolist())] += 1
    found = np.array([*orders.values()])
    assert_neither_too_far_nor_too_near(*chi_square(found, np.full(120, 50.0)))


@pytest.mark.parametrize("size", [1024, 1025, 1500, 2048, 2049, 60_000, 2**20])
def test_neighbours_in_an_order_are_independent(size: int) -> None:
    n, bins, orders = 256, 16, 600
    pairs, apart, low_bits = np.zeros((bins, bins)), np.zeros(bins), np.zeros((bins, bins))
    for key in range(orders):
        begin = key * 7919 % (size - n)
        found = permuted(np.arange(begin, begin + n), size, bits(key))
        one, other = found[::2], found[1::2]
        np.add.at(pairs, (one * bins // size, other * bins // size), 1)
        np.add.at(apart, ((other - one) % size - 1) * bins // (size - 1), 1)
        np.add.at(low_bits, (one % bins, other % bins), 1)
    sizes = np.bincount(np.arange(size) * bins // size) / size
    gaps = np.bincount(np.arange(size - 1) * bins // (size - 1)) / (size - 1)
    lows = np.bincount(np.arange(size) % bins) / size
    total = orders * n / 2
    # An order has no number twice, which can only make the frequencies more even.
    for found, expected in ((pairs, np.outer(sizes, sizes)), (low_bits, np.outer(lows, lows))):
        assert_not_too_far(*chi_square(found.ravel(), expected.ravel() * total))
    assert_not_too_far(*chi_square(apart, gaps * total))


@pytest.mark.parametrize("size", [1025, 2**16])
def test_each_place_leads_anywhere(size: int) -> None:
    bins, found = 8, np.zeros((8, 8))
    places = np.arange(bins) * (size // bins)
    for key in range(4000):
        numbers = permuted(places, size, bits(key))
        found[np.arange(bins), numbers * bins // size] += 1
    expected = np.outer(np.ones(bins), np.bincount(np.arange(size) * bins // size)) / size * 4000
    assert_not_too_far(*chi_square(found.ravel(), expected.ravel()))

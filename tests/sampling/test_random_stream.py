"""RandomStream: the numbers of a draw follow from the seed and the number of the draw alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling import written

from diskreplay.sampling import RandomStream, new_seed
from diskreplay.sampling.prioritized import PrioritizedSampler
from diskreplay.sampling.random_stream import SEED_BYTES
from diskreplay.sampling.uniform import UniformSampler

NUMBERS = st.integers(0, 99) | st.integers(0, 2**53)
WAYS = st.sampled_from(["random", "integers", "choice", "raw"])


def use(generator: Any, how: str, n: int) -> None:
    if how == "random":
        generator.random(n)
    elif how == "integers":  # of 32 bits, two from each number of the stream
        generator.integers(0, 9, n, dtype=np.uint32)
    elif how == "choice":
        generator.choice(n + 1, n, replace=False)
    else:
        generator.bit_generator.random_raw(n)


@given(NUMBERS, st.lists(st.tuples(NUMBERS, WAYS, st.integers(0, 70)), max_size=6))
def test_the_numbers_of_a_draw_do_not_depend_on_draws_before(
    number: int, before: list[tuple[int, str, int]]
) -> None:
    seed = new_seed(3)
    stream = RandomStream(seed)
    for other, how, n in before:
        use(stream.of_draw(other), how, n)
    generator, fresh = stream.of_draw(number), RandomStream(seed).of_draw(number)
    for each in (lambda g: g.integers(0, 99, 9, dtype=np.uint32), lambda g: g.random(9)):
        assert each(generator).tolist() == each(fresh).tolist()
    assert stream.seed == seed


def test_seeds_runs_and_numbers_have_numbers_of_their_own() -> None:
    seeds = [new_seed(s, run=run) for s in (0, 1, 42, 2**80) for run in (None, 0, 1, 2)]
    seeds += [new_seed(), new_seed(), new_seed(run=1)]
    assert {len(seed) for seed in seeds} == {SEED_BYTES}
    numbers = [0, 1, 2, 3, 255, 256, 2**32, 2**53, 2**63, 2**64 - 1]
    found = [n for seed in seeds for i in numbers for n in RandomStream(seed).of_draw(i).random(50)]
    assert len(set(found)) == len(seeds) * len(numbers) * 50
    assert new_seed(42, run=1) == new_seed(42, run=1)


def philox(key: list[int], counter: list[int]) -> list[int]:
    """Philox4x64-10, from Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011."""
    (a, b), (left, right), odd = key, counter[::2], counter[1::2]
    for _ in range(10):
        high_left, low_left = divmod(left * 0xD2E7470EE14C6C93, 2**64)
        high_right, low_right = divmod(right * 0xCA5A826395121157, 2**64)
        left, right = high_right ^ odd[0] ^ a, high_left ^ odd[1] ^ b
        odd = [low_right, low_left]
        a, b = (a + 0x9E3779B97F4A7C15) % 2**64, (b + 0xBB67AE8584CAA73B) % 2**64
    return [left, odd[0], right, odd[1]]


@pytest.mark.parametrize("number", [0, 1, 10**6, 2**53])
def test_the_numbers_are_those_of_philox_by_the_number_of_the_draw(number: int) -> None:
    stream = RandomStream(bytes(range(16)))
    key = [int.from_bytes(bytes(range(8 * i, 8 * i + 8)), "little") for i in range(2)]
    expected = [n for i in (1, 2, 3) for n in philox(key, [i, number, 0, 0])]
    found: Any = stream.of_draw(number).bit_generator
    assert found.random_raw(12).tolist() == expected
    assert stream.of_draw(number).random(12).tolist() == [(n >> 11) / 2**53 for n in expected]


def test_a_store_that_goes_on_draws_what_it_would_have_drawn() -> None:
    # A store remembers its seed and the number of its next draw: these values must never change.
    assert new_seed(42).hex() == "b70a54cd6d2e1e9fb694fb79dc7378d5"
    assert new_seed(42, run=1).hex() == "ba3ce6f363b7dc016e6fde15d67dee6a"
    stream = RandomStream(new_seed(42))
    assert stream.of_draw(7).random(2).tolist() == [0.0706771248642214, 0.8222058136075964]
    priorities, live = written(100, 250, seed=1)
    drawn = UniformSampler().draw(6, live, stream.of_draw(7))[0].tolist()
    assert drawn == [156, 152, 248, 230, 232, 154]
    drawn = PrioritizedSampler(priorities).draw(6, live, stream.of_draw(7))[0].tolist()
    assert drawn == [201, 225, 229, 151, 170, 187]

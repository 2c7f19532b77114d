"""Permutation: an order of whole numbers that a key chooses, computed for the places asked for.

The numbers below a power of two are permuted by a Feistel network: one half of the bits is changed
by a function of the other half, in turns, so each step can be undone, whatever the function. A
result beyond the size is permuted again, until it is below: that leads each place to another
number. Sources: Luby & Rackoff, How to Construct Pseudorandom Permutations, 1988; Black & Rogaway,
Ciphers with Arbitrary Finite Domains, 2002 (cycle walking).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Ints

_ROUNDS = 4  # of two steps each
_FEW = 1024


def permuted(places: Ints, size: int, bits: np.random.Philox) -> Ints:
    """Return the numbers at some places of a random permutation of the numbers below `size`.

    Cost: O(n), about 2 passes on average.

    >>> permuted(np.array([5, 6]), 7, np.random.Philox(1)).tolist()
    [5, 2]

    places:  int64 (n,), each in [0, size)
    bits:    the same ones, in the same state, give the same permutation
    """
    if size <= _FEW:  # of few bits, the network can make few permutations
        return np.random.Generator(bits).permutation(size)[places]
    keys = bits.random_raw(4 * _ROUNDS)
    keys[::2] |= np.uint64(1)
    n_bits = (size - 1).bit_length()
    n_low = (n_bits + 1) // 2
    found = places.copy()
    beyond = np.arange(places.size)
    while beyond.size:
        found[beyond] = _shuffled(found[beyond], n_bits - n_low, n_low, keys)
        beyond = beyond[found[beyond] >= size]
    return found


def _shuffled(numbers: Ints, n_high: int, n_low: int, keys: NDArray[np.uint64]) -> Ints:
    """Return a permutation of the numbers of n_high + n_low bits."""
    values = numbers.astype(np.uint64)
    to_low, to_high = np.uint64(64 - n_low), np.uint64(64 - n_high)
    high, low = values >> np.uint64(n_low), values & np.uint64((1 << n_low) - 1)
    for at in range(0, keys.size, 4):
        # The upper bits of a product depend on all bits of both factors.
        low ^= (high + keys[at + 1]) * keys[at] >> to_low
        high ^= (low + keys[at + 3]) * keys[at + 2] >> to_high
    return ((high << np.uint64(n_low)) | low).astype(np.int64)

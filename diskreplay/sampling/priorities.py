"""Priorities: which numbers may be one, how they are stored, and the weights that go with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diskreplay.errors import ArgumentError, DamageError, PriorityError
from diskreplay.live_range import BLOCK_SLOTS, block_span
from diskreplay.validation import MAX_COUNT, as_array, real_number, real_numbers, whole_number
from diskreplay.wording import count_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Priorities = NDArray[np.float32]

MAX_PRIORITY = float(np.finfo(np.float32).max)
_BLOCK_DTYPE = np.dtype("<f4")


def importance_weights(probabilities: ArrayLike, size: int, beta: float) -> NDArray[np.float32]:
    """Return `(size * P(i)) ** -beta`, divided by the largest of the batch, float32 (n,).

    Source: Schaul et al., Prioritized Experience Replay, ICLR 2016, section 3.4.

    >>> importance_weights(np.array([0.5, 0.25]), size=4, beta=1.0)
    array([0.5, 1. ], dtype=float32)
    """
    given = real_numbers("probabilities", probabilities)
    size = whole_number("size", size, at_least=0)
    return weights_of(given, size, real_number("beta", beta, low=0.0, high=float("inf")))


def weights_of(probabilities: Floats, size: int, beta: float) -> Priorities:
    """Return what `importance_weights` does, of arguments of the right types."""
    shares = size * probabilities
    if not shares.size:
        return np.zeros(shares.shape, np.float32)
    least = np.minimum.reduce(shares)
    if not least > 0.0:
        raise ArgumentError(
            f"probabilities and size must be above zero (found {probabilities.min()} and {size})"
        )
    # The smallest share has the largest weight; dividing first cannot overflow.
    weights: Floats = (shares / least) ** -beta
    return weights.astype(np.float32)


def checked_priorities(priorities: ArrayLike, n: int) -> Priorities:
    """Return n priorities as float32, or raise PriorityError."""
    found = as_array(priorities, PriorityError, f"expected {n} priorities")
    if found.dtype.kind not in "biuf" or found.shape != (n,):
        raise PriorityError(
            f"expected {n} priorities, shape ({n},) (found shape {found.shape}, {found.dtype})"
        )
    given = found.astype(np.float64)
    # A NaN is its own minimum. The ufuncs are asked themselves, which takes half as long.
    if n and not (np.minimum.reduce(given) >= 0 and np.maximum.reduce(given) <= MAX_PRIORITY):
        bad = given[~((given >= 0) & (given <= MAX_PRIORITY))][0]
        raise PriorityError(
            f"a priority must be finite and not negative, at most {MAX_PRIORITY:.4g} "
            f"(found {bad}): give the absolute TD error"
        )
    return given.astype(np.float32)


def block_of(number: int, content: bytes, capacity: int) -> Priorities:
    """Return the priorities of a stored block; raise DamageError when they are none."""
    span = block_span(number, capacity)
    expected = max(0, span.stop - span.start) * _BLOCK_DTYPE.itemsize
    if not expected or len(content) != expected:
        raise DamageError(
            f"priority block {number} has {count_of(len(content), 'byte')} (expected {expected:,})"
        )
    block = np.frombuffer(content, _BLOCK_DTYPE)
    if not ((block >= 0.0) & (block <= MAX_PRIORITY)).all():
        raise DamageError(f"priority block {number} holds what is not a priority")
    return block


class Blocks(Mapping[int, bytes]):
    """Blocks of the priorities of all slots, as they are stored, by number.

    They are cut out when they are looked up: all at once they would be as large as the priorities.
    """

    def __init__(self, priorities: Priorities, numbers: list[int]) -> None:
        self._raw = priorities.astype(_BLOCK_DTYPE, copy=False).data.cast("B")
        self._numbers = numbers

    def __getitem__(self, number: int) -> bytes:
        size = BLOCK_SLOTS * _BLOCK_DTYPE.itemsize
        return bytes(self._raw[number * size : (number + 1) * size])

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def newest_ids(slots: Ints, count: int, capacity: int) -> Ints:
    """Return the newest write id of each slot, negative where it was never written."""
    return count - 1 - (count - 1 - slots) % capacity


def overlaid(
    capacity: int,
    read: Callable[[list[int]], Mapping[int, bytes]],
    first: int,
    count: int,
    write_ids: Ints,
    priorities: NDArray[Any],
) -> dict[int, bytes]:
    """Return stored blocks with priorities laid over them; the last of duplicates wins.

    Blocks without a slot of the live write ids [first, count) need not be stored.

    read:  returns stored blocks by number, or raises where one is missing
    """
    slots = write_ids % capacity
    numbers = np.unique(slots // BLOCK_SLOTS)
    places = numbers[:, None] * BLOCK_SLOTS + np.arange(BLOCK_SLOTS)
    live = (newest_ids(places, count, capacity) >= first) & (places < capacity)
    table = np.zeros(places.shape, np.float32)
    for number, content in read(numbers[live.any(axis=1)].tolist()).items():
        block = block_of(number, content, capacity)
        table[np.searchsorted(numbers, number), : block.size] = block
    table[np.searchsorted(numbers, slots // BLOCK_SLOTS), slots % BLOCK_SLOTS] = priorities
    sizes = np.minimum(BLOCK_SLOTS, capacity - numbers * BLOCK_SLOTS).tolist()
    return {
        number: row[:size].astype(_BLOCK_DTYPE).tobytes()
        for number, row, size in zip(numbers.tolist(), table, sizes, strict=True)
    }


def checked_state(state: Mapping[str, Any]) -> tuple[int, float | None]:
    """Return the stored frame and largest priority; raise DamageError when they are neither."""
    frame, largest = state.get("frame"), state.get("max_priority")
    if type(frame) is not int or not 0 <= frame <= MAX_COUNT:
        raise DamageError(f"the stored frame is not a count of draws (found {frame!r})")
    if largest is not None and not (type(largest) is float and 0 <= largest <= MAX_PRIORITY):
        raise DamageError(f"the stored largest priority is not a priority (found {largest!r})")
    return frame, largest

"""Samplers: which write ids a batch is made of. They know write ids and priorities, and no data.

Both have the same methods, so that a buffer need not know which one it has. `first` and `count`
are the ends of the live write ids: [first, count).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diskreplay.arguments import checked_capacity, real_number, whole_number
from diskreplay.errors import ArgumentError, DamageError, PriorityError
from diskreplay.sum_tree import SumTree

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Priorities = NDArray[np.float32]

BLOCK_SLOTS = 1000  # as many float32 as fit a page of 4096 bytes with their framing
_WAITING_KEPT = 1 << 14  # places for new priorities that are never given back
_BLOCK_DTYPE = np.dtype("<f4")
_MAX_PRIORITY = float(np.finfo(np.float32).max)


def importance_weights(probabilities: ArrayLike, size: int, beta: float) -> NDArray[np.float32]:
    """Return `(size * P(i)) ** -beta`, divided by the largest of the batch, float32 (n,).

    Source: Schaul et al., Prioritized Experience Replay, ICLR 2016, section 3.4.

    >>> importance_weights(np.array([0.5, 0.25]), size=4, beta=1.0)
    array([0.5, 1. ], dtype=float32)
    """
    shares = size * np.asarray(probabilities, np.float64)
    if not shares.size:
        return np.zeros(shares.shape, np.float32)
    if not (shares > 0.0).all():
        raise ArgumentError(f"probabilities must be above zero (found {shares.min() / size})")
    # The smallest share has the largest weight; dividing first cannot overflow.
    weights: Floats = (shares / shares.min()) ** -beta
    return weights.astype(np.float32)


def checked_priorities(priorities: ArrayLike, n: int) -> Priorities:
    """Return n priorities as float32, or raise PriorityError."""
    try:
        found = np.asarray(priorities)
    except (TypeError, ValueError) as error:
        raise PriorityError(f"expected {n} priorities: {error}") from None
    if found.dtype.kind not in "biuf" or found.shape != (n,):
        raise PriorityError(
            f"expected {n} priorities, shape ({n},) (found shape {found.shape}, {found.dtype})"
        )
    given = found.astype(np.float64)
    good = (given >= 0) & (given <= _MAX_PRIORITY)
    if not good.all():
        raise PriorityError(
            f"a priority must be finite and not negative, at most {_MAX_PRIORITY:.4g} "
            f"(found {given[~good][0]}): give the absolute TD error"
        )
    return given.astype(np.float32)


class UniformSampler:
    """Draws live write ids with equal probability, without duplicates in a batch."""

    def sibling(self, capacity: int) -> UniformSampler:
        """Return an empty sampler of the same settings for another capacity."""
        return UniformSampler()

    def accept(self, priorities: ArrayLike | None, n: int) -> Priorities | None:
        """Return the priorities of n new transitions as `append` takes them, or raise."""
        if priorities is not None:
            raise PriorityError(
                "a ReplayBuffer draws uniformly and keeps no priorities: leave them out, or use a "
                "PrioritizedReplayBuffer"
            )
        return None

    def hold(self, first: int, n: int, priorities: Priorities | None) -> None:
        """Take note of n write ids from `first` on that are about to be live."""

    def draw(
        self, n: int, first: int, count: int, generator: np.random.Generator
    ) -> tuple[Ints, Floats | None]:
        """Return n write ids and, from a prioritized sampler, their probabilities."""
        return first + generator.choice(count - first, n, replace=False), None

    def distrust(self) -> None:
        """Build what depends on the live write ids again before it is used."""

    def clear(self, count: int) -> None:
        """Forget all write ids below `count`."""

    def state(self) -> dict[str, Any]:
        """Return, as plain data, what a commit must hold beside the priority blocks."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""

    def dirty_blocks(self, first: int, count: int) -> dict[int, bytes]:
        """Return the priority blocks that differ from those last committed, by block number."""
        return {}

    def committed(self, blocks: Iterable[int]) -> None:
        """Take note that these blocks are committed as they are."""

    def load_blocks(self, blocks: Mapping[int, bytes], first: int, count: int) -> None:
        """Take over priority blocks as a commit wrote them."""

    def live_blocks(self, first: int, count: int) -> list[int]:
        """Return the numbers of the blocks that hold live slots."""
        return []

    def live_priorities(self, first: int, count: int) -> Priorities | None:
        """Return the priorities of [first, count), if the sampler keeps any."""
        return None

    def check(self, first: int, count: int) -> None:
        """Raise DamageError when the structures in memory disagree with each other."""

    @property
    def nbytes(self) -> int:
        """The memory that the sampler takes, in bytes."""
        return 0


class PrioritizedSampler:
    """Draws write ids with probability `mass / total`, mass = `(priority + epsilon) ** alpha`.

    The raw priorities stand in an array by slot; the tree over their masses follows them. Those of
    new write ids wait until the next draw or commit and are settled all at once: that is cheaper
    than one by one, and a call that is interrupted before its write ids are live leaves no trace.
    """

    SETTINGS = ("alpha", "beta_start", "beta_end", "beta_frames", "epsilon")

    def __init__(
        self,
        capacity: int,
        *,
        alpha: float,
        beta_start: float,
        beta_end: float,
        beta_frames: int,
        epsilon: float,
    ) -> None:
        self.capacity = checked_capacity(capacity)
        self.alpha = real_number("alpha", alpha, low=0.0, high=1.0)
        self.beta_start = real_number("beta_start", beta_start, low=0.0, high=1.0)
        self.beta_end = real_number("beta_end", beta_end, low=0.0, high=1.0)
        self.beta_frames = whole_number("beta_frames", beta_frames, at_least=1, at_most=2**53)
        self.epsilon = real_number("epsilon", epsilon, low=0.0, high=_MAX_PRIORITY, above=True)
        self.frame = 0
        self._largest: float | None = None
        self._settled_to = 0  # write ids from here on wait in `_waiting`
        self._waiting = np.zeros(_WAITING_KEPT, np.float32)
        self._tree_is_whole = True
        try:
            self._priorities = np.zeros(self.capacity, np.float32)
            self._tree = SumTree(self.capacity)
            self._dirty = np.zeros(-(-self.capacity // BLOCK_SLOTS), np.bool_)
        except MemoryError:
            raise ArgumentError(
                f"capacity {self.capacity} needs {20 * self.capacity >> 30} GiB of memory for its "
                "priorities, 20 bytes a slot: choose a smaller one"
            ) from None

    @property
    def beta(self) -> float:
        """The importance exponent of the next draw, linear in the draws so far."""
        progress = min(1.0, self.frame / self.beta_frames)
        return self.beta_start + progress * (self.beta_end - self.beta_start)

    @property
    def max_priority(self) -> float:
        """The largest priority so far, or 1.0 before there was any."""
        return 1.0 if self._largest is None else self._largest

    @property
    def nbytes(self) -> int:
        """The memory that the sampler takes, in bytes."""
        return 20 * self.capacity + self._dirty.nbytes + self._waiting.nbytes

    def settings(self) -> dict[str, Any]:
        """Return what may change from run to run, by the names of the constructor."""
        return {name: getattr(self, name) for name in self.SETTINGS}

    def sibling(self, capacity: int) -> PrioritizedSampler:
        """Return an empty sampler of the same settings for another capacity."""
        return PrioritizedSampler(capacity, **self.settings())

    def accept(self, priorities: ArrayLike | None, n: int) -> Priorities | None:
        """Return the priorities of n new transitions as `append` takes them, or raise."""
        return None if priorities is None else checked_priorities(priorities, n)

    def hold(self, first: int, n: int, priorities: Priorities | None) -> None:
        """Give n write ids that are about to be live their priorities, or the largest so far."""
        at = first - self._settled_to
        if at + n > self._waiting.size:
            more = np.zeros(max(at + n, 2 * self._waiting.size), np.float32)
            more[:at] = self._waiting[:at]
            self._waiting = more
        if priorities is None:
            self._largest = self.max_priority
            self._waiting[at : at + n] = self._largest
        else:
            self._waiting[at : at + n] = priorities
            self._raise_largest(priorities)

    def update(self, write_ids: Ints, priorities: Priorities, first: int, count: int) -> int:
        """Set priorities of live write ids, ignore the others, return how many were applied."""
        live = (write_ids >= first) & (write_ids < count)
        if not live.all():
            write_ids, priorities = write_ids[live], priorities[live]
        if write_ids.size:
            self._settle(first, count)
            slots = write_ids % self.capacity
            self._raise_largest(priorities)
            self._set_priorities(slots, priorities)
        return write_ids.size

    def draw(
        self, n: int, first: int, count: int, generator: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """Return n write ids, one from each of n equal shares of the total, and their P(i)."""
        self._settle(first, count)
        total = self._tree.total_priority
        values = (np.arange(n) + generator.random(n)) * (total / n)
        slots, masses = self._tree.find(values)
        return self._newest_ids(slots, count), masses / total

    def live_priorities(self, first: int, count: int) -> Priorities:
        """Return the raw priorities of [first, count), oldest first. Cost: O(size)."""
        self._settle(first, count)
        return self._priorities[np.arange(first, count) % self.capacity]

    def distrust(self) -> None:
        """Build the tree again before it is used: what it stands for is about to change."""
        self._tree_is_whole = False

    def clear(self, count: int) -> None:
        """Forget all write ids below `count` and the largest priority; the annealing goes on."""
        self._tree_is_whole = False
        self._tree.clear()
        self._priorities[:] = 0.0
        self._largest = None
        self._settled_to = count
        self._waiting = np.zeros(_WAITING_KEPT, np.float32)
        self._tree_is_whole = True

    def state(self) -> dict[str, Any]:
        """Return, as plain data, what a commit must hold beside the priority blocks."""
        return {"frame": self.frame, "max_priority": self._largest}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned; raise DamageError when it is something else."""
        frame, largest = state.get("frame"), state.get("max_priority")
        if type(frame) is not int or frame < 0:
            raise DamageError(f"the stored frame is not a count of draws (found {frame!r})")
        if largest is not None and not (type(largest) is float and 0 <= largest <= _MAX_PRIORITY):
            raise DamageError(f"the stored largest priority is not a priority (found {largest!r})")
        self.frame, self._largest = frame, largest

    def dirty_blocks(self, first: int, count: int) -> dict[int, bytes]:
        """Return the priority blocks that differ from those last committed, by block number."""
        self._settle(first, count)
        numbers = np.flatnonzero(self._dirty).tolist()
        return {number: self._block(number).astype(_BLOCK_DTYPE).tobytes() for number in numbers}

    def committed(self, blocks: Iterable[int]) -> None:
        """Take note that these blocks are committed as they are."""
        self._dirty[list(blocks)] = False

    def load_blocks(self, blocks: Mapping[int, bytes], first: int, count: int) -> None:
        """Take over priority blocks as a commit wrote them, and the masses of their live slots."""
        whole, self._tree_is_whole = self._tree_is_whole, False
        for number, content in blocks.items():
            block = self._block(number)
            if not block.size or len(content) != block.nbytes:
                raise DamageError(
                    f"priority block {number} has {len(content)} bytes (expected {block.nbytes})"
                )
            block[:] = np.frombuffer(content, _BLOCK_DTYPE)
            if not ((block >= 0.0) & (block <= _MAX_PRIORITY)).all():
                raise DamageError(f"priority block {number} holds what is not a priority")
        spans = [self._span(number).indices(self.capacity) for number in blocks]
        new = np.arange(max(first, self._settled_to), count) % self.capacity
        slots = np.concatenate([new, *(np.arange(*span) for span in spans)])
        live = self._newest_ids(slots, count) >= first
        self._tree.set(slots, np.where(live, self._mass(self._priorities[slots]), 0.0))
        self._settled_to = count
        self._tree_is_whole = whole

    def live_blocks(self, first: int, count: int) -> list[int]:
        """Return the numbers of the blocks that hold live slots. Cost: O(size)."""
        needed = np.zeros(self._dirty.size, np.bool_)
        needed[np.arange(first, count) % self.capacity // BLOCK_SLOTS] = True
        return np.flatnonzero(needed).tolist()

    def check(self, first: int, count: int) -> None:
        """Raise DamageError when the tree and the priorities disagree."""
        self._settle(first, count)
        self._tree.check()
        slots = np.arange(first, count) % self.capacity
        expected = np.zeros(self.capacity)
        expected[slots] = self._mass(self._priorities[slots])
        wrong = np.flatnonzero(self._tree.masses(np.arange(self.capacity)) != expected)
        if wrong.size:
            raise DamageError(
                f"{wrong.size} slots have a mass in the tree that is not that of their priority "
                f"(the first: {wrong[0]})"
            )

    def _block(self, number: int) -> Priorities:
        return self._priorities[self._span(number)]

    def _span(self, number: int) -> slice:
        return slice(number * BLOCK_SLOTS, (number + 1) * BLOCK_SLOTS)

    def _mass(self, priorities: Priorities) -> Floats:
        return (priorities.astype(np.float64) + self.epsilon) ** self.alpha

    def _raise_largest(self, priorities: Priorities) -> None:
        largest = float(np.max(priorities))
        self._largest = largest if self._largest is None else max(self._largest, largest)

    def _settle(self, first: int, count: int) -> None:
        """Give the write ids that wait their slots. It may be interrupted and done again."""
        start = max(first, self._settled_to)
        if start < count:
            slots = np.arange(start, count) % self.capacity
            waiting = self._waiting[start - self._settled_to : count - self._settled_to]
            self._set_priorities(slots, waiting)
        self._settled_to = count
        if self._waiting.size > _WAITING_KEPT:
            self._waiting = np.zeros(_WAITING_KEPT, np.float32)
        if not self._tree_is_whole:
            self._rebuild(first, count)

    def _set_priorities(self, slots: Ints, priorities: Priorities) -> None:
        self._dirty[slots // BLOCK_SLOTS] = True
        # An interrupt in the middle leaves sums that nothing would put right later.
        whole, self._tree_is_whole = self._tree_is_whole, False
        self._priorities[slots] = priorities
        # Read back, so that duplicates all have the mass of the last one.
        self._tree.set(slots, self._mass(self._priorities[slots]))
        self._tree_is_whole = whole

    def _rebuild(self, first: int, count: int) -> None:
        slots = np.arange(first, count) % self.capacity
        self._tree.clear()
        self._tree.set(slots, self._mass(self._priorities[slots]))
        self._tree_is_whole = True

    def _newest_ids(self, slots: Ints, count: int) -> Ints:
        """Return the newest write id of each slot."""
        return count - 1 - (count - 1 - slots) % self.capacity

"""Epoch: every transition comes once before any comes again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diskreplay.aliases import Floats, Ints
from diskreplay.live_range import LiveRange
from diskreplay.sampling.distribution import Distribution, DrawBasis
from diskreplay.sampling.permutation import permuted
from diskreplay.sampling.random_stream import DrawGenerator
from diskreplay.sampling.uniform import UniformSampler


@dataclass(frozen=True)
class Epoch(Distribution):
    """Draw without replacement: each transition once in an epoch, in an order new in each epoch.

    For a buffer that stays as it is, and batches of one size: k batches of n hold the k * n next
    transitions of the epochs, whatever n divides. A batch that ends an epoch goes on with the next
    one, so it may hold a transition twice; another one holds none twice. The order follows from the
    seed and the number of the epoch, the place in it from the draw number, so a resumed run goes on
    in the middle of an epoch. A prioritized buffer keeps its priorities, and these draws do not
    follow them. Cost: O(n); no order is kept.

    In a full buffer rows may come in meanwhile: each slot comes once in an epoch, with the
    transition that it holds then. While a buffer fills, after another batch size, and after a
    damaged record was left out, a draw is at another place of another epoch: the batches of the
    epoch under way may hold transitions of earlier ones, and the next epoch is whole.

    The starts of sequences are those of the epoch. With pad=False, where some of a batch begin no
    whole sequence, all of it is drawn uniformly.

    >>> from diskreplay import samplers
    >>> buffer = ReplayBuffer(capacity=6, sampler=samplers.Epoch())
    >>> ids = buffer.extend([[0.0]] * 6, [0] * 6, [1.0] * 6, [[0.0]] * 6, [False] * 6)
    >>> sorted(i for step in range(3) for i in buffer.sample(2).indices.tolist())
    [0, 1, 2, 3, 4, 5]
    """

    def sampler(self, basis: DrawBasis) -> EpochSampler:
        """Return a sampler."""
        return EpochSampler()


class EpochSampler:
    """Draws the next write ids of the epochs."""

    replaces = False

    def __init__(self) -> None:
        self._uniform = UniformSampler()

    def draw(self, n: int, live: LiveRange, generator: DrawGenerator) -> tuple[Ints, Floats]:
        """Return n write ids and the probability of each, that of any of the epoch.

        Asked again in the same draw, for want of rows that can be used, it draws n uniformly
        without duplicates: the next ones of the epoch are those of the next draw.

        Raises SampleError if fewer can be drawn.
        """
        if generator.was_asked:
            return self._uniform.draw(n, live, generator)
        generator.was_asked = True
        ranges = self._uniform.drawable.at_least(n, live)
        size = ranges.size
        epoch, place = divmod(generator.number * n, size)
        ranks = _order(np.arange(place, min(place + n, size)), size, generator, epoch)
        if ranks.size < n:
            others = _order(np.arange(n - ranks.size), size, generator, epoch + 1)
            ranks = np.concatenate([ranks, others])
        ranks = (ranks - live.first) % size  # of a full ring these are its slots
        probabilities = np.empty(n)
        probabilities.fill(1.0 / size)
        return ranges.ids(ranks), probabilities

    def total_mass(self, live: LiveRange) -> float:
        """Return the number of write ids that can be drawn: each has a mass of 1.0."""
        return self._uniform.total_mass(live)

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Draw these write ids no more."""
        self._uniform.leave_out(write_ids, live)

    def readmit(self) -> None:
        """Draw all write ids again."""
        self._uniform.readmit()


def _order(places: Ints, size: int, generator: DrawGenerator, epoch: int) -> Ints:
    """Return the ranks at some places of the order of an epoch."""
    key = np.frombuffer(generator.seed, "<u8")
    # The third number of the counter is 0 in all draws.
    return permuted(places, size, np.random.Philox(key=key, counter=[0, epoch % 2**64, 1, 0]))

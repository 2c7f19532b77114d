"""UniformSampler: draw live write ids with equal probability, without duplicates in a batch."""

from __future__ import annotations

import numpy as np

from diskreplay.aliases import Floats, Ints
from diskreplay.live_range import LiveRange
from diskreplay.sampling.drawable import Drawable, Restriction


class UniformSampler:
    """Draws live write ids with equal probability, without duplicates in a batch."""

    replaces = False

    def __init__(self, restriction: Restriction | None = None) -> None:
        self.drawable = Drawable(restriction)

    def draw(self, n: int, live: LiveRange, generator: np.random.Generator) -> tuple[Ints, Floats]:
        """Return n write ids and the probability of each, float64 (n,).

        Raises SampleError if fewer can be drawn.
        """
        ranges = self.drawable.at_least(n, live)
        write_ids = ranges.ids(generator.choice(ranges.size, n, replace=False))
        probabilities = np.empty(n)
        probabilities.fill(1.0 / ranges.size)
        return write_ids, probabilities

    def total_mass(self, live: LiveRange) -> float:
        """Return the number of write ids that can be drawn: each has a mass of 1.0."""
        return float(self.drawable.of(live).size)

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Draw these write ids no more."""
        self.drawable.leave_out(write_ids)

    def readmit(self) -> None:
        """Draw all write ids again."""
        self.drawable.readmit()

"""UniformSampler: draw live write ids with equal probability, without duplicates in a batch."""

from __future__ import annotations

import numpy as np

from diskreplay.aliases import Floats, Ints
from diskreplay.errors import SampleError
from diskreplay.live_range import LiveRange
from diskreplay.wording import count_of


class UniformSampler:
    """Draws live write ids with equal probability, without duplicates in a batch."""

    def __init__(self) -> None:
        self._left_out: Ints = np.zeros(0, np.int64)  # ascending

    def draw(self, n: int, live: LiveRange, generator: np.random.Generator) -> tuple[Ints, Floats]:
        """Return n write ids and the probability of each, float64 (n,).

        Raises SampleError if fewer can be drawn.
        """
        first = live.first
        out = self._left_out
        if out.size:
            out = out[out >= first]
        left = live.count - first - out.size
        if n > left:
            raise SampleError(
                f"cannot draw {count_of(n, 'transition')} of {live.size}, of which damaged: "
                f"{out.size}; draw fewer, or copy the others with diskreplay.repair()"
            )
        chosen = generator.choice(left, n, replace=False)
        write_ids: Ints = chosen + first
        if out.size:
            write_ids += np.searchsorted(out - first - np.arange(out.size), chosen, side="right")
        probabilities = np.empty(n)
        probabilities.fill(1.0 / left)
        return write_ids, probabilities

    def total_mass(self, live: LiveRange) -> float:
        """Return the number of write ids that can be drawn: each has a mass of 1.0."""
        return float(live.size - np.count_nonzero(self._left_out >= live.first))

    def leave_out(self, write_ids: Ints, live: LiveRange) -> None:
        """Draw these write ids never again."""
        self._left_out = np.union1d(self._left_out, write_ids)

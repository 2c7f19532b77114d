"""Restricted: the usual distribution of a buffer, over a part of its live transitions."""

from __future__ import annotations

import abc
from collections.abc import Iterable

from diskreplay.live_range import LiveRange
from diskreplay.sampling.distribution import Distribution, Sampler
from diskreplay.sampling.priorities import Priorities
from diskreplay.sampling.prioritized import PrioritizedSampler
from diskreplay.sampling.uniform import UniformSampler


class Restricted(Distribution):
    """Draws as the buffer draws without it, uniformly or by priority, but from a part."""

    @abc.abstractmethod
    def ranges(self, live: LiveRange) -> Iterable[tuple[int, int]]:
        """Return live ranges [first, end), none of them empty, ascending, apart."""

    def sampler(self, priorities: Priorities | None) -> Sampler:
        """Return a sampler of a buffer with these priorities; None for a uniform buffer."""
        if priorities is None:
            return UniformSampler(self)
        return PrioritizedSampler(priorities, self)

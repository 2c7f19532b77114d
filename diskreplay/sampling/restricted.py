"""Restricted: the usual distribution of a buffer, over a part of its live transitions."""

from __future__ import annotations

import abc
from collections.abc import Iterable

from diskreplay.live_range import LiveRange
from diskreplay.sampling.distribution import Distribution, DrawBasis, Sampler
from diskreplay.sampling.drawable import Restriction
from diskreplay.sampling.prioritized import PrioritizedSampler
from diskreplay.sampling.uniform import UniformSampler


class Restricted(Distribution):
    """Draws as the buffer draws without it, uniformly or by priority, but from a part."""

    @abc.abstractmethod
    def ranges(self, live: LiveRange) -> Iterable[tuple[int, int]]:
        """Return live ranges [first, end), none of them empty, ascending, apart."""

    def sampler(self, basis: DrawBasis) -> Sampler:
        """Return a sampler of a buffer."""
        return sampler_within(self, basis)


def sampler_within(restriction: Restriction | None, basis: DrawBasis) -> Sampler:
    """Return the usual sampler of a buffer, within a restriction."""
    if basis.priorities is None:
        return UniformSampler(restriction)
    return PrioritizedSampler(basis.priorities, restriction)

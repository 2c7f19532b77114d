"""Usual, Restricted: the distribution of a buffer without a sampler, over all or over a part."""

from __future__ import annotations

import abc
from collections.abc import Iterable

from diskreplay.live_range import LiveRange
from diskreplay.sampling.distribution import Distribution, DrawBasis, Sampler
from diskreplay.sampling.drawable import Restriction
from diskreplay.sampling.prioritized import PrioritizedSampler
from diskreplay.sampling.uniform import UniformSampler


class Usual(Distribution):
    """Draws uniformly, or by priority where there are priorities."""

    def sampler(self, basis: DrawBasis) -> Sampler:
        """Return a sampler of a buffer."""
        return sampler_within(None, basis)


class Restricted(Distribution):
    """Draws as Usual does, but from a part."""

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

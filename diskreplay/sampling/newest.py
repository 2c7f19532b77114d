"""Newest: draws from the newest transitions alone."""

from __future__ import annotations

from dataclasses import dataclass

from diskreplay.live_range import LiveRange
from diskreplay.sampling.restricted import Restricted
from diskreplay.validation import MAX_COUNT, whole_number


@dataclass(frozen=True)
class Newest(Restricted):
    """Draw from the newest n transitions, as if the older ones were evicted.

    Uniformly, without duplicates in a batch; in a prioritized buffer in proportion to the masses,
    stratified, with replacement. A uniform batch of more than n raises SampleError. Cost: as
    without a sampler.

    >>> from diskreplay import samplers
    >>> buffer = ReplayBuffer(capacity=100, sampler=samplers.Newest(3))
    >>> ids = buffer.extend([[0.0]] * 9, [0] * 9, [1.0] * 9, [[0.0]] * 9, [False] * 9)
    >>> sorted(buffer.sample(3).indices.tolist())
    [6, 7, 8]

    n:  at least 1
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole_number("n", self.n, at_least=1, at_most=MAX_COUNT))

    def ranges(self, live: LiveRange) -> list[tuple[int, int]]:
        """Return the range of the newest n."""
        return [(max(live.first, live.count - self.n), live.count)] if live.size else []

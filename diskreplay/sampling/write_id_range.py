"""Range: draws from a range of write ids alone."""

from __future__ import annotations

from dataclasses import dataclass

from diskreplay.errors import ArgumentError
from diskreplay.live_range import LiveRange
from diskreplay.sampling.restricted import Restricted
from diskreplay.validation import MAX_COUNT, whole_number


@dataclass(frozen=True)
class Range(Restricted):
    """Draw from the write ids [first, end) alone, as far as they are live.

    Uniformly, without duplicates in a batch; in a prioritized buffer in proportion to the masses,
    stratified, with replacement. Raises SampleError where none of them is live. Cost: as without a
    sampler.

    >>> from diskreplay import samplers
    >>> buffer = ReplayBuffer(capacity=100, sampler=samplers.Range(2, 4))
    >>> ids = buffer.extend([[0.0]] * 9, [0] * 9, [1.0] * 9, [[0.0]] * 9, [False] * 9)
    >>> sorted(buffer.sample(2).indices.tolist())
    [2, 3]

    end:  None for all from `first` on, later ones too
    """

    first: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        first = whole_number("first", self.first, at_least=0, at_most=MAX_COUNT)
        object.__setattr__(self, "first", first)
        if self.end is not None:
            end = whole_number("end", self.end, at_least=0, at_most=MAX_COUNT)
            object.__setattr__(self, "end", end)
            if end <= first:
                raise ArgumentError(
                    f"end must be above first (found first={first} and end={end}): the write ids "
                    "[first, end) are drawn"
                )

    def ranges(self, live: LiveRange) -> list[tuple[int, int]]:
        """Return the live part of the range."""
        first = max(live.first, self.first)
        end = live.count if self.end is None else min(live.count, self.end)
        return [(first, end)] if first < end else []

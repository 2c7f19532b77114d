"""Samplers: the distributions of draws that `sampler=` of a buffer takes, and `diskreplay.open`.

Without one, a ReplayBuffer draws uniformly, without duplicates in a batch, and a
PrioritizedReplayBuffer in proportion to the masses. A sampler is chosen at each opening, and not
stored. All draws follow from the seed, the draw number and the contents of the buffer, so a resumed
run goes on as if it had not ended. Damaged records that a draw has left out are not drawn again.

>>> from diskreplay import samplers
>>> buffer = ReplayBuffer(capacity=1000, sampler=samplers.Newest(100))
"""

from diskreplay.sampling import (
    AtMost,
    Distribution,
    Epoch,
    Mixed,
    Newest,
    Range,
    RankBased,
    Recent,
    Runs,
)

__all__ = [
    "AtMost",
    "Distribution",
    "Epoch",
    "Mixed",
    "Newest",
    "Range",
    "RankBased",
    "Recent",
    "Runs",
]

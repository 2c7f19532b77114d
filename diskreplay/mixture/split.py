"""Split: how many transitions of a batch each source gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diskreplay.errors import SampleError
from diskreplay.mixture.shares import NEAR, Shares, WeightsLike, exact_counts, mean_counts
from diskreplay.sampling import RandomStream, new_seed
from diskreplay.wording import count_of


class Split:
    """How many transitions of a batch each source gives, by the number of the batch.

    draws:  the number of the next batch
    """

    def __init__(
        self,
        names: Sequence[str],
        weights: WeightsLike | None,
        *,
        exact: bool,
        seed: int | None,
        draws: int,
    ) -> None:
        self.draws = draws
        self.is_exact = exact
        self._names = names
        self._shares = Shares(names, weights)
        self.use_seed(seed)

    def use_seed(self, seed: int | None) -> None:
        """Use the random stream of a seed; None takes entropy."""
        self._stream = RandomStream(new_seed(seed))

    def shares(self, sizes: Sequence[int]) -> list[float]:
        """Return the share of each source in the next batch; raise as `Shares.of` does."""
        return self._shares.of(self.draws, sizes)

    def counts(self, n: int, sizes: Sequence[int]) -> tuple[list[float], list[int]]:
        """Return the shares in the next batch of n, and how many transitions each source gives.

        Raises SampleError, naming it, for a source that holds less.
        """
        shares = self.shares(sizes)
        of_batch = exact_counts if self.is_exact else mean_counts
        counts = of_batch(n, shares, self._stream.of_draw(self.draws))
        for name, size, count in zip(self._names, sizes, counts, strict=True):
            if count > size:
                raise SampleError(
                    f"source {name!r} holds {count_of(size, 'transition')} (expected at least the "
                    f"{count} that it gives to this batch of {n}): wait until is_ready({n}), or "
                    "give it the weight 0 meanwhile, with a function as weights="
                )
        return shares, counts

    def most_counts(self, n: int, sizes: Sequence[int]) -> list[int]:
        """Return how many transitions each source gives at most to the next batch of n."""
        if not any(sizes):
            return [n for _ in sizes]
        shares = np.array(self.shares(sizes))
        most = np.ceil(shares * n - NEAR * n) if self.is_exact else n * (shares > 0)
        counts: list[int] = most.astype(np.int64).tolist()
        return counts

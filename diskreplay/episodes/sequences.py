"""Sequences: transitions that follow each other, for recurrent and model-based agents."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from diskreplay.aliases import Bools, Floats, Ints
from diskreplay.episodes.links import Links
from diskreplay.episodes.n_step import chains
from diskreplay.errors import ArgumentError, SampleError
from diskreplay.live_range import LiveRange
from diskreplay.validation import as_array, real_number, real_numbers
from diskreplay.wording import count_of

_MOST_STARTS = 4096  # that are drawn for a whole sequence
_MOST_WRITE_IDS = 1 << 22  # of all sequences that are drawn for the whole ones


@dataclass(frozen=True)
class Sequences:
    """The sequences that a draw is of.

    is_whole:  only those of `length` transitions; others end earlier
    across:    go on into the next episode of the same env
    """

    length: int
    is_whole: bool
    across: bool

    def draw(
        self,
        n: int,
        draw_starts: Callable[[int], tuple[Ints, Floats]],
        links: Links,
        live: LiveRange,
        generator: np.random.Generator,
        without: Collection[int],
    ) -> tuple[Ints, Floats]:
        """Return the write ids of n sequences, int64 (n, length), and P(i) of their starts.

        There is -1 after the end of a sequence. Of whole ones, more starts are drawn, and n of
        those that begin a whole one chosen. Raises SampleError if there are too few of them.

        draw_starts:  draws so many write ids, and returns them with P(i) of each
        without:      write ids before which a sequence ends
        """
        most = max(n, min(live.size, _MOST_STARTS * n, _MOST_WRITE_IDS // self.length))
        wanted = n
        while True:
            starts, probabilities = draw_starts(wanted)
            found = chains(links, starts, self.length, live, across=self.across, without=without)
            if not self.is_whole:
                return found, probabilities
            whole = np.flatnonzero(found[:, -1] >= 0)
            if whole.size >= n:
                if whole.size > n:  # not the first ones: starts may be drawn in an order
                    whole = generator.choice(whole, n, replace=False)
                return found[whole], probabilities[whole]
            if wanted == most:
                raise SampleError(
                    f"of {count_of(wanted, 'start')} drawn, {whole.size} begin a whole sequence of "
                    f"{self.length} transitions (expected {n}): choose a shorter length, or "
                    "pad=True"
                )
            wanted = min(4 * wanted, most)


def are_first(links: Links, write_ids: Ints, live: LiveRange) -> Bools:
    """Return which of some live write ids, or -1, are the first transition of their episode."""
    found = np.zeros(write_ids.shape, np.bool_)
    is_there = write_ids >= 0
    found[is_there] = links.of(write_ids[is_there], live) <= 0
    return found


def sequence_priorities(td_errors: ArrayLike, mask: ArrayLike, eta: float = 0.9) -> Floats:
    """Return the priority of each sequence: `eta * max + (1 - eta) * mean` of its `|td_errors|`.

    Source: Kapturowski et al., Recurrent Experience Replay in Distributed Reinforcement Learning
    (R2D2), ICLR 2019, section 2.3.

    >>> sequence_priorities([[1.0, -3.0, 9.0]], [[True, True, False]], eta=0.5)
    array([2.5])

    td_errors:  float (n, length)
    mask:       bool (n, length): the transitions that count: those of a batch, less a burn-in. A
                sequence of which none counts has the priority 0
    eta:        the share of the largest, in [0, 1]
    Returns float64 (n,), for `update_priorities(batch.indices[:, 0], ...)`.
    """
    errors = np.abs(real_numbers("td_errors", td_errors))
    counts = as_array(mask, ArgumentError, "mask must be true or false")
    if errors.ndim != 2 or counts.shape != errors.shape or counts.dtype.kind != "b":
        raise ArgumentError(
            "expected td_errors and a mask of bools, both of the shape (n, length) (found "
            f"{errors.dtype} {errors.shape} and {counts.dtype} {counts.shape})"
        )
    share = real_number("eta", eta, low=0.0, high=1.0)
    errors = np.where(counts, errors, 0.0)
    mean = errors.sum(axis=1) / np.maximum(1, counts.sum(axis=1))
    priorities: Floats = share * errors.max(axis=1, initial=0.0) + (1.0 - share) * mean
    return priorities

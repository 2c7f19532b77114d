"""Sequences: transitions that follow each other, for recurrent and model-based agents."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from diskreplay.aliases import Bools, Floats, Ints
from diskreplay.episodes.links import Links
from diskreplay.episodes.n_step import chains
from diskreplay.errors import ArgumentError, SampleError
from diskreplay.live_range import LiveRange
from diskreplay.validation import as_array, real_number, real_numbers
from diskreplay.wording import count_of

DrawStarts: TypeAlias = Callable[[int], tuple[Ints, Floats]]

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
        draw_starts: DrawStarts,
        links: Links,
        live: LiveRange,
        generator: Generator,
        without: Collection[int],
    ) -> tuple[Ints, Floats]:
        """Return the write ids of n sequences, int64 (n, length), and P(i) of their starts.

        There is -1 after the end of a sequence.

        draw_starts:  draws so many write ids, and returns them with P(i) of each
        without:      write ids before which a sequence ends
        """

        def follow(starts: Ints) -> Ints:
            return chains(links, starts, self.length, live, across=self.across, without=without)

        if self.is_whole:
            most = max(n, min(live.size, _MOST_STARTS * n, _MOST_WRITE_IDS // self.length))
            return _whole_ones(n, most, draw_starts, follow, generator)
        starts, probabilities = draw_starts(n)
        return follow(starts), probabilities


def _whole_ones(
    n: int, most: int, draw_starts: DrawStarts, follow: Callable[[Ints], Ints], generator: Generator
) -> tuple[Ints, Floats]:
    """Return n whole sequences, chosen of those that begin with more and more starts.

    Raises SampleError if there are too few of them among `most` starts, or all.
    """
    drawn, refused, wanted, size = 0, most + 1, n, 0
    while refused - drawn > 1:
        try:
            starts, probabilities = draw_starts(wanted)
        except SampleError:  # a sampler may draw fewer than are live
            if wanted == n:
                raise
            refused = wanted
        else:
            found = follow(starts)
            whole = np.flatnonzero(found[:, -1] >= 0)
            if whole.size >= n:
                if whole.size > n:  # not the first ones: starts may be drawn in an order
                    whole = generator.choice(whole, n, replace=False)
                return found[whole], probabilities[whole]
            drawn, size = wanted, whole.size
        wanted = min(4 * drawn, most) if refused > most else (drawn + refused) // 2
    raise SampleError(
        f"of {count_of(drawn, 'start')} drawn, {size} begin a whole sequence of this length "
        f"(expected {n}): choose a shorter length, or pad=True"
    )


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

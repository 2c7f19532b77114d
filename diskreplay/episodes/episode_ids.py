"""The write ids of episodes in a live range."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from diskreplay.aliases import Ints
from diskreplay.episodes.links import Links
from diskreplay.live_range import LiveRange

PART = 1 << 14  # write ids that are searched in one step
_FEW = 64


def beginnings(links: Links, live: LiveRange, first: int, end: int) -> Ints:
    """Return the live write ids of [first, end) that begin an episode, ascending."""
    write_ids = np.arange(max(first, live.first), min(end, live.count))
    return write_ids[links.of(write_ids, live) <= 0]


def parts_of(first: int, end: int, *, newest_first: bool) -> Iterator[tuple[int, int]]:
    """Yield the parts of a range of write ids, in which episodes are searched one by one."""
    parts = [(at, min(at + PART, end)) for at in range(first, end, PART)]
    yield from reversed(parts) if newest_first else parts


def episode_from(links: Links, write_id: int, live: LiveRange) -> Ints:
    """Return a live write id and all that follow it in its episode.

    The next ones are mostly as far apart as the last two, so they are looked up together.
    """
    parts = [np.array([write_id])]
    last, n = write_id, _FEW
    following = int(links.forward(parts[0], live)[0])
    while following >= 0:
        steps = np.arange(min(n, 1 + (live.count - 1 - following) // (following - last)))
        guesses = following + (following - last) * steps
        after = links.forward(guesses, live)
        wrong = np.flatnonzero(after[:-1] != guesses[1:])
        n_right = 1 + int(wrong[0]) if wrong.size else guesses.size
        parts.append(guesses[:n_right])
        last, following = int(guesses[n_right - 1]), int(after[n_right - 1])
        n = max(_FEW // 8, min(2 * n_right, PART))
    return np.concatenate(parts)


def has_next(links: Links, write_id: int, live: LiveRange) -> bool:
    """Return whether the env of a live write id has gone on, in its episode or in the next one."""
    return bool(links.forward(np.array([write_id]), live, across=True)[0] >= 0)

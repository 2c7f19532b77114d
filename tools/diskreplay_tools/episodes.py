"""Episodes as links tell them: which transitions form one, and which of them are whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Bools, Floats, Ints


@dataclass
class LinkedEpisodes:
    """Whole episodes among some transitions, in the order of their last ones.

    cut_off:  of them, those that did not end with `done`
    """

    rows: int
    ends: Ints
    lengths: Ints
    returns: Floats
    cut_off: int


def numbered(links: NDArray[np.int32]) -> tuple[Ints, Ints]:
    """Return for each of consecutive transitions the place of its episode's first, and its step.

    Of an episode that began before them the first one is the oldest that is there. Cost: O(n log n)
    for episodes of n transitions.

    links:  the distance back to the transition before it in its episode, where above 0
    """
    places = np.arange(links.size)
    before = places - links
    first = np.where((links > 0) & (before >= 0), before, places)
    steps = (first != places).astype(np.int64)
    while True:
        further = first[first]
        if (further == first).all():
            return first, steps
        steps += steps[first]
        first = further


def whole_episodes(
    write_ids: Ints, links: NDArray[np.int32], rewards: Floats, dones: Bools, truncated: Bools
) -> LinkedEpisodes:
    """Return the whole episodes among transitions, whose write ids ascend up to the newest.

    An episode is whole if its first transition is there and known as such, if none is missing, and
    if its last one ended it, or another one of the same environment follows. A single transition
    before which nothing is known proves nothing: older versions stored no links.
    """
    first_id, n = int(write_ids[0]), int(write_ids[-1] - write_ids[0]) + 1
    at = write_ids - first_id
    of_all, is_there = np.zeros(n, np.int32), np.zeros(n, np.bool_)
    of_all[at], is_there[at] = links, True
    first, steps = numbered(of_all)
    before = np.arange(n) - np.abs(of_all.astype(np.int64))
    has_before = (of_all != 0) & (before >= 0)
    goes_on, is_followed = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    goes_on[before[has_before & (of_all > 0)]] = True
    is_followed[before[has_before & (of_all < 0)]] = True
    ended, done, reward = np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n)
    done[at], ended[at], reward[at] = dones, dones | truncated, rewards
    lasts = np.flatnonzero(~goes_on)
    begins = first[lasts]
    missing = np.bincount(first, weights=~is_there, minlength=n)[begins] > 0
    is_known = (of_all[begins] < 0) | ((of_all[begins] == 0) & (steps[lasts] > 0))
    whole = is_known & ~missing & (ended | is_followed)[lasts]
    lasts, begins = lasts[whole], begins[whole]
    with np.errstate(over="ignore"):
        returns = np.bincount(first, weights=reward, minlength=n)[begins]
    return LinkedEpisodes(
        rows=write_ids.size,
        ends=lasts + first_id,
        lengths=steps[lasts] + 1,
        returns=returns,
        cut_off=int(np.count_nonzero(~done[lasts])),
    )

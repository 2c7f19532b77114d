"""Episodes as links tell them: which transitions form one, and which of them are whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array, Bools, Floats, Ints
from diskreplay.buffer import Scan
from diskreplay.schema import Schema
from diskreplay_tools.stores import Buffer

Rows: TypeAlias = Iterable[tuple[Ints, dict[str, Array]]]

EPISODE_COLUMNS = ("episode", "step")  # of an export


@dataclass
class LinkedEpisodes:
    """Whole episodes among some transitions, in the order of their last ones.

    cut_off:     of them, those that did not end with `done`
    undeclared:  of them, those that ended with neither `done` nor the field `truncated`
    """

    rows: int
    ends: Ints
    lengths: Ints
    returns: Floats
    cut_off: int
    undeclared: int


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


class EpisodeNumbers:
    """The episode and the step of each of some live transitions, which follow each other.

    An episode has the write id of its first transition, or of the oldest of them. Memory: 16 bytes
    a transition, and some 40 while they are found.
    """

    def __init__(self, buffer: Buffer, write_ids: range) -> None:
        self._start = write_ids.start
        links = np.zeros(len(write_ids), np.int32)  # those evicted meanwhile keep 0
        for ids, columns in Scan(buffer, write_ids, (), links=True):
            links[ids - self._start] = columns["link"]
        self._first, self._steps = numbered(links)

    def columns(self, write_ids: Ints) -> dict[str, Array]:
        """Return the columns of EPISODE_COLUMNS for some of the transitions."""
        at = write_ids - self._start
        values = self._first[at] + self._start, self._steps[at]
        return dict(zip(EPISODE_COLUMNS, values, strict=True))


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
        undeclared=int(np.count_nonzero(~ended[lasts])),
    )


def have_returns(schema: Schema) -> bool:
    """Return whether reward and done are one real number each."""
    fields = [schema[name] for name in _names_in(schema)]
    return all(math.prod(field.shape) == 1 and field.dtype.kind != "c" for field in fields)


def _names_in(schema: Schema) -> list[str]:
    return [name for name in ("reward", "done", "truncated") if name in schema.names]


def read_linked_episodes(
    buffer: Buffer, rows: int, scan: Callable[[Ints, Sequence[str]], Rows] | None = None
) -> LinkedEpisodes | None:
    """Read the whole episodes among the newest transitions, `rows` of them at most.

    Damaged records, and those that a writer evicts meanwhile, are left out. Returns None where
    there are none, or no links (older versions stored none), and where reward or done is not one
    real number.

    scan:  returns fields and links of transitions, instead of a Scan of the buffer
    """
    schema = buffer.schema
    if schema is None:
        return None
    names = _names_in(schema)
    if not have_returns(schema):
        return None
    newest = np.arange(max(buffer.first, buffer.count - rows), buffer.count)
    parts: list[tuple[Ints, Array, list[Array]]] = []
    found_rows: Rows = (
        Scan(buffer, newest, names, links=True, skip_damaged=True)
        if scan is None
        else scan(newest, names)
    )
    for write_ids, columns in found_rows:
        values = [columns[name].reshape(write_ids.size) for name in names]
        parts.append((write_ids, columns["link"], values))
    if not parts:
        return None
    write_ids = np.concatenate([ids for ids, _, _ in parts])
    links = np.concatenate([of for _, of, _ in parts])
    if not links.any() and links.size > 1:
        return None
    found = [np.concatenate(column) for column in zip(*(v for _, _, v in parts), strict=True)]
    rewards, dones = found[0].astype(np.float64), found[1] != 0
    truncated = found[2] != 0 if len(found) > 2 else np.zeros(dones.size, np.bool_)
    return whole_episodes(write_ids, links, rewards, dones, truncated)

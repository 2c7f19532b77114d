"""Ledger: what the processes that wrote a store told, and whether the store agrees with it.

A process tells what it will do before it does it, and after a commit what is committed. So when
it is dead there is a part that must be in the store, and a part that may be::

    0 ............ acknowledged ............ announced
      must be there            may be there            must not be there
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crash.common import (
    Event,
    Floats,
    Ints,
    authors_of,
    pushed_priorities,
    sequences_of,
    updated_priorities,
)

Bools = NDArray[np.bool_]

_NEVER = 1 << 62


@dataclass
class Update:
    """One call of `update_priorities`."""

    numbers: Ints
    first: int
    began: int
    committed: int = _NEVER  # when at the latest, if at all
    is_acknowledged: bool = False


@dataclass
class Author:
    """What one process told."""

    announced: int = 0
    acknowledged: int = 0
    seen: int = 0
    updates: list[Update] = field(default_factory=list)
    pending: list[Update] = field(default_factory=list)
    clears: list[int] = field(default_factory=list)  # at which sequence number
    clears_acknowledged: int = 0


@dataclass
class Found:
    """What is in a store: the write id after the newest, and the live transitions in order."""

    count: int
    numbers: Ints
    priorities: Floats | None


@dataclass
class Verdict:
    """What agrees and what does not."""

    transitions: int = 0  # acknowledged and there
    lost: int = 0
    priorities: int = 0  # of live transitions
    undone: int = 0
    wrong: list[str] = field(default_factory=list)


class Ledger:
    """All that is known of one store: as it was found last, and what was told since."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        self.live = np.zeros(0, np.int64)
        self.priorities: Floats | None = None
        self.authors: dict[int, Author] = {}
        self.past: dict[int, int] = {}  # how many transitions authors of before have in all

    def record(self, number: int, event: Event) -> None:
        """Take down what an author told."""
        author = self.authors.setdefault(number, Author())
        name, when, *what = event
        if name == "push":
            author.announced = what[0]
        elif name == "update":
            update = Update(np.array(what[1], np.int64), what[0], when)
            author.updates.append(update)
            author.pending.append(update)
        elif name == "clear":
            author.clears.append(author.announced)
        elif name == "ack":
            author.acknowledged = what[0]
            author.clears_acknowledged = len(author.clears)
            self._settle(author, when, acknowledged=True)
        elif name == "seen":
            for other, sequence in what[0]:
                known = self.authors.setdefault(other, Author())
                known.seen = max(known.seen, sequence + 1)

    def end(self, number: int, when: int) -> None:
        """Take down that an author is dead: what it has not committed by now it never will."""
        self._settle(self.authors.setdefault(number, Author()), when, acknowledged=False)

    def _settle(self, author: Author, when: int, *, acknowledged: bool) -> None:
        for update in author.pending:
            update.committed = when
            update.is_acknowledged = acknowledged
        author.pending = []

    def judge(self, found: Found) -> Verdict:
        """Compare with what is in the store, which is what later verdicts start from."""
        verdict = Verdict()
        first = found.count - len(found.numbers)
        self._judge_first(first, found.count, verdict)
        old = found.numbers[: max(0, self.count - first)]
        new = found.numbers[len(old) :]
        self._judge_old(old, first, verdict)
        self._judge_new(new, first, verdict)
        if found.priorities is not None:
            self._judge_priorities(found.numbers, found.priorities, len(old), verdict)
        self._start_from(found, new)
        return verdict

    def _judge_first(self, first: int, count: int, verdict: Verdict) -> None:
        starts = [self.count - len(self.live)]
        for author in self.authors.values():
            starts += [self.count + sequence for sequence in author.clears]
            starts = starts[author.clears_acknowledged :]
        if first not in {max(start, count - self.capacity) for start in starts}:
            verdict.wrong.append(f"write id {first} is the oldest, of {count} in all")

    def _judge_old(self, old: Ints, first: int, verdict: Verdict) -> None:
        begin = first - (self.count - len(self.live))
        expected = self.live[max(0, begin) :]
        lost = int((~np.isin(expected, old)).sum())
        verdict.lost += lost
        verdict.transitions += len(expected) - lost
        if not lost and not np.array_equal(old, expected):
            verdict.wrong.append("what was there before is in another order, or with more in it")

    def _judge_new(self, new: Ints, first: int, verdict: Verdict) -> None:
        evicted = max(0, first - self.count)
        least = most = 0  # how many of these authors' transitions have to be evicted
        unknown = set(authors_of(new).tolist()) - set(self.authors)
        if unknown:
            verdict.wrong.append(f"there are transitions of nobody: authors {sorted(unknown)}")
        for number, author in self.authors.items():
            limit = max(author.announced, self.past.get(number, 0))
            if author.seen > limit:
                verdict.wrong.append(f"a transition of author {number} was read before its push")
            found = sequences_of(new[authors_of(new) == number])
            if not len(found):
                least += author.acknowledged
                most += author.announced
                continue
            if found[-1] >= author.announced:
                verdict.wrong.append(f"there are more transitions of author {number} than pushed")
            must = np.arange(found.min(), max(author.acknowledged, int(found.max()) + 1))
            lost = int((~np.isin(must, found)).sum())
            verdict.lost += lost
            verdict.transitions += max(0, author.acknowledged - int(found.min()) - lost)
            if not lost and not np.array_equal(found, np.arange(found[0], found[0] + len(found))):
                verdict.wrong.append(f"transitions of author {number} are out of order, or twice")
            least += int(found.min())
            most += int(found.min())
        if least > evicted:
            verdict.lost += least - evicted
        elif evicted > most:
            verdict.wrong.append(f"{evicted} are evicted of {most} that could be")

    def _judge_priorities(self, live: Ints, priorities: Floats, old: int, verdict: Verdict) -> None:
        expected = pushed_priorities(live)
        if old and self.priorities is not None:
            kept = min(old, len(self.priorities))
            expected[old - kept : old] = self.priorities[len(self.priorities) - kept :]
        fits, is_updated = self._updated(live, priorities)
        fits |= (priorities == expected) & ~is_updated
        verdict.priorities = len(fits)
        verdict.undone = int((~fits).sum())

    def _updated(self, live: Ints, priorities: Floats) -> tuple[Bools, Bools]:
        """Return which priorities are of an update that may be the last, and which have to be.

        An update is not the last after an acknowledged one of the same author, or after one of
        another author that began when this one was committed.
        """
        n = len(live)
        order = np.argsort(live, kind="stable")
        fits, newest = np.zeros(n, np.bool_), np.full(n, -1, np.int64)
        parts = []
        for number, author in self.authors.items():
            if not author.updates or not n:
                continue
            lengths = [len(update.numbers) for update in author.updates]
            numbers = np.concatenate([update.numbers for update in author.updates])
            values = np.concatenate(
                [updated_priorities(number, u.first, len(u.numbers)) for u in author.updates]
            )
            began = np.repeat([update.began for update in author.updates], lengths)
            committed = np.repeat([update.committed for update in author.updates], lengths)
            at = order[np.searchsorted(live, numbers, sorter=order).clip(max=n - 1)]
            is_live = live[at] == numbers
            is_sure = is_live & np.repeat(
                [update.is_acknowledged for update in author.updates], lengths
            )
            rank = np.arange(len(numbers))
            last = np.full(n, -1, np.int64)
            np.maximum.at(last, at[is_sure], rank[is_sure])
            np.maximum.at(newest, at[is_sure], began[is_sure])
            kept = is_live & (rank >= last[at])
            parts.append((at[kept], values[kept], committed[kept]))
        for at, values, committed in parts:
            kept = (committed >= newest[at]) & (values == priorities[at])
            fits[at[kept]] = True
        return fits, newest >= 0

    def _start_from(self, found: Found, new: Ints) -> None:
        for number, author in self.authors.items():
            mine = sequences_of(new[authors_of(new) == number])
            known = int(mine.max()) + 1 if len(mine) else author.announced
            self.past[number] = max(known, self.past.get(number, 0))
        self.authors = {}
        self.count, self.live, self.priorities = found.count, found.numbers, found.priorities

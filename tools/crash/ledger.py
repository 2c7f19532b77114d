"""Ledger: what the writers of a store told, compared with what is in the store.

A process tells what it will do before it does it, and after a commit what is committed. So when
it is dead there is a part that must be in the store, and a part that may be::

    0 ............ acknowledged ............ announced
      must be there            may be there            must not be there
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from crash.processes import Event
from crash.rows import (
    Bools,
    Floats,
    Ints,
    pushed_priorities,
    sequences_of,
    updated_priorities,
    writers_of,
)

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
class Told:
    """What one process told."""

    announced: int = 0
    acknowledged: int = 0
    seen: int = 0  # of its rows, by any process
    updates: list[Update] = field(default_factory=list)
    pending: list[Update] = field(default_factory=list)
    clears: list[int] = field(default_factory=list)  # at which sequence number
    clears_acknowledged: int = 0

    def settle(self, when: int, *, acknowledged: bool) -> None:
        """Note that the pending updates are committed, or never will be."""
        for update in self.pending:
            update.committed, update.is_acknowledged = when, acknowledged
        self.pending = []


@dataclass
class Found:
    """What is in a store: the write id after the newest, and the live rows in order."""

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
        self.writers: dict[int, Told] = {}
        self.past: dict[int, int] = {}  # how many rows writers of before have in all

    @property
    def acknowledged(self) -> int:
        """How many rows were acknowledged since the store was found last."""
        return sum(told.acknowledged for told in self.writers.values())

    def record(self, writer: int, event: Event) -> None:
        """Note what a writer told."""
        told = self.writers.setdefault(writer, Told())
        name, when, *what = event
        if name == "push":
            told.announced = what[0]
        elif name == "update":
            update = Update(np.array(what[1], np.int64), what[0], when)
            told.updates.append(update)
            told.pending.append(update)
        elif name == "clear":
            told.clears.append(told.announced)
        elif name == "ack":
            told.acknowledged = what[0]
            told.clears_acknowledged = len(told.clears)
            told.settle(when, acknowledged=True)
        elif name == "seen":
            for other, sequence in what[0]:
                known = self.writers.setdefault(other, Told())
                known.seen = max(known.seen, sequence + 1)

    def end(self, writer: int, when: int) -> None:
        """Note that a writer is dead: what it has not committed by now it never will."""
        self.writers.setdefault(writer, Told()).settle(when, acknowledged=False)

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
        for told in self.writers.values():
            starts += [self.count + sequence for sequence in told.clears]
            starts = starts[told.clears_acknowledged :]
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
        least = most = 0  # how many of these writers' rows have to be evicted
        unknown = set(writers_of(new).tolist()) - set(self.writers)
        if unknown:
            verdict.wrong.append(f"there are transitions of no known writer: {sorted(unknown)}")
        for writer, told in self.writers.items():
            if told.seen > max(told.announced, self.past.get(writer, 0)):
                verdict.wrong.append(f"a transition of writer {writer} was read before its push")
            found = sequences_of(new[writers_of(new) == writer])
            if not len(found):
                least += told.acknowledged
                most += told.announced
                continue
            if found[-1] >= told.announced:
                verdict.wrong.append(f"there are more transitions of writer {writer} than pushed")
            begin = int(found.min())
            must = np.arange(begin, max(told.acknowledged, int(found.max()) + 1))
            lost = int((~np.isin(must, found)).sum())
            verdict.lost += lost
            verdict.transitions += max(0, told.acknowledged - begin - lost)
            if not lost and not np.array_equal(found, np.arange(found[0], found[0] + len(found))):
                verdict.wrong.append(f"transitions of writer {writer} are out of order, or twice")
            least += begin
            most += begin
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

        An update is not the last after an acknowledged one of the same writer, or after one of
        another writer that began when this one was committed.
        """
        n = len(live)
        order = np.argsort(live, kind="stable")
        fits, newest = np.zeros(n, np.bool_), np.full(n, -1, np.int64)
        parts = []
        for writer, told in self.writers.items():
            updates = told.updates
            if not updates or not n:
                continue
            lengths = [len(update.numbers) for update in updates]
            numbers = np.concatenate([update.numbers for update in updates])
            values = np.concatenate(
                [updated_priorities(writer, u.first, len(u.numbers)) for u in updates]
            )
            began = np.repeat([update.began for update in updates], lengths)
            committed = np.repeat([update.committed for update in updates], lengths)
            is_sure = np.repeat([update.is_acknowledged for update in updates], lengths)
            at = order[np.searchsorted(live, numbers, sorter=order).clip(max=n - 1)]
            is_live = live[at] == numbers
            is_sure &= is_live
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
        for writer, told in self.writers.items():
            mine = sequences_of(new[writers_of(new) == writer])
            known = int(mine.max()) + 1 if len(mine) else told.announced
            self.past[writer] = max(known, self.past.get(writer, 0))
        self.writers = {}
        self.count, self.live, self.priorities = found.count, found.numbers, found.priorities

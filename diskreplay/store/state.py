"""State: identity, counts, settings and runs of a store, parsed and checked once.

`Identity` never changes. `State` is written by every commit. A `Run` describes one opening for
writing. Each keeps the facts that it does not know, which a newer version may have stored.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from diskreplay.errors import DamageError
from diskreplay.live_range import LiveRange, blocks_in
from diskreplay.records import fingerprint
from diskreplay.store.engine import ENGINE_VERSION
from diskreplay.store.plain_facts import count_in, table_of, table_or_empty
from diskreplay.store.state_parts import MarkSummary, ObservationRange, Rewinds
from diskreplay.validation import check_word, real_number
from diskreplay.version import __version__
from diskreplay.wording import shown

KINDS = ("uniform", "prioritized")
MAX_CAPACITY = 2**40
SEED_BYTES = 16
DURABILITIES = ("full", "system", "process")
_MAX_PRIORITY = float(np.finfo(np.float32).max)
_RUN_TYPES = {"started": float, "host": str, "pid": int, "versions": dict}
_RUN_TOTALS = ("sent", "updated", "noted", "draws", "stale", "cuts")


@dataclass(frozen=True)
class Identity:
    """The facts of a store that never change.

    keep_rows:  slots beyond the capacity, which hold evicted transitions for `rewind`
    """

    kind: str
    capacity: int
    uuid: str
    keep_rows: int = 0
    plain: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def has_priorities(self) -> bool:
        """Whether the store keeps a priority for each slot."""
        return self.kind == "prioritized"

    @property
    def slots(self) -> int:
        """The number of slots of the ring."""
        return self.capacity + self.keep_rows

    @property
    def blocks(self) -> int:
        """The number of priority blocks when all slots are in use."""
        return blocks_in(self.slots) if self.has_priorities else 0

    @classmethod
    def parse(cls, plain: Any) -> Identity:
        """Return the identity that a store holds, or raise DamageError."""
        found = table_of("identity", plain)
        kind, capacity, uuid = (found.get(name) for name in ("kind", "capacity", "uuid"))
        if kind not in KINDS:
            raise DamageError(f"the identity holds no kind of buffer (found {shown(kind)})")
        if type(capacity) is not int or not 1 <= capacity <= MAX_CAPACITY:
            raise DamageError(f"the identity holds no capacity (found {shown(capacity)})")
        if not isinstance(uuid, str):
            raise DamageError(f"the identity holds no uuid (found {shown(uuid)})")
        keep_rows = found.get("keep_rows", 0)
        if type(keep_rows) is not int or not 0 <= keep_rows <= MAX_CAPACITY - capacity:
            raise DamageError(f"the identity holds no keep_rows (found {shown(keep_rows)})")
        return cls(str(kind), capacity, uuid, keep_rows, found)

    def to_plain(self) -> dict[str, Any]:
        """Return the identity as plain data; without `keep_rows` where it is 0."""
        known: dict[str, Any] = {"kind": self.kind, "capacity": self.capacity, "uuid": self.uuid}
        plain = {**self.plain, **known, "keep_rows": self.keep_rows}
        if not self.keep_rows:
            del plain["keep_rows"]
        return plain


@dataclass(frozen=True)
class State:
    """The facts that every commit writes.

    count, start:   the live range, see LiveRange
    commits, runs:  how many there were
    run:            the id of the run that committed last
    stale_updates:  updates of priorities that came too late, over all runs
    cuts:           episodes whose end nobody declared, over all runs
    seed, draws:    the random stream: its key, 16 bytes, and the number of the next draw
    settings:       the settings of the last run, as plain data
    frame:          batches given so far, which the annealing follows; 0 in a uniform store
    max_priority:   the largest priority so far, None before there was any
    observations:   the observation log: the ids whose entries are there, and the next id
    marks, rewinds: see MarkSummary and Rewinds
    """

    seed: bytes
    settings: Mapping[str, Any]
    count: int = 0
    start: int = 0
    commits: int = 0
    runs: int = 0
    run: str = ""
    stale_updates: int = 0
    cuts: int = 0
    draws: int = 0
    frame: int = 0
    max_priority: float | None = None
    observations: ObservationRange = field(default_factory=ObservationRange)
    marks: MarkSummary = field(default_factory=MarkSummary)
    rewinds: Rewinds = field(default_factory=Rewinds)
    plain: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def live(self, identity: Identity) -> LiveRange:
        """Return the live range in the ring of a store."""
        return LiveRange(identity.capacity, self.start, self.count, identity.keep_rows)

    @property
    def given(self) -> int:
        """The number of write ids that were ever given, some of them again after a rewind."""
        return max(self.count, self.rewinds.reached)

    def oldest_stored(self, identity: Identity) -> int:
        """Return the oldest write id whose record the ring has not overwritten."""
        return max(0, self.given - identity.slots)

    def needed(self, live: LiveRange) -> LiveRange:
        """Return what is live after the next commit, or may be live again after a rewind."""
        first, slots = live.first, live.ring_slots
        if self.marks.first is not None:
            oldest_stored = max(live.count, self.rewinds.reached) - slots
            first = min(first, max(self.marks.first, oldest_stored))
        return LiveRange(slots, first, live.count)

    @classmethod
    def parse(cls, plain: Any, identity: Identity) -> State:
        """Return the state that a store holds, or raise DamageError."""
        found = table_of("state", plain)
        count, start, commits, runs, stale = (
            count_in("state", name, found.get(name))
            for name in ("count", "start", "commits", "runs", "stale_updates")
        )
        if start > count:
            raise DamageError("the state starts after its end")
        run = found.get("run")
        if not isinstance(run, str | bytes):  # bytes in the first version
            raise DamageError("the state does not say which run it is of")
        sampler = table_of("state of the sampler", found.get("sampler"))
        frame, largest = 0, None
        if identity.has_priorities:
            frame = count_in("state", "batches (frame)", sampler.get("frame"))
            largest = sampler.get("max_priority")
            if largest is not None and not (
                type(largest) is float and 0 <= largest <= _MAX_PRIORITY
            ):
                raise DamageError(f"the largest priority is none (found {shown(largest)})")
        return cls(
            seed=_seed_of(found),
            settings=table_of("table of settings", found.get("settings")),
            count=count,
            start=start,
            commits=commits,
            runs=runs,
            run=run if isinstance(run, str) else run.hex(),
            stale_updates=stale,
            cuts=count_in("state", "cuts", found.get("cuts", 0)),
            draws=count_in("state", "draws", found.get("draws", 0)),
            frame=frame,
            max_priority=largest,
            observations=ObservationRange.parse(found.get("observations")),
            marks=MarkSummary.parse(found.get("marks")),
            rewinds=Rewinds.parse(found.get("rewinds")),
            plain=found,
        )

    def to_plain(self, identity: Identity) -> dict[str, Any]:
        """Return the state as plain data, with the facts of newer versions in it."""
        sampler = dict(table_or_empty(self.plain.get("sampler")))
        if identity.has_priorities:
            sampler |= {"frame": self.frame, "max_priority": self.max_priority}
        names = ("count", "start", "commits", "runs", "run", "stale_updates", "cuts", "seed")
        plain = {**self.plain, **{name: getattr(self, name) for name in (*names, "draws")}}
        plain.pop("generator", None)  # of format 2, see `_seed_of`
        if self.observations.count or "observations" in plain:
            kept = table_or_empty(plain.get("observations"))
            plain["observations"] = {**kept, **self.observations.to_plain()}
        plain |= {"marks": self.marks.to_plain(), "rewinds": self.rewinds.to_plain()}
        if not self.marks.made:
            del plain["marks"]
        if not self.rewinds.number:
            del plain["rewinds"]
        settings = {**table_or_empty(self.plain.get("settings")), **self.settings}
        return {**plain, "sampler": sampler, "settings": settings}

    def keeping(self, *others: State) -> State:
        """Return this state with the facts of others that this version does not know."""
        plain: dict[str, Any] = {}
        for other in others:
            tables = {
                name: {**table_or_empty(plain.get(name)), **table_or_empty(other.plain.get(name))}
                for name in ("sampler", "settings")
            }
            plain = {**plain, **other.plain, **tables}
        return replace(self, plain=plain)

    def without(self, sampler: Container[str], settings: Container[str]) -> State:
        """Return the state without some facts of its sampler and some settings."""
        plain = dict(self.plain)
        for name, dropped in (("sampler", sampler), ("settings", settings)):
            table = table_or_empty(plain.get(name))
            plain[name] = {key: value for key, value in table.items() if key not in dropped}
        kept = {key: value for key, value in self.settings.items() if key not in settings}
        return replace(self, settings=kept, plain=plain)


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run that any kind of buffer has.

    Raises ArgumentError for a value out of its range.
    """

    durability: str = "system"
    commit_interval: float = 1.0

    def __post_init__(self) -> None:
        check_word("durability", self.durability, DURABILITIES)
        interval = real_number("commit_interval", self.commit_interval, low=0.0, high=float("inf"))
        object.__setattr__(self, "commit_interval", interval)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> RunSettings:
        """Return those of a table of settings; the usual ones where some are missing."""
        names = [name for name in ("durability", "commit_interval") if name in settings]
        return cls(**{name: settings[name] for name in names})

    def to_plain(self) -> dict[str, Any]:
        """Return the settings by name."""
        return {"durability": self.durability, "commit_interval": self.commit_interval}


@dataclass(frozen=True)
class Run:
    """The description of one opening of a store for writing.

    first, end:   the write ids of its transitions are in [first, end)
    rows:         how many it wrote; with others in between where several wrote together
    rows_least:   at least so many, in a merged store where that is not known
    id:           random, to tell a run from another one of the same number
    started, host, pid, versions:  when and where it ran
    sent, updated, noted, draws, stale, cuts:
                  totals of a shared writer: a commit that was done but whose end was interrupted is
                  not done twice
    """

    first: int
    end: int
    rows: int
    started: float
    host: str
    pid: int
    versions: Mapping[str, str]
    id: str
    rows_least: int | None = None
    sent: int = 0
    updated: int = 0
    noted: int = 0
    draws: int = 0
    stale: int = 0
    cuts: int = 0
    plain: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def new(cls, count: int) -> Run:
        """Return the description of a run of this process that begins now, at a count."""
        return cls(
            first=count,
            end=count,
            rows=0,
            started=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            versions={
                "diskreplay": __version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "lmdb": ENGINE_VERSION,
            },
            id=os.urandom(16).hex(),
        )

    @classmethod
    def parse(cls, number: int, plain: Any) -> Run:
        """Return the run of a number that a store describes, or raise DamageError."""
        name = f"description of run {number}"
        found = table_of(name, plain)
        first, end = (count_in(name, fact, found.get(fact)) for fact in ("first", "end"))
        if first > end:
            raise DamageError(f"the {name} starts after its end")
        # Nobody else could write in the first version: all between the ends were its rows.
        rows = count_in(name, "rows", found.get("rows", end - first))
        least = found.get("rows_least")
        if least is not None:
            count_in(name, "rows_least", least)
        if not (least or 0) <= rows <= end - first:
            raise DamageError(f"the {name} does not say what it wrote")
        for fact, type_ in _RUN_TYPES.items():
            if type(found.get(fact)) is not type_:
                raise DamageError(f"the {name} has no {fact}")
        run = found.get("run", "")
        if not isinstance(run, str):
            raise DamageError(f"the {name} has no run")
        totals = {total: count_in(name, total, found.get(total, 0)) for total in _RUN_TOTALS}
        return cls(
            first=first,
            end=end,
            rows=rows,
            started=found["started"],
            host=found["host"],
            pid=found["pid"],
            versions=found["versions"],
            id=run,
            rows_least=least,
            **totals,
            plain=found,
        )

    def until(self, count: int) -> Run:
        """Return the description without the transitions from a write id on."""
        end = min(self.end, count)
        first = min(self.first, end)
        rows = min(self.rows, end - first)
        least = self.rows if self.rows_least is None else self.rows_least
        least = max(0, least - (self.end - end))
        rows_least = None if self.rows_least is None and least >= rows else min(least, rows)
        return replace(self, first=first, end=end, rows=rows, rows_least=rows_least)

    def to_plain(self) -> dict[str, Any]:
        """Return the description as plain data; totals and limits of 0 are left out."""
        names = ("first", "end", "rows", *_RUN_TYPES)
        plain = {**self.plain, **{name: getattr(self, name) for name in names}, "run": self.id}
        for name in ("rows_least", *_RUN_TOTALS):
            if (value := getattr(self, name)) or name in plain:
                plain[name] = value
        return plain


def _seed_of(state: Mapping[str, Any]) -> bytes:
    """Return the key of the random stream.

    A store of format 1 or 2 holds the state of a generator instead, and no number of draws: the key
    follows from that state, so that the store is one stream from there on.
    """
    seed = state.get("seed")
    if seed is None and isinstance(state.get("generator"), list | tuple):
        seed = fingerprint(state["generator"])
    if not isinstance(seed, bytes) or len(seed) != SEED_BYTES:
        raise DamageError(f"the state holds no seed of the random stream (found {shown(seed)})")
    return seed

"""Facts: what the sealed values of a store must say, checked without opening a buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diskreplay.errors import DamageError, DiskReplayError
from diskreplay.live_range import BLOCK_SLOTS
from diskreplay.sampling import (
    DEFAULTS,
    PrioritizedSampler,
    block_of,
    checked_state,
    generator_from_plain,
)
from diskreplay.store.runs import complete
from diskreplay.store.store import DURABILITIES
from diskreplay.validation import MAX_COUNT, real_number

KINDS = ("uniform", "prioritized")
MAX_CAPACITY = 2**40
_MOST = MAX_COUNT // 2  # so that one can go on counting
RUN_SETTINGS = {"durability": "system", "commit_interval": 1.0}  # as the constructors have them
_COUNTERS = ("count", "start", "commits", "runs", "stale_updates")


class Identity(NamedTuple):
    """What never changes."""

    kind: str
    capacity: int
    uuid: str

    @property
    def blocks(self) -> int:
        """The number of priority blocks when all slots are in use."""
        return -(-self.capacity // BLOCK_SLOTS) if self.kind == "prioritized" else 0

    def live_slots(self, first: int, count: int) -> list[tuple[int, int]]:
        """Return the slots of the write ids [first, count) as ascending ranges."""
        begin = first % self.capacity
        end = begin + count - first
        parts = [(0, end - self.capacity), (begin, min(end, self.capacity))]
        return [(low, high) for low, high in parts if low < high]


@dataclass(frozen=True)
class State:
    """What every commit writes, after checking it; `plain` is all of it."""

    count: int
    start: int
    commits: int
    runs: int
    stale_updates: int
    settings: dict[str, Any]
    plain: dict[str, Any]

    def first(self, capacity: int) -> int:
        """Return the oldest live write id."""
        return max(self.start, self.count - capacity)


def identity_of(found: Any) -> Identity:
    """Return the identity that a sealed value holds, or raise DamageError."""
    facts = _mapping("identity", found)
    kind, capacity, uuid = (facts.get(name) for name in Identity._fields)
    if kind not in KINDS:
        raise DamageError(f"the identity holds no kind of buffer (found {kind!r:.40})")
    if type(capacity) is not int or not 1 <= capacity <= MAX_CAPACITY:
        raise DamageError(f"the identity holds no capacity (found {capacity!r:.40})")
    if not isinstance(uuid, str):
        raise DamageError(f"the identity holds no uuid (found {uuid!r:.40})")
    return Identity(str(kind), capacity, uuid)


def state_of(found: Any, kind: str) -> State:
    """Return the state that a sealed value holds, or raise DamageError."""
    facts = _mapping("state", found)
    for name in _COUNTERS:
        number = facts.get(name)
        if type(number) is not int or not 0 <= number <= _MOST:
            raise DamageError(f"the state holds no number of {name} (found {number!r:.40})")
    if facts["start"] > facts["count"]:
        raise DamageError("the state starts after its end")
    if not isinstance(facts.get("run"), str | bytes):  # bytes in the first version
        raise DamageError("the state does not say which run it is of")
    generator_from_plain(facts.get("generator"))
    sampler = _mapping("state of the sampler", facts.get("sampler"))
    settings = settings_of(facts.get("settings"), kind)
    if kind == "prioritized" and checked_state(sampler)[0] > _MOST:
        raise DamageError(f"the frame is {sampler['frame']}")
    counters = {name: facts[name] for name in _COUNTERS}
    return State(**counters, settings=settings, plain=facts)


def settings_of(found: Any, kind: str) -> dict[str, Any]:
    """Return the settings that a state holds, or raise DamageError.

    One that is missing is what the constructors have; one that is not known here is left out.
    """
    stored = _mapping("table of settings", found)
    names = DEFAULTS if kind == "prioritized" else {}
    settings = {name: stored.get(name, usual) for name, usual in {**RUN_SETTINGS, **names}.items()}
    if settings["durability"] not in DURABILITIES:
        raise DamageError(f"the settings hold no durability (found {settings['durability']!r:.40})")
    try:
        real_number("commit_interval", settings["commit_interval"], low=0, high=float("inf"))
        if names:
            PrioritizedSampler(1, **{name: settings[name] for name in names})
    except DiskReplayError as error:
        raise DamageError(f"the settings are damaged: {error!s:.200}") from None
    return settings


def laid_over(under: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state with another laid over it: what only a newer version knows stays."""
    both = {**under, **state}
    for name in ("sampler", "settings"):
        tables = [table for table in (under.get(name), state.get(name)) if isinstance(table, dict)]
        if tables:
            both[name] = {key: value for table in tables for key, value in table.items()}
    return both


def check_run(number: int, found: Any, state: State | None) -> None:
    """Raise DamageError when a sealed value does not describe a run."""
    facts = complete(_mapping(f"description of run {number}", found))
    numbers = [facts.get(name) for name in ("first", "end", "rows")]
    if not all(type(n) is int and 0 <= n <= _MOST for n in numbers):
        raise DamageError(f"the description of run {number} does not say what it wrote")
    first, end = facts["first"], facts["end"]
    if first > end:
        raise DamageError(f"the description of run {number} starts after its end")
    if state is not None and (end > state.count or number >= state.runs):
        raise DamageError(f"the description of run {number} is beyond the state")
    types = {"started": float, "host": str, "pid": int, "versions": dict, "run": str}
    for name, type_ in types.items():
        if type(facts.get(name)) is not type_:
            raise DamageError(f"the description of run {number} has no {name}")


def priorities_of(number: int, content: Any, identity: Identity) -> NDArray[np.float32]:
    """Return the priorities of a block, or raise DamageError."""
    if not 0 <= number < identity.blocks:
        raise DamageError(f"priority block {number} belongs to no slots")
    if not isinstance(content, bytes):
        raise DamageError(f"priority block {number} holds no bytes")
    return block_of(number, content, identity.capacity)


def _mapping(what: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise DamageError(f"the {what} is not a table")
    return dict(found)

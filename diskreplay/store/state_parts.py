"""Parts of the state of a store: the range of its log, the summary of its marks, its rewinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diskreplay.errors import DamageError
from diskreplay.store.plain_facts import count_in, table_of

_RANGE = "range of observations"
_SUMMARY = "summary of marks"


@dataclass(frozen=True)
class ObservationRange:
    """The observation ids whose entries are in the observation log: [first, count)."""

    first: int = 0
    count: int = 0

    @classmethod
    def parse(cls, plain: Any) -> ObservationRange:
        """Return the range that a state holds, or raise DamageError; None is an empty range."""
        found = {"first": 0, "count": 0} if plain is None else table_of(_RANGE, plain)
        first, count = (count_in(_RANGE, name, found.get(name)) for name in ("first", "count"))
        if first > count:
            raise DamageError("the range of observations starts after its end")
        return cls(first, count)

    def to_plain(self) -> dict[str, int]:
        """Return the range as plain data."""
        return {"first": self.first, "count": self.count}


@dataclass(frozen=True)
class MarkSummary:
    """The facts of the marks of a store that each commit needs.

    made:    how many were ever made, which is the number of the next one
    newest:  the number of the newest one that is there; None without any
    first:   the oldest write id that was live at one of them; None without any
    """

    made: int = 0
    newest: int | None = None
    first: int | None = None

    @classmethod
    def parse(cls, plain: Any) -> MarkSummary:
        """Return the summary that a state holds, or raise DamageError; None is one of no marks."""
        if plain is None:
            return cls()
        found = table_of(_SUMMARY, plain)
        made = count_in(_SUMMARY, "marks (made)", found.get("made"))
        newest, first = found.get("newest"), found.get("first")
        if newest is None and first is None:
            return cls(made)
        newest, first = (
            count_in(_SUMMARY, name, fact)
            for name, fact in (("marks (newest)", newest), ("write ids (first)", first))
        )
        if newest >= made:
            raise DamageError("the newest mark was never made")
        return cls(made, newest, first)

    def to_plain(self) -> dict[str, int | None]:
        """Return the summary as plain data."""
        return {"made": self.made, "newest": self.newest, "first": self.first}


@dataclass(frozen=True)
class Rewinds:
    """The rewinds of a store: after each, write ids are given again.

    number:   how many there were
    reached:  the largest count before one of them
    """

    number: int = 0
    reached: int = 0

    @classmethod
    def parse(cls, plain: Any) -> Rewinds:
        """Return the rewinds that a state holds, or raise DamageError; None is none."""
        if plain is None:
            return cls()
        found = table_of("table of rewinds", plain)
        number, reached = (
            count_in("table of rewinds", name, found.get(name)) for name in ("number", "reached")
        )
        return cls(number, reached)

    def to_plain(self) -> dict[str, int]:
        """Return the rewinds as plain data."""
        return {"number": self.number, "reached": self.reached}

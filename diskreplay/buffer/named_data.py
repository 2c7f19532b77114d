"""Names and data that the user gives to marks and notes, and their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diskreplay.errors import ArgumentError
from diskreplay.records import seal
from diskreplay.wording import shown

_NAME_BYTES = 200
_LEVELS = 32


@dataclass(frozen=True)
class NamedData:
    """The rules for the names and the data of a kind of thing.

    thing:       the word for it, in messages
    most_bytes:  the most bytes of its data
    """

    thing: str
    most_bytes: int

    def checked_name(self, name: Any) -> str:
        """Return a name, or raise ArgumentError."""
        is_text = isinstance(name, str) and name.isprintable()
        if is_text and 0 < len(name.encode()) <= _NAME_BYTES:
            return str(name)
        raise ArgumentError(
            f"the name of a {self.thing} must be printable text of 1 to {_NAME_BYTES} bytes "
            f"(found {shown(name)})"
        )

    def sealed(self, name: str, data: Any) -> bytes:
        """Return the data sealed; raise ArgumentError for a value that would come back changed.

        That is all but None, bool, int, float, str, bytes, lists, and dictionaries with str as
        keys.
        """
        self._check_plain(data, _LEVELS)
        try:
            raw = seal(name, data)
        except (ValueError, OverflowError) as error:
            raise ArgumentError(
                f"the data of a {self.thing} cannot be stored: {error}: {self._kinds}"
            ) from None
        size = len(raw) - len(name.encode())
        if size > self.most_bytes:
            raise ArgumentError(
                f"the data of a {self.thing} must be small, at most {self.most_bytes} bytes (found "
                f"{size}): keep it in a file, and give the name and the hash of the file"
            )
        return raw

    def check_known(self, name: str, known: Sequence[str], path: Path) -> None:
        """Raise ArgumentError if a name is none of the known ones of the store at a path."""
        if not isinstance(name, str) or name not in known:  # an array is in no list
            found = ", ".join(map(repr, known[-8:])) or "none"
            raise ArgumentError(
                f"{path} has no {self.thing} {shown(name)} (found {found}): {self.thing}s() lists "
                "them"
            )

    @property
    def _kinds(self) -> str:
        return (
            f"the data of a {self.thing} must be None, bool, int, float, str, bytes, or lists and "
            f"dictionaries of these with str as keys, at most {_LEVELS} levels deep and "
            f"{self.most_bytes} bytes in all"
        )

    def _check_plain(self, value: Any, levels: int) -> None:
        if type(value) is list and levels:
            for item in value:
                self._check_plain(item, levels - 1)
        elif type(value) is dict and levels and all(type(key) is str for key in value):
            for item in value.values():
                self._check_plain(item, levels - 1)
        elif value is not None and type(value) not in (bool, int, float, str, bytes):
            raise ArgumentError(f"{self._kinds} (found {shown(value)})")
        elif type(value) is int and not -(2**63) <= value < 2**64:
            raise ArgumentError(
                f"an int in the data of a {self.thing} must be at least -2**63 and less than 2**64 "
                f"(found {shown(value)}): give larger ones as text, such as the state of a numpy "
                "generator as json.dumps(rng.bit_generator.state)"
            )


MARK = NamedData("mark", 8192)
NOTE = NamedData("note", 1 << 16)


def sealed_notes(notes: Any) -> dict[str, bytes]:
    """Return the sealed bytes of notes by name, or raise ArgumentError."""
    if not isinstance(notes, Mapping):
        raise ArgumentError(
            f"with_notes must be a dictionary of the data of notes by name (found {shown(notes)})"
        )
    return {NOTE.checked_name(name): NOTE.sealed(name, data) for name, data in notes.items()}

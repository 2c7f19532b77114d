"""Limits: what one client may ask of a service, and how many may ask at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from diskreplay.errors import ArgumentError
from diskreplay.validation import whole_number
from diskreplay.wording import count_of, human


@dataclass(frozen=True)
class Limits:
    """The limits of a service; a call beyond one is refused, and others go on.

    message_bytes:  the most bytes of a group of rows that is pushed, and of a batch
    rows:           the most rows of one call
    memory_bytes:   the most bytes of large messages (of more than 1 MiB) that are received or sent
                    at one time, of all clients together
    calls:          the most calls, and open streams, at one time, of all clients together
    """

    message_bytes: int = 256 << 20
    rows: int = 1 << 20
    memory_bytes: int = 1 << 30
    calls: int = 1024

    def __post_init__(self) -> None:
        for field in fields(self):
            name = f"max_{field.name}"
            whole_number(name, getattr(self, field.name), at_least=1, at_most=2**40)

    def group_rows(self, replay: Any) -> int:
        """Return the most rows that a client of a replay should send together."""
        allowed: int | None = getattr(replay, "insert_rows", None)
        return self.rows if allowed is None else min(self.rows, allowed)

    def check(self, n: int, nbytes: int) -> None:
        """Raise ArgumentError if the rows of a call are too many, or take too many bytes."""
        if n > self.rows:
            raise ArgumentError(
                f"this service takes at most {count_of(self.rows, 'row')} a call (found {n:,}): "
                "ask for fewer, or raise --max-rows"
            )
        if nbytes > self.message_bytes:
            raise ArgumentError(
                f"this service takes messages of at most {human(self.message_bytes)} (found "
                f"{human(nbytes)}): ask for fewer rows, or raise --max-message-bytes"
            )

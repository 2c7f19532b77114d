"""OwnEpisodes: the episodes that a wrapper records, apart from those of other wrappers."""

from __future__ import annotations

import contextlib
import warnings
from typing import TypeAlias
from weakref import WeakKeyDictionary

import diskreplay

Buffer: TypeAlias = "diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer"

# Of each buffer, by the number of an environment: the wrapper that was the last to record it.
_recorders: WeakKeyDictionary[Buffer, dict[int, object]] = WeakKeyDictionary()


class OwnEpisodes:
    """The open episodes of a wrapper in a buffer, apart from those of other wrappers."""

    def __init__(self, buffer: Buffer, numbers: list[int]) -> None:
        self._buffer, self._numbers = buffer, numbers
        self._recorders = _recorders.setdefault(buffer, {})
        self._own = object()  # not the wrapper, which would keep its buffer alive
        self._has_warned = False

    def begin(self, numbers: list[int]) -> None:
        """End the episodes of some environments, whoever has recorded them."""
        for number in numbers:
            # An error: transitions of other environments were pushed so far, and none of this one.
            with contextlib.suppress(diskreplay.ArgumentError):
                self._buffer.end_episode(number)
            self._recorders[number] = self._own

    def keep_apart(self) -> None:
        """End the episodes that another wrapper has recorded since this one's reset, and warn."""
        others = [n for n in self._numbers if self._recorders.get(n) is not self._own]
        if not others:
            return
        if not self._has_warned:
            warnings.warn(
                f"another RecordTransitions has recorded env={others[0]} of this buffer since the "
                "reset of this one, so the episode is cut there: give each wrapper numbers of its "
                "own with first_env=",
                diskreplay.EpisodeWarning,
                stacklevel=3,
            )
            self._has_warned = True
        self.begin(others)

"""Forwarding: the methods of a replay that go to another one as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from numpy.typing import ArrayLike

from diskreplay.aliases import PathLike
from diskreplay.protocols import Replay

BatchT = TypeVar("BatchT")


class Forwarding(Replay[BatchT]):
    """A replay around another one; what is not changed goes to that one, also further methods."""

    def __init__(self, replay: Replay[BatchT]) -> None:
        self._replay = replay

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also of an object that is not complete
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._replay, name)

    def end_episode(self, env: int | None = None) -> None:
        """End the episode of an env."""
        self._replay.end_episode(env)

    def flush(self) -> None:
        """Commit all changes now."""
        self._replay.flush()

    def episodes(self, newest_first: bool = False) -> Iterator[Any]:
        """Return an iterator over the whole episodes."""
        return self._replay.episodes(newest_first)

    def get(self, indices: ArrayLike, fields: Any = None, *, pad: bool = False) -> Any:
        """Return transitions by write id."""
        return self._replay.get(indices, fields, pad=pad)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._replay)

    def __len__(self) -> int:
        return len(self._replay)

    @property
    def capacity(self) -> int:
        """The number of transitions that the replay holds when full."""
        return self._replay.capacity

    @property
    def count(self) -> int:
        """The number of transitions ever written."""
        return self._replay.count

    @property
    def first(self) -> int:
        """The oldest live write id."""
        return self._replay.first

    @property
    def total_mass(self) -> float:
        """The sum of the masses of the live transitions."""
        return self._replay.total_mass

    @property
    def schema(self) -> Any:
        """The fields of a transition; None before they are known."""
        return self._replay.schema

    def check(self) -> None:
        """Raise DamageError with the faults found."""
        self._replay.check()

    def save(self, path: PathLike) -> None:
        """Write the whole replay to a new store."""
        self._replay.save(path)

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._replay!r})"

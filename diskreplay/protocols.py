"""Replay: the methods that every replay has, so that one may stand in for another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from numpy.typing import ArrayLike

from diskreplay.aliases import Floats, Ints, PathLike

if TYPE_CHECKING:
    from typing_extensions import Self

BatchT_co = TypeVar("BatchT_co", covariant=True)


class BatchIterator(Protocol[BatchT_co]):
    """The endless iterator that `batches` returns."""

    def __iter__(self) -> Iterator[BatchT_co]: ...

    def __next__(self) -> BatchT_co: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def close(self) -> None:
        """End the drawing ahead; the replay stays open."""


class Replay(Protocol[BatchT_co]):
    """A replay of transitions; tests/contract holds what each method promises.

    The type of a batch is a parameter. What belongs to a room above this file, as a schema does, is
    Any here.
    """

    # Writing

    def push(
        self, state: Any, action: Any, reward: Any, next_state: Any, done: Any, **extra: Any
    ) -> int:
        """Add one transition and return its write id, or -1 where the commit gives it."""

    def extend(
        self,
        states: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike,
        next_states: ArrayLike,
        dones: ArrayLike,
        **extra: ArrayLike,
    ) -> Ints:
        """Add n transitions, all or none, and return their write ids."""

    def clear(self) -> None:
        """Remove all transitions; write ids count on."""

    def flush(self) -> None:
        """Commit everything now."""

    def refresh(self) -> None:
        """Take over what others have committed."""

    # Reading

    def sample(self, batch_size: int) -> BatchT_co:
        """Draw a batch."""

    def batches(self, batch_size: int, prefetch: int = 0) -> BatchIterator[BatchT_co]:
        """Return an endless iterator of what `sample` returns."""

    def draw(self, n: int) -> tuple[Ints, Floats]:
        """Draw as `sample` does, and return write ids and probabilities."""

    def get(self, indices: ArrayLike, fields: Any = None) -> Any:
        """Return transitions by write id: all fields in a batch, or some in a dict."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...

    def is_ready(self, n: int) -> bool:
        """Return whether there are at least n transitions."""

    @property
    def capacity(self) -> int:
        """The number of transitions that are kept."""

    @property
    def count(self) -> int:
        """The number of transitions ever written, which is the next write id."""

    @property
    def first(self) -> int:
        """The oldest live write id; where there is none it is `count`."""

    @property
    def total_mass(self) -> float:
        """The sum of the masses of the live transitions."""

    @property
    def schema(self) -> Any:
        """The fields of a transition; None before they are known."""

    # The whole

    def stats(self) -> dict[str, Any]:
        """Return what there is to know, as a plain dict."""

    def check(self) -> None:
        """Raise DamageError with the faults found."""

    def save(self, path: PathLike) -> None:
        """Write all that is there to a new store."""

    def close(self) -> None:
        """Commit and end; twice is once."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

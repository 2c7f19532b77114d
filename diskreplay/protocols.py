"""Replay: the methods that every replay has, so that one may stand in for another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        """Stop drawing ahead; the replay stays open."""


class Replay(Protocol[BatchT_co]):
    """A replay of transitions; tests/contract holds what each method promises.

    The type of a batch is a parameter. Types of the packages above this file, such as Schema, are
    Any here.
    """

    # Writing

    def push(
        self,
        state: Any,
        action: Any,
        reward: Any,
        next_state: Any,
        done: Any,
        *,
        truncated: bool | None = None,
        env: int | None = None,
        **extra: Any,
    ) -> int:
        """Add one transition and return its write id, or -1 if the commit gives it.

        truncated:  whether its episode ends though it is not done
        env:        the number of its environment; without it episodes follow from the states
        """

    def extend(
        self,
        states: Any,
        actions: Any,
        rewards: ArrayLike,
        next_states: Any,
        dones: ArrayLike,
        *,
        truncateds: ArrayLike | None = None,
        env: int | ArrayLike | None = None,
        **extra: Any,
    ) -> Ints:
        """Add n transitions, all or none, and return their write ids; `env` of all, or of each."""

    def end_episode(self, env: int | None = None) -> None:
        """End the episode of an env, or of the transitions without `env=`."""

    def clear(self) -> None:
        """Remove all transitions; write ids count on."""

    def flush(self) -> None:
        """Commit all changes now."""

    def refresh(self) -> None:
        """Load the commits of other processes."""

    # Reading

    def sample(
        self,
        batch_size: int,
        *,
        out: Any = None,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> BatchT_co:
        """Draw a batch, into the arrays of an earlier one if `out` gives it.

        pad:            whether arrays with lengths that vary come as one array, with a mask
        n_step, gamma:  the most rewards that are summed, and the discount of a step
        """

    def batches(
        self,
        batch_size: int,
        prefetch: int = 0,
        readers: int = 0,
        *,
        reuse: bool = False,
        prepare: Callable[[Any], Any] | None = None,
        frames: bool = False,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> BatchIterator[BatchT_co]:
        """Return an endless iterator over batches, as `sample` returns them.

        prefetch:  the number of batches drawn ahead; `readers` processes read their rows
        reuse:     allow to use the arrays of a batch again once the next one is requested
        prepare:   a function of a batch, whose result is returned in its place
        frames:    fields in the log come as distinct frames and their rows, to be put together
        pad, n_step, gamma:  as of `sample`
        """

    def sample_sequences(
        self, n: int, length: int, *, pad: bool = True, across: bool = False
    ) -> Any:
        """Draw n sequences of transitions that follow each other.

        pad:     whether they may end earlier
        across:  whether they go on into the next episode of the same env
        """

    def episodes(self, newest_first: bool = False) -> Iterator[Any]:
        """Return an iterator over the whole episodes, each a batch."""

    def draw(self, n: int) -> tuple[Ints, Floats]:
        """Draw as `sample` does, and return write ids and probabilities."""

    def get(self, indices: ArrayLike, fields: Any = None, *, pad: bool = False) -> Any:
        """Return transitions by write id: all fields in a batch, or some in a dict."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...

    def is_ready(self, n: int) -> bool:
        """Return whether a batch of n transitions can be drawn."""

    @property
    def capacity(self) -> int:
        """The number of transitions that the replay holds when full."""

    @property
    def count(self) -> int:
        """The number of transitions ever written, which is the next write id."""

    @property
    def first(self) -> int:
        """The oldest live write id; `count` in an empty replay."""

    @property
    def total_mass(self) -> float:
        """The sum of the masses of the live transitions."""

    @property
    def schema(self) -> Any:
        """The fields of a transition; None before they are known."""

    # The whole replay

    def stats(self) -> dict[str, Any]:
        """Return a description of the replay, as a plain dict."""

    def check(self) -> None:
        """Raise DamageError with the faults found."""

    def save(self, path: PathLike) -> None:
        """Write the whole replay to a new store."""

    def close(self) -> None:
        """Commit and close; a second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

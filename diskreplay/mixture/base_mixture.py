"""BaseMixture: the sources of a mixture, opened, looked at and closed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from operator import methodcaller
from typing import TYPE_CHECKING, Any, NoReturn

from diskreplay.errors import ArgumentError, ClosedError, LockedError
from diskreplay.forks import process
from diskreplay.mixture.shares import WeightsLike
from diskreplay.mixture.sources import Sources, seed_of
from diskreplay.mixture.split import Split
from diskreplay.schema import Schema
from diskreplay.validation import MAX_COUNT, true_or_false, whole_number

if TYPE_CHECKING:
    from typing_extensions import Self

_STREAM = 2**32 - 1  # the key of the seed of the shares, beside those of the sources


class BaseMixture:
    """The sources of a mixture, and the methods that draw nothing."""

    def __init__(
        self,
        sources: Mapping[str, Any],
        weights: WeightsLike | None,
        exact: bool,
        seed: int | None,
        draws: int,
    ) -> None:
        if seed is not None:
            seed = whole_number("seed", seed, at_least=0)
        draws = whole_number("draws", draws, at_least=0, at_most=MAX_COUNT)
        is_exact = true_or_false("exact", exact)
        self._closed = False
        self._seed, self._weights = seed, weights
        self._process, self._lock = process(), threading.RLock()
        self._sources = Sources(sources, seed, draws)
        try:
            of_split = seed_of(seed, _STREAM)
            self._split = Split(self.names, weights, exact=is_exact, seed=of_split, draws=draws)
        except BaseException:
            self._sources.close()
            raise

    def __len__(self) -> int:
        with self._locked():
            return sum(self._sources.sizes())

    def __iter__(self) -> Iterator[Any]:
        """Yield the transitions of the first source, oldest first, then of the next."""
        self._check_open()
        for replay in self._sources.replays:
            yield from replay

    def __getitem__(self, name: str) -> Any:
        """Return the buffer of a source."""
        if name not in self.names:
            raise ArgumentError(
                f"this mixture has no source {name!r}: expected one of {', '.join(self.names)}"
            )
        return self._sources.replays[self.names.index(name)]

    def is_ready(self, n: int) -> bool:
        """Return whether a batch of n transitions can be drawn now."""
        n = whole_number("n", n, at_least=0)
        with self._locked():
            counts = self._split.most_counts(n, self._sources.sizes())
            replays = self._sources.replays
            return all(one.is_ready(count) for one, count in zip(replays, counts, strict=True))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the sources; `batch.sources` are places in it."""
        return self._sources.names

    @property
    def sizes(self) -> dict[str, int]:
        """The number of live transitions of each source, by name."""
        with self._locked():
            return dict(zip(self.names, self._sources.sizes(), strict=True))

    @property
    def draws(self) -> int:
        """The number of batches drawn so far, which is the number of the next one."""
        return self._split.draws

    @property
    def schema(self) -> Schema | None:
        """The fields of a transition; None before any source has some."""
        with self._locked():
            self._sources.check_fields()
            return self._sources.schema

    def stats(self) -> dict[str, Any]:
        """Return a description of the mixture, as a plain dict.

        size, draws, exact, beta (of the weights of the next batch; None where no source is
        prioritized), and for each source by name its share of the next batch (None while no source
        holds anything) and the `stats` of its buffer.
        """
        with self._locked():
            sizes = self._sources.sizes()
            shares = self._split.shares(sizes) if any(sizes) else [None] * len(sizes)
            return {
                "size": sum(sizes),
                "draws": self._split.draws,
                "exact": self._split.is_exact,
                "beta": self._sources.beta(),
                "shares": dict(zip(self.names, shares, strict=True)),
                "sources": {
                    name: replay.stats()
                    for name, replay in zip(self.names, self._sources.replays, strict=True)
                },
            }

    def check(self) -> None:
        """Raise DamageError with the faults of the first source that has some."""
        self._call_each("check")

    def refresh(self) -> None:
        """Load the commits of other processes in all sources now; every other call does so, too."""
        self._call_each("refresh")

    def flush(self) -> None:
        """Commit all changes of all sources now."""
        self._call_each("flush")

    def close(self) -> None:
        """Close the sources that were given as paths; a second call does nothing."""
        if not self._closed:
            with self._locked():
                self._sources.close()
                self._closed = True

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        of = ", ".join(map(repr, self.names))
        return f"Mixture({of}, draws={self._split.draws}{', closed' * self._closed})"

    def __copy__(self) -> NoReturn:
        """Raise LockedError: two mixtures would own the same opened stores."""
        raise LockedError(
            "a mixture cannot be copied in memory: make another one of the same buffers, "
            "diskreplay.Mixture({name: mixture[name]})"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        """Raise LockedError, as `copy.copy` does."""
        self.__copy__()

    # Inside

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of an open mixture; in a forked child take another stream first."""
        if self._process is not process():
            self._process, self._lock = process(), threading.RLock()
            self._split.use_seed(None)
        with self._lock:
            self._check_open()
            yield

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"this mixture of {', '.join(self.names)} is closed: make another")

    def _call_each(self, method: str) -> None:
        with self._locked():
            for place in range(len(self.names)):
                self._sources.call(place, methodcaller(method))

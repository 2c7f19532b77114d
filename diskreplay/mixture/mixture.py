"""Mixture: batches from several buffers at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from operator import methodcaller
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from diskreplay.aliases import PathLike
from diskreplay.errors import (
    ArgumentError,
    ClosedError,
    LockedError,
    ReadOnlyError,
    SampleError,
)
from diskreplay.forks import process
from diskreplay.mixture.arguments import check_iteration, checked_beta, sampling_options
from diskreplay.mixture.assembly import Assembly, SourcedDraw, places_of
from diskreplay.mixture.mixed_batches import MixedBatches
from diskreplay.mixture.shares import Shares, WeightsLike, exact_counts, mean_counts
from diskreplay.mixture.sources import Sources, seed_of
from diskreplay.protocols import Replay
from diskreplay.sampling import RandomStream, checked_priorities, new_seed
from diskreplay.schema import Schema
from diskreplay.validation import (
    MAX_COUNT,
    true_or_false,
    whole_number,
    whole_numbers,
)
from diskreplay.wording import count_of

if TYPE_CHECKING:
    from typing_extensions import Self

_STREAM = 2**32 - 1  # the key of the seed of the shares, beside those of the sources


class Mixture:
    """Batches from several buffers at once, each with a share of the batch.

    For runs that share: demonstrations beside what an agent does itself (Ball et al., Efficient
    Online Reinforcement Learning with Offline Data, ICML 2023: half and half), offline beside
    online, earlier runs. A batch is one of the buffers' own, with one more element at the end,
    `sources`, int64 (n,): the places in `names`. The rows of a source stand together, in the order
    of the names, so a slice of a batch is not mixed.

    >>> online, demos = ReplayBuffer(capacity=100), ReplayBuffer(capacity=100)
    >>> for buffer, n in ((online, 60), (demos, 30)):
    ...     zeros = np.zeros((n, 2))
    ...     ids = buffer.extend(zeros, [0] * n, [1.0] * n, zeros, [False] * n)
    >>> mixture = Mixture({"online": online, "demos": demos}, {"online": 0.5, "demos": 0.5})
    >>> batch = mixture.sample(8)
    >>> batch.states.shape, batch.sources
    ((8, 2), array([0, 0, 0, 0, 1, 1, 1, 1]))

    sources:  buffers, or paths of stores, by name. A path is opened with access="read", beside its
              writers, whose commits each call follows; `close` closes it, while buffers that were
              given stay open. All have the same fields (where they are kept does not matter), or
              MismatchError says which differ. Some may be prioritized and others not
    weights:  the share of each source by its name; 0 leaves it out. Or a function of the number of
              the batch, from 0, that returns such shares: a schedule. None gives each source its
              share of all transitions, at each batch, as if they were in one buffer
    exact:    whether each batch has `n * share` transitions of a source, rounded down or up at
              random so that the mean is right; otherwise the source of each transition is drawn
    seed:     of the random stream of the shares, and of the streams of paths; None takes entropy
    draws:    the number of the next batch, to go on as of an earlier mixture's `draws`

    Importance weights: where a source is prioritized, batches are PrioritizedBatches, with
    `(size_k * P_k(i)) ** -beta` of each source k over the largest of the batch; transitions of
    uniform sources have P_k(i) = 1 / size_k. The shares are the user's, and are not undone.

    What repeats: the shares follow from `seed` and the number of the batch (and from the sizes with
    weights=None) alone. A buffer that was given draws from its own stream, which goes on after a
    restart if it is exclusive. So with the same `seed`, and `draws` as saved at the buffer's last
    commit, batches from exclusive buffers go on as if there had been no restart. Paths get new
    streams at each opening: the same for the same `seed` and `draws`, but not those that the
    earlier mixture would have gone on with. A forked child has streams of its own; pickling sends a
    mixture to another process as one of readers.
    """

    def __init__(
        self,
        sources: Mapping[str, Replay[Any] | PathLike],
        weights: WeightsLike | None = None,
        *,
        exact: bool = True,
        seed: int | None = None,
        draws: int = 0,
    ) -> None:
        if seed is not None:
            seed = whole_number("seed", seed, at_least=0)
        self._draws = whole_number("draws", draws, at_least=0, at_most=MAX_COUNT)
        self._is_exact = true_or_false("exact", exact)
        self._closed = False
        self._seed, self._weights = seed, weights
        self._use_stream(seed_of(seed, _STREAM))
        self._sources = Sources(sources, seed, self._draws)
        try:
            self._shares = Shares(self._sources.names, weights)
        except BaseException:
            self._sources.close()
            raise
        self._assembly = Assembly(self._sources)

    # Drawing

    def sample(
        self,
        batch_size: int,
        beta: float | None = None,
        *,
        out: Any = None,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> Any:
        """Draw a batch: of each source what its own `sample` draws, in one batch.

        Returns a Batch, or a PrioritizedBatch where a source is prioritized, with `sources` as its
        last element; `indices` are the write ids of each source. Each source counts a draw of its
        own where it gives anything. Raises SampleError, and draws nothing, when a source holds less
        than it is to give; the errors of a source name it.

        >>> buffers = {"a": ReplayBuffer(capacity=10), "b": PrioritizedReplayBuffer(capacity=10)}
        >>> for buffer in buffers.values():
        ...     ids = buffer.extend([[0.0]] * 5, [0] * 5, [1.0] * 5, [[0.0]] * 5, [False] * 5)
        >>> batch = Mixture(buffers, {"a": 1, "b": 3}).sample(4)
        >>> batch.sources.tolist(), batch.weights.tolist()
        ([0, 1, 1, 1], [1.0, 1.0, 1.0, 1.0])

        beta:  the exponent of the weights of prioritized sources, instead of their annealed ones
        out:   an earlier batch of this mixture of the same size to write into, which is returned;
               after an error its contents are arbitrary
        pad:   whether arrays with lengths that vary come as one array, see ReplayBuffer.sample
        n_step, gamma:
               n-step returns, see ReplayBuffer.sample: `discounts` come before `sources`
        """
        n = whole_number("batch_size", batch_size, at_least=1, at_most=MAX_COUNT)
        options = sampling_options(out=out, pad=pad, n_step=n_step, gamma=gamma)
        exponent = checked_beta(beta, are_weighted=any(self._sources.are_weighted))
        with self._locked():
            _, counts = self._counts(n)
            batch = self._assembly.sample(counts, exponent, out, options)
            self._draws += 1
        return batch

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
    ) -> MixedBatches:
        """Return an endless iterator over batches as of `sample`; use it in a `with` block.

        With prefetch=n a thread keeps up to n batches ready. Here a batch counts when it is drawn,
        also one that is never returned: for a run that goes on bit for bit leave `prefetch` away.
        Updates of priorities take effect at most n batches later.

        >>> buffer = ReplayBuffer(capacity=10)
        >>> ids = buffer.extend([[0.0]] * 5, [0] * 5, [1.0] * 5, [[0.0]] * 5, [False] * 5)
        >>> with Mixture({"a": buffer}).batches(4, prefetch=2) as batches:
        ...     next(batches).states.shape
        (4, 1)

        prefetch:  the number of batches that are drawn ahead
        readers:   0: a mixture has no reader processes
        reuse:     whether the arrays of a batch are used again once the next batch is requested
        prepare:   a function whose result is returned instead of the batch, see ReplayBuffer
        frames:    accepted, as adapters ask for it: the batches of a mixture have whole arrays
        pad:       as of `sample`; not together with reuse
        n_step, gamma:  as of `sample`
        """
        n = whole_number("batch_size", batch_size, at_least=1, at_most=MAX_COUNT)
        ready = whole_number("prefetch", prefetch, at_least=0, at_most=MAX_COUNT)
        check_iteration(readers, reuse, prepare, frames, pad)
        options = sampling_options(out=None, pad=pad, n_step=n_step, gamma=gamma)
        with self._locked():
            return MixedBatches(self, n, ready, reuse=reuse, prepare=prepare, options=options)

    def draw(self, n: int) -> SourcedDraw:
        """Draw as `sample` does, and return write ids and sources instead of transitions.

        Returns `indices`, int64 (n,), `probabilities`, float64 (n,): share times P_k(i), and
        `sources`, int64 (n,). Counts as a draw, here and in the sources.
        """
        n = whole_number("n", n, at_least=1, at_most=MAX_COUNT)
        with self._locked():
            shares, counts = self._counts(n)
            ids, probabilities = [], []
            for k, (count, share) in enumerate(zip(counts, shares, strict=True)):
                if count:
                    drawn = self._sources.call(k, methodcaller("draw", count))
                    ids.append(drawn[0])
                    probabilities.append(drawn[1] * share)
            self._draws += 1
        return SourcedDraw(np.concatenate(ids), np.concatenate(probabilities), places_of(counts))

    def update_priorities(self, batch: Any, priorities: ArrayLike) -> int:
        """Set the priorities of the transitions of a batch, each in its own source.

        Those of uniform sources, and of sources that may only read, are ignored. Returns how many
        were applied. Raises PriorityError, and changes nothing, when any priority is negative, NaN
        or infinite.

        batch:       of this mixture, or anything with its `indices` and `sources`
        priorities:  float (n,), the absolute TD errors
        """
        if not hasattr(batch, "sources"):
            raise ArgumentError(
                "update_priorities takes a batch of this mixture, whose `sources` say where its "
                f"transitions are from (found {type(batch).__name__}): update others in their own "
                "buffers"
            )
        ids = whole_numbers("batch.indices", batch.indices)
        of = whole_numbers("batch.sources", batch.sources)
        if of.shape != ids.shape or not ((of >= 0) & (of < len(self._sources))).all():
            raise ArgumentError(
                f"batch.sources must be places in {self.names}, as many as batch.indices"
            )
        given = checked_priorities(priorities, ids.size)
        applied = 0
        with self._locked():
            for k in np.flatnonzero(self._sources.are_weighted).tolist():
                [rows] = np.nonzero(of == k)
                if rows.size:
                    update = methodcaller("update_priorities", ids[rows], given[rows])
                    with contextlib.suppress(ReadOnlyError):
                        applied += self._sources.call(k, update)
        return applied

    # Looking at it

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
            sizes = self._sources.sizes()
            if n == 0 or not any(sizes):
                return n == 0
            shares = np.array(self._shares.of(self._draws, sizes))
            most = np.ceil(shares * n - 1e-9 * n) if self._is_exact else n * (shares > 0)
            return bool((most <= sizes).all())

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
        return self._draws

    @property
    def schema(self) -> Schema | None:
        """The fields of a transition; None before any source has some."""
        with self._locked():
            self._sources.check_fields()
            return self._sources.schema

    def stats(self) -> dict[str, Any]:
        """Return a description of the mixture, as a plain dict.

        size, draws, exact, and for each source by name its share of the next batch (None while no
        source holds anything) and the `stats` of its buffer.
        """
        with self._locked():
            sizes = self._sources.sizes()
            shares = self._shares.of(self._draws, sizes) if any(sizes) else [None] * len(sizes)
            return {
                "size": sum(sizes),
                "draws": self._draws,
                "exact": self._is_exact,
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
        return f"Mixture({of}, draws={self._draws}{', closed' * self._closed})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the arguments of a mixture of readers, in another process."""
        self._check_open()
        replays = dict(zip(self.names, self._sources.replays, strict=True))
        return _unpickled, (replays, self._weights, self._is_exact, self._seed, self._draws)

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

    def _use_stream(self, seed: int | None) -> None:
        self._process = process()
        self._lock = threading.RLock()
        self._stream = RandomStream(new_seed(seed))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of an open mixture; in a forked child take another stream first."""
        if self._process is not process():
            self._use_stream(None)
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

    def _counts(self, n: int) -> tuple[list[float], list[int]]:
        """Return the shares, and how many transitions each source gives to the next batch."""
        self._sources.check_fields()
        sizes = self._sources.sizes()
        shares = self._shares.of(self._draws, sizes)
        of_batch = exact_counts if self._is_exact else mean_counts
        counts = of_batch(n, shares, self._stream.of_draw(self._draws))
        for name, size, count in zip(self.names, sizes, counts, strict=True):
            if count > size:
                raise SampleError(
                    f"source {name!r} holds {count_of(size, 'transition')} (expected at least the "
                    f"{count} that it gives to this batch of {n}): wait until is_ready({n}), or "
                    "give it the weight 0 meanwhile, with a function as weights="
                )
        return shares, counts


def _unpickled(
    replays: dict[str, Any], weights: Any, exact: bool, seed: int | None, draws: int
) -> Mixture:
    """Return the mixture of readers that a pickled one becomes, which closes them."""
    mixture = Mixture(replays, weights, exact=exact, seed=seed, draws=draws)
    mixture._sources.own_all()
    return mixture

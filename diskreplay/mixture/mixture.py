"""Mixture: batches from several buffers at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from operator import methodcaller
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diskreplay.aliases import PathLike
from diskreplay.buffer import PrioritizedSequenceBatch, SequenceBatch
from diskreplay.errors import ArgumentError, ReadOnlyError
from diskreplay.mixture.arguments import (
    check_iteration,
    checked_beta,
    sampling_options,
    sequence_options,
)
from diskreplay.mixture.assembly import Assembly, SourcedDraw, places_of
from diskreplay.mixture.base_mixture import BaseMixture
from diskreplay.mixture.mixed_batches import MixedBatches
from diskreplay.mixture.shares import WeightsLike
from diskreplay.protocols import Replay
from diskreplay.sampling import checked_priorities
from diskreplay.validation import MAX_COUNT, whole_number, whole_numbers


class Mixture(BaseMixture):
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
    uniform sources have P_k(i) = 1 / size_k. The shares are the user's, and are not undone. All
    weights of a batch have one beta: that of the first prioritized source that this process writes,
    since the annealing of a source that is only read stands still; where none is written, that of
    the first prioritized one. `stats()["beta"]` tells it, and `beta=` sets it.

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
        super().__init__(sources, weights, exact, seed, draws)
        self._assembly = Assembly(self._sources)

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

        beta:  the exponent of the weights of this batch, in [0, 1], instead of the annealed one
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
            if exponent is None:
                exponent = self._sources.beta()
            batch = self._assembly.sample(counts, exponent, out, options)
            self._split.draws += 1
        return batch

    def sample_sequences(
        self,
        n: int,
        length: int,
        *,
        pad: bool = True,
        across: bool = False,
        beta: float | None = None,
    ) -> Any:
        """Draw n sequences: of each source what its own `sample_sequences` draws, in one batch.

        Returns a SequenceBatch, or a PrioritizedSequenceBatch where a source is prioritized, with
        `sources`, int64 (n,), as its last element: a sequence is of one source. Shares, weights,
        those of the starts, and counts are as of `sample`. Raises SampleError, naming the source,
        also where too few of its starts begin a whole sequence; those before it have drawn then.

        >>> buffers = {"a": ReplayBuffer(capacity=10), "b": PrioritizedReplayBuffer(capacity=10)}
        >>> for buffer in buffers.values():
        ...     states = [[float(i)] for i in range(6)]
        ...     ids = buffer.extend(states[:5], [0] * 5, [1.0] * 5, states[1:], [False] * 5)
        >>> mixture = Mixture(buffers, {"a": 1, "b": 1})
        >>> batch = mixture.sample_sequences(4, 3, pad=False)
        >>> batch.states.shape, batch.sources.tolist()
        ((4, 3, 1), [0, 0, 1, 1])
        >>> priorities = sequence_priorities(batch.rewards - 0.5, batch.mask)
        >>> mixture.update_priorities(batch, priorities)
        2

        length, pad, across:  see ReplayBuffer.sample_sequences
        beta:                 as of `sample`
        """
        n = whole_number("n", n, at_least=1, at_most=MAX_COUNT)
        options = sequence_options(length=length, pad=pad, across=across)
        exponent = checked_beta(beta, are_weighted=any(self._sources.are_weighted))
        with self._locked():
            _, counts = self._counts(n)
            if exponent is None:
                exponent = self._sources.beta()
            batch = self._assembly.sample_sequences(counts, exponent, options)
            self._split.draws += 1
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
        Pushes and updates of priorities take effect at most n batches later; after `clear`, `load`
        or `rewind` of a source call this again, since batches drawn before are not dropped. Raises
        ArgumentError for a prefetch that would take more memory than the machine has.

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
            self._split.draws += 1
        return SourcedDraw(np.concatenate(ids), np.concatenate(probabilities), places_of(counts))

    def update_priorities(self, batch: Any, priorities: ArrayLike) -> int:
        """Set the priorities of the transitions of a batch, each in its own source.

        Those of uniform sources, and of sources that may only read, are ignored. Returns how many
        were applied. Raises PriorityError, and changes nothing, when any priority is negative, NaN
        or infinite.

        batch:       of this mixture, or anything with its `indices` and `sources`. Of sequences the
                     first transitions are meant, as those are drawn by priority
        priorities:  float (n,), the absolute TD errors
        """
        if not hasattr(batch, "sources"):
            raise ArgumentError(
                "update_priorities takes a batch of this mixture, whose `sources` say where its "
                f"transitions are from (found {type(batch).__name__}): update others in their own "
                "buffers"
            )
        ids = batch.indices
        if isinstance(batch, SequenceBatch | PrioritizedSequenceBatch):
            ids = ids[:, 0]
        ids = whole_numbers("batch.indices", ids)
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

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the arguments of a mixture of readers, in another process."""
        self._check_open()
        replays = dict(zip(self.names, self._sources.replays, strict=True))
        arguments = self._weights, self._split.is_exact, self._seed, self._split.draws
        return _unpickled, (replays, *arguments, self._sources.beta_place)

    def _counts(self, n: int) -> tuple[list[float], list[int]]:
        """Return the shares, and how many transitions each source gives to the next batch."""
        self._sources.check_fields()
        return self._split.counts(n, self._sources.sizes())


def _unpickled(
    replays: dict[str, Any],
    weights: Any,
    exact: bool,
    seed: int | None,
    draws: int,
    beta_place: int | None,
) -> Mixture:
    """Return the mixture of readers that a pickled one becomes, which closes them."""
    mixture = Mixture(replays, weights, exact=exact, seed=seed, draws=draws)
    mixture._sources.beta_place = beta_place
    mixture._sources.own_all()
    return mixture

"""PrioritizedReplayBuffer: a replay buffer on disk that draws by priority."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diskreplay.aliases import Floats, Ints, PathLike
from diskreplay.buffer.assembly import Options, open_or_create
from diskreplay.buffer.base_buffer import BaseBuffer
from diskreplay.buffer.batch import PrioritizedBatch, PrioritizedSequenceBatch
from diskreplay.buffer.batch_arrays import Weights
from diskreplay.buffer.batch_form import BatchForm, checked_n_step
from diskreplay.buffer.batch_values import checked_pad
from diskreplay.buffer.guard import Guard
from diskreplay.buffer.window_layout import DEFAULT_WINDOW_BYTES
from diskreplay.errors import ArgumentError
from diskreplay.sampling import (
    Distribution,
    Priorities,
    PrioritySettings,
    Values,
    checked_priorities,
    weights_of,
)
from diskreplay.schema import SchemaLike
from diskreplay.validation import real_number, whole_numbers


class PrioritizedReplayBuffer(BaseBuffer[PrioritizedBatch]):
    """A replay buffer on disk that draws a transition in proportion to its mass.

    P(i) = mass_i / total with mass = (priority + epsilon) ** alpha; batches are stratified and
    drawn with replacement. Source: Schaul et al., Prioritized Experience Replay, ICLR 2016.

    >>> buffer = PrioritizedReplayBuffer(capacity=1000, seed=42)
    >>> for i in range(100):
    ...     write_id = buffer.push([float(i)], 0, 1.0, [i + 1.0], False)
    >>> states, actions, rewards, next_states, dones, weights, indices = buffer.sample(32)
    >>> buffer.update_priorities(indices, np.abs(rewards) + 0.01)
    32

    alpha:         exponent of the masses, in [0, 1]: 0 draws uniformly, 1 in full proportion. For
                   more weight on large priorities give powers of them. May change on reopening
    beta_start, beta_end, beta_frames:
                   the exponent of the importance weights goes from beta_start to beta_end,
                   linearly, over beta_frames draws
    epsilon:       added to each priority, so that a transition of priority 0 is drawn, too; above
                   0, since a slot without a transition has the mass 0
    The other arguments are those of ReplayBuffer.
    """

    def __init__(
        self,
        capacity: int,
        alpha: float = 0.6,
        beta_start: float = 0.4,
        beta_end: float = 1.0,
        beta_frames: int = 100_000,
        epsilon: float = 1e-6,
        seed: int | None = None,
        *,
        path: PathLike | None = None,
        schema: SchemaLike | None = None,
        access: str = "exclusive",
        durability: str = "system",
        commit_interval: float = 1.0,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        on_damage: str = "raise",
        if_exists: str = "resume",
        observations: str | None = None,
        frame_axis: int | None = None,
        codec: str | None = None,
        keep_rows: int = 0,
        sampler: Distribution | None = None,
    ) -> None:
        options = Options(
            capacity=capacity,
            seed=seed,
            path=path,
            schema=schema,
            access=access,
            durability=durability,
            commit_interval=commit_interval,
            window_bytes=window_bytes,
            on_damage=on_damage,
            if_exists=if_exists,
            observations=observations,
            frame_axis=frame_axis,
            codec=codec,
            keep_rows=keep_rows,
            sampler=sampler,
        )
        priorities = PrioritySettings(alpha, beta_start, beta_end, beta_frames, epsilon)
        self._use_prioritized(open_or_create(options, priorities), options, priorities)

    def _use_prioritized(
        self, guard: Guard, options: Options, priorities: PrioritySettings
    ) -> None:
        self._use(guard, options)
        self._settings = priorities

    def sample(
        self,
        batch_size: int,
        beta: float | None = None,
        *,
        out: PrioritizedBatch | None = None,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> PrioritizedBatch:
        """Draw transitions in proportion to their masses, one from each of n equal shares.

        Returns a PrioritizedBatch: as ReplayBuffer.sample, then `weights`, float32 (n,), the
        importance weights divided by the largest of the batch, and `indices`, int64 (n,), the write
        ids for `update_priorities`. Advances the annealing of beta by one. Raises SampleError when
        the buffer holds fewer than `batch_size`, and DamageError for a damaged record.
        `batch.largest_weight`, an attribute, is the number that the weights were divided by.

        >>> buffer = PrioritizedReplayBuffer(capacity=10, seed=1)
        >>> buffer.push([0.0], 0, 1.0, [1.0], False, priority=2.0)
        0
        >>> batch = buffer.sample(1)
        >>> batch.weights.tolist(), batch.indices.tolist(), buffer.frame
        ([1.0], [0], 1)

        beta:  the exponent of the weights of this batch, in [0, 1], instead of the annealed one
        out:   an earlier batch of the same size to write into, see ReplayBuffer.sample
        pad:   whether arrays with lengths that vary come as one array, see ReplayBuffer.sample
        n_step, gamma:  n-step returns, see ReplayBuffer.sample; weights and indices are those of
                        the first transition of each
        """
        if beta is not None:
            why = ": give an earlier batch as out=" if isinstance(beta, tuple) else ""
            beta = real_number("beta", beta, low=0.0, high=1.0, why=why)
        n_steps = checked_n_step(n_step, gamma, self.capacity)
        form = BatchForm(pad=checked_pad(pad, out=out), n_step=n_steps)
        draw = partial(self._new_batch, batch_size, form, beta=beta, out=out)
        with self._guard.reading() as snapshot:
            return self._counted(draw, snapshot)

    def sample_sequences(
        self,
        n: int,
        length: int,
        *,
        pad: bool = True,
        across: bool = False,
        beta: float | None = None,
    ) -> PrioritizedSequenceBatch:
        """Draw n sequences whose starts are drawn by priority, see ReplayBuffer.sample_sequences.

        Returns a PrioritizedSequenceBatch: a SequenceBatch with `weights`, float32 (n,), those of
        the starts, before `mask`. Advances the annealing of beta by one.

        >>> buffer = PrioritizedReplayBuffer(capacity=100, seed=1)
        >>> for i in range(7):
        ...     write_id = buffer.push([float(i)], 0, 1.0, [i + 1.0], done=i == 3)
        >>> batch = buffer.sample_sequences(2, 3)
        >>> td_errors = batch.rewards - batch.states[:, :, 0]
        >>> priorities = sequence_priorities(td_errors, batch.mask)
        >>> buffer.update_priorities(batch.indices[:, 0], priorities)
        2

        beta:  the exponent of the weights of this batch, in [0, 1], instead of the annealed one
        """
        if beta is not None:
            beta = real_number("beta", beta, low=0.0, high=1.0)
        drawn = self._sample_sequences(n, length, pad=pad, across=across, beta=beta)
        found: PrioritizedSequenceBatch = drawn
        return found

    _is_weighted = True

    def _weights(self, probabilities: Floats, number: int, beta: float | None) -> Weights:
        """Return the importance weights of a draw."""
        return weights_of(probabilities, self._live.size, self._beta_of(number, beta))

    def _largest_weight(self, probabilities: Floats, number: int, beta: float | None) -> float:
        least = self._live.size * float(np.minimum.reduce(probabilities))
        return float(least ** -self._beta_of(number, beta))

    def _beta_of(self, number: int, beta: float | None) -> float:
        """Return the exponent of the weights of a draw, the annealed one for None."""
        if beta is None:
            beta = self._settings.beta(self._guard.replica.frame_of(number))
        return beta

    def _checked_priorities(self, priorities: ArrayLike, n: int) -> Values:
        return checked_priorities(priorities, n)

    def update_priorities(self, indices: ArrayLike, priorities: ArrayLike) -> int:
        """Set the priorities of transitions by write id, and return how many were applied.

        Write ids that are not live are ignored and counted (`stale_updates` in `stats`): evicted
        ones, and those that were never given, as after a `rewind` or in a padded sequence. The last
        of duplicates wins. Cost: O(n log capacity), vectorised. Raises PriorityError, and
        changes nothing, when any priority is negative, NaN or infinite.

        >>> buffer = PrioritizedReplayBuffer(capacity=10)
        >>> buffer.push([0.0], 0, 1.0, [1.0], False)
        0
        >>> buffer.update_priorities([0, 7], [2.5, 1.0])  # 7 is not live
        1

        indices:     int64 (n,), write ids as `sample` returned them
        priorities:  float (n,), the absolute TD errors, before the exponent alpha
        """
        write_ids = checked_write_ids(indices)
        # Before the lock is taken: a tensor on a device is waited for here, and others draw.
        checked = checked_priorities(priorities, write_ids.size)
        with self._guard.reading():
            writer = self._guard.writer()
            self._guard.make_room(0)
            self._guard.begin_change()
            applied = writer.update(write_ids, checked)
            self._guard.end_change()
            return applied

    def priorities(self, indices: ArrayLike) -> NDArray[np.float32]:
        """Return the raw priorities of transitions by write id, float32 of the shape of `indices`.

        Raises NotLiveError, naming the first, when a write id was evicted, cleared or never given.

        >>> buffer = PrioritizedReplayBuffer(capacity=10)
        >>> buffer.push([0.0], 0, 1.0, [1.0], False, priority=2.5)
        0
        >>> buffer.priorities([0])
        array([2.5], dtype=float32)
        """
        ids = whole_numbers("indices", indices, any_shape=True)
        with self._guard.reading():
            self._check_live(ids)
            found = self._table.of(ids.reshape(-1), self._live)
        return found if ids.ndim == 1 else found.reshape(ids.shape)

    @property
    def beta(self) -> float:
        """The exponent of the importance weights in the next batch."""
        return self._settings.beta(self.frame)

    @property
    def frame(self) -> int:
        """The number of batches given so far, over all runs."""
        with self._guard.reading():
            return self._guard.replica.frame

    @property
    def max_priority(self) -> float:
        """The largest priority so far, given to new transitions; 1.0 before the first priority."""
        with self._guard.reading():
            return self._table.default

    @property
    def _table(self) -> Priorities:
        table = self._guard.replica.priorities
        if table is None:
            raise TypeError("the replica of a prioritized buffer has no priorities")
        return table

    def _priority_stats(self) -> dict[str, Any]:
        priorities = self._table.live_values(self._live)
        found = priorities.size > 0
        frame = self._guard.replica.frame
        return {
            "priority_min": float(priorities.min()) if found else None,
            "priority_mean": float(priorities.mean(dtype=np.float64)) if found else None,
            "priority_max": float(priorities.max()) if found else None,
            "max_priority": self._table.default,
            **self._settings.to_plain(),
            "beta": self._settings.beta(frame),
            "frame": frame,
        }


def checked_write_ids(indices: ArrayLike) -> Ints:
    """Return write ids, int64 (n,), or raise ArgumentError, also for a batch in their place."""
    if type(indices) is not np.ndarray or indices.ndim != 1:
        _check_indices(indices)
    return whole_numbers("indices", indices)


def _check_indices(indices: Any) -> None:
    """Raise ArgumentError for a batch, or the write ids of sequences, in the place of indices."""
    if isinstance(indices, PrioritizedSequenceBatch):
        found, way_out = "a batch of sequences", "batch.indices[:, 0]"
    elif isinstance(indices, PrioritizedBatch):
        found, way_out = "a batch", "batch.indices"
    elif getattr(indices, "ndim", 1) == 2:
        found, way_out = f"shape {tuple(indices.shape)}", "batch.indices[:, 0] of sequences"
    else:
        return
    raise ArgumentError(
        f"indices must be the write ids of n transitions, of shape (n,) (found {found}): give "
        f"{way_out}, with a priority for each"
    )

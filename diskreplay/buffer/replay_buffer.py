"""ReplayBuffer, PrioritizedReplayBuffer, and `open` for a store of either kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diskreplay.buffer.base import BaseBuffer
from diskreplay.buffer.batch import Batch, PrioritizedBatch, batch_of, with_extra
from diskreplay.buffer.session import PathLike
from diskreplay.buffer.window import DEFAULT_WINDOW_BYTES
from diskreplay.errors import ArgumentError, DamageError
from diskreplay.sampling import (
    PrioritizedSampler,
    UniformSampler,
    checked_priorities,
    new_generator,
    weights_of,
)
from diskreplay.schema import SchemaLike
from diskreplay.store import Snapshot, Store, identity_of, ours, settings_of
from diskreplay.validation import checked_path, real_number, whole_number, whole_numbers


class ReplayBuffer(BaseBuffer[UniformSampler, Batch]):
    """An experience-replay buffer on disk, with uniform draws.

    On a path that holds a store it goes on from that store's last commit; a capacity, kind or
    schema that disagrees raises MismatchError. Everything but `capacity` may be left out.

    >>> buffer = ReplayBuffer(capacity=1000, seed=42)
    >>> for i in range(100):
    ...     write_id = buffer.push(state=[float(i)], action=0, reward=1.0,
    ...                            next_state=[i + 1.0], done=False)
    >>> states, actions, rewards, next_states, dones = buffer.sample(32)
    >>> states.shape, actions.dtype, len(buffer)
    ((32, 1), dtype('int64'), 100)

    capacity:         transitions kept; the oldest go when it is full
    seed:             of a new store's random stream; an existing store goes on with its own
    path:             the directory of the store; None is a temporary one, removed on close
    schema:           a Schema, or fields by name: {"state": ("float32", (60,)), "action": "int64"};
                      what it leaves out is inferred from the first push
    access:           "exclusive" writes, alone; "shared" writes together with other processes of
                      this machine; "read" follows what is committed, also beside writers. The
                      last two have a random stream of their own, from `seed`
    durability:       what power loss can do: "system" undoes the last commit at most, "full"
                      nothing, "process" can damage the store (a killed process loses no commit
                      under any of them)
    commit_interval:  seconds after which a push is committed at the latest; 0 commits in each call
    window_bytes:     memory for rows that need no reading from disk, in bytes
    on_damage:        what `sample` does about a damaged record: "raise" DamageError, or "skip" it:
                      draw again, never that one, and count it in `stats()["damaged"]`
    if_exists:        what to do where there is a store: "resume" goes on with it and logs a line;
                      "fail" raises MismatchError, so that of several processes exactly one makes
                      the store; "replace" puts a new empty one in its place, in one step, which
                      need not have the same capacity, kind or fields, and raises LockedError while
                      anyone, this process too, has the old one open. What is no store is never
                      touched
    """

    def __init__(
        self,
        capacity: int,
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
    ) -> None:
        super().__init__(
            "uniform",
            UniformSampler(),
            capacity,
            seed,
            path=path,
            schema=schema,
            access=access,
            durability=durability,
            commit_interval=commit_interval,
            window_bytes=window_bytes,
            on_damage=on_damage,
            if_exists=if_exists,
            settings={},
        )

    def sample(self, batch_size: int) -> Batch:
        """Draw transitions with equal probability, without duplicates in the batch.

        Returns a Batch of fresh arrays whose first dimension is `batch_size`: states, actions,
        rewards, next_states and dones (float32, 0.0 or 1.0) by default. Raises SampleError when the
        buffer holds fewer, and DamageError, naming write id and slot, for a damaged record.
        """
        return super().sample(batch_size)

    def _new_batch(self, batch_size: int, view: Snapshot | None) -> Batch:
        write_ids, _, columns = self._draw(batch_size, view)
        return batch_of(columns, self._extra_names, write_ids)


class PrioritizedReplayBuffer(BaseBuffer[PrioritizedSampler, PrioritizedBatch]):
    """A replay buffer on disk that draws a transition in proportion to its mass.

    P(i) = mass_i / total with mass = (priority + epsilon) ** alpha; batches are stratified and
    drawn with replacement. Source: Schaul et al., Prioritized Experience Replay, ICLR 2016.

    >>> buffer = PrioritizedReplayBuffer(capacity=1000, seed=42)
    >>> for i in range(100):
    ...     write_id = buffer.push([float(i)], 0, 1.0, [i + 1.0], False)
    >>> states, actions, rewards, next_states, dones, weights, indices = buffer.sample(32)
    >>> buffer.update_priorities(indices, np.abs(rewards) + 0.01)
    32

    alpha:         0 draws uniformly, 1 in full proportion, as far as the paper goes; to draw the
                   largest more often than that, give powers of priorities; may change on reopening
    beta_start, beta_end, beta_frames:
                   the exponent of the importance weights goes from start to end, linearly, over
                   this many calls of `sample`
    epsilon:       added to each priority, so that one of 0 is drawn, too; above 0, since a mass of
                   0 is that of a slot without a transition
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
    ) -> None:
        sampler = PrioritizedSampler(
            capacity,
            alpha=alpha,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_frames=beta_frames,
            epsilon=epsilon,
        )
        super().__init__(
            "prioritized",
            sampler,
            capacity,
            seed,
            path=path,
            schema=schema,
            access=access,
            durability=durability,
            commit_interval=commit_interval,
            window_bytes=window_bytes,
            on_damage=on_damage,
            if_exists=if_exists,
            settings=sampler.settings(),
        )

    def sample(self, batch_size: int, beta: float | None = None) -> PrioritizedBatch:
        """Draw transitions in proportion to their masses, one from each equal share of the total.

        Returns a PrioritizedBatch: as ReplayBuffer.sample, then `weights`, float32 (n,), the
        importance weights divided by the largest of the batch, and `indices`, int64 (n,), the write
        ids for `update_priorities`. Advances the annealing of beta by one. Raises SampleError when
        the buffer holds fewer than `batch_size`, and DamageError for a damaged record.

        beta:  the exponent of the weights of this batch, in [0, 1], instead of the annealed one
        """
        if beta is not None:
            beta = real_number("beta", beta, low=0.0, high=1.0)
        with self._view() as view:
            batch = self._new_batch(batch_size, view, beta)
            self._settle()
            return batch

    def _new_batch(
        self, batch_size: int, view: Snapshot | None, beta: float | None = None
    ) -> PrioritizedBatch:
        if beta is None:
            beta = self._sampler.beta
        write_ids, probabilities, columns = self._draw(batch_size, view)
        weights = weights_of(probabilities, self._ring.size, beta)
        kind = with_extra(PrioritizedBatch, self._extra_names)
        return kind._make((*columns[:5], weights, write_ids, *columns[5:]))

    def update_priorities(self, indices: ArrayLike, priorities: ArrayLike) -> int:
        """Set the priorities of transitions by write id, and return how many were applied.

        Write ids that are no longer live are ignored and counted (`stale_updates` in `stats`); the
        last of duplicates wins. Cost: O(n log capacity), vectorised. Raises PriorityError, and
        changes nothing, when any priority is negative, NaN or infinite.

        indices:     int64 (n,), write ids as `sample` returned them
        priorities:  float (n,), the absolute TD errors, before the exponent alpha
        """
        write_ids = whole_numbers("indices", indices)
        with self._view():
            contents = self._writable()
            given = checked_priorities(priorities, write_ids.size)
            self._make_room(0)
            self._touch()
            applied = contents.update(write_ids, given)
            self._settle()
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
        with self._view():
            self._check_live(ids)
            found = self._sampler.priorities(ids.reshape(-1), self._ring.first, self._ring.count)
        return found if ids.ndim == 1 else found.reshape(ids.shape)

    @property
    def beta(self) -> float:
        """The exponent of the importance weights in the next batch."""
        with self._view():
            return self._annealing[1]

    @property
    def frame(self) -> int:
        """The number of batches given so far, over all runs; shared ones count those ahead."""
        with self._view():
            return self._annealing[0]

    @property
    def max_priority(self) -> float:
        """The largest priority so far, which new transitions get; 1.0 before there was any."""
        with self._view():
            return self._sampler.max_priority

    @property
    def _annealing(self) -> tuple[int, float]:
        """The frame and the beta of the next batch that anyone is given."""
        drawn, sampler = self._contents.next_draw, self._sampler
        return (sampler.frame, sampler.beta) if drawn is None else (drawn.frame, drawn.beta)

    def _more_stats(self) -> dict[str, Any]:
        sampler = self._sampler
        priorities = sampler.live_priorities(self._ring.first, self._ring.count)
        found = priorities.size > 0
        frame, beta = self._annealing
        return {
            "priority_min": float(priorities.min()) if found else None,
            "priority_mean": float(priorities.mean(dtype=np.float64)) if found else None,
            "priority_max": float(priorities.max()) if found else None,
            "max_priority": sampler.max_priority,
            **sampler.settings(),
            "beta": beta,
            "frame": frame,
        }


@ours
def open(
    path: PathLike, *, seed: int | None = None, **overrides: Any
) -> ReplayBuffer | PrioritizedReplayBuffer:
    """Open an existing store, with the kind, capacity, schema and settings that it has.

    Raises NotAStoreError where there is none: unlike the constructors it never makes one.

    >>> ReplayBuffer(capacity=10, path="runs/a").close()
    >>> open("runs/a").capacity
    10

    seed:       starts a new random stream; None goes on with the stored one
    overrides:  arguments of the constructor that may change from run to run: access, durability,
                commit_interval, window_bytes, on_damage, and alpha, beta_start, beta_end,
                beta_frames, epsilon
    """
    if fixed := overrides.keys() & {"capacity", "path", "schema"}:
        raise ArgumentError(f"{min(fixed)} is the store's own: use a constructor to check it")
    if seed is not None:
        seed = whole_number("seed", seed, at_least=0)
    store = Store(checked_path(path))
    try:
        with store.snapshot() as snapshot:
            state = snapshot.meta("state")
    finally:
        store.close(sync=False)
    identity = identity_of(store.identity)
    kind = PrioritizedReplayBuffer if identity.kind == "prioritized" else ReplayBuffer
    try:
        settings = settings_of(
            state.get("settings") if isinstance(state, dict) else None, identity.kind
        )
    except DamageError as error:
        raise DamageError(f"{path} does not say how its buffer was set: {error}") from None
    if unknown := overrides.keys() - {*settings, "access", "window_bytes", "on_damage"}:
        raise ArgumentError(
            f"{min(unknown)!r} is no setting of a {identity.kind} buffer: "
            f"expected some of access, window_bytes, on_damage, {', '.join(settings)}"
        )
    buffer = kind(identity.capacity, path=path, **{"seed": seed, **settings, **overrides})
    if seed is not None and overrides.get("access", "exclusive") == "exclusive":
        buffer._touch()
        buffer._contents.generator = new_generator(seed)
    return buffer

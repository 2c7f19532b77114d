"""ReplayBuffer: a replay buffer on disk, with uniform draws."""

from __future__ import annotations

from numpy.typing import ArrayLike

from diskreplay.aliases import PathLike
from diskreplay.buffer.assembly import Options, opened
from diskreplay.buffer.base_buffer import BaseBuffer
from diskreplay.buffer.batch import Batch, batch_of
from diskreplay.buffer.window import DEFAULT_WINDOW_BYTES
from diskreplay.errors import PriorityError
from diskreplay.sampling import Values
from diskreplay.schema import SchemaLike
from diskreplay.store import Snapshot


class ReplayBuffer(BaseBuffer[Batch]):
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
        )
        self._begin(opened(options, None), options)

    def sample(self, batch_size: int) -> Batch:
        """Draw transitions with equal probability, without duplicates in the batch.

        Returns a Batch of fresh arrays whose first dimension is `batch_size`: states, actions,
        rewards, next_states and dones (float32, 0.0 or 1.0) by default. Raises SampleError when the
        buffer holds fewer, and DamageError, naming write id and slot, for a damaged record.
        """
        return super().sample(batch_size)

    def _new_batch(self, batch_size: int, number: int, snapshot: Snapshot | None) -> Batch:
        write_ids, _, columns = self._draw(batch_size, number, snapshot)
        return batch_of(columns, self._extra_names, write_ids)

    def _checked_priorities(self, priorities: ArrayLike, n: int) -> Values:
        raise PriorityError(
            "a ReplayBuffer draws uniformly and keeps no priorities: leave them out, or use a "
            "PrioritizedReplayBuffer"
        )

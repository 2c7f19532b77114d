"""ReplayBuffer: a replay buffer on disk, with uniform draws."""

from __future__ import annotations

from numpy.typing import ArrayLike

from diskreplay.aliases import PathLike
from diskreplay.buffer.assembly import Options, open_or_create
from diskreplay.buffer.base_buffer import BaseBuffer
from diskreplay.buffer.batch import Batch, SequenceBatch
from diskreplay.buffer.row_arguments import refused_priorities
from diskreplay.buffer.window_layout import DEFAULT_WINDOW_BYTES
from diskreplay.sampling import Distribution, Values
from diskreplay.schema import SchemaLike


class ReplayBuffer(BaseBuffer[Batch]):
    """An experience-replay buffer on disk, with uniform draws.

    On a path that holds a store the buffer goes on from the last commit of that store; a different
    capacity, kind or schema raises MismatchError. Only `capacity` is required.

    >>> buffer = ReplayBuffer(capacity=1000, seed=42)
    >>> for i in range(100):
    ...     write_id = buffer.push(state=[float(i)], action=0, reward=1.0,
    ...                            next_state=[i + 1.0], done=False)
    >>> states, actions, rewards, next_states, dones = buffer.sample(32)
    >>> states.shape, actions.dtype, len(buffer)
    ((32, 1), dtype('int64'), 100)

    capacity:         number of transitions kept; in a full buffer a new one evicts the oldest
    seed:             seed of a new store's random stream; an existing store keeps its own
    path:             directory of the store; None makes a temporary one, removed on close
    schema:           a Schema, or fields by name: {"state": ("float32", (60,)), "action": "int64"};
                      of nested fields nested dictionaries; missing fields and parts are inferred
                      from the first push
    access:           "exclusive" writes, alone; "shared" writes together with other processes of
                      this machine; "read" reads the commits of others, also beside writers. The
                      last two have a random stream of their own, from `seed`
    durability:       the most that a power loss can do: with "system" undo the last commit, with
                      "full" nothing, with "process" damage the store (a killed process loses no
                      commit with any of them)
    commit_interval:  seconds after which a push is committed at the latest; 0 commits in each call
    window_bytes:     memory for rows that need not be read from disk, in bytes
    on_damage:        the reaction of `sample` to a damaged record: "raise" DamageError, or "skip"
                      the record: draw again without it, and count it in `stats()["damaged"]`
    if_exists:        the reaction to an existing store: "resume" goes on with it and logs a line;
                      "fail" raises MismatchError, so that of several processes exactly one makes
                      the store; "replace" puts a new empty store in its place, in one step, which
                      need not have the same capacity, kind or fields, and raises LockedError while
                      any process, this one too, has the old store open. A path that holds no store
                      is never changed
    observations:     "log" keeps states and next states in the observation log, each one once: for
                      images, and whatever repeats; "record" keeps them in the record of each
                      transition. Batches are the same. None means "record" for a new store, and an
                      existing one's own; another one than that raises MismatchError. Single fields
                      say it in `schema`: Field("state", ..., log=True)
    frame_axis:       in the log: the axis along which a state is a stack of frames, each of which
                      is kept once: 0 for (4, 84, 84). It implies observations="log"
    codec:            in the log: the compression, "lz4" or "zstd" (each an extra); lossless. It
                      implies observations="log"
    keep_rows:        number of evicted transitions that stay on the disk, and are not live: so
                      many pushes after a mark, `rewind` still goes back to it exactly. An existing
                      store must have the same; diskreplay.resize() changes it
    sampler:          one of diskreplay.samplers, which draws in place of the usual distribution;
                      not stored, so each opening chooses it anew. None is the usual one
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
        self._use(open_or_create(options, None), options)

    def sample(
        self,
        batch_size: int,
        *,
        out: Batch | None = None,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> Batch:
        """Draw transitions with equal probability, without duplicates in the batch.

        Returns a Batch of fresh arrays whose first dimension is `batch_size`: states, actions,
        rewards, next_states and dones (float32, 0.0 or 1.0) by default. Raises SampleError when the
        buffer holds fewer, and DamageError, naming write id and slot, for a damaged record.

        >>> buffer = ReplayBuffer(capacity=10, seed=1)
        >>> ids = buffer.extend([[0.0]] * 8, [0] * 8, range(8), [[0.0]] * 8, [False] * 8)
        >>> batch = buffer.sample(3)
        >>> batch.states.shape, sorted(batch.rewards) == sorted(batch.indices)
        ((3, 1), True)
        >>> buffer.sample(3, out=batch) is batch
        True

        out:  an earlier batch of the same size, whose arrays the new batch is written into, and
              which is returned: large batches spare the time for fresh memory. Raises
              ArgumentError, naming the array, if one is not as `sample` has made it; after another
              error their contents are arbitrary
        pad:  whether arrays with lengths that vary come as one array, (n, longest, ...), filled
              with zeros, instead of as a list; further elements of the batch are the masks that
              are true where values are: of `tokens` bool (n, longest) as `tokens_mask`, of states
              `states_mask`. Texts and bytes are lists all the same
        n_step, gamma:
              n-step returns: `rewards` are sums of up to n_step rewards of an episode, discounted
              by gamma in [0, 1]; next_states, dones and an extra field `truncated` are those of the
              last of these transitions, all else of the first. `discounts`, float32 (batch_size,),
              is one more element at the end: gamma ** m for m rewards. There are fewer than n_step
              at the end of an episode, where it was truncated, and at the newest transition. The
              target is rewards + discounts * (1 - dones) * Q(next_states). The draw is the same as
              with n_step=1
        """
        return super().sample(batch_size, out=out, pad=pad, n_step=n_step, gamma=gamma)

    def sample_sequences(
        self, n: int, length: int, *, pad: bool = True, across: bool = False
    ) -> SequenceBatch:
        """Draw n sequences of up to `length` transitions that follow each other in an episode.

        The starts are drawn as `sample` draws, and count as one draw. Returns a SequenceBatch:
        arrays (n, length, ...) of the five fields; `mask`, bool (n, length), false after the end of
        a sequence, where the arrays have zeros; `firsts`, bool, true for the first transition of an
        episode; `indices`, the write ids, -1 where the mask is false; then the extra fields. Of
        values that vary in size the elements are lists of lists. Raises SampleError as `sample`
        does, and where too few starts begin a whole sequence. Cost: O(n * length), at any size.

        >>> buffer = ReplayBuffer(capacity=100, seed=1)
        >>> for i in range(7):
        ...     write_id = buffer.push([float(i)], 0, 1.0, [i + 1.0], done=i == 3)
        >>> batch = buffer.sample_sequences(2, 3)
        >>> batch.states.shape, batch.mask.shape
        ((2, 3, 1), (2, 3))

        pad:     whether sequences may end earlier, with their episode or at the newest transition;
                 otherwise starts are drawn until n of them begin a whole sequence
        across:  whether a sequence goes on into the next episode of the same env: for agents that
                 reset their memory where `firsts` is true
        """
        found: SequenceBatch = self._sample_sequences(n, length, pad=pad, across=across)
        return found

    def _checked_priorities(self, priorities: ArrayLike, n: int) -> Values:
        raise refused_priorities()

"""WritingBuffer: the methods of both kinds of buffers that write."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, Generic

import numpy as np
from numpy.typing import ArrayLike

from diskreplay.aliases import Columns, Ints
from diskreplay.buffer.assembly import Options, check_disk_room
from diskreplay.buffer.batches import BatchT
from diskreplay.buffer.guard import Guard
from diskreplay.buffer.marked_buffer import MarkedBuffer
from diskreplay.buffer.named_data import sealed_notes
from diskreplay.buffer.row_arguments import (
    by_name,
    extra_of,
    extras_of,
    refuse_plurals,
    refuse_singulars,
)
from diskreplay.episodes import (
    LinkValues,
    checked_env,
    checked_envs,
    checked_truncated,
    checked_truncateds,
)
from diskreplay.errors import SchemaError
from diskreplay.sampling import Values
from diskreplay.schema import Schema, only_row
from diskreplay.store import raising_own_errors


class WritingBuffer(MarkedBuffer[BatchT], Generic[BatchT]):
    """An open buffer: the methods that draw and mark, and those that write."""

    def _use(self, guard: Guard, options: Options) -> None:
        self._guard, self._options = guard, options
        self._adopted_schema: Schema | None = None  # of the last push
        # A reader writes nothing; for a store with a schema the room was checked on opening.
        self._disk_was_checked = options.access == "read" or guard.replica.rows.schema is not None

    # Writing

    def push(
        self,
        state: Any,
        action: Any,
        reward: Any,
        next_state: Any,
        done: Any,
        priority: float | None = None,
        *,
        truncated: bool | None = None,
        env: int | None = None,
        with_notes: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> int:
        """Add one transition and return its write id; a full buffer evicts its oldest.

        The first transition fixes the schema, unless it was given. Rewards and dones are single
        numbers; a step of a vector environment is several transitions, for `extend`. States,
        actions and extra fields may be nested dictionaries and tuples of arrays. Rewards must be
        finite and `done` true or false; states, actions and extra fields are stored bit for
        bit, NaN and infinity included, since sensors use them for "no reading". With
        access="shared" the commit gives the write id, and -1 is returned. Cost: O(1), and now and
        then a commit.

        Raises SchemaError for values that do not fit the schema, PriorityError for a priority that
        is negative, NaN or infinite (or any, in a ReplayBuffer), ReadOnlyError, and StorageError
        when a commit is needed first and the disk refuses. A refused call changes nothing.

        >>> buffer = ReplayBuffer(capacity=1000)
        >>> buffer.push(state=[0.1, 0.2], action=1, reward=1.0, next_state=[0.3, 0.4], done=False)
        0

        priority:   the raw priority, in a prioritized buffer; None means the largest so far
        truncated:  whether the episode ends here though it is not done, as at a limit of steps:
                    next_state is then the true last one. Where the first push gives it, it is a
                    field, too, of the type of `done`, and False where it is not given later
        env:        the number of the environment, from 0 on, where several push in turns. Without
                    it a transition whose state is not the next_state of the one before, bit for
                    bit, begins an episode; the first time that cuts an open one, EpisodeWarning
                    tells of it
        with_notes: data of notes by name, as of `set_note`, that are stored by the commit of this
                    transition and by none before
        extra:      further fields by name, the same in every push
        """
        sealed = {} if with_notes is None else sealed_notes(with_notes)
        ends = truncated is not None and checked_truncated(truncated)
        if env is not None:
            env = checked_env(env)
        standard = (state, action, reward, next_state, done)
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            writer = guard.writer()
            schema = writer.rows.schema
            if extra:
                refuse_plurals(extra, writer.rows.expected.fields if schema is None else schema)
            if schema is None:
                given = extra if truncated is None else {**extra, "truncated": ends}
                schema = writer.schema_for(by_name(standard, given), lead=0)
            row = schema.accept_row(
                standard, extra_of(schema, extra, ends, env) if schema.extra_names else extra
            )
            checked = None if priority is None else self._checked_priorities([priority], 1)
            packed_bytes = schema.packed_bytes(row) if schema.varying else 0
            if guard.commit_failed or not writer.has_room(1, packed_bytes):  # as make_room
                guard.commit()
            if schema is not self._adopted_schema:
                adopted = self._adopt(schema)
                if adopted is not schema:  # another process was first
                    schema = adopted
                    row = schema.accept_row(standard, extra_of(schema, extra, ends, env))
            prepared, link = writer.linked(schema, row, ends, env)
            if sealed or (packed_bytes and not writer.fits(1, packed_bytes)):
                columns, links = schema.columns_of(row), np.array([link], np.int32)
                [only] = self._add(columns, checked, links, packed_bytes, sealed).tolist()
                return int(only)
            guard.begin_change()
            write_id = writer.push(prepared, checked, link)
            guard.end_change()
        return write_id

    def extend(
        self,
        states: Any,
        actions: Any,
        rewards: ArrayLike,
        next_states: Any,
        dones: ArrayLike,
        priorities: ArrayLike | None = None,
        *,
        truncateds: ArrayLike | None = None,
        env: int | ArrayLike | None = None,
        with_notes: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> Ints:
        """Add n transitions, all or none, and return their write ids, int64 (n,), or -1 as `push`.

        The first dimension of each argument is n, of a nested one that of each array in it;
        otherwise as `push`. Cost: O(n), vectorised.
        Transitions that need more memory than the window are committed at once, in one
        transaction, so that after a kill all of them are there or none.

        >>> buffer = ReplayBuffer(capacity=1000)
        >>> buffer.extend([[0.0], [1.0]], [0, 1], [1.0, 1.0], [[1.0], [2.0]], [False, True])
        array([0, 1])

        truncateds:  bool (n,), as `truncated` of `push`
        env:         int (n,), the number of the environment of each, or one number for all; see
                     `push`. In an env the transitions follow each other in their order here. With
                     one number for all, EpisodeWarning tells once where none does: a step of four
                     environments has env=[0, 1, 2, 3], not env=4
        with_notes:  data of notes by name, as of `set_note`, that are stored by the commit of these
                     transitions and by none before
        """
        refuse_singulars(extra)
        standard: tuple[Any, ...] = (states, actions, rewards, next_states, dones)
        known = self._adopted_schema
        if (
            known is not None
            and known.is_flat
            and not extra
            and truncateds is None
            and with_notes is None
            and (env is None or isinstance(env, int))
        ):
            row = only_row(standard if priorities is None else (*standard, priorities))
            if row:  # checking single values costs less than checking columns
                try:  # WritingBuffer.push, since the push of a subclass may call extend
                    return np.array([WritingBuffer.push(self, *row, env=env)])
                except SchemaError:
                    pass  # the check below raises again, with a message about columns
        sealed = {} if with_notes is None else sealed_notes(with_notes)
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            writer = guard.writer()
            schema = writer.rows.schema
            if schema is None:
                given = extra if truncateds is None else {**extra, "truncated": truncateds}
                schema = writer.schema_for(by_name(standard, given), lead=1)
            all_extra = extras_of(schema, extra, truncateds, env, dones)
            columns = schema.accept_columns(standard, all_extra)
            n = len(columns[0])
            ends = None if truncateds is None else checked_truncateds(truncateds, n)
            envs = checked_envs(env, n)
            checked = None if priorities is None else self._checked_priorities(priorities, n)
            if n == 0:
                if sealed:
                    self._change_notes(writer, sealed)
                return np.zeros(0, np.int64)
            if not self._disk_was_checked:
                self._check_disk_room(schema)
            packed_bytes = int(schema.packed_sizes(columns).sum()) if schema.varying else 0
            guard.make_room(n, packed_bytes)
            if schema is not self._adopted_schema:
                adopted = self._adopt(schema)
                if adopted is not schema:  # another process was first
                    schema = adopted
                    all_extra = extras_of(schema, extra, truncateds, env, dones)
                    columns = schema.accept_columns(standard, all_extra)
            links = writer.links_of(schema, columns, ends, envs)
            return self._add(columns, checked, links, packed_bytes, sealed)

    def end_episode(self, env: int | None = None) -> None:
        """End the episode of an env, or of the transitions without `env=`.

        The next transition of it begins another one; what is stored does not change. Before the
        first transition of this run it does nothing. Afterwards it raises ArgumentError for an env
        of which none was pushed in this run: the transitions may have come with another `env=`.

        >>> buffer = ReplayBuffer(capacity=10)
        >>> buffer.push([0.0], 0, 1.0, [1.0], False)
        0
        >>> buffer.end_episode()
        >>> buffer.push([5.0], 0, 1.0, [6.0], False), buffer.stats()["cuts"]
        (1, 0)
        """
        if env is not None:
            env = checked_env(env)
        self._guard.refuse_nesting()
        with self._guard.lock:
            self._guard.writer().end_episode(env)

    def clear(self) -> None:
        """Remove all transitions. The schema stays, and so does the annealing; write ids count on.

        The largest priority starts anew. Later transitions use the disk space again.

        >>> buffer = ReplayBuffer(capacity=10)
        >>> buffer.push([0.0], 0, 1.0, [1.0], False)
        0
        >>> buffer.clear()
        >>> len(buffer), buffer.push([0.0], 0, 1.0, [1.0], False)
        (0, 1)
        """
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            writer = guard.writer()
            guard.make_room(0)
            writer.store.check_place()
            guard.begin_change()
            writer.clear()
            guard.end_change()

    def flush(self) -> None:
        """Commit everything now. Raises StorageError when the disk refuses; the rows are kept.

        >>> buffer = ReplayBuffer(capacity=10)
        >>> buffer.push([0.0], 0, 1.0, [1.0], False)
        0
        >>> buffer.flush()
        >>> buffer.stats()["commits"]
        1
        """
        self._guard.refuse_nesting()
        with self._guard.lock:
            self._guard.check_open()
            self._guard.commit()

    def refresh(self) -> None:
        """Load the commits of other processes now; every other call does so, too."""
        with self._guard.reading():
            pass

    @raising_own_errors
    def close(self) -> None:
        """Commit and close the store; a temporary buffer is removed. A second call does nothing."""
        self._guard.close()

    # Inside

    @abc.abstractmethod
    def _checked_priorities(self, priorities: ArrayLike, n: int) -> Values:
        """Return the priorities of n new transitions, or raise PriorityError."""

    def _add(
        self,
        columns: Columns,
        priorities: Values | None,
        links: LinkValues,
        packed_bytes: int,
        notes: Mapping[str, bytes],
    ) -> Ints:
        """Add checked rows, for which room was made, and notes, in one step or in one commit."""
        guard = self._guard
        writer = guard.writer()
        if notes and writer.pending_notes.must_be_committed:
            guard.commit()
        if not writer.fits(len(columns[0]), packed_bytes):
            guard.commit()
            pending = writer.pending_notes.changed(notes)
            return writer.commit_columns(columns, priorities, links, pending)
        guard.begin_change()
        pending = writer.pending_notes.changed(notes) if notes else writer.pending_notes
        write_ids = writer.extend(columns, priorities, links, pending)
        guard.end_change()
        return write_ids

    def _adopt(self, schema: Schema) -> Schema:
        """Use a schema from now on, or that of another process that was faster; return it."""
        if not self._disk_was_checked:
            self._check_disk_room(schema)
        self._adopted_schema = self._guard.writer().adopt(schema)
        return self._adopted_schema

    def _check_disk_room(self, schema: Schema) -> None:
        self._disk_was_checked = True
        check_disk_room(self._guard.replica, schema)

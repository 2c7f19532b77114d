"""RemoteWriting: the methods of a client that write."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diskreplay.aliases import Ints
from diskreplay.buffer import extra_of, extras_of, refuse_plurals, refuse_singulars
from diskreplay.episodes import checked_env, checked_envs, checked_truncated, checked_truncateds
from diskreplay.errors import ServiceError
from diskreplay.sampling import Values
from diskreplay.service.outbox import Outbox
from diskreplay.service.remote_reading import RemoteReading


class RemoteWriting(RemoteReading):
    """A replay on a server: the methods that read and draw, and those that write."""

    _outbox: Outbox
    _first_push: threading.Lock

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
        **extra: Any,
    ) -> int:
        """Add one transition, see ReplayBuffer.push, and return -1: the commit gives the write id.

        The row is checked at once, and sent by a thread. Waits while too many rows wait for the
        server. Raises the errors of a buffer, the error of rows pushed before that the server
        refused, and ServiceError when rows wait and the server does not answer.
        """
        ends = truncated is not None and checked_truncated(truncated)
        if env is not None:
            env = checked_env(env)
        standard = (state, action, reward, next_state, done)
        schema = self._schema_for_rows()
        if schema is None:
            options = {"priority": priority, "truncated": truncated, "env": env, **extra}
            if self._was_first("push", standard, options):
                return -1
            schema = self._schema_for_rows()
        if extra:
            refuse_plurals(extra, schema)
        row = schema.accept_row(
            standard, extra_of(schema, extra, ends, env) if schema.extra_names else extra
        )
        checked = None if priority is None else self._checked_priorities([priority], 1)[0]
        self._outbox.add_row(schema, row, ends, env, checked)
        return -1

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
        **extra: Any,
    ) -> Ints:
        """Add n transitions, see ReplayBuffer.extend, and return n times -1, as `push`.

        All of them are stored in one commit, or none, as long as they take at most 64 MB.
        """
        refuse_singulars(extra)
        standard = (states, actions, rewards, next_states, dones)
        schema = self._schema_for_rows()
        if schema is None:
            options = {"priorities": priorities, "truncateds": truncateds, "env": env, **extra}
            if self._was_first("extend", standard, options):
                return np.full(len(np.asarray(rewards)), -1)
            schema = self._schema_for_rows()
        all_extra = extras_of(schema, extra, truncateds, env, dones)
        columns = schema.accept_columns(standard, all_extra)
        n = len(columns[0])
        ends = False if truncateds is None else checked_truncateds(truncateds, n)
        envs = checked_envs(env, n)
        checked = None if priorities is None else self._checked_priorities(priorities, n)
        self._outbox.add_columns(schema, columns, ends, envs, checked)
        return np.full(n, -1)

    def end_episode(self, env: int | None = None) -> None:
        """End the episode of an env, see ReplayBuffer.end_episode. Cost: a commit of the server."""
        if env is not None:
            env = checked_env(env)
        self._flush_rows()
        self._call("end_episode", env)

    def clear(self) -> None:
        """Remove all transitions, see ReplayBuffer.clear."""
        self._flush_rows()
        self._connection.call("clear", is_repeatable=False)
        self._drop_drawn()

    def flush(self) -> None:
        """Return when all rows of this client, and all changes of the server, are committed.

        Raises the error of rows that the server refused, StorageError when its disk refuses, and
        ServiceError when it does not answer: then the rows wait, and will be sent again.
        """
        self._flush_rows()
        self._call("flush")

    # Inside

    def _schema_for_rows(self) -> Any:
        """Return the fields of a transition, None if a first one must tell them."""
        self._connection.check_open()
        self._outbox.raise_refused()
        return self._schema if self._schema is not None else self.schema

    def _was_first(self, method: str, standard: tuple[Any, ...], options: dict[str, Any]) -> bool:
        """Send rows whose fields are unknown, which the server checks and stores.

        Returns False, and sends nothing, if another thread has sent the first rows meanwhile.
        """
        with self._first_push:
            if self._schema is not None:
                return False
            given = {name: value for name, value in options.items() if value is not None}
            number = self._outbox.new_number()
            self._call("push_first", self._outbox.client, number, method, list(standard), given)
            with contextlib.suppress(ServiceError):
                _ = self.schema  # so that the next rows can wait for a server that is gone
            return True

    def _flush_rows(self) -> None:
        self._connection.check_open()
        self._outbox.flush()

    def _checked_priorities(self, priorities: ArrayLike, n: int) -> Values:
        """Return the priorities of n new transitions, or raise PriorityError."""
        raise NotImplementedError

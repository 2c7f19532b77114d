"""Outbox: the rows of a client that are not acknowledged, and the thread that sends them.

Rows are added to the last group as long as it is open; it is closed when it is large enough, when
its first row has waited a moment, or by `flush`. The thread sends one group at a time and waits for
its acknowledgement. Meanwhile the next one grows, so groups are as large as the server is slow.
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.util
import threading
import time
import traceback
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from diskreplay.aliases import Columns, Ints
from diskreplay.bell import Bell
from diskreplay.errors import (
    ArgumentError,
    ClosedError,
    DiskReplayError,
    MismatchError,
    NotAllowedError,
    PriorityError,
    ReadOnlyError,
    SchemaError,
    ServiceError,
)
from diskreplay.forks import call_in_child, process
from diskreplay.schema import Schema, unpacked
from diskreplay.service.connection import Connection
from diskreplay.store import start_thread
from diskreplay.wording import count_of

_GROUP_BYTES = 2**20
_GROUP_ROWS = 4096
_LARGEST_GROUP_BYTES = 2**26  # of one `extend`, which is stored whole
_DESCRIBED_BYTES = 2**10  # as which a server counts the type and shape of a value that varies
_EMPTY_GROUP_BYTES = 2000  # of memory, about, without its rows
_MOMENT = 0.02  # seconds that a row waits for others to travel with
_JOIN_SECONDS = 5.0  # a thread that waits for a machine that is gone may take longer
_PAUSE = 0.5  # seconds before rows are sent again that the server could not commit
# Errors of rows that no later attempt could store; after any other one they wait.
_REFUSALS = (
    ArgumentError, MismatchError, NotAllowedError, PriorityError, ReadOnlyError, SchemaError,
)  # fmt: skip


class Group:
    """Rows that travel together, and what `extend` is told of them.

    room:        the number of rows that it can take
    are_in_envs, have_priorities:
                 whether each row has an env, and a priority: all rows of a group or none
    """

    def __init__(
        self, schema: Schema, number: int, room: int, *, are_in_envs: bool, have_priorities: bool
    ) -> None:
        self.schema, self.number, self.room = schema, number, room
        self.n, self.nbytes = 0, _EMPTY_GROUP_BYTES
        self.is_open = True
        self.began = time.monotonic()
        self.columns = schema.empty_columns(room)
        self.truncateds = np.zeros(room, np.bool_)
        self.envs: Any = np.empty(room, np.int64) if are_in_envs else None
        self.priorities: Any = np.empty(room, np.float32) if have_priorities else None

    def takes(self, n: int, envs: Any, priorities: Any) -> bool:
        """Return whether n rows can be added."""
        return (
            self.is_open
            and self.n + n <= self.room
            and (envs is None) == (self.envs is None)
            and (priorities is None) == (self.priorities is None)
        )

    def add(
        self, columns: Any, rows: int | slice, n: int, ends: Any, envs: Any, priorities: Any
    ) -> None:
        """Add rows, at a place or places: one value of each field, or n."""
        for column, values in zip(self.columns, columns, strict=True):
            column[rows] = values
        self.truncateds[rows] = ends
        if envs is not None:
            self.envs[rows] = envs
        if priorities is not None:
            self.priorities[rows] = priorities
        self.n += n  # at last: an interrupt before leaves the group as it was

    def close(self) -> None:
        """Take no more rows, and give back the memory of those that do not come."""
        was_open, self.is_open = self.is_open, False
        if was_open and self.n <= self.room // 2:
            self.columns = [column[: self.n].copy() for column in self.columns]
            self.truncateds = self.truncateds[: self.n].copy()
            if self.envs is not None:
                self.envs = self.envs[: self.n].copy()
            if self.priorities is not None:
                self.priorities = self.priorities[: self.n].copy()

    def request(self) -> tuple[Columns, dict[str, Any]]:
        """Return the columns and the other arguments of `extend`."""
        n = self.n
        columns: list[Any] = [
            [unpacked(field, content) for content in column[:n]] if field.varies else column[:n]
            for field, column in zip(self.schema.fields, self.columns, strict=True)
        ]
        options: dict[str, Any] = {"truncateds": self.truncateds[:n]}
        options["fields"] = [field.name for field in self.schema.fields]
        if self.envs is not None:
            options["env"] = self.envs[:n]
        if self.priorities is not None:
            options["priorities"] = self.priorities[:n]
        return columns, options


class Outbox:
    """The groups that wait for the server, in their order.

    most_bytes:  that wait; then `add` waits, too
    group_rows:  the most rows that the server wants in a group
    """

    def __init__(self, connection: Connection, most_bytes: int, group_rows: int) -> None:
        self.client = uuid.uuid4().hex
        self._connection, self._most_bytes = connection, most_bytes
        self._group_rows = min(group_rows, _GROUP_ROWS)
        self._lock = threading.Lock()
        self._groups: deque[Group] = deque()
        self._nbytes = 0
        self._number = 0  # of the last group
        self._attempts = 0  # to send, begun so far
        self._trouble: DiskReplayError | None = None  # of the last attempt; the rows wait
        self._failed = 0  # the number of the last attempt that ended in trouble
        self._refused: list[tuple[DiskReplayError, int]] = []
        self._is_ending = self._has_ended = False
        self._for_thread, self._for_user, self._for_retry = Bell(), Bell(), Bell()
        # Started here, where an interrupt leaves no client behind: two threads would lose rows.
        self._thread = start_thread(
            threading.Thread(target=self._run, name="diskreplay push", daemon=True)
        )
        _outboxes.add(self)
        _flush_at_the_end_of_children()

    def new_number(self) -> int:
        """Return the number of a group that is not sent by the thread."""
        with self._lock:
            self._number += 1
            return self._number

    def add_row(
        self, schema: Schema, row: list[Any], ends: bool, env: int | None, priority: Any
    ) -> None:
        """Add one row, as `Schema.accept_row` returned it."""
        nbytes = schema.payload_bytes + (schema.packed_bytes(row) if schema.varying else 0)
        self._wait_for_room(nbytes)
        with self._lock:
            group = self._open_group(schema, 1, nbytes, env, priority)
            group.add(row, group.n, 1, ends, env, priority)
            self._count(group, nbytes)

    def add_columns(
        self, schema: Schema, columns: Columns, ends: Any, envs: int | Ints | None, priorities: Any
    ) -> None:
        """Add n rows, as `Schema.accept_columns` returned them."""
        n = len(columns[0])
        sizes = np.full(n, schema.payload_bytes, np.int64)
        if schema.varying:
            sizes += schema.packed_sizes(columns) + _DESCRIBED_BYTES * len(schema.varying)
        begin = 0
        while begin < n:
            fitting = np.searchsorted(np.cumsum(sizes[begin:]), _LARGEST_GROUP_BYTES, "right")
            end = min(n, begin + max(1, int(fitting)))
            part, nbytes = slice(begin, end), int(sizes[begin:end].sum())
            of_part = [
                one[part] if isinstance(one, np.ndarray) else one
                for one in (ends, envs, priorities)
            ]
            self._wait_for_room(nbytes)
            with self._lock:
                group = self._open_group(schema, end - begin, nbytes, envs, priorities)
                rows = slice(group.n, group.n + end - begin)
                group.add([column[part] for column in columns], rows, end - begin, *of_part)
                self._count(group, nbytes)
            begin = end

    def flush(self) -> None:
        """Return when all rows are committed; raise the error of those that are not."""
        with self._lock:
            if self._groups:
                self._groups[-1].close()
            number = self._number
        self._for_thread.ring()
        self._wait(lambda: not self._is_waiting(number))
        self.raise_refused()

    def raise_refused(self) -> None:
        """Raise the error of rows that the server refused, once."""
        if not self._refused:
            return
        with self._lock:
            refused, self._refused = self._refused, []
        if refused:
            error, n = refused[0][0], sum(n for _, n in refused)
            raise type(error)(
                f"the server refused {count_of(n, 'transition')}, pushed before and not stored: "
                f"{error}"
            )

    @property
    def has_sent(self) -> bool:
        """Whether the server may know this client."""
        return self._number > 0

    @property
    def rows(self) -> int:
        """The number of rows that are not acknowledged."""
        with self._lock:
            return sum(group.n for group in self._groups)

    def end(self) -> None:
        """Tell the thread to end when all rows are sent, or the connection is closed."""
        self._is_ending = True
        self._for_thread.ring()
        self._for_retry.ring()

    def stop(self) -> None:
        """End the thread, without the rows that still wait: the connection is closed."""
        _outboxes.discard(self)
        self.end()
        self._join()

    def _join(self) -> None:
        """Wait for the end of the thread: one that ends with the program could abort it."""
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)

    # Inside

    def _open_group(self, schema: Schema, n: int, nbytes: int, envs: Any, priorities: Any) -> Group:
        """Return the group that takes the next n rows; hold the lock."""
        last = self._groups[-1] if self._groups else None
        if last is not None and last.takes(n, envs, priorities):
            return last
        if last is not None:
            last.close()
        of_row = max(1, nbytes // n)
        room = max(n, min(self._group_rows, _GROUP_BYTES // of_row))
        return Group(
            schema,
            self._number + 1,
            room,
            are_in_envs=envs is not None,
            have_priorities=priorities is not None,
        )

    def _count(self, group: Group, nbytes: int) -> None:
        """Count bytes that were added to a group, and keep a new one; hold the lock."""
        is_first = group.number > self._number
        if is_first:
            self._number = group.number  # before: of two groups of one number one would be lost
            self._nbytes += group.nbytes
            self._groups.append(group)
        group.nbytes += nbytes
        self._nbytes += nbytes
        if group.n >= group.room or group.nbytes >= _GROUP_BYTES:
            group.is_open = False
        if is_first or not group.is_open:
            self._for_thread.ring()

    def _wait_for_room(self, nbytes: int) -> None:
        """Return when so many bytes may wait, too."""
        if self._nbytes + nbytes > self._most_bytes and self._groups:
            self._wait(lambda: self._nbytes + nbytes <= self._most_bytes or not self._groups)

    def _wait(self, is_done: Callable[[], bool]) -> None:
        """Return when something is done; raise the error of an attempt that begins later.

        Raises ClosedError where the thread has ended without it.
        """
        attempts = self._attempts

        def has_failed() -> bool:
            return self._trouble is not None and self._failed > attempts

        self._for_retry.ring()
        while not is_done():
            self._for_user.wait_until(lambda: is_done() or has_failed() or self._has_ended)
            trouble = self._trouble if has_failed() else None
            if is_done():
                return
            if self._has_ended:
                raise ClosedError(
                    f"the connection was closed, and {count_of(self.rows, 'transition')} that "
                    "waited for the server are not stored"
                )
            if trouble is not None:
                n = self.rows
                raise type(trouble)(
                    f"{count_of(n, 'transition')} {'waits' if n == 1 else 'wait'} for the server, "
                    f"and will be sent again: {trouble}"
                )

    def _is_waiting(self, number: int) -> bool:
        groups = self._groups
        return bool(groups) and groups[0].number <= number

    def _run(self) -> None:
        """Send groups until the end."""
        try:
            while (group := self._next_group()) is not None:
                self._send(group)
                self._for_user.ring()
        finally:
            self._has_ended = True
            self._for_user.ring()
            self._connection.close_channel()
        self.raise_refused()  # nobody else tells of them where the client is gone

    def _next_group(self) -> Group | None:
        """Return the first group, closed, as soon as it may be sent; None at the end."""
        while not (self._is_ending and self._connection.is_closed):
            with self._lock:
                group = self._groups[0] if self._groups else None
                if group is not None:
                    left = group.began + _MOMENT - time.monotonic()
                    if self._is_ending or left <= 0:
                        group.is_open = False
                    if not group.is_open:
                        return group
                elif self._is_ending:
                    return None
            self._for_thread.wait(None if group is None else max(left, 0))
        return None

    def _send(self, group: Group) -> None:
        """Send a group until the server has stored or refused it, or the connection is closed."""
        while not self._connection.is_closed:
            self._attempts += 1
            try:
                arguments = group.request()
                self._connection.call("push_group", self.client, group.number, *arguments)
                self._forget(group, None)
                return
            except _REFUSALS as error:
                self._forget(group, error)
                return
            except Exception as error:
                if isinstance(error, DiskReplayError):
                    trouble = error
                else:
                    trouble = ServiceError(f"{type(error).__name__}: {error}")
                with self._lock:
                    self._trouble, self._failed = trouble, self._attempts
            self._for_user.ring()
            self._for_retry.wait(_PAUSE)

    def _forget(self, group: Group, error: DiskReplayError | None) -> None:
        with self._lock:
            self._groups.popleft()
            self._nbytes = self._nbytes - group.nbytes if self._groups else 0
            self._trouble = None
            if error is not None:
                self._refused.append((error, group.n))


_outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()
call_in_child(_outboxes.clear)  # the rows that wait are those of the parent
_flushing_process: object = None  # the process that will send its rows at its end


def _flush_at_the_end_of_children() -> None:
    """Call `_flush_all` in a child of multiprocessing, which ends without atexit."""
    global _flushing_process
    if _flushing_process is not process() and multiprocessing.parent_process() is not None:
        multiprocessing.util.Finalize(None, _flush_all, exitpriority=0)
        _flushing_process = process()


@atexit.register
def _flush_all() -> None:
    """Wait at the end of the program until the rows of clients that are still open are sent."""
    for outbox in list(_outboxes):
        try:
            outbox.flush()
        except Exception:
            traceback.print_exc()  # and send those of the others all the same
        outbox.end()
        outbox._join()

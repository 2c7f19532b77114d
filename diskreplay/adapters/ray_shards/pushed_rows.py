"""PushedRows: the rows of one client on their way to the shards, until they are committed there.

A row is checked at once, by a small buffer of this process that holds it, too, until its group is
sent. Each shard gets its groups in order, with numbers; a group stays here until the shard has
answered that it is committed, and is sent again where the answer is lost.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray

import diskreplay
from diskreplay.adapters.ray_shards.joining import at_rows, bytes_of
from diskreplay.adapters.ray_shards.shard import KINDS, Group, ShardAwayError
from diskreplay.adapters.ray_shards.shard_calls import ShardCalls

_GROUP_ROWS = 256  # of single pushes
_LARGEST_GROUP = 4096  # of an extend
_DUE_SECONDS = 0.1
_WAIT_SECONDS = 300.0  # for a shard that is away
# Errors of a shard that the same rows would raise again.
_REFUSALS = (diskreplay.SchemaError, diskreplay.PriorityError, diskreplay.ArgumentError)


class _Sent:
    """A group that a shard has not answered yet."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.rows = len(group.columns["rewards"])
        self.nbytes = bytes_of(group.columns)
        self.call: Any = None
        self.number = -1


class _Row(NamedTuple):
    """What is known of a waiting row beside its values."""

    shard: int
    env: int  # -1 for none
    truncated: bool
    priority: float


class PushedRows:
    """The rows that are waiting to be sent, and the groups that are not acknowledged.

    at_episodes:  whether rows without env= go to another shard with each episode, or with each row
    queue_bytes:  the most that is kept here; a push waits for room
    """

    def __init__(
        self,
        calls: ShardCalls,
        kind: str,
        schema: Any,
        *,
        at_episodes: bool,
        queue_bytes: int,
        largest_priority: Callable[[], float],
    ) -> None:
        self._calls, self._kind = calls, kind
        self._client = uuid.uuid4().hex[:12]
        self._at_episodes, self._queue_bytes = at_episodes, queue_bytes
        self._largest_priority = largest_priority
        self._n, self._schema_given = len(calls.actors), schema
        self.checker = self._new_checker(_GROUP_ROWS * 2, schema)
        self._rows: list[_Row] = []
        self._since = 0.0  # when the oldest waiting row was pushed
        self._sent: list[deque[_Sent]] = [deque() for _ in range(self._n)]
        self._acknowledged = [0] * self._n  # groups
        facts = [(f.written * self._n + number, number) for number, f in enumerate(calls.facts)]
        self._turn = min(facts)[1]  # the shard of the next row without env=

    def _new_checker(self, capacity: int, schema: Any) -> Any:
        # Nothing of it is needed after this process.
        return KINDS[self._kind](capacity, schema=schema, durability="process", commit_interval=1e9)

    # Rows

    def push(self, standard: tuple[Any, ...], given: dict[str, Any], extra: dict[str, Any]) -> None:
        """Check and add a row, given as the arguments of `push`."""
        self.checker.push(*standard, **given, **extra)
        env, truncated = given.get("env"), bool(given.get("truncated"))
        priority = given.get("priority")
        done = bool(standard[-1]) or truncated
        if not self._rows:
            self._since = time.monotonic()
        self._rows.append(
            _Row(
                self._shard_of(env, done),
                -1 if env is None else int(env),
                truncated,
                self._largest() if priority is None else float(priority),
            )
        )
        if len(self._rows) >= _GROUP_ROWS:
            self.send()
        else:
            self.send_if_due()

    def extend(
        self, standard: tuple[Any, ...], given: dict[str, Any], extra: dict[str, Any]
    ) -> int:
        """Check and send rows, given as the arguments of `extend`; return their number."""
        self.send()  # they come first
        n = _length_of(standard[4])
        if n > self.checker.capacity:
            schema = self.checker.schema
            self.checker.close()
            self.checker = self._new_checker(n, schema or self._schema_given)
        write_ids = self.checker.extend(*standard, **given, **extra)
        n = len(write_ids)
        if not n:
            return 0
        env = given.get("env")
        envs = (
            np.full(n, -1 if env is None else env)
            if env is None or np.ndim(env) == 0
            else np.asarray(env)
        )
        truncateds = given.get("truncateds")
        ends = np.zeros(n, np.bool_) if truncateds is None else np.asarray(truncateds, np.bool_)
        priorities = given.get("priorities")
        values = (
            np.full(n, self._largest() if self._kind == "prioritized" else 1.0)
            if priorities is None
            else np.asarray(priorities, np.float64)
        )
        dones = np.asarray(self.checker.get(write_ids, ["done"])["done"], np.bool_) | ends
        shards = np.empty(n, np.int64)
        if env is not None:
            shards[:] = envs % self._n
        elif self._at_episodes:
            before: NDArray[np.int64] = (
                np.cumsum(dones) - dones
            )  # episodes that have ended before each row
            shards[:] = (self._turn + before) % self._n
            self._turn = int(self._turn + dones.sum()) % self._n
        else:
            shards[:] = (self._turn + np.arange(n)) % self._n
            self._turn = (self._turn + n) % self._n
        self._send(write_ids, shards, envs, ends, values)
        return n

    def _shard_of(self, env: Any, is_last: bool) -> int:
        if env is not None:
            return int(env) % self._n
        shard = self._turn
        if is_last or not self._at_episodes:
            self._turn = (shard + 1) % self._n
        return shard

    def _largest(self) -> float:
        return self._largest_priority() if self._kind == "prioritized" else 1.0

    @property
    def largest_here(self) -> float | None:
        """The largest priority of rows that are not acknowledged; None where there are none."""
        found = [row.priority for row in self._rows]
        found += [
            float(np.max(sent.group.columns["priorities"]))
            for queue in self._sent
            for sent in queue
            if "priorities" in sent.group.columns
        ]
        return max(found, default=None)

    def end_episode(self, env: int | None) -> None:
        """End the episode of an env, or of the rows without env=."""
        self.checker.end_episode(env)
        self.send()
        number = self._turn if env is None else int(env) % self._n
        self._calls.ask(number, "end_episode", self._client, env)
        if env is None and self._at_episodes:
            self._turn = (self._turn + 1) % self._n

    # Groups

    def send_if_due(self) -> None:
        """Send the waiting rows if they have waited for long."""
        if self._rows and time.monotonic() - self._since > _DUE_SECONDS:
            self.send()

    def send(self) -> None:
        """Send the waiting rows, without waiting for an answer, but for room in the queue."""
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        shards, envs, ends, priorities = map(np.array, zip(*rows, strict=True))
        end = self.checker.count
        self._send(np.arange(end - len(rows), end), shards, envs, ends, priorities)

    def _send(
        self,
        write_ids: NDArray[np.int64],
        shards: NDArray[np.int64],
        envs: NDArray[np.int64],
        ends: NDArray[np.bool_],
        priorities: NDArray[np.float64],
    ) -> None:
        schema = self.checker.schema.to_plain()
        batch = self.checker.get(write_ids)
        columns = dict(zip(batch._fields, batch, strict=True))
        truncateds = columns.pop("truncated", ends if ends.any() else None)
        if self._kind == "prioritized":
            columns["priorities"] = priorities
        for number in np.unique(shards).tolist():
            all_places = np.flatnonzero(shards == number)
            for first in range(0, len(all_places), _LARGEST_GROUP):
                places = all_places[first : first + _LARGEST_GROUP]
                group = Group(
                    schema,
                    {name: at_rows(column, places) for name, column in columns.items()},
                    None if truncateds is None else at_rows(truncateds, places),
                    None if (envs[places] < 0).all() else envs[places],
                )
                self._put(number, _Sent(group))

    def _put(self, number: int, sent: _Sent) -> None:
        self.take_answers()
        while self.waiting_bytes + sent.nbytes > self._queue_bytes and any(self._sent):
            longest = max(range(self._n), key=lambda other: len(self._sent[other]))
            self._wait_for(longest, 1)
        queue = self._sent[number]
        queue.append(sent)
        self._ask(number, len(queue) - 1)

    def _ask(self, number: int, place: int) -> None:
        """Send a group, by its place in the queue of its shard."""
        sent = self._sent[number][place]
        sent.number = self._acknowledged[number] + place
        sent.call = self._calls.ask(number, "push", self._client, sent.number, sent.group)

    @property
    def waiting_bytes(self) -> int:
        """The bytes of the groups that are not acknowledged."""
        return sum(sent.nbytes for queue in self._sent for sent in queue)

    @property
    def waiting_rows(self) -> int:
        """The number of rows that are not acknowledged."""
        return len(self._rows) + sum(sent.rows for queue in self._sent for sent in queue)

    def take_answers(self) -> None:
        """Take the answers that are there; send again what came to a shard that was away."""
        for number, queue in enumerate(self._sent):
            while queue and ray.wait([queue[0].call.ref], timeout=0)[0]:
                if not self._take_answer(number):
                    break

    def _take_answer(self, number: int) -> bool:
        """Take the answer for the oldest group; return whether it is stored, else send it again."""
        queue = self._sent[number]
        try:
            expected, facts = self._calls.answer(number, queue[0].call)
        except ShardAwayError:
            expected = -1
        except _REFUSALS as error:
            rows = queue.popleft().rows
            self._send_again(number)
            raise type(error)(f"{error} ({rows} rows for shard {number} are not stored)") from None
        except diskreplay.DiskReplayError:
            self._send_again(number)
            raise
        if expected <= queue[0].number:
            self._send_again(number)
            return False
        self._calls.facts[number] = facts
        queue.popleft()
        self._acknowledged[number] += 1
        return True

    def _send_again(self, number: int) -> None:
        for place in range(len(self._sent[number])):
            self._ask(number, place)

    def _wait_for(self, number: int, groups: int) -> None:
        """Wait until a shard has stored so many more groups, or has no more."""
        end = time.monotonic() + _WAIT_SECONDS
        goal = self._acknowledged[number] + groups
        while self._sent[number] and self._acknowledged[number] < goal:
            if self._take_answer(number):
                continue
            if number in self._calls.away:
                try:
                    self._calls.wait_for([number], max(0.0, end - time.monotonic()))
                except ShardAwayError as error:
                    raise ShardAwayError(
                        f"{error}; {self.waiting_rows} rows wait here and are not stored"
                    ) from None

    def flush(self) -> None:
        """Send all rows, and wait until they are committed."""
        self.send()
        for number in range(self._n):
            self._wait_for(number, len(self._sent[number]))

    def close(self) -> None:
        """Commit all rows, and be forgotten by the shards."""
        try:
            self.flush()
            if any(self._acknowledged):
                self._calls.to_all("forget", self._client)
        finally:
            self.checker.close()


def _length_of(column: Any) -> int:
    try:
        return len(column)
    except TypeError:
        return 0

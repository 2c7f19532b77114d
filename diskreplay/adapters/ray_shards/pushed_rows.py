"""PushedRows: the rows of one client on their way to the shards, until they are committed there.

A row is checked at once, by a small buffer of this process that holds it, too, until its group is
sent. Before a row is taken there must be room, and no error of a shard may be left untold: so a
call that raises has taken none.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diskreplay.adapters.ray_shards.joining import at_rows
from diskreplay.adapters.ray_shards.messages import KINDS, Group, ShardAwayError
from diskreplay.adapters.ray_shards.routes import Routes
from diskreplay.adapters.ray_shards.sent_groups import SentGroups
from diskreplay.adapters.ray_shards.shard_calls import ShardCalls

_GROUP_ROWS = 256  # of single pushes
_LARGEST_GROUP = 4096  # of an extend
_DUE_SECONDS = 0.1
WAIT_SECONDS = 300.0  # for a shard that is away


class _Row(NamedTuple):
    """What is known of a waiting row beside its values."""

    shard: int
    env: int  # -1 for none
    truncated: bool
    priority: float


class PushedRows:
    """The rows that are waiting to be sent, and the groups that are not acknowledged.

    at_episodes:  whether rows without env= go to another shard with each episode, or with each row
    queue_bytes:  the most that is kept here, an equal part of it for each shard; a push waits for
                  room
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
        self._largest_priority = largest_priority
        self.largest_here: float | None = None  # of the priorities given here
        n = len(calls.actors)
        self._schema_given = schema
        self.checker = self._new_checker(_GROUP_ROWS * 2, schema)
        self._rows: list[_Row] = []
        self._since = 0.0  # when the oldest waiting row was pushed
        self._sent = [
            SentGroups(calls, number, self._client, queue_bytes // n) for number in range(n)
        ]
        facts = [(f.written * n + number, number) for number, f in enumerate(calls.facts)]
        self._routes = Routes(n, min(facts)[1], at_episodes=at_episodes)

    def _new_checker(self, capacity: int, schema: Any) -> Any:
        # Nothing of it is needed after this process.
        return KINDS[self._kind](capacity, schema=schema, durability="process", commit_interval=1e9)

    # Rows

    def push(self, standard: tuple[Any, ...], given: dict[str, Any], extra: dict[str, Any]) -> None:
        """Check and add a row, given as the arguments of `push`."""
        is_last = len(self._rows) + 1 >= _GROUP_ROWS or self._is_due()  # of its group
        if is_last:
            self._make_room()
        self.checker.push(*standard, **given, **extra)
        env, truncated = given.get("env", -1), bool(given.get("truncated"))
        priority = given.get("priority")
        if not self._rows:
            self._since = time.monotonic()
        done = bool(standard[-1]) or truncated
        self._rows.append(
            _Row(
                self._routes.of_row(int(env), done, self._calls.away),
                int(env),
                truncated,
                self._largest() if priority is None else float(priority),
            )
        )
        if priority is not None:
            self._keep_largest(float(priority))
        if is_last:
            self.send()

    def extend(
        self, standard: tuple[Any, ...], given: dict[str, Any], extra: dict[str, Any]
    ) -> int:
        """Check and send rows, given as the arguments of `extend`; return their number."""
        self._make_room()
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
        if priorities is not None:
            self._keep_largest(float(values.max()))
        dones = np.asarray(self.checker.get(write_ids, ["done"])["done"], np.bool_) | ends
        shards = self._routes.of_rows(envs, dones, self._calls.away)
        self._put(write_ids, shards, envs, ends, values)
        for sent in self._sent:
            sent.wait_for_room()
        return n

    def _largest(self) -> float:
        return self._largest_priority() if self._kind == "prioritized" else 1.0

    def _keep_largest(self, priority: float) -> None:
        if self.largest_here is None or priority > self.largest_here:
            self.largest_here = priority

    def end_episode(self, env: int | None) -> None:
        """End the episode of an env, or of the rows without env=."""
        self._make_room()
        self.checker.end_episode(env)
        self.send()
        shard = self._routes.end_episode(-1 if env is None else int(env))
        sent = self._sent[shard]
        if (sent.acknowledged or len(sent)) and shard not in self._calls.away:
            sent.put(Group([], {}, None, None, self._routes.take_ended(shard)))
            sent.take_answers()

    # Groups

    def _is_due(self) -> bool:
        return bool(self._rows) and time.monotonic() - self._since > _DUE_SECONDS

    def send_if_due(self) -> None:
        """Send the waiting rows if they have waited for long."""
        if self._is_due():
            self.send()

    def send(self) -> None:
        """Send the waiting rows, without waiting for an answer."""
        if not self._rows:
            return
        rows = self._rows
        shards, envs, ends, priorities = map(np.array, zip(*rows, strict=True))
        end = self.checker.count
        self._put(np.arange(end - len(rows), end), shards, envs, ends, priorities)
        self._rows = []
        self.take_answers()

    def _put(
        self,
        write_ids: NDArray[np.int64],
        shards: NDArray[np.int64],
        envs: NDArray[np.int64],
        ends: NDArray[np.bool_],
        priorities: NDArray[np.float64],
    ) -> None:
        """Put checked rows into groups, which wait for their shards."""
        schema = self.checker.schema.to_plain()
        batch = self.checker.get(write_ids)
        columns = dict(zip(batch._fields, batch, strict=True))
        truncateds = columns.pop("truncated", ends if ends.any() else None)
        if self._kind == "prioritized":
            columns["priorities"] = priorities
        groups = []
        for number in np.unique(shards).tolist():
            all_places = np.flatnonzero(shards == number)
            for first in range(0, len(all_places), _LARGEST_GROUP):
                places = all_places[first : first + _LARGEST_GROUP]
                group = Group(
                    schema,
                    {name: at_rows(column, places) for name, column in columns.items()},
                    None if truncateds is None else at_rows(truncateds, places),
                    None if (envs[places] < 0).all() else envs[places],
                    self._routes.take_ended(number),
                )
                groups.append((number, group))
        for number, group in groups:
            self._sent[number].put(group)

    @property
    def waiting_rows(self) -> int:
        """The number of rows that are not acknowledged."""
        return len(self._rows) + sum(sent.rows for sent in self._sent)

    def take_answers(self) -> None:
        """Take the answers that are there; send again what came to a shard that was away."""
        for sent in self._sent:
            sent.take_answers()

    def _make_room(self) -> None:
        """Wait for room for more rows; raise an error of a shard, and ShardAwayError without any.

        Rows go to the shards that are there, so there must be room in these.
        """
        self._calls.look_for_the_away()
        self.take_answers()
        for sent in self._sent:
            sent.wait_for_room()
        self._raise_errors()
        if len(self._calls.away) == len(self._sent) and any(s.is_full for s in self._sent):
            self._wait_for_the_away()

    def _raise_errors(self) -> None:
        for sent in self._sent:
            if sent.errors:
                raise sent.errors.pop(0)

    def _wait_for_the_away(self) -> None:
        """Wait for the shards that are away and have rows to store; raise ShardAwayError."""
        try:
            wanted = [number for number, sent in enumerate(self._sent) if len(sent)]
            self._calls.wait_for(wanted, WAIT_SECONDS)
        except ShardAwayError as error:
            raise ShardAwayError(
                f"{error}; {self.waiting_rows} rows wait here and are not stored"
            ) from None

    def flush(self) -> None:
        """Send all rows, and wait until they are committed."""
        self.send()
        while any(map(len, self._sent)):
            self._wait_for_the_away()
            for sent in self._sent:
                sent.wait_for_all()
            self._raise_errors()
        self._raise_errors()

    def close(self) -> None:
        """Commit all rows, and be forgotten by the shards."""
        try:
            self.flush()
            if any(sent.acknowledged for sent in self._sent):
                self._calls.to_all("forget", self._client)
        finally:
            self.checker.close()


def _length_of(column: Any) -> int:
    try:
        return len(column)
    except TypeError:
        return 0

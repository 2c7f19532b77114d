"""SentGroups: the groups of one client that one shard has not acknowledged yet."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import diskreplay
from diskreplay.adapters.ray_shards.joining import bytes_of
from diskreplay.adapters.ray_shards.messages import Group, ShardAwayError
from diskreplay.adapters.ray_shards.shard_calls import Call, ShardCalls

_PAUSE_SECONDS = 1.0  # after an error that is not of the rows, such as of a full disk
# Errors of a shard that the same rows would raise again.
_REFUSALS = (diskreplay.SchemaError, diskreplay.PriorityError, diskreplay.ArgumentError)


class _Sent:
    """A group, and the call that brings it to its shard."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.rows = len(group.columns.get("rewards", ()))
        self.nbytes = bytes_of(group.columns)
        self.call: Call | None = None  # None while it is not sent, or where its answer is lost
        self.number = -1


class SentGroups:
    """The groups that a shard has not acknowledged, in order; they are sent again where it died.

    most_bytes:  that may be on their way at a time, beside one group
    errors:      of the shard, which the client has not been told yet
    """

    def __init__(self, calls: ShardCalls, shard: int, client: str, most_bytes: int) -> None:
        self._calls, self._shard, self._client = calls, shard, client
        self._most_bytes = most_bytes
        self._groups: deque[_Sent] = deque()
        self._resume = 0.0  # when groups may be sent after an error
        self.acknowledged = 0
        self.nbytes = self.rows = 0
        self.errors: list[diskreplay.DiskReplayError] = []

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def _is_away(self) -> bool:
        return self._shard in self._calls.away

    def put(self, group: Group) -> None:
        """Add a group, to be sent with the next look at the answers."""
        sent = _Sent(group)
        self._groups.append(sent)
        self.nbytes += sent.nbytes
        self.rows += sent.rows

    def take_answers(self) -> None:
        """Take the answers that are there, and send what a shard that is there has not got."""
        while not self._is_away:
            self._send()
            if not self._groups or (call := self._groups[0].call) is None:
                return
            if not self._calls.has_answer(call):
                return
            self._take_answer(call)

    def wait_for_all(self) -> None:
        """Wait until all groups are stored, the shard is away, or it raises an error."""
        self._wait(lambda: bool(self._groups))

    @property
    def is_full(self) -> bool:
        """Whether more bytes are waiting than may be on their way."""
        return self.nbytes > self._most_bytes

    def wait_for_room(self) -> None:
        """Wait likewise while it is full."""
        self._wait(lambda: self.is_full)

    def _wait(self, is_wanted: Callable[[], bool]) -> None:
        self.take_answers()
        while is_wanted() and not self._is_away and not self.errors:
            call = self._groups[0].call
            if call is None:
                time.sleep(max(0.0, self._resume - time.monotonic()))
            else:
                self._calls.wait_for_answer(self._shard, call)
            self.take_answers()

    def _send(self) -> None:
        """Send the groups that are not sent, as far as they may be on their way."""
        if not self._groups or self._groups[-1].call or time.monotonic() < self._resume:
            return
        nbytes = 0
        for place, sent in enumerate(self._groups):
            nbytes += sent.nbytes
            if place and nbytes > self._most_bytes:
                return
            if sent.call is None:
                sent.number = self.acknowledged + place
                sent.call = self._calls.ask(
                    self._shard, "push", self._client, sent.number, sent.group
                )

    def _unsend(self) -> None:
        for sent in self._groups:
            sent.call = None

    def _drop(self) -> _Sent:
        sent = self._groups.popleft()
        self.nbytes -= sent.nbytes
        self.rows -= sent.rows
        return sent

    def _take_answer(self, call: Call) -> None:
        """Take the answer for the oldest group."""
        try:
            expected, facts = self._calls.answer(self._shard, call)
        except ShardAwayError:
            self._unsend()
            return
        except _REFUSALS as error:
            rows = self._drop().rows
            self._unsend()
            text = f"{error} ({rows} rows for shard {self._shard} are not stored)"
            self.errors.append(type(error)(text))
            return
        except diskreplay.DiskReplayError as error:
            self._unsend()
            self._resume = time.monotonic() + _PAUSE_SECONDS
            text = f"{error} ({self.rows} rows for shard {self._shard} wait and are not stored)"
            self.errors.append(type(error)(text))
            return
        self._calls.load_facts({self._shard: facts})
        if expected > self._groups[0].number:
            self._drop()
            self.acknowledged += 1
            return
        if expected < self.acknowledged:
            lost = self.acknowledged - expected
            text = f"shard {self._shard} of {self._calls.place} has lost the last {lost} groups of "
            self.errors.append(
                diskreplay.StorageError(text + "rows that it had stored: its store is an older one")
            )
            self.acknowledged = expected
        self._unsend()

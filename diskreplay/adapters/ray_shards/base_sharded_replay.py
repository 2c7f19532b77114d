"""BaseShardedReplay: the methods that both kinds of sharded replays have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

import diskreplay
from diskreplay.adapters.ray_shards.drawing import DrawingShards, StartedDraw, Streams, unusual
from diskreplay.adapters.ray_shards.messages import Settings
from diskreplay.adapters.ray_shards.packing import Form
from diskreplay.adapters.ray_shards.prefetched import BatchT, Prefetched
from diskreplay.adapters.ray_shards.pushed_rows import PushedRows
from diskreplay.adapters.ray_shards.shard_calls import ShardCalls

if TYPE_CHECKING:
    from typing_extensions import Self


class BaseShardedReplay(DrawingShards, Generic[BatchT]):
    """An open sharded replay: the methods that write, draw and describe."""

    _kind = ""

    def _use(self, calls: ShardCalls, settings: Settings, spread: str, queue_bytes: int) -> None:
        """Use shards that are open."""
        self._calls, self._settings, self._spread = calls, settings, spread
        self._queue_bytes = queue_bytes
        self._n = settings.n_shards
        self._seed = int(calls.facts[0].seed)
        self._streams = Streams(self._seed, self._copy_number)
        self._returned = max(facts.frame for facts in calls.facts)  # batches
        self._ahead = 0  # draws begun, whose batches are not returned
        self._given_back: deque[StartedDraw] = deque()  # by iterators that were closed
        self._forms: dict[tuple[Any, ...], Form] = {}  # of the batches that come packed
        self._noted = 0.0  # when the shards were told the frame
        self._closed = False
        self._missed_updates = 0
        self._known_schema: Any = None
        self._pushed = PushedRows(
            calls,
            self._kind,
            self._load_schema() or settings.options.get("schema"),
            at_episodes=spread == "episodes",
            queue_bytes=queue_bytes,
            largest_priority=lambda: self._largest_priority(),
        )

    # Writing

    def _largest_priority(self) -> float:
        known = [f.largest for f in self._calls.facts if f.largest is not None]
        if (here := self._pushed.largest_here) is not None:
            known.append(here)
        return max(known, default=1.0)

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
        """Add one transition and return -1: its shard gives it a write id.

        It is checked at once, as by a buffer, and sent in a group with others: it can be drawn once
        its shard has committed it. `flush` waits for that. Rows go to the shards that are there;
        where these have too much to store, the call waits. It raises an error that a shard had with
        earlier rows, and has then taken none.
        """
        self._check_open()
        given = {"priority": priority, "truncated": truncated, "env": env}
        given = {name: value for name, value in given.items() if value is not None}
        self._changed()
        self._pushed.push((state, action, reward, next_state, done), given, extra)
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
    ) -> NDArray[np.int64]:
        """Add n transitions, and return n times -1; a refused call adds none. See `push`."""
        self._check_open()
        given = {"priorities": priorities, "truncateds": truncateds, "env": env}
        given = {name: value for name, value in given.items() if value is not None}
        self._changed()
        standard = (states, actions, rewards, next_states, dones)
        return np.full(self._pushed.extend(standard, given, extra), -1)

    def end_episode(self, env: int | None = None) -> None:
        """End the episode of an env, or of the transitions without `env=`."""
        self._check_open()
        self._pushed.end_episode(env)

    def clear(self) -> None:
        """Remove all transitions, those that wait, too; write ids count on."""
        self.flush()
        self._changed()
        self._calls.load_facts(self._calls.to_each("clear", seconds=self._wait_seconds))
        self._pushed.largest_here = None

    def flush(self) -> None:
        """Commit everything, and return when all that was pushed is committed.

        Waits for a shard that is away; raises ShardAwayError, a StorageError, when it is not back
        after five minutes, and keeps what waits for it.
        """
        self._check_open()
        self._pushed.flush()
        self._calls.load_facts(self._calls.to_all("flush", self._frame))

    def refresh(self) -> None:
        """Load the state of the shards, to which other processes push."""
        self._check_open()
        self._changed()
        self._calls.load_facts(self._calls.to_all("facts"))

    # Drawing

    def batches(
        self,
        batch_size: int,
        prefetch: int = 0,
        readers: int = 0,
        *,
        reuse: bool = False,
        prepare: Callable[[Any], Any] | None = None,
        frames: bool = False,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> Prefetched[BatchT]:
        """Return an endless iterator over batches, as `sample` returns them.

        prefetch:  the number of batches whose draws are under way in the shards: what is pushed or
                   updated takes effect so much later
        readers:   taken, and without effect: the shards are processes that read
        reuse:     taken, and without effect: each batch has arrays of its own
        prepare:   a function of a batch, whose result is returned in its place
        frames:    False, where fields are in the log: shards put their frames together
        pad, n_step, gamma:  as of `sample`
        """
        self._check_open()
        checker = self._pushed.checker
        checker.batches(
            batch_size, prefetch, readers, reuse=reuse, prepare=prepare, frames=frames, pad=pad
        ).close()
        if frames and self.schema is not None and self.schema.has_frames:
            raise diskreplay.ArgumentError(
                "frames must be False in a sharded replay (found True): the shards put frames "
                "together, and whole arrays come from them"
            )
        options = unusual({"pad": pad, "n_step": n_step, "gamma": gamma})
        begin = partial(self._begin, "sample", "batch_size", int(batch_size), options)
        return Prefetched(begin, self._finish, self._give_back, int(prefetch), prepare)

    def _give_back(self, draws: deque[StartedDraw]) -> None:
        self._given_back.extend(draws)

    def is_ready(self, n: int) -> bool:
        """Return whether a batch of n can be drawn from the shards that are there."""
        self._check_open()
        self._pushed.checker.is_ready(n)
        self._pushed.send_if_due()
        if n > self._shares()[1].sum():
            self.refresh()
        return bool(n <= self._shares()[1].sum())

    # The whole

    def close(self) -> None:
        """Commit and close; the process that made the replay also ends the shards."""
        if self._closed:
            return
        try:
            self._pushed.close()
            if self._is_owner:
                self._calls.to_all("flush", self._frame)
        finally:
            self._closed = True
            self._given_back.clear()
            if self._is_owner:
                self._end_shards()

    def _end_shards(self) -> None:
        """Close the stores of the shards, and end their actors."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __copy__(self) -> NoReturn:
        """Raise LockedError: give a copy to another process, which Ray does."""
        raise diskreplay.LockedError(
            f"{self.path} cannot be copied in its process: give the replay to a task or an actor"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        """Raise LockedError, as `copy.copy` does."""
        self.__copy__()

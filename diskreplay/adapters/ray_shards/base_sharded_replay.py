"""BaseShardedReplay: the methods that both kinds of sharded replays have."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

import diskreplay
from diskreplay.adapters.ray_shards.joining import (
    Part,
    check_out,
    distinct_counts,
    fill,
    joined_batch,
    stratified_counts,
)
from diskreplay.adapters.ray_shards.packing import Form, can_pack
from diskreplay.adapters.ray_shards.prefetched import BatchT, Prefetched
from diskreplay.adapters.ray_shards.pushed_rows import PushedRows
from diskreplay.adapters.ray_shards.reading import ReadingShards
from diskreplay.adapters.ray_shards.shard import Settings, ShardAwayError
from diskreplay.adapters.ray_shards.shard_calls import Call, ShardCalls

if TYPE_CHECKING:
    from typing_extensions import Self


_NOTE_SECONDS = 0.5  # as commits come each second


class _Draw(NamedTuple):
    """A draw whose answers are on their way."""

    method: str
    n: int
    options: dict[str, Any]
    number: int
    refs: dict[int, Call]


class BaseShardedReplay(ReadingShards, Generic[BatchT]):
    """An open sharded replay: the methods that write, draw and describe."""

    _kind = ""

    def _use(self, calls: ShardCalls, settings: Settings, spread: str, queue_bytes: int) -> None:
        """Use shards that are open."""
        self._calls, self._settings, self._spread = calls, settings, spread
        self._queue_bytes = queue_bytes
        self._n = settings.n_shards
        self._seed = int(calls.facts[0].seed)
        self._returned = max(facts.frame for facts in calls.facts)  # batches
        self._ahead = 0  # draws begun, whose batches are not returned
        self._given_back: deque[_Draw] = deque()  # by iterators that were closed
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
        its shard has committed it. `flush` waits for that. While its shard is away it waits here,
        with others up to `queue_bytes`; then the call waits, too.
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

    def _changed(self) -> None:
        """Drop what was drawn ahead and given back: it is of the state before."""
        self._ahead -= len(self._given_back)
        self._given_back.clear()

    @property
    def _frame(self) -> int:
        """The number of batches returned by the process that made the replay, over all runs."""
        if self._is_owner:
            return self._returned
        return max(facts.frame for facts in self._calls.facts)

    # Drawing

    def _shares(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the masses and the sizes of the shards, 0 of those that are away."""
        self._calls.look_for_the_away()
        masses, sizes = np.zeros(self._n), np.zeros(self._n, np.int64)
        for number in self._calls.present:
            facts = self._calls.facts[number]
            masses[number], sizes[number] = facts.mass, facts.size
        return masses, sizes

    def _begin(self, method: str, name: str, n: Any, options: dict[str, Any]) -> _Draw:
        """Begin a draw of n, or take one that was drawn ahead and given back."""
        self._check_open()
        if type(n) is not int or n < 1:
            getattr(self._pushed.checker, "draw" if name == "n" else "sample")(n)
            n = int(n)
        self._pushed.send_if_due()
        if self._given_back and self._given_back[0][:3] == (method, n, options):
            return self._given_back.popleft()
        self._changed()
        number = self._returned + self._ahead
        refs = self._ask(method, n, options, number)
        self._ahead += 1
        return _Draw(method, n, options, number, refs)

    def _ask(self, method: str, n: int, options: dict[str, Any], number: int) -> dict[int, Call]:
        masses, sizes = self._shares()
        if n > sizes.sum() and self._calls.present:
            self._calls.load_facts(self._calls.to_all("facts"))
            masses, sizes = self._shares()
        if not self._calls.present:
            raise ShardAwayError(f"all shards of {self.path} are away: call again")
        if n > (size := int(sizes.sum())):
            away = f" in the shards that are there ({len(self._calls.away)} are away)"
            raise diskreplay.SampleError(
                f"cannot draw {n} transition{'s' * (n != 1)}: {self.path} holds {size}"
                f"{away if self._calls.away else ''}; wait until is_ready({n})"
            )
        generator = self._generator(number)
        if self._kind == "uniform":
            counts = distinct_counts(n, sizes, generator)
        else:
            counts = stratified_counts(n, masses, generator)
        # Each argument costs time, and the frame is of use where a commit saves it.
        named: dict[str, Any] = {"options": options} if options else {}
        if (method, *options.items()) not in self._forms:
            named["typed"] = True
        if self._is_owner and time.monotonic() - self._noted > _NOTE_SECONDS:
            self._noted = time.monotonic()
            named["frame"] = self._frame
        return {
            shard: self._calls.ask(shard, "draws", method, n, **named)
            for shard, n in enumerate(counts.tolist())
            if n
        }

    def _generator(self, number: int) -> np.random.Generator:
        stream = np.random.Philox(key=self._seed, counter=[0, self._copy_number, 0, number])
        return np.random.Generator(stream)

    def _parts(self, draw: _Draw) -> tuple[list[Part], int]:
        """Return the parts of a draw, and the size of the whole; draw again if a shard is lost."""
        refs = draw.refs
        while True:
            answers = self._calls.answers(refs)
            self._calls.load_facts({shard: facts for shard, (_, facts) in answers.items()})
            if len(answers) == len(refs) and all(batches for batches, _ in answers.values()):
                break
            refs = self._ask(draw.method, draw.n, draw.options, draw.number)
        masses, sizes = self._shares()
        parts = []
        for shard, (batches, _) in answers.items():
            facts = self._calls.facts[shard]
            masses[shard], sizes[shard] = facts.mass, facts.size
            parts += [Part(shard, batch, 0.0, facts.size) for batch in batches]
        shares = (masses / masses.sum()).tolist()
        return [
            Part(part.shard, self._unpacked(draw, part.batch), shares[part.shard], part.size)
            for part in parts
        ], int(sizes.sum())

    def _unpacked(self, draw: _Draw, found: Any) -> Any:
        """Return a batch of a shard, which is packed once its form is known."""
        form = (draw.method, *draw.options.items())
        if isinstance(found, list):
            return self._forms[form].unpack(found[1], found[0])
        if draw.method != "draw" and can_pack(found, draw.options):
            self._forms[form] = Form(found)
        return found

    def _finish(self, draw: _Draw, beta: float | None = None) -> Any:
        """Return the batch of a draw, and count it."""
        self._check_open()
        parts, size = self._parts(draw)
        batch = joined_batch(parts, self._n, size, self._beta_of(beta))
        self._count()
        return batch

    def _count(self) -> None:
        self._returned += 1
        self._ahead -= 1

    def _beta_of(self, beta: float | None) -> float | None:
        return None

    def _sampled(self, n: Any, out: Any, beta: float | None, options: dict[str, Any]) -> Any:
        self._check_open()
        if out is not None and type(n) is int:
            check_out(out, n)
        batch = self._finish(self._begin("sample", "batch_size", n, _unusual(options)), beta)
        return batch if out is None else fill(out, batch)

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
        options = _unusual({"pad": pad, "n_step": n_step, "gamma": gamma})
        begin = partial(self._begin, "sample", "batch_size", int(batch_size), options)
        return Prefetched(begin, self._finish, self._give_back, int(prefetch), prepare)

    def _give_back(self, draws: deque[_Draw]) -> None:
        self._given_back.extend(draws)

    def draw(self, n: int) -> diskreplay.Draw:
        """Draw as `sample` does, and return write ids and probabilities."""
        parts, _ = self._parts(self._begin("draw", "n", n, {}))
        self._count()
        ids = [part.batch.indices * self._n + part.shard for part in parts]
        probabilities = [part.batch.probabilities * part.share for part in parts]
        return diskreplay.Draw(np.concatenate(ids), np.concatenate(probabilities))

    def _sequences(self, n: int, beta: float | None, options: dict[str, Any]) -> Any:
        return self._finish(self._begin("sample_sequences", "n", n, options), beta)

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


def _unusual(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a draw that differ from the defaults: less to send."""
    defaults = {"pad": False, "n_step": 1}
    found = {name: value for name, value in options.items() if defaults.get(name) != value}
    if "n_step" not in found:
        found.pop("gamma", None)
    return found

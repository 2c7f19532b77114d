"""ReadingShards: the methods of both kinds of sharded replays that read and describe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

import diskreplay
from diskreplay.adapters.ray_shards.joining import at_rows, joined, joined_columns
from diskreplay.adapters.ray_shards.messages import Settings
from diskreplay.adapters.ray_shards.pushed_rows import PushedRows
from diskreplay.adapters.ray_shards.shard_calls import ShardCalls

_ROWS_READ = 256  # in one step of an iteration
_SUMS = (
    "disk_bytes", "payload_bytes", "records_bytes", "priorities_bytes", "links_bytes",
    "observations_bytes", "marks_bytes", "notes_bytes", "free_bytes", "memory_bytes", "commits",
    "stale_updates", "cuts", "damaged",
)  # fmt: skip


class ReadingShards:
    """An open sharded replay: the methods that read transitions, and that describe it."""

    _calls: ShardCalls
    _settings: Settings
    _pushed: PushedRows
    _kind: str
    _n: int
    _closed: bool
    _is_owner: bool
    _known_schema: Any
    _missed_updates: int
    _returned: int  # batches, by this process
    _wait_seconds = 300.0  # for a shard that is away, in calls that need all of them
    _copy_number = 0

    def _check_open(self) -> None:
        if self._closed:
            raise diskreplay.ClosedError(f"{self.path} is closed: open it again")

    # What there is

    @property
    def path(self) -> Path:
        """The directory of the shards, on each node."""
        return Path(self._settings.directory)

    @property
    def n_shards(self) -> int:
        """The number of the shards."""
        return self._n

    @property
    def capacity(self) -> int:
        """The number of transitions that all shards hold when full."""
        return self._settings.capacity

    def __len__(self) -> int:
        self._check_open()
        return sum(facts.size for facts in self._calls.facts)

    @property
    def count(self) -> int:
        """The number of transitions ever written."""
        self._check_open()
        return sum(facts.written for facts in self._calls.facts)

    @property
    def first(self) -> int:
        """The smallest live write id; `count` in an empty replay."""
        self._check_open()
        facts = enumerate(self._calls.facts)
        live = [f.first * self._n + number for number, f in facts if f.size]
        return min(live, default=self.count)

    @property
    def _end(self) -> int:
        """The number after the largest live write id."""
        facts = enumerate(self._calls.facts)
        live = [(f.written - 1) * self._n + number + 1 for number, f in facts if f.size]
        return max(live, default=self.first)

    @property
    def total_mass(self) -> float:
        """The sum of the masses of the live transitions, of shards that are away, too."""
        self._check_open()
        return sum(facts.mass for facts in self._calls.facts)

    @property
    def schema(self) -> diskreplay.Schema | None:
        """The fields of a transition; None before they are known."""
        self._check_open()
        known = self._known_schema or self._load_schema() or self._pushed.checker.schema
        found: diskreplay.Schema | None = known
        return found

    def _load_schema(self) -> diskreplay.Schema | None:
        known = [found for found in self._calls.to_all("schema").values() if found is not None]
        self._known_schema = diskreplay.Schema.from_plain(known[0]) if known else None
        found: diskreplay.Schema | None = self._known_schema
        return found

    @property
    def _frame(self) -> int:
        """The number of batches returned by the process that made the replay, over all runs."""
        if self._is_owner:
            return self._returned
        return max(facts.frame for facts in self._calls.facts)

    # Transitions

    def get(
        self, indices: ArrayLike, fields: Iterable[str] | None = None, *, pad: bool = False
    ) -> Any:
        """Return transitions by write id: all fields in a batch, or some in a dict.

        Waits for a shard that is away. Raises NotLiveError, naming the first, when a write id was
        evicted, cleared or never given, and SchemaError for an unknown field.

        >>> replay.get([3, 4], fields=["reward"])["reward"].shape
        (2,)
        """
        self._check_open()
        ids = self._checked_ids(indices)
        names = None if fields is None else self._checked_fields(fields)
        if self.schema is None:
            raise diskreplay.SampleError(f"{self.path} is empty: push transitions first")
        flat = ids.reshape(-1)
        found = self._of_shards("get", flat, names, bool(pad))
        if not found:  # no ids: any shard with rows knows the types
            shard = max(range(self._n), key=lambda number: self._calls.facts[number].written)
            ref = self._calls.ask(shard, "get", ids.reshape(-1), names, bool(pad))
            found = {shard: (np.zeros(0, np.int64), self._calls.answer(shard, ref))}
        places = np.concatenate([at for at, _ in found.values()])
        order = np.argsort(places, kind="stable")
        parts = [part for _, part in found.values()]
        if names is not None:
            whole = joined(parts)
            return {name: _shaped(at_rows(whole[name], order), ids.shape) for name in whole}
        columns = joined_columns(parts)
        batch = type(parts[0])._make(
            _shaped(at_rows(column, order), ids.shape) for column in columns
        )
        vars(batch)["indices"] = ids
        return batch

    def _checked_ids(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Return write ids as an array of their shape; raise ArgumentError as a buffer does."""
        ids = np.asarray(indices) if not isinstance(indices, list | tuple) else None
        if ids is None or ids.dtype.kind not in "iu":
            with contextlib.suppress(
                diskreplay.NotLiveError, diskreplay.SampleError, diskreplay.SchemaError
            ):
                self._pushed.checker.get(indices, ["reward"])
        return np.array(indices, np.int64)

    def _checked_fields(self, fields: Iterable[str]) -> list[str]:
        try:
            names = [] if isinstance(fields, str) else [*dict.fromkeys(fields)]
        except TypeError:
            names = []
        if not names:
            raise diskreplay.ArgumentError(f"fields must be a list of names (found {fields!r:.80})")
        return names

    def _of_shards(
        self, method: str, write_ids: NDArray[np.int64], *arguments: Any
    ) -> dict[int, tuple[NDArray[np.int64], Any]]:
        """Return by shard which of the write ids are its own, and its answer for them."""
        shards = write_ids % self._n
        places = {number: np.flatnonzero(shards == number) for number in np.unique(shards).tolist()}
        found: dict[int, Any] = {}
        try:
            while missing := places.keys() - found.keys():
                self._calls.wait_for(missing, self._wait_seconds)
                refs = {
                    number: self._calls.ask(
                        number, method, write_ids[places[number]] // self._n, *arguments
                    )
                    for number in missing
                }
                found |= self._calls.answers(refs, None)
        except diskreplay.NotLiveError:
            self._refuse_dead(write_ids)
        except diskreplay.SchemaError as error:  # it names the place of the shard
            raise diskreplay.SchemaError(_without_shard(error)) from None
        return {number: (places[number], found[number]) for number in places}

    def _refuse_dead(self, write_ids: NDArray[np.int64]) -> NoReturn:
        """Raise NotLiveError for the first write id that is not live."""
        self._calls.load_facts(self._calls.to_all("facts"))
        local, shards = write_ids // self._n, write_ids % self._n
        facts = self._calls.facts
        first = np.array([f.first for f in facts])[shards]
        count = np.array([f.written for f in facts])[shards]
        dead = write_ids[(local < first) | (local >= count)]
        if not dead.size:
            raise diskreplay.NotLiveError(f"a write id is not live any more in {self.path}")
        raise diskreplay.NotLiveError(
            f"write id {dead[0]} is not live in {self.path}: expected ids in "
            f"[{self.first}, {self._end})"
        )

    def __iter__(self) -> Iterator[Any]:
        """Yield the live transitions by write id; those evicted meanwhile are left out."""
        self._check_open()
        at, end = self.first, self._end
        while at < end:
            self._check_open()
            at = max(at, self.first)
            stop = min(at + _ROWS_READ, end)
            # The first local write ids whose whole ones are at least at, and at least stop.
            refs = {
                number: self._calls.ask(
                    number, "rows", -((number - at) // self._n), -((number - stop) // self._n)
                )
                for number in range(self._n)
            }
            found = {n: rows for n, rows in self._calls.answers(refs, None).items() if rows}
            if len(found) < len(refs) and self._calls.away:
                self._calls.wait_for(self._calls.away, self._wait_seconds)
                continue
            yield from self._in_order(found)
            at = stop

    def _in_order(self, found: dict[int, tuple[Any, Any]]) -> Iterator[Any]:
        if not found:
            return
        ids = [batch.indices * self._n + number for number, (batch, _) in found.items()]
        order = np.argsort(np.concatenate(ids))
        columns = joined_columns([batch for batch, _ in found.values()])
        kind = type(next(iter(found.values()))[1])
        for place in order.tolist():
            yield kind._make(at_rows(column, place) for column in columns)

    def episodes(self, newest_first: bool = False) -> Iterator[Any]:
        """Return an iterator over the whole episodes, by the write id of their first transition.

        newest_first:  whether those that begin last come first
        """
        self._check_open()
        numbers = self._calls.to_each("begin_episodes", newest_first, seconds=self._wait_seconds)
        return self._episodes(numbers, newest_first)

    def _episodes(self, numbers: dict[int, int], newest_first: bool) -> Iterator[Any]:
        ahead: dict[int, Any] = {}  # the next one of each shard
        wanted = list(numbers)
        while True:
            self._check_open()
            refs = {n: self._calls.ask(n, "next_episode", numbers[n]) for n in wanted}
            for number, ref in refs.items():
                episode = self._calls.answer(number, ref, None)
                if episode is not None:
                    ahead[number] = type(episode)._make(joined_columns([episode]))  # writeable
                    vars(ahead[number])["indices"] = episode.indices * self._n + number
            if not ahead:
                return
            chosen = (max if newest_first else min)(ahead, key=lambda n: ahead[n].indices[0])
            wanted = [chosen]
            yield ahead.pop(chosen)

    # The whole

    def stats(self) -> dict[str, Any]:
        """Return a description of the replay, as a plain dict.

        The keys of a buffer's stats. Sizes, counts, bytes and commits are sums over the shards:
        a flush makes a commit in each shard that has something to commit. `runs` has those of each
        shard, with its number as `shard`, and its own write ids; `openers` the processes of the
        shards; `draws` counts the batches of the whole. Shards that are away have no part in all
        of this but size, count and capacity. And n_shards, shards (size, count and mass of each),
        away (the reasons of the shards that are away, by number), outages (how often one went
        away), waiting_rows (pushed here, and not yet committed) and missed_updates (priorities for
        shards that were away).
        """
        self._check_open()
        found = self._calls.to_all("stats")
        self._calls.load_facts(self._calls.to_all("facts"))
        shards = [{"size": f.size, "count": f.written, "mass": f.mass} for f in self._calls.facts]
        schema = self.schema
        some: dict[str, Any] = next(iter(found.values()), {})
        return {
            "kind": self._kind,
            "path": str(self.path),
            "size": len(self),
            "capacity": self.capacity,
            "keep_rows": 0,
            "count": self.count,
            "schema": schema.to_plain() if schema else None,
            **{name: sum(each[name] for each in found.values()) for name in _SUMS},
            **{name: some.get(name) for name in ("durability", "commit_interval")},
            "oldest_reader": next((s["oldest_reader"] for s in found.values()), None),
            "openers": [opener for each in found.values() for opener in each["openers"]],
            "draws": self._frame,
            "marks": [],
            "notes": {},
            "runs": [
                {"shard": number, **run} for number, each in found.items() for run in each["runs"]
            ],
            "n_shards": self._n,
            "shards": shards,
            "away": {str(number): reason for number, reason in self._calls.away.items()},
            "outages": self._calls.outages,
            "waiting_rows": self._pushed.waiting_rows,
            "missed_updates": self._missed_updates,
            **self._priority_stats(found),
        }

    def _priority_stats(self, found: dict[int, dict[str, Any]]) -> dict[str, Any]:
        return {}

    def check(self) -> None:
        """Raise DamageError with the faults found in any shard."""
        self._check_open()
        self._calls.to_each("check", seconds=self._wait_seconds)

    def save(self, path: Any) -> None:
        """Write a copy of each shard to a directory, on its own node.

        A ShardedReplay of the same arguments opens it. Raises StorageError or NotAStoreError where
        it is in use.
        """
        self._check_open()
        if not isinstance(path, str | Path):
            raise diskreplay.ArgumentError(
                f"a path must be a string or a path object (found {type(path).__name__})"
            )
        self.flush()  # type: ignore[attr-defined]
        place = str(Path(path).absolute())
        self._calls.to_each("check_free", place, seconds=self._wait_seconds)
        self._calls.to_each("save", place, seconds=self._wait_seconds)

    def __repr__(self) -> str:
        size = "closed" if self._closed else f"size={len(self)}"
        return (
            f"{type(self).__name__}(n_shards={self._n}, capacity={self.capacity}, {size}, "
            f"path={str(self.path)!r})"
        )


def _shaped(column: Any, shape: tuple[int, ...]) -> Any:
    """Return a column of rows in the shape of their write ids, nested as it is."""
    if isinstance(column, dict):
        return {name: _shaped(part, shape) for name, part in column.items()}
    if isinstance(column, tuple):
        return tuple(_shaped(part, shape) for part in column)
    if isinstance(column, list):
        if len(shape) == 1:
            return column
        if not shape:
            return column[0]
        step = len(column) // shape[0] if shape[0] else 0
        return [
            _shaped(column[first * step : (first + 1) * step], shape[1:])
            for first in range(shape[0])
        ]
    return column.reshape((*shape, *column.shape[1:]))


def _without_shard(error: Exception) -> str:
    """Return the message of a shard, with the directory of the whole in place of its own."""
    return str(error).replace("/shard-", " shard ")

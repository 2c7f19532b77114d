"""Shard: a buffer in a process of its own, which Ray starts and restarts.

Its process dies at any moment. What `push` has answered is committed by then, and a group of rows
that comes again, since its answer was lost, is stored once: the note of a client says how many of
its groups are stored, and is committed with the rows::

    ray_shards.layout        which shard of how many this is, of which capacity of the whole
    ray_shards.frame         the draws of the whole
    ray_shards.client.<id>   the groups of the client that are stored

A restarted process whose store cannot be opened, since it is locked, damaged, missing, or on a full
disk, tries again at later calls, and refuses them with the reason until then.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import diskreplay
from diskreplay.adapters.ray_shards.joining import batch_at
from diskreplay.adapters.ray_shards.messages import KINDS, Facts, Group, Settings, ShardAwayError
from diskreplay.adapters.ray_shards.packing import pack

_LAYOUT, _FRAME, _CLIENT = "ray_shards.layout", "ray_shards.frame", "ray_shards.client."
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries to open the store again


class Shard:
    """A buffer, opened by this process alone. All answers but those of reads bring the facts."""

    def __init__(self, settings: Settings, *, is_restarted: bool | None = None) -> None:
        self._settings = settings
        self._buffer: Any = None
        self._known_facts: Facts | None = None  # None after a change
        self._reason = "it is not open"
        self._next_try = float("inf")  # when the store may be opened again without being asked to
        self._pause = _SHORTEST_PAUSE
        if _was_restarted() if is_restarted is None else is_restarted:
            self._open_again()

    # Opening

    def open(self, *, may_create: bool) -> Facts | None:
        """Open the store; return None, and open nothing, where there is none and may be none."""
        settings = self._settings
        if self._buffer is not None:
            return self.facts()
        exists = settings.path.exists()
        if not exists and not may_create:
            return None
        if exists:
            with diskreplay.open(settings.path, access="read") as found:
                self._check_layout(found)
        buffer = self._opened(None)
        try:
            notes = buffer.notes()
            if _LAYOUT not in notes:
                notes[_LAYOUT] = {**settings.layout, "seed": str(settings.seed)}
                buffer.set_note(_LAYOUT, notes[_LAYOUT])
                buffer.flush()
        except BaseException:
            buffer.close()
            raise
        self._seed = notes[_LAYOUT]["seed"]
        self._frame = notes.get(_FRAME, 0)
        self._groups: dict[str, int] = {
            name.removeprefix(_CLIENT): stored
            for name, stored in notes.items()
            if name.startswith(_CLIENT)
        }
        self._envs: dict[tuple[str, int], int] = {}
        self._new_envs = itertools.count()
        self._first_client: str | None = None  # whose rows without env= stay without
        self._episodes: dict[int, Iterator[Any]] = {}
        self._buffer, self._next_try, self._pause = buffer, 0.0, _SHORTEST_PAUSE
        return self.facts()

    def _open_again(self) -> None:
        """Open the store that is there, or keep the reason why it cannot be opened."""
        try:
            if self.open(may_create=False) is not None:
                return
            self._reason = (
                f"{self._settings.path} is not there: a shard must be restarted on the node that "
                "holds its store"
            )
        except (diskreplay.DiskReplayError, OSError) as error:
            self._reason = str(error)
        self._next_try = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _check_layout(self, found: Any) -> None:
        """Raise MismatchError for a store that was made as another shard."""
        expected, note = self._settings.layout, found.notes().get(_LAYOUT)
        if note is None:
            if found.count:
                raise diskreplay.MismatchError(
                    f"{found.path} is a store of its own (expected shard {expected['number']} of "
                    f"{expected['n_shards']}): give another directory"
                )
            return
        for name, value in expected.items():
            if note[name] != value:
                raise diskreplay.MismatchError(
                    f"{name} is {note[name]} in {found.path} (found {value}): open the shards as "
                    "they were made, or give a new directory"
                )

    def _opened(self, schema: list[Any] | None) -> Any:
        settings = self._settings
        options = dict(settings.options)
        if schema is not None:
            options["schema"] = diskreplay.Schema.from_plain(schema)
        if settings.kind == "prioritized":
            options |= {"beta_start": 1.0, "beta_end": 1.0}  # the whole weighs
        return KINDS[settings.kind](
            settings.capacity // settings.n_shards,
            seed=int(np.random.SeedSequence([settings.seed, settings.number]).generate_state(1)[0]),
            path=settings.path,
            **options,
        )

    @property
    def _open_buffer(self) -> Any:
        if self._buffer is None and time.monotonic() >= self._next_try:
            self._open_again()
        if self._buffer is None:
            raise ShardAwayError(f"shard {self._settings.number} is away: {self._reason}")
        return self._buffer

    def close(self) -> None:
        """Commit and close."""
        self._next_try = float("inf")
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None

    # Looking at it

    def facts(self) -> Facts:
        """Return the state of the shard."""
        buffer = self._open_buffer
        size = len(buffer)
        largest = buffer.max_priority if size and self._settings.kind == "prioritized" else None
        self._known_facts = Facts(
            size, buffer.first, buffer.count, buffer.total_mass, largest, self._frame, self._seed
        )
        return self._known_facts

    def schema(self) -> list[Any] | None:
        """Return the schema of the buffer as a plain list; None before it is known."""
        found = self._open_buffer.schema
        return found.to_plain() if found else None

    def stats(self) -> dict[str, Any]:
        """Return what the buffer says of itself."""
        found: dict[str, Any] = self._open_buffer.stats()
        return found

    def check(self) -> None:
        """Raise DamageError with the faults found."""
        self._open_buffer.check()

    # Writing

    def push(self, client: str, number: int, group: Group) -> tuple[int, Facts]:
        """Store and commit a group; return the number of the next group expected of the client.

        A group that is stored already, or that comes before an earlier one, changes nothing.
        """
        buffer = self._open_buffer
        self._known_facts = None
        if number == self._groups.get(client, 0):
            self._store(buffer, client, number, group)
        self._open_buffer.flush()  # of a group that came before, too: its commit may have failed
        return self._groups.get(client, 0), self.facts()

    def _store(self, buffer: Any, client: str, number: int, group: Group) -> None:
        for env in group.ended:
            self._end_episode(buffer, client, env)
        note = {_CLIENT + client: number + 1}
        if not group.columns:
            buffer.set_note(*note.popitem())
        else:
            if buffer.schema is None:  # a store without rows: it takes the types of the whole
                self._buffer = None  # until it is open again
                buffer.close()
                self._buffer = buffer = self._opened(group.schema)
            with warnings.catch_warnings():  # of rows that do not follow each other: others' rows
                warnings.simplefilter("ignore", diskreplay.EpisodeWarning)  # are between them
                envs = self._envs_of(client, group)
                buffer.extend(
                    **group.columns, truncateds=group.truncateds, env=envs, with_notes=note
                )
        self._groups[client] = number + 1

    def _envs_of(self, client: str, group: Group) -> NDArray[np.int64] | None:
        """Return numbers of the envs that are distinct from those of other clients."""
        if group.envs is None:
            if self._first_client is None:
                self._first_client = client
            if client == self._first_client:
                return None
        if "env" in [name for name, *_ in group.schema]:  # it is a field, too
            return group.envs
        n = len(group.columns["rewards"])
        given = np.full(n, -1) if group.envs is None else group.envs
        names, places = np.unique(given, return_inverse=True)
        numbers = [self._env(client, name) for name in names.tolist()]
        return np.array(numbers, np.int64)[places]

    def _env(self, client: str, env: int) -> int:
        if (client, env) not in self._envs:
            self._envs[client, env] = next(self._new_envs)
        return self._envs[client, env]

    def _end_episode(self, buffer: Any, client: str, env: int) -> None:
        """End the episode of an env of a client, if this process has stored one."""
        with contextlib.suppress(diskreplay.ArgumentError):  # no transition of that env
            if env < 0 and client == self._first_client:
                buffer.end_episode()
            elif (client, env) in self._envs:
                buffer.end_episode(env=self._envs[client, env])
            elif env >= 0 and buffer.schema and "env" in buffer.schema.names:
                buffer.end_episode(env=env)

    def forget(self, client: str) -> None:
        """Delete the note of a client that has ended, and its envs."""
        for name in [name for name in self._envs if name[0] == client]:
            self._end_episode(self._open_buffer, *name)
            del self._envs[name]
        if client == self._first_client:
            self._end_episode(self._open_buffer, client, -1)
            self._first_client = None
        if self._groups.pop(client, None) is not None:
            self._open_buffer.delete_note(_CLIENT + client)

    def update(self, write_ids: Any, priorities: Any) -> tuple[int, Facts]:
        """Set priorities; return how many were applied."""
        applied = self._open_buffer.update_priorities(write_ids, priorities)
        return applied, self.facts()

    def clear(self) -> Facts:
        """Remove all transitions."""
        self._open_buffer.clear()
        return self.facts()

    def flush(self, frame: int) -> Facts:
        """Commit everything, with the draws of the whole."""
        self._note_frame(frame)
        self._open_buffer.flush()
        return self.facts()

    def _note_frame(self, frame: int) -> None:
        if frame > self._frame:
            self._frame, self._known_facts = frame, None
            self._open_buffer.set_note(_FRAME, frame)

    # Drawing

    def draws(
        self,
        method: str,
        n: int,
        frame: int = 0,
        typed: bool = False,
        options: dict[str, Any] | None = None,
    ) -> list[Any]:
        """Return n of what a method draws, in parts of at most the size of the shard; and facts.

        The answer consists of lists, numbers and bytes, which Ray sends without pickle.

        frame:  the draws of the whole, where they are to be noted
        typed:  whether parts come as the method returns them, else as their size and bytes
        """
        buffer, facts = self._open_buffer, self._known_facts or self.facts()
        size = facts.size
        self._note_frame(frame)
        # With little left, as after `clear`, the whole draws again; few of much mass are drawn
        # more often than they are many.
        if not size or (n > size and self._settings.kind == "uniform"):
            return [[], list(facts)]
        call = self._whole_sequences if method == "whole_sequences" else getattr(buffer, method)
        named = options or {}
        parts = [call(min(size, n - done), **named) for done in range(0, n, size)]
        if not typed:
            parts = [[len(part.indices), pack(part)] for part in parts]
        return [parts, list(facts)]

    def _whole_sequences(self, n: int, length: int, *, pad: bool, across: bool) -> Any:
        """Return those of n sequences that are whole."""
        batch = self._open_buffer.sample_sequences(n, length, across=across)
        return batch_at(batch, np.flatnonzero(batch.mask[:, -1]))

    # Reading

    def get(self, write_ids: Any, fields: list[str] | None, pad: bool) -> Any:
        """Return transitions by write id."""
        return self._open_buffer.get(write_ids, fields, pad=pad)

    def priorities(self, write_ids: Any) -> Any:
        """Return priorities by write id."""
        return self._open_buffer.priorities(write_ids)

    def rows(self, first: int, end: int) -> tuple[Any, Any] | None:
        """Return the live transitions of a range of write ids, and one of them on its own."""
        buffer = self._open_buffer
        first, end = max(first, buffer.first), min(end, buffer.count)
        if first >= end:
            return None
        return buffer.get(np.arange(first, end)), next(iter(buffer))

    def begin_episodes(self, newest_first: bool) -> int:
        """Begin an iteration over the whole episodes, and return its number."""
        number = len(self._episodes)
        self._episodes[number] = self._open_buffer.episodes(newest_first)
        return number

    def next_episode(self, number: int) -> Any:
        """Return the next episode of an iteration; None after the last one."""
        if number not in self._episodes:
            raise ShardAwayError(
                f"shard {self._settings.number} was restarted: call episodes() again"
            )
        return next(self._episodes[number], None)

    # Copies

    def check_free(self, directory: str) -> None:
        """Raise NotAStoreError or StorageError where a directory is in use."""
        place = Path(directory)
        if (place / f"shard-{self._settings.number}").exists() or (
            place / "diskreplay.json"
        ).exists():
            raise diskreplay.StorageError(
                f"{place} holds a store already: give another directory, or remove it first"
            )
        if not place.is_dir():
            return
        strangers = [p.name for p in place.iterdir() if not p.name.startswith("shard-")]
        if strangers:
            raise diskreplay.NotAStoreError(
                f"{place} is not empty and holds no shards (found {strangers[0]}): give another "
                "directory"
            )

    def save(self, directory: str) -> None:
        """Write a copy of the store to another directory of shards."""
        place = Path(directory)
        place.mkdir(parents=True, exist_ok=True)
        self._open_buffer.save(place / f"shard-{self._settings.number}")


def _was_restarted() -> bool:
    import ray

    with warnings.catch_warnings():  # Ray asks itself in a way that it warns of
        warnings.simplefilter("ignore")
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)

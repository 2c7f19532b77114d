"""Stream: what a client's stream of calls keeps on the server from one call to the next."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diskreplay.errors import ArgumentError
from diskreplay.service.clients import Clients
from diskreplay.service.groups import Groups
from diskreplay.service.messages import MalformedMessage
from diskreplay.service.rights import Caller
from diskreplay.store import DATA, read_manifest
from diskreplay.wording import shown

_PART_BYTES = 2**24


class Served(NamedTuple):
    """A replay that is served, the groups that clients push to it, and the clients.

    group_rows:  the most rows that a client should send together
    """

    name: str
    replay: Any
    groups: Groups
    clients: Clients
    group_rows: int


class Stream:
    """What a stream of calls keeps from one call to the next."""

    replay: Any
    groups: Groups
    group_rows: int

    def __init__(self, caller: Caller, address: str) -> None:
        self._client = caller, address
        self._clients: Clients | None = None
        self._episodes: Iterator[Any] = iter(())
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._draws = self._next_draw = 0  # of this stream without others between, and after them

    def use(self, served: Served) -> None:
        """Answer the next calls by a replay; all of a stream are of one."""
        if self._clients is None:
            self._clients = served.clients
            self._clients.enter(*self._client)
        self.replay, self.groups = served.replay, served.groups
        self.group_rows = served.group_rows

    def close(self) -> None:
        """Remove what is left."""
        self.end_save()
        if self._clients is not None:
            self._clients.leave(*self._client)

    def stats(self) -> dict[str, Any]:
        """Return the description of the replay, with its clients."""
        clients = self._clients.seen_by(*self._client) if self._clients is not None else []
        return {**self.replay.stats(), "clients": clients}

    def end_save(self) -> None:
        """Remove what was saved."""
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def sample(self, batch_size: int, **options: Any) -> Any:
        """Draw a batch, and remember the draws that `take_back` may take back."""
        begin = getattr(self.replay, "_draws", 0)
        if options.pop("frames", False):
            if options.keys() - {"pad", "n_step", "gamma"}:  # readers would be processes here
                raise MalformedMessage(f"no options of a batch: {shown(options)}")
            with self.replay.batches(batch_size, frames=True, **options) as batches:
                batch = next(batches)
        else:
            batch = self.replay.sample(batch_size, **options)
        end = getattr(self.replay, "_draws", 0)
        is_alone = end == begin + 1
        self._draws = is_alone + (self._draws if begin == self._next_draw else 0) * is_alone
        self._next_draw = end
        return batch

    def take_back(self, n: int) -> None:
        """Count the last draws of this stream no more, unless others have drawn since."""
        if type(n) is not int:
            raise MalformedMessage(f"no number of draws: {shown(n)}")
        if 0 < n <= self._draws:
            self.replay._take_back(n, self._next_draw)
            self._draws = 0

    def begin_episodes(self, newest_first: bool) -> None:
        """Begin an iteration over the episodes."""
        self._episodes = self.replay.episodes(newest_first)

    def next_episode(self) -> Any:
        """Return the next episode, None at the end."""
        return next(self._episodes, None)

    def begin_save(self) -> tuple[str, int]:
        """Save the replay to a directory of this machine, and return its uuid and its size."""
        self.end_save()
        self._copy = tempfile.TemporaryDirectory(prefix="diskreplay-save-")
        place = Path(self._copy.name, "copy")
        self.replay.save(place)
        self._file = place / DATA
        return read_manifest(place).uuid, self._file.stat().st_size

    def read_saved(self, at: int) -> Any:
        """Return a part of the data file that was saved, as bytes."""
        if self._copy is None:
            raise ArgumentError("nothing was saved")
        with self._file.open("rb") as file:
            file.seek(at)
            return np.frombuffer(file.read(_PART_BYTES), np.uint8)

"""Forkable: what forks.py asks of an open buffer, which has a lock around a store."""

from __future__ import annotations

import threading
from pathlib import Path

from diskreplay.errors import StorageError
from diskreplay.store import Store


class Forkable:
    """A session, as far as forks are concerned."""

    _path: Path
    _lock: threading.RLock
    _store: Store
    _closed: bool
    _is_inherited: bool  # by a forked child that has not opened it again yet
    _is_abandoned: bool  # and it cannot: the fork came in the middle of a call

    def _is_in_call_here(self) -> bool:
        found: bool = self._lock._is_owned()  # type: ignore[attr-defined]
        return found

    def _hold_for_fork(self, seconds: float) -> bool:
        if not self._lock.acquire(timeout=seconds):
            return False
        if not self._closed and not self._is_inherited:
            self._store.settle()  # an interrupted call may have left a thread that reads
        return True

    def _release_after_fork(self) -> None:
        self._lock.release()

    def _after_fork_in_child(self, *, was_held: bool) -> None:
        self._lock = threading.RLock()
        if self._closed or (self._is_inherited and not self._is_abandoned):
            return
        self._is_abandoned = True  # until it is closed
        self._is_inherited = True
        if was_held:
            self._store.close(sync=False)
            self._is_abandoned = False
        else:
            self._store.abandon()

    def _refuse_abandoned(self) -> None:
        if self._is_abandoned:
            raise StorageError(
                f"{self._path} could not be kept out of a call when this process was forked, and "
                "cannot be used in it: fork when no call is under way, or start processes with "
                "spawn"
            )

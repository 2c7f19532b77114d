"""Guard: the lock around an open buffer; it refuses nested calls and decides when to commit."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import multiprocessing.util
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from diskreplay.buffer.autocommit import Autocommit
from diskreplay.buffer.replica import Replica, StateChange
from diskreplay.buffer.shared_writer import SharedWriter
from diskreplay.buffer.writer import Writer
from diskreplay.errors import ClosedError, ReadOnlyError, StorageError
from diskreplay.forks import forget, process, watch
from diskreplay.store import PinnedPagesWarning, Snapshot, remove_tree

_PATIENCE = 0.05  # seconds
_closing_process: object = None  # the process that will close its buffers at its end
open_guards: weakref.WeakSet[Guard] = weakref.WeakSet()


class Guard:
    """The lock around a replica: it decides when to commit, and handles forks and the end.

    Every call of a buffer holds the lock. A call that changes the replica calls `begin_change`
    before and `end_change` after the change. A thread commits changes that have waited for
    `interval` seconds. In a forked child the next call opens the store again, for reading.
    """

    replica: Replica

    def __init__(
        self,
        path: Path,
        *,
        is_temporary: bool,
        open_replica: Callable[[], Replica],
        reopen: Callable[[], Replica],
    ) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.closed = True  # until the buffer is complete
        self.is_temporary = is_temporary  # the directory is removed at the end
        self.commit_failed = False
        self._must_close_store = False
        self._reopen = reopen
        self._changed_at: float | None = None
        self._is_inherited = False  # in a forked child that has not opened the store again yet
        self._is_abandoned = False  # in a child that cannot: the fork came in the middle of a call
        self._is_child = False  # forked from a process that writes
        self._function_rule: str | None = None  # while a function of the user runs
        watch(self)
        with self.lock:  # a fork waits until the buffer is complete
            try:
                self._use_replica(open_replica())
            except BaseException:
                forget(self)
                if is_temporary:
                    remove_tree(path)
                raise
            self.closed = False
        open_guards.add(self)
        _close_at_the_end_of_children()

    # The beginning of each call

    @contextlib.contextmanager
    def reading(self) -> Iterator[Snapshot | None]:
        """Hold the lock, and load the commits of other processes."""
        self.refuse_nesting()
        with self.lock:
            self.check_open()
            with self.replica.view() as snapshot:
                yield snapshot

    def preparing(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock while a function of the user prepares a batch: it must not call the buffer.

        A batch that is drawn ahead is prepared in the middle of a call, so a call of the buffer
        would change that. It is refused without prefetch, too, so that programs can change it.
        """
        return self._refusing(
            "the call that prepares a batch: prepare= must not call the buffer; call it when the "
            "batch has been returned"
        )

    def showing_progress(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock while a function of the user shows the progress of load()."""
        return self._refusing(
            "load(): progress= must not call the buffer; call it when load() has returned"
        )

    @contextlib.contextmanager
    def _refusing(self, rule: str) -> Iterator[None]:
        with self.lock:
            try:
                self._function_rule = rule
                yield
            finally:
                self._function_rule = None

    def refuse_nesting(self) -> None:
        """Raise StorageError in a signal handler that interrupted a call of this buffer.

        The handler runs on the thread of that call, so a reentrant lock would let it in. The same
        holds for the functions of the user that a call calls.
        """
        if self.lock._is_owned():  # type: ignore[attr-defined]
            if self._function_rule is not None:
                raise StorageError(f"{self.path} is in use by {self._function_rule}")
            raise StorageError(
                f"{self.path} is in use by the call that this one interrupted: "
                "set a flag in the signal handler, and act on it after that call"
            )

    def check_open(self) -> None:
        """Raise ClosedError for a closed buffer; open the store again in a forked child."""
        if self.closed:
            raise ClosedError(f"the buffer at {self.path} is closed: open it again")
        if self._is_inherited:
            self._open_in_child()

    def writer(self) -> Writer | SharedWriter:
        """Return the replica if it may be changed, or raise ReadOnlyError."""
        if self.closed or self._is_inherited:
            self.check_open()
        if self._writer is not None:
            if self._writer.unfinished is not None:
                self._writer.unfinished()
            return self._writer
        if self._is_child:
            raise ReadOnlyError(
                f"{self.path} is written by the process from which this one was forked: a child "
                "can only read it; to write from several processes, each opens it with "
                "access='shared'"
            )
        raise ReadOnlyError(
            f"{self.path} is open with access='read': open it with access='exclusive' or "
            "'shared' to write"
        )

    # Changes and commits

    def _use_replica(self, replica: Replica) -> None:
        self.replica = replica
        self._writer = replica if isinstance(replica, Writer | SharedWriter) else None
        self._interval: float = replica.settings["commit_interval"]
        self._autocommit = Autocommit(self._interval, self._commit_when_due)

    def make_room(self, n: int, packed_bytes: int = 0) -> None:
        """Commit if n more rows, with packed values, cannot wait, or if the last commit failed."""
        if self.commit_failed or not self.writer().has_room(n, packed_bytes):
            self.commit()

    def begin_change(self) -> None:
        """Mark the buffer as changed, before a change; call `end_change` after it."""
        if self._changed_at is None:
            if self._interval > 0.0:
                self._autocommit.wake()  # its thread waits for the lock that is held here
            self._changed_at = time.monotonic()

    def end_change(self) -> None:
        """Commit a change if the interval is 0; undo it if the commit fails."""
        if self._interval == 0.0:
            try:
                self.commit()
            except BaseException:
                self.writer().undo()
                self.forget_change()
                raise

    def count_draw(self) -> None:
        """Count a draw; it is a change where the store keeps the number of draws."""
        if self.replica.draws_are_kept:
            self.begin_change()
            self.replica.count_draw()
            self.end_change()
        else:
            self.replica.count_draw()

    def skip_draw(self) -> None:
        """Count a draw whose batch cannot be given."""
        if self.replica.draws_are_kept:
            self.begin_change()
        self.replica.count_draw()
        self.end_change()

    def commit(self, *, anywhere: bool = False, change: StateChange | None = None) -> None:
        """Commit the changes, if there are any.

        anywhere:  commit also to a store that was moved from its path, so that save() can copy it
        change:    of the state of the store, which is made in the same commit
        """
        if self._changed_at is None:
            return
        store = self.replica.store
        store.must_be_in_place = not anywhere
        try:
            self.writer().commit(change)
        finally:
            store.must_be_in_place = True
        self.forget_change()
        store.pinned_pages.warn()

    def forget_change(self) -> None:
        """Mark the buffer as committed."""
        self._changed_at = None
        self.commit_failed = False

    def _commit_when_due(self) -> float | None:
        """Commit if a commit is due; return the seconds until the next, None if nothing waits."""
        # A timeout, since `close` waits for this thread and may hold the lock.
        if not self.lock.acquire(timeout=_PATIENCE):
            return 0.0
        try:
            if self.closed or self._changed_at is None:
                return None
            left = self._changed_at + self._interval - time.monotonic()
            if left > 0:
                return left
            try:
                self.commit()
            except PinnedPagesWarning:  # where warnings are errors; no caller is there to get it
                return None
            except Exception:
                self.commit_failed = True  # the next writing call meets the error itself
                return self._interval
            return None
        finally:
            self.lock.release()

    # The end

    def close(self) -> None:
        """Commit and close the store; a temporary one is removed. Twice is once."""
        self.refuse_nesting()
        with self.lock:
            if self.closed:
                if self._must_close_store:  # an interrupt has left it open
                    self._close_store(sync=False)
                return
            if self._is_inherited:
                self.closed = True  # the store is the parent's
                return
            if not self.is_temporary:
                self.commit()
            self._close_store(sync=not self.is_temporary)

    def close_at_last(self) -> None:
        """Close the store, also when the commit fails: nobody is left to try again."""
        try:
            self.close()
        finally:
            if not self.closed:
                self._close_store(sync=False)

    def _close_store(self, *, sync: bool) -> None:
        self._must_close_store = self.closed = True
        open_guards.discard(self)
        try:
            self.replica.prefetch_queues.stop()
            self._autocommit.stop()
        finally:
            try:
                self.replica.store.close(sync=sync)
            finally:
                forget(self)
                if self.is_temporary:
                    remove_tree(self.path)
        self._must_close_store = False

    # Forks, see forks.py

    def _is_in_call_here(self) -> bool:
        found: bool = self.lock._is_owned()  # type: ignore[attr-defined]
        return found

    def _hold_for_fork(self, seconds: float) -> bool:
        if not self.lock.acquire(timeout=seconds):
            return False
        if not self.closed and not self._is_inherited:
            self.replica.store.settle()  # an interrupted call may have left a thread that reads
        return True

    def _release_after_fork(self) -> None:
        self.lock.release()

    def _after_fork_in_child(self, *, was_held: bool) -> None:
        self.lock = threading.RLock()
        if self.closed or (self._is_inherited and not self._is_abandoned):
            return
        self.replica.prefetch_queues.abandon()
        self._is_abandoned = True  # until it is closed
        self._is_inherited = True
        if was_held:
            self.replica.store.close(sync=False)
            self._is_abandoned = False
        else:
            self.replica.store.abandon()

    def _open_in_child(self) -> None:
        """Open the store again, for reading, in place of the one inherited from the parent."""
        if self._is_abandoned:
            raise StorageError(
                f"{self.path} cannot be used in this process, since calls could not be kept from "
                "it when this process was forked: fork when no call is under way, or start "
                "processes with spawn"
            )
        self._is_child = self._is_child or self._writer is not None
        self.is_temporary = False
        self._use_replica(self._reopen())
        self._changed_at = None
        self._is_inherited = False

    @property
    def is_inherited(self) -> bool:
        """True where the store is open in the parent process only."""
        return self._is_inherited


def is_open_here(path: Path) -> bool:
    """Return whether a buffer of this process has the store at `path` open."""
    return any(guard.path == path and not guard.is_inherited for guard in list(open_guards))


def _close_at_the_end_of_children() -> None:
    """Call `_close_all` in a child of multiprocessing; a forked one ends without atexit."""
    global _closing_process
    if _closing_process is not process() and multiprocessing.parent_process() is not None:
        multiprocessing.util.Finalize(None, _close_all, exitpriority=0)
        _closing_process = process()


@atexit.register
def _close_all() -> None:
    """Commit and close the buffers that are still open when the program ends."""
    for guard in list(open_guards):
        try:
            guard.close_at_last()
        except Exception:
            traceback.print_exc()  # and close the other buffers all the same

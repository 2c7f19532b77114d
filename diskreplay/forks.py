"""Forks: keep open buffers sound when their process forks.

A forked child inherits the LMDB environment, but must not use it: its reader slots carry the
parent's pid. Nor may it close the environment while the parent reads, since that can free those
slots. So a fork waits until no call is under way, and no call begins until the child has closed
the environment::

    parent   starts a helper, waits | fork |  goes on
    helper   takes all locks               |  waits for the child, releases the locks
    child                                  |  new locks, closes the environments, tells the helper

At its next call the child opens the store again, for reading.

Python prints and drops an exception of a fork hook, and goes on with the fork; and a signal handler
can raise between any two lines of a hook. But handlers run in the main thread only. So another
thread, the helper, takes the locks, and the hook only waits. The hook may be interrupted at any
line; a second hook then does its work again. Interrupts that come meanwhile are raised again after
the fork. The last hook contains no Python code: an interrupt during the fork is raised at its end.

A second interrupt ends the waiting. A buffer that is in a call by then, or in a call of the forking
thread itself, cannot be used in the child.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import functools
import operator
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import Any, Protocol

from diskreplay.bell import Bell


class Forkable(Protocol):
    """An object that forks are reported to: the guard of an open buffer."""

    def _is_in_call_here(self) -> bool:
        """Return whether this thread is in a call of the object."""

    def _hold_for_fork(self, seconds: float) -> bool:
        """Keep calls from beginning; return False if a call is still under way after a while."""

    def _release_after_fork(self) -> None:
        """Allow new calls of the buffer again."""

    def _after_fork_in_child(self, *, was_held: bool) -> None:
        """Drop the parent's locks and environment; safe to interrupt and to repeat."""


_PATIENCE = 0.05  # seconds
_POLL = 0.001
_TRIES = 10  # each interrupt costs one; nobody sends as many during a fork

_process = object()
_one_at_a_time = threading.Lock()
_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_in_child: list[Callable[[], None]] = []
_pipe: list[int] = []  # of the fork under way: its child closes the write end when it is done


def process() -> object:
    """Return an object that is another one in each process: pids are used again."""
    return _process


def watch(buffer: Forkable) -> None:
    """Report forks to a buffer, as long as it exists."""
    _watched.add(buffer)


def forget(buffer: Forkable) -> None:
    """Report no more forks to a buffer."""
    _watched.discard(buffer)


def call_in_child(function: Callable[[], None]) -> None:
    """Call a function in each forked child; it must be safe to interrupt and to repeat."""
    _in_child.append(function)


def _watched_buffers() -> list[Forkable]:
    while True:
        try:
            return sorted(_watched, key=id)
        except RuntimeError:  # another thread has opened or closed a buffer meanwhile
            continue


class _ForkCall:
    """The call of os.fork that is under way in this thread."""

    def __init__(self) -> None:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        self.thread = threading.get_ident()
        self._caller = frame
        self._at = -1 if frame is None else frame.f_lasti

    def raise_again(self, error: BaseException) -> None:
        """Raise an error in the thread of the call, after the call has ended.

        Not earlier, since the error could interrupt the fork hooks of other libraries.
        """
        while self._is_under_way():
            time.sleep(_POLL)
        if isinstance(error, KeyboardInterrupt):
            signal.pthread_kill(self.thread, signal.SIGINT)
        else:
            identity, kind = ctypes.c_ulong(self.thread), ctypes.py_object(type(error))
            ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, kind)

    def forget(self) -> None:
        """Drop the caller's frame, which keeps its variables alive."""
        self._caller = None

    def _is_under_way(self) -> bool:
        frame = sys._current_frames().get(self.thread)
        while frame is not None and frame is not self._caller:
            frame = frame.f_back
        return frame is not None and frame.f_lasti == self._at


class _Fork:
    """A fork, from its first hook until the locks are released."""

    def __init__(self) -> None:
        self.call = _ForkCall()
        self.errors: list[BaseException] = []  # interrupts during the waiting
        self.held: list[Forkable] = []
        self.is_ready = False
        self._ready = Bell()
        self.is_over: SimpleQueue[None] = SimpleQueue()
        self.is_prepared = False  # True when the hooks before the fork have ended
        self._in_call = {id(one) for one in _watched_buffers() if one._is_in_call_here()}
        self._has_helper = threading.Lock()  # held by the first helper; a second one ends

    def wait(self) -> None:
        """Return when no call is under way, or after two interrupts; safe to repeat."""
        try:
            _thread.start_new_thread(self._run_helper, ())
        except RuntimeError:  # no more threads are possible: fork without the locks
            return
        if len(self.errors) < 2:
            self._ready.wait_until(lambda: self.is_ready)

    def _run_helper(self) -> None:
        if not self._has_helper.acquire(blocking=False):
            return
        with _one_at_a_time:
            try:
                with contextlib.suppress(OSError):  # no more descriptors: fork without the locks
                    _pipe.extend(os.pipe())
                    self._lock_buffers()
            finally:
                self.is_ready = True
                self._ready.ring()
                self.is_over.get()
                if not self.is_prepared:  # an interrupt ended the last hook before the fork
                    self.errors.append(KeyboardInterrupt())
                if self.errors:
                    self.call.raise_again(self.errors[0])
                self.call.forget()
                self._unlock_buffers()

    def _lock_buffers(self) -> None:
        for buffer in _watched_buffers():
            while id(buffer) not in self._in_call and self.is_over.empty():
                if buffer._hold_for_fork(_PATIENCE):
                    self.held.append(buffer)
                    break

    def _unlock_buffers(self) -> None:
        if _pipe:
            read, write = _pipe
            os.close(write)
            if self.held:
                os.read(read, 1)  # returns when the child has closed its end, or has died
            os.close(read)
            _pipe.clear()
        held, self.held = self.held, []
        for buffer in held:
            buffer._release_after_fork()


class _Local(threading.local):
    """The fork that is under way in a thread, or its last one."""

    fork: _Fork | None = None
    first_hook_done = False  # the second of two hooks asks this
    end: Callable[[Any], Any] = staticmethod(bool)  # ends the fork; bool does nothing


_local = _Local()


def _first_before() -> None:
    _local.fork = None
    _try_to_hold_calls([])
    _local.first_hook_done = True


def _second_before() -> None:
    # Where the first hook is not done, an interrupt has ended it.
    _try_to_hold_calls([] if _local.first_hook_done else [KeyboardInterrupt()])
    _local.first_hook_done = False
    if _local.fork is not None:
        _local.fork.is_prepared = True


def _try_to_hold_calls(errors: list[BaseException]) -> None:
    for _ in range(_TRIES):
        try:
            fork = _local.fork
            if fork is None or fork.is_prepared:  # an earlier fork
                if not _watched:
                    _local.end = bool
                    return
                fork = _local.fork = _Fork()
            _local.end = fork.is_over.put
            fork.errors.extend(errors)
            errors.clear()
            fork.wait()
            return
        except BaseException as error:
            errors.append(error)


def _first_in_child() -> None:
    _try_to_leave_parent([])
    _local.first_hook_done = True


def _second_in_child() -> None:
    _try_to_leave_parent([] if _local.first_hook_done else [KeyboardInterrupt()])
    _local.first_hook_done = False


def _try_to_leave_parent(errors: list[BaseException]) -> None:
    call = _ForkCall()
    for _ in range(_TRIES):
        try:
            _leave_parent()
            break
        except BaseException as error:
            errors.append(error)
    if errors:
        _thread.start_new_thread(call.raise_again, (errors[0],))


def _leave_parent() -> None:
    global _one_at_a_time, _process
    _process, _one_at_a_time = object(), threading.Lock()
    fork = _local.fork
    held = () if fork is None else tuple(fork.held)
    for function in _in_child:
        function()
    for buffer in _watched_buffers():
        buffer._after_fork_in_child(was_held=buffer in held)
    for descriptor in _pipe:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _pipe.clear()
    _local.fork, _local.end = None, bool


# Hooks before a fork run in the reverse order of their registration, hooks after it in that order.
os.register_at_fork(before=_second_before, after_in_child=_first_in_child)
os.register_at_fork(before=_first_before, after_in_child=_second_in_child)
os.register_at_fork(after_in_parent=functools.partial(operator.methodcaller("end", None), _local))

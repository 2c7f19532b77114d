"""Forks: what happens to open buffers when their process forks.

A forked child inherits the storage engine's environment, but must not use it: its reader slots
carry the parent's pid. Nor may it close the environment while the parent reads, since closing
clears the slots of that pid. So the parent waits, with no call under way, until the child has
closed it::

    parent   before: take all locks          after: wait for the child, give the locks back
    child                           after: new locks, close the environments, say so

At its next call the child opens the store again, for reading.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Watched(Protocol):
    """What is told of forks."""

    def _before_fork(self) -> None: ...

    def _after_fork_in_parent(self) -> None: ...

    def _after_fork_in_child(self) -> None: ...


_one_at_a_time = threading.Lock()
_watched: weakref.WeakSet[Watched] = weakref.WeakSet()
_forking: list[Watched] = []
_pipe: list[int] = []


def watch(session: Watched) -> None:
    """Tell `session` of forks, as long as it is there."""
    _watched.add(session)


def forget(session: Watched) -> None:
    """Tell `session` of no more forks."""
    _watched.discard(session)


def _sessions() -> list[Watched]:
    while True:
        try:
            return sorted(_watched, key=id)
        except RuntimeError:  # another thread has opened or closed a buffer meanwhile
            continue


def _before() -> None:
    _one_at_a_time.acquire()
    for session in _sessions():
        session._before_fork()
        _forking.append(session)
    if _forking:
        _pipe.extend(os.pipe())


def _after_in_parent() -> None:
    if _pipe:
        read, write = _pipe
        os.close(write)
        os.read(read, 1)  # returns when the child has closed its end, or has died
        os.close(read)
        _pipe.clear()
    while _forking:
        _forking.pop()._after_fork_in_parent()
    _one_at_a_time.release()


def _after_in_child() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.Lock()
    while _forking:
        _forking.pop()._after_fork_in_child()
    for descriptor in _pipe:
        os.close(descriptor)
    _pipe.clear()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)

"""Batches whose rows are read by processes, and a naive twin that draws the same batches."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import columns
from drawn import SIZE, as_bytes

from diskreplay import PrioritizedReplayBuffer

CAPACITY = 120
WIDE = 3000  # floats in a state of a large row
SECONDS = 60  # until a test fails that waits


def rows(first: int, n: int, width: int = 0) -> dict[str, Any]:
    """n transitions with an extra field, as arguments of `extend`; `width` makes them large."""
    made: dict[str, Any] = {**columns(first, n), "x": np.arange(first, first + n)}
    if width:
        states = np.add.outer(made["x"], np.arange(width)).astype(np.float32)
        made |= {"states": states, "next_states": states + 1}
    return made


def stored(kind: Any, path: Path | None, width: int = 0, **settings: Any) -> Any:
    """Return a full buffer whose rows are committed, and are in no window larger than needed."""
    settings = {"commit_interval": 1e9, "window_bytes": 0, "seed": 3, **settings}
    if kind is PrioritizedReplayBuffer:
        settings = {"beta_frames": 50, **settings}
    buffer = kind(CAPACITY, path=path, **settings)
    if kind is PrioritizedReplayBuffer:
        buffer.extend(**rows(0, CAPACITY, width), priorities=np.arange(CAPACITY) % 7 + 0.5)
    else:
        buffer.extend(**rows(0, CAPACITY, width))
    buffer.flush()
    return buffer


def content(batch: Any) -> bytes:
    """Return all that is in a batch."""
    return as_bytes(batch) + batch.indices.tobytes()


class Twin:
    """An iterator that draws each batch at its time, by `sample`: `ahead` batches before it."""

    def __init__(self, buffer: Any, ahead: int) -> None:
        self.buffer = buffer
        self._ahead = ahead
        self._waiting: deque[bytes] = deque()

    def __next__(self) -> bytes:
        while len(self._waiting) <= self._ahead:
            self._waiting.append(content(self.buffer.sample(SIZE)))
        return self._waiting.popleft()

    def drop(self) -> None:
        """Drop the waiting batches, whose draws then come again: see `clear` and `load`."""
        self.buffer._guard.replica.draws -= len(self._waiting)
        self._waiting.clear()


def drawn(kind: Any, n: int, width: int = 0) -> list[bytes]:
    """Return the first n batches of a stored buffer, drawn one by one."""
    with stored(kind, None, width) as buffer:
        return [content(buffer.sample(SIZE)) for _ in range(n)]


def pids_of(batches: Any) -> list[int]:
    """Return the ids of the reader processes."""
    return [reader._process.pid for reader in batches._read_ahead._readers]


def wait_until(condition: Callable[[], object]) -> None:
    """Return when a condition is true; fail if that takes too long."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def wait_for_reads(batches: Any) -> None:
    """Return when the rows of all batches that are drawn ahead are read."""
    queue = batches._read_ahead
    with batches._buffer._guard.lock:
        for ahead in list(queue._ahead):
            queue._wait_for(ahead)


def assert_sound(batch: Any, width: int) -> None:
    """Fail unless each transition is whole, and the one of its write id."""
    wanted = [rows(int(number), 1, width) for number in batch.indices]
    for name in ("states", "actions", "rewards", "next_states", "dones", "x"):
        column = np.concatenate([one[name] for one in wanted])
        np.testing.assert_array_equal(getattr(batch, name), column.astype(column.dtype), name)


def functions_of(thread: threading.Thread) -> list[str]:
    """Return the names of the functions that a thread is in."""
    frame, names = sys._current_frames().get(thread.ident or 0), []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def state_of(pid: int) -> str:
    """Return the state of a process as /proc has it: R, S, T, Z; "" when there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def shared_memory_here() -> list[str]:
    """Return the descriptors of this process that are shared memory of batches."""
    return [link for link in _descriptors_here() if "memfd:diskreplay" in link]


def pipes_here() -> list[str]:
    """Return the ends of pipes that this process has open."""
    return sorted(link for link in _descriptors_here() if link.startswith("pipe:"))


def _descriptors_here() -> list[str]:
    found = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
    return found


def maps_of_slots() -> int:
    """Return how many mappings of such memory this process has."""
    return Path("/proc/self/maps").read_text().count("memfd:diskreplay")


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Fail if a reader, its zombie, or its memory is left at the end of the block."""
    yield
    gc.collect()  # the traceback of an interrupt may refer to itself
    assert shared_memory_here() == []
    assert maps_of_slots() == 0
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if children.exists():  # a kernel may be built without
        named = {
            pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()
        }
        assert not [pid for pid, line in named.items() if not line or b"row_reader" in line]


def draw_in_child(buffer: Any, queue: Any) -> None:
    """Draw three batches with a reader in a child process, and close nothing."""
    batches = buffer.batches(SIZE, 2, 1)
    queue.put(len([next(batches) for _ in range(3)]))

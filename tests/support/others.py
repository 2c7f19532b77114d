"""Another process with a buffer on the same store, which does as it is told."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import columns, numbers_of

import diskreplay
from diskreplay import PrioritizedReplayBuffer


def serve(pipe: Connection, path: Path) -> None:
    """Do what comes over the pipe, and answer with the result or the error."""
    buffer: Any = None
    while True:
        try:
            name, arguments, settings = pipe.recv()
        except EOFError:
            return
        try:
            result: Any = None
            if name == "small_map":
                diskreplay.store.engine._LEAST_MAP_BYTES = arguments[0]
            elif name == "open":
                kind = getattr(diskreplay, settings.pop("kind", "PrioritizedReplayBuffer"))
                buffer = kind(*arguments, path=path, **{"commit_interval": 1e9, **settings})
                result = len(buffer)
            elif name == "extend":
                first, n, *given = arguments
                priorities = {"priorities": given[0]} if given else {}
                result = len(buffer.extend(**columns(first, n), **priorities, **settings))
            elif name == "extend_given":
                result = len(buffer.extend(**settings))
            elif name == "state":
                buffer.check()
                result = {
                    "count": buffer.count,
                    "numbers": [int(e.reward * 8) for e in buffer],
                    "priorities": buffer.priorities(range(buffer.first, buffer.count)).tolist(),
                    "frame": buffer.frame,
                    "max_priority": buffer.max_priority,
                }
            elif name == "update":
                result = buffer.update_priorities(*arguments)
            elif name == "sample":
                result = numbers_of(buffer.sample(*arguments)).tolist()
            elif name == "priorities":
                buffer.refresh()
                result = buffer.priorities(range(buffer.first, buffer.count)).tolist()
            elif name == "size":
                result = len(buffer)
            elif name in ("frame", "max_priority", "count"):
                result = getattr(buffer, name)
            else:
                result = getattr(buffer, name)(*arguments, **settings)
            pipe.send((True, result))
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))


class Other:
    """A process that is asked to call methods of its buffer: `other.extend(0, 5)`."""

    def __init__(self, path: Path) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["diskreplay"])
        self.process = context.Process(target=serve, args=(theirs, path), daemon=True)
        self.process.start()
        theirs.close()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **settings: Any) -> Any:
            self._pipe.send((name, arguments, settings))
            done, result = self._pipe.recv()
            if not done:
                raise RuntimeError(result)
            return result

        return call

    def kill(self) -> None:
        """End it as kill -9 does."""
        if self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *error: object) -> None:
        self._pipe.close()
        self.process.join()


def shared(path: Path, capacity: int = 1000, **arguments: Any) -> PrioritizedReplayBuffer:
    return PrioritizedReplayBuffer(
        capacity, path=path, access="shared", **{"commit_interval": 1e9, **arguments}
    )


def priorities(buffer: PrioritizedReplayBuffer) -> list[float]:
    buffer.refresh()
    return buffer.priorities(range(buffer.first, buffer.count)).tolist()

"""What the injectors share: rows that any process can check, and functions in forked children."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb.verify
import numpy as np
from numpy.typing import NDArray

import diskreplay
from diskreplay.store import check_data_file

Buffer = diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer


def columns(first: int, n: int, width: int) -> dict[str, NDArray[Any]]:
    """Return n transitions with the write ids first, first + 1, ... as arguments of `extend`."""
    return columns_of(np.arange(first, first + n), width)


def columns_of(ids: NDArray[np.int64], width: int) -> dict[str, NDArray[Any]]:
    """Return the transitions of these write ids as arguments of `extend`."""
    states = ((ids[:, None] * 31 + np.arange(width)) % 8191).astype(np.float32)
    return {
        "states": states,
        "actions": ids * 7 % 11,
        "rewards": (ids / 8).astype(np.float32),
        "next_states": states + 1,
        "dones": ids % 5 == 4,
    }


def row(write_id: int, width: int) -> dict[str, Any]:
    """Return the transition of a write id as the arguments of `push`."""
    one = columns(write_id, 1, width)
    return {name.removesuffix("s"): column[0] for name, column in one.items()}


def changed(batch: Any, write_ids: NDArray[np.int64]) -> list[int]:
    """Return the write ids of those transitions in a batch that are not what was pushed."""
    wrong = np.zeros(len(write_ids), bool)
    for name, wanted in columns_of(write_ids, batch.states.shape[1]).items():
        found = getattr(batch, name)
        differs = found != wanted.astype(found.dtype)
        wrong |= differs.reshape(len(write_ids), -1).any(axis=1)
    return [int(write_id) for write_id in write_ids[wrong]]


def live_ids(buffer: Buffer) -> NDArray[np.int64]:
    """Return the write ids of the live transitions."""
    count = buffer.count
    return np.arange(count - len(buffer), count)


def changed_in(buffer: Buffer) -> list[int]:
    """Return the write ids of live transitions that are not what was pushed."""
    ids = live_ids(buffer)
    parts = [ids[at : at + 64] for at in range(0, len(ids), 64)]
    return [wrong for part in parts for wrong in changed(buffer.get(part), part)]


def facts(buffer: Buffer) -> dict[str, Any]:
    """Return what a commit fixes beside the transitions themselves: equal facts, equal commit."""
    stats = buffer.stats()
    found = {name: stats[name] for name in ("commits", "count", "size", "stale_updates")}
    if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
        # The public surface has no way to read a priority.
        priorities = buffer._sampler.live_priorities(stats["count"] - stats["size"], stats["count"])
        found["priorities"] = hashlib.sha256(priorities.tobytes()).hexdigest()
        found["max_priority"], found["frame"] = stats["max_priority"], stats["frame"]
    return found


def verify_in_steps(path: Path) -> list[str]:
    """Return the faults of a store; the stand-in where diskreplay has no `verify`."""
    try:
        check_data_file(path)
        faults: list[str] = lmdb.verify.verify(str(path))  # type: ignore[no-untyped-call]
        if not faults:
            with diskreplay.open(path, access="read") as reader:
                reader.check()
    except (diskreplay.DiskReplayError, lmdb.verify.VerifyError) as error:
        return [str(error)]
    return faults


def verify(path: Path) -> list[str]:
    """Return the faults of a store."""
    found: list[str] = getattr(diskreplay, "verify", verify_in_steps)(path)
    return found


@dataclass(frozen=True)
class Outcome:
    """How a function in a forked child ended: with a value, an exception or a signal."""

    value: Any = None
    error: str = ""
    refused: bool = False
    signal: int = 0

    @property
    def ended(self) -> str:
        """The end in words, "" when it returned a value."""
        if self.signal == signal.SIGALRM:
            return "did not end in time"
        return f"died of {signal.Signals(self.signal).name}" if self.signal else self.error


class Child:
    """A function in a forked child, so that a crash of the engine is counted and not fatal.

    Its value has to fit JSON. It dies of SIGALRM when it takes longer than `seconds`.
    """

    def __init__(self, function: Callable[[], Any], seconds: int = 60) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            # Nothing of the parent may run here: neither its exit handlers nor its test runner.
            with contextlib.suppress(BaseException):
                _run_child(function, seconds, writing)
            os._exit(0)
        os.close(writing)
        self._sent = os.fdopen(reading, "rb")

    def kill(self) -> None:
        """Send SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def outcome(self) -> Outcome:
        """Wait for its end."""
        with self._sent as stream:
            sent = stream.read()
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            return Outcome(signal=os.WTERMSIG(status))
        return Outcome(**json.loads(sent)) if sent else Outcome(error="ended without a word")


def run_apart(function: Callable[[], Any], seconds: int = 60) -> Outcome:
    """Run a function in a forked child to its end."""
    return Child(function, seconds).outcome()


def _run_child(function: Callable[[], Any], seconds: int, writing: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # `nohup` has it ignored
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    # The engine tells of its failed assertions there, once for each.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sent: dict[str, Any]
    try:
        sent = {"value": function()}
    except diskreplay.DiskReplayError as error:
        sent = {"error": f"{type(error).__name__}: {error}", "refused": True}
    except BaseException:
        sent = {"error": traceback.format_exc()}
    with os.fdopen(writing, "wb") as stream:
        stream.write(json.dumps(sent).encode())

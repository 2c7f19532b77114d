"""Count the files of diskreplay that single calls enter, and how often they change the file."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import diskreplay

HOUSE = str(Path(diskreplay.__file__).parent)
ROWS = 1000


class Recorder:
    """The files that are entered while `recording`, in the order of entering, by thread."""

    def __init__(self) -> None:
        self.entered: dict[int, list[str]] = {}
        self._is_on = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note a call into a file of the house."""
        code = frame.f_code
        is_call = self._is_on and event == "call" and code.co_name != "<module>"
        if is_call and code.co_filename.startswith(HOUSE):
            self.entered.setdefault(threading.get_ident(), []).append(code.co_filename)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Note the calls of this thread and of all threads that began after the recorder."""
        self.entered = {}
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False

    def counts(self) -> tuple[int, int]:
        """Return how many files were entered, and how often a thread went from one to another."""
        threads = self.entered.values()
        files = {file for entered in threads for file in entered}
        return len(files), sum(a != b for entered in threads for a, b in pairwise(entered))


def measured(place: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each call with its name, once all that it needs is prepared."""
    path = place / "store"
    row: dict[str, Any] = {
        "state": [0.0, 1.0], "action": 1, "reward": 1.0, "next_state": [1.0, 2.0], "done": False,
    }  # fmt: skip
    buffer = diskreplay.PrioritizedReplayBuffer(
        ROWS, seed=0, path=path, window_bytes=0, commit_interval=60
    )
    with buffer:
        for _ in range(100):
            buffer.push(**row)
        yield "push", lambda: buffer.push(**row)
        yield "commit (flush)", buffer.flush
        buffer.sample(32)  # the first change after a commit starts the clock of the next one
        yield "sample from disk", lambda: buffer.sample(32)
        buffer.save(place / "other")
    opened: list[diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer] = []
    yield "open", lambda: opened.append(diskreplay.open(path))
    opened.pop().close()
    yield "verify", lambda: diskreplay.verify(path)
    yield "merge", lambda: diskreplay.merge([path, place / "other"], place / "merged")
    yield "repair", lambda: diskreplay.repair(path, place / "repaired")


def table() -> str:
    """Run each call on a small store in a temporary directory, and count."""
    recorder = Recorder()
    lines = ["call             | files | changes\n"]
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    try:
        with tempfile.TemporaryDirectory() as place:
            for name, call in measured(Path(place)):
                with recorder.recording():
                    call()
                files, changes = recorder.counts()
                lines.append(f"{name:<16} | {files:>5} | {changes:>7}\n")
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return "".join(lines)

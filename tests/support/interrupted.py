"""An interrupt at one line of the library after the other, as a signal handler can raise it."""

from __future__ import annotations

import functools
import gc
import linecache
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import diskreplay

LIBRARY = str(Path(diskreplay.__file__).parent)
COMPUTING = ("schema", "records", "lmdbfile")  # rooms that change nothing of a buffer


def interrupted_at(
    line: int,
    call: Callable[[], Any],
    *,
    in_locks: bool = False,
    over: Iterable[str] = (),
    error: type[BaseException] = KeyboardInterrupt,
) -> bool:
    """Run a call with an interrupt before its n-th line; return whether it came so far.

    in_locks:  count the lines, and the ends, of functions of `threading`, too
    over:      rooms whose lines do not count
    error:     that the signal handler raises
    """
    places = (LIBRARY, threading.__file__) if in_locks else (LIBRARY,)
    passed_over = tuple(f"{LIBRARY}/{room}/" for room in over)
    passed = 0

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        file = frame.f_code.co_filename
        return pass_line if file.startswith(places) and not file.startswith(passed_over) else None

    def pass_line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal passed
        # The end of a `with` is traced at its first line, where the interpreter, whose checks for
        # signals are elsewhere, never raises: the lock would stay locked. So it would at a `try:`.
        if event == "line":
            counts = not _begins_a_block(frame.f_code.co_filename, frame.f_lineno)
        else:
            counts = event == "return" and frame.f_code.co_filename == threading.__file__
        if counts:
            passed += 1
            if passed == line:
                sys.settrace(None)
                raise error
        return pass_line

    before = sys.gettrace()
    gc.disable()  # it would run the ends of other tests' buffers within the call
    sys.settrace(enter)
    try:
        call()
    except error:
        return True
    finally:
        sys.settrace(before)
        gc.enable()
    return False


@functools.cache  # or most of the time of a test would be spent on it
def _begins_a_block(file: str, line: int) -> bool:
    return linecache.getline(file, line).strip().startswith(("with ", "try:"))

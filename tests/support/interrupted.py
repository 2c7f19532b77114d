"""An interrupt at one line of the library after the other, as a signal handler can raise it."""

from __future__ import annotations

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

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal passed
        file = frame.f_code.co_filename
        if not file.startswith(places) or file.startswith(passed_over):
            return None
        text = linecache.getline(file, frame.f_lineno).strip()
        # The end of a `with` is traced at its first line, where the interpreter, whose checks for
        # signals are elsewhere, never raises: the lock would stay locked. So it would at a `try:`.
        is_end = event == "return" and file == threading.__file__
        if is_end or (event == "line" and not text.startswith(("with ", "try:"))):
            passed += 1
            if passed == line:
                sys.settrace(None)
                raise error
        return trace

    before = sys.gettrace()
    gc.disable()  # it would run the ends of other tests' buffers within the call
    sys.settrace(trace)
    try:
        call()
    except error:
        return True
    finally:
        sys.settrace(before)
        gc.enable()
    return False

"""An interrupt at one line of the library after the other, as a signal handler can raise it."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import diskreplay

LIBRARY = str(Path(diskreplay.__file__).parent)


def interrupted_at(line: int, call: Callable[[], Any]) -> bool:
    """Run a call with an interrupt before its n-th line; return whether it came so far."""
    passed = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal passed
        if not frame.f_code.co_filename.startswith(LIBRARY):
            return None
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        # The end of a `with` is traced at its first line, where the interpreter, whose checks for
        # signals are elsewhere, never raises: the lock would stay locked.
        if event == "line" and not text.startswith("with "):
            passed += 1
            if passed == line:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False

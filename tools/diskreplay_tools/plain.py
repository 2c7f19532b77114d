"""Values as JSON has them: what JSON has no number for is a word."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def plain(value: Any) -> Any:
    """Return a value as JSON has it.

    What JSON has no number for is a string: "NaN", "Infinity", "-Infinity". A complex number is
    a list of its two parts. Bytes are a string in Base64.
    """
    if isinstance(value, np.ndarray | np.generic):
        simple = value.dtype.kind in "biu" or (value.dtype.kind == "f" and np.isfinite(value).all())
        return value.tolist() if simple else plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def number_of(value: Any) -> Any:
    """Return the number that `plain` made a word of, and everything else as it is."""
    return _WORDS.get(value, value) if isinstance(value, str) else value


def dumps(value: Any) -> str:
    """Return a value as JSON, in one line."""
    return json.dumps(plain(value), allow_nan=False)


def json_lines(facts: Mapping[str, Any], **lists: Iterable[Any]) -> Iterator[str]:
    """Yield a JSON object line by line: a line for each fact, and for each entry of a list."""
    yield "{"
    left = len(facts) + len(lists)
    for name, value in facts.items():
        left -= 1
        yield f"  {json.dumps(name)}: {dumps(value)}{',' * (left > 0)}"
    for name, entries in lists.items():
        left -= 1
        yield f"  {json.dumps(name)}: ["
        before = ""
        for entry in entries:
            if before:
                yield f"{before},"
            before = f"    {dumps(entry)}"
        if before:
            yield before
        yield f"  ]{',' * (left > 0)}"
    yield "}"

"""Numbers, shares and times as text."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np


def moment(seconds: Any, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time in seconds since 1970 as a local time. What is stored may be anything."""
    try:
        return time.strftime(form, time.localtime(float(seconds)))
    except (TypeError, ValueError, OverflowError, OSError):
        return "at a time unknown"


def number(value: Any, digits: int = 4) -> str:
    """Return a number with so many digits that count, and with thousands separators.

    >>> number(1234567), number(0.123456), number(-12345.678), number(1.5e-7), number(2.0)
    ('1,234,567', '0.1235', '-12,346', '1.5e-07', '2')
    """
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    if isinstance(value, complex | np.complexfloating):
        imaginary = number(value.imag, digits)
        sign = "" if imaginary.startswith("-") else "+"
        return f"{number(value.real, digits)}{sign}{imaginary}j"
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return _trimmed(f"{value:,.{decimals}f}")


def known(least: int, most: int) -> str:
    """Return a number of which it is known that it is at least and at most so large.

    >>> known(5, 5), known(0, 5), known(1200, 5000)
    ('5', 'at most 5', '1,200 to 5,000')
    """
    if least == most:
        return f"{most:,}"
    return f"{least:,} to {most:,}" if least else f"at most {most:,}"


def percent(part: float, whole: float) -> str:
    """Return a share in percent, which is 0 or 100 only where that is true."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.05:
        return "<0.1 %"
    return ">99.9 %" if 99.95 <= share < 100 else f"{share:.1f} %"


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text

"""Wording: numbers of things and of bytes, and values, as words for messages."""

from __future__ import annotations

_MOST_SHOWN, _MOST_SAID = 100, 400  # characters of a value, and of a message of others


def count_of(n: int, thing: str) -> str:
    """Return a number of things, with the singular or plural.

    >>> count_of(1, "byte"), count_of(0, "run"), count_of(2000, "transition")
    ('1 byte', '0 runs', '2,000 transitions')
    """
    return f"{n:,} {thing}{'s' * (n != 1)}"


def shown(value: object) -> str:
    """Return the repr of a value that a message shows as found, cut where it is long.

    >>> shown([1, 2]), shown("ab" * 10_000)[-4:]
    ('[1, 2]', 'a...')
    """
    try:
        if type(value) in (str, bytes, list):  # all of a large one would take long
            value = value[:_MOST_SHOWN]  # type: ignore[index]
        return cut(repr(value), _MOST_SHOWN)
    except Exception:  # an object may raise anything, and an int may be too long for decimal digits
        return f"<{type(value).__name__}>"


def cut(text: str, most: int = _MOST_SAID) -> str:
    """Return a message of others, which may show a value in full, cut where it is long."""
    return text if len(text) <= most else f"{text[:most]}..."


def human(n: float) -> str:
    """Return a number of bytes with three digits and a decimal unit.

    >>> human(1), human(999), human(4_120_000), human(6.06e8)
    ('1 byte', '999 bytes', '4.12 MB', '606 MB')
    """
    if n < 1000:
        return count_of(round(n), "byte")
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        n /= 1000
        if n < 999.5 or unit == "PB":
            break
    return f"{n:.{2 if n < 9.995 else 1 if n < 99.95 else 0}f} {unit}"

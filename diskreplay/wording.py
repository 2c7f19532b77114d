"""Words: a number of things, of one as of many."""

from __future__ import annotations


def count_of(n: int, what: str) -> str:
    """Return a number of things.

    >>> count_of(1, "byte"), count_of(0, "run"), count_of(2000, "transition")
    ('1 byte', '0 runs', '2,000 transitions')
    """
    return f"{n:,} {what}{'s' * (n != 1)}"

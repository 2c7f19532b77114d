"""Bells, by which threads wake each other."""

from __future__ import annotations

import pytest

from diskreplay.bell import Bell


def test_an_interrupted_wait_keeps_no_ring_from_other_threads() -> None:
    bell = Bell()
    bell.ring()  # another thread waits for it, too

    def condition(looks: list[None] = []) -> bool:  # noqa: B006
        if looks:
            raise KeyboardInterrupt
        looks.append(None)
        return False

    with pytest.raises(KeyboardInterrupt):
        bell.wait_until(condition)
    assert bell.wait(0)

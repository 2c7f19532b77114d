"""Parts of the fault injectors: the disk that loses power, and the map of a data file."""

from __future__ import annotations

from pathlib import Path

import lmdb.verify
import numpy as np
import pytest
from injectors import TOOLS


@pytest.fixture(autouse=True)
def crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the modules of tools/crash importable."""
    monkeypatch.syspath_prepend(TOOLS)


def test_a_disk_keeps_what_was_synced_and_any_prefix_of_the_rest() -> None:
    from crash.recording import PAGE, Disk, Event

    found = set()
    for seed in range(200):
        disk = Disk()
        synced = [Event("W", 0, b"a" * 2 * PAGE), Event("S", 0, b"")]
        disk.replay([*synced, Event("D", 0, b"b"), Event("W", PAGE, b"c"), Event("W", PAGE, b"d")])
        disk.write(Event("W", 2 * PAGE, b"e"))
        disk.lose_power(np.random.default_rng(seed))
        assert disk.bytes[:PAGE] == b"b" + b"a" * (PAGE - 1)
        assert disk.bytes[PAGE + 1 : 2 * PAGE] == b"a" * (PAGE - 1)
        found.add((chr(disk.bytes[PAGE]), bytes(disk.bytes[2 * PAGE :][:1])))
    assert {one for one, _ in found} == {"a", "c", "d"}
    assert {b"", b"\0", b"e"} == {other for _, other in found}


def test_the_layout_reaches_the_pages_that_the_verifier_reaches(tmp_path: Path) -> None:
    from crash.damage import targets

    for target in targets(tmp_path):
        with (target.path / "data.mdb").open("rb") as file:
            verifier = lmdb.verify._Verifier(file, len(target.data))
            assert verifier.verify() == []
        pages = target.layout.live[:: target.layout.page]
        reached = np.flatnonzero(np.frombuffer(verifier.live, np.uint8))
        assert np.flatnonzero(pages)[2:].tolist() == reached.tolist()
        assert not (target.layout.held & ~target.layout.live).any()
        assert target.layout.structure.sum() < target.layout.held.sum() / 4

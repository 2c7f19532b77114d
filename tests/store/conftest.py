from __future__ import annotations

from pathlib import Path

import pytest
from common import columns

from diskreplay import ReplayBuffer
from diskreplay.store import trust


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of 2000 transitions."""
    with ReplayBuffer(2000, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 2000))
    return tmp_path / "b"


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What this process walks over from here on, an entry for each walk over a data file."""
    walk, found = trust.structural_faults, list[object]()
    monkeypatch.setattr(trust, "structural_faults", lambda *file: found.append(file) or walk(*file))
    return found

"""Other users of the machine, whom only root can act for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="other users need root")
NOBODY = 65534


def let_others_in(path: Path) -> None:
    """Let other users into a directory and all above it."""
    for directory in (path, *path.parents):
        if directory.stat().st_uid == 0 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)

"""crash.service in short: a server is killed beneath its clients; a broken one is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from injectors import run

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

SHORT = ("--actors", 3, "--learners", 1, "--seconds", 1, "--kills", 2, "--every", 0.3)
ACKNOWLEDGES_BEFORE_THE_COMMIT = """
import diskreplay
from diskreplay.buffer.autocommit import Autocommit
diskreplay.PrioritizedReplayBuffer.flush = lambda self: None
Autocommit.wake = lambda self: None
"""
STORES_WHAT_COMES_AGAIN = """
from diskreplay.service.groups import Groups
def store(self, client, number, n, add, real=Groups.store):
    add()
    return real(self, client, number, n, add)
Groups.store = store
"""


def test_nothing_acknowledged_is_lost_and_nothing_comes_twice(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "crash.service", *SHORT)
    assert done.status == 0, done.said
    _, clients, kills, rows, batches, *bad = done.last_line.split()
    assert (clients, bad) == ("4", ["0", "0", "0"])
    assert int(kills) >= 2
    assert int(rows.replace(",", "")) >= 2 * 3 * 50
    assert int(batches.replace(",", "")) > 0
    assert done.kept == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (ACKNOWLEDGES_BEFORE_THE_COMMIT, "acknowledged rows of actor"),
        (STORES_WHAT_COMES_AGAIN, "came twice"),
    ],
)
def test_a_broken_server_is_seen(tmp_path: Path, broken: str, said: str) -> None:
    # Learners would wait for rows that a broken server does not have after a kill.
    done = run(tmp_path, "-m", "crash.service", *SHORT, "--learners", 0, broken=broken)
    assert done.status == 1, done.said
    assert said in done.stderr
    assert done.kept

"""The injectors of power loss, full disks and damaged bits: short runs, and what they can see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import lmdb.verify
import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"
SYNCS_NOTHING = """
    import diskreplay.store.store
    flags = diskreplay.store.store._SYNC_FLAGS
    flags["system"] = flags["process"]
"""
SWALLOWS_ERRORS = """
    import diskreplay
    for kind in (diskreplay.ReplayBuffer, diskreplay.PrioritizedReplayBuffer):
        def flush(self, real=kind.flush):
            try:
                real(self)
            except diskreplay.StorageError:
                pass
        kind.flush = flush
"""
FINDS_NOTHING = "import diskreplay; diskreplay.verify = lambda path: []"
DIES = "import diskreplay, os, signal; diskreplay.verify = lambda _: os.kill(os.getpid(), 11)"
CHECKS_NO_CHECKSUM = """
    import diskreplay.records.codec
    diskreplay.records.codec._digests = lambda view: view["checksum"].copy()
"""


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the modules of tools/crash importable."""
    monkeypatch.syspath_prepend(TOOLS)


def run(tmp_path: Path, *arguments: object, sabotage: str = "") -> tuple[int, dict[str, Any]]:
    """Run an injector as a user does; the sabotage runs in each of its processes before it."""
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(sabotage))
    result = subprocess.run(
        [sys.executable, "-m", *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        cwd=TOOLS,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        timeout=300,
    )
    if "not simulated" in result.stderr:
        pytest.skip(result.stderr)
    assert result.returncode in (0, 1), result.stderr
    return result.returncode, json.loads(result.stdout)


def total(counts: dict[str, dict[str, int]], head: str) -> int:
    return sum(count.get(head, 0) for count in counts.values())


# Power loss


def test_power_loss_costs_what_the_durability_word_says(tmp_path: Path) -> None:
    status, counts = run(tmp_path, "crash.power", "--rounds", 30)
    assert status == 0
    for word in ("full", "system"):
        assert counts[word]["rounds"] == counts[word]["opened sound"] == 10
        assert counts[word]["damaged"] == counts[word]["lost more"] == 0
    assert counts["full"]["lost 0"] == 10
    assert counts["process"]["damaged"] > 3


def test_a_system_that_does_not_sync_is_found_out(tmp_path: Path) -> None:
    status, counts = run(tmp_path, "crash.power", "--rounds", 15, sabotage=SYNCS_NOTHING)
    assert status == 1
    assert counts["system"]["damaged"] > 0
    assert counts["full"]["damaged"] == 0


@pytest.mark.usefixtures("crash")
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


# Full disks


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run that meets each mode and a kill says."""
    return run(tmp_path_factory.mktemp("full"), "crash.disk", "--points", 3)[1]


@pytest.mark.parametrize("kind", ["file-size limit", "small disk"])
def test_a_full_disk_loses_nothing(kind: str, full: dict[str, Any]) -> None:
    if kind not in full["rows"]:
        pytest.skip("no small disk: mounting a tmpfs needs root")
    row = full["rows"][kind]
    assert row["points"] == row["errors clean"] == row["went on"] == 3
    assert row["committed lost"] == row["held lost"] == 0
    assert row["killed"] == 1


def test_a_store_opens_or_is_refused_on_a_full_disk(full: dict[str, Any]) -> None:
    for kind, row in full["rows"].items():
        assert row["points"] == row["errors clean"] == row["went on"] == 3, kind
    assert full["faults"] == []


def test_an_error_that_is_swallowed_is_found_out(tmp_path: Path) -> None:
    status, found = run(tmp_path, "crash.disk", "--points", 1, sabotage=SWALLOWS_ERRORS)
    assert status == 1
    assert found["rows"]["file-size limit"]["committed lost"] == 1


# Damaged bits


def test_damage_is_found_and_nothing_changed_is_returned(tmp_path: Path) -> None:
    status, counts = run(tmp_path, "crash.flip", "--rounds", 40, "--seed", 1)
    assert status == 0
    assert total(counts, "rounds") == 40
    assert total(counts, "found") + total(counts, "harmless") == 40
    assert total(counts, "found") >= 25
    for damage in ("bit of a key or value", "page zeroed", "file of another store"):
        assert counts[damage]["found"] == counts[damage]["rounds"] > 0
    assert counts["bit of slack"]["harmless"] == counts["bit of slack"]["rounds"] > 0


@pytest.mark.parametrize(
    ("sabotage", "head"),
    [
        pytest.param(FINDS_NOTHING, "missed", id="verify finds nothing"),
        pytest.param(DIES, "verify died", id="verify dies"),
        pytest.param(CHECKS_NO_CHECKSUM, "changed values", id="no checksum is checked"),
    ],
)
def test_a_library_that_sees_too_little_is_found_out(
    sabotage: str, head: str, tmp_path: Path
) -> None:
    status, counts = run(tmp_path, "crash.flip", "--rounds", 12, sabotage=sabotage)
    assert status == 1
    assert total(counts, head) > 0


@pytest.mark.usefixtures("crash")
def test_the_layout_reaches_the_pages_that_the_verifier_reaches(tmp_path: Path) -> None:
    from crash.damage import victims

    for victim in victims(tmp_path):
        with (victim.path / "data.mdb").open("rb") as file:
            verifier = lmdb.verify._Verifier(file, len(victim.data))
            assert verifier.verify() == []
        pages = victim.layout.live[:: victim.layout.page]
        reached = np.flatnonzero(np.frombuffer(verifier.live, np.uint8))
        assert np.flatnonzero(pages)[2:].tolist() == reached.tolist()
        assert not (victim.layout.held & ~victim.layout.live).any()
        assert victim.layout.structure.sum() < victim.layout.held.sum() / 4

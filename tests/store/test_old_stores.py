"""Stores that earlier versions wrote, kept as bytes: they open, go on, and lose nothing.

Each archive is named after the commit whose code wrote it. Format 1 said nothing of its layout: the
first two never had records share a value, the others had a rule for it.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inside import replica_of
from old_stores.make import OLD, Old, priorities, rows
from stores import change, stored

import diskreplay
from diskreplay import PrioritizedReplayBuffer
from diskreplay.records.seals import unseal
from diskreplay.store import FORMAT

ARCHIVES = sorted((Path(__file__).parent / "old_stores").glob("*.tar.xz"))
ALONE = ("c619afb", "290a269")
SHARED = {3056: 5, 496: 15, 980: 2, 944: 1, 48: 1, 2030: 5}  # by payload; 2030: of 5 slots


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for file in ARCHIVES:
        commit = file.name.partition(".")[0]
        found[commit] = tmp_path_factory.mktemp(commit)
        with tarfile.open(file) as archive:
            if hasattr(tarfile, "data_filter"):  # not before 3.10.12 and 3.11.4
                archive.extraction_filter = tarfile.data_filter
            archive.extractall(found[commit])
    return found


COMMITS = [file.name.partition(".")[0] for file in ARCHIVES]
TWO = pytest.mark.parametrize("commit", ["c619afb", "44213cd"])  # one of each layout
NEWER = ["08fbd2d"]  # of format 3, without the database of observations
THREE = pytest.mark.parametrize("commit", ["c619afb", "44213cd", *NEWER])


@pytest.fixture(params=COMMITS)
def commit(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=OLD, ids=lambda old: f"{old.name}-{old.count}")
def old(request: pytest.FixtureRequest) -> Old:
    found: Old = request.param
    return found


@pytest.fixture
def store(commit: str, old: Old, unpacked: dict[str, Path], tmp_path: Path) -> Path:
    """One of them, at a place of its own."""
    shutil.copytree(unpacked[commit] / old.name, tmp_path / "s")
    return tmp_path / "s"


def number_in_a_value(commit: str, old: Old) -> int:
    if not old.count:
        return 0  # it may not be chosen yet
    return 1 if commit in ALONE else SHARED[old.payload]


def check_rows(path: Path, old: Old, ids: range) -> None:
    """Compare every row, and every priority, with what was written."""
    assert diskreplay.verify(path) == []
    with diskreplay.open(path, access="read", window_bytes=0) as buffer:
        buffer.check()
        assert (buffer.count, len(buffer)) == (ids.stop, len(ids))
        if not ids:
            return
        batch = buffer.get(np.arange(ids.start, ids.stop))
        for name, column in rows(ids.start, len(ids), old.payload).items():
            np.testing.assert_array_equal(getattr(batch, name), column)
        if isinstance(buffer, PrioritizedReplayBuffer):
            given = buffer.priorities(np.arange(ids.start, ids.stop))
            np.testing.assert_array_equal(given, priorities(ids.start, len(ids)))


def extend(buffer: Any, old: Old, n: int) -> None:
    more = {"priorities": priorities(buffer.count, n)} if old.kind == "prioritized" else {}
    buffer.extend(**rows(buffer.count, n, old.payload), **more)
    buffer.flush()


def manifest(path: Path) -> Any:
    return json.loads((path / "diskreplay.json").read_text())


def layout(path: Path) -> Any:
    return unseal(stored(path, "meta", "layout"), "layout", "layout")


def test_there_are_stores_of_every_version() -> None:
    assert {file.name.partition(".")[0] for file in ARCHIVES} >= {*ALONE, "eef28bb", "44213cd"}
    assert sum(file.stat().st_size for file in ARCHIVES) < 100_000


def test_every_row_is_there_and_can_be_drawn(store: Path, old: Old, commit: str) -> None:
    check_rows(store, old, old.live)
    assert manifest(store)["format"] == (FORMAT if commit in NEWER else 1)  # as it was
    for access in ("read", "shared", "exclusive"):
        with diskreplay.open(store, access=access, window_bytes=0) as buffer:
            assert len(buffer) == len(old.live)
            if old.live:
                assert set(buffer.sample(3).actions.tolist()) <= set(old.live)


@pytest.mark.parametrize(
    ("commit", "access"),
    [*((commit, "exclusive") for commit in COMMITS), ("c619afb", "shared"), ("44213cd", "shared")],
)
def test_rows_that_are_written_to_it_cost_no_others(
    access: str, store: Path, commit: str, old: Old
) -> None:
    count, capacity = old.count, old.capacity
    is_stored = commit in NEWER  # how many records share a value
    number = layout(store)["records_per_value"] if is_stored else number_in_a_value(commit, old)
    for n in (1, 3, *[capacity // 4 + 1] * 5):  # over the end of the ring
        with diskreplay.open(store, access=access, window_bytes=0) as buffer:
            extend(buffer, old, n)
        count += n
        check_rows(store, old, range(max(old.cleared_at, count - capacity), count))
    assert manifest(store)["format"] == FORMAT  # or older versions would not know what they meet
    if old.count:
        assert layout(store)["records_per_value"] == number


@TWO
def test_one_that_was_written_to_is_refused_by_the_versions_before(store: Path, old: Old) -> None:
    uuid = manifest(store)["uuid"]
    with diskreplay.open(store) as buffer:
        extend(buffer, old, 1)
    assert manifest(store) == {"format": FORMAT, "uuid": uuid}


@THREE
def test_it_is_compacted_resized_and_goes_on(store: Path, old: Old) -> None:
    assert diskreplay.compact(store).dropped == 0
    assert manifest(store)["format"] == FORMAT
    check_rows(store, old, old.live)
    assert layout(store)["records_per_value"] >= 1
    smaller = max(1, old.capacity // 2)
    diskreplay.resize(store, smaller)
    ids = range(max(old.live.start, old.count - smaller), old.count)
    check_rows(store, old, ids)
    with diskreplay.open(store) as buffer:
        extend(buffer, old, 2)
    count = old.count + 2
    check_rows(store, old, range(max(ids.start, count - smaller), count))


@THREE
def test_it_is_repaired_saved_and_loaded(store: Path, old: Old, tmp_path: Path) -> None:
    before = manifest(store)
    assert diskreplay.repair(store, tmp_path / "repaired").copied == len(old.live)
    check_rows(tmp_path / "repaired", old, old.live)
    with diskreplay.open(store, access="read") as buffer:
        buffer.save(tmp_path / "saved")
        kind = type(buffer)
    check_rows(tmp_path / "saved", old, old.live)
    with kind(old.capacity, path=tmp_path / "loaded") as buffer:
        buffer.load(store)
    check_rows(tmp_path / "loaded", old, old.live)
    assert diskreplay.merge([store], tmp_path / "merged") == len(old.live)
    assert diskreplay.verify(tmp_path / "merged") == []
    assert manifest(store) == before
    for name in ("repaired", "saved", "loaded", "merged"):
        assert manifest(tmp_path / name)["format"] == FORMAT


@TWO
@pytest.mark.parametrize("name", ["prioritized-496", "uniform-3056", "uniform-980"])
def test_a_row_and_a_value_that_are_damaged_cost_no_others(
    name: str, commit: str, unpacked: dict[str, Path], tmp_path: Path
) -> None:
    [old] = [old for old in OLD if old.name == name and old.count > 10]
    shutil.copytree(unpacked[commit] / old.name, tmp_path / "s")
    data = tmp_path / "s" / "data.mdb"
    content = data.read_bytes()
    last = rows(old.count - 1, 1, old.payload)["states"].tobytes()
    data.write_bytes(content.replace(last, b"\xff" + last[1:]))
    assert len(diskreplay.verify(tmp_path / "s")) == 1
    with diskreplay.open(tmp_path / "s") as buffer:
        batch = buffer.get(np.arange(old.live.start, old.count - 1))
        assert batch.actions.tolist() == list(old.live)[:-1]
        extend(buffer, old, 1)
    done = diskreplay.repair(tmp_path / "s", tmp_path / "out")
    assert done.lost_ids == ((old.count - 1, old.count),)
    assert diskreplay.verify(tmp_path / "out") == []


def test_one_that_two_rules_wrote_to_is_refused_and_repaired(
    unpacked: dict[str, Path], tmp_path: Path
) -> None:
    """As a version that had records share values did to stores of the one before."""
    [old] = [old for old in OLD if old.name == "prioritized-496"]
    path = tmp_path / "s"
    shutil.copytree(unpacked["290a269"] / old.name, path)
    record = stored(path, "transitions", 0)
    change(path, "transitions", 0, record + bytes(14 * len(record)))
    before = (path / "data.mdb").read_bytes()
    for access in ("exclusive", "shared", "read"):
        with pytest.raises(diskreplay.DamageError, match=r"do not agree .* diskreplay\.repair"):
            diskreplay.open(path, access=access)
    with pytest.raises(diskreplay.DamageError, match="do not agree"):
        diskreplay.compact(path)
    assert (path / "data.mdb").read_bytes() == before
    assert "do not agree on how many records share one" in diskreplay.verify(path)[0]
    assert diskreplay.repair(path, tmp_path / "out").lost == 0
    check_rows(tmp_path / "out", old, old.live)


@THREE
def test_it_gains_links_for_its_new_rows(store: Path, old: Old) -> None:
    with diskreplay.open(store, access="read") as buffer:
        replica = replica_of(buffer)
        assert not replica.links.of(np.array(old.live, np.int64), replica.live).any()
    count = old.count
    for access in ("shared", "exclusive"):
        with diskreplay.open(store, access=access) as buffer:
            buffer.extend(**rows(count, 4, old.payload), env=3)
            buffer.flush()
            buffer.check()
            ids = np.arange(max(buffer.first, old.count), count + 4)
            replica = replica_of(buffer)
            before = (ids - 1) % 2 * -2 + 1  # rows of odd numbers are done
            expected = np.where((ids - old.count) % 4 == 0, 0, before)
            assert replica.links.of(ids, replica.live).tolist() == expected.tolist()
        count += 4
        assert "links" in layout(store)["features"]  # so that older versions refuse it
        assert diskreplay.verify(store) == []

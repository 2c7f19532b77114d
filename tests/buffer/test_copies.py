"""save and load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_has_a_uuid_of_its_own_and_goes_on_alike(kind: Any, tmp_path: Path) -> None:
    buffer = kind(100, path=tmp_path / "b", seed=4)
    buffer.extend(**columns(0, 250))
    buffer.sample(10)
    buffer.save(tmp_path / "copy")
    with diskreplay.open(tmp_path / "copy") as copy:
        for _ in range(20):
            assert numbers_of(copy.sample(10)).tolist() == numbers_of(buffer.sample(10)).tolist()
    manifests = {(tmp_path / n / "diskreplay.json").read_text() for n in ("b", "copy")}
    assert len({json.loads(manifest)["uuid"] for manifest in manifests}) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", [0, 30, 260])
@pytest.mark.parametrize("capacity", [60, 100, 400])
def test_load_replaces_the_contents(kind: Any, own: int, capacity: int, tmp_path: Path) -> None:
    with kind(100, path=tmp_path / "saved", seed=4) as saved:
        saved.extend(**columns(0, 250))
        saved.sample(10)
        if kind is PrioritizedReplayBuffer:
            saved.update_priorities(np.arange(150, 250), np.linspace(0, 9, 100))
        expected = saved.stats()
    buffer = kind(capacity, path=tmp_path / "b", seed=5)
    if own:
        buffer.extend(**columns(1000, own))
    buffer.load(tmp_path / "saved")
    buffer.check()
    kept = min(100, capacity)
    assert [int(e.reward * 8) for e in buffer] == list(range(250 - kept, 250))
    ids = buffer.stats()["count"]
    assert ids >= own + kept
    assert (ids - 250) % capacity == 0
    if kind is PrioritizedReplayBuffer and capacity >= 100:
        for name in ("priority_min", "priority_max", "max_priority", "frame", "beta"):
            assert buffer.stats()[name] == expected[name]
    if capacity == 100:
        with diskreplay.open(tmp_path / "saved") as saved:
            for _ in range(10):
                wanted = numbers_of(saved.sample(10)).tolist()
                assert numbers_of(buffer.sample(10)).tolist() == wanted
    buffer.push(**row(250))
    buffer.close()
    with diskreplay.open(tmp_path / "b") as again:
        assert [int(e.reward * 8) for e in again] == list(range(251 - min(101, capacity), 251))


def test_load_refuses_another_schema_or_kind_and_changes_nothing(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "wide") as other:
        other.push([0.0] * 9, 0, 0.0, [0.0] * 9, False)
    with PrioritizedReplayBuffer(10, path=tmp_path / "prioritized") as other:
        other.extend(**columns(0, 5))
    buffer = ReplayBuffer(10, path=tmp_path / "b")
    buffer.extend(**columns(0, 5))
    for name, message in [
        ("wide", r"field 'state' is float32\[9\]"),
        ("prioritized", r"holds a prioritized buffer \(expected uniform\)"),
    ]:
        with pytest.raises(diskreplay.MismatchError, match=message):
            buffer.load(tmp_path / name)
    with pytest.raises(diskreplay.LockedError):
        buffer.load(tmp_path / "b")
    with pytest.raises(diskreplay.NotAStoreError):
        buffer.load(tmp_path / "nothing")
    assert [int(e.reward * 8) for e in buffer] == list(range(5))
    buffer.push(**row(5))


def test_an_empty_saved_store_loads_as_empty(tmp_path: Path) -> None:
    ReplayBuffer(10, path=tmp_path / "empty").close()
    buffer = ReplayBuffer(10)
    buffer.extend(**columns(0, 5))
    buffer.load(tmp_path / "empty")
    assert len(buffer) == 0
    assert buffer.push(**row(10)) >= 5


def test_load_finds_extra_fields_by_name_and_refuses_other_ones(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "saved") as saved:
        saved.push(**row(0), x=1.0, y=2.0)
    buffer = ReplayBuffer(10)
    buffer.push(**row(0), y=9.0, x=8.0)
    buffer.load(tmp_path / "saved")
    [experience] = buffer
    assert (experience.y, experience.x) == (2.0, 1.0)
    without = ReplayBuffer(10)
    without.push(**row(0))
    with pytest.raises(diskreplay.MismatchError, match="the fields are Schema"):
        without.load(tmp_path / "saved")
    assert len(without) == 1
    given = ReplayBuffer(10, schema={"state": ("float64", (3,))})
    with pytest.raises(diskreplay.MismatchError, match="field 'state' is float32"):
        given.load(tmp_path / "saved")
    assert given.schema is None


def test_load_shows_its_progress_in_rows(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(100_000, path=tmp_path / "saved") as saved:
        saved.extend(**columns(0, 90_000))
    buffer = PrioritizedReplayBuffer(100_000, path=tmp_path / "b")
    steps: list[tuple[int, int]] = []
    buffer.load(tmp_path / "saved", progress=lambda done, total: steps.append((done, total)))
    assert len(steps) > 1
    assert {total for _, total in steps} == {90_000}
    last_start = max(i for i in range(len(steps)) if i == 0 or steps[i] < steps[i - 1])
    assert steps[last_start:] == sorted(set(steps[last_start:]))
    assert steps[-1] == (90_000, 90_000)


def test_an_exception_of_progress_undoes_a_load(tmp_path: Path) -> None:
    with ReplayBuffer(100, path=tmp_path / "saved") as saved:
        saved.extend(**columns(0, 90))
    buffer = ReplayBuffer(100, path=tmp_path / "b")
    buffer.extend(**columns(1000, 5))

    def use(_: int, __: int) -> None:
        buffer.push(**row(0))

    rule = r"b is in use by load\(\): progress= must not call the buffer; call it when load\(\) has"
    with pytest.raises(diskreplay.StorageError, match=rule):
        buffer.load(tmp_path / "saved", progress=use)
    buffer.check()
    assert [int(e.reward * 8) for e in buffer] == list(range(1000, 1005))
    buffer.load(tmp_path / "saved")
    assert len(buffer) == 90

"""Stores that a later version wrote: refused by name, or what is new in them is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from common import columns, row
from stores import FIELDS, change, prioritized, stored, uniform

import diskreplay
from diskreplay import (
    DamageError,
    FormatVersionError,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    verify,
)
from diskreplay.records.seals import seal, unseal
from diskreplay.sampling import PrioritySettings
from diskreplay.store import RunSettings


def fact(path: Path, name: str) -> Any:
    return unseal(stored(path, "meta", name), name, name)


def put(path: Path, name: str, content: Any) -> None:
    change(path, "meta", name, seal(name, content))


def files(path: Path) -> dict[str, Any]:
    """All there is of a store, and when it was changed."""
    return {
        str(file.relative_to(path)): (
            file.stat().st_mtime_ns,
            file.stat().st_ino,
            file.read_bytes() if file.is_file() else sorted(x.name for x in file.iterdir()),
        )
        for file in [path, *path.rglob("*")]
    }


def in_the_manifest(path: Path) -> str:
    manifest = json.loads((path / "diskreplay.json").read_text())
    text = json.dumps({**manifest, "features": ["observation-log", "copies"]})
    (path / "diskreplay.json").write_text(text)
    return "uses 'copies', which this diskreplay does not know .*install a newer version"


def in_the_layout(path: Path) -> str:
    put(path, "layout", {**fact(path, "layout"), "features": ["frames", "lanes"]})
    return "uses 'frames', 'lanes', which this diskreplay does not know .*install a newer version"


def another_format(path: Path) -> str:
    manifest = json.loads((path / "diskreplay.json").read_text())
    (path / "diskreplay.json").write_text(json.dumps({**manifest, "format": 4}))
    return r"has format 4 \(this diskreplay reads 1, 2, 3\): install a newer version"


def other_blocks(path: Path) -> str:
    put(path, "layout", {**fact(path, "layout"), "slots_per_block": 500})
    return "has 500 slots in a priority block .*install a newer version"


CALLS: list[Callable[[Path], object]] = [
    diskreplay.open,
    lambda path: diskreplay.open(path, access="shared"),
    lambda path: diskreplay.open(path, access="read"),
    lambda path: ReplayBuffer(300, path=path),
    lambda path: ReplayBuffer(300, path=path, access="shared", schema=FIELDS),
    lambda path: PrioritizedReplayBuffer(1100, path=path, access="read"),
    diskreplay.compact,
    lambda path: diskreplay.resize(path, 7),
    lambda path: diskreplay.convert(path, "uniform"),
    lambda path: diskreplay.merge([path], path.with_name("out")),
    lambda path: diskreplay.repair(path, path.with_name("out")),
    lambda path: ReplayBuffer(300).load(path),
]


@pytest.mark.parametrize("make", [uniform, prioritized])
@pytest.mark.parametrize("later", [in_the_manifest, in_the_layout, another_format, other_blocks])
def test_what_needs_a_newer_reader_is_refused_by_name_and_left_alone(
    later: Callable[[Path], str], make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path / "s")
    words = later(path)
    (path / "data.known").unlink()
    (path / "lock.mdb").unlink()
    before = files(path)
    for call in CALLS:
        with pytest.raises(FormatVersionError, match=words):
            call(path)
        assert files(path) == before
    with pytest.raises(FormatVersionError) as caught:
        diskreplay.open(path)
    assert verify(path) == [str(caught.value)]
    assert files(path) == before
    assert sorted(tmp_path.iterdir()) == [path]


def test_features_that_are_no_list_of_names_are_damage(tmp_path: Path) -> None:
    path = uniform(tmp_path / "s")
    manifest = json.loads((path / "diskreplay.json").read_text())
    for features in (None, {}, "log", [3]):
        (path / "diskreplay.json").write_text(json.dumps({**manifest, "features": features}))
        with pytest.raises(DamageError, match="does not list its features"):
            diskreplay.open(path)
        [fault] = verify(path)
        assert "does not list its features" in fault


def with_news(path: Path) -> dict[str, Any]:
    """Have a store hold what this version does not know, everywhere; return it."""
    state = fact(path, "state")
    state["settings"] |= {"gamma": 0.99, "later": {"a": [1]}}
    state["sampler"]["horizon"] = 7
    state["episodes"] = [1, 2, 3]
    put(path, "state", state)
    put(path, "layout", {**fact(path, "layout"), "hint": "x"})
    put(path, "identity", {**fact(path, "identity"), "made_by": "later"})
    put(path, "marks", {"best": 12})
    with lmdb.open(str(path), max_dbs=8, map_size=1 << 42) as env:
        for flags in ({}, {"integerkey": True}):
            db = env.open_db(f"new {len(flags)}".encode(), **flags)
            with env.begin(write=True, db=db) as txn:
                for number in range(700):
                    txn.put(number.to_bytes(8, "little"), bytes([number % 256]) * 20)
    return news(path)


def news(path: Path, *, all_of_it: bool = True) -> dict[str, Any]:
    state = fact(path, "state")
    known = ("settings", "sampler", "count", "start", "commits", "runs", "run", "seed", "draws")
    found = {
        "state": {k: v for k, v in state.items() if k not in (*known, "stale_updates", "cuts")},
        "settings": {k: v for k, v in state["settings"].items() if k in ("gamma", "later")},
        "sampler": {k: v for k, v in state["sampler"].items() if k == "horizon"},
    }
    if all_of_it:
        found |= {"marks": fact(path, "marks"), "hint": fact(path, "layout")["hint"]}
        found["made_by"] = fact(path, "identity")["made_by"]
        with lmdb.open(str(path), max_dbs=8, readonly=True) as env:
            for name in (b"new 0", b"new 1"):
                db = env.open_db(name, create=False)
                with env.begin(db=db) as txn:
                    flags = {flag for flag, is_set in db.flags(txn).items() if is_set}
                    found[name.decode()] = flags, dict(txn.cursor())
    return found


KINDS = [uniform, prioritized]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_what_is_new_survives_every_commit(
    make: Callable[[Path], Path], access: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "s")
    before = with_news(path)
    assert verify(path) == []
    for _ in range(2):
        with diskreplay.open(path, access=access) as buffer:
            buffer.extend(**columns(buffer.count, 5))
            buffer.sample(1)
            buffer.flush()
            buffer.clear()
            buffer.push(**row(0))
            assert buffer.stats()["count"] == buffer.count
    assert news(path) == before
    assert verify(path) == []


@pytest.mark.parametrize("make", KINDS)
def test_what_is_new_survives_copies(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / "s")
    before = with_news(path)
    with diskreplay.open(path) as buffer:
        kind, capacity = type(buffer), buffer.capacity
        buffer.save(tmp_path / "saved")
    assert news(tmp_path / "saved") == before
    diskreplay.compact(path)
    assert news(path) == before
    diskreplay.resize(path, capacity - 50)
    assert news(path) == before
    assert verify(path) == verify(tmp_path / "saved") == []
    other = "uniform" if make is prioritized else "prioritized"
    diskreplay.convert(tmp_path / "saved", other)
    assert news(tmp_path / "saved") == before
    assert verify(tmp_path / "saved") == []
    diskreplay.convert(tmp_path / "saved", "uniform" if make is uniform else "prioritized")
    part = news(path, all_of_it=False)
    with kind(capacity, path=tmp_path / "loaded") as buffer:
        buffer.load(path)
        buffer.push(**row(0))
    with diskreplay.open(tmp_path / "loaded") as buffer:
        buffer.push(**row(1))
    assert news(tmp_path / "loaded", all_of_it=False) == part
    diskreplay.merge([path, tmp_path / "saved"], tmp_path / "merged")
    assert news(tmp_path / "merged", all_of_it=False) == part
    diskreplay.repair(path, tmp_path / "repaired")
    assert news(tmp_path / "repaired", all_of_it=False) == part


def test_a_setting_that_is_missing_is_what_the_constructors_have(tmp_path: Path) -> None:
    path = prioritized(tmp_path / "s")
    state = fact(path, "state")
    state["settings"] = {"beta_end": 0.8}
    put(path, "state", state)
    assert verify(path) == []
    with diskreplay.open(path) as buffer:
        stats = buffer.stats()
    usual = PrioritizedReplayBuffer(10).stats()
    names = ("alpha", "beta_start", "beta_frames", "epsilon", "durability", "commit_interval")
    assert [stats[name] for name in names] == [usual[name] for name in names]
    assert stats["beta_end"] == 0.8
    diskreplay.compact(path)
    assert verify(path) == []


def test_the_settings_in_the_table_are_those_of_the_constructors() -> None:
    usual = PrioritizedReplayBuffer.__init__.__kwdefaults__ or {}
    assert RunSettings.of(usual) == RunSettings()
    names = PrioritizedReplayBuffer.__init__.__code__.co_varnames[2:7]
    defaults = (PrioritizedReplayBuffer.__init__.__defaults__ or ())[:5]
    assert dict(zip(names, defaults, strict=True)) == PrioritySettings().to_plain()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 1.5),
        ("alpha", "0.6"),
        ("beta_frames", 0),
        ("epsilon", 0.0),
        ("commit_interval", -1.0),
        ("commit_interval", None),
        ("durability", "sometimes"),
        ("durability", ["system"]),
    ],
)
def test_a_setting_that_is_none_is_damage(name: str, value: Any, tmp_path: Path) -> None:
    path = prioritized(tmp_path / "s")
    state = fact(path, "state")
    state["settings"][name] = value
    put(path, "state", state)
    assert len(verify(path)) == 1
    for call in (diskreplay.open, diskreplay.compact):
        with pytest.raises(DamageError, match="settings"):
            call(path)
    with PrioritizedReplayBuffer(1100, path=path) as buffer:  # which says itself what it wants
        assert len(buffer) == 350
    assert np.isfinite(buffer.capacity)

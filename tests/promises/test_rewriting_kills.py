"""Stores that are rewritten, replaced or copied: killed at each step or any moment, interrupted."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from common import columns, contents
from kills import around_changes, at_random, is_killed_before
from refused import writes_refused
from stores import told

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


def replace(path: Path) -> None:
    ReplayBuffer(77, path=path, seed=1, if_exists="replace").close()


REWRITINGS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "compact": (stores.prioritized, diskreplay.compact),
    "resize": (stores.prioritized, lambda path: diskreplay.resize(path, 200)),
    "to uniform": (stores.prioritized, lambda path: diskreplay.convert(path, "uniform")),
    "to prioritized": (stores.uniform, lambda path: diskreplay.convert(path, "prioritized")),
    "replace": (stores.uniform, replace),
    "compact a log": (stores.logged, diskreplay.compact),
    "resize a log": (stores.logged, lambda path: diskreplay.resize(path, 50)),
}


def all_of(path: Path) -> str:
    with diskreplay.open(path, access="read") as buffer:
        kind = type(buffer).__name__, buffer.capacity
    return repr((kind, told(path)))


@pytest.mark.parametrize("name", REWRITINGS)
def test_a_kill_at_each_step_leaves_one_or_the_other(name: str, tmp_path: Path, long: bool) -> None:
    make, rewrite = REWRITINGS[name]
    path, kept = make(tmp_path / "s"), tmp_path / "kept"
    shutil.copytree(path, kept)
    old = all_of(path)
    rewrite(path)
    new = all_of(path)
    assert (old == new) == name.startswith("compact")
    shutil.rmtree(path)
    shutil.copytree(kept, path)
    files, looks = contents(path), 0

    def look(is_near: bool) -> str:
        """Say what the store holds, and whether its files are the old ones."""
        nonlocal looks
        looks += 1
        now = {name: data for name, data in contents(path).items() if "/" not in name}
        if now == files and (path / "lock.mdb").exists() and not is_near and looks % 10:
            return f"True {old}"
        found = all_of(path)
        if is_near or looks % 10 == 0:
            assert diskreplay.verify(path) == []
        return f"{now == files} {found}"

    seen = set(around_changes(lambda: rewrite(path), path, look, 1 if long else 5))
    assert seen == {f"True {old}", f"False {new}"}
    shutil.rmtree(path)
    shutil.copytree(kept, path)
    assert is_killed_before(30, lambda: rewrite(path))
    rewrite(path)
    assert not list(path.glob(".diskreplay-rewritten-*"))


def repair(paths: list[Path], out: Path, **more: Any) -> None:
    diskreplay.repair(paths[0], out, **more)


def transform(paths: list[Path], out: Path, **more: Any) -> None:
    diskreplay.transform(paths[0], out, lambda c: {"reward": c["reward"] * 2}, **more)


@pytest.mark.parametrize(
    ("copy", "rows", "make"),
    [
        (repair, 300, stores.uniform),
        (diskreplay.merge, 600, stores.uniform),
        (repair, 200, stores.logged),
        (diskreplay.merge, 400, stores.logged),
        (transform, 350, stores.prioritized),
        (transform, 200, stores.logged),
    ],
)
def test_a_kill_at_each_step_leaves_a_whole_copy_or_none(
    copy: Any, rows: int, make: Callable[[Path], Path], tmp_path: Path, long: bool
) -> None:
    paths, out = [make(tmp_path / name) for name in "ab"], tmp_path / "new" / "out"
    out.parent.mkdir()
    before = [contents(path) for path in paths]

    def look(_: bool) -> bool:
        for path, content in zip(paths, before, strict=True):
            assert content.items() <= contents(path).items()
        if out.exists():
            assert diskreplay.verify(out) == []
            with diskreplay.open(out, access="read") as copied:
                assert len(copied) == rows
        return out.exists()

    stride = 1 if long else 5
    kills = list(around_changes(lambda: copy(paths, out), out.parent, look, stride))
    assert len(kills) > 10
    assert set(kills) == {False, True}


@pytest.mark.parametrize("name", ["compact", "resize", "merge"])
def test_kills_at_random_moments(name: str, tmp_path: Path, long: bool) -> None:
    path, kept, more = tmp_path / "s", tmp_path / "kept", tmp_path / "more"
    with PrioritizedReplayBuffer(20_000, path=kept, seed=3) as buffer:
        for first in range(0, 50_000, 5000):
            buffer.extend(**columns(first, 5000), priorities=np.arange(5000) + 1.0)
            buffer.flush()
    shutil.copytree(kept, more)
    sources = {place: contents(place) for place in (kept, more)}
    work: Callable[[], object] = {
        "compact": lambda: diskreplay.compact(path),
        "resize": lambda: diskreplay.resize(path, 15_000),
        "merge": lambda: diskreplay.merge([kept, more], path),
    }[name]

    def restore() -> None:
        shutil.rmtree(path, ignore_errors=True)
        if name != "merge":
            shutil.copytree(kept, path)

    def found() -> tuple[Any, ...] | None:
        # The random stream of a merged store begins anew.
        return told(path)[: 4 if name == "merge" else 5] if path.exists() else None

    restore()
    old = found()
    began = time.perf_counter()
    work()
    took = time.perf_counter() - began
    new = found()
    restore()
    rng, kills = random.Random(0), 0
    moments = [rng.uniform(0, 1.3 * took) for _ in range(50 if long else 6)]
    planned = len(moments)
    moments += [took / 2**n for n in range(1, 12)]  # where the call was slow only once
    for number, was_killed in enumerate(at_random(work, moments)):
        kills += was_killed
        if path.exists() and (number % 5 == 0 or long):
            assert diskreplay.verify(path) == []
        now = found()
        assert now in (old, new)
        for place, content in sources.items():
            assert content.items() <= contents(place).items()
        if now != old:
            restore()
        if kills and number + 1 >= planned:
            break
    assert kills
    restore()
    work()
    assert not list(path.glob(".diskreplay-rewritten-*"))


@pytest.mark.parametrize(
    ("copy", "says"),
    [
        (diskreplay.compact, "s, which is as it was: .*"),
        (repair, "out: "),
        (diskreplay.merge, "out: "),
        (transform, "out: "),
    ],
)
def test_an_interrupt_or_a_full_disk_leaves_nothing_behind(
    copy: Any, says: str, tmp_path: Path
) -> None:
    path = stores.uniform(tmp_path / "s")
    before = contents(tmp_path)
    call = partial(copy, [path], tmp_path / "out")
    if copy is diskreplay.compact:
        call = partial(copy, path)

    def interrupt(_: int, __: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        call(progress=interrupt)
    refusal = f"{says}the disk refused: File too large .* and call again"
    with writes_refused(), pytest.raises(diskreplay.StorageError, match=refusal):
        call()
    assert contents(tmp_path) == before
    assert [place.name for place in tmp_path.iterdir()] == ["s"]
    call()

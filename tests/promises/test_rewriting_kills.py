"""Stores that are rewritten or replaced: killed at each step, at random moments, interrupted."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stores
from common import columns, contents
from kills import at_each_step, at_random
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
}


def all_of(path: Path) -> str:
    with diskreplay.open(path, access="read") as buffer:
        kind = type(buffer).__name__, buffer.capacity
    return repr((kind, told(path)))


@pytest.mark.parametrize("name", REWRITINGS)
def test_a_kill_at_each_step_leaves_one_or_the_other(name: str, tmp_path: Path) -> None:
    make, rewrite = REWRITINGS[name]
    path, kept = make(tmp_path / "s"), tmp_path / "kept"
    shutil.copytree(path, kept)
    old = all_of(path)
    rewrite(path)
    new = all_of(path)
    assert (old == new) == (name == "compact")
    shutil.rmtree(path)
    shutil.copytree(kept, path)
    seen = set()
    for step in at_each_step(lambda: rewrite(path)):
        found = all_of(path)
        if found not in seen or step % 10 == 0:
            assert diskreplay.verify(path) == []
        seen.add(found)
        if found != old:
            shutil.rmtree(path)
            shutil.copytree(kept, path)
    assert seen == {old, new}
    assert not list(path.glob(".diskreplay-rewritten-*"))


@pytest.mark.parametrize("capacity", [None, 15_000])
def test_kills_at_random_moments(capacity: int | None, tmp_path: Path, long: bool) -> None:
    path, kept = tmp_path / "s", tmp_path / "kept"
    with PrioritizedReplayBuffer(20_000, path=path, seed=3) as buffer:
        for first in range(0, 50_000, 5000):
            buffer.extend(**columns(first, 5000), priorities=np.arange(5000) + 1.0)
            buffer.flush()
    shutil.copytree(path, kept)
    whole = {20_000: told(path)}

    def work() -> None:
        diskreplay.resize(path, capacity) if capacity else diskreplay.compact(path)

    began = time.perf_counter()
    work()
    took = time.perf_counter() - began
    whole[capacity or 20_000] = told(path)
    rng = random.Random(0)
    many = 100 if capacity is None else 20
    moments = [rng.uniform(0, 1.3 * took) for _ in range(many if long else 8)]
    kills = 0
    for number, was_killed in enumerate(at_random(work, moments)):
        kills += was_killed
        if number % 5 == 0 or long:
            assert diskreplay.verify(path) == []
        with diskreplay.open(path, access="read") as buffer:
            found = buffer.capacity
        assert told(path) == whole[found]
        if capacity:
            shutil.rmtree(path)
            shutil.copytree(kept, path)
    assert kills
    work()
    assert not list(path.glob(".diskreplay-rewritten-*"))


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    before = contents(path)

    def interrupt(_: int, __: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        diskreplay.compact(path, progress=interrupt)
    assert contents(path) == before
    diskreplay.compact(path)

"""compact, resize and convert: killed at each step, at random moments, and interrupted."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import stores
from common import columns, contents
from kills import at_each_step, at_random
from stores import told

import diskreplay
from diskreplay import PrioritizedReplayBuffer


@pytest.mark.parametrize("kind", ["uniform", "prioritized"])
def test_a_kill_at_each_step_of_a_conversion_leaves_one_or_the_other(
    kind: str, tmp_path: Path
) -> None:
    path = (stores.prioritized if kind == "uniform" else stores.uniform)(tmp_path / "s")
    whole = {kind_of(path): told(path)}
    kept = tmp_path / "kept"
    shutil.copytree(path, kept)
    diskreplay.convert(path, kind)
    whole[kind] = told(path)
    shutil.rmtree(path)
    shutil.copytree(kept, path)
    seen = set()
    for step in at_each_step(lambda: diskreplay.convert(path, kind)):
        found = kind_of(path)
        if found not in seen or step % 10 == 0:
            assert diskreplay.verify(path) == []
        assert told(path) == whole[found]
        if found == kind:
            shutil.rmtree(path)
            shutil.copytree(kept, path)
        seen.add(found)
    assert seen == set(whole)
    assert not list(path.glob(".diskreplay-rewritten-*"))


def kind_of(path: Path) -> str:
    with diskreplay.open(path, access="read") as buffer:
        return str(buffer.stats()["kind"])


@pytest.mark.parametrize("capacity", [None, 200])
def test_a_kill_at_each_step_leaves_one_or_the_other(capacity: int | None, tmp_path: Path) -> None:
    path = stores.prioritized(tmp_path / "s")
    whole = {1100: told(path)}
    shutil.copytree(path, tmp_path / "model")
    if capacity:
        diskreplay.resize(tmp_path / "model", capacity)
        whole[capacity] = told(tmp_path / "model")
    kept = tmp_path / "kept"
    shutil.copytree(path, kept)

    def work() -> None:
        diskreplay.resize(path, capacity) if capacity else diskreplay.compact(path)

    seen = set()
    for _ in at_each_step(work):
        assert diskreplay.verify(path) == []
        with diskreplay.open(path, access="read") as buffer:
            found = buffer.capacity
        assert told(path) == whole[found]
        seen.add(found)
        shutil.rmtree(path)
        shutil.copytree(kept, path)
    assert seen == set(whole)
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

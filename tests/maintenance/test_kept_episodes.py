"""Episodes in stores that were made of another one: which transition follows which stays so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

N, CAPACITY, ENVS = 230, 90, 3


def fill(buffer: Any, seed: int) -> None:
    """Push episodes of several envs in turns; the oldest of them are evicted in part."""
    generator = np.random.default_rng(seed)
    envs = generator.integers(ENVS, size=N)
    ends = generator.random((N, 2)) < 0.06
    numbers = 1000 * seed + np.arange(N, dtype=np.float32)[:, None]
    buffer.extend(
        numbers, envs, numbers[:, 0], numbers + 0.5, ends[:, 0], truncateds=ends[:, 1], env=envs
    )


def episodes(path: Path) -> tuple[list[list[float]], dict[float, tuple[list[float], list[bool]]]]:
    """Return the states of whole episodes, and those that follow each one, over all episodes."""
    with diskreplay.open(path) as buffer:
        whole = [episode.states[:, 0].tolist() for episode in buffer.episodes()]
        found: dict[float, tuple[list[float], list[bool]]] = {}
        while len(found) < len(buffer):
            batch = buffer.sample_sequences(len(buffer), 20, across=True)
            for states, mask, firsts in zip(batch.states, batch.mask, batch.firsts, strict=True):
                found[states[0, 0].item()] = states[mask, 0].tolist(), firsts[mask].tolist()
        return whole, found


def saved(path: Path, place: Path) -> Path:
    with diskreplay.open(path) as buffer:
        buffer.save(place)
    return place


def loaded(path: Path, place: Path) -> Path:
    with diskreplay.open(path) as source:
        kind: Any = type(source)
    with kind(capacity=CAPACITY + 1, path=place) as buffer:
        buffer.extend([[7.0]] * 5, [0] * 5, [0.0] * 5, [[7.0]] * 5, [False] * 5, truncateds=[0] * 5)
        buffer.load(path)
    return place


def compacted(path: Path, place: Path) -> Path:
    shutil.copytree(path, place)
    diskreplay.compact(place)
    return place


def resized(path: Path, place: Path) -> Path:
    shutil.copytree(path, place)
    diskreplay.resize(place, 3 * CAPACITY)
    return place


def converted(path: Path, place: Path) -> Path:
    shutil.copytree(path, place)
    with diskreplay.open(path) as buffer:
        is_uniform = isinstance(buffer, ReplayBuffer)
    diskreplay.convert(place, "prioritized" if is_uniform else "uniform")
    return place


def repaired(path: Path, place: Path) -> Path:
    diskreplay.repair(path, place)
    return place


def merged(path: Path, place: Path) -> Path:
    diskreplay.merge([path], place)
    return place


@pytest.mark.parametrize(
    "made",
    [saved, loaded, compacted, resized, converted, repaired, merged],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("observations", ["record", "log"])
@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_episodes_stay_as_they_were(
    made: Any, observations: str, kind: Any, tmp_path: Path
) -> None:
    place = tmp_path / "a"
    with kind(CAPACITY, path=place, observations=observations) as buffer:
        fill(buffer, 1)
    whole, following = episodes(place)
    # Of each env the oldest live transition is not the first of its episode.
    assert sum(not firsts[0] for _, firsts in following.values()) > ENVS
    assert episodes(made(place, tmp_path / "b")) == (whole, following)
    assert diskreplay.verify(tmp_path / "b") == []


@pytest.mark.parametrize("order", ["sequence", "interleaved"])
def test_merged_episodes_are_those_of_each_store(order: str, tmp_path: Path) -> None:
    places = [tmp_path / name for name in "ab"]
    for seed, place in enumerate(places):
        with ReplayBuffer(CAPACITY, path=place) as buffer:
            fill(buffer, seed)
    diskreplay.merge(places, tmp_path / "c", order=order)
    (first, after_first), (second, after_second) = map(episodes, places)
    whole, following = episodes(tmp_path / "c")
    assert sorted(whole) == sorted(first + second)
    assert following == after_first | after_second

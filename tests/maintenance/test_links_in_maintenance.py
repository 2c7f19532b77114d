"""Links in maintenance: what is checked, what a lost block costs, and what a new store keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inside import replica_of
from stores import change, stored

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.records import seal, unseal

N = 2600
ENVS = np.arange(N) % 3
DONES = np.arange(N) % 50 == 49


def make(path: Path, capacity: int = 2300, kind: Any = ReplayBuffer, first: int = 0) -> Path:
    """A store of three envs in turns, over the end of its ring."""
    numbers = np.arange(N) + first
    with kind(capacity, path=path) as buffer:
        buffer.extend(
            numbers[:, None] * 1.0,
            np.zeros(N, int),
            numbers * 1.0,
            numbers[:, None] + 3.0,
            DONES,
            env=ENVS,
        )
    return path


def rows_before(path: Path) -> dict[float, float]:
    """The reward of each live row that goes on with an episode, and of the row before it."""
    with diskreplay.open(path, access="read") as buffer:
        replica = replica_of(buffer)
        ids = np.arange(buffer.first, buffer.count)
        rewards = buffer.get(ids, fields=["reward"])["reward"]
        before = replica.links.back(ids, replica.live)
        known = before >= 0
        return dict(
            zip(
                rewards[known].tolist(),
                rewards[before[known] - buffer.first].tolist(),
                strict=True,
            )
        )


EXPECTED = {float(i): float(i - 3) for i in range(N) if i - 3 >= N - 2300 and not DONES[i - 3]}


def test_new_stores_keep_the_episodes(tmp_path: Path) -> None:
    path = make(tmp_path / "a")
    assert rows_before(path) == EXPECTED
    diskreplay.compact(path)
    assert rows_before(path) == EXPECTED
    diskreplay.convert(path, "prioritized")
    assert rows_before(path) == EXPECTED
    diskreplay.resize(path, 5000)
    assert rows_before(path) == EXPECTED
    with diskreplay.open(path) as buffer:
        buffer.save(tmp_path / "saved")
    with PrioritizedReplayBuffer(3000, path=tmp_path / "loaded") as buffer:
        buffer.push([0.0], 0, -1.0, [0.0], True)
        buffer.load(tmp_path / "saved")
    diskreplay.repair(path, tmp_path / "repaired")
    for name in ("saved", "loaded", "repaired"):
        assert diskreplay.verify(tmp_path / name) == []
        assert rows_before(tmp_path / name) == EXPECTED
    diskreplay.resize(path, 1000)
    last = {i: before for i, before in EXPECTED.items() if before >= N - 1000}
    assert rows_before(path) == last
    assert diskreplay.verify(path) == []


@pytest.mark.parametrize("order", ["sequence", "interleaved"])
@pytest.mark.parametrize("capacity", [None, 3000])
def test_merged_stores_keep_their_own_episodes(
    order: str, capacity: int | None, tmp_path: Path
) -> None:
    left, right = make(tmp_path / "a"), make(tmp_path / "b", first=10_000)
    diskreplay.merge([left, right], tmp_path / "out", order=order, capacity=capacity)
    assert diskreplay.verify(tmp_path / "out") == []
    with diskreplay.open(tmp_path / "out", access="read") as buffer:
        there = set(buffer.get(range(buffer.first, buffer.count)).rewards.tolist())
    both = EXPECTED | {i + 10_000: before + 10_000 for i, before in EXPECTED.items()}
    expected = {i: before for i, before in both.items() if {i, before} <= there}
    assert rows_before(tmp_path / "out") == expected


def test_a_lost_block_costs_its_links_alone(tmp_path: Path) -> None:
    path = make(tmp_path / "a")
    change(path, "links", 1, None)
    assert diskreplay.verify(path) == ["the content of link block 1 is missing"]
    for access in ("exclusive", "shared", "read"):
        with pytest.raises(diskreplay.DamageError, match=r"link block 1 .* missing: .*repair"):
            diskreplay.open(path, access=access)
    with pytest.raises(diskreplay.DamageError, match="link block 1"):
        diskreplay.compact(path)
    done = diskreplay.repair(path, tmp_path / "out")
    assert (done.copied, done.lost) == (2300, 0)
    in_block = {i for i in range(N - 2300, N) if 1000 <= i % 2300 < 2000}
    expected = {i: before for i, before in EXPECTED.items() if i not in in_block}
    assert rows_before(tmp_path / "out") == expected
    assert diskreplay.verify(tmp_path / "out") == []


def test_a_lost_record_cuts_the_chain(tmp_path: Path) -> None:
    path = make(tmp_path / "a")
    lost = 1234
    per_value = 15
    with diskreplay.open(path, access="read") as buffer:
        replica = replica_of(buffer)
        per_value = replica.rows._grouping.per_value
    slot = lost % 2300
    value = bytearray(stored(path, "transitions", slot // per_value))
    size = len(value) // per_value
    value[(slot % per_value) * size + size - 1] ^= 1
    change(path, "transitions", slot // per_value, bytes(value))
    done = diskreplay.repair(path, tmp_path / "out")
    assert done.lost_ids == ((lost, lost + 1),)
    expected = {i: before for i, before in EXPECTED.items() if lost not in (i, before)}
    assert rows_before(tmp_path / "out") == expected
    assert diskreplay.verify(tmp_path / "out") == []


@pytest.mark.parametrize("dones", [[[0], [1], [0]], [[0, 1], [1, 1], [1, 0]]])
def test_a_done_that_is_an_array_is_checked(dones: list[list[int]], tmp_path: Path) -> None:
    schema = {"done": ("float32", (len(dones[0]),))}
    with ReplayBuffer(3, path=tmp_path / "a", schema=schema) as buffer:
        zeros = np.zeros((3, 1))
        buffer.extend(zeros, [0] * 3, [0.0] * 3, zeros, dones, env=0)
    assert diskreplay.verify(tmp_path / "a") == []
    change(tmp_path / "a", "links", 0, seal(0, np.array([0, 1, 1], "<i4").tobytes()))
    assert diskreplay.verify(tmp_path / "a") == [
        "write id 1 is done, and a link goes on with its episode"
    ]


@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_store_most_of_whose_episodes_have_one_step_is_sound(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    dones = np.ones((N, *shape), bool)
    dones[0] = False  # so some records are looked at of which none goes on
    schema = {"state": ("f4", (99,)), "next_state": ("f4", (99,)), "done": ("?", shape)}
    with ReplayBuffer(N, path=tmp_path / "a", schema=schema) as buffer:
        states = np.zeros((N, 99))
        buffer.extend(states, np.zeros(N, int), np.zeros(N), states, dones, env=0)
    assert diskreplay.verify(tmp_path / "a") == []


def test_links_of_another_moment_are_found(tmp_path: Path) -> None:
    path = make(tmp_path / "a", capacity=N)
    links = np.frombuffer(unseal(stored(path, "links", 0), 0, "block"), "<i4").copy()
    links[5] = 7  # before the first write id
    links[52] = 3  # on from a row that is done
    change(path, "links", 0, seal(0, links.tobytes()))
    assert sorted(diskreplay.verify(path)) == [
        "the link of write id 5 leads to none before it",
        "write id 49 is done, and a link goes on with its episode",
    ]
    change(path, "links", 2, seal(2, b"abc"))
    change(path, "links", 3, seal(3, bytes(4000)))
    assert "link block 2 has 3 bytes (expected 2,400)" in diskreplay.verify(path)
    assert "link block 3 belongs to no slots" in diskreplay.verify(path)

"""Shards that cannot store, or cannot open their store again: they say why, and try again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of
from kills import child_of, was_killed
from refused import allow_writes, refuse_writes, writes_refused

import diskreplay

pytest.importorskip("ray")

import ray
from sharded import Sharded, start_actors

from diskreplay.adapters.ray_shards.messages import Group, Settings, ShardAwayError
from diskreplay.adapters.ray_shards.shard import Shard


@pytest.fixture(scope="session")
def actors() -> None:
    start_actors(2)


def shard_at(path: Path, *, is_restarted: bool) -> Shard:
    settings = Settings(str(path), 0, 2, 100, "uniform", 1, {})
    shard = Shard(settings, is_restarted=is_restarted)
    if not is_restarted:
        shard.open(may_create=True)
    return shard


def group_of(first: int, n: int, ended: tuple[int, ...] = ()) -> Group:
    with diskreplay.ReplayBuffer(n) as buffer:
        batch = buffer.get(buffer.extend(**columns(first, n), env=0))
        assert buffer.schema is not None
        named = dict(zip(batch._fields, batch, strict=True))
        return Group(buffer.schema.to_plain(), named, None, np.zeros(n, np.int64), ended)


def facts_in_time(shard: Shard) -> Any:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(ShardAwayError):
            return shard.facts()
    raise AssertionError("the store was not opened again")


def test_a_restarted_shard_opens_its_store_once_that_can_be_opened(tmp_path: Path) -> None:
    shard = shard_at(tmp_path, is_restarted=False)
    shard.push("a", 0, group_of(0, 5))
    shard.close()
    store = tmp_path / "shard-0"

    with diskreplay.open(store):
        shard = shard_at(tmp_path, is_restarted=True)
        with pytest.raises(ShardAwayError, match=r"shard 0 is away: .* is open in this process"):
            shard.facts()
    assert facts_in_time(shard).written == 5
    shard.close()
    with pytest.raises(ShardAwayError):  # closed by its owner, it stays closed
        shard.facts()

    store.rename(tmp_path / "elsewhere")
    shard = shard_at(tmp_path, is_restarted=True)
    with pytest.raises(ShardAwayError, match="shard-0 is not there: a shard must be restarted on"):
        shard.facts()
    (tmp_path / "elsewhere").rename(store)
    assert facts_in_time(shard).written == 5
    shard.close()

    whole = (store / "data.mdb").read_bytes()
    (store / "data.mdb").write_bytes(b"\0" * len(whole))
    shard = shard_at(tmp_path, is_restarted=True)
    with pytest.raises(ShardAwayError, match=r"shard 0 is away: .*data\.mdb"):
        shard.facts()
    (store / "data.mdb").write_bytes(whole)
    assert facts_in_time(shard).written == 5
    shard.close()


def test_a_group_is_acknowledged_once_it_is_committed_however_often_it_comes(
    tmp_path: Path,
) -> None:
    groups = [group_of(0, 5), group_of(5, 5)]

    def work() -> None:
        shard = shard_at(tmp_path, is_restarted=False)
        shard.push("a", 0, groups[0])
        with writes_refused(), pytest.raises(diskreplay.StorageError):
            shard.push("a", 1, groups[1])
        assert shard.push("a", 1, groups[1])[0] == 2
        os.kill(os.getpid(), signal.SIGKILL)

    assert was_killed(child_of(work))
    with diskreplay.open(tmp_path / "shard-0", access="read") as buffer:
        assert [int(experience.reward * 8) for experience in buffer] == list(range(10))


def test_the_end_of_an_episode_comes_with_a_group_and_once(tmp_path: Path) -> None:
    shard = shard_at(tmp_path, is_restarted=False)
    assert shard.push("a", 0, group_of(0, 2))[0] == 1
    assert shard.push("a", 1, Group([], {}, None, None, (0,)))[0] == 2
    assert shard.push("a", 2, group_of(2, 2))[0] == 3
    assert shard.push("a", 1, Group([], {}, None, None, (0,)))[0] == 3  # comes again
    assert shard.push("a", 3, group_of(4, 1))[0] == 4
    assert shard.push("a", 4, group_of(5, 1, ended=(0,)))[0] == 5
    episodes = [numbers_of(batch).tolist() for batch in shard._open_buffer.episodes()]
    assert episodes == [[0, 1], [2, 3, 4]]
    shard.close()


def test_what_a_full_disk_refuses_waits_and_is_told(actors: None, tmp_path: Path) -> None:
    with Sharded(2, 4000, directory=tmp_path / "u", seed=1, spread="rows") as replay:
        replay.extend(**columns(0, 20))
        replay.flush()
        full = replay._calls.actors[1]
        ray.get(full.__ray_call__.remote(lambda shard: refuse_writes()))
        taken = list(range(20))

        def push_until_told() -> None:
            for first in range(20, 2000, 20):
                replay.extend(**columns(first, 20))
                taken.extend(range(first, first + 20))

        with pytest.raises(diskreplay.StorageError, match="for shard 1 wait and are not stored"):
            push_until_told()
        with pytest.raises(diskreplay.StorageError, match="for shard 1 wait and are not stored"):
            replay.flush()
        assert 0 < replay.stats()["waiting_rows"] < len(taken)
        ray.get(full.__ray_call__.remote(lambda shard: allow_writes()))
        replay.flush()
        assert replay.stats()["waiting_rows"] == 0
        assert sorted(int(experience.reward * 8) for experience in replay) == taken

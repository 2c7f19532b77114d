"""Shards on several nodes, which are raylets of one machine: nodes that die, and come back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from common import run_python

import diskreplay

pytest.importorskip("ray")

from diskreplay.adapters.ray_shards.messages import Settings
from diskreplay.adapters.ray_shards.placing import place_of, stores_here

A_NODE_DIES = """
import contextlib, os, signal, sys, warnings
os.environ["RAY_TMPDIR"] = sys.argv[2]
import numpy as np, ray
from common import columns, numbers_of
warnings.simplefilter("ignore")
from ray.cluster_utils import Cluster
from diskreplay.adapters.ray_shards import (
    PrioritizedShardedReplay, ShardAwayError, ShardAwayWarning, pushed_rows
)

BYTES = {"object_store_memory": 80_000_000}
cluster = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 0, "include_dashboard": False, **BYTES,
    "_system_config": {
        "health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000,
        "health_check_failure_threshold": 5,
    },
})

def add_node(address):
    return cluster.add_node(num_cpus=3, node_ip_address=address, **BYTES)

nodes = {address: add_node(address) for address in ("127.0.0.2", "127.0.0.3")}
ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)

replay = PrioritizedShardedReplay(
    2, 2000, directory=sys.argv[1], seed=1, num_cpus=1, placement="SPREAD"
)

def address_of(shard):
    bundles = ray.util.placement_group_table(replay._group)["bundles_to_node_id"]
    by_id = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    return by_id[bundles[shard]]

def push(first, n):
    replay.extend(**columns(first, n), priorities=np.ones(n), env=np.arange(n) % 4)

def sizes():
    return [shard["size"] for shard in replay.stats()["shards"]]

places = {shard: address_of(shard) for shard in (0, 1)}
assert set(places.values()) == set(nodes), places
push(0, 200)
replay.flush()
assert sizes() == [100, 100]
old = replay.sample(64).indices

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    # The other node has room for the shard, but not its store.
    cluster.remove_node(nodes.pop(places[1]), allow_graceful=False)
    while not replay._calls.away:
        batch = replay.sample(64)
    push(200, 100)  # also of the envs whose home is away
    replay.flush()
    assert sizes() == [200, 100]
    batch = replay.sample(64)
    assert set((batch.indices % 2).tolist()) == {0}
    assert set(numbers_of(batch).tolist()) <= {*range(0, 200, 2), *range(200, 300)}
    assert np.allclose(batch.weights, 1.0)
    here = int((old % 2 == 0).sum())
    assert replay.update_priorities(old, np.full(64, 1.0)) == here
    stats = replay.stats()
    assert stats["missed_updates"] == 64 - here > 0
    assert [*stats["away"]] == ["1"] and stats["outages"] == 1, stats["away"]
    nodes[places[1]] = add_node(places[1])
    rows = [int(experience.reward * 8) for experience in replay]  # waits for it
messages = [str(w.message) for w in told if w.category is ShardAwayWarning]
assert "shard 1 of" in messages[0], messages
assert all("stays away" in message for message in messages[1:]), messages
assert sorted(rows) == list(range(300)), len(rows)
assert replay.stats()["away"] == {}
assert {shard: address_of(shard) for shard in (0, 1)} == places, places
replay.check()
push(300, 100)  # at home again once the episodes that were begun elsewhere have ended
replay.flush()
assert sum(sizes()) == 400 and sizes()[1] > 140, sizes()

warnings.simplefilter("ignore")
pushed_rows.WAIT_SECONDS = 0.5
before = sizes()[0]
pid = ray.get(replay._calls.actors[1].stats.remote())["openers"][0]["pid"]
cluster.remove_node(nodes.pop(places[1]), allow_graceful=False)
with contextlib.suppress(ProcessLookupError):
    os.kill(pid, signal.SIGKILL)  # which follows its node, but not at once
push(400, 4)  # on the way to it, too
try:
    replay.flush()
except ShardAwayError as error:
    assert "shard 1 (" in str(error) and "2 rows wait here and are not stored" in str(error), error
else:
    raise AssertionError("it must tell")
assert replay.stats()["waiting_rows"] == 2
push(404, 4)  # and others are stored
assert replay._pushed.waiting_rows == 6
while replay._pushed.waiting_rows > 2:
    replay._pushed.take_answers()
assert sizes()[0] == before + 6
try:
    replay.close()
except ShardAwayError as error:
    assert "2 rows wait" in str(error)
else:
    raise AssertionError("it must tell")
ray.shutdown()
cluster.shutdown()
print("whole")
"""


def test_a_shard_waits_for_its_node_and_others_take_the_rows(tmp_path: Path) -> None:
    # Sockets of several nodes need a short path.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as temp_dir:
        printed = run_python(A_NODE_DIES, tmp_path / "p", temp_dir).stdout
    assert "whole" in printed.splitlines()  # among the lines of Ray


def test_a_store_and_a_copy_of_it_on_another_node_are_told_apart(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path / "a"), 3, 4, 40, "uniform", 1, {})
    with diskreplay.ReplayBuffer(10, path=settings.path) as buffer:
        buffer.push([0.0], 0, 1.0, [1.0], True)
        buffer.save(tmp_path / "b" / "shard-3")
    (tmp_path / "a" / "shard-x").mkdir()
    (tmp_path / "a" / "shard-2").mkdir()  # whose making was cut short
    here, there = (stores_here(str(tmp_path / name)) for name in "ab")
    assert list(here) == list(there) == [3]
    assert place_of(settings, {"10.0.0.1": here, "10.0.0.2": {}}) == "10.0.0.1"
    assert place_of(settings, {"10.0.0.1": here, "10.0.0.2": here}) is None  # a disk of both
    assert place_of(settings._replace(number=2), {"10.0.0.1": here}) is None
    with pytest.raises(diskreplay.MismatchError, match=r"shard-3 is on the nodes 10.0.0.1, 10"):
        place_of(settings, {"10.0.0.1": here, "10.0.0.2": there})

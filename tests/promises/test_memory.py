"""A process that is held to a quarter of its store's size trains on it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from cold import make_cold
from common import run_python
from limited import group

import diskreplay

TRAIN = """
import sys
import numpy as np
import diskreplay
from limited import anonymous_bytes

path, capacity, window_bytes, steps = sys.argv[1], *map(int, sys.argv[2:])
WIDE = 117  # with all else about 1000 bytes, four in a page


def rows(write_ids):
    states = np.add.outer(write_ids, np.arange(WIDE)).astype(np.float32)
    numbers = (write_ids % 1000).astype(np.float32)
    return states, write_ids, numbers, states + 1, write_ids % 5 == 4


def step(buffer, batch):
    expected = rows(batch.indices)
    for found, column in zip(batch[:5], expected, strict=True):
        assert np.array_equal(found, column.astype(found.dtype)), batch.indices
    assert batch.indices.min() >= buffer.count - capacity
    assert buffer.update_priorities(batch.indices, batch.rewards / 1000 + 0.1) == 256
    return anonymous_bytes()


peak = 0
arguments = dict(capacity=capacity, path=path, window_bytes=window_bytes, seed=0)
with diskreplay.PrioritizedReplayBuffer(**arguments, durability="process") as buffer:
    for first in range(0, capacity + capacity // 20, 2000):
        buffer.extend(*rows(np.arange(first, first + 2000)))
with diskreplay.PrioritizedReplayBuffer(**arguments) as buffer:
    for _ in range(steps // 2):
        peak = max(peak, step(buffer, buffer.sample(256)))
    for readers in (0, 1):
        with buffer.batches(256, 2, readers, reuse=readers > 0) as batches:
            for _, batch in zip(range(steps // 4), batches):
                peak = max(peak, step(buffer, batch))
    for first in range(buffer.count, buffer.count + 2000):
        buffer.push(*(column[0] for column in rows(np.array([first]))))
    stats = buffer.stats()
    peak = max(peak, anonymous_bytes())
print(stats["disk_bytes"], stats["memory_bytes"], peak)
"""
MIB = 1 << 20


def test_a_store_of_four_times_the_memory_is_trained_on(disk_path: Path, long: bool) -> None:
    limit = (1024 if long else 128) * MIB
    arguments = disk_path / "b", 4 * limit // 1024, 8 * MIB, 1000 if long else 80
    (disk_path / "probe").write_bytes(bytes(MIB))
    make_cold(disk_path / "probe")  # where files are memory, there is no such store
    with group(limit) as limited:
        if limited is None:
            out = run_python(TRAIN, *arguments).stdout
        else:
            found = limited.run(TRAIN, *arguments)
            assert (found.status, found.kills) == (0, 0), found
            assert limit * 0.9 < found.peak_bytes <= limit  # it was short of memory
            out = found.out
    disk_bytes, memory_bytes, peak = map(int, out.split())
    assert disk_bytes >= 4 * limit
    assert peak <= min(limit, memory_bytes + 100 * MIB)


def test_the_limit_ends_a_process_that_holds_its_store_in_memory(disk_path: Path) -> None:
    limit = 128 * MIB
    arguments = disk_path / "b", 4 * limit // 1024, 4 * limit, 2
    with group(limit) as limited:
        if limited is None:
            pytest.skip("no memory cgroup can be made here")
        found = limited.run(TRAIN, *arguments)
    assert found.status == -signal.SIGKILL, found
    assert found.kills >= 1


MAKE = """
import sys
import numpy as np
import diskreplay

path, rows = sys.argv[1], int(sys.argv[2])
schema = {"state": ("uint8", (10_000,)), "action": "int64", "reward": "float32",
          "next_state": ("uint8", (10_000,)), "done": "float32"}
rng = np.random.default_rng(0)
with diskreplay.ReplayBuffer(rows, path=path, schema=schema, durability="process",
                             observations=sys.argv[3]) as buffer:
    for first in range(0, rows, 200):
        states = rng.integers(0, 256, (201, 10_000), np.uint8)
        numbers = np.arange(first, first + 200)
        buffer.extend(states[:-1], numbers, numbers * 1.0, states[1:], numbers % 200 == 199)
"""
TRANSFORM = """
import sys
import diskreplay
from limited import anonymous_bytes

path, out = sys.argv[1:3]
before = peak = anonymous_bytes()


def negate(columns):
    global peak
    peak = max(peak, anonymous_bytes())
    return {"reward": -columns["reward"], "next_action": columns["action"]}


print(diskreplay.transform(path, out, negate), peak - before)
"""


@pytest.mark.parametrize("observations", ["record", "log"])
def test_a_store_of_four_times_the_memory_is_transformed(
    observations: str, disk_path: Path, long: bool
) -> None:
    limit = (512 if long else 96) * MIB
    rows = (4 * limit // (20_000 if observations == "record" else 10_000) // 200 + 1) * 200
    path, out = disk_path / "a", disk_path / "out"
    run_python(MAKE, path, rows, observations)
    assert (path / "data.mdb").stat().st_size >= 4 * limit
    with group(limit) as limited:
        if limited is None:
            said = run_python(TRANSFORM, path, out).stdout
        else:
            found = limited.run(TRANSFORM, path, out)
            assert (found.status, found.kills) == (0, 0), found
            said = found.out
    transformed, peak = map(int, said.split())
    assert transformed == rows
    assert peak <= 60 * MIB
    with diskreplay.open(out, access="read", window_bytes=0) as buffer:
        assert buffer.get([rows - 1, 0]).rewards.tolist() == [1.0 - rows, 0.0]

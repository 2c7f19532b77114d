"""A million transitions of two 60-float states; with --long in full, else a twentieth of it.

Run it as `pytest tests/promises/test_large.py --long -s -n0` to see the seconds and the
memory. What it prints stands in the README, with the place where the store is: the window, the
page cache, a disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cold import make_cold
from common import run_python
from places import DISK

PUSH = """
import resource, sys, time
import numpy as np, diskreplay
path, n = sys.argv[1], int(sys.argv[2])
states = np.random.default_rng(0).standard_normal((2001, 60)).astype(np.float32)
start = time.perf_counter()
buffer = diskreplay.PrioritizedReplayBuffer(n, seed=1, path=path)
for first in range(0, n // 2, 1000):
    buffer.extend(states[:1000], np.arange(1000), np.arange(first, first + 1000),
                  states[1:1001], np.zeros(1000), priorities=np.arange(1, 1001))
extended = time.perf_counter()
for i in range(n // 2, n):
    k = i % 2000
    buffer.push(state=states[k], action=k, reward=float(i), next_state=states[k + 1], done=False)
pushed = time.perf_counter()
buffer.close()
closed = time.perf_counter()
print(f"extend {n // 2} rows by 1000: {extended - start:.2f} s; push {n - n // 2} one by one: "
      f"{pushed - extended:.2f} s; close: {closed - pushed:.2f} s; "
      f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
"""
REOPEN = """
import resource, sys, time
import numpy as np, diskreplay
def private():
    fields = (line.split() for line in open("/proc/self/smaps_rollup").readlines()[1:])
    return sum(int(f[1]) for f in fields if f[0] in ("Private_Dirty:", "Private_Clean:")) / 1024
path, n = sys.argv[1], int(sys.argv[2])
before = private()
start = time.perf_counter()
buffer = diskreplay.open(path)
opened = time.perf_counter()
memory = private() - before
assert len(buffer) == n, len(buffer)
batch = buffer.sample(256)
drawn = time.perf_counter()
assert (batch.rewards >= 0).all() and batch.states.shape == (256, 60)
print(f"reopen {n} rows: {opened - start:.2f} s, {memory:.0f} MiB; first batch of 256: "
      f"{drawn - opened:.3f} s; data file {buffer.stats()['disk_bytes'] / n / 496:.3f} x payload")
"""
SAMPLE = """
import sys, time
import numpy as np, diskreplay
path, n = sys.argv[1], int(sys.argv[2])
states = np.random.default_rng(0).standard_normal((n, 60)).astype(np.float32)
numbers = np.ones(n, np.float32)
memory = [states, np.arange(n), numbers, states[::-1].copy(), numbers.copy()]
rng = np.random.default_rng(1)
def in_memory():
    rows = rng.integers(0, n, 256)
    return [column.take(rows, axis=0) for column in memory]
def step(buffer):
    batch = buffer.sample(256)
    buffer.update_priorities(batch.indices, np.abs(batch.rewards))
def medians(**calls):
    times = {name: [] for name in calls}
    for _ in range(300):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return "; ".join(f"{name} {np.median(t) * 1e6:.0f} us" for name, t in times.items())
for window, name in [(2 << 30, "all in the window"), (0, "window off, the store in memory")]:
    with diskreplay.open(path, window_bytes=window) as buffer:
        for first in range(0, n, 5000):
            buffer.get(np.arange(first, first + 5000))
        print(f"{name}, batches of 256:", medians(
            numpy_arrays_in_memory=in_memory,
            sample=lambda: buffer.sample(256),
            sample_and_update=lambda: step(buffer),
        ))
"""


COLD = """
import resource, sys, time
import numpy as np, diskreplay
path, n, which = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def waited():
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
start = time.perf_counter()
buffer = diskreplay.open(path, window_bytes=0)
opened = time.perf_counter() - start
assert len(buffer) == n, len(buffer)
times, before = [], waited()
for _ in range(20):
    start = time.perf_counter()
    batch = buffer.sample(256)
    if which == "sample_and_update":
        buffer.update_priorities(batch.indices, np.abs(batch.rewards))
    times.append(time.perf_counter() - start)
pages = waited() - before
assert pages > 500, f"the store was in memory: only {pages} pages came from the disk"
print(f"from a cold disk: reopen {opened:.2f} s; 20 batches of 256, {which}: median "
      f"{np.median(times) * 1e3:.1f} ms, the first {times[0] * 1e3:.1f} ms, "
      f"{pages / 20:.0f} pages waited for in each")
"""


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> int:
    return 1_000_000 if request.config.getoption("--long") else 50_000


@pytest.fixture(scope="module")
def store(rows: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=DISK) as directory:
        path = Path(directory) / "b"
        print(run_python(PUSH, path, rows).stdout, end="")
        yield path


def test_many_transitions_are_pushed_closed_and_reopened(store: Path, rows: int) -> None:
    for code in (REOPEN, SAMPLE):
        print(run_python(code, store, rows).stdout, end="")


@pytest.mark.parametrize("which", ["sample", "sample_and_update"])
def test_batches_of_a_store_that_is_on_the_disk_only(store: Path, rows: int, which: str) -> None:
    make_cold(store / "data.mdb")
    print(run_python(COLD, store, rows, which).stdout, end="")

"""Shards are killed at random moments while clients work; a ledger says what must be there."""

from __future__ import annotations

from pathlib import Path

import pytest
from common import run_python

pytest.importorskip("ray")

KILLS = """
import contextlib, os, signal, sys, warnings
import diskreplay, numpy as np, ray
from common import columns, numbers_of
warnings.simplefilter("ignore")
ray.init(
    num_cpus=8, object_store_memory=200e6, include_dashboard=False, logging_level="ERROR",
    log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}},
)
from diskreplay.adapters.ray_shards import PrioritizedShardedReplay

path, seed, n_kills, n_shards = sys.argv[1], int(sys.argv[2]), 5, 3
replay = PrioritizedShardedReplay(
    n_shards, 900_000, directory=path, seed=1, num_cpus=0.5, queue_bytes=100_000,
    window_bytes=1 << 20,
)

@ray.remote(num_cpus=0.5, max_concurrency=2)
class Client:
    def __init__(self, replay, number):
        warnings.simplefilter("ignore")
        self.replay, self.rng = replay, np.random.default_rng([seed, number])
        self.first = self.pushed = number * 100_000
        self.is_ended, self.done, self.drawn = False, 0, 0

    def calls(self):
        return self.done

    def draws(self):
        return self.drawn

    def end(self):
        self.is_ended = True

    def work(self):
        calls = [self.extend, self.push, self.sample, self.update, self.replay.flush]
        while not self.is_ended:
            calls[self.rng.integers(len(calls))]()
            self.done += 1
        self.replay.close()  # commits
        return range(self.first, self.pushed)

    def extend(self):
        n = int(self.rng.integers(1, 500))
        numbers = np.arange(self.pushed, self.pushed + n)
        self.replay.extend(**columns(self.pushed, n), priorities=numbers % 7, env=numbers % 5)
        self.pushed += n

    def push(self):
        for _ in range(int(self.rng.integers(1, 50))):
            values = [column[0] for column in columns(self.pushed, 1).values()]
            env = int(self.rng.integers(5)) if self.rng.integers(2) else None
            self.replay.push(*values, priority=self.pushed % 7, env=env)
            self.pushed += 1

    def sample(self):
        if self.replay.is_ready(64):
            # A kill between the two calls takes rows back that were not committed.
            with contextlib.suppress(diskreplay.SampleError):
                numbers_of(self.replay.sample(64))  # checks that they are whole
                self.replay.sample_sequences(8, 3)
                self.drawn += 1

    def update(self):
        if self.replay.is_ready(64):
            try:
                batch = self.replay.sample(64)
            except diskreplay.SampleError:
                return
            self.replay.update_priorities(batch.indices, numbers_of(batch) % 7)

clients = [Client.remote(replay, number) for number in (1, 2, 3)]
work = [client.work.remote() for client in clients]
rng = np.random.default_rng(seed)
goal = 0
for kill in range(n_kills):
    goal += int(rng.integers(5, 15))
    while min(ray.get([client.calls.remote() for client in clients])) < goal:
        pass
    actor = replay._calls.actors[rng.integers(n_shards)]
    with contextlib.suppress(ray.exceptions.RayError, ProcessLookupError):
        pid = ray.get(actor.stats.remote(), timeout=60)["openers"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
ray.get([client.end.remote() for client in clients])
wanted = [number for numbers in ray.get(work, timeout=200) for number in numbers]
assert sum(ray.get([client.draws.remote() for client in clients])) > 0

replay.refresh()
facts = replay._calls.facts
ids = np.concatenate([np.arange(f.first, f.written) * n_shards + k for k, f in enumerate(facts)])
numbers = numbers_of(replay.get(ids))
assert sorted(numbers.tolist()) == wanted != [], (len(numbers), len(wanted))
masses = (numbers % 7 + 1e-6) ** 0.6
assert np.isclose(replay.total_mass, masses.sum(), rtol=1e-9)
for beta in (0.4, 1.0):
    batch = replay.sample(256, beta=beta)
    drawn = (numbers_of(batch) % 7 + 1e-6) ** 0.6
    expected = (len(ids) * drawn / masses.sum()) ** -beta
    assert np.allclose(batch.weights, expected / expected.max(), rtol=1e-6)
replay.check()
replay.close()
print("whole")
"""


def test_what_clients_pushed_is_stored_once_whatever_dies(tmp_path: Path) -> None:
    printed = run_python(KILLS, tmp_path / "p", 1).stdout
    assert "whole" in printed.splitlines()  # among the lines of Ray

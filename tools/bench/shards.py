"""Measure replays in shards beside bare calls of Ray that return the same bytes.

    python -m bench.shards

Batches of 256 rows of 488 bytes of payload, in turns in one run; medians, in ms, on this machine.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from diskreplay.adapters.ray_shards import PrioritizedShardedReplay

_ROWS, _BATCH, _BYTES = 20_000, 256, 496


class Bare:
    """An actor that returns the same bytes each time."""

    def __init__(self, n: int) -> None:
        self._data = np.zeros(n, np.uint8)

    def get(self, n: int) -> Any:
        """Return them; a number comes, as it does to a shard."""
        return self._data


def milliseconds(call: Callable[[], object]) -> float:
    """Return the time of a call."""
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000


def measure(n_shards: int, directory: Path, rounds: int = 400) -> str:
    """Return one line of figures."""
    rng = np.random.default_rng(0)
    states = rng.random((2, _ROWS, 59), dtype=np.float32)
    dones = np.arange(_ROWS) % 100 == 99
    with PrioritizedShardedReplay(
        n_shards, 2 * _ROWS, seed=1, directory=directory / str(n_shards), num_cpus=0
    ) as replay:
        begin = time.perf_counter()
        replay.extend(states[0], np.arange(_ROWS), rng.random(_ROWS), states[1], dones)
        replay.flush()
        pushed = _ROWS / (time.perf_counter() - begin)
        bare: list[Any] = [
            ray.remote(Bare).options(num_cpus=0).remote(_BATCH * _BYTES // n_shards)
            for _ in range(n_shards)
        ]
        kept: dict[str, list[float]] = {"bare": [], "sample": [], "update": [], "prefetch": []}
        with replay.batches(_BATCH, prefetch=4) as batches:
            for turn in range(rounds + 50):
                batch = replay.sample(_BATCH)
                found = {
                    "bare": milliseconds(lambda: ray.get([actor.get.remote(1) for actor in bare])),
                    "sample": milliseconds(lambda: replay.sample(_BATCH)),
                    "update": milliseconds(
                        partial(replay.update_priorities, batch.indices, np.ones(_BATCH))
                    ),
                }
                if turn >= 50:
                    for name, figure in found.items():
                        kept[name].append(figure)
            for _ in range(rounds):
                kept["prefetch"].append(milliseconds(lambda: next(batches)))
        for actor in bare:
            ray.kill(actor)
    medians = {name: statistics.median(figures) for name, figures in kept.items()}
    return (
        f"{n_shards:6} {medians['bare']:10.2f} {medians['sample']:8.2f} "
        f"{medians['sample'] / medians['bare']:6.2f} {medians['prefetch']:9.2f} "
        f"{medians['update']:8.2f} {pushed:10.0f}"
    )


def main() -> None:
    """Print a line for 1, 2 and 4 shards."""
    warnings.simplefilter("ignore")  # random rows do not continue each other
    ray.init(
        object_store_memory=200_000_000,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    directory = Path(tempfile.mkdtemp())
    print("shards bare calls   sample  ratio  prefetch   update     rows/s")
    try:
        for n_shards in (1, 2, 4):
            print(measure(n_shards, directory))
    finally:
        ray.shutdown()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()

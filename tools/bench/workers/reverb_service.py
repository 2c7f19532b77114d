"""Reverb's server in a process of its own, and its clients, as a user has them.

python -m bench.workers.reverb_service serve TASK
python -m bench.workers.reverb_service trajectory|writer ADDRESS TASK
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import reverb
import tensorflow as tf

from bench.beside import running, said
from bench.clients import push_streams, serve_pushes
from bench.kernel import die_with_parent
from bench.rows import Row, Task, blocks
from bench.system import System
from bench.timing import Bench, Rounds, sample

MODULE = "bench.workers.reverb_service"
TABLE = "replay"
AHEAD = 4  # batches


class Client(System):
    """A client that samples as its documentation shows, and pushes by a trajectory writer."""

    def __init__(self, address: str, task: Task) -> None:
        super().__init__(task)
        self.client = reverb.Client(address)

    def sample(self) -> Any:
        """Draw a batch: a list of transitions."""
        return list(self.client.sample(TABLE, self.task.batch, emit_timesteps=False))

    def as_rows(self, rows: list[Row]) -> list[Any]:
        """Put transitions in the form that Reverb takes them in."""
        return [
            [state, np.int64(action), np.float32(reward), next_state, np.float32(done)]
            for state, action, reward, next_state, done in rows
        ]

    def push_all(self, rows: list[Any]) -> None:
        """Insert transitions one by one; all are in the table at the end."""
        with self.client.trajectory_writer(num_keep_alive_refs=1) as writer:
            for number, row in enumerate(rows):
                writer.append(row)
                writer.create_item(TABLE, 1.0, [column[-1:] for column in writer.history])
                if number % 10 == 0:
                    writer.flush(block_until_num_items=40)
            writer.flush()

    def fill(self) -> None:
        """Fill the table."""
        for part in blocks(self.task):
            self.push_all(self.as_rows(list(zip(*part, strict=True))))


class Older(Client):
    """A client that pushes by the older writer."""

    def push_all(self, rows: list[Any]) -> None:
        """Insert transitions one by one; all are in the table at the end."""
        with self.client.writer(max_sequence_length=1, max_in_flight_items=100) as writer:
            for row in rows:
                writer.append(row)
                writer.create_item(TABLE, 1, 1.0)
            writer.flush()


class Dataset(Client):
    """A client whose batches a dataset of TensorFlow makes, ahead and in threads of C++."""

    def __init__(self, address: str, task: Task) -> None:
        super().__init__(address, task)
        dataset = reverb.TimestepDataset(
            address,
            TABLE,
            dtypes=[tf.float32, tf.int64, tf.float32, tf.float32, tf.float32],
            shapes=[tf.TensorShape(one) for one in ((task.width,), (), (), (task.width,), ())],
            max_in_flight_samples_per_worker=2 * task.batch,
        )
        self.batches = dataset.batch(task.batch).prefetch(AHEAD).as_numpy_iterator()

    def sample(self) -> Any:
        """Take the next batch: arrays of numpy."""
        return next(self.batches)


@contextlib.contextmanager
def served(task: Task) -> Iterator[str]:
    """Serve a full table within a block, which gets the address."""
    with running(MODULE, "serve", json.dumps(asdict(task))) as server:
        address = f"localhost:{said(server)}"
        Client(address, task).fill()
        yield address


def sampling(kind: Callable[[str, Task], System]) -> Bench:
    """Return the benchmark of the batches of a client."""

    def bench(task: Task) -> Rounds:
        with served(task) as address:
            yield from sample(task, kind(address, task))

    return bench


def pushing(kind: str) -> Bench:
    """Return the benchmark of clients that push."""

    def bench(task: Task) -> Rounds:
        with served(task) as address:
            yield from push_streams(task, address, MODULE, kind)

    return bench


def table(task: Task) -> Any:
    """Return an empty table, from which transitions are drawn by priority."""
    return reverb.Table(
        TABLE,
        sampler=reverb.selectors.Prioritized(task.alpha),
        remover=reverb.selectors.Fifo(),
        rate_limiter=reverb.rate_limiters.MinSize(1),
        max_size=task.rows,
    )


def serve_table(task: Task) -> None:
    """Serve an empty table, and say its port; the process ends with its parent."""
    server = reverb.Server(tables=[table(task)])
    print(server.port, flush=True)
    threading.Event().wait()


BENCHES = {
    "client sample": sampling(Client),
    "client dataset": sampling(Dataset),
    "client trajectory": pushing("trajectory"),
    "client writer": pushing("writer"),
}

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", task]:
            die_with_parent()
            serve_table(Task(**json.loads(task)))
        case ["trajectory", address, task]:
            serve_pushes(Client, address, Task(**json.loads(task)))
        case ["writer", address, task]:
            serve_pushes(Older, address, Task(**json.loads(task)))

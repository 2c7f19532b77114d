"""Arrow Flight alone: a server of batches that are ready, and a client that takes them.

python -m bench.workers.flight serve TASK
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import cycle
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import flight

from bench.beside import running, said
from bench.kernel import die_with_parent
from bench.rows import Array, Task, columns
from bench.serving import serve
from bench.system import System
from bench.timing import Bench, Rounds, sample

MODULE = "bench.workers.flight"
BATCHES = 4  # different ones, so that they are in no cache


class Server(flight.FlightServerBase):  # type: ignore[misc]
    """A server of the same batches again and again."""

    def __init__(self, task: Task) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.batches = [record_batch(task, number) for number in range(BATCHES)]

    def do_get(self, context: Any, ticket: Any) -> Any:
        """Send batches as fast as the client takes them."""
        return flight.GeneratorStream(self.batches[0].schema, cycle(self.batches))

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Send a batch for each request."""
        writer.begin(self.batches[0].schema)
        for _, batch in zip(reader, cycle(self.batches), strict=False):
            writer.write_batch(batch)


def record_batch(task: Task, number: int) -> Any:
    """Return a batch of as many bytes as one of a prioritized replay."""
    n = task.batch
    arrays = columns(task, number * n, n)
    arrays += [np.arange(n), np.ones(n, np.float32)]  # write ids and weights
    return pa.RecordBatch.from_arrays(
        [fixed(array) for array in arrays], [str(number) for number in range(len(arrays))]
    )


def fixed(array: Array) -> Any:
    """Return a column of the bytes of each row."""
    size = array.nbytes // len(array)
    buffers = [None, pa.py_buffer(array)]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(array), buffers)


class Stream(System):
    """A client that takes the batches of one `do_get`."""

    def __init__(self, task: Task, client: Any) -> None:
        super().__init__(task)
        self.reader = client.do_get(flight.Ticket(b""))
        self.sample = self.reader.read_chunk

    def close(self) -> None:
        """End the stream."""
        self.reader.cancel()


class Exchange(System):
    """A client that asks for each batch, by one `do_exchange`."""

    def __init__(self, task: Task, client: Any) -> None:
        super().__init__(task)
        self.writer, self.reader = client.do_exchange(flight.FlightDescriptor.for_command(b""))
        self.writer.begin(pa.schema([]))

    def sample(self) -> Any:
        """Ask for a batch, and wait for it."""
        self.writer.write_metadata(b"next")
        return self.reader.read_chunk()

    def close(self) -> None:
        """End the stream."""
        self.writer.close()


@contextlib.contextmanager
def connected(task: Task) -> Iterator[Any]:
    """Start a server within a block, which gets a client."""
    with (
        running(MODULE, "serve", json.dumps(asdict(task))) as server,
        flight.connect(f"grpc://127.0.0.1:{said(server)}") as client,
    ):
        yield client


def sampling(kind: Callable[[Task, Any], System]) -> Bench:
    """Return the benchmark of a client."""

    def bench(task: Task) -> Rounds:
        with connected(task) as client, contextlib.closing(kind(task, client)) as system:
            yield from sample(task, system)

    return bench


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", task]:
            die_with_parent()
            server = Server(Task(**json.loads(task)))
            print(server.port, flush=True)
            server.serve()
        case _:
            serve({"stream": sampling(Stream), "exchange": sampling(Exchange)}, ("pyarrow",))

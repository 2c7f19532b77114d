"""diskreplay's service: a server in a process of its own, as `diskreplay serve`, and its clients.

python -m bench.workers.service serve PATH
python -m bench.workers.service push URL TASK
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from functools import partial

from diskreplay_tools.cli import main

import diskreplay
from bench.beside import running, said
from bench.clients import push_streams, serve_pushes
from bench.kernel import die_with_parent
from bench.rows import Task
from bench.serving import serve
from bench.system import System
from bench.timing import Bench, Rounds, sample
from bench.workers.alone import chunks, opened

MODULE = "bench.workers.service"
AHEAD = 4  # batches


@contextlib.contextmanager
def served(task: Task) -> Iterator[str]:
    """Serve a full buffer within a block, which gets the URL."""
    opened(task, warm=False).close()
    with running(MODULE, "serve", task.path) as server:
        yield said(server).split()[-1]


class Client(System):
    """A client of a server."""

    def __init__(self, url: str, task: Task) -> None:
        super().__init__(task)
        self.replay = diskreplay.connect(url, timeout=600)
        self.push = self.replay.push
        self.sample = partial(self.replay.sample, task.batch)

    def finish(self) -> None:
        """Wait until all rows are committed."""
        self.replay.flush()

    def close(self) -> None:
        """Close the client."""
        self.replay.close()


class Ahead(Client):
    """A client whose batches are sent before they are asked for."""

    def __init__(self, url: str, task: Task) -> None:
        super().__init__(url, task)
        self.batches = self.replay.batches(task.batch, prefetch=AHEAD)
        self.sample = partial(next, self.batches)

    def close(self) -> None:
        """Close the batches and the client."""
        self.batches.close()
        super().close()


def sampling(kind: type[Client]) -> Bench:
    """Return the benchmark of the batches of a client."""

    def bench(task: Task) -> Rounds:
        with served(task) as url, contextlib.closing(kind(url, task)) as client:
            for ids in chunks(task, 0, task.rows):  # into the server's window
                client.replay.get(ids)
            yield from sample(task, client)

    return bench


def pushing(task: Task) -> Rounds:
    """Time pushes of clients, until the server has committed them."""
    with served(task) as url:
        yield from push_streams(task, url, MODULE, "push")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", path]:
            die_with_parent()
            main(["serve", path, "--listen", "grpc://127.0.0.1:0"])
        case ["push", url, task]:
            serve_pushes(Client, url, Task(**json.loads(task)))
        case _:
            serve(
                {"sample": sampling(Client), "batches": sampling(Ahead), "push": pushing},
                ("diskreplay", "lmdb", "pyarrow"),
            )

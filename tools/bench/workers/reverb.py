"""Reverb: a server in C++, in the process of its client, which is faster than beside it."""

from __future__ import annotations

from typing import Any

import reverb

from bench.rows import Task
from bench.serving import serve
from bench.system import Floats
from bench.timing import push, step, timed
from bench.workers.reverb_service import BENCHES, TABLE, Client, table


class Reverb(Client):
    """The server of a full table, and its client."""

    def __init__(self, task: Task) -> None:
        self.server = reverb.Server(tables=[table(task)])
        super().__init__(f"localhost:{self.server.port}", task)
        self.fill()

    def draw(self) -> Any:
        """Draw a batch, and return its keys."""
        return [one.info.key for one in self.sample()]

    def update(self, drawn: Any, priorities: Floats) -> object:
        """Update the priorities of keys."""
        updates = dict(zip(drawn, priorities.tolist(), strict=True))
        return self.client.mutate_priorities(TABLE, updates)


if __name__ == "__main__":
    serve({**timed(Reverb, step, push), **BENCHES}, ("dm-reverb", "tensorflow-cpu", "tensorflow"))

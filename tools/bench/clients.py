"""Clients that push at the same time, each a process of its own.

The process of a client reads two lines for a round: the number of its first transition, when it
makes them, and "push"; it answers each with a line. It ends with its stdin.

This module also runs in the virtual environments of the peers: it imports numpy (1 or 2) and the
standard library only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict

from bench.beside import ask, running, said
from bench.kernel import die_with_parent
from bench.rows import Task, singles
from bench.system import System
from bench.timing import Rounds, clock, starts


def push_streams(task: Task, address: str, *command: str) -> Rounds:
    """Time `task.count` pushes of each of `task.clients`, until the last one is acknowledged.

    command:  a module and arguments, which call `serve_pushes`
    """
    with ExitStack() as stack:
        arguments = (*command, address, json.dumps(asdict(task)))
        clients = [stack.enter_context(running(*arguments)) for _ in range(task.clients)]
        for client in clients:
            said(client)
        yield {}
        for first in starts(task):
            for number, client in enumerate(clients):
                ask(client, str(first + number * task.count))
            for client in clients:
                said(client)
            start = clock()
            for client in clients:
                ask(client, "push")
            for client in clients:
                said(client)
            yield {"push": (clock() - start) / (task.count * task.clients)}


def serve_pushes(connect: Callable[[str, Task], System], address: str, task: Task) -> None:
    """Push with a client when stdin says so, until its end."""
    die_with_parent()
    with closing(connect(address, task)) as system:
        print("ready", flush=True)
        for line in sys.stdin:
            rows = system.as_rows(singles(task, int(line), task.count))
            print("made", flush=True)
            if not sys.stdin.readline():
                return
            system.push_all(rows)
            system.finish()
            print("pushed", flush=True)

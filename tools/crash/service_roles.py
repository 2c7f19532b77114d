"""`python -m crash.service_roles actor|learner URL NUMBER SEED PACE FILE`: a client of a service.

It works until SIGTERM and writes JSON lines to a file, so that all is known that it told::

    ["memory", bytes]        the resident memory of the process
    ["acknowledged", n]      an actor: a flush returned after its first n rows were pushed
    ["batches", n]           a learner: how many it drew, checked and updated since the last line
    ["wrong", text]          a batch that is not what was pushed
    ["end", n]               it closed its connection after n rows or batches
    ["failed", text]         an error ended it
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

import diskreplay
from crash.rows import WrongRead, columns_of, numbers_from, numbers_of
from crash.writer import stop_on_sigterm

WIDTH = 4  # numbers in a state
_BATCH = 64
_PART = 50  # rows that are made at once


def resident_bytes(pid: int | str = "self") -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Client:
    """A client, and the file that it tells its events in."""

    def __init__(self, url: str, number: int, seed: int, pace: float, path: Path) -> None:
        self.number, self.pace = number, pace
        self.rng = np.random.default_rng([seed, number])
        self.stopping = stop_on_sigterm()
        self._file = path.open("a", buffering=1)
        self.replay: Any = diskreplay.connect(url)
        self.tell("memory", resident_bytes())

    def tell(self, name: str, what: Any) -> None:
        """Write an event."""
        self._file.write(json.dumps([name, what]) + "\n")

    def act(self) -> int:
        """Push rows at the pace, flush now and then, and return how many were pushed."""
        pushed, began = 0, time.monotonic()
        while not self.stopping:
            columns = columns_of(numbers_from(self.number, pushed, _PART), WIDTH)
            for row in zip(*columns, strict=True):
                self.replay.push(*row)
            pushed += _PART
            if self.rng.random() < 0.2:
                self.tell("memory", resident_bytes())
                self.replay.flush()
                self.tell("acknowledged", pushed)
            time.sleep(max(0.0, began + pushed / self.pace - time.monotonic()))
        return pushed

    def learn(self) -> int:
        """Draw batches, check their rows and update their priorities; return how many were."""
        drawn, told = 0, 0
        while not self.stopping:
            if not self.replay.is_ready(_BATCH):
                time.sleep(0.01)
                continue
            try:
                batch = self.replay.sample(_BATCH)
            except diskreplay.SampleError:
                continue  # a kill took rows back that were not committed: they come again
            try:
                numbers_of(batch)
            except WrongRead as error:
                self.tell("wrong", str(error))
            self.replay.update_priorities(batch.indices, self.rng.random(_BATCH) + 0.5)
            drawn += 1
            if drawn - told == 20:
                self.tell("memory", resident_bytes())
                self.tell("batches", drawn - told)
                told = drawn
        self.tell("batches", drawn - told)
        return drawn


def main(role: str, url: str, number: str, seed: str, pace: str, path: str) -> None:
    """Work in a role until SIGTERM."""
    client = Client(url, int(number), int(seed), float(pace), Path(path))
    try:
        n = client.act() if role == "actor" else client.learn()
        client.replay.close()
        client.tell("acknowledged" if role == "actor" else "batches", n if role == "actor" else 0)
        client.tell("end", n)
    except Exception:
        client.tell("failed", traceback.format_exc())
        raise


if __name__ == "__main__":
    main(*sys.argv[1:])

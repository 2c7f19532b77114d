"""Recordings of what a writer does to its data file, and the disks that a power loss leaves."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

PAGE, SECTOR = 4096, 512
_HEAD = struct.Struct("=QQQ")


@dataclass(frozen=True)
class Event:
    """One entry of a log; record.c says what the kinds are."""

    kind: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Recording:
    """What one writer did, and what it said was committed."""

    name: str
    durability: str
    events: list[Event]
    store: Path

    @property
    def first_point(self) -> int:
        """The number of events before the store's directory had its name."""
        return next(at for at, event in enumerate(self.events) if event.kind == "R") + 1

    def acknowledged(self, point: int) -> dict[int, dict[str, Any]]:
        """Return the fingerprint of each commit that was acknowledged by then, by its number."""
        told = [json.loads(event.data) for event in self.events[:point] if event.kind == "A"]
        return {commit["commits"]: commit for commit in told}


def compile_recorder(directory: Path) -> Path:
    """Compile record.c; raise ClickException where that, or its use, is not possible."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        raise click.ClickException(
            "power loss was not simulated: recording system calls needs Linux and a C compiler"
        )
    library = directory / "record.so"
    source = Path(__file__).with_name("record.c")
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise click.ClickException(f"the compiler refused {source}:\n{result.stderr}")
    return library


def record(library: Path, directory: Path, durability: str, name: str, seed: int) -> Recording:
    """Run a writer of power_writer.py to its end and return what it did.

    Replaying all of it has to give the data file: nothing was written in a way that is not seen.
    """
    log, store = directory / "log", directory / "store"
    work = map(str, (directory, durability, name, seed))
    command = [sys.executable, "-m", "crash.power_writer", *work]
    environment = {**os.environ, "CRASH_LOG": str(log), "LD_PRELOAD": str(library)}
    tools = Path(__file__).parents[1]
    result = subprocess.run(command, env=environment, cwd=tools, capture_output=True, text=True)
    if result.returncode:
        raise click.ClickException(f"the writer of {name} failed:\n{result.stderr}")
    recording = Recording(name, durability, _events(log.read_bytes()), store)
    disk = Disk()
    disk.replay(recording.events)
    disk.sync()
    if bytes(disk.bytes) != (store / "data.mdb").read_bytes():
        raise click.ClickException(
            f"the recording of {name} is not complete: replaying it gives another data file"
        )
    return recording


def _events(log: bytes) -> list[Event]:
    events = []
    at = 0
    while at < len(log):
        kind, offset, length = _HEAD.unpack_from(log, at)
        at += _HEAD.size
        events.append(Event(chr(kind), offset, log[at : at + length]))
        at += length
    return events


class Disk:
    """A disk below a page cache: bytes that are there, and writes that may be on their way.

    What waits is kept by sector, oldest first: the cache writes a page back at any moment as it is
    at that moment, so any prefix of the writes to it may have arrived.
    """

    def __init__(self) -> None:
        self.bytes = bytearray()
        self._waiting: dict[int, list[tuple[int, bytes]]] = defaultdict(list)

    def replay(self, events: list[Event]) -> None:
        """Do what the events say."""
        for event in events:
            if event.kind in "WD":
                self.write(event)
            if event.kind == "D":
                end = event.offset + len(event.data)
                pages = range(event.offset // PAGE, (end - 1) // PAGE + 1)
                self.sync([s for p in pages for s in _sectors(p)])
            elif event.kind == "S":
                self.sync()
            elif event.kind == "T":
                raise click.ClickException("a data file was cut: this simulation has no such disk")

    def write(self, event: Event) -> None:
        """Begin a write, which may not have arrived yet."""
        at, end = event.offset, event.offset + len(event.data)
        while at < end:
            until = min(end, (at // SECTOR + 1) * SECTOR)
            part = event.data[at - event.offset : until - event.offset]
            self._waiting[at // SECTOR].append((at, part))
            at = until

    def sync(self, sectors: list[int] | None = None) -> None:
        """Write what waits for these sectors to the disk; for all sectors, when not given."""
        for sector in list(self._waiting) if sectors is None else sectors:
            self._arrive(self._waiting.pop(sector, []))

    def lose_power(self, rng: np.random.Generator) -> None:
        """Keep an arbitrary part of what waits, and an arbitrary length of the file."""
        synced = len(self.bytes)
        if not self._waiting:
            return
        whole_pages = rng.random() < 0.75
        per_unit = PAGE // SECTOR if whole_pages else 1
        units = sorted({sector // per_unit for sector in self._waiting})
        likely = rng.choice([0.05, 0.5, 0.95])
        for unit in units:
            sectors = range(unit * per_unit, (unit + 1) * per_unit)
            share = 1.0 if rng.random() < likely else rng.choice([0.0, rng.random()])
            for sector in sectors:
                writes = self._waiting[sector]
                self._arrive(writes[: round(share * len(writes))])
        extended = (max(self._waiting) + 1) * SECTOR
        self._waiting.clear()
        # The new length of a file arrives by itself, before its pages or after them.
        if rng.random() < 0.5:
            self._extend(extended)
        elif rng.random() < 0.5:
            del self.bytes[int(rng.integers(synced, len(self.bytes) + 1)) :]

    def _arrive(self, writes: list[tuple[int, bytes]]) -> None:
        for at, data in writes:
            self._extend(at + len(data))
            self.bytes[at : at + len(data)] = data

    def _extend(self, length: int) -> None:
        self.bytes += bytes(max(0, length - len(self.bytes)))


def _sectors(page: int) -> range:
    return range(page * PAGE // SECTOR, (page + 1) * PAGE // SECTOR)

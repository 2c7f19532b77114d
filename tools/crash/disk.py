"""`python -m crash.disk`: fill the disk under a writer, and count what is lost.

A writer writes until the disk refuses: at a limit for the size of files, and on a small tmpfs that
a ballast file fills (only as root). At that point another process reads the store; then, at most
points, room is made and the writer goes on, and at the others it is killed and the store opened
again. Besides, stores are created and opened where there is no room for that.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

import diskreplay
from crash import report
from crash.disk_writer import GO_ON, MODES, faults_in, file_limit, fill, is_clean
from crash.processes import Child, run_apart
from crash.rows import changed_in, numbers_from, rows_for

COLUMNS = ("points", "errors clean", "committed lost", "held lost", "killed", "went on")
# Room: of a small disk when nothing is in it, of a writer at its first and last point, and the most
# for a process that opens or creates a store.
SMALL_BYTES, FIRST_BYTES, LAST_BYTES, OPENED_BYTES = 6 << 20, 200_000, 3_000_000, 120_000


@dataclass
class Place:
    """Where the stores of one kind of limit are made, and how much room they have."""

    directory: Path
    is_small: bool = False  # a disk of its own; else the size of files is limited

    @property
    def kind(self) -> str:
        """The kind of limit, as the table names it."""
        return "small disk" if self.is_small else "file-size limit"

    def set_room(self, n: int) -> None:
        """Leave n bytes on a small disk, by the size of a ballast file."""
        if self.is_small:
            ballast = self.directory / "ballast"
            ballast.unlink(missing_ok=True)
            free = os.statvfs(self.directory)
            with ballast.open("wb") as stream:
                stream.write(bytes(max(0, free.f_bavail * free.f_frsize - n)))


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Place | None]:
    """Mount a tmpfs for the block, or give None where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "crash-disk", str(directory)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    try:
        yield Place(directory, is_small=True) if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(directory)], check=True)


class Point:
    """What is counted at one amount of room, and what was not as it should be."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.counts = Counter({"points": 1, "errors clean": 1, "went on": 1})
        self.faults: list[str] = []

    def note(self, column: str, faults: list[str]) -> None:
        """Count faults, if there are any: less of what is good, or more of what is lost."""
        self.counts[column] += (1 if "lost" in column else -1) * bool(faults)
        self.faults += [f"{self.where}: {fault}" for fault in faults]


def found_by(look: Callable[[], list[str]]) -> list[str]:
    """Return the faults that a function finds in a process of its own, or how that ended."""
    outcome = run_apart(look)
    return [outcome.ended.strip()] if outcome.ended else list(outcome.value)


def lost(path: Path, told: dict[str, Any], access: str) -> list[str]:
    """Return what is lost or wrong of what was acknowledged before the disk was full."""
    with diskreplay.open(path, access=access) as buffer:
        buffer.check()
        faults = [f"transition {wrong} is not what was pushed" for wrong in changed_in(buffer)]
        if not told["acknowledged"] <= buffer.count <= told["accepted"]:
            faults.append(f"{buffer.count} transitions are there, of {told}")
        return faults


def fill_once(place: Place, at: int, n: int) -> Point:
    """Fill the disk once, with n bytes of room, and count what happened."""
    mode, path = list(MODES)[at % len(MODES)], place.directory / f"store-{at}"
    point = Point(f"{place.kind}, {mode}, {n:,} bytes")
    place.set_room(n)
    child = Child(partial(fill, path, mode, at, None if place.is_small else n), seconds=60)
    while not (events := child.events()) and not child.ended:
        Child.select([child], 60)
    name, _, told, *_ = events[0] if events else ("", 0, {})
    if name != "refused":
        point.note("errors clean", [child.outcome().ended or "no error came"])
        return point
    point.note("errors clean", [told["error"]] if told["error"] else [])
    point.note("held lost", told["faults"])
    point.note("committed lost", found_by(lambda: lost(path, told, "read")))
    if at % 5 == 2:
        child.send(signal.SIGKILL)
        child.wait()
        point.counts["killed"] += 1
        point.note("committed lost", found_by(lambda: lost(path, told, "read")))
        place.set_room(SMALL_BYTES)
        faults = found_by(lambda: lost(path, told, "exclusive"))
    else:
        place.set_room(SMALL_BYTES)
        child.send(GO_ON)
        outcome = child.outcome()
        faults = [outcome.ended] if outcome.ended else outcome.value["faults"]
        faults = faults or found_by(lambda: reopen(path, outcome.value["priorities"]))
    point.note("went on", faults)
    shutil.rmtree(path)
    return point


def reopen(path: Path, priorities: list[float]) -> list[str]:
    """Return what is wrong in the closed store of a writer that went on."""
    with diskreplay.open(path) as buffer:
        faults = faults_in(buffer, np.array(priorities, np.float32))
    return faults + diskreplay.verify(path)


def open_once(place: Place, n: int, *, new: bool) -> Point:
    """Open a store with n bytes of room: that works, or the error is clean.

    A new store is whole then, or not there. An old one comes without lock.mdb, as from a backup.
    """
    point = Point(f"{place.kind}, {'creating' if new else 'opening'}, {n:,} bytes")
    directory = place.directory / "opened"
    directory.mkdir()
    path = directory / "store"

    def use() -> list[str]:
        with diskreplay.ReplayBuffer(10, path=path) as buffer:
            buffer.push(*rows_for(buffer, numbers_from(0, buffer.count, 1), 3)[0])
            buffer.flush()
            return [f"transition {wrong} is not what was pushed" for wrong in changed_in(buffer)]

    def use_without_room(access: str) -> list[str]:
        if not place.is_small:
            file_limit(n)
        try:
            diskreplay.ReplayBuffer(10, path=path, access=access).close()
        except Exception as error:
            # A whole store may be left, when there was no room to open it: it is used below.
            left = [f"{e.name} is left" for e in directory.iterdir() if e.name != path.name]
            return left + ([] if is_clean(error, path) else [traceback.format_exc()])
        return []

    faults = [] if new else found_by(use)
    for access in ("exclusive",) if new else ("read", "exclusive"):
        (path / "lock.mdb").unlink(missing_ok=True)
        place.set_room(n)
        faults += found_by(partial(use_without_room, access))
    point.note("errors clean", faults)
    place.set_room(SMALL_BYTES)
    point.note("went on", found_by(use))
    shutil.rmtree(directory)
    return point


def try_place(place: Place, points: int, counts: report.Counts) -> list[str]:
    """Fill a place at different points, and open stores in it with hardly any room."""
    faults: list[str] = []
    for at in range(points):
        room = FIRST_BYTES + at * (LAST_BYTES - FIRST_BYTES) // points
        little = at * OPENED_BYTES // points
        for doing, point in (
            ("", fill_once(place, at, room)),
            (", creating", open_once(place, little, new=True)),
            (", opening", open_once(place, little, new=False)),
        ):
            counts.add(place.kind + doing, point.counts)
            faults += point.faults
    return faults


@click.command()
@report.number("--points", 20)
@report.as_json
def main(points: int, as_json: bool) -> None:
    """Fill disks and count what was lost.

    Exits with status 1 when anything was, when an error was not a clean StorageError, or when a
    writer could not go on after there was room.
    """
    began = time.monotonic()
    counts = report.Counts("limit", COLUMNS)
    with tempfile.TemporaryDirectory(prefix="crash-disk-") as name:
        files, disk = Path(name) / "files", Path(name) / "disk"
        files.mkdir()
        disk.mkdir()
        faults = try_place(Place(files), points, counts)
        with small_disk(disk) as place:
            if place is None:
                click.echo("no small disk: mounting a tmpfs needs root", err=True)
            else:
                faults += try_place(place, points, counts)
    if as_json:
        click.echo(json.dumps({"rows": counts.plain(), "faults": faults}))
    else:
        lines = [counts.table(), *faults[:10]]
        click.echo("\n".join([*lines, f"{len(faults)} faults, {time.monotonic() - began:.0f} s"]))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

"""A disk that fills: python -m crash.disk --points 20.

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
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

import diskreplay
from crash.filler import MODES, both_ends, faults_in, file_limit, fill, is_clean
from crash.images import Child, changed_in, row, run_apart, verify
from crash.table import table

HEADS = (
    "limit", "points", "errors clean", "committed lost", "held lost", "killed", "went on"
)  # fmt: skip
# Room: of a small disk when nothing is in it, of a writer at its first and last point, and the most
# that who opens or creates a store has.
SMALL_BYTES, FIRST_BYTES, LAST_BYTES, OPENED_BYTES = 6 << 20, 200_000, 3_000_000, 120_000


@dataclass
class Count:
    """What happened under one kind of limit."""

    kind: str
    numbers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def note(self, number: str, faults: list[str], where: str) -> None:
        """Count a fault, if there is one."""
        self.numbers[number] += bool(faults)
        self.faults += [f"{self.kind}, {where}: {fault}" for fault in faults]

    def row(self) -> list[object]:
        """Return a row of the table."""
        of = self.numbers
        clean, went_on = of["points"] - of["errors unclean"], of["points"] - of["did not go on"]
        lost = [of["committed lost"], of["held lost"], of["killed"]]
        return [self.kind, of["points"], clean, *lost, went_on]


@dataclass
class Place:
    """Where the stores of one kind of limit are made, and how much room they have."""

    directory: Path
    is_small: bool = False  # a disk of its own; else the size of files is limited

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


def fill_once(place: Place, at: int, n: int, count: Count) -> None:
    """Fill the disk once, with n bytes of room, and count what happened."""
    mode, path = list(MODES)[at % len(MODES)], place.directory / f"store-{at}"
    where = f"{mode}, {n:,} bytes"
    place.set_room(n)
    ours, its = both_ends()
    child = Child(lambda: fill(its, path, mode, at, None if place.is_small else n))
    its.close()
    count.numbers["points"] += 1
    with ours:
        line = ours.readline()
        if not line:
            count.note("errors unclean", [child.outcome().ended or "no error came"], where)
            return
        told = json.loads(line)
        count.note("errors unclean", [] if told["clean"] else [told["error"]], where)
        count.note("held lost", told["faults"], where)
        count.note("committed lost", found_by(lambda: lost(path, told, "read")), where)
        if at % 5 == 2:
            child.kill()
            child.outcome()
            count.numbers["killed"] += 1
            count.note("committed lost", found_by(lambda: lost(path, told, "read")), where)
            place.set_room(SMALL_BYTES)
            faults = found_by(lambda: lost(path, told, "exclusive"))
        else:
            place.set_room(SMALL_BYTES)
            ours.write("there is room\n")
            ours.flush()
            outcome = child.outcome()
            end = outcome.value or {"accepted": 0, "priorities": {}}
            faults = [outcome.ended] if outcome.ended else end["faults"]
            faults = faults or found_by(lambda: reopen(path, end))
    count.note("did not go on", faults, where)
    shutil.rmtree(path)


def reopen(path: Path, end: dict[str, Any]) -> list[str]:
    """Return what is wrong in the closed store of a writer that went on."""
    with diskreplay.open(path) as buffer:
        priorities = {int(write_id): p for write_id, p in end["priorities"].items()}
        faults = faults_in(buffer, end["accepted"], priorities)
    return faults + verify(path)


def open_once(place: Place, n: int, count: Count, *, new: bool) -> None:
    """Open a store with n bytes of room: that works, or the error is clean.

    A new store is whole then, or not there. An old one comes without lock.mdb, as from a backup.
    """
    directory = place.directory / "opened"
    directory.mkdir()
    path = directory / "store"

    def use() -> list[str]:
        with diskreplay.ReplayBuffer(10, path=path) as buffer:
            buffer.push(**row(buffer.count, 3))
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

    count.numbers["points"] += 1
    faults = [] if new else found_by(use)
    for access in ("exclusive",) if new else ("read", "exclusive"):
        (path / "lock.mdb").unlink(missing_ok=True)
        place.set_room(n)
        faults += found_by(lambda access=access: use_without_room(access))  # type: ignore[misc]
    count.note("errors unclean", faults, f"{n:,} bytes")
    place.set_room(SMALL_BYTES)
    count.note("did not go on", found_by(use), f"{n:,} bytes")
    shutil.rmtree(directory)


def try_place(place: Place, points: int) -> list[Count]:
    """Fill a place at different points, and open stores in it with hardly any room."""
    what = "small disk" if place.is_small else "file-size limit"
    counts = [Count(what + doing) for doing in ("", ", creating", ", opening")]
    for at in range(points):
        room = FIRST_BYTES + at * (LAST_BYTES - FIRST_BYTES) // points
        fill_once(place, at, room, counts[0])
        open_once(place, at * OPENED_BYTES // points, counts[1], new=True)
        open_once(place, at * OPENED_BYTES // points, counts[2], new=False)
    return counts


@click.command()
@click.option("--points", type=click.IntRange(1), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def main(points: int, as_json: bool) -> None:
    """Fill disks and count what was lost.

    Exits with status 1 when anything was, when an error was not a clean StorageError, or when a
    writer could not go on after there was room.
    """
    began = time.monotonic()
    counts: list[Count] = []
    with tempfile.TemporaryDirectory(prefix="crash-disk-") as name:
        for kind in ("files", "disk"):
            (Path(name) / kind).mkdir()
        counts += try_place(Place(Path(name) / "files"), points)
        with small_disk(Path(name) / "disk") as place:
            if place is None:
                click.echo("no small disk: mounting a tmpfs needs root", err=True)
            else:
                counts += try_place(place, points)
    faults = [fault for count in counts for fault in count.faults]
    if as_json:
        rows = {count.kind: dict(zip(HEADS[1:], count.row()[1:], strict=True)) for count in counts}
        click.echo(json.dumps({"rows": rows, "faults": faults}))
    else:
        click.echo(table(HEADS, [count.row() for count in counts]))
        for fault in faults[:10]:
            click.echo(fault)
        click.echo(f"{len(faults)} faults, {time.monotonic() - began:.0f} s")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()

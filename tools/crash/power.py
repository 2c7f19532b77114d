"""`python -m crash.power`: lose power at random moments, and count what is damaged or lost.

A writer runs once for each durability word and kind of work, and its system calls on the data file
are recorded. A round chooses a point in such a recording and builds the disk that a loss of power
there could leave: everything before the last completed sync, and of what was written since an
arbitrary part. Of each page the writes arrive in order, pages among each other in none; now and
then the unit is a sector. What goes through a descriptor with O_DSYNC is there when the call has
returned. That a new store's directory appears at once and after its files, which are synced before
it is renamed, is assumed of the file system; lock.mdb is made anew.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np

import diskreplay
from crash import report
from crash.power_writer import PLANS
from crash.processes import run_apart
from crash.recording import Disk, Recording, compile_recorder, record
from crash.rows import changed_in, extend, fingerprint

DURABILITIES = ("full", "system", "process")
COLUMNS = ("rounds", "opened sound", "damaged", "by signal", "lost 0", "lost 1", "lost more")
# What no round of a durability may come to.
BAD = {"full": ("damaged", "lost 1", "lost more"), "system": ("damaged", "lost more")}


def build(recording: Recording, point: int, path: Path, rng: np.random.Generator) -> None:
    """Make the store that is left when the power goes at a point of the recording."""
    disk = Disk()
    disk.replay(recording.events[:point])
    if point < len(recording.events) and recording.events[point].kind in "WD":
        disk.write(recording.events[point])  # the call that the loss of power interrupted
    disk.lose_power(rng)
    path.mkdir()
    (path / "data.mdb").write_bytes(disk.bytes)
    for name in ("writer.lock", "openers.lock"):
        (path / name).touch()
    shutil.copy(recording.store / "diskreplay.json", path)


def examine(path: Path, recording: Recording) -> dict[str, Any]:
    """Open a store as a program would that starts again; return what is wrong and its commits."""
    faults = diskreplay.verify(path)
    with diskreplay.open(path) as buffer:
        buffer.check()
        found = fingerprint(buffer)
        if wrong := changed_in(buffer):
            faults.append(f"transitions {wrong[:5]} are not what was pushed")
        expected = recording.acknowledged(len(recording.events)).get(found["commits"], found)
        if found != expected:
            faults.append(f"commit {found['commits']} has {found}, expected {expected}")
        extend(buffer, 3, PLANS[recording.name].width)
        buffer.flush()
        buffer.check()
    return {"faults": faults, "commits": found["commits"]}


def run_round(
    recording: Recording, path: Path, rng: np.random.Generator
) -> tuple[Counter[str], str]:
    """Lose power once; return what is counted, and what was damaged, in words."""
    point = int(rng.integers(recording.first_point, len(recording.events) + 1))
    build(recording, point, path, rng)
    outcome = run_apart(lambda: examine(path, recording))
    shutil.rmtree(path)
    damage = outcome.ended or "; ".join(outcome.value["faults"])
    if damage:
        counts = Counter({"rounds": 1, "damaged": 1, "by signal": bool(outcome.signal)})
        where = f"{recording.durability}, {recording.name}, at event {point}"
        return counts, f"{where}: {damage.strip().splitlines()[-1]}"
    last = max(recording.acknowledged(point), default=0)
    lost = max(0, last - outcome.value["commits"])
    return Counter(["rounds", "opened sound", f"lost {lost if lost < 2 else 'more'}"]), ""


@click.command()
@report.number("--rounds", 300, least=3)
@report.seed()
@report.as_json
def main(rounds: int, seed: int, as_json: bool) -> None:
    """Lose power at random moments and count what was damaged or lost.

    Exits with status 1 when "full" lost an acknowledged commit, "system" more than the last, or
    either was damaged.
    """
    rng = np.random.default_rng(seed)
    began = time.monotonic()
    counts = report.Counts("durability", COLUMNS)
    examples: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="crash-power-") as name:
        directory = Path(name)
        library = compile_recorder(directory)
        kinds = [(durability, plan) for plan in PLANS for durability in DURABILITIES]
        recordings = []
        for at, (durability, plan) in enumerate(kinds[: max(rounds // 5, 3)]):
            place = directory / str(at)
            place.mkdir()
            recordings.append(record(library, place, durability, plan, seed))
        for at in range(rounds):
            recording = recordings[at % len(recordings)]
            counted, damage = run_round(recording, directory / "lost", rng)
            counts.add(recording.durability, counted)
            if damage:
                examples.setdefault(recording.durability, damage)
    if as_json:
        click.echo(json.dumps(counts.plain()))
    else:
        click.echo(counts.table())
        for example in examples.values():
            click.echo(f"the first damage: {example}")
        click.echo(f"{len(recordings)} recordings, {time.monotonic() - began:.0f} s, seed {seed}")
    sys.exit(any(counts.has(columns, durability) for durability, columns in BAD.items()))


if __name__ == "__main__":
    main()

"""Power loss, page by page: python -m crash.power --rounds 300.

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
from crash.images import changed_in, columns, facts, run_apart, verify
from crash.recorded import PLANS
from crash.recording import Disk, Recording, compile_recorder, record
from crash.table import table

DURABILITIES = ("full", "system", "process")
HEADS = (
    "durability", "rounds", "opened sound", "damaged", "by signal", "lost 0", "lost 1", "lost more"
)  # fmt: skip


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
    faults = verify(path)
    with diskreplay.open(path) as buffer:
        buffer.check()
        found = facts(buffer)
        if wrong := changed_in(buffer):
            faults.append(f"transitions {wrong[:5]} are not what was pushed")
        expected = recording.acknowledged(len(recording.events)).get(found["commits"], found)
        if found != expected:
            faults.append(f"commit {found['commits']} has {found}, expected {expected}")
        buffer.extend(**columns(buffer.count, 3, PLANS[recording.name].width))
        buffer.flush()
        buffer.check()
    return {"faults": faults, "commits": found["commits"]}


def run_round(
    recording: Recording, path: Path, rng: np.random.Generator
) -> tuple[int | None, str, bool]:
    """Lose power once; return commits lost or None, what was wrong, and whether a signal was."""
    point = int(rng.integers(recording.first_point, len(recording.events) + 1))
    build(recording, point, path, rng)
    outcome = run_apart(lambda: examine(path, recording))
    shutil.rmtree(path)
    where = f"{recording.durability}, {recording.name}, at event {point}: "
    if outcome.ended or outcome.value["faults"]:
        what = outcome.ended or "; ".join(outcome.value["faults"])
        return None, where + what.strip().splitlines()[-1], bool(outcome.signal)
    last = max(recording.acknowledged(point), default=0)
    return max(0, last - outcome.value["commits"]), "", False


@click.command()
@click.option("--rounds", type=click.IntRange(3), default=300, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def main(rounds: int, seed: int, as_json: bool) -> None:
    """Lose power at random moments and count what was damaged or lost.

    Exits with status 1 when "full" lost an acknowledged commit, "system" more than the last, or
    either was damaged.
    """
    rng = np.random.default_rng(seed)
    began = time.monotonic()
    counts = {durability: Counter[str]() for durability in DURABILITIES}
    examples: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="crash-power-") as name:
        directory = Path(name)
        library = compile_recorder(directory)
        recordings = []
        for at in range(min(max(rounds // 5, 3), len(DURABILITIES) * len(PLANS))):
            durability = DURABILITIES[at % len(DURABILITIES)]
            plan = list(PLANS)[at // len(DURABILITIES)]
            place = directory / str(at)
            place.mkdir()
            recordings.append(record(library, place, durability, plan, seed))
        for at in range(rounds):
            recording = recordings[at % len(recordings)]
            lost, fault, by_signal = run_round(recording, directory / "lost", rng)
            count = counts[recording.durability]
            count["rounds"] += 1
            count["damaged" if lost is None else "opened sound"] += 1
            count["by signal"] += by_signal
            if lost is None:
                examples.setdefault(recording.durability, fault)
            else:
                count[f"lost {lost if lost < 2 else 'more'}"] += 1
    report(counts, examples, as_json=as_json)
    if not as_json:
        click.echo(f"{len(recordings)} recordings, {time.monotonic() - began:.0f} s, seed {seed}")
    full, system = counts["full"], counts["system"]
    broken = full["damaged"] + system["damaged"] + system["lost more"]
    sys.exit(1 if broken + full["lost 1"] + full["lost more"] else 0)


def report(counts: dict[str, Counter[str]], examples: dict[str, str], *, as_json: bool) -> None:
    """Print the counts."""
    if as_json:
        rows = {word: {head: count[head] for head in HEADS[1:]} for word, count in counts.items()}
        click.echo(json.dumps(rows))
        return
    click.echo(table(HEADS, [[word, *(c[h] for h in HEADS[1:])] for word, c in counts.items()]))
    for example in examples.values():
        click.echo(f"the first damage: {example}")


if __name__ == "__main__":
    main()

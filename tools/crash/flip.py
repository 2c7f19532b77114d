"""`python -m crash.flip`: damage data files, and count what is found, missed and returned.

A round damages the data file of a closed store: a bit, a page, its length, or all of it. Then, each
in a process of its own, `verify` looks for faults, and a program opens the store and reads all of
it: samples, every transition by write id, the iteration, priorities and counts. Where nothing is
wrong so far it also writes, and opens the store once more. The columns::

    held         rounds that changed a byte which holds something, see layout.py
    found        verify told of a fault
    harmless     verify did not, and nothing that was read or written later differs
    held there   the harmless ones in which the byte holds something
    missed       verify did not, but something differs, is refused or kills the process
    use died     the process that reads and writes was killed by a signal
    changed values, older commit   it was given what was never pushed, or what was committed earlier
    wrong error  an exception that is none of diskreplay's
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

import diskreplay
from crash import report
from crash.checker import check_batches, check_iteration
from crash.damage import DAMAGES, Target, targets, touches_held
from crash.processes import Outcome, run_apart
from crash.rows import (
    Buffer,
    Ints,
    WrongRead,
    changed,
    extend,
    fingerprint,
    live_ids,
)
from diskreplay.store import make_known

COLUMNS = (
    "rounds", "held", "found", "harmless", "held there", "missed", "verify died", "use died",
    "changed values", "older commit", "wrong error",
)  # fmt: skip
BAD = ("missed", "verify died", "changed values", "wrong error")
_SECONDS = 30


def use(target: Target, verified: Outcome) -> dict[str, Any]:
    """Open a store, read what there is in every way, and return what came of it.

    refused: what diskreplay said; changed: what it returned that was never pushed; later: what
    is wrong after writing on
    """
    refused: list[str] = []
    wrong: list[str] = []
    buffer = diskreplay.open(target.path, commit_interval=float("inf"))
    ids = live_ids(buffer)
    for step in (
        partial(check_fingerprint, buffer, target),
        *[partial(check_batches, buffer, ids)] * 7,
        partial(check_rows, buffer, ids),
        partial(check_iteration, buffer, ids),
    ):
        try:
            step()
        except WrongRead as error:
            wrong.append(str(error))
        except diskreplay.DiskReplayError as error:
            refused.append(f"{type(error).__name__}: {error}")
    later = [] if verified.value or refused or wrong else go_on(buffer, target)
    older = any(said.startswith("commits") for said in wrong)
    return {"refused": refused, "changed": wrong, "older": older, "later": later}


def check_fingerprint(buffer: Buffer, target: Target) -> None:
    """Raise WrongRead when anything differs beside the rows."""
    found = fingerprint(buffer)
    if names := [name for name, value in target.fingerprint.items() if found.get(name) != value]:
        raise WrongRead(f"{', '.join(names)}: not what was committed last")


def check_rows(buffer: Buffer, ids: Ints) -> None:
    """Get all by write id: raise WrongRead when rows differ, which a refused one does not hide."""
    found: list[int] = []
    refused = None
    parts = np.array_split(ids, 8)
    while parts:
        part = parts.pop()
        try:
            found += changed(buffer.get(part), part)
        except diskreplay.DamageError as error:
            refused = error
            parts += np.array_split(part, 2) if len(part) > 1 else []
    if found:
        raise WrongRead(f"transitions {found} are not what was pushed")
    if refused:
        raise refused


def go_on(buffer: Buffer, target: Target) -> list[str]:
    """Write over what is there, close the store, and return what is wrong in it afterwards."""
    try:
        for _ in range(6):
            extend(buffer, min(target.capacity // 4, 50), target.width)
            buffer.flush()
        buffer.close()
        faults = diskreplay.verify(target.path)
        with diskreplay.open(target.path) as again:
            again.check()
            check_iteration(again, live_ids(again))
            check_rows(again, live_ids(again))
        return faults
    except (diskreplay.DiskReplayError, WrongRead) as error:
        return [str(error)]


def run_round(target: Target, damaged: bytes, *, silent: bool) -> tuple[Outcome, Outcome]:
    """Damage a store, let both look at it, and restore it."""
    file = target.path / "data.mdb"

    def look(function: Callable[[], Any]) -> Outcome:
        file.write_bytes(damaged)
        if silent and len(damaged) == len(target.data):
            make_known(target.path)
        outcome = run_apart(function, _SECONDS)
        (target.path / "lock.mdb").unlink(missing_ok=True)
        return outcome

    try:
        verified = look(lambda: diskreplay.verify(target.path))
        return verified, look(lambda: use(target, verified))
    finally:
        file.write_bytes(target.data)


def judge(held: bool, verified: Outcome, used: Outcome) -> tuple[list[str], str]:
    """Return the columns that a round counts in, and what was said."""
    value = used.value or {"refused": [], "changed": [], "older": False, "later": []}
    columns = ["held"] if held else []
    if verified.signal:
        columns.append("verify died")
    elif verified.value:
        columns.append("found")
    elif used.ended or value["refused"] or value["changed"] or value["later"]:
        columns.append("missed")
    else:
        columns += ["harmless", "held there"] if held else ["harmless"]
    if used.signal:
        columns.append("use died")
    if value["older"]:
        columns.append("older commit")
    elif value["changed"]:
        columns.append("changed values")
    if any(outcome.error and not outcome.refused for outcome in (verified, used)):
        columns.append("wrong error")
    ends = [outcome.ended.strip()[-400:] for outcome in (verified, used)]
    return columns, f"verify: {ends[0] or verified.value}; use: {ends[1] or value}"


def difference(before: bytes, after: bytes) -> str:
    """Return which bytes differ, in words."""
    if len(before) != len(after):
        return f"{len(after)} bytes (were {len(before)})"
    differ = np.flatnonzero(np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8))
    return f"bytes {differ[0]} to {differ[-1]}" if differ.size else "no byte"


@click.command()
@report.number("--rounds", 2000)
@report.seed()
@click.option(
    "--silent",
    is_flag=True,
    help="Note the damaged file as the one that diskreplay left, as when a disk decays.",
)
@click.option("--examples", is_flag=True, help="Print an example for each column and damage.")
@report.as_json
def main(rounds: int, seed: int, silent: bool, examples: bool, as_json: bool) -> None:
    """Damage stores and count what was found, missed and returned.

    Exits with status 1 when `verify` missed damage that does harm or did not survive it, when a
    changed value was returned, or when an error was none of diskreplay's.
    """
    rng = np.random.default_rng(seed)
    began = time.monotonic()
    counts = report.Counts("damage", COLUMNS)
    counts.rows = {damage: Counter() for damage in DAMAGES}
    seen: dict[tuple[str, str], str] = {}
    deaths = Counter[str]()
    shares = np.array([share for _, share in DAMAGES.values()])
    with tempfile.TemporaryDirectory(prefix="crash-flip-") as name:
        stores = targets(Path(name))
        for at in range(rounds):
            # Each kind at least once, when there are rounds for it.
            kind = list(DAMAGES)[at if at < len(DAMAGES) else rng.choice(len(shares), p=shares)]
            target = stores[at % len(stores)]
            damaged = DAMAGES[kind][0](target, stores, rng)
            verified, used = run_round(target, damaged, silent=silent)
            columns, said = judge(touches_held(target, damaged), verified, used)
            counts.add(kind, Counter(["rounds", *columns]))
            if used.signal:
                deaths[signal.Signals(used.signal).name] += 1
            for column in columns:
                where = f"{target.name}, {difference(target.data, damaged)}"
                seen.setdefault((column, kind), f"{where}: {said}")
    if as_json:
        click.echo(json.dumps(counts.plain()))
    else:
        click.echo(counts.table(total=True))
        click.echo(f"use died of: {dict(deaths) or 'nothing'}")
        for (column, kind), said in seen.items():
            if examples or column in BAD:
                click.echo(f"{column}, {kind}: {said[:1000]}")
        click.echo(f"{time.monotonic() - began:.0f} s, seed {seed}")
    sys.exit(counts.has(BAD))


if __name__ == "__main__":
    main()

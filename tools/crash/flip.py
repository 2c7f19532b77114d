"""Damage to data files: python -m crash.flip --rounds 2000.

A round damages the data file of a closed store: a bit, a page, its length, or all of it. Then, each
in a process of its own, `verify` looks for faults, and a program opens the store and reads all of
it: samples, every transition by write id, the iteration, priorities and counts. Where nothing is
wrong so far it also writes, and opens the store once more. The columns::

    held         rounds that changed a byte which holds something, see layout.py
    found        verify told of a fault
    harmless     verify did not, and nothing that was read or written later differs
    held there   those of the harmless ones in which the byte holds something
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
from pathlib import Path
from typing import Any

import click
import numpy as np

import diskreplay
from crash.damage import DAMAGES, Victim, touches_held, victims
from crash.images import Buffer, Outcome, changed, columns, facts, live_ids, run_apart, verify
from crash.table import table
from diskreplay.store import make_known

HEADS = (
    "damage", "rounds", "held", "found", "harmless", "held there", "missed", "verify died",
    "use died", "changed values", "older commit", "wrong error",
)  # fmt: skip
MUST_BE_ZERO = ("missed", "verify died", "changed values", "wrong error")
_SECONDS = 30


def use(victim: Victim, verified: Outcome) -> dict[str, Any]:
    """Open a store, read what there is in every way, and return what came of it.

    refused: what diskreplay said; changed: what it returned that was never pushed; later: what
    is wrong after writing on
    """
    refused: list[str] = []
    wrong: list[str] = []
    older = False
    buffer = diskreplay.open(victim.path, commit_interval=float("inf"))
    for step in (read_facts, sample, get, iterate):
        try:
            found = step(buffer, victim)
        except diskreplay.DiskReplayError as error:
            refused.append(f"{type(error).__name__}: {error}")
        else:
            older = older or "commits" in found
            wrong += found
    later = [] if verified.value or refused or wrong else go_on(buffer, victim)
    return {"refused": refused, "changed": wrong, "older": older, "later": later}


def read_facts(buffer: Buffer, victim: Victim) -> list[str]:
    """Return the names of facts that differ."""
    found = facts(buffer)
    return [name for name, value in victim.facts.items() if found.get(name) != value]


def sample(buffer: Buffer, victim: Victim) -> list[str]:
    """Return what is wrong in many batches."""
    found = []
    for _ in range(20):
        batch = buffer.sample(min(24, len(buffer)))
        ids = np.rint(np.asarray(batch.rewards, np.float64) * 8).astype(np.int64)
        found += [f"sampled {wrong}" for wrong in changed(batch, ids)]
        found += [
            f"sampled {wrong}" for wrong in set(ids.tolist()) - set(live_ids(buffer).tolist())
        ]
        if isinstance(batch, diskreplay.PrioritizedBatch):
            found += [f"sampled {i}" for i in ids[ids != batch.indices].tolist()]
    return found


def get(buffer: Buffer, _: Victim) -> list[str]:
    """Return which transitions are others by write id; a refused one hides no other."""
    found: list[str] = []
    refused = None
    parts = np.array_split(live_ids(buffer), 8)
    while parts:
        ids = parts.pop()
        try:
            found += [f"got {wrong}" for wrong in changed(buffer.get(ids), ids)]
        except diskreplay.DamageError as error:
            refused = error
            parts += np.array_split(ids, 2) if len(ids) > 1 else []
    if refused is not None and not found:
        raise refused
    return found


def iterate(buffer: Buffer, _: Victim) -> list[str]:
    """Return what the iteration yields in another order than it was pushed."""
    found = [round(float(experience.reward) * 8) for experience in buffer]
    return [] if found == live_ids(buffer).tolist() else ["iterated in another order"]


def go_on(buffer: Buffer, victim: Victim) -> list[str]:
    """Write over what is there, close the store, and return what is wrong in it afterwards."""
    try:
        for _ in range(6):
            n = min(victim.capacity // 4, 50)
            buffer.extend(**columns(buffer.count, n, victim.width))
            buffer.flush()
        buffer.close()
        faults = verify(victim.path)
        with diskreplay.open(victim.path) as again:
            again.check()
            return faults + iterate(again, victim) + get(again, victim)
    except diskreplay.DiskReplayError as error:
        return [str(error)]


def run_round(victim: Victim, damaged: bytes, *, silent: bool) -> tuple[Outcome, Outcome]:
    """Damage a store, let both look at it, and restore it."""
    file = victim.path / "data.mdb"

    def look(function: Callable[[], Any]) -> Outcome:
        file.write_bytes(damaged)
        if silent and len(damaged) == len(victim.data):
            make_known(victim.path)
        outcome = run_apart(function, _SECONDS)
        (victim.path / "lock.mdb").unlink(missing_ok=True)
        return outcome

    try:
        verified = look(lambda: verify(victim.path))
        return verified, look(lambda: use(victim, verified))
    finally:
        file.write_bytes(victim.data)


def judge(held: bool, verified: Outcome, used: Outcome) -> tuple[list[str], str]:
    """Return the columns that a round counts in, and what was said."""
    value = used.value or {"refused": [], "changed": [], "older": False, "later": []}
    heads = ["held"] if held else []
    if verified.signal:
        heads.append("verify died")
    elif verified.value:
        heads.append("found")
    elif used.ended or value["refused"] or value["changed"] or value["later"]:
        heads.append("missed")
    else:
        heads += ["harmless", "held there"] if held else ["harmless"]
    if used.signal:
        heads.append("use died")
    if value["older"]:
        heads.append("older commit")
    elif value["changed"]:
        heads.append("changed values")
    if any(outcome.error and not outcome.refused for outcome in (verified, used)):
        heads.append("wrong error")
    ends = [outcome.ended.strip()[-400:] for outcome in (verified, used)]
    return heads, f"verify: {ends[0] or verified.value}; use: {ends[1] or value}"


def difference(before: bytes, after: bytes) -> str:
    """Return which bytes differ, in words."""
    if len(before) != len(after):
        return f"{len(after)} bytes (were {len(before)})"
    differ = np.flatnonzero(np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8))
    return f"bytes {differ[0]} to {differ[-1]}" if differ.size else "no byte"


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--silent",
    is_flag=True,
    help="Have the damaged file taken for what diskreplay left: a disk decays unseen.",
)
@click.option("--examples", is_flag=True, help="Print an example for each column and damage.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def main(rounds: int, seed: int, silent: bool, examples: bool, as_json: bool) -> None:
    """Damage stores and count what was found, missed and returned.

    Exits with status 1 when `verify` missed damage that does harm or did not survive it, when a
    changed value was returned, or when an error was none of diskreplay's.
    """
    rng = np.random.default_rng(seed)
    began = time.monotonic()
    counts = {damage: Counter[str]() for damage in DAMAGES}
    seen: dict[tuple[str, str], str] = {}
    deaths = Counter[str]()
    shares = np.array([share for _, share in DAMAGES.values()])
    with tempfile.TemporaryDirectory(prefix="crash-flip-") as name:
        stores = victims(Path(name))
        for at in range(rounds):
            # Each kind at least once, when there are rounds for it.
            kind = list(DAMAGES)[at if at < len(DAMAGES) else rng.choice(len(shares), p=shares)]
            victim = stores[at % len(stores)]
            damaged = DAMAGES[kind][0](victim, stores, rng)
            verified, used = run_round(victim, damaged, silent=silent)
            heads, said = judge(touches_held(victim, damaged), verified, used)
            counts[kind].update(["rounds", *heads])
            if used.signal:
                deaths[signal.Signals(used.signal).name] += 1
            for head in heads:
                where = f"{victim.name}, {difference(victim.data, damaged)}"
                seen.setdefault((head, kind), f"{where}: {said}")
    if as_json:
        click.echo(json.dumps(counts))
    else:
        rows = [[kind, *(c[h] for h in HEADS[1:])] for kind, c in counts.items()]
        total = Counter[str]()
        for count in counts.values():
            total.update(count)
        click.echo(table(HEADS, [*rows, ["all", *(total[h] for h in HEADS[1:])]]))
        click.echo(f"use died of: {dict(deaths) or 'nothing'}")
        for (head, kind), said in seen.items():
            if examples or head in MUST_BE_ZERO:
                click.echo(f"{head}, {kind}: {said[:1000]}")
        click.echo(f"{time.monotonic() - began:.0f} s, seed {seed}")
    sys.exit(1 if any(count[head] for count in counts.values() for head in MUST_BE_ZERO) else 0)


if __name__ == "__main__":
    main()

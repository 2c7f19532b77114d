"""`python -m crash.company`: remove and replace files of a store while processes work with it.

Openers, writers and readers start, stop, are stopped (SIGSTOP) and killed at random. Meanwhile a
file of the store is removed, or replaced by a link, an older copy, an empty file, garbage or a part
of itself, and put back. Each round has a new store and another such fault. What must hold::

    each process   ends with its work done or with an error of ours that names the store; by no
                   signal but those that it is sent, with no other error, and in time
    each commit    that is acknowledged is in the data file that the process has open; while that
                   file or its lock file is not the one at the path, none is acknowledged, and
                   nothing is read twice
    at the end     when all files are as they were, `verify` finds nothing, and all that was
                   acknowledged is there, once and whole

Files that LMDB maps (data.mdb, lock.mdb) are cut in place only while no process has the store open:
the system ends every process that touches a mapped page beyond the end of its file (SIGBUS),
whatever its program does. While it is open they are replaced, by rename, as backups and people do.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import click
import numpy as np

from crash import report
from crash.company_group import CAPACITY, WIDTH, Company, fill, start_ledger
from crash.file_faults import FAULTS, NAMES, Fault, Files
from crash.processes import ask
from crash.writer import Task

BAD = ("lost", "unnoticed", "by signal", "other error", "hung", "wrong")
COLUMNS = ("rounds", "processes", "killed", "stopped", "refused", "transitions", *BAD)
PACE = 800.0  # transitions that a writer pushes in a second
SPAN = 0.7  # seconds between a fault and the next
ROUND = 5.0  # seconds that a round takes at most, when all is well


def play(fault: Fault, place: Path, rng: np.random.Generator, span: float = SPAN) -> Company:
    """Play one round; return the company, with what it counted and the failures that it found."""
    place.mkdir()
    task = Task(
        str(place / "store"),
        str(rng.choice(["uniform", "prioritized"])),
        CAPACITY,
        WIDTH,
        str(rng.choice(["exclusive", "shared"], p=[0.4, 0.6])),
        seed=int(rng.integers(1 << 30)),
        durability=str(rng.choice(["system", "process"])),
        commit_interval=float(rng.choice([0.0, 3600.0], p=[0.2, 0.8])),
        pace=PACE,
    )
    ask(lambda: fill(task))
    files = Files(place, rng)
    company = Company(task, files, fault, rng)
    try:
        _act(fault, company, files, rng, span)
    finally:
        company.kill_all()
    company.counts.update(rounds=1, processes=company.started)
    return company


def _act(
    fault: Fault, company: Company, files: Files, rng: np.random.Generator, span: float
) -> None:
    company.work(span)
    for _ in range(1 if fault.needs_closed else int(rng.integers(1, 3))):
        if fault.needs_closed:
            company.leave()
            company.judge()
        files.disturb(fault)
        if fault.act == "older in place":
            company.ledger = start_ledger(files.place / "older")
        company.work(span)
        if not fault.needs_closed and rng.random() < 0.6:
            files.put_back(fault)
            company.work(span)
    company.leave()
    files.put_back(fault)
    company.judge()


def run(seconds: float, seed: int) -> tuple[report.Counts, Counter[str]]:
    """Play rounds of all faults in turn; a store that failed is kept and named."""
    rng = np.random.default_rng(seed)
    end = time.monotonic() + seconds
    counts = report.Counts("file", COLUMNS)
    errors: Counter[str] = Counter()
    order: list[Fault] = []
    number = 0
    with report.kept_place("company") as home:
        while number == 0 or time.monotonic() < end - ROUND:
            if not order:
                order = list(FAULTS)
                rng.shuffle(order)
            fault = order.pop()
            place = home / f"round-{number}"
            company = play(fault, place, rng)
            counts.add(fault.name, company.counts)
            errors += company.errors
            found = [f"{n} x {what}" for what, n in Counter(company.failures).items()]
            report.keep_or_remove(place, [f"round {number}, {fault}:", *found] if found else [])
            number += 1
    counts.rows = {name: counts.rows[name] for name in ("nothing", *NAMES) if name in counts.rows}
    return counts, errors


@click.command()
@report.duration("--seconds", 600, "For all rounds together; one at least is played.")
@report.seed("Of what is disturbed, how and when; what it meets is never the same.")
@click.option("--examples", is_flag=True, help="Print the errors that came, one of each.")
def main(seconds: float, seed: int, examples: bool) -> None:
    """Remove and replace files of stores that processes work with, and count what is lost.

    The exit status is 1 when anything is wrong. Example: python -m crash.company --seconds 60
    """
    began = time.monotonic()
    counts, errors = run(seconds, seed)
    click.echo(counts.table(total=True))
    if examples:
        for text, n in errors.most_common():
            click.echo(f"{n:,} x {text}")
    of = counts.total
    click.echo(
        f"{of['rounds']:,} rounds in {time.monotonic() - began:.0f} s: {of['processes']:,} "
        f"processes, of {of['transitions'] + of['lost']:,} acknowledged transitions "
        f"{of['lost']:,} lost, {of['unnoticed']:,} unnoticed, {of['by signal']:,} ended by a "
        f"signal, {of['other error']:,} other errors, {of['hung']:,} hung, {of['wrong']:,} wrong"
    )
    sys.exit(counts.has(BAD))


if __name__ == "__main__":
    main()

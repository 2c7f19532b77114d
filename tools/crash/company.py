"""`python -m crash.company`: files of a store are taken away while a company works with it.

Openers, writers and readers start, stop, are stopped (SIGSTOP) and killed at random. Meanwhile a
file of the store is removed, or replaced by a link, an older copy, an empty file, garbage or a part
of itself, and put back. Each round has a new store and another such plan. What must hold::

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

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np

from crash.common import ask
from crash.crew import CAPACITY, WIDTH, Company, Tally, base_of, fill
from crash.disturbing import NAMES, PLANS, Files, Plan
from crash.table import table
from crash.writer import Task

PACE = 800.0  # transitions that a writer pushes in a second
SPAN = 0.7  # seconds between a disturbance and the next
ROUND = 5.0  # seconds that a round takes at most, when all is well


def play(
    plan: Plan, place: Path, rng: np.random.Generator, span: float = SPAN
) -> tuple[Tally, list[str], Counter[str]]:
    """Play one round; return its tally, what was wrong, and the errors of ours that came."""
    place.mkdir()
    task = Task(
        str(place / "store"),
        str(rng.choice(["uniform", "prioritized"])),
        CAPACITY,
        WIDTH,
        str(rng.choice(["exclusive", "shared"], p=[0.4, 0.6])),
        author=0,
        seed=int(rng.integers(1 << 30)),
        durability=str(rng.choice(["system", "process"])),
        commit_interval=float(rng.choice([0.0, 3600.0], p=[0.2, 0.8])),
        pace=PACE,
    )
    ask(lambda: fill(task))
    files = Files(place, rng)
    company = Company(task, files, plan, rng)
    try:
        _act(plan, company, files, rng, span)
    finally:
        company.disband()
    return company.tally, company.told, company.errors


def _act(plan: Plan, company: Company, files: Files, rng: np.random.Generator, span: float) -> None:
    company.work(span)
    for _ in range(1 if plan.is_calm else int(rng.integers(1, 3))):
        if plan.is_calm:
            company.leave()
            company.judge()
        files.disturb(plan)
        if plan.act == "older in place":
            company.base = base_of(files.place / "older")
        company.work(span)
        if not plan.is_calm and rng.random() < 0.6:
            files.put_back(plan)
            company.work(span)
    company.leave()
    files.put_back(plan)
    company.judge()


def run(
    seconds: float, seed: int, plans: Iterable[Plan] = PLANS
) -> tuple[dict[str, Tally], Counter[str]]:
    """Play rounds of all plans in turn; a store that failed is kept and named."""
    rng = np.random.default_rng(seed)
    home = Path(tempfile.mkdtemp(prefix="diskreplay-company-"))
    end = time.monotonic() + seconds
    tallies: dict[str, Tally] = {name: Tally() for name in ("nothing", *NAMES)}
    errors: Counter[str] = Counter()
    order: list[Plan] = []
    number = 0
    while number == 0 or time.monotonic() < end - ROUND:
        if not order:
            order = list(plans)
            rng.shuffle(order)
        plan = order.pop()
        place = home / f"round-{number}"
        tally, told, refused = play(plan, place, rng)
        tallies[plan.name].add(tally)
        errors += refused
        if told:
            each = [f"{n} x {what}" for what, n in Counter(told).items()]
            said = [f"round {number}, {plan}:", *each, f"{place} is kept"]
            click.echo("\n".join(said), err=True)
        else:
            shutil.rmtree(place)
        number += 1
    if not any(tally.is_bad for tally in tallies.values()):
        shutil.rmtree(home)
    return {name: tally for name, tally in tallies.items() if tally.rounds}, errors


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=600,
    show_default=True,
    help="For all rounds together; one at least is played.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of what is disturbed, how and when; what it meets is never the same.",
)
@click.option("--examples", is_flag=True, help="Print the errors that came, one of each.")
def main(seconds: float, seed: int, examples: bool) -> None:
    """Take away files of stores that processes work with, and count what is lost unnoticed.

    The exit status is 1 when anything is wrong. Example: python -m crash.company --seconds 60
    """
    began = time.monotonic()
    tallies, errors = run(seconds, seed)
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    heads = ["file", *(name.replace("_", " ") for name in vars(total))]
    rows = [
        [name, *(f"{value:,}" for value in vars(tally).values())]
        for name, tally in {**tallies, "all": total}.items()
    ]
    click.echo(table(heads, rows))
    if examples:
        for text, n in errors.most_common():
            click.echo(f"{n:,} x {text}")
    click.echo(
        f"{total.rounds:,} rounds in {time.monotonic() - began:.0f} s: {total.processes:,} "
        f"processes, of {total.transitions + total.lost:,} acknowledged transitions "
        f"{total.lost:,} lost, {total.unnoticed:,} unnoticed, {total.by_signal:,} ended by a "
        f"signal, {total.other_error:,} other errors, {total.hung:,} hung, {total.wrong:,} wrong"
    )
    sys.exit(total.is_bad)


if __name__ == "__main__":
    main()

"""Write figures as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.driver import Measured
from bench.goals import Figure, Row

BEGIN = "<!-- measured: written by `python -m bench run --write`, not by hand -->"
END = "<!-- end of what was measured -->"
PER_UNIT = {"us": 1e3, "ms": 1e6, "s": 1e9, "MB": 1e6}  # of nanoseconds, or of bytes
HEADS = ("work", "diskreplay", "against", "", "ratio", "goal", "reached")
TABLE = "|" + " --- |" * len(HEADS)


class Values:
    """The values of a figure over all rounds, in its unit."""

    def __init__(self, measured: dict[str, Measured], figure: Figure, unit: str) -> None:
        leg = measured[figure.leg]
        self.missing = leg.missing
        raw = np.array([] if leg.missing else leg.rounds[figure.name])
        self.values = 1e9 / raw if unit.endswith("/s") else raw / PER_UNIT[unit]
        self.unit = unit
        self.quantile = figure.quantile

    @property
    def typical(self) -> float:
        """The median, or the quantile that stands for the figure."""
        return float(np.quantile(self.values, self.quantile))

    def __str__(self) -> str:
        """Return the median and the quartiles."""
        if self.missing:
            return self.missing
        text = f"{number(self.typical)} {self.unit}"
        if self.quantile != 0.5 or len(self.values) < 3:
            return text
        low, high = np.quantile(self.values, [0.25, 0.75])
        return f"{text} ({number(low)} to {number(high)})"


def number(value: float) -> str:
    """Return three digits of a number, and thousands with a comma."""
    digits = max(0, 2 - int(np.floor(np.log10(value)))) if value > 0 else 0
    return f"{value:,.{min(digits, 4)}f}"


def cells(row: Row, measured: dict[str, Measured]) -> list[str]:
    """Return a row of the table."""
    ours = Values(measured, row.ours, row.unit)
    theirs = Values(measured, row.theirs, row.unit) if row.theirs is not None else None
    bound = f"{row.bound:g} x" if theirs is not None else f"{row.bound:g} {row.unit}"
    goal = f"{row.relation} {bound}" if row.relation else ""
    ratio = reached = ""
    if not ours.missing and not (theirs is not None and theirs.missing):
        value = ours.typical if theirs is None else ours.typical / theirs.typical
        if theirs is not None:
            ratio = f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
        if row.relation:
            is_reached = value <= row.bound if row.relation == "<=" else value >= row.bound
            reached = "yes" if is_reached else "no"
    name = row.theirs.leg if row.theirs is not None and row.theirs.leg != row.ours.leg else ""
    short = name if name.startswith("reverb") else name.partition(",")[0]
    return [row.work, str(ours), short, str(theirs or ""), ratio, goal, reached]


def table(rows: Sequence[Row], measured: dict[str, Measured]) -> list[str]:
    """Return the lines of the table of a group, without its head."""
    return [f"| {' | '.join(cells(row, measured))} |" for row in rows]


def page(lines: Sequence[str], facts: dict[str, Any]) -> str:
    """Return the table, and where and how it was measured."""
    machine = facts["machine"]
    versions = [
        f"- {system}: " + ", ".join(f"{name} {found}" for name, found in of_one.items())
        for system, of_one in facts["versions"].items()
    ]
    text = [
        f"Measured on {facts['date']} on {machine['cores']} cores of {machine['cpu']} with "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB of memory, {machine['kernel']}, Python "
        f"{machine['python']}, in {facts['minutes']:.0f} minutes from a load of "
        f"{facts['load_before']:.1f} on, by `{facts['command']}`.",
        "",
        f"| {' | '.join(HEADS)} |",
        TABLE,
        *lines,
        "",
        "The versions:",
        "",
        *versions,
    ]
    return "\n".join(text)


def write_into(file: Path, text: str) -> None:
    """Replace what stands between the two marks of a page; raise ValueError without them."""
    whole = file.read_text()
    if whole.count(BEGIN) != 1 or whole.count(END) != 1:
        raise ValueError(f"{file} does not hold the lines {BEGIN!r} and {END!r} once each")
    before, _, rest = whole.partition(BEGIN)
    file.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")

"""The frame of the fault injectors: options, counts, the table, and the stores that are kept."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def number(name: str, default: float, help: str = "", *, least: int = 1) -> Option:
    """Return the option of a whole number."""
    return click.option(
        name, type=click.IntRange(least), default=default, show_default=True, help=help
    )


def duration(name: str, default: float, help: str) -> Option:
    """Return the option of a duration."""
    kind = click.FloatRange(0, min_open=True)
    return click.option(name, type=kind, default=default, show_default=True, help=help)


def seed(help: str = "") -> Option:
    """Return the option of the seed."""
    return number("--seed", 0, help, least=0)


def choices(name: str, known: Sequence[str], help: str) -> Option:
    """Return an option that takes some of the known words, by default all."""
    return click.option(
        name,
        type=click.Choice(known),
        multiple=True,
        default=known,
        help=f"{help}; may be given several times.  [default: all]",
    )


as_json = click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")


class Counts:
    """What is counted, in columns, of each kind of round."""

    def __init__(self, kind: str, columns: Sequence[str]) -> None:
        self._kind, self._columns = kind, columns
        self.rows: dict[str, Counter[str]] = {}

    def add(self, kind: str, counts: Counter[str]) -> None:
        """Add what was counted in a round."""
        self.rows.setdefault(kind, Counter()).update(counts)

    @property
    def total(self) -> Counter[str]:
        """The sums over all kinds."""
        return sum(self.rows.values(), Counter())

    def has(self, columns: Sequence[str], kind: str | None = None) -> bool:
        """Return whether anything was counted in some columns, of one kind or of all."""
        counts = self.total if kind is None else self.rows.get(kind, Counter())
        return any(counts[column] for column in columns)

    def table(self, *, total: bool = False) -> str:
        """Return a line for each kind, and one for all of them, if asked for."""
        rows = {**self.rows, "all": self.total} if total else self.rows
        cells = [
            [kind, *(f"{row[name]:,}" for name in self._columns)] for kind, row in rows.items()
        ]
        return table([self._kind, *self._columns], cells)

    def plain(self) -> dict[str, dict[str, int]]:
        """Return all counts for JSON."""
        return {
            kind: {name: row[name] for name in self._columns} for kind, row in self.rows.items()
        }


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under heads, columns aligned: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in [heads, ["-" * width for width in widths], *rows]:
        others = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *others]).rstrip())
    return "\n".join(lines)


@contextlib.contextmanager
def kept_place(name: str) -> Iterator[Path]:
    """Make a directory for stores; it stays when a store is left in it."""
    place = Path(tempfile.mkdtemp(prefix=f"diskreplay-{name}-"))
    yield place
    for left in place.glob(".diskreplay-new-*"):  # of stores that were killed in the making
        shutil.rmtree(left)
    with contextlib.suppress(OSError):
        place.rmdir()


def keep_or_remove(path: Path, failures: Sequence[str], when: str = "") -> None:
    """Remove a store; when failures were found, print them and keep it."""
    if failures:
        click.echo("\n".join([*failures, f"{path} is kept{when}"]), err=True)
    else:
        shutil.rmtree(path, ignore_errors=True)

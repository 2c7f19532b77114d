"""What `diskreplay inspect` shows of episodes: how many are whole, their lengths and returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from diskreplay.aliases import Array
from diskreplay.wording import count_of
from diskreplay_tools.episodes import LinkedEpisodes, have_returns, read_linked_episodes
from diskreplay_tools.stores import Buffer
from diskreplay_tools.terminal.numbers import number
from diskreplay_tools.terminal.text import Screen, entry, heading


class EpisodeFigures:
    """The figures of the whole episodes among the newest transitions of a store."""

    def __init__(self, buffer: Buffer, rows: int) -> None:
        self._schema = buffer.schema
        self._found: LinkedEpisodes | None = read_linked_episodes(buffer, rows)

    def to_plain(self) -> dict[str, Any] | None:
        """Return them as they are in JSON; None where they are not known."""
        found = self._found
        if found is None:
            return None
        return {
            "of": found.rows,
            "whole": found.ends.size,
            "without_done": found.cut_off,
            "length": _span_of(found.lengths),
            "return": _span_of(found.returns),
        }

    def lines(self, facts: dict[str, Any], on: Screen) -> Iterator[str]:
        """Yield them line by line."""
        found, size = self._found, facts["size"]
        if not size:
            return
        yield ""
        if found is None:
            why = ": not known; no transition says which one it follows"
            if self._schema is not None and not have_returns(self._schema):
                why = ": not shown; reward or done is not one real number"
            yield heading("Episodes", why, on)
            return
        of = count_of(size, "transition")
        if size > 1:
            of = f"the newest {found.rows:,} of {of}" if found.rows < size else f"all {of}"
        n = found.ends.size
        yield heading("Episodes", f": {n:,} whole in {of}", on)
        if n:
            yield entry("length", _in_words(found.lengths), on)
            yield entry("return", _in_words(found.returns), on)
            yield entry("without done", f"{found.cut_off:,} of them", on)
        if cuts := facts["cuts"]:
            yield entry("cuts", f"{count_of(cuts, 'end')} that nobody declared, in all runs", on)


def _span_of(values: Array) -> dict[str, Any] | None:
    if not values.size:
        return None
    low, high = values.min().item(), values.max().item()
    return {"min": low, "mean": float(_mean(values)), "max": high}


def _in_words(values: Array) -> str:
    low, high = number(values.min()), number(values.max())
    return low if low == high else f"{low} to {high}, mean {number(_mean(values))}"


def _mean(values: Array) -> Any:
    with np.errstate(over="ignore", invalid="ignore"):
        return values.mean(dtype=np.float64)  # it may be no number

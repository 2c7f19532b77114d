"""The links of imported rows: those of an export, or those that follow from the rows themselves."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np

import diskreplay
from diskreplay.aliases import Columns, Ints
from diskreplay.episodes import Linker, LinkValues, all_done, links_to
from diskreplay.schema import Schema
from diskreplay.wording import count_of
from diskreplay_tools.files.columns import LINK, WRITE_ID, Column, Table
from diskreplay_tools.files.readers import TableFile

_TYPES = {WRITE_ID: "int64", LINK: "int32"}
_WAY_OUT = f"--drop {LINK} makes links anew, from the states"


def link_columns(
    file: TableFile, metadata: Mapping[str, Any], dropped: Sequence[str]
) -> list[Column]:
    """Return the columns of an export that tell of links; none if it has none, or one is dropped.

    Another program may have written the file again, without what the export said of its store.
    Raises ClickException if one of them is not as `export` writes it.
    """
    found = [file.columns[name] for name in _TYPES if name in file.columns and name not in dropped]
    if len(found) < len(_TYPES) or (metadata and metadata.get("links") is not True):
        return []
    for column in found:
        if column.fault or column.type != _TYPES[column.name]:
            if not metadata:
                return []  # a field of this name
            told = column.fault or f"found {column.type}"
            raise click.ClickException(
                f"{file.path}, column {column.name!r}: expected {_TYPES[column.name]}, as export "
                f"writes it ({told}): {_WAY_OUT}"
            )
    return found


class ExportedLinks:
    """Links of rows, from the write ids and links of an export.

    A link to a transition that is not among the rows leads to none. Memory: 9 bytes a row.
    """

    rows_before = 0

    def __init__(self, file: TableFile, rows: int) -> None:
        self._file = file
        self._write_ids = np.zeros(rows, np.int64)
        self._dones = np.zeros(rows, np.bool_)

    def of(self, first: int, table: Table, schema: Schema, columns: Columns) -> LinkValues:
        """Return the links of the rows from `first` on."""
        write_ids, links = table[WRITE_ID], table[LINK]
        end = first + write_ids.size
        self._write_ids[first:end] = write_ids
        self._dones[first:end] = all_done(columns[schema.done_place])
        known = self._write_ids[:end]
        if (np.diff(write_ids, prepend=known[first - 1] if first else -1) <= 0).any():
            raise click.ClickException(
                f"{self._file.path}, rows {first:,} to {end - 1:,}: expected write ids that "
                f"ascend, as export writes them, since links lead to them: {_WAY_OUT}"
            )
        before = write_ids - np.abs(links.astype(np.int64))
        places: Ints = known.searchsorted(before)
        is_there = known[places] == before
        # Whoever changed the file by hand may have made one done that went on.
        goes_on = (links > 0) & ~(is_there & self._dones[places])
        signs = np.where(goes_on, 1, -(links != 0).astype(np.int32))
        return links_to(np.where(is_there, places, -1), np.arange(first, end), signs)

    def told(self, rows: int) -> None:
        """Return None: nothing has to be told."""


class FoundLinks:
    """Links of rows that are one stream, as `extend` finds them, and a count of the cuts."""

    rows_before = 1  # it says whether the first row goes on with an episode

    def __init__(self, schema: Schema) -> None:
        self._linker = Linker()
        self._truncated: int | None = None
        if "truncated" in schema.names:
            field = schema["truncated"]
            if not field.varies and math.prod(field.shape) == 1:
                self._truncated = schema.names.index("truncated")

    def of(self, first: int, table: Table, schema: Schema, columns: Columns) -> LinkValues:
        """Return the links of the rows from `first` on, given as the schema accepted them."""
        ends = None
        if self._truncated is not None:
            ends = columns[self._truncated].reshape(-1) != 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", diskreplay.EpisodeWarning)  # told at the end
            return self._linker.extend(first, schema, columns, ends, None)

    def told(self, rows: int) -> str | None:
        """Return a sentence about the episodes that were cut in so many rows, None without."""
        cuts = self._linker.cuts(rows)
        if not cuts:
            return None
        told = f"cut {count_of(cuts, 'open episode')}, where the next row has another state"
        if self._truncated is None:
            told += "; --field truncated=COLUMN names a column that is true at such ends"
        return told

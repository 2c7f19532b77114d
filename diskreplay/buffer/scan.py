"""Scan: rows of a buffer in the order of given write ids, also beside a writer.

A writer may evict rows before a scan has read them. Each chunk is read by calls of its own, so that
a scan keeps no pages of an old commit and the writer can use them again. The row of a write id
never changes, only its priority, so each chunk is right whenever it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from diskreplay.aliases import Array, Ints
from diskreplay.buffer.batch_values import as_objects
from diskreplay.buffer.rows import VARYING_CHUNK_ROWS
from diskreplay.errors import DamageError, NotLiveError
from diskreplay.protocols import Replay

CHUNK_BYTES = 1 << 20
_LEAST_BYTES = 64  # of a row, with its write id and its Python objects
_MARGIN = 64  # write ids


class Scan:
    """An iteration over rows in chunks of about 1 MiB, as (write ids, columns by field).

    Rows that were evicted before they were read are left out, and counted in `evicted`. `done`
    counts the rows read or left out so far, of `total`. Values that vary in size are objects in an
    array.

    >>> buffer = ReplayBuffer(capacity=100)
    >>> ids = buffer.extend([[0.0]] * 8, [0] * 8, range(8), [[0.0]] * 8, [False] * 8)
    >>> rows = Scan(buffer, fields=["reward"])
    >>> [(ids.tolist(), int(columns["reward"].sum())) for ids, columns in rows], rows.evicted
    ([([0, 1, 2, 3, 4, 5, 6, 7], 28)], 0)

    write_ids:     in any order; by default all live write ids
    fields:        names of the columns; by default all fields
    priorities:    also yield a column `priority`; the buffer must be prioritized
    links:         also yield a column `link`, int32: the distance back to the transition before it
                   in its episode; negative, to the last one of the episode before; or 0
    skip_damaged:  leave out damaged records, and list their write ids in `damaged`; otherwise
                   raise the DamageError
    """

    def __init__(
        self,
        buffer: Replay[Any],
        write_ids: Ints | range | None = None,
        fields: Sequence[str] | None = None,
        *,
        priorities: bool = False,
        links: bool = False,
        skip_damaged: bool = False,
    ) -> None:
        self._buffer: Any = buffer
        # A range, since the write ids of all rows may take more memory than there is.
        self._write_ids = live_write_ids(buffer) if write_ids is None else write_ids
        schema = buffer.schema
        names = () if schema is None else schema.names if fields is None else fields
        self._fields, self._priorities, self._links = list(names), priorities, links
        self._skip_damaged = skip_damaged
        # All of each record is read, also for few fields; a larger chunk leaves the CPU's cache.
        row_bytes = schema.payload_bytes if names else 0
        self._rows_in_chunk = max(1, CHUNK_BYTES // max(_LEAST_BYTES, row_bytes))
        if names and schema.varying:
            self._rows_in_chunk = min(self._rows_in_chunk, VARYING_CHUNK_ROWS)
        self.total, self.done, self.evicted = len(self._write_ids), 0, 0
        self.damaged: list[int] = []

    def __iter__(self) -> Iterator[tuple[Ints, dict[str, Array]]]:
        for at in range(0, self.total, self._rows_in_chunk):
            chunk = self._write_ids[at : at + self._rows_in_chunk]
            if isinstance(chunk, range):
                chunk = np.arange(chunk.start, chunk.stop, chunk.step)
            yield from self._rows_of(chunk)

    def _rows_of(self, write_ids: Ints) -> Iterator[tuple[Ints, dict[str, Array]]]:
        waiting, margin = [write_ids], 0
        while waiting:
            ids = waiting.pop()
            try:
                columns = self._read(ids)
            except NotLiveError:
                first, count = self._buffer.first, self._buffer.count
                live = ids[(ids >= first + margin) & (ids < count)]
                margin = 2 * margin or _MARGIN  # to get ahead of a writer that is faster
                self.evicted += ids.size - live.size
                self.done += ids.size - live.size
                waiting += [live] if live.size else []
            except DamageError:
                if not self._skip_damaged:
                    raise
                self._buffer.refresh()  # raises if more than a record is damaged
                if ids.size > 1:
                    waiting += [ids[ids.size // 2 :], ids[: ids.size // 2]]
                else:
                    self.damaged.append(int(ids[0]))
                    self.done += 1
            else:
                self.done += ids.size
                yield ids, columns

    def _read(self, ids: Ints) -> dict[str, Array]:
        columns = self._buffer.get(ids, fields=self._fields) if self._fields else {}
        for name, values in columns.items():
            if isinstance(values, list):
                columns[name] = as_objects(values)
        if self._priorities:
            columns["priority"] = self._buffer.priorities(ids)
        if self._links:
            columns["link"] = _links_of(self._buffer, ids)
        return columns


def _links_of(buffer: Any, write_ids: Ints) -> Array:
    """Return the link of each live write id; raise NotLiveError for another one."""
    with buffer._guard.reading():
        buffer._check_live(write_ids)
        replica = buffer._guard.replica
        links: Array = replica.links.of(write_ids, replica.live)
        return links


def live_write_ids(buffer: Replay[Any]) -> range:
    """Return the live write ids as of one commit, also beside a writer that evicts."""
    while True:
        first, count = buffer.first, buffer.count
        if buffer.first == first:  # so that none was evicted between the two
            return range(first, count)

"""Salvage: find the readable contents of a damaged store, and their offsets in the file.

Salvage first reads all values that the trees lead to. It searches all pages for the missing values:
a checksum proves that a value is whole, and the value contains its own key. For records, it leaves
out pages that are free for certain, since these hold replaced or never committed records.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

import msgpack  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Bools, Columns, Ints
from diskreplay.episodes import Links, LinkValues, links_to
from diskreplay.errors import DamageError
from diskreplay.live_range import LiveRange
from diskreplay.lmdbfile import HEADER, DataFile, Meta
from diskreplay.maintenance.log_salvage import LogSalvage
from diskreplay.maintenance.readable_pages import ReadablePages, offsets_in_page
from diskreplay.maintenance.sources import blocks_of, parse_block, parse_state, values_at
from diskreplay.records import Codec, checksum_in, record_head, unseal, write_id_in
from diskreplay.sampling import Priorities, SlotTable, Values, ValueT
from diskreplay.schema import Schema
from diskreplay.store import DATA, NOTES, Identity, State, name_of
from diskreplay.validation import MAX_COUNT

T = TypeVar("T")
_Facts: TypeAlias = dict[str, list[Any]]

_FACTS = ("identity", "schema", "state")
_FACT_BYTES = 1 << 20  # no fact is longer
_CHUNK_BYTES = 1 << 20


class Salvage:
    """The readable contents of a store: identity, state, schema, priorities and records.

    state:             the newest state that was found, or None
    state_is_reached:  True if the trees lead to that state; a state found elsewhere may be older
    live:              the live range, as far as it follows from the state and the records
    write_ids:         the live write ids whose records are readable, ascending
    """

    def __init__(self, file: DataFile, meta: Meta | None, uuid: str | None, *, whole: bool) -> None:
        self._file = ReadablePages(file, meta, whole=whole)
        reached = self._reached_facts()
        facts = reached if all(reached.values()) else self._scanned_facts(reached)
        identities = _undamaged(Identity.parse, facts["identity"])
        if not identities:
            raise DamageError("no identity can be found, so that the kind of the buffer is unknown")
        # Of several, the one that the manifest names.
        self.identity = max(identities, key=lambda identity: identity.uuid == uuid)
        states = _undamaged(lambda state: parse_state(state, self.identity), facts["state"])
        self.state: State | None = max(states, key=lambda state: state.commits, default=None)
        self.state_is_reached = bool(reached["state"]) and self.state is not None
        schemas = _undamaged(lambda plain: Schema.from_stored(plain, DATA), facts["schema"])
        self.schema = schemas[0] if schemas else None
        is_new = self.state_is_reached and self.state is not None and not self.state.count
        if self.schema is None and not is_new:
            raise DamageError(
                "no schema can be found, so that the fields of the records are unknown"
            )
        self._priority_blocks = self._reached_blocks(Priorities)
        self._link_blocks = self._reached_blocks(Links)
        self.codec: Codec | None = None
        ids = offsets = np.zeros(0, np.int64)
        is_orphan = np.zeros(0, np.bool_)
        # A schema that claims impossibly large records must not allocate memory for them.
        if self.schema is not None and self.schema.record_schema.payload_bytes <= file.size:
            self.codec = Codec(self.schema.record_schema)
            ids, offsets, is_orphan = self._find_records(self.codec)
        self.live = self._live_range(ids)
        live = self.live.holds(ids)
        self.write_ids, self._offsets, self._is_orphan = ids[live], offsets[live], is_orphan[live]
        self._log: LogSalvage | None = None
        if self.codec is not None and self.schema is not None and self.schema.logged:
            self._log = LogSalvage(self._file, self.schema)
            self._drop_rows_without_observations(self._log)

    def lost(self) -> Iterator[tuple[int, int]]:
        """Yield the live write ids that cannot be read, as ranges [first, end)."""
        ends = np.append(self.write_ids, self.live.count)
        begins = np.insert(self.write_ids + 1, 0, self.live.first)
        for index in np.flatnonzero(begins < ends).tolist():
            yield int(begins[index]), int(ends[index])

    def columns(self, low: int, high: int) -> Columns:
        """Return the rows of a part of `write_ids`."""
        if self.codec is None:
            return []
        columns = self._columns_of_records(self.codec, low, high)
        return columns if self._log is None else self._log.rows(columns)

    @property
    def log_bytes(self) -> int:
        """The bytes of the readable observations."""
        return 0 if self._log is None else self._log.nbytes

    def _columns_of_records(self, codec: Codec, low: int, high: int) -> Columns:
        ids, size = self.write_ids[low:high], codec.record_bytes
        records = [self._file.read(at, size) for at in self._offsets[low:high].tolist()]
        return codec.decode(records, ids, self.live.slots(ids))

    def _drop_rows_without_observations(self, log: LogSalvage) -> None:
        """Leave out the transitions with an observation that cannot be read, searched for once."""
        whole = self._whole_rows(log)
        if not whole.all():
            log.search()
            whole = self._whole_rows(log)
        self.write_ids, self._offsets = self.write_ids[whole], self._offsets[whole]
        self._is_orphan = self._is_orphan[whole]

    def _whole_rows(self, log: LogSalvage) -> Bools:
        """Return of which transitions all observations are readable."""
        n, codec = self.write_ids.size, self.codec
        if codec is None or self.schema is None:
            return np.zeros(n, np.bool_)
        rows = max(1, _CHUNK_BYTES // max(1, self.schema.payload_bytes))
        parts = [
            log.whole(self._columns_of_records(codec, low, min(low + rows, n)))
            for low in range(0, n, rows)
        ]
        return np.concatenate([np.zeros(0, np.bool_), *parts])

    def priorities(self) -> tuple[Values, Bools]:
        """Return the priorities of `write_ids`, and which of them are known."""
        slots = self.live.slots(self.write_ids)
        found, known = values_at(Priorities, slots, self._priority_blocks.get)
        if not self.state_is_reached:  # the blocks may be older or newer, or from before a clear
            known &= ~self._is_orphan & (found > 0)
        return found, known

    def links(self, begin: int) -> LinkValues:
        """Return the links of `write_ids` in a store where these are consecutive from `begin` on.

        The link of a transition is 0 where it cannot be read.
        """
        ids = self.write_ids
        links, known = values_at(Links, self.live.slots(ids), self._link_blocks.get)
        if not self.state_is_reached:  # as of priorities
            known &= ~self._is_orphan
        links = np.where(known, links, 0)
        before = ids - np.abs(links.astype(np.int64))
        places = np.searchsorted(ids, before)
        new = np.where(ids[places] == before, begin + places, -1)
        return links_to(new, np.arange(begin, begin + ids.size), links)

    def notes(self) -> dict[str, bytes]:
        """Return the sealed bytes of the notes that the trees lead to, by name."""
        found: dict[str, bytes] = {}
        for key, _, raw in self._file.named(NOTES.encode()):
            with contextlib.suppress(DamageError):
                name = name_of(key)
                unseal(raw, name, "note")
                found[name] = raw
        return found

    # Facts

    def _reached_facts(self) -> _Facts:
        """Return the facts that the trees lead to."""
        found: _Facts = {name: [] for name in _FACTS}
        for key, _, raw in self._file.named(b"meta"):
            name = key.decode("utf-8", "replace")
            if name in found:
                with contextlib.suppress(DamageError):
                    found[name].append(unseal(raw, name, name))
        return found

    def _scanned_facts(self, reached: _Facts) -> _Facts:
        """Return the reached facts, and for each missing one all candidates in the file."""
        found = {name: list(reached[name]) for name in _FACTS}
        marks = {name: msgpack.packb(name) for name in _FACTS if not reached[name]}
        for offset, page in self._file.pages(free=True):
            for name, mark in marks.items():
                for at in offsets_in_page(mark, page):
                    with contextlib.suppress(DamageError):
                        found[name].append(self._sealed_at(offset + at - 10, name))
        return found

    def _sealed_at(self, at: int, name: str) -> Any:
        """Return the content of the sealed value at an offset; its own bytes tell its length."""
        raw = self._file.read(at, _FACT_BYTES) if at >= HEADER else b""
        unpacker = msgpack.Unpacker(max_buffer_size=_FACT_BYTES)
        unpacker.feed(raw)
        try:
            unpacker.skip()
        except (ValueError, RecursionError, msgpack.UnpackException):
            raise DamageError(f"there is no {name}") from None
        return unseal(raw[: unpacker.tell()], name, name)

    def _reached_blocks(self, table: type[SlotTable[ValueT]]) -> dict[int, NDArray[ValueT]]:
        """Return the blocks of a table that the trees lead to."""
        blocks: dict[int, NDArray[ValueT]] = {}
        if blocks_of(table, self.identity):
            for number, _, raw in self._file.numbered(table.database.encode()):
                with contextlib.suppress(DamageError):
                    content = unseal(raw, number, "block")
                    blocks[number] = parse_block(table, number, content, self.identity)
        return blocks

    def _live_range(self, write_ids: Ints) -> LiveRange:
        state, identity = self.state, self.identity
        if state is not None and self.state_is_reached:
            return state.live(identity)
        empty = LiveRange(identity.capacity, 0, 0, identity.keep_rows)
        known = state.live(identity) if state else empty
        return known.until(max(known.count, int(write_ids.max(initial=-1)) + 1))

    # Records

    def _find_records(self, codec: Codec) -> tuple[Ints, Ints, Bools]:
        """Return the write ids of sound records that may be live, and their offsets.

        The third result tells which of them no tree leads to. The write ids are ascending.
        """
        within = range(MAX_COUNT)
        if self.state is not None and self.state_is_reached:
            live = self.state.live(self.identity)
            within = range(live.first, live.count)
        ids, offsets = _sound_records(self._reached_records(codec), codec, within)
        if ids.size == len(within):
            return ids, offsets, np.zeros(ids.size, np.bool_)
        more_ids, more_offsets = _sound_records(self._scanned_records(codec), codec, within)
        new = ~np.isin(more_ids, ids)
        is_orphan = np.repeat([False, True], [ids.size, int(np.count_nonzero(new))])
        ids = np.concatenate([ids, more_ids[new]])
        offsets = np.concatenate([offsets, more_offsets[new]])
        order = np.argsort(ids)
        return ids[order], offsets[order], is_orphan[order]

    def _reached_records(self, codec: Codec) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of each reached record, sound or not, also in shared values."""
        size = codec.record_bytes
        for _, at, value in self._file.numbered(b"transitions"):
            for within in range(0, len(value), size):
                yield at + within, value[within : within + size]

    def _scanned_records(self, codec: Codec) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of each place in the file that begins like a record."""
        size, head = codec.record_bytes, record_head(codec.schema)
        for offset, page in self._file.pages(free=False):
            # A record in a shared value may begin anywhere, also with its head on two pages.
            page += self._file.read(offset + len(page), len(head) - 1)
            for at in offsets_in_page(head, page):
                record = page[at : at + size]
                if len(record) < size:
                    record = self._file.read_in_use(offset + at, size)
                yield offset + at, record


def _undamaged(parse: Callable[[Any], T], contents: list[Any]) -> list[T]:
    """Return the parsed contents, without the damaged ones."""
    found: list[T] = []
    for content in contents:
        with contextlib.suppress(DamageError):
            found.append(parse(content))
    return found


def _sound_records(
    records: Iterable[tuple[int, bytes]], codec: Codec, within: range
) -> tuple[Ints, Ints]:
    """Return write ids and offsets of the sound records in a range of write ids.

    A write id with two different records is left out.
    """
    parts: list[Ints] = []
    chunk: list[tuple[int, bytes]] = []
    size = 0
    for at, record in records:
        if write_id_in(record) in within:
            chunk.append((at, record))
            size += len(record)
            if size >= _CHUNK_BYTES:
                parts.append(_sound_part(chunk, codec))
                chunk, size = [], 0
    parts.append(_sound_part(chunk, codec))
    ids, offsets, checksums = np.concatenate(parts, axis=1)
    order = np.lexsort((checksums, ids))
    ids, offsets, checksums = ids[order], offsets[order], checksums[order]
    is_new = np.ones(ids.size, np.bool_)
    is_new[1:] = ids[1:] != ids[:-1]
    differs = np.zeros(ids.size, np.bool_)
    differs[1:] = ~is_new[1:] & (checksums[1:] != checksums[:-1])
    good = is_new & ~np.isin(ids, ids[differs])
    return ids[good], offsets[good]


def _sound_part(records: list[tuple[int, bytes]], codec: Codec) -> Ints:
    """Return write ids, offsets and checksums of the sound records, one row each."""
    raw = [record for _, record in records]
    ids = np.array([write_id_in(record) for record in raw], np.int64)
    offsets = np.array([at for at, _ in records], np.int64)
    checksums = np.array([checksum_in(record) for record in raw], np.uint64).view(np.int64)
    found = np.stack([ids, offsets, checksums])
    return found[:, codec.sound(raw, ids)] if raw else found

"""Salvage: what can still be read of a damaged store, and where it stands in the file.

First everything that the trees lead to. What they do not lead to is looked for in all pages: a
value proves by its checksum that it is whole, and says itself which one it is. For records, pages
that are free for certain are left out, since they hold what was replaced, or never committed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgpack  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from diskreplay.errors import DamageError
from diskreplay.live_range import BLOCK_SLOTS
from diskreplay.lmdbfile import HEADER, INTEGER_KEYS, DataFile, Meta, Walk
from diskreplay.records import Codec, checksum_in, record_head, unseal, write_id_in
from diskreplay.schema import Schema
from diskreplay.store import (
    DATA,
    identity_of,
    priorities_of,
    state_of,
)
from diskreplay.validation import MAX_COUNT

Ints = NDArray[np.int64]
T = TypeVar("T")

_FACTS = ("identity", "schema", "state")
_SEALED_BYTES = 1 << 20  # no fact is longer
_CHUNK_BYTES = 1 << 20
_Found = tuple[Ints, Ints]


class Salvage:
    """All that is readable of a store: its facts, its priorities, and where its records are."""

    def __init__(self, file: DataFile, meta: Meta | None, uuid: str | None, *, whole: bool) -> None:
        self.file = file
        walk = self._walk = None if meta is None else Walk(file, meta)
        trees = {}
        self._knows_free = False
        if walk is not None:
            walk.collect_free()
            self._knows_free = whole and not walk.faults.count
            trees = walk.trees()
        reached: dict[str, list[Any]] = {name: [] for name in _FACTS}
        if walk is not None and b"meta" in trees:
            for key, _, raw in walk.values(b"meta", trees[b"meta"]._replace(flags=0)):
                for name in _FACTS:
                    if key == name.encode():
                        with contextlib.suppress(DamageError):
                            reached[name].append(unseal(raw, name, name))
        facts = reached if all(reached.values()) else self._scan_facts(reached)
        found = _all_sound(identity_of, facts["identity"])
        if not found:
            raise DamageError("no identity can be found: it says what kind of buffer this was")
        # Of several, the one that the manifest is of.
        self.identity = max(found, key=lambda identity: identity.uuid == uuid)
        states = _all_sound(lambda state: state_of(state, self.identity.kind), facts["state"])
        self.state = max(states, key=lambda state: state.commits, default=None)
        self.state_is_reached = bool(reached["state"]) and self.state is not None
        schemas = _all_sound(lambda plain: Schema.from_stored(plain, DATA), facts["schema"])
        self.schema = schemas[0] if schemas else None
        is_new = self.state_is_reached and self.state is not None and not self.state.count
        if self.schema is None and not is_new:
            raise DamageError("no schema can be found: it says what the fields of records are")
        blocks: dict[int, NDArray[np.float32]] = {}
        if walk is not None and b"priorities" in trees and self.identity.blocks:
            tree = trees[b"priorities"]._replace(flags=INTEGER_KEYS)
            for number, _, raw in walk.numbered(b"priorities", tree):
                with contextlib.suppress(DamageError):
                    content = unseal(raw, number, "block")
                    blocks[number] = priorities_of(number, content, self.identity)
        self._blocks = blocks
        self._find_records(trees)

    def _find_records(self, trees: dict[bytes, Any]) -> None:
        """Set the live write ids that are readable, ascending, and the offsets of their records."""
        state = self.state
        self.first, self.count = 0, MAX_COUNT
        if state is not None and self.state_is_reached:
            self.first, self.count = state.first(self.identity.capacity), state.count
        ids = offsets = new_ids = new_offsets = np.zeros(0, np.int64)
        self.codec: Codec | None = None
        # A schema that only claims large records must not make room for them.
        if self.schema is not None and self.schema.payload_bytes <= self.file.size:
            self.codec = Codec(self.schema)
            ids, offsets = self._sound(self._tree_records(trees))
            if ids.size < self.count - self.first:
                new_ids, new_offsets = self._sound(self._scanned_records())
                new = ~np.isin(new_ids, ids)
                new_ids, new_offsets = new_ids[new], new_offsets[new]
        is_orphan = np.repeat([False, True], [ids.size, new_ids.size])
        ids = np.concatenate([ids, new_ids])
        offsets = np.concatenate([offsets, new_offsets])
        if not self.state_is_reached:  # one that was found elsewhere may be an older one
            self.count = max(state.count if state else 0, int(ids.max()) + 1 if ids.size else 0)
            self.first = max(state.start if state else 0, self.count - self.identity.capacity)
        order = np.argsort(ids)
        order = order[(ids[order] >= self.first) & (ids[order] < self.count)]
        self.write_ids, self._offsets = ids[order], offsets[order]
        self._is_orphan = is_orphan[order]

    def priorities(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the priorities of `write_ids`, and which of them are known."""
        slots = self.write_ids % self.identity.capacity
        found = np.zeros(slots.size, np.float32)
        known = np.zeros(slots.size, np.bool_)
        numbers = slots // BLOCK_SLOTS
        order = np.argsort(numbers, kind="stable")
        ends = np.flatnonzero(np.diff(numbers[order], append=-1)) + 1
        for begin, end in zip([0, *ends[:-1]], ends, strict=False):
            here = order[begin:end]
            block = self._blocks.get(int(numbers[here[0]]))
            if block is not None:
                found[here] = block[slots[here] % BLOCK_SLOTS]
                known[here] = True
        if not self.state_is_reached:  # then the blocks may be of another commit, or cleared
            known &= ~self._is_orphan & (found > 0)
        return found, known

    def records(self, low: int, high: int) -> list[bytes]:
        """Return the records of a part of `write_ids`."""
        size = self.codec.record_bytes if self.codec else 0
        return [self.file.read(at, size) for at in self._offsets[low:high].tolist()]

    def lost(self) -> Iterator[tuple[int, int]]:
        """Yield the live write ids that cannot be read, as ranges [first, end)."""
        ends = np.append(self.write_ids, self.count)
        begins = np.insert(self.write_ids + 1, 0, self.first)
        for index in np.flatnonzero(begins < ends).tolist():
            yield int(begins[index]), int(ends[index])

    def _pages(self, *, free: bool) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes of every page, with or without those that are free for certain."""
        page_bytes, end = self.file.page_bytes, self.file.size
        for at in range(2 * page_bytes, end, page_bytes):
            walk, number = self._walk, at // page_bytes
            if walk is not None and self._knows_free and not free:
                if number >= walk.pages:  # of a commit that did not come to its end
                    return
                if walk.free[number] and not walk.disputed[number]:
                    continue
            if page := self.file.read(at, min(page_bytes, end - at)):  # the last may be cut off
                yield at, page

    def _scan_facts(self, reached: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Return the facts that were reached, and for the others all that are found anywhere."""
        found: dict[str, list[Any]] = {name: list(reached[name]) for name in _FACTS}
        marks = {name: msgpack.packb(name) for name in _FACTS if not reached[name]}
        for offset, page in self._pages(free=True):
            for name, mark in marks.items():
                at = page.find(mark)
                while at >= 0:
                    with contextlib.suppress(DamageError):
                        found[name].append(self._sealed_at(offset + at - 10, name))
                    at = page.find(mark, at + 1)
        return found

    def _sealed_at(self, at: int, name: str) -> Any:
        """Return what is sealed at an offset, whose length only its content tells."""
        raw = self.file.read(at, min(_SEALED_BYTES, self.file.size - at)) if at >= HEADER else b""
        unpacker = msgpack.Unpacker(max_buffer_size=_SEALED_BYTES)
        unpacker.feed(raw)
        try:
            unpacker.skip()
        except (ValueError, RecursionError, msgpack.UnpackException):
            raise DamageError(f"there is no {name}") from None
        return unseal(raw[: unpacker.tell()], name, name)

    def _tree_records(self, trees: dict[bytes, Any]) -> Iterator[tuple[int, int, bytes]]:
        """Yield what may be a record in the tree, however many of them share a value."""
        if self._walk is None or b"transitions" not in trees or self.codec is None:
            return
        tree = trees[b"transitions"]._replace(flags=INTEGER_KEYS)
        size = self.codec.record_bytes
        for _, at, value in self._walk.numbered(b"transitions", tree):
            for within in range(0, len(value), size):
                record = value[within : within + size]
                yield write_id_in(record), at + within, record

    def _scanned_records(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield what may be a record, of those that begin like one."""
        if self.codec is None or self.schema is None:
            return
        size = self.codec.record_bytes
        head = record_head(self.schema)
        for offset, page in self._pages(free=False):
            # Where records share a value one may begin anywhere, with its head on two pages.
            page += self.file.read(offset + len(page), len(head) - 1)
            at = page.find(head)
            while at >= 0:
                is_inside = at + size <= len(page)
                record = page[at : at + size] if is_inside else self._across(offset + at, size)
                if record:
                    yield write_id_in(record), offset + at, record
                at = page.find(head, at + 1)

    def _across(self, at: int, size: int) -> bytes:
        """Return what stands at an offset on several pages, b"" if one is free for certain."""
        first, last = at // self.file.page_bytes, (at + size - 1) // self.file.page_bytes
        walk = self._walk
        if walk is not None and self._knows_free:
            known = slice(first, last + 1)
            if last >= walk.pages or (walk.free[known] & ~walk.disputed[known]).any():
                return b""
        return self.file.read(at, size)

    def _sound(self, records: Iterable[tuple[int, int, bytes]]) -> _Found:
        """Return write ids and offsets of those that are sound and live.

        A write id of which there are two that differ is left out.
        """
        parts: list[tuple[Ints, Ints, NDArray[np.uint64]]] = []
        waiting: list[tuple[int, int, bytes]] = []
        waiting_bytes = 0
        for record in records:
            if self.first <= record[0] < self.count:
                waiting.append(record)
                waiting_bytes += len(record[2])
                if waiting_bytes >= _CHUNK_BYTES:
                    parts.append(self._sound_part(waiting))
                    waiting, waiting_bytes = [], 0
        parts.append(self._sound_part(waiting))
        ids, offsets, checksums = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.lexsort((checksums, ids))
        ids, offsets, checksums = ids[order], offsets[order], checksums[order]
        is_new = np.ones(ids.size, np.bool_)
        is_new[1:] = ids[1:] != ids[:-1]
        differs = np.zeros(ids.size, np.bool_)
        differs[1:] = ~is_new[1:] & (checksums[1:] != checksums[:-1])
        good = is_new & ~np.isin(ids, ids[differs])
        return ids[good], offsets[good]

    def _sound_part(
        self, records: list[tuple[int, int, bytes]]
    ) -> tuple[Ints, Ints, NDArray[np.uint64]]:
        codec, capacity = self.codec, self.identity.capacity
        if codec is not None and records:
            ids = np.array([write_id for write_id, _, _ in records])
            if codec.faults([raw for _, _, raw in records], ids, ids % capacity):
                records = [
                    (write_id, at, raw)
                    for write_id, at, raw in records
                    if not codec.faults([raw], np.array([write_id]), np.zeros(1, np.int64))
                ]
        return (
            np.array([write_id for write_id, _, _ in records], np.int64),
            np.array([at for _, at, _ in records], np.int64),
            np.array([checksum_in(raw) for _, _, raw in records], np.uint64),
        )


def _all_sound(parse: Callable[[Any], T], contents: list[Any]) -> list[T]:
    found: list[T] = []
    for content in contents:
        with contextlib.suppress(DamageError):
            found.append(parse(content))
    return found

"""Verification: check a store without LMDB, so that no damage ends the process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from diskreplay.aliases import Bools, Ints, PathLike, Progress
from diskreplay.episodes import Links, LinkValues, all_done
from diskreplay.errors import DamageError, FormatVersionError
from diskreplay.live_range import BLOCK_SLOTS, LiveRange, slot_spans
from diskreplay.lmdbfile import INTEGER_KEYS, NO_PAGE, Faults, Tree, Walk
from diskreplay.maintenance.log_check import LogCheck
from diskreplay.maintenance.mark_check import MarkCheck, check_notes
from diskreplay.maintenance.ranges import ExpectedNumbers, merged, range_text
from diskreplay.maintenance.sources import blocks_of, parse_block, parse_state
from diskreplay.records import (
    Codec,
    Grouping,
    Layout,
    has_links,
    layout_of,
    stored_grouping,
    unseal,
    write_id_in,
)
from diskreplay.sampling import DrawCounts, Priorities, SlotTable
from diskreplay.schema import Schema
from diskreplay.store import (
    DATA,
    TABLES,
    Identity,
    ObservationRange,
    Run,
    State,
    held_data_file,
    pinned_commit,
    raising_own_errors,
)
from diskreplay.validation import MAX_COUNT, checked_path
from diskreplay.wording import count_of

_TREE_FLAGS = {table.name.encode(): INTEGER_KEYS * table.has_numbers for table in TABLES}
_OPTIONAL = {table.name.encode() for table in TABLES if table.is_optional}
_EMPTY_TREE = Tree(0, 0, 0, 0, 0, 0, 0, NO_PAGE)
_CHUNK_BYTES = 1 << 20


@raising_own_errors
def verify(path: PathLike, *, progress: Progress | None = None) -> list[str]:
    """Return the faults of a store, one sentence for each fault; [] for a sound store.

    Checked are the manifest, every page in use of the data file, every checksum, and that records,
    observations, priorities, links, counts and runs agree. Damage of any kind is a sentence in the
    list, and never an error; nothing is changed. A writer may go on meanwhile: `verify` checks one
    commit, and the writer uses no page of that commit again before the end.

    Cost: reads each page in use once, 180 MB a second for records of 500 bytes, 20 for records of
    70. Memory: 3 bytes a page of the file, 1 byte a slot, 8 bytes an observation in the log,
    and the largest record.

    Raises NotAStoreError where there is no store, LockedError when it is open in this process,
    StorageError when it may not be read, and NotInstalledError where the package of its codec is
    missing.

    >>> ReplayBuffer(capacity=10, path="runs/sound").close()
    >>> verify("runs/sound")
    []

    progress:  called now and then with the numbers of records checked and of all records
    """
    place = checked_path(path)
    faults = Faults()
    try:
        with held_data_file(place, faults) as (file, uuid):
            if file is not None:
                with pinned_commit(place, file) as (meta, wrong):
                    for sentence in wrong:
                        faults.add(f"{DATA}: {sentence}")
                    if meta is not None:
                        _Check(Walk(file, meta, faults), uuid, progress).run()
    except FormatVersionError as error:
        faults.add(str(error))
    return faults.sentences()


class _Check:
    """The check of all values of a store, one after the other."""

    def __init__(self, walk: Walk, uuid: str | None, progress: Progress | None) -> None:
        self._walk = walk
        self._faults = walk.faults
        self._uuid = uuid
        self._progress = progress or (lambda done, total: None)
        self._identity: Identity | None = None
        self._state: State | None = None
        self._schema: Schema | None = None
        self._plain_layout: Any = None
        self._layout: Layout | None = None
        self._codec: Codec | None = None
        self._goes_on: Bools | None = None  # by slot: whether a link goes on with its episode

    def run(self) -> None:
        """Check all databases of the store."""
        walk = self._walk
        walk.collect_free()
        trees = walk.trees()
        for name in trees.keys() - _TREE_FLAGS.keys():
            walk.exhaust(
                name, trees[name]
            )  # of a newer version: its features are refused elsewhere
        for name, flags in _TREE_FLAGS.items():
            if name not in trees:
                if name not in _OPTIONAL:
                    self._faults.add(f"the database {name.decode()} is missing")
                trees[name] = _EMPTY_TREE
            elif trees[name].flags != flags or trees[name].pad:
                self._faults.add(
                    f"the database {name.decode()} has the flags {trees[name].flags:#x} and the "
                    f"pad {trees[name].pad} (expected {flags:#x} and 0)"
                )
                trees[name] = trees[name]._replace(flags=flags)  # read the keys as they are written
        self._check_facts(trees[b"meta"])
        self._marks = MarkCheck(walk, self._identity, self._state)
        self._marks.check(trees[b"marks"], trees[b"kept_blocks"], self._check_kept)
        check_notes(walk, trees[b"notes"])
        self._check_runs(trees[b"runs"])
        self._check_blocks(Priorities, trees[b"priorities"])
        self._check_blocks(Links, trees[b"links"])
        self._check_blocks(DrawCounts, trees[b"draw_counts"])
        found = ObservationRange() if self._state is None else self._state.observations
        log = LogCheck(walk, self._schema, self._layout, found)
        self._check_records(trees[b"transitions"], log)
        if self._state is None:  # what should be there is not known
            walk.exhaust(b"observations", trees[b"observations"])
        else:
            log.check(trees[b"observations"])
        if not self._faults.count:
            walk.check_all_used()

    def _check_facts(self, tree: Tree) -> None:
        facts = {}
        for key, _, raw in self._walk.values(b"meta", tree):
            name = str(key, "utf-8", "replace") if isinstance(key, bytes) else str(key)
            with self._faults.collected():
                facts[name] = unseal(raw, name, f"the {ascii(name)[1:-1]:.40}")
        with self._faults.collected():
            if "identity" not in facts:
                raise DamageError("the identity cannot be read: records are not checked")
            self._identity = Identity.parse(facts["identity"])
            if self._uuid is not None and self._identity.uuid != self._uuid:
                raise DamageError(
                    f"{DATA} belongs to another store: its uuid is {self._identity.uuid:.40} "
                    f"(expected {self._uuid:.40}, as in the manifest)"
                )
        with self._faults.collected():
            if "schema" in facts:
                self._schema = Schema.from_stored(facts["schema"], DATA)
        with self._faults.collected():
            if "layout" in facts:
                self._layout = layout_of(facts["layout"], DATA)
                self._plain_layout = facts["layout"]
        with self._faults.collected():
            if "state" not in facts:
                raise DamageError(
                    "the state cannot be read: which transitions are missing is not known"
                )
            if self._identity is not None:
                self._state = parse_state(facts["state"], self._identity)
        if self._state is not None and self._state.count and "schema" not in facts:
            self._faults.add("the schema cannot be read: records are not checked")

    def _check_runs(self, tree: Tree) -> None:
        state = self._state
        expected = ExpectedNumbers([(0, state.runs)] if state else [])
        for number, _, raw in self._walk.numbered(b"runs", tree):
            expected.see(number)
            with self._faults.collected():
                run = Run.parse(number, unseal(raw, number, f"the description of run {number}"))
                if state is not None and (run.end > state.count or number >= state.runs):
                    raise DamageError(f"the description of run {number} is beyond the state")
        for low, high in expected.missing():
            self._faults.add(f"the description of {range_text('run', low, high)} is missing")

    def _check_blocks(self, table: type[SlotTable[Any]], tree: Tree) -> None:
        identity = self._identity
        # Counts that are missing begin anew.
        is_there = table is Priorities or (table is Links and has_links(self._plain_layout))
        is_needed = identity is not None and is_there and blocks_of(table, identity) > 0
        needed = self._marks.needed_blocks(table.database) if is_needed else []
        for low, high in self._live_slots() if is_needed else ():
            needed.append((low // BLOCK_SLOTS, (high - 1) // BLOCK_SLOTS + 1))
        expected = ExpectedNumbers(merged(needed))
        for number, _, raw in self._walk.numbered(table.database.encode(), tree):
            expected.see(number)
            with self._faults.collected():
                content = unseal(raw, number, f"{table.item} {number}")
                if identity is not None:
                    values = parse_block(table, number, content, identity)
                    if table is Links and is_there:
                        self._check_links(number, values, self._live(identity))
        for low, high in expected.missing():
            self._faults.add(f"the content of {range_text(table.item, low, high)} is missing")

    def _check_links(self, number: int, links: LinkValues, live: LiveRange) -> None:
        """Check the links of a block, and note the transitions whose episode goes on."""
        ids = live.newest_ids(np.arange(links.size) + number * BLOCK_SLOTS)
        before = ids - np.abs(links.astype(np.int64))
        is_live = live.holds(ids)
        for write_id in ids[is_live & (before < -1)].tolist():  # -1: it is not in the store
            self._faults.add(f"the link of write id {write_id} leads to none before it")
        goes_on = before[is_live & (links > 0) & (before >= live.first)]
        if goes_on.size:
            if self._goes_on is None:
                self._goes_on = np.zeros(live.ring_slots, np.bool_)
            self._goes_on[live.slots(goes_on)] = True

    def _check_ends(self, codec: Codec, records: list[Any], live: LiveRange, slots: Ints) -> None:
        """Check that no transition is done whose episode goes on; the records are sound."""
        if self._goes_on is None:
            return
        chosen = np.flatnonzero(self._goes_on[slots])
        ids, found = live.newest_ids(slots[chosen]), [records[i] for i in chosen.tolist()]
        [dones] = codec.decode(found, ids, slots[chosen], [codec.schema.done_place])
        for write_id in ids[all_done(dones)].tolist():
            self._faults.add(f"write id {write_id} is done, and a link goes on with its episode")

    def _check_kept(self, table: str, number: int, content: Any) -> None:
        """Raise DamageError for the content of a kept block that is none of its table."""
        tables: tuple[type[SlotTable[Any]], ...] = (Priorities, Links, DrawCounts)
        for found in tables:
            if table == found.database and self._identity is not None:
                parse_block(found, number, content, self._identity)

    def _live(self, identity: Identity) -> LiveRange:
        """Return the live range; without a state, an empty one above all possible write ids."""
        if self._state is None:
            return LiveRange(identity.capacity, MAX_COUNT, MAX_COUNT, identity.keep_rows)
        return self._state.live(identity)

    def _live_slots(self) -> list[tuple[int, int]]:
        """Return the live slots as ascending ranges."""
        if self._identity is None:
            return []
        return sorted((span.start, span.stop) for span in self._live(self._identity).spans())

    def _check_records(self, tree: Tree, log: LogCheck) -> None:
        identity, schema = self._identity, self._schema
        grouping = self._grouping(tree)
        if grouping is None or identity is None or schema is None:
            # Without a schema the place of a slot in a value is not known.
            self._walk.exhaust(b"transitions", tree)
            return
        live = self._live(identity)
        needed = merged([(live.first, live.count), *self._marks.needed()])
        slots = live.ring_slots
        spans = (span for first, end in needed for span in slot_spans(first, end, slots))
        expected = ExpectedNumbers((span.start, span.stop) for span in spans)
        records: dict[int, bytes] = {}
        size = done = 0
        for group, _, value in self._walk.numbered(b"transitions", tree):
            done += grouping.per_value
            if not self._has_place(group, value, grouping, identity.slots):
                continue
            for slot, record in grouping.split(group, value):
                expected.see(slot)
                records[slot] = record
                size += len(record) + 64
            if size >= _CHUNK_BYTES:
                self._progress(done, tree.entries * grouping.per_value)
                self._check_chunk(records, schema, live, needed, log)
                records, size = {}, 0
        self._check_chunk(records, schema, live, needed, log)
        self._progress(done, done)
        for low, high in expected.missing():
            first = int(live.newest_ids(np.array(low)))
            self._faults.add(
                f"the record of {range_text('write id', first, first + high - low)} "
                f"in {range_text('slot', low, high)} is missing"
            )

    def _grouping(self, tree: Tree) -> Grouping | None:
        """Return how records share values; None, with a fault, if the store does not say it."""
        schema, identity = self._schema, self._identity
        if schema is None or identity is None:
            return None

        def some_values() -> Iterator[tuple[int, bytes]]:
            walk = Walk(
                self._walk.file, self._walk.meta
            )  # a new one, since a walk reads each page once
            for key, _, value in itertools.islice(walk.numbered(b"transitions", tree), 64):
                yield key, value

        self._codec = self._codec or Codec(schema.record_schema)
        with self._faults.collected():
            layout, codec = self._plain_layout, self._codec
            return stored_grouping(layout, some_values, codec, identity.slots, DATA)
        return None

    def _has_place(self, group: int, value: bytes, grouping: Grouping, ring_slots: int) -> bool:
        """Return whether a value has slots of the ring; a wrong place or length is a fault."""
        slots, size = grouping.slots_in(group, ring_slots), grouping.record_bytes
        first = group * grouping.per_value
        if slots <= 0:
            self._faults.add(f"there is a record in slot {first} of {ring_slots}")
        elif grouping.per_value > 1 and len(value) != slots * size:
            self._faults.add(
                f"the value of {range_text('slot', first, first + slots)} is damaged: it has "
                f"{count_of(len(value), 'byte')} (expected {slots * size:,})"
            )
        return slots > 0

    def _check_chunk(
        self,
        records: dict[int, bytes],
        schema: Schema,
        live: LiveRange,
        needed: list[tuple[int, int]],
        log: LogCheck,
    ) -> None:
        """Check records by their slots.

        needed:  the write ids that are live or that a rewind may make live again, as ranges
        """
        if not records:
            return
        # A schema that claims impossibly large records must not allocate memory for them.
        least = schema.record_schema.payload_bytes
        if least > max(map(len, records.values())):
            for slot, record in records.items():
                self._faults.add(
                    f"the record in slot {slot} is damaged: it has {count_of(len(record), 'byte')} "
                    f"(expected more than {least:,})"
                )
            return
        codec = self._codec = self._codec or Codec(schema.record_schema)
        slots = np.array(list(records))
        write_ids = live.newest_ids(slots)
        is_needed = np.zeros(slots.size, np.bool_)
        for first, end in needed:
            is_needed |= (write_ids >= first) & (write_ids < end)
        given = live.count if self._state is None else self._state.given
        # The others are left from an earlier lap, or from before a clear or a rewind.
        for index in np.flatnonzero(~is_needed).tolist():
            slot = int(slots[index])
            write_ids[index] = write_id = write_id_in(records[slot])
            if not 0 <= write_id < given or write_id % live.ring_slots != slot:
                self._faults.add(f"the record in slot {slot} holds write id {write_id}")
        raw = list(records.values())
        for sentence in codec.faults(raw, write_ids, slots):
            self._faults.add(sentence)
        if schema.logged or self._goes_on is not None:
            used = np.flatnonzero(is_needed & codec.sound(raw, write_ids))
            sound = [raw[index] for index in used.tolist()]
            write_ids, slots = write_ids[used], slots[used]
            self._check_ends(codec, sound, live, slots)
            if schema.logged:
                log.refer(codec.decode(sound, write_ids, slots, schema.logged), write_ids)

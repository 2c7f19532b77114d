"""Sizing: the disk and the memory that a full buffer takes, before anything is written."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diskreplay.buffer.pending_changes import pending_nbytes
from diskreplay.buffer.row_memory import (
    COMMIT_BYTES,
    committed_rows,
    pending_bytes,
    window_bytes_of,
)
from diskreplay.buffer.window_layout import DEFAULT_WINDOW_BYTES
from diskreplay.episodes import NStep
from diskreplay.errors import ArgumentError, SchemaError, warn_caller
from diskreplay.live_range import BLOCK_SLOTS, blocks_in
from diskreplay.observations import (
    LoggedFields,
    entries_per_value,
    entry_bytes,
    largest_frame_bytes,
    reach_for,
)
from diskreplay.records import (
    BLOCK_BYTES,
    PAGE_BYTES,
    Grouping,
    new_grouping,
    slot_bytes,
    tree_bytes,
)
from diskreplay.sampling import priorities_nbytes, slot_table_nbytes
from diskreplay.schema import MAX_VALUE_BYTES, LogOptions, Schema, SchemaLike, fields_of, missing_in
from diskreplay.validation import (
    ACCESS,
    check_word,
    checked_capacity,
    checked_keep_rows,
    real_number,
    true_or_false,
    whole_number,
)
from diskreplay.wording import count_of, human, shown

_OTHER_BYTES = 12  # of a transition in a batch: its write id and its weight
_SMALL_MEMORY = 64 << 20  # which every machine has
_STEP_BYTES = 16  # of each step of its n-step return: a write id and a reward
_OTHER_PAGES = 40  # meta pages, schema and state, runs, lists of free pages
_NO_MEANS: Mapping[str, float] = {}
# A commit writes to new pages; the second commit after it uses the replaced pages again. At most
# 2.1 times the pages of a commit were measured to be free.
_COMMITS_FREED = 2.25


class DiskSpaceWarning(UserWarning):
    """The disk has less room than the full buffer will take."""


@dataclass(frozen=True)
class Estimate:
    """The disk and memory of a full buffer, in bytes, and their parts.

    payload_bytes, record_bytes:  of one transition: the fields alone, and with their framing
    records_per_value:            how many records share a value of the store, see docs/format.md
    records_disk_bytes, priorities_disk_bytes, links_disk_bytes:
                                  pages of all records, of all priorities, and of all links
    observations_disk_bytes:      pages of the observation log
    spare_disk_bytes:             pages that the last commits have freed, and the few pages beside
                                  these; see `estimate`
    window_bytes:                 rows in memory, as far as the capacity fills them
    side_table_bytes:             links; priorities and the tree over them; places of values in the
                                  file
    outbox_bytes:                 with access="shared": rows that wait for a commit
    """

    capacity: int
    payload_bytes: int
    record_bytes: int
    records_per_value: int
    records_disk_bytes: int
    priorities_disk_bytes: int
    links_disk_bytes: int
    observations_disk_bytes: int
    spare_disk_bytes: int
    window_bytes: int
    side_table_bytes: int
    outbox_bytes: int

    @property
    def disk_bytes(self) -> int:
        """The size of the data file, in bytes, after any number of laps."""
        tables = self.priorities_disk_bytes + self.links_disk_bytes
        kept = self.records_disk_bytes + self.observations_disk_bytes + tables
        return kept + self.spare_disk_bytes

    @property
    def memory_bytes(self) -> int:
        """The memory of the buffer, in bytes: `memory_bytes` of `stats()`, without batches."""
        return self.window_bytes + self.side_table_bytes + self.outbox_bytes

    def __str__(self) -> str:
        priorities = f", priorities {human(self.priorities_disk_bytes)}"
        log = f", observations {human(self.observations_disk_bytes)}"
        side_table = f", side tables {human(self.side_table_bytes)}"
        outbox = f", outbox {human(self.outbox_bytes)}"
        shared = f", {self.records_per_value} to a value" * (self.records_per_value > 1)
        payload = self.capacity * self.payload_bytes
        ratio = f"; {self.disk_bytes / payload:.2f} times the payload" if payload else ""
        return (
            f"{count_of(self.capacity, 'transition')} of {count_of(self.payload_bytes, 'byte')} "
            f"({self.record_bytes:,} as a record{shared})\n"
            f"disk    {human(self.disk_bytes)}: records {human(self.records_disk_bytes)}"
            f"{log * (self.observations_disk_bytes > 0)}"
            f"{priorities * (self.priorities_disk_bytes > 0)}, "
            f"links {human(self.links_disk_bytes)}, spare pages {human(self.spare_disk_bytes)}"
            f"{ratio}\n"
            f"memory  {human(self.memory_bytes)}: window {human(self.window_bytes)}"
            f"{side_table * (self.side_table_bytes > 0)}{outbox * (self.outbox_bytes > 0)}"
        )


def estimate(
    schema: SchemaLike,
    capacity: int,
    *,
    prioritized: bool = True,
    window_bytes: int = DEFAULT_WINDOW_BYTES,
    access: str = "exclusive",
    observations: str | None = None,
    frame_axis: int | None = None,
    codec: str | None = None,
    keep_rows: int = 0,
    ratio: float = 1.0,
    mean_bytes: Mapping[str, float] | None = None,
) -> Estimate:
    """Return the disk and memory that a full buffer of these arguments takes; write nothing.

    `disk_bytes` is the size of the data file after any number of laps, with commits of up to 2 MiB:
    `push` commits before more rows wait. A larger `extend`, or `load`, is one commit, and adds
    twice its own size; so does a reader that stays in one call for long. A store that `load` or
    `repair` began in the middle of its ring can take up to twice as much, if its records are small:
    records put before the first slot leave pages half full. `memory_bytes` is that of `stats()`
    before batches are drawn ahead; batches, and the pages of the store that the system caches, come
    on top. Of observations in the log, each transition is taken to add one to what its environment
    had: one frame of a stack, one next state; each first state of an episode comes on top.

    Raises SchemaError when the schema does not have all standard fields, and ArgumentError for
    arguments that a constructor refuses.

    >>> fields = {"state": ("float32", (60,)), "action": "int64", "reward": "float32",
    ...           "next_state": ("float32", (60,)), "done": "float32"}
    >>> print(estimate(fields, 1_000_000, prioritized=False))
    1,000,000 transitions of 496 bytes (522 as a record, 15 to a value)
    disk    557 MB: records 548 MB, links 4.13 MB, spare pages 5.27 MB; 1.12 times the payload
    memory  273 MB: window 268 MB, side tables 4.33 MB

    schema:       a Schema or fields by name, as the constructors take it, but complete
    prioritized:  True for a PrioritizedReplayBuffer, False for a ReplayBuffer
    observations, frame_axis, codec, keep_rows:  as the constructors take them
    ratio:        the bytes that the codecs leave of a byte, as measured on some of the data; 1.0
                  is the most that they leave
    mean_bytes:   of the fields whose values vary in size, by name: {"tokens": 800}. Needed for each
                  of them but parts of next_state, of which a transition is taken to add one in all
    """
    given = fields_of(schema)
    if missing := missing_in(given):
        raise SchemaError(
            f"estimate() needs the dtype and shape of every field: {', '.join(missing)} missing in "
            f"the schema (found {', '.join(given) or 'no field'})"
        )
    log = LogOptions.checked(observations, frame_axis, codec)
    whole = log.applied(Schema(given.values()))
    ratio = real_number("ratio", ratio, low=0.0, high=1.0)
    means = _checked_means(whole, mean_bytes or {})
    capacity = checked_capacity(capacity)
    window_bytes = whole_number("window_bytes", window_bytes, at_least=0)
    check_word("access", access, ACCESS)
    return estimate_of(
        whole,
        capacity,
        new_grouping(whole),
        prioritized=true_or_false("prioritized", prioritized),
        keep_rows=checked_keep_rows(keep_rows, capacity),
        window_bytes=window_bytes,
        access=access,
        ratio=ratio,
        means=means,
    )


def _checked_means(whole: Schema, means: Mapping[str, float]) -> dict[str, float]:
    """Return the mean bytes of the values that vary in size, or raise ArgumentError."""
    varying = [field.name for field in LoggedFields(whole).new_in_a_step() if field.varies]
    if not isinstance(means, Mapping):
        raise ArgumentError(f"mean_bytes must be numbers by field (found {shown(means)})")
    unknown = [name for name in means if name not in whole.names or not whole[name].varies]
    if missing := [name for name in varying if name not in means]:
        raise ArgumentError(
            f"the values of field {missing[0]!r} vary in size: give the mean number of bytes, as "
            f"mean_bytes={{{missing[0]!r}: 800}}"
        )
    if unknown:
        raise ArgumentError(
            f"mean_bytes has {shown(unknown[0])}, which is no field that varies in size (expected "
            f"{', '.join(varying) or 'none'})"
        )
    most = float(MAX_VALUE_BYTES)
    return {name: real_number("mean_bytes", n, low=0.0, high=most) for name, n in means.items()}


def estimate_of(
    schema: Schema,
    capacity: int,
    grouping: Grouping,
    *,
    prioritized: bool,
    keep_rows: int = 0,
    window_bytes: int = DEFAULT_WINDOW_BYTES,
    access: str = "exclusive",
    ratio: float = 1.0,
    means: Mapping[str, float] = _NO_MEANS,
) -> Estimate:
    """Return the estimate of a store whose records share values as `grouping` says.

    means:  the mean bytes of values that vary in size; these take no room where it is not known
    """
    slots = capacity + keep_rows
    records = tree_bytes(grouping.groups(slots), grouping.value_bytes)
    links = tree_bytes(blocks_in(slots), BLOCK_BYTES)
    priorities = links if prioritized else 0
    entries, observations = _observations(schema, capacity, slots, ratio, means)
    # Any priorities may change, and the links of new rows alone.
    of_commit = tree_bytes(_commit_rows(grouping) // BLOCK_SLOTS + 2, BLOCK_BYTES)
    spare = _COMMITS_FREED * (
        min(records, _commit_bytes(grouping))
        + priorities
        + min(links, of_commit)
        + min(observations, entries)
    )
    return Estimate(
        capacity=capacity,
        payload_bytes=schema.payload_bytes,
        record_bytes=grouping.record_bytes,
        records_per_value=grouping.per_value,
        records_disk_bytes=records,
        priorities_disk_bytes=priorities,
        links_disk_bytes=links,
        observations_disk_bytes=observations,
        spare_disk_bytes=(int(spare) // PAGE_BYTES + _OTHER_PAGES) * PAGE_BYTES,
        window_bytes=window_bytes_of(schema, capacity, window_bytes),
        side_table_bytes=slot_table_nbytes(slots)
        + (priorities_nbytes(slots) if prioritized else 0)
        + grouping.places_nbytes(slots),
        outbox_bytes=pending_nbytes(schema, capacity, pending_bytes(schema))
        if access == "shared"
        else 0,
    )


def _observations(
    schema: Schema, capacity: int, slots: int, ratio: float, means: Mapping[str, float]
) -> tuple[int, int]:
    """Return the disk space of the entries of a commit, and of all in the log, in bytes."""
    if not schema.logged:
        return 0, 0
    logged = LoggedFields(schema)
    largest = largest_frame_bytes(logged)
    commit = total = 0
    rows = committed_rows(schema)
    for field in logged.new_in_a_step():
        frame_bytes = float(field.frame_bytes)
        if field.varies:
            frame_bytes = means.get(field.name, 0.0) + 8 * field.shape.count(None)
        frame_bytes *= ratio if field.codec else 1.0
        per_value = entries_per_value(frame_bytes, largest)
        value_bytes = int(per_value * entry_bytes(frame_bytes))
        entries = slots + reach_for(logged, capacity)
        total += tree_bytes(-(-entries // per_value) + 1, value_bytes)
        commit += tree_bytes(-(-rows // per_value) + 1, value_bytes)
    return commit, total


def _commit_rows(grouping: Grouping) -> int:
    """Return the most rows that pushes let wait for a commit."""
    return max(1, COMMIT_BYTES // grouping.record_bytes)


def _commit_bytes(grouping: Grouping) -> int:
    """Return the pages that a commit of records rewrites, in bytes."""
    # The first and the last value may hold records of other commits, which are written again.
    rows = _commit_rows(grouping) + 2 * (grouping.per_value - 1)
    return int(rows * slot_bytes(grouping)) + 6 * PAGE_BYTES


def check_batches_ahead(
    schema: Schema, batch_size: int, prefetch: int, n_step: NStep | None = None
) -> None:
    """Raise ArgumentError where batches drawn ahead take more memory than this machine has."""
    of_batch = count_of(batch_size, "transition")
    what = f"prefetch={prefetch} keeps {prefetch + 1} batches of {of_batch}"
    way_out = "choose a smaller prefetch"
    check_memory_of(schema, (prefetch + 1) * batch_size, what, way_out, n_step)


def check_memory_of(
    schema: Schema,
    rows: int,
    what: str,
    way_out: str = "choose fewer, or shorter ones",
    n_step: NStep | None = None,
) -> None:
    """Raise ArgumentError where rows of batches take more memory than this machine has."""
    steps = 0 if n_step is None else n_step.steps
    needed = rows * (schema.payload_bytes + _OTHER_BYTES + steps * _STEP_BYTES)
    if needed < _SMALL_MEMORY:
        return
    there = 0
    with contextlib.suppress(ValueError, OSError):  # a system that does not tell
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 0 < there < needed:
        raise ArgumentError(
            f"{what} in {human(needed)} of memory (this machine has {human(there)}): {way_out}"
        )


def warn_of_disk(found: Estimate, path: Path, there: int) -> None:
    """Warn, at the line of the caller outside of this package, of a disk with too little room.

    there:  the size of the data file now, in bytes
    """
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return
    if usage.total <= 0 or usage.free + there >= found.disk_bytes:
        return
    warn_caller(
        f"{path} takes {human(found.disk_bytes)} of disk when it holds all of its "
        f"{found.capacity} transitions (found {human(usage.free)} free, and {human(there)} in use "
        "by it): make room, or choose another path, or a smaller capacity with "
        "diskreplay.estimate()",
        DiskSpaceWarning,
    )

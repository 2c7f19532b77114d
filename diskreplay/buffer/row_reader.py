"""RowReader: the program of a reader process, which reads the rows of batches for another process.

It draws nothing: the process that draws writes write ids into a slot of shared memory, and the
reader writes their rows beside them. It ends when the pipe of the requests does.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import sys
from pathlib import Path

from diskreplay.buffer.batch_form import BatchForm
from diskreplay.buffer.batch_slots import BatchSlot, BatchSlots
from diskreplay.buffer.expected_fields import ExpectedFields
from diskreplay.buffer.n_step_rows import NStepRows
from diskreplay.buffer.rows import Rows
from diskreplay.buffer.stored_rows import RowsPart
from diskreplay.episodes import NStep
from diskreplay.store import Store

MESSAGE = struct.Struct("=qq")  # number of the slot, number of the request
REPLY = b"."
_PATIENCE = 5000  # milliseconds


def main() -> None:
    """Read rows until there are no more requests."""
    path, frames, steps, gamma, *numbers = sys.argv[1:]
    batch_size, n_slots, memory, requests, replies, parent, *data_file = map(int, numbers)
    n_step = NStep(int(steps), float.fromhex(gamma)) if int(steps) > 1 else None
    form = BatchForm(frames=bool(int(frames)), n_step=n_step)
    store = Store(Path(path))
    try:
        if store.data_file != tuple(data_file):
            raise SystemExit(f"{path} is another store now: it was replaced while it was open")
        rows = Rows(store, store.identity.capacity, 0, ExpectedFields({}, all_given=False))
        with store.snapshot() as snapshot:
            rows.adopt_stored(snapshot)
        if rows.schema is None:
            raise SystemExit(f"{path} has no schema yet")
        slots = BatchSlots(rows.schema, batch_size, n_slots, form, descriptor=memory).slots
        chained = None if n_step is None else NStepRows(rows, form)
        while message := _next(requests, parent):
            number, request = MESSAGE.unpack(message)
            slot = slots[number]
            if slot.request == request:
                slot.finish(request, failed=not _read(rows, chained, slot))
                with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                    os.write(replies, REPLY)
    finally:
        store.close()


def _next(requests: int, parent: int) -> bytes:
    """Return the next message, b"" when none will come."""
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    # A process that was forked from the parent may keep the pipe open for ever.
    while not poll.poll(_PATIENCE):
        if os.getppid() != parent:
            return b""
    return os.read(requests, MESSAGE.size)


def _read(rows: Rows, chained: NStepRows | None, slot: BatchSlot) -> bool:
    """Read the wanted rows of a slot; return False if that fails, for any reason."""
    arrays, places = slot.arrays, slot.wanted
    try:
        if chained is None:
            write_ids = arrays.indices[places]
            rows.stored.read([RowsPart(arrays.columns, write_ids, None, places)])
        elif arrays.chains is not None:
            chained.read_into(arrays.columns, arrays.chains.take(places), places)
    except Exception:  # the process that draws will meet the error, if it occurs again
        return False
    return True

"""MarkedBuffer: the methods of both kinds of buffers that mark commits and go back to them."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any, Generic

from diskreplay.buffer.batches import BatchT
from diskreplay.buffer.drawing_buffer import DrawingBuffer
from diskreplay.buffer.marks import Mark, check_name, checked_data, checked_name
from diskreplay.store import MARKS, Snapshot, drop_mark, marks_of, put_mark
from diskreplay.validation import check_word


class MarkedBuffer(DrawingBuffer[BatchT], Generic[BatchT]):
    """An open buffer: the methods that draw, and marks."""

    def mark(self, name: str, data: Any = None) -> None:
        """Commit everything under a name, so that `rewind(name)` can go back to this moment.

        A mark belongs to a checkpoint of the network: save the network, then mark, with what
        identifies the file in `data`. A mark takes the place of an earlier one of the same name,
        also of a damaged one.
        Until it is deleted, each block of 1000 priorities that changes is kept once as it was at
        the mark, 4 kB each. Cost: a commit.

        Raises ArgumentError for a name or data that cannot be stored, ReadOnlyError, and
        StorageError when the disk refuses: then there is no mark.

        >>> buffer = ReplayBuffer(capacity=1000)
        >>> buffer.push([0.0], 0, 1.0, [1.0], False)
        0
        >>> buffer.mark("step-1", data={"network": "step-1.pt"})
        >>> buffer.push([1.0], 0, 1.0, [2.0], False)
        1
        >>> buffer.rewind("step-1"), buffer.count
        (0, 1)

        name:  printable text, at most 200 bytes
        data:  a small plain value: None, bool, int, float, str, bytes, and lists and dictionaries
               of these, at most 8 kB
        """
        name, data = checked_name(name), checked_data(data)
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            identity = guard.writer().identity
            guard.begin_change()
            guard.commit(change=partial(put_mark, identity=identity, name=name, data=data))

    def marks(self) -> list[Mark]:
        """Return the marks, oldest first; raise DamageError for a damaged one.

        >>> buffer = ReplayBuffer(capacity=1000)
        >>> buffer.mark("begin", data=[1, 2])
        >>> [(mark.name, mark.count, mark.data) for mark in buffer.marks()]
        [('begin', 0, [1, 2])]
        """
        with self._guard.reading() as view, self._snapshot_for(view) as snapshot:
            return self._marks_of(snapshot)

    def delete_mark(self, name: str) -> None:
        """Commit everything, and delete a mark, with the blocks that are kept for it alone.

        A damaged mark can be deleted, too. While another one is damaged, blocks stay until that one
        is deleted. Raises ArgumentError when there is no such mark, ReadOnlyError and StorageError.

        >>> buffer = ReplayBuffer(capacity=1000)
        >>> buffer.mark("begin")
        >>> buffer.delete_mark("begin")
        >>> buffer.marks()
        []
        """
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            replica = guard.writer()
            with replica.view() as view, self._snapshot_for(view) as snapshot:
                check_name(name, snapshot.names(MARKS), self.path)
            guard.begin_change()
            guard.commit(change=partial(drop_mark, identity=replica.identity, name=name))

    def rewind(self, name: str, missing: str = "raise") -> int:
        """Go back to a mark; return how many of its transitions are missing.

        Transitions, priorities, largest priority, random stream, annealing and counts of late
        updates are as they were: the same calls draw the same batches again, bit for bit. All that
        came later is gone, also what is not committed, batches that were drawn ahead, and later
        marks. Write ids are given again; readers follow. As after an opening, the next transition
        begins an episode, so that n-step returns and sequences end at the mark. The settings stay
        those of this buffer, the table of runs tells of the transitions that are left, and the
        observation log gives its space back when the ring has moved on. A kill leaves the state
        before or after.

        Transitions that were live at the mark are there until the ring has overwritten them: for
        `keep_rows` pushes, or until the buffer is full. Raises MismatchError, naming their write
        ids, when some are missing, and changes nothing; ArgumentError when there is no such mark,
        DamageError when what is kept for it is damaged, ReadOnlyError without access="exclusive",
        and StorageError when the disk refuses. Cost: that of an opening.

        missing:  "drop" goes back all the same, without the transitions that are missing
        """
        check_word("missing", missing, ("raise", "drop"))
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            found = guard.writer().rewind(name, drop_missing=missing == "drop")
            guard.forget_change()
            return found

    def _marks_of(self, snapshot: Snapshot) -> list[Mark]:
        return [Mark.of(mark) for mark in marks_of(snapshot, self._guard.replica.identity)]

    def _snapshot_for(self, view: Snapshot | None) -> contextlib.AbstractContextManager[Snapshot]:
        """Return the snapshot of this call, or for a lone writer one of its last commit."""
        store = self._guard.replica.store
        return contextlib.nullcontext(view) if view else store.snapshot()

"""MarkedBuffer: the methods of both kinds of buffers for marks and notes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any, Generic

from diskreplay.buffer.batches import BatchT
from diskreplay.buffer.drawing_buffer import DrawingBuffer
from diskreplay.buffer.marks import Mark
from diskreplay.buffer.named_data import MARK, NOTE
from diskreplay.buffer.shared_writer import SharedWriter
from diskreplay.buffer.writer import Writer
from diskreplay.errors import StorageError
from diskreplay.store import MARKS, NOTES, Snapshot, drop_mark, marks_of, put_mark
from diskreplay.validation import check_word


class MarkedBuffer(DrawingBuffer[BatchT], Generic[BatchT]):
    """An open buffer: the methods that draw, and marks and notes."""

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
        name = MARK.checked_name(name)
        MARK.sealed(name, data)
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
                MARK.check_known(name, snapshot.names(MARKS), self.path)
            guard.begin_change()
            guard.commit(change=partial(drop_mark, identity=replica.identity, name=name))

    def rewind(self, name: str, missing: str = "raise") -> int:
        """Go back to a mark; return how many of its transitions are missing.

        Transitions, priorities, largest priority, notes, random stream, annealing and counts of
        late updates are as they were: the same calls draw the same batches again, bit for bit. All
        that came later is gone, also what is not committed, batches that were drawn ahead, and
        later marks. Write ids are given again; readers follow. As after an opening, the next
        transition begins an episode, so that n-step returns and sequences end at the mark. The
        settings stay those of this buffer, the table of runs tells of the transitions that are
        left, and the observation log gives its space back when the ring has moved on. A kill leaves
        the state before or after.

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

    def set_note(self, name: str, data: Any) -> None:
        """Set the note of a name, which the commit of the pending rows stores with them.

        A note tells of the rows, such as how far their source was read, or the means of their
        fields: after any kill it is there with the rows pushed before it, or neither is. It takes
        the place of an earlier one of the same name, also of a damaged one. A mark keeps the notes
        of its moment, and `rewind` brings these back. With access="shared" the last commit wins.
        Cost: O(size of the data).

        Raises ArgumentError for a name or data that cannot be stored, ReadOnlyError, and
        StorageError when a commit is needed first and the disk refuses.

        >>> buffer = ReplayBuffer(capacity=1000)
        >>> buffer.push([0.0], 0, 1.0, [1.0], False)
        0
        >>> buffer.set_note("source", {"file": "a.csv", "line": 1})
        >>> buffer.notes()
        {'source': {'file': 'a.csv', 'line': 1}}

        name:  printable text, at most 200 bytes
        data:  a small plain value, as of a mark, but at most 64 kB
        """
        name = NOTE.checked_name(name)
        raw = NOTE.sealed(name, data)
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            self._change_notes(guard.writer(), {name: raw})

    def notes(self) -> dict[str, Any]:
        """Return the data of all notes, by name; raise DamageError for a damaged one.

        With access="shared" they are those of the last commit, as are the transitions.

        >>> ReplayBuffer(capacity=1000).notes()
        {}
        """
        with self._guard.reading() as view, self._snapshot_for(view) as snapshot:
            return self._guard.replica.notes(snapshot)

    def delete_note(self, name: str) -> None:
        """Delete a note in the commit of the pending rows; it may be damaged.

        Raises ArgumentError when there is no such note, and ReadOnlyError.

        >>> buffer = ReplayBuffer(capacity=1000)
        >>> buffer.set_note("source", 1)
        >>> buffer.delete_note("source")
        >>> buffer.notes()
        {}
        """
        guard = self._guard
        guard.refuse_nesting()
        with guard.lock:
            writer = guard.writer()
            with writer.view() as view, self._snapshot_for(view) as snapshot:
                known = writer.pending_notes.applied_to(dict.fromkeys(snapshot.names(NOTES)))
            NOTE.check_known(name, [*known], self.path)
            self._change_notes(writer, {name: None})

    def _change_notes(
        self, writer: Writer | SharedWriter, notes: Mapping[str, bytes | None]
    ) -> None:
        """Set notes to their sealed bytes, or delete them; a refused commit takes that back."""
        guard, before = self._guard, writer.pending_notes
        guard.begin_change()
        writer.pending_notes = before.changed(notes)
        if not (guard.commit_failed or writer.pending_notes.must_be_committed):
            guard.end_change()
            return
        try:
            guard.commit()
        except StorageError:
            writer.pending_notes = before
            raise

    def _marks_of(self, snapshot: Snapshot) -> list[Mark]:
        return [Mark.of(mark) for mark in marks_of(snapshot, self._guard.replica.identity)]

    def _snapshot_for(self, view: Snapshot | None) -> contextlib.AbstractContextManager[Snapshot]:
        """Return the snapshot of this call, or for a lone writer one of its last commit."""
        store = self._guard.replica.store
        return contextlib.nullcontext(view) if view else store.snapshot()

"""ObservationWindow: the cache of frames in memory by observation id.

The frame of an id has one possible place, `id % rows`, among those of its kind. What belongs to an
id never changes, so a frame in the window never becomes wrong.
"""

from __future__ import annotations

import numpy as np

from diskreplay.aliases import Bools, Ints
from diskreplay.errors import ArgumentError
from diskreplay.observations.frames import Bytes, Frame, LoggedFields
from diskreplay.observations.log_sizes import reach_for

_OWNER_BYTES = 8
_MIN_ROWS = 64
_WAITING_BYTES = 8 << 20  # of frames that wait for a commit, at most
_PACKED_BYTES = 4 << 20  # of packed values: about as many as are within reach
_OBJECT_BYTES = 256  # of one in memory, with its place
_NEVER = 2**63 - 1  # an id that is not given
_SMALL_PRIMES = (2, 3, 5, 7)


def observation_window_rows(logged: LoggedFields, capacity: int, window_bytes: int) -> int:
    """Return how many frames of each kind a window of this size holds.

    Ids count all kinds, so those of one kind may be every second or third one: a number of rows
    that no small number divides gives them all places.
    """
    together = _row_bytes(logged)
    if not together:
        return 0
    waiting = min(capacity * logged.frames_in_row, _WAITING_BYTES // together)
    most = frames_needed(logged, capacity) + reach_for(logged, capacity) + waiting
    rows = max(_MIN_ROWS, 4 * logged.frames_in_row, min(most, window_bytes // together))
    while any(rows % prime == 0 for prime in _SMALL_PRIMES):
        rows += 1
    return rows


def observation_window_nbytes(logged: LoggedFields, capacity: int, window_bytes: int) -> int:
    """Return the memory that a full window takes, in bytes."""
    rows = observation_window_rows(logged, capacity, window_bytes)
    has_packed = any(kind.packed is not None for kind in logged.kinds)
    return rows * _row_bytes(logged) + _PACKED_BYTES * has_packed


def _row_bytes(logged: LoggedFields) -> int:
    """Return the bytes of a frame of each kind together, with their owners."""
    return sum(kind.nbytes + _OWNER_BYTES for kind in logged.kinds if kind.packed is None)


def frames_needed(logged: LoggedFields, capacity: int) -> int:
    """Return how many frames of a kind the live transitions have, about: a new one in each step."""
    return (capacity + capacity // 8) * len(logged.new_in_a_step()) + _MIN_ROWS


class ObservationWindow:
    """A cache of frames. Memory is taken from the operating system as the rows fill.

    Of packed values it holds the newest, for the comparison with those that are written next.

    keeps_read_frames:  whether frames that were read stay here: only where there is room for all,
                        since a frame comes from the page cache almost as fast
    """

    def __init__(self, logged: LoggedFields, capacity: int, window_bytes: int) -> None:
        self.rows = observation_window_rows(logged, capacity, window_bytes)
        self.nbytes = observation_window_nbytes(logged, capacity, window_bytes)  # when full
        self._packed: dict[tuple[int, int], bytes] = {}  # by kind and id, the oldest first
        self._packed_bytes = 0
        self.keeps_read_frames = self.rows >= frames_needed(logged, capacity)
        self.keep_from(None)
        rows_of_kinds = [0 if kind.packed else self.rows for kind in logged.kinds]
        try:
            self.frames: list[Bytes] = [
                np.zeros((rows, kind.nbytes), np.uint8)
                for rows, kind in zip(rows_of_kinds, logged.kinds, strict=True)
            ]
            self._memory = [frames.reshape(-1).data for frames in self.frames]
            self._owners: list[Ints] = [np.zeros(rows, np.int64) for rows in rows_of_kinds]
        except (MemoryError, ValueError):
            raise ArgumentError(
                f"window_bytes is more memory than there is: {self.nbytes} bytes of observations "
                f"(found {window_bytes}): choose a smaller one"
            ) from None

    def holds(self, kind: int, ids: Ints) -> Bools:
        """Return which of the observation ids are held."""
        # A record of a stranger may have the id -1, which would be the owner of a free row.
        held: Bools = (self._owners[kind][ids % self.rows] == ids + 1) & (ids >= 0)
        return held

    def frame(self, kind: int, observation_id: int) -> Bytes | None:
        """Return a frame, None if it is not held. It stays until another one takes its place."""
        place = observation_id % self.rows
        if self._owners[kind][place] != observation_id + 1:
            return None
        frame: Bytes = self.frames[kind][place]
        return frame

    def packed(self, kind: int, observation_id: int) -> bytes | None:
        """Return a packed value, None if it is not held."""
        return self._packed.get((kind, observation_id))

    def write_packed(self, kind: int, observation_id: int, content: bytes) -> None:
        """Write a packed value, in place of the oldest ones."""
        self._packed[kind, observation_id] = content
        self._packed_bytes += len(content) + _OBJECT_BYTES
        while self._packed_bytes > _PACKED_BYTES:
            oldest = next(iter(self._packed))
            self._packed_bytes -= len(self._packed.pop(oldest)) + _OBJECT_BYTES

    def write(self, kind: int, ids: Ints, frames: Bytes) -> None:
        """Write frames in place of others; of several with one place the last stays."""
        places = ids % self.rows
        # Without owners meanwhile: an interrupt leaves frames that nobody reads, not mixed ones.
        self._owners[kind][places] = 0
        self.frames[kind][places] = frames
        self._owners[kind][places] = ids + 1

    def keep(self, kind: int, observation_id: int, frame: Frame) -> None:
        """Write a frame, or a packed value."""
        if len(self.frames[kind]):
            self.write_frame(kind, observation_id, frame)
        else:
            self.write_packed(kind, observation_id, bytes(frame))

    def write_frame(self, kind: int, observation_id: int, frame: Frame) -> memoryview:
        """Write a frame in place of another, and return its bytes here."""
        owners, place = self._owners[kind], observation_id % self.rows
        owners[place] = 0  # as in `write`
        begin = place * len(frame)
        held = self._memory[kind][begin : begin + len(frame)]
        held[:] = frame
        owners[place] = observation_id + 1
        return held

    def write_read(self, kind: int, observation_id: int, frame: Frame) -> None:
        """Write a frame that was read, but in place of none of those that are kept."""
        if self._owners[kind][observation_id % self.rows] <= self._kept_from:
            self.write_frame(kind, observation_id, frame)

    def keep_from(self, observation_id: int | None) -> None:
        """Keep the frames from an id on, which are nowhere else, or none, until the next call."""
        self._kept_from = _NEVER if observation_id is None else observation_id

    def drop_from(self, observation_id: int) -> None:
        """Remove the frames from an id on: a commit that failed may have left some."""
        for owners in self._owners:
            owners[owners > observation_id] = 0
        for key in [key for key in self._packed if key[1] >= observation_id]:
            self._packed_bytes -= len(self._packed.pop(key)) + _OBJECT_BYTES

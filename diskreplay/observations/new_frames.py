"""NewFrames: frames that have their ids, and are not in the log yet."""

from __future__ import annotations

from diskreplay.observations.frames import Frame
from diskreplay.observations.observation_window import ObservationWindow


class NewFrames:
    """Frames with consecutive ids that are not in the log yet.

    begin:   the id of the first one
    frames:  the kind and the bytes of each
    nbytes:  of all frames
    window:  keeps their bytes, and has room for all of them; None where the caller keeps them
    """

    def __init__(self, begin: int, window: ObservationWindow | None = None) -> None:
        self.begin = begin
        self.frames: list[tuple[int, Frame]] = []
        self.nbytes = 0
        self._window = window

    @property
    def count(self) -> int:
        """The id of the next frame."""
        return self.begin + len(self.frames)

    def add(self, kind: int, frame: Frame) -> None:
        """Add a frame, which gets the next id."""
        if self._window is not None:
            frame = self._window.write_frame(kind, self.begin + len(self.frames), frame)
        self.nbytes += len(frame)
        self.frames.append((kind, frame))  # at last: after an interrupt its id is given again

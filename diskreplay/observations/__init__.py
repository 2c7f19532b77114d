"""Observations: the values of logged fields, each of which the log keeps once."""

from __future__ import annotations

from diskreplay.observations.batch_frames import (
    ArraySpec,
    FrameMemory,
    Frames,
    copied_frames,
    frame_columns,
    frames_from_plain,
    frames_to_plain,
    shapes_of_frames,
)
from diskreplay.observations.frames import LoggedFields
from diskreplay.observations.log_sizes import (
    entries_per_value,
    entry_bytes,
    largest_frame_bytes,
    reach_for,
)
from diskreplay.observations.logged_rows import LoggedRows
from diskreplay.observations.observation_reader import ObservationReader
from diskreplay.observations.observation_window import (
    ObservationWindow,
    observation_window_nbytes,
)
from diskreplay.observations.waiting_observations import WaitingObservations

__all__ = [
    "ArraySpec",
    "FrameMemory",
    "Frames",
    "LoggedFields",
    "LoggedRows",
    "ObservationReader",
    "ObservationWindow",
    "WaitingObservations",
    "copied_frames",
    "entries_per_value",
    "entry_bytes",
    "frame_columns",
    "frames_from_plain",
    "frames_to_plain",
    "largest_frame_bytes",
    "observation_window_nbytes",
    "reach_for",
    "shapes_of_frames",
]

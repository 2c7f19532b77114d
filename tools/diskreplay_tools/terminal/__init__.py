"""Terminal: text, numbers and charts on a terminal, and the views of `inspect`."""

from __future__ import annotations

from diskreplay_tools.terminal.histograms import Bins, bins_of
from diskreplay_tools.terminal.numbers import known, moment, number
from diskreplay_tools.terminal.overview import show_overview
from diskreplay_tools.terminal.progress import Progress, progress
from diskreplay_tools.terminal.text import printable_lines, say, tell
from diskreplay_tools.terminal.transitions import described, quoted, show_transitions
from diskreplay_tools.terminal.watching import WATCH_SECONDS, look_once, watch

__all__ = [
    "WATCH_SECONDS",
    "Bins",
    "Progress",
    "bins_of",
    "described",
    "known",
    "look_once",
    "moment",
    "number",
    "printable_lines",
    "progress",
    "quoted",
    "say",
    "show_overview",
    "show_transitions",
    "tell",
    "watch",
]

"""Report: one HTML page with figures about a store."""

from __future__ import annotations

from diskreplay_tools.report.figures import Figures
from diskreplay_tools.report.frames import is_image
from diskreplay_tools.report.whole import page_of

__all__ = [
    "Figures",
    "is_image",
    "page_of",
]

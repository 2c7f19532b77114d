"""Report: one HTML page with figures about a store."""

from __future__ import annotations

from diskreplay_tools.report.figures import Figures
from diskreplay_tools.report.whole import page_of

__all__ = [
    "Figures",
    "page_of",
]

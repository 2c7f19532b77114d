"""Ui: a read-only web page about a running replay."""

from __future__ import annotations

from diskreplay_tools.ui.guarding import is_loopback
from diskreplay_tools.ui.serve import serve_page

__all__ = ["is_loopback", "serve_page"]

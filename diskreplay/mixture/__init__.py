"""Mixture: batches from several buffers at once, in shares that the user sets."""

from __future__ import annotations

from diskreplay.mixture.mixture import Mixture

__all__ = ["Mixture"]

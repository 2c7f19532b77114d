"""Maintenance: verify, repair, compact, resize, convert, merge and transform whole stores."""

from __future__ import annotations

from diskreplay.maintenance.building import StoreBuilder
from diskreplay.maintenance.merging import merge
from diskreplay.maintenance.repairing import Repair, repair
from diskreplay.maintenance.rewriting import Rewritten, compact, convert, resize
from diskreplay.maintenance.transforming import transform
from diskreplay.maintenance.verification import verify

__all__ = [
    "Repair",
    "Rewritten",
    "StoreBuilder",
    "compact",
    "convert",
    "merge",
    "repair",
    "resize",
    "transform",
    "verify",
]

"""Limiting: a replay whose pushes and draws wait for each other, so that neither runs ahead."""

from __future__ import annotations

from diskreplay.limiting.rate_limited import RateLimited

__all__ = ["RateLimited"]

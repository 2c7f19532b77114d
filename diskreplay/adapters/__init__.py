"""Adapters: one file a framework, above the public names; `import diskreplay` loads none."""

from __future__ import annotations

__all__: list[str] = []

"""Episodes: which transition follows which, and what is drawn of several that follow another."""

from __future__ import annotations

from diskreplay.episodes.linker import Linker
from diskreplay.episodes.links import Links

__all__ = ["Linker", "Links"]

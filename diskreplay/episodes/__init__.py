"""Episodes: which transition follows which, and what is drawn of several that follow another."""

from __future__ import annotations

from diskreplay.episodes.arguments import (
    checked_env,
    checked_envs,
    checked_truncated,
    checked_truncateds,
)
from diskreplay.episodes.linker import Linker
from diskreplay.episodes.links import Links, LinkValues, links_to

__all__ = [
    "LinkValues",
    "Linker",
    "Links",
    "checked_env",
    "checked_envs",
    "checked_truncated",
    "checked_truncateds",
    "links_to",
]

"""Episodes: which transition follows which, and what is drawn of several that follow another."""

from __future__ import annotations

from diskreplay.episodes.arguments import checked_env, checked_envs, checked_truncated, checked_truncateds
from diskreplay.episodes.linker import Linker
from diskreplay.episodes.links import LinkValues, Links, links_to
from diskreplay.episodes.n_step import Chains, NStep, chains

__all__ = [
    "Chains",
    "LinkValues",
    "Linker",
    "Links",
    "NStep",
    "chains",
    "checked_env",
    "checked_envs",
    "checked_truncated",
    "checked_truncateds",
    "links_to",
]

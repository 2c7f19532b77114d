"""Episodes: which transition follows which, and what is drawn of several that follow another."""

from __future__ import annotations

from diskreplay.episodes.arguments import (
    checked_env,
    checked_envs,
    checked_truncated,
    checked_truncateds,
)
from diskreplay.episodes.episode_ids import beginnings, episode_from, has_next, parts_of
from diskreplay.episodes.linker import Linker, all_done
from diskreplay.episodes.links import Links, LinkValues, links_to
from diskreplay.episodes.n_step import Chains, NStep
from diskreplay.episodes.sequences import Sequences, are_first, sequence_priorities

__all__ = [
    "Chains",
    "LinkValues",
    "Linker",
    "Links",
    "NStep",
    "Sequences",
    "all_done",
    "are_first",
    "beginnings",
    "checked_env",
    "checked_envs",
    "checked_truncated",
    "checked_truncateds",
    "episode_from",
    "has_next",
    "links_to",
    "parts_of",
    "sequence_priorities",
]

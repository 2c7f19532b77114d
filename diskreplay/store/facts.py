"""Facts: what the sealed values of a store must say, checked without opening a buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diskreplay.errors import DamageError, DiskReplayError
from diskreplay.sampling import DEFAULTS, PrioritizedSampler
from diskreplay.store.state import Identity
from diskreplay.store.store import DURABILITIES
from diskreplay.validation import real_number

RUN_SETTINGS = {"durability": "system", "commit_interval": 1.0}  # as the constructors have them
identity_of = Identity.parse


def settings_of(found: Any, kind: str) -> dict[str, Any]:
    """Return the settings that a state holds, or raise DamageError.

    One that is missing is what the constructors have; one that is not known here is left out.
    """
    stored = _mapping("table of settings", found)
    names = DEFAULTS if kind == "prioritized" else {}
    settings = {name: stored.get(name, usual) for name, usual in {**RUN_SETTINGS, **names}.items()}
    if settings["durability"] not in DURABILITIES:
        raise DamageError(f"the settings hold no durability (found {settings['durability']!r:.40})")
    try:
        real_number("commit_interval", settings["commit_interval"], low=0, high=float("inf"))
        if names:
            PrioritizedSampler(1, **{name: settings[name] for name in names})
    except DiskReplayError as error:
        raise DamageError(f"the settings are damaged: {error!s:.200}") from None
    return settings


def laid_over(under: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state with another laid over it: what only a newer version knows stays."""
    both = {**under, **state}
    for name in ("sampler", "settings"):
        tables = [table for table in (under.get(name), state.get(name)) if isinstance(table, dict)]
        if tables:
            both[name] = {key: value for table in tables for key, value in table.items()}
    return both


def _mapping(what: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise DamageError(f"the {what} is not a table")
    return dict(found)

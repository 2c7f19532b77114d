"""The arguments of `push` and `extend` as the values of fields."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from diskreplay.errors import PriorityError, SchemaError
from diskreplay.schema import STANDARD_FIELDS, Schema

# The arguments of `push`, by their names in `extend`.
_SINGULARS = {
    **{f"{name}s": name for name in (*STANDARD_FIELDS, "truncated")},
    "priorities": "priority",
}


def refuse_singulars(given: Iterable[str]) -> None:
    """Raise SchemaError for arguments of `push` in an extend."""
    if not given:
        return
    for plural, name in _SINGULARS.items():
        if name in given:
            raise SchemaError(
                f"extend takes {name!r} as {plural}, with n values (found {name}=): leave it out"
            )


def refuse_plurals(given: Iterable[str], known: Schema | Mapping[str, Any]) -> None:
    """Raise SchemaError for arguments of `extend` in a push, unless they are fields."""
    if not (plurals := _SINGULARS.keys() & given):
        return
    names = known.names if isinstance(known, Schema) else known
    for plural in sorted(plurals):
        if plural not in names:
            name = _SINGULARS[plural]
            raise SchemaError(
                f"push takes {name!r} as {name}, with one value (found {plural}=): give {name}=; "
                "extend() takes several transitions"
            )


def extra_of(schema: Schema, extra: dict[str, Any], truncated: Any, env: Any) -> dict[str, Any]:
    """Return the extra fields of a push, with truncated and env where the schema has them.

    A schema may have a field `env`, too, if it says so.
    """
    if "truncated" in schema.extra_names:
        extra = {**extra, "truncated": truncated}
    if env is not None and "env" in schema.extra_names:
        extra = {**extra, "env": env}
    return extra


def extras_of(
    schema: Schema, extra: dict[str, Any], truncateds: Any, env: Any, dones: Any
) -> dict[str, Any]:
    """Return the extra fields of an extend, as `extra_of` those of a push."""
    n: Any = ()
    with contextlib.suppress(TypeError):  # the check of the columns says what `dones` should be
        n = len(dones)
    truncateds = np.zeros(n, np.bool_) if truncateds is None else truncateds
    if env is not None and not np.ndim(env):
        env = np.full(n, env)
    return extra_of(schema, extra, truncateds, env)


def by_name(standard: Iterable[Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of all fields of a first push or extend by name."""
    return {**dict(zip(STANDARD_FIELDS, standard, strict=True)), **extra}


def refused_priorities() -> PriorityError:
    """Return the error of priorities in a buffer that keeps none."""
    return PriorityError(
        "a ReplayBuffer draws uniformly and keeps no priorities: leave them out, or use a "
        "PrioritizedReplayBuffer"
    )

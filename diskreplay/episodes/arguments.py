"""The arguments of a push that tell of episodes: truncated, env."""

from __future__ import annotations

from typing import Any

import numpy as np

from diskreplay.aliases import Bools, Ints
from diskreplay.errors import ArgumentError, SchemaError
from diskreplay.validation import as_array, whole_number, whole_numbers
from diskreplay.wording import shown

_MOST = 2**63 - 1  # of an env


def checked_truncated(truncated: Any) -> bool:
    """Return whether a transition is the last one of its episode, or raise SchemaError."""
    if type(truncated) is bool:
        return truncated
    found = as_array(truncated, SchemaError, "truncated must be True or False")
    if found.shape:
        raise SchemaError(
            f"truncated must be True or False, 1 or 0 (found an array of shape {found.shape}): "
            "extend() takes several transitions"
        )
    return bool(checked_truncateds(found[None], 1)[0])


def checked_truncateds(truncateds: Any, n: int) -> Bools:
    """Return for n transitions whether each is the last one of its episode, or raise SchemaError.

    Numbers may stand for it, as for done.
    """
    found = as_array(truncateds, SchemaError, f"expected {n} values of truncated")
    if found.shape != (n,) or found.dtype.kind not in "biuf":
        raise SchemaError(
            f"expected {n} values of truncated, shape ({n},) (found shape {found.shape}, "
            f"{found.dtype})"
        )
    ends: Bools = found.astype(np.bool_)
    if wrong := found[ends != found].tolist():
        raise SchemaError(f"truncated must be True or False, 1 or 0 (found {shown(wrong[0])})")
    return ends


def checked_env(env: Any) -> int:
    """Return the number of an env, or raise ArgumentError."""
    if type(env) is int and 0 <= env <= _MOST:
        return env
    return whole_number("env", env, at_least=0, at_most=_MOST)


def checked_envs(env: Any, n: int) -> int | Ints | None:
    """Return one env, None for the default stream, or the env of each of n transitions."""
    if env is None or type(env) is int:
        return None if env is None else checked_env(env)
    found = whole_numbers("env", env, any_shape=True)
    if not found.ndim:
        return checked_env(env)
    if found.shape != (n,):
        raise ArgumentError(
            f"env must be one whole number or {n} of them, shape ({n},) (found shape {found.shape})"
        )
    if n and found.min() < 0:
        raise ArgumentError(f"env must be a whole number of at least 0 (found {found.min()})")
    return found

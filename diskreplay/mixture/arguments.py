"""The arguments of `Mixture.sample` and `Mixture.batches`, checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from diskreplay.errors import ArgumentError
from diskreplay.validation import MAX_COUNT, real_number, true_or_false, whole_number
from diskreplay.wording import shown


def sampling_options(*, out: Any, pad: bool, n_step: int, gamma: float) -> dict[str, Any]:
    """Return the arguments that each source's `sample` gets, without those at their defaults."""
    is_plain = type(n_step) is int and type(gamma) is float  # an array cannot be looked up
    options = dict((_n_step_options if is_plain else _n_step_options.__wrapped__)(n_step, gamma))
    if true_or_false("pad", pad):
        options["pad"] = True
        if out is not None:
            raise _padded("out=")
    return options


@lru_cache(maxsize=64)
def _n_step_options(n_step: int, gamma: float) -> tuple[tuple[str, Any], ...]:
    steps = whole_number("n_step", n_step, at_least=1, at_most=MAX_COUNT)
    discount = real_number("gamma", gamma, low=0.0, high=1.0)
    return (("n_step", steps), ("gamma", discount)) if steps > 1 else ()


def sequence_options(*, length: int, pad: bool, across: bool) -> dict[str, Any]:
    """Return the arguments that the `sample_sequences` of each source gets."""
    return {
        "length": whole_number("length", length, at_least=1, at_most=MAX_COUNT),
        "pad": true_or_false("pad", pad),
        "across": true_or_false("across", across),
    }


def checked_beta(beta: float | None, *, are_weighted: bool) -> float | None:
    """Return the exponent of importance weights, or raise ArgumentError."""
    if beta is None:
        return None
    if not are_weighted:
        raise ArgumentError(
            f"beta={shown(beta)} is the exponent of importance weights, and no source of this "
            "mixture is prioritized: leave it away"
        )
    why = ": give an earlier batch as out=" if isinstance(beta, tuple) else ""
    return real_number("beta", beta, low=0.0, high=1.0, why=why)


def check_iteration(
    readers: int, reuse: bool, prepare: Callable[[Any], Any] | None, frames: bool, pad: bool
) -> None:
    """Raise ArgumentError for arguments of `batches` that a mixture cannot have."""
    if whole_number("readers", readers, at_least=0):
        raise ArgumentError(
            f"a mixture has no reader processes (found readers={readers}): leave readers= away; "
            "with prefetch= a thread reads ahead"
        )
    if prepare is not None and not callable(prepare):
        raise ArgumentError(
            f"prepare must be a function that takes a batch, or None (found {shown(prepare)})"
        )
    true_or_false("frames", frames)
    if true_or_false("reuse", reuse) and true_or_false("pad", pad):
        raise _padded("reuse=True")


def _padded(other: str) -> ArgumentError:
    return ArgumentError(
        f"pad=True makes arrays of a new shape for each batch (found {other}): leave one of them "
        "away"
    )

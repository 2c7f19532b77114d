"""BatchForm: the form in which a user asks for batches."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from diskreplay.episodes import NStep
from diskreplay.errors import ArgumentError, SchemaError
from diskreplay.schema import Schema

DISCOUNTS = "discounts"


class BatchForm(NamedTuple):
    """The form of batches.

    frames:  fields in the log come as Frames
    pad:     arrays with lengths that vary come as one, with a mask
    n_step:  rewards are those of several transitions; None where each is of one
    """

    frames: bool = False
    pad: bool = False
    n_step: NStep | None = None

    def allowed_by(self, schema: Schema) -> BatchForm:
        """Return the form in which batches of a schema can come; raise SchemaError if in none."""
        if self.n_step is not None and DISCOUNTS in schema.extra_names:
            raise SchemaError(
                f"n_step adds the element {DISCOUNTS!r}, which is the name of a field here: leave "
                "n_step= away"
            )
        if self.frames and not schema.has_frames:
            return self._replace(frames=False)
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `sample` that ask for this form, without Frames."""
        found: dict[str, Any] = {"pad": True} if self.pad else {}
        if self.n_step is not None:
            found |= {"n_step": self.n_step.steps, "gamma": self.n_step.gamma}
        return found


def checked_n_step(n_step: int, gamma: float, capacity: int) -> NStep | None:
    """Return the n-step returns of a batch, None for single rewards; or raise ArgumentError."""
    is_plain = type(n_step) is int and type(gamma) is float  # an array cannot be looked up
    return (_checked if is_plain else _checked.__wrapped__)(n_step, gamma, capacity)


@lru_cache(maxsize=64)
def _checked(n_step: int, gamma: float, capacity: int) -> NStep | None:
    found = NStep(n_step, gamma)
    if found.steps > capacity:
        raise ArgumentError(
            f"n_step={found.steps} is more transitions than the buffer holds (its capacity is "
            f"{capacity}): choose a smaller one"
        )
    return None if found.steps == 1 else found

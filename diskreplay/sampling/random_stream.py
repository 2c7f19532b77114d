"""The random generator of a buffer as plain data, so that a commit can hold it."""

from __future__ import annotations

from typing import Any

import numpy as np

from diskreplay.errors import DamageError

_NAME = "PCG64"


def new_generator(seed: int | None) -> np.random.Generator:
    """Return a generator of the kind that a store can hold."""
    return np.random.Generator(np.random.PCG64(seed))


def generator_to_plain(generator: np.random.Generator) -> list[Any]:
    """Return the exact state of the generator as msgpack types; its integers have 128 bits."""
    state: Any = generator.bit_generator.state
    inner = state["state"]
    return [
        _NAME,
        inner["state"].to_bytes(16, "big"),
        inner["inc"].to_bytes(16, "big"),
        state["has_uint32"],
        state["uinteger"],
    ]


def generator_from_plain(plain: Any) -> np.random.Generator:
    """Return the generator that `generator_to_plain` described; raise DamageError otherwise."""
    generator = new_generator(0)
    try:
        name, state, inc, has_uint32, uinteger = plain
        if name != _NAME or len(state) != 16 or len(inc) != 16:
            raise ValueError(name)
        generator.bit_generator.state = {
            "bit_generator": _NAME,
            "state": {"state": int.from_bytes(state, "big"), "inc": int.from_bytes(inc, "big")},
            "has_uint32": has_uint32,
            "uinteger": uinteger,
        }
    except (TypeError, ValueError, OverflowError, AttributeError):
        raise DamageError("the stored state of the random generator is not readable") from None
    return generator

"""Columns of random bits for any schema, and their comparison bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from diskreplay import Schema

Columns = list[np.ndarray[Any, Any]]


def random_columns(schema: Schema, n: int, seed: int = 0) -> Columns:
    """Return n rows of any bits that the types can have."""
    generator = np.random.default_rng(seed)
    columns = []
    for field in schema.fields:
        if field.dtype.kind == "b":
            columns.append(generator.random((n, *field.shape)) < 0.5)
        else:
            content = generator.bytes(n * field.payload_bytes)
            columns.append(np.frombuffer(content, field.dtype).reshape((n, *field.shape)))
    return columns


def assert_same(found: Columns, expected: Columns) -> None:
    """Compare columns by type, shape and every bit."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()

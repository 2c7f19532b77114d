"""Join what shards answer: columns, batches, draws and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import diskreplay

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Part(NamedTuple):
    """A batch of one shard, drawn from its rows alone."""

    shard: int
    batch: Any
    share: float  # of the mass of the whole that the shard had
    size: int  # of the shard


def joined(parts: Sequence[Any]) -> Any:
    """Return columns of several batches as one, nested as they are; shorter arrays get zeros."""
    first = parts[0]
    if isinstance(first, dict):
        return {name: joined([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple):
        return tuple(joined(column) for column in zip(*parts, strict=True))
    if isinstance(first, list):
        return [value for part in parts for value in part]
    if len({part.shape[1:] for part in parts}) > 1:  # padded to the longest of each
        longest = tuple(map(max, zip(*(part.shape[1:] for part in parts), strict=True)))
        whole = np.zeros((sum(map(len, parts)), *longest), first.dtype)
        at = 0
        for part in parts:
            whole[(slice(at, at + len(part)), *map(slice, part.shape[1:]))] = part
            at += len(part)
        return whole
    return np.concatenate(parts)


def joined_columns(batches: Sequence[Any]) -> list[Any]:
    """Return the columns of batches of one type, each as one."""
    return [joined(list(values)) for values in zip(*batches, strict=True)]


def bytes_of(value: Any) -> int:
    """Return the bytes of columns, nested as they are."""
    if isinstance(value, dict):
        return sum(map(bytes_of, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(bytes_of, value))
    return int(value.nbytes) if isinstance(value, np.ndarray) else len(value)


def at_rows(value: Any, rows: Any) -> Any:
    """Return some rows of a column, nested as it is."""
    if isinstance(value, dict):
        return {name: at_rows(part, rows) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(at_rows(part, rows) for part in value)
    if isinstance(value, list) and not isinstance(rows, int):
        return [value[row] for row in rows]
    return value[rows]


def batch_at(batch: Any, rows: Ints) -> Any:
    """Return some rows of a batch, and of the arrays among its attributes."""
    found = type(batch)._make(at_rows(column, rows) for column in batch)
    for name, value in vars(batch).items():
        vars(found)[name] = value if isinstance(value, float) else at_rows(value, rows)
    return found


def whole_ids(local: Ints, shard: int, n_shards: int) -> Ints:
    """Return the write ids of the whole for those of a shard; -1 stays, where none is."""
    found = local * n_shards + shard
    found[local < 0] = -1
    return found


def joined_batch(parts: Sequence[Part], n_shards: int, size: int, beta: float | None) -> Any:
    """Return the batches of shards as one, with the write ids and the weights of the whole.

    size:  the number of transitions in the whole
    beta:  the exponent of the weights; None where batches have none
    """
    batches = [part.batch for part in parts]
    kind = type(batches[0])
    columns = {
        name: joined(list(values))
        for name, values in zip(kind._fields, zip(*batches, strict=True), strict=True)
        if name not in ("indices", "weights")
    }
    ids = [whole_ids(part.batch.indices, part.shard, n_shards) for part in parts]
    columns["indices"] = np.concatenate(ids)
    largest = None
    if beta is not None:
        columns["weights"], largest = joined_weights(parts, size, beta)
    batch = kind._make(columns[name] for name in kind._fields)
    for name in vars(batches[0]):
        if name == "indices":
            vars(batch)[name] = columns["indices"]
        elif name != "largest_weight":
            vars(batch)[name] = joined([getattr(b, name) for b in batches])
    if largest is not None:
        vars(batch)["largest_weight"] = largest
    return batch


def joined_weights(
    parts: Sequence[Part], size: int, beta: float
) -> tuple[NDArray[np.float32], float]:
    """Return `(size * P(i)) ** -beta` over the largest of the batch, and that largest.

    P(i) is that of the whole: the share of the shard times that within the shard, which follows
    from its weights, made with beta 1: `weight * largest_weight = 1 / (size of shard * P)`.
    """
    bases = []
    for part in parts:
        scale = size * part.share / (part.size * part.batch.largest_weight)
        bases.append(scale / part.batch.weights.astype(np.float64))
    found = np.concatenate(bases) ** -beta
    largest = float(found.max())
    return (found / largest).astype(np.float32), largest


def stratified_counts(n: int, masses: Floats, generator: np.random.Generator) -> Ints:
    """Return how many of n draws fall to each shard: one of each n-th of the whole mass."""
    points = (np.arange(n) + generator.random(n)) * (masses.sum() / n)
    ends = np.cumsum(masses)
    last = int(np.flatnonzero(masses)[-1])  # a point at the very end is in the last shard with mass
    places = np.minimum(np.searchsorted(ends, points, side="right"), last)
    return np.bincount(places, minlength=len(masses))


def distinct_counts(n: int, sizes: Ints, generator: np.random.Generator) -> Ints:
    """Return how many of n distinct rows of the whole are in each shard."""
    if sizes.sum() >= 10**9:  # more than the generator takes, and as good as independent
        return generator.multinomial(n, sizes / sizes.sum())
    return generator.multivariate_hypergeometric(sizes, n, method="marginals")


def check_out(out: Any, n: int) -> None:
    """Raise ArgumentError where `out` is no batch of n with arrays that can be written."""
    if not isinstance(out, diskreplay.Batch | diskreplay.PrioritizedBatch):
        raise diskreplay.ArgumentError(
            f"out must be an earlier batch of this buffer (found {type(out).__name__}): give a "
            "batch that sample has returned"
        )

    def check(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for part, one in value.items():
                check(f"{name}.{part}", one)
        elif isinstance(value, tuple):
            for place, one in enumerate(value):
                check(f"{name}[{place}]", one)
        else:
            found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else "no array"
            if isinstance(value, np.ndarray) and not value.flags.writeable:
                found = "read-only"
            elif isinstance(value, np.ndarray) and len(value) == n:
                return
            expected = f"{value.dtype} {(n, *value.shape[1:])}" if found != "no array" else ""
            raise diskreplay.ArgumentError(
                f"out.{name} must be a writeable array {expected} (it is {found}): give a batch of "
                "the same size that sample has returned"
            )

    for name, value in zip(out._fields, out, strict=True):
        check(name, value)


def fill(out: Any, batch: Any) -> Any:
    """Write a batch into the arrays of an earlier one, and return that."""

    def copy(name: str, into: Any, value: Any) -> None:
        if isinstance(value, dict):
            for part in value:
                copy(f"{name}.{part}", into[part], value[part])
        elif isinstance(value, tuple):
            for place, one in enumerate(value):
                copy(f"{name}[{place}]", into[place], one)
        elif into.shape != value.shape or into.dtype != value.dtype:
            raise diskreplay.ArgumentError(
                f"out.{name} must be {value.dtype} {value.shape} (it is {into.dtype} {into.shape})"
            )
        else:
            np.copyto(into, value)

    if type(out) is not type(batch):
        raise diskreplay.ArgumentError(
            f"out must be an earlier batch of this buffer (found other fields: {out._fields})"
        )
    for name, into, value in zip(batch._fields, out, batch, strict=True):
        copy(name, into, value)
    for name, value in vars(batch).items():
        if isinstance(value, np.ndarray) and name not in batch._fields:
            np.copyto(getattr(out, name), value)
        else:
            vars(out)[name] = value if name not in batch._fields else getattr(out, name)
    return out

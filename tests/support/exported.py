"""Runs of `export` and `import`, and what a store or a file then holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from commands import run
from common import columns
from inside import replica_of

import diskreplay
from diskreplay import PrioritizedReplayBuffer

FORMS = ("npz", "parquet")
NAMES = ("state", "action", "reward", "next_state", "done")


def read(file: Path) -> dict[str, Any]:
    with np.load(file, allow_pickle=False) as members:
        return {name: members[name] for name in members.files}


def expected(path: Path) -> dict[str, np.ndarray]:
    """The columns that an export of a whole store has."""
    with diskreplay.open(path, access="read") as buffer:
        ids = np.arange(buffer.count - len(buffer), buffer.count)
        batch = buffer.get(ids)
        replica = replica_of(buffer)
        found = {"write_id": ids, "link": replica.links.of(ids, replica.live)}
        found |= dict(zip(buffer.schema.names, batch, strict=True))
        if isinstance(buffer, PrioritizedReplayBuffer):
            found["priority"] = buffer.priorities(ids)
    return found


def assert_same(found: dict[str, Any], wanted: dict[str, np.ndarray]) -> None:
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


MANY = {
    "state": ("uint8", (2, 3, 3)), "action": ("float64", (2,)), "reward": "float32",
    "next_state": ("uint8", (2, 3, 3)), "done": "bool", "half": ("float16", (2,)),
    "count": "int32", "big": "uint64", "flag": "bool", "wave": ("complex64", (2,)),
    "one": "complex128", "nothing": ("float32", (0,)),
}  # fmt: skip


def many(path: Path, n: int = 30, capacity: int = 20) -> Path:
    """A prioritized store whose fields have every kind of dtype, wrapped, with NaN among them."""
    rng = np.random.default_rng(3)
    numbers = np.arange(n)
    noise = rng.normal(size=(n, 2))
    noise[::7, 0], noise[::5, 1] = np.nan, -np.inf
    pixels = rng.integers(0, 256, (2, n, 2, 3, 3), np.uint8)
    waves = np.zeros((n, 2), np.complex64)
    waves.real, waves.imag = noise, noise[:, ::-1]
    with PrioritizedReplayBuffer(
        capacity, 0.7, path=path, schema=MANY, beta_frames=77, commit_interval=float("inf")
    ) as buffer:
        buffer.extend(
            pixels[0], noise, numbers / 8, pixels[1], numbers % 5 == 4, rng.random(n) * 3,
            half=noise.astype(np.float16), count=numbers.astype(np.int32),
            big=numbers.astype(np.uint64) + 2**63, flag=numbers % 2 == 0,
            wave=waves, one=noise[:, 0] + 2j,
            nothing=np.zeros((n, 0), np.float32),
        )  # fmt: skip
        buffer.update_priorities([n - 1], [50.0])
        buffer.update_priorities([n - 1], [0.5])
    return path


MAKERS = (stores.uniform, stores.prioritized, stores.large, many)


def arrow() -> Any:
    return pytest.importorskip("pyarrow", reason="parquet needs pyarrow")


def npz(file: Path, values: dict[str, Any]) -> Path:
    np.savez(file, **values)
    return file


def plain(n: int = 6) -> dict[str, Any]:
    """Columns with the names of the fields."""
    return dict(zip(NAMES, columns(0, n).values(), strict=True))


def refused(out: Path, *arguments: object, status: int = 1) -> str:
    """What is said of an import that leaves nothing behind."""
    before = sorted(out.parent.iterdir())
    said = " ".join(run("import", *arguments, out, status=status).stderr.split())
    assert sorted(out.parent.iterdir()) == before
    return said

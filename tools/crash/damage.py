"""The stores that crash.flip damages, and the kinds of damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import diskreplay
from crash.layout import Layout, Mask, layout_of
from crash.rows import Buffer, extend, fingerprint, logged


@dataclass(frozen=True)
class Target:
    """A closed store, and what is in it."""

    name: str
    capacity: int
    width: int  # of a state
    path: Path
    data: bytes
    layout: Layout
    fingerprint: dict[str, Any]


def targets(directory: Path) -> list[Target]:
    """Make a store of each form: records in leaves and of several pages, wrapped, with a log."""
    made = []
    for name, prioritized, capacity, width, count, step, more in (
        ("small rows", False, 2000, 4, 500, 100, {}),
        ("small rows, wrapped", True, 300, 6, 800, 33, {}),
        ("rows of a page", True, 60, 490, 45, 7, {}),
        ("two rows to a value", True, 101, 120, 150, 13, {}),
        ("seven rows to a value, wrapped", False, 24, 252, 60, 5, {}),
        ("rows of several pages, wrapped", False, 12, 1200, 30, 3, {}),
        ("several priority blocks", True, 4000, 2, 1500, 150, {}),
        ("observations in the log, wrapped", True, 300, 30, 900, 33, logged(30)),
        ("large observations in the log", False, 50, 1500, 140, 7, {"observations": "log"}),
    ):
        path = directory / name.replace(", ", "-").replace(" ", "-")
        for run in range(3):
            kind = diskreplay.PrioritizedReplayBuffer if prioritized else diskreplay.ReplayBuffer
            arguments: dict[str, Any] = {"seed": 7, "commit_interval": float("inf"), **more}
            with kind(capacity, path=path, **arguments) as buffer:
                write(buffer, count * (run + 1) // 3, width, step)
        with diskreplay.open(path, access="read") as reader:
            found = fingerprint(reader)
        data = (path / "data.mdb").read_bytes()
        made.append(Target(name, capacity, width, path, data, layout_of(data), found))
    return made


def write(buffer: Buffer, until: int, width: int, step: int) -> None:
    """Write transitions in several commits, so that there are free pages."""
    while buffer.count < until:
        extend(buffer, min(step, until - buffer.count), width)
        if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
            indices = buffer.sample(min(16, len(buffer))).indices
            buffer.update_priorities(indices, indices % 89 + 0.5)
        buffer.flush()


Damage = Callable[[Target, list[Target], np.random.Generator], bytes]


def flip(where: Callable[[Layout], Mask]) -> Damage:
    """Return what changes one bit in a byte of a mask."""

    def damage(target: Target, _: list[Target], rng: np.random.Generator) -> bytes:
        at = int(rng.choice(np.flatnonzero(where(target.layout))))
        changed = bytearray(target.data)
        changed[at] ^= 1 << int(rng.integers(8))
        return bytes(changed)

    return damage


def live_page(target: Target, rng: np.random.Generator) -> slice:
    """Choose a page that is reached."""
    page = target.layout.page
    number = int(rng.choice(np.flatnonzero(target.layout.live[::page])))
    return slice(number * page, (number + 1) * page)


def zero_page(target: Target, _: list[Target], rng: np.random.Generator) -> bytes:
    """Zero a page."""
    changed = bytearray(target.data)
    changed[live_page(target, rng)] = bytes(target.layout.page)
    return bytes(changed)


def copy_page(target: Target, _: list[Target], rng: np.random.Generator) -> bytes:
    """Write a page where another has its place."""
    changed = bytearray(target.data)
    changed[live_page(target, rng)] = target.data[live_page(target, rng)]
    return bytes(changed)


def truncate(target: Target, _: list[Target], rng: np.random.Generator) -> bytes:
    """Cut the file, at a page or anywhere."""
    unit = target.layout.page if rng.random() < 0.7 else 1
    return target.data[: int(rng.integers(0, len(target.data) // unit)) * unit]


def swap(target: Target, others: list[Target], rng: np.random.Generator) -> bytes:
    """Return the data file of another store."""
    names = [other for other in others if other.name != target.name]
    return names[int(rng.integers(len(names)))].data


# Each kind with its share of the rounds.
DAMAGES: dict[str, tuple[Damage, float]] = {
    "bit of a key or value": (flip(lambda layout: layout.held & ~layout.structure), 0.25),
    "bit of the structure": (flip(lambda layout: layout.structure), 0.25),
    "bit of a root": (flip(lambda layout: layout.roots), 0.15),  # few bytes on which all hangs
    "bit of slack": (flip(lambda layout: layout.live & ~layout.held), 0.1),
    "page zeroed": (zero_page, 0.1),
    "page over another": (copy_page, 0.1),
    "file truncated": (truncate, 0.04),
    "file of another store": (swap, 0.01),
}


def touches_held(target: Target, damaged: bytes) -> bool:
    """Return whether a byte that holds something is another now."""
    before = np.frombuffer(target.data, np.uint8)
    after = np.full(len(before), 256, np.int16)  # no byte: what is cut off
    n = min(len(before), len(damaged))
    after[:n] = np.frombuffer(damaged[:n], np.uint8)
    return bool(((before != after) & target.layout.held).any())

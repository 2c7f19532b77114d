"""The stores that are damaged, and the ways in which they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import diskreplay
from crash.images import Buffer, columns, facts
from crash.layout import Layout, Mask, layout_of


@dataclass(frozen=True)
class Victim:
    """A closed store, and what is in it."""

    name: str
    capacity: int
    width: int  # of a state
    path: Path
    data: bytes
    layout: Layout
    facts: dict[str, Any]


def victims(directory: Path) -> list[Victim]:
    """Make a store of each form: records in leaves and of several pages, wrapped, free pages."""
    made = []
    for name, prioritized, capacity, width, count, step in (
        ("small rows", False, 2000, 4, 500, 100),
        ("small rows, wrapped", True, 300, 6, 800, 33),
        ("rows of a page", True, 60, 490, 45, 7),
        ("two rows to a value", True, 101, 120, 150, 13),
        ("seven rows to a value, wrapped", False, 24, 252, 60, 5),
        ("rows of several pages, wrapped", False, 12, 1200, 30, 3),
        ("several priority blocks", True, 4000, 2, 1500, 150),
    ):
        path = directory / name.replace(", ", "-").replace(" ", "-")
        for run in range(3):
            kind = diskreplay.PrioritizedReplayBuffer if prioritized else diskreplay.ReplayBuffer
            with kind(capacity, seed=7, path=path, commit_interval=float("inf")) as buffer:
                write(buffer, count * (run + 1) // 3, width, step)
        with diskreplay.open(path, access="read") as reader:
            found = facts(reader)
        data = (path / "data.mdb").read_bytes()
        made.append(Victim(name, capacity, width, path, data, layout_of(data), found))
    return made


def write(buffer: Buffer, until: int, width: int, step: int) -> None:
    """Write transitions in several commits, so that there are free pages."""
    while buffer.count < until:
        buffer.extend(**columns(buffer.count, min(step, until - buffer.count), width))
        if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
            indices = buffer.sample(min(16, len(buffer))).indices
            buffer.update_priorities(indices, indices % 89 + 0.5)
        buffer.flush()


Damage = Callable[[Victim, list[Victim], np.random.Generator], bytes]


def flip(data: bytes, where: Mask, rng: np.random.Generator) -> bytes:
    """Return the data with one bit changed in a byte of the mask."""
    at = int(rng.choice(np.flatnonzero(where)))
    changed = bytearray(data)
    changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def flip_value(victim: Victim, _: list[Victim], rng: np.random.Generator) -> bytes:
    """Change a bit of a key or value."""
    layout = victim.layout
    return flip(victim.data, layout.held & ~layout.structure, rng)


def flip_structure(victim: Victim, _: list[Victim], rng: np.random.Generator) -> bytes:
    """Change a bit of what the engine follows."""
    return flip(victim.data, victim.layout.structure, rng)


def flip_root(victim: Victim, _: list[Victim], rng: np.random.Generator) -> bytes:
    """Change a bit of a meta page or of the record of a database: few bytes on which all hangs."""
    return flip(victim.data, victim.layout.roots, rng)


def flip_slack(victim: Victim, _: list[Victim], rng: np.random.Generator) -> bytes:
    """Change a bit of a page that is reached, where it holds nothing."""
    return flip(victim.data, victim.layout.live & ~victim.layout.held, rng)


def live_page(victim: Victim, rng: np.random.Generator) -> slice:
    """Choose a page that is reached."""
    page = victim.layout.page
    number = int(rng.choice(np.flatnonzero(victim.layout.live[::page])))
    return slice(number * page, (number + 1) * page)


def zero_page(victim: Victim, _: list[Victim], rng: np.random.Generator) -> bytes:
    """Zero a page."""
    changed = bytearray(victim.data)
    changed[live_page(victim, rng)] = bytes(victim.layout.page)
    return bytes(changed)


def copy_page(victim: Victim, _: list[Victim], rng: np.random.Generator) -> bytes:
    """Write a page where another has its place."""
    changed = bytearray(victim.data)
    changed[live_page(victim, rng)] = victim.data[live_page(victim, rng)]
    return bytes(changed)


def truncate(victim: Victim, _: list[Victim], rng: np.random.Generator) -> bytes:
    """Cut the file, at a page or anywhere."""
    unit = victim.layout.page if rng.random() < 0.7 else 1
    return victim.data[: int(rng.integers(0, len(victim.data) // unit)) * unit]


def swap(victim: Victim, others: list[Victim], rng: np.random.Generator) -> bytes:
    """Take the data file of another store."""
    names = [other for other in others if other.name != victim.name]
    return names[int(rng.integers(len(names)))].data


# Each kind with its share of the rounds.
DAMAGES: dict[str, tuple[Damage, float]] = {
    "bit of a key or value": (flip_value, 0.25),
    "bit of the structure": (flip_structure, 0.25),
    "bit of a root": (flip_root, 0.15),
    "bit of slack": (flip_slack, 0.1),
    "page zeroed": (zero_page, 0.1),
    "page over another": (copy_page, 0.1),
    "file truncated": (truncate, 0.04),
    "file of another store": (swap, 0.01),
}


def touches_held(victim: Victim, damaged: bytes) -> bool:
    """Return whether a byte that holds something is another now."""
    before = np.frombuffer(victim.data, np.uint8)
    after = np.full(len(before), 256, np.int16)  # no byte: what is cut off
    n = min(len(before), len(damaged))
    after[:n] = np.frombuffer(damaged[:n], np.uint8)
    return bool(((before != after) & victim.layout.held).any())

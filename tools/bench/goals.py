"""The benchmarks of `run`, group by group: what is compared in each row, and the goal.

A group is run together, its legs in turns, so that a ratio never compares two different moments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench.driver import Leg
from bench.rows import Task
from bench.timing import FEW, GATHERED

MIB = 1 << 20
WINDOW = "diskreplay, all in the window"
OFF = "diskreplay, window off"
SYSTEM = 'diskreplay, "system"'
PROCESS = 'diskreplay, "process"'
ARRAYS = "numpy arrays in RAM"
SYNCED = "a plain file, synced as often"
UNSYNCED = "a plain file"
MAPPED = "np.memmap by column"
ADVISED = "np.memmap by column and MADV_RANDOM"
LAPS = 5
FEW_ROWS = 1600  # fewer than a commit takes


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rows: int = 1_000_000
    many_rows: int = 10_000_000
    reverb_rows: int = 100_000
    frames: int = 10_000
    seconds: float = 0.4  # of a round of batches
    own_seconds: float = 1.2  # the same where a commit a second has to be in it
    pushes: int = 20_000  # of a round
    slow_pushes: int = 2000  # the same for peers that take more than 100 us
    extended: int = 50_000
    few: int = 50_000
    paced_seconds: int = 30
    limit_bytes: int = 256 * MIB
    beyond_rows: int = 0  # of the store that is larger than the limit; 0 is four times as large
    disk_bytes: int = 512 * MIB
    many_width: int = 20  # of states where there are many rows


TINY = Size(
    rows=3000, many_rows=6000, reverb_rows=1000, frames=300, seconds=0.02, own_seconds=0.02,
    pushes=300, slow_pushes=100, extended=2000, few=1000, paced_seconds=1, beyond_rows=3000,
    disk_bytes=1 * MIB,
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A figure of a leg: of its rounds, the median or another quantile."""

    leg: str
    name: str
    quantile: float = 0.5


@dataclass(frozen=True)
class Row:
    """A row of the table; the ratio is ours to theirs, in the unit."""

    work: str
    ours: Figure
    theirs: Figure | None
    unit: Literal["us", "ms", "s", "rows/s", "batches/s", "MB"]
    relation: Literal["<=", ">=", ""] = ""  # "" where there is no goal
    bound: float = 0.0  # of the ratio; of the figure, where there is nothing to compare with


def pair(ours: str, theirs: str, ours_name: str, theirs_name: str = "") -> tuple[Figure, Figure]:
    """Return the figures of two legs that are compared, of the same name if only one is given."""
    return Figure(ours, ours_name), Figure(theirs, theirs_name or ours_name)


@dataclass(frozen=True)
class Group:
    """Legs that run in turns, and the rows that they fill."""

    legs: dict[str, Leg]
    rows: list[Row]


def step(size: Size, place: Path) -> Group:
    """One prioritized batch, and the update of its priorities."""
    own = Task(rows=size.rows, seconds=size.own_seconds)
    peer = Task(rows=size.rows, seconds=size.seconds)
    reverb = reverb_of(size)
    legs = {
        WINDOW: Leg("diskreplay", "step", at(own, place, "a")),
        "cpprb": Leg("cpprb", "step", peer),
        OFF: Leg("diskreplay", "step", at(own, place, "b", window_bytes=0)),
        "torchrl": Leg("torchrl", "step", at(peer, place, "torchrl")),
        reverb: Leg("reverb", "step", replace(peer, rows=size.reverb_rows), rounds=10),
        "tianshou": Leg("tianshou", "step", peer),
    }
    what, alone = f"step, {size.rows:,} rows", "the sample of that step alone"
    rows = [
        Row(f"{what}, all in the window", *pair(WINDOW, "cpprb", "step"), "us", "<=", 0.5),
        Row(f"{what}, window off", *pair(OFF, "torchrl", "step"), "us", "<=", 1.0),
        Row(f"{what}, window off", *pair(OFF, reverb, "step"), "us", "<=", 0.05),
        Row(f"{what}, all in the window", *pair(WINDOW, "tianshou", "step"), "us"),
        Row(alone, *pair(WINDOW, "cpprb", "sample"), "us"),
        Row(f"{alone}, window off", *pair(OFF, "torchrl", "sample"), "us"),
    ]
    return Group(legs, rows)


def sample(size: Size, place: Path) -> Group:
    """One uniform batch."""
    task = Task(rows=size.rows, seconds=size.seconds, prioritized=False)
    peers = ("cpprb", "sb3")
    legs = {
        WINDOW: Leg("diskreplay", "sample", at(task, place)),
        **{peer: Leg(peer, "sample", task) for peer in peers},
    }
    what = f"uniform sample, {size.rows:,} rows, all in the window"
    return Group(legs, [Row(what, *pair(WINDOW, peer, "sample"), "us") for peer in peers])


def n_step(size: Size, place: Path) -> Group:
    """A uniform batch of three-step returns, against one of single steps."""
    task = Task(rows=size.rows, seconds=size.seconds, prioritized=False)
    legs = {
        WINDOW: Leg("diskreplay", "n_step", at(task, place, "a")),
        OFF: Leg("diskreplay", "n_step", at(task, place, "b", window_bytes=0)),
    }
    what = f"sample of n_step={task.n_step} against n_step=1, {size.rows:,} rows"
    rows = [
        Row(f"{what}, {where}", *pair(leg, leg, "n_step", "sample"), "us", "<=", 1.6)
        for leg, where in ((WINDOW, "all in the window"), (OFF, "window off"))
    ]
    return Group(legs, rows)


def sequences(size: Size, place: Path) -> Group:
    """A batch of sequences, at several sizes, and against slices of TorchRL."""
    task = Task(rows=size.rows, seconds=size.seconds, prioritized=False)
    many = replace(task, width=size.many_width, window_bytes=0)
    few, torchrl = f"{size.rows // 10:,} rows", "torchrl"
    lot = f"{size.many_rows:,} rows"
    legs = {
        WINDOW: Leg("diskreplay", "sequences", at(task, place, "a")),
        OFF: Leg("diskreplay", "sequences", at(task, place, "c", window_bytes=0)),
        torchrl: Leg("torchrl", "sequences", at(task, place, "torchrl"), rounds=10),
        few: Leg("diskreplay", "sequences", at(many, place, "b", rows=size.rows // 10)),
        lot: Leg("diskreplay", "sequences", at(many, place, "b", rows=size.many_rows)),
    }
    what = f"{task.sequences} sequences of {task.length}"
    rows = [
        Row(f"{what}, {lot} against {few}", *pair(lot, few, "sequences"), "us", "<=", 1.5),
        *(
            Row(
                f"{before}{what}, {size.rows:,} rows, {where}",
                *pair(leg, torchrl, name), "us", "<=", 0.2,
            )
            for leg, where in ((WINDOW, "all in the window"), (OFF, "window off"))
            for before, name in (("", "sequences"), ("a push and ", "after a push"))
        ),
    ]  # fmt: skip
    return Group(legs, rows)


def push(size: Size, place: Path) -> Group:
    """One push, the mean of many with their commits."""
    task = Task(rows=size.rows, count=size.pushes)
    slow = replace(task, count=size.slow_pushes)
    reverb = reverb_of(size)
    legs = {
        SYSTEM: Leg("diskreplay", "push", at(task, place, "a")),
        "cpprb": Leg("cpprb", "push", task),
        "sb3": Leg("sb3", "push", task),
        "torchrl": Leg("torchrl", "push", at(slow, place, "torchrl")),
        "tianshou": Leg("tianshou", "push", slow),
        reverb: Leg("reverb", "push", replace(slow, rows=size.reverb_rows), rounds=10),
    }
    what = 'one push, commits included, "system"'
    goals: dict[str, tuple[Any, ...]] = {"cpprb": ("<=", 0.2), "sb3": ("<=", 0.9)}
    peers = list(legs)[1:]
    rows = [Row(what, *pair(SYSTEM, peer, "push"), "us", *goals.get(peer, ())) for peer in peers]
    return Group(legs, rows)


def stall(size: Size, place: Path) -> Group:
    """The slowest pushes of a program that pushes a thousand a second."""
    task = Task(rows=size.rows)
    task = replace(task, count=task.per_second * size.paced_seconds)
    legs: dict[str, Leg] = {}
    rows: list[Row] = []
    for leg, every in (("pushes only", 0), ("and a step every 4 pushes", 4)):
        paced = at(task, place, f"every-{every}", every=every)
        legs[leg] = Leg("diskreplay", "stall", paced, rounds=1, warms_up=False)
        what = f"a push at {task.per_second:,} a second, {leg}"
        rows.append(Row(f"{what}: p99.9", Figure(leg, "p99.9"), None, "ms", "<=", 10.0))
        rows += [Row(f"{what}: {name}", Figure(leg, name), None, "ms") for name in ("p50", "max")]
    return Group(legs, rows)


def extend(size: Size, place: Path) -> Group:
    """Extends by a thousand, into a ring that is full."""
    task = Task(rows=size.rows, count=size.extended)
    legs = {
        PROCESS: Leg("diskreplay", "extend", at(task, place, "a", durability="process")),
        "torchrl": Leg("torchrl", "extend", at(task, place, "torchrl")),
        SYSTEM: Leg("diskreplay", "extend", at(task, place, "b")),
        "cpprb": Leg("cpprb", "extend", task),
    }
    what = "extend by 1,000, commits included"
    rows = [
        Row(f'{what}, "process"', *pair(PROCESS, "torchrl", "row"), "rows/s", ">=", 1.0),
        Row(f'{what}, "system"', *pair(SYSTEM, "torchrl", "row"), "rows/s", ">=", 0.7),
        Row(f'{what}, "system"', *pair(SYSTEM, "cpprb", "row"), "rows/s"),
    ]
    return Group(legs, rows)


def few(size: Size, place: Path) -> Group:
    """Extends of a few transitions, as vector environments give them, against as many pushes."""
    legs: dict[str, Leg] = {}
    rows: list[Row] = []
    for kind in ("uniform", "prioritized"):
        for access in ("exclusive", "shared"):
            task = Task(
                rows=size.few, prioritized=kind == "prioritized", access=access, count=FEW_ROWS
            )
            leg = f"{access}, {kind}"
            legs[leg] = Leg("diskreplay", "few", at(task, place, access))
            for portion, most in zip(FEW, (2.0, 1.0, 0.4), strict=True):
                what = f"extend by {portion}, a row, against a push: {leg}"
                compared = pair(leg, leg, f"extend by {portion}", "push")
                rows.append(Row(what, *compared, "us", "<=", most))
    return Group(legs, rows)


def open_(size: Size, place: Path) -> Group:
    """Open a store and draw the first batch, against reading the records."""
    legs: dict[str, Leg] = {}
    rows: list[Row] = []
    for n, width, times in ((size.rows, 60, 10), (size.many_rows, size.many_width, 5)):
        task = at(Task(rows=n, width=width, window_bytes=0), place, "a")
        what = f"{n:,} rows with states of {width}"
        ready, read, tree = (f"{of}, {what}" for of in ("ready", "reading the records", "tree"))
        legs[ready] = Leg("diskreplay", "ready", task, times, is_fresh=True, fill=True)
        legs[read] = Leg("diskreplay", "read", task, 2, is_fresh=True)
        legs[tree] = Leg("diskreplay", "rebuild", task, times)
        compared = pair(ready, read, "ready", "read")
        rows += [
            Row(f"open and sample, {what}", *compared, "s", "<=", 0.1),
            Row(f"rebuild a tree of {n:,} slots", Figure(tree, "rebuild"), None, "s"),
        ]
    return Group(legs, rows)


def beyond(size: Size, place: Path) -> Group:
    """A uniform batch out of four times as much as the memory that the process may use."""
    task = Task(seconds=size.seconds, prioritized=False, window_bytes=size.limit_bytes // 8)
    task = at(task, place, rows=size.beyond_rows or 4 * size.limit_bytes // task.row_bytes)
    held: dict[str, Any] = {"fill": True, "limit_bytes": size.limit_bytes}
    legs = {"diskreplay": Leg("diskreplay", "cold_sample", task, **held)}
    for name, bench in ((MAPPED, "cold_sample"), (ADVISED, "random_sample")):
        legs[name] = Leg("arrays", bench, at(task, place, bench), rounds=10, **held)
    what = f"uniform sample, memory held to {size.limit_bytes // MIB} MiB, a store of 4 times that"
    rows = [
        Row(what, *pair("diskreplay", name, "sample"), "ms", "<=", most)
        for name, most in ((MAPPED, 0.35), (ADVISED, 0.25))
    ]
    return Group(legs, rows)


def pixels(size: Size, place: Path) -> Group:
    """Batches of large transitions, against as many rows out of arrays in memory."""
    task = Task(rows=size.frames, width=0, seconds=size.seconds / 4)
    legs, rows = {ARRAYS: Leg("arrays", "gather", task)}, []
    for where, window_bytes, most, most_same in (
        ("page cache", 0, 2.5, 2.0),
        ("window", 2 * task.rows * task.row_bytes, 1.3, 1.3),
    ):
        for kind in ("uniform", "prioritized"):
            leg = f"{kind}, {where}"
            stored = replace(task, prioritized=kind == "prioritized", window_bytes=window_bytes)
            legs[leg] = Leg("diskreplay", "gather", at(stored, place, where.replace(" ", "-")))
            for n in GATHERED:
                what = f"sample({n}) of pixels, {kind}, {where}"
                fresh, same = f"fresh {n}", f"same {n}"
                rows += [
                    Row(what, *pair(leg, ARRAYS, fresh), "ms", "<=", most),
                    Row(f"{what}, out=", *pair(leg, ARRAYS, same, fresh), "ms", "<=", most_same),
                    Row(f"{what}, out= in both", *pair(leg, ARRAYS, same), "ms"),
                ]
    return Group(legs, rows)


def push_pixels(size: Size, place: Path) -> Group:
    """One push of a large transition, against a plain file of the same bytes."""
    task = Task(rows=size.frames // 5, width=0, count=size.pushes // 50)
    paced = replace(task, per_second=100, count=100 * size.paced_seconds)
    process = replace(task, durability="process")
    stalled = "at 100 a second"
    legs = {
        SYSTEM: Leg("diskreplay", "push", at(task, place, "a")),
        SYNCED: Leg("arrays", "push", at(task, place, "synced")),
        PROCESS: Leg("diskreplay", "push", at(process, place, "b")),
        UNSYNCED: Leg("arrays", "push", at(process, place, "file")),
        stalled: Leg("diskreplay", "stall", at(paced, place, "c"), rounds=1, warms_up=False),
    }
    what = "one push of pixels, commits included"
    rows = [
        Row(f'{what}, "system"', *pair(SYSTEM, SYNCED, "push"), "us", "<=", 1.3),
        Row(f'{what}, "process"', *pair(PROCESS, UNSYNCED, "push"), "us"),
        Row(f"a push of pixels {stalled}: p99.9", Figure(stalled, "p99.9"), None, "ms", "<=", 10.0),
    ]
    return Group(legs, rows)


def disk(size: Size, place: Path) -> Group:
    """The data file against the transitions in it, at its largest in some laps of the ring."""
    legs: dict[str, Leg] = {}
    for width, what in ((4, "4 floats"), (60, "60 floats"), (376, "376 floats"), (0, "pixels")):
        task = Task(width=width, window_bytes=64 * MIB)
        held = min(size.rows, size.disk_bytes // task.row_bytes)
        task = at(task, place, "disk", rows=held)
        legs[f"states of {what}"] = Leg("diskreplay", "disk", task, rounds=LAPS, warms_up=False)
    rows = [
        Row(
            f"disk, {leg}: data file, largest of laps 1 to {LAPS}, against the payload",
            Figure(leg, "file", 1.0), Figure(leg, "payload"), "MB", "<=", 1.2,
        )
        for leg in legs
    ]  # fmt: skip
    return Group(legs, rows)


def memory(size: Size, place: Path) -> Group:
    """The private memory of a process that uses a store, against what it may be."""
    legs: dict[str, Leg] = {}
    rows: list[Row] = []
    task = Task(width=size.many_width, window_bytes=64 * MIB, count=size.pushes)
    for n in (size.rows // 10, size.rows, size.many_rows):
        held, leg = at(task, place, "a", rows=n), f"{n:,} rows"
        legs[leg] = Leg("diskreplay", "memory", held, 3, is_fresh=True, fill=True)
        what = f"memory, {leg}, against window + 16 bytes a slot + 100 MB"
        rows.append(Row(what, *pair(leg, leg, "private", "bound"), "MB", "<=", 1.0))
    return Group(legs, rows)


def reverb_of(size: Size) -> str:
    """Return the name of what Reverb does: it holds fewer rows, since it is slow to fill."""
    return f"reverb of {size.reverb_rows:,} rows"


def at(task: Task, place: Path, name: str = "", **changes: Any) -> Task:
    """Return a task that stores what it stores in a directory named after it, changed otherwise."""
    task = replace(task, **changes)
    kind = "prioritized" if task.prioritized else "uniform"
    return replace(task, path=str(place / f"{kind}-{task.rows}-{task.width}-{name}"))


GROUPS: dict[str, Callable[[Size, Path], Group]] = {
    "step": step, "sample": sample, "n_step": n_step, "sequences": sequences, "push": push,
    "stall": stall, "extend": extend, "few": few, "open": open_, "beyond": beyond,
    "pixels": pixels, "push_pixels": push_pixels, "disk": disk, "memory": memory,
}  # fmt: skip

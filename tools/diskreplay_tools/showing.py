"""What there is to see of a store: figures that agree, and transitions one by one."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import diskreplay
from diskreplay.wording import count_of
from diskreplay_tools.charts import Screen, number, picture

Buffer = diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer
Ints = NDArray[np.int64]
Array = NDArray[Any]

ATTEMPTS = 5  # at figures of one commit, beside a writer that commits all the time
_PART = 1 << 20  # priorities read in a call
_CHUNK_BYTES = 4 << 20  # rows read in a call
_LEAST_SIDE = 8  # of a picture, in pixels
_MOST_SHOWN = 64  # elements of an array, on the widest terminal


# Reading beside a writer


@dataclass
class Look:
    """What a store was like at one moment.

    priorities:  those of the newest live transitions, up to the last one; all of them, unless a
                 writer evicted some while they were read. None where there are none
    """

    stats: dict[str, Any]
    priorities: NDArray[np.float32] | None

    @property
    def count(self) -> int:
        """The number of transitions ever written."""
        return int(self.stats["count"])

    @property
    def first(self) -> int:
        """The oldest live write id."""
        return self.count - int(self.stats["size"])

    def priority(self, write_id: int) -> float | None:
        """Return the priority of a transition, where it is known."""
        if self.priorities is None:
            return None
        at = write_id - (self.count - self.priorities.size)
        return float(self.priorities[at]) if at >= 0 else None


def look(buffer: Buffer) -> Look:
    """Return figures of one commit; beside a writer that leaves no time for it, of a few."""
    for attempt in range(ATTEMPTS):
        found = Look(buffer.stats(), None)
        if isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
            found.priorities = _priorities(buffer, found.first, found.count)
        after = found.stats if attempt == ATTEMPTS - 1 else buffer.stats()
        if after["commits"] == found.stats["commits"]:
            break
    if found.priorities is not None and found.priorities.size:
        found.stats |= {
            "priority_min": float(found.priorities.min()),
            "priority_mean": float(found.priorities.mean(dtype=np.float64)),
            "priority_max": float(found.priorities.max()),
        }
        found.stats["max_priority"] = max(found.stats["max_priority"], found.stats["priority_max"])
    return found


def _priorities(
    buffer: diskreplay.PrioritizedReplayBuffer, first: int, count: int
) -> NDArray[np.float32]:
    """Return the priorities of [first, count), without those that were evicted meanwhile."""
    parts = [np.zeros(0, np.float32)]
    while first < count:
        try:
            part = buffer.priorities(np.arange(first, min(first + _PART, count)))
        except diskreplay.NotLiveError:
            stats = buffer.stats()
            oldest = stats["count"] - stats["size"]
            first, parts = (oldest if oldest > first else count), parts[:1]
        else:
            parts.append(part)
            first += part.size
    return np.concatenate(parts)


@dataclass
class Rows:
    """Transitions by write id: `columns` by the names of their fields.

    damaged:  write ids of those whose records are not what was written
    evicted:  how many were evicted before they were read
    """

    write_ids: Ints
    columns: dict[str, Array]
    damaged: list[int] = field(default_factory=list)
    evicted: int = 0


def read_rows(buffer: Buffer, write_ids: Ints, names: Sequence[str]) -> Rows:
    """Return some fields of transitions, without those that are evicted meanwhile, or damaged."""
    schema = buffer.schema
    if schema is None or not write_ids.size:
        return Rows(np.zeros(0, np.int64), {})
    step = max(1, _CHUNK_BYTES // max(1, schema.payload_bytes))
    waiting = [write_ids[at : at + step] for at in range(0, write_ids.size, step)][::-1]
    found = Rows(np.zeros(0, np.int64), {})
    ids: list[Ints] = [found.write_ids]
    parts: dict[str, list[Array]] = {
        name: [np.zeros((0, *schema[name].shape), schema[name].dtype)] for name in names
    }
    while waiting:
        part = waiting.pop()
        try:
            columns = buffer.get(part, fields=names)
        except diskreplay.NotLiveError:
            live = _still_live(buffer, part)
            found.evicted += part.size - live.size
            waiting += [live] if live.size else []
        except diskreplay.DamageError:
            buffer.refresh()  # raises when it is not the record
            if part.size == 1:
                found.damaged.append(int(part[0]))
            else:
                waiting += [part[part.size // 2 :], part[: part.size // 2]]
        else:
            ids.append(part)
            for name in names:
                parts[name].append(columns[name])
    found.write_ids = np.concatenate(ids)
    found.columns = {name: np.concatenate(column) for name, column in parts.items()}
    return found


def _still_live(buffer: Buffer, write_ids: Ints) -> Ints:
    stats = buffer.stats()
    oldest = stats["count"] - stats["size"]
    live: Ints = write_ids[(write_ids >= oldest) & (write_ids < stats["count"])]
    return live


# Transitions


@dataclass(frozen=True)
class Transition:
    """One transition to show; `fields` is None where its record is damaged."""

    write_id: int
    age: int
    priority: float | None
    fields: dict[str, Array] | None

    def to_plain(self) -> dict[str, Any]:
        """Return it as it is in JSON."""
        plain: dict[str, Any] = {"write_id": self.write_id, "age": self.age}
        if self.priority is not None:
            plain["priority"] = self.priority
        return plain | {"fields": self.fields, "damaged": self.fields is None}

    def lines(self, schema: diskreplay.Schema, on: Screen) -> Iterator[str]:
        """Yield it as lines: a title, the fields, the pictures of those that are images."""
        priority = "" if self.priority is None else f", priority {number(self.priority)}"
        title = f"write id {self.write_id:,}{priority}, age {self.age:,}"
        yield from textwrap.wrap(title, on.width, subsequent_indent="    ")
        if self.fields is None:
            yield "  damaged: diskreplay.repair() copies the others"
            return
        width = max(map(len, schema.names))
        kinds = max(len(f.type) for f in schema.fields)
        pictures: dict[str, Array] = {}
        for each in schema.fields:
            value = np.asarray(self.fields[each.name])
            label = f"  {each.name:<{width}}  "
            if on.width >= 60:
                label += f"{each.type:<{kinds}}  "
            room = max(on.width - len(label), 16)
            if (found := image(value)) is not None:
                pixels, what = found
                pictures[each.name] = pixels
                yield f"{label}{what}, {value.min()} to {value.max()}"
                continue
            text, summary = described(value, room)
            yield f"{label}{text}"
            if summary:
                indent = " " * (len(label) if len(summary) <= on.width - len(label) else 4)
                yield from textwrap.wrap(
                    summary, on.width, initial_indent=indent, subsequent_indent=indent
                )
        yield from _side_by_side(pictures, on)


def image(value: Array) -> tuple[Array, str] | None:
    """Return the matrix to show of an image, and what that is; None for what is no image."""
    if value.dtype != np.uint8 or value.ndim not in (2, 3):
        return None
    if value.ndim == 2:
        found, what = value, "image"
    else:
        axis = 0 if value.shape[0] < value.shape[2] else 2
        frames = value.shape[axis]
        if frames == 0:
            return None
        if frames == 3:
            found, what = value.mean(axis=axis), "mean of 3 channels"
        else:
            found, what = np.take(value, frames - 1, axis=axis), f"frame {frames} of {frames}"
            what = "image" if frames == 1 else what
    return (found, what) if min(found.shape) >= _LEAST_SIDE else None


def _side_by_side(pictures: Mapping[str, Array], on: Screen) -> Iterator[str]:
    side = "│" if on.blocks else "|"
    gap = 2
    room = (on.width - 2 - gap * (len(pictures) - 1)) // max(1, len(pictures)) - 2 * len(side)
    groups = [list(pictures)] if room >= 24 else [[name] for name in pictures]
    for names in groups:
        width = room if room >= 24 else on.width - 4
        drawn = [
            [name, *(f"{side}{line}{side}" for line in picture(pictures[name], width, on))]
            for name in names
        ]
        widths = [max(map(len, lines)) for lines in drawn]
        for i in range(max(map(len, drawn), default=0)):
            parts = [lines[i] if i < len(lines) else "" for lines in drawn]
            line = (" " * gap).join(p.ljust(w) for p, w in zip(parts, widths, strict=True))
            yield f"  {line}".rstrip()


def described(value: Array, room: int) -> tuple[str, str]:
    """Return an array in one line, and what its elements are like where not all are shown."""
    flat = value.reshape(-1)
    if flat.size == 0:
        return "(empty)", ""
    head = [number(element) for element in flat[:_MOST_SHOWN]]
    if flat.size <= _MOST_SHOWN and len(" ".join(head)) <= room:
        return " ".join(head), ""
    if flat.size == 1:
        return head[0], ""
    last = number(flat[-1])
    while len(head) > 1 and len(" ".join(head)) + 5 + len(last) > room:
        head.pop()
    return f"{' '.join(head)} ... {last}", _summary(flat)


def _summary(flat: Array) -> str:
    if flat.dtype.kind == "b":
        return f"{int(flat.sum()):,} of {flat.size:,} true"
    if flat.dtype.kind == "c":
        return count_of(flat.size, "number")
    numbers = flat.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    parts = []
    if finite.size:
        mean = float((finite / finite.size).sum())  # a sum might be beyond what there is
        parts.append(f"{number(finite.min())} to {number(finite.max())}, mean {number(mean)}")
    nans, infinite = int(np.isnan(numbers).sum()), int(np.isinf(numbers).sum())
    parts += [f"{nans:,} NaN"] * (nans > 0) + [f"{infinite:,} infinite"] * (infinite > 0)
    return ", ".join(parts)


# JSON


def plain(value: Any) -> Any:
    """Return a value as JSON has it.

    What JSON has no number for is a string: "NaN", "Infinity", "-Infinity". A complex number is
    a list of its two parts.
    """
    if isinstance(value, np.ndarray | np.generic):
        simple = value.dtype.kind in "biu" or (value.dtype.kind == "f" and np.isfinite(value).all())
        return value.tolist() if simple else plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def json_lines(facts: Mapping[str, Any], **lists: Iterable[Any]) -> Iterator[str]:
    """Yield a JSON object line by line: a line for each fact, and for each entry of a list."""
    yield "{"
    left = len(facts) + len(lists)
    for name, value in facts.items():
        left -= 1
        yield f"  {json.dumps(name)}: {_dumps(value)}{',' * (left > 0)}"
    for name, entries in lists.items():
        left -= 1
        yield f"  {json.dumps(name)}: ["
        before = ""
        for entry in entries:
            if before:
                yield f"{before},"
            before = f"    {_dumps(entry)}"
        if before:
            yield before
        yield f"  ]{',' * (left > 0)}"
    yield "}"


def _dumps(value: Any) -> str:
    return json.dumps(plain(value), allow_nan=False)

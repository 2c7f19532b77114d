"""Transitions one by one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import diskreplay
from diskreplay.aliases import Array, Ints
from diskreplay.buffer import Scan
from diskreplay.wording import count_of
from diskreplay_tools.plain import json_lines
from diskreplay_tools.stores import ATTEMPTS, Buffer, Summary, gather, summarise
from diskreplay_tools.terminal.numbers import number
from diskreplay_tools.terminal.pictures import _side_by_side, image
from diskreplay_tools.terminal.text import Screen, say, screen

_MOST_SHOWN = 64  # elements of an array, on the widest terminal


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
            value: Any = self.fields[each.name]
            label = f"  {each.name:<{width}}  "
            if on.width >= 60:
                label += f"{each.type:<{kinds}}  "
            room = max(on.width - len(label), 16)
            if isinstance(value, str | bytes):
                yield f"{label}{quoted(value, room)}"
                continue
            value = np.asarray(value)
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


def quoted(value: str | bytes, room: int) -> str:
    """Return text or bytes in one line, with its length where not all is shown."""
    whole = ascii(value)
    if len(whole) <= room:
        return whole
    length = f"... {count_of(len(value), 'byte' if isinstance(value, bytes) else 'character')}"
    return f"{ascii(value[:room])[: max(1, room - len(length))]}{length}"


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


def show_transitions(buffer: Buffer, path: Path, view: str, n: int, *, as_json: bool) -> None:
    """Print some transitions: the n with the largest priorities, or what `view` asks for."""
    if view in ("--top", "--bottom") and not isinstance(buffer, diskreplay.PrioritizedReplayBuffer):
        raise click.ClickException(
            f"{path} holds a uniform buffer, which has no priorities (expected a prioritized one): "
            f"--last {n} shows the newest transitions"
        )
    for _ in range(ATTEMPTS):
        found = summarise(buffer)
        wanted = _wanted(found, path, view, n)
        rows = Scan(buffer, wanted, skip_damaged=True)
        write_ids, columns = gather(rows)
        if not rows.evicted:
            break
    if view == "--at" and not write_ids.size and not rows.damaged:
        _wanted(summarise(buffer), path, view, n)  # says that it is not live any more
    if view == "--at" and rows.damaged:
        raise click.ClickException(
            f"the record of write id {n} in {path} is damaged: diskreplay repair copies the others"
        )
    places = {write_id: place for place, write_id in enumerate(write_ids.tolist())}
    shown = (
        Transition(
            write_id,
            found.count - 1 - write_id,
            found.priority(write_id),
            {name: column[places[write_id]] for name, column in columns.items()}
            if write_id in places
            else None,
        )
        for write_id in wanted.tolist()
        if write_id in places or write_id in rows.damaged
    )
    if as_json:
        facts = {**found.to_plain(), "evicted": rows.evicted}
        for line in json_lines(facts, transitions=(each.to_plain() for each in shown)):
            say(line)
        return
    on = screen()
    say(textwrap.fill(_title(view, len(wanted) - rows.evicted, found), on.width))
    if rows.evicted:
        say(f"{count_of(rows.evicted, 'more transition')} evicted before being read")
    if buffer.schema is not None:
        for each in shown:
            say("", *each.lines(buffer.schema, on))


def _wanted(found: Summary, path: Path, view: str, n: int) -> Ints:
    """Return the write ids to show, in their order."""
    first, count = found.first, found.count
    if view == "--at":
        if first <= n < count:
            return np.array([n])
        why = "was not written yet" if n >= count else "was evicted, or cleared"
        live = f"{first} to {count - 1} are" if first < count else "none is"
        raise click.ClickException(f"write id {n} {why}: {live} live in {path}")
    if view == "--last":
        return np.arange(count - 1, max(first, count - n) - 1, -1)
    priorities = np.zeros(0, np.float32) if found.priorities is None else found.priorities
    keys = -priorities if view == "--top" else priorities
    return count - priorities.size + np.argsort(keys, kind="stable")[:n]


def _title(view: str, n: int, found: Summary) -> str:
    size = found.stats["size"]
    if not n:
        return "there are no transitions to show"
    what = {
        "--top": "the largest priorities",
        "--bottom": "the smallest priorities",
        "--last": "the newest",
        "--at": "one",
    }[view]
    return f"{n:,} of {count_of(size, 'transition')}" + (f": {what}" if view != "--at" else "")

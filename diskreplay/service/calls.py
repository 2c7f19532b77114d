"""Calls: the requests that a client may make, the right that each needs, and their answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diskreplay.errors import ArgumentError, NotLiveError
from diskreplay.schema import Schema
from diskreplay.service.groups import Groups
from diskreplay.service.messages import MalformedMessage
from diskreplay.wording import shown

_ROWS_READ = 256  # in one step of an iteration


class Served(NamedTuple):
    """A replay that is served, and the groups that clients push to it."""

    replay: Any
    groups: Groups


class Call(NamedTuple):
    """A request: the right that it needs, and the function that answers it.

    right:  read, push, update or admin
    """

    right: str
    answer: Callable[..., Any]


def answer(served: Served, request: Any, *, allowed: Callable[[str], None] | None = None) -> Any:
    """Return the answer to a request, or raise the error of the replay.

    allowed:  is called with the right that the request needs, and raises where it is missing
    """
    try:
        name, arguments, options = request
        call = CALLS.get(name)
    except (TypeError, ValueError):
        raise MalformedMessage(f"no request: {shown(request)}") from None
    if call is None:
        raise ArgumentError(f"the server has no call {shown(name)}: it may be of an older version")
    if allowed is not None:
        allowed(call.right)
    try:
        return call.answer(served, *arguments, **options)
    except TypeError as error:
        raise ArgumentError(f"{name} cannot be called like this: {error}") from None


def _method(name: str) -> Callable[..., Any]:
    return lambda served, *arguments, **options: getattr(served.replay, name)(*arguments, **options)


def _property(name: str) -> Callable[..., Any]:
    return lambda served: getattr(served.replay, name)


def _describe(served: Served) -> dict[str, Any]:
    """Return the facts that a client keeps."""
    replay = served.replay
    return {
        "prioritized": hasattr(replay, "update_priorities"),
        "capacity": replay.capacity,
        "path": str(replay.path),
        "schema": _schema(served),
    }


def _schema(served: Served) -> Any:
    schema: Schema | None = served.replay.schema
    return None if schema is None else schema.to_plain()


def _push_first(
    served: Served, client: str, number: int, method: str, values: list[Any], options: Any
) -> tuple[int, int]:
    """Add the rows of a call that a client could not check, since it knew no schema yet."""
    if method not in ("push", "extend"):
        raise MalformedMessage(f"no method that adds rows: {shown(method)}")
    add = getattr(served.replay, method)
    n = 1 if method == "push" else len(values[2])
    return served.groups.store(client, number, n, lambda: add(*values, **options))


def _push_group(
    served: Served, client: str, number: int, columns: list[Any], options: dict[str, Any]
) -> tuple[int, int]:
    """Add a group of rows, whose columns are in the order of the schema."""
    schema: Schema | None = served.replay.schema
    if schema is None or len(columns) != len(schema.fields):
        raise ArgumentError("the columns of a group are not those of the schema: connect again")
    values = schema.nested(columns)
    standard, further = values[:5], dict(zip(schema.extra_names, values[5:], strict=True))
    further.pop("truncated", None)
    if options.get("env") is not None:
        further.pop("env", None)

    def add() -> None:
        served.replay.extend(*standard, **further, **options)

    return served.groups.store(client, number, len(columns[0]), add)


def _rows(served: Served, at: int, end: int | None) -> Any:
    """Return the live transitions from a write id on, at most some of them, None at the end.

    Their end at the beginning of an iteration comes with them: the next request gives it back.
    """
    replay = served.replay
    while True:
        count = replay.count
        end = count if end is None else min(end, count)
        at = max(at, replay.first)
        if at >= end:
            return None
        try:
            return end, replay.get(np.arange(at, min(at + _ROWS_READ, end)))
        except NotLiveError:  # evicted meanwhile
            continue


def _frames_batch(served: Served, batch_size: int, options: dict[str, Any]) -> Any:
    """Return the next batch of an iterator that is made for it."""
    with served.replay.batches(batch_size, **options) as batches:
        return next(batches)


def _marks(served: Served) -> list[Any]:
    return [mark.to_plain() for mark in served.replay.marks()]


CALLS = {
    "describe": Call("read", _describe),
    "schema": Call("read", _schema),
    "rows": Call("read", _rows),
    "frames_batch": Call("read", _frames_batch),
    "marks": Call("read", _marks),
    "len": Call("read", _method("__len__")),
    **{
        name: Call("read", _method(name))
        for name in (
            "sample", "sample_sequences", "get", "draw", "priorities", "is_ready", "stats",
            "check", "refresh", "runs_of",
        )
    },
    **{
        name: Call("read", _property(name))
        for name in ("count", "first", "total_mass", "beta", "frame", "max_priority")
    },
    "push_first": Call("push", _push_first),
    "push_group": Call("push", _push_group),
    "end_episode": Call("push", _method("end_episode")),
    "flush": Call("push", _method("flush")),
    "update_priorities": Call("update", _method("update_priorities")),
    **{
        name: Call("admin", _method(name)) for name in ("clear", "mark", "delete_mark", "rewind")
    },
}  # fmt: skip

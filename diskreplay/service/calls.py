"""Calls: the requests that a client may make, the right that each needs, and their answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from diskreplay.errors import ArgumentError, MismatchError, NotLiveError
from diskreplay.schema import Schema
from diskreplay.service.messages import MalformedMessage
from diskreplay.service.streams import Stream
from diskreplay.validation import as_whole
from diskreplay.wording import shown

_ROWS_READ, _BYTES_READ = 256, 2**20  # in one step of an iteration, at least one row
_CLIENT = re.compile("[0-9a-f]{32}")
_GROUP_OPTIONS = {"fields", "truncateds", "env", "priorities"}


class Call(NamedTuple):
    """A request: the right that it needs, and the function that answers it.

    right:  read, push, update or admin; "" where any token will do
    rows:   the number of rows that its arguments ask for or bring
    """

    right: str
    answer: Callable[..., Any]
    rows: Callable[[list[Any], dict[str, Any]], int] = lambda arguments, options: 0


class Request(NamedTuple):
    """A call that a client makes, and its arguments."""

    name: str
    call: Call
    arguments: list[Any]
    options: dict[str, Any]

    def rows(self) -> int:
        """Return the number of rows that the request asks for or brings."""
        try:
            return self.call.rows(self.arguments, self.options)
        except LookupError:  # no client leaves it out, or gives it by name
            raise MalformedMessage(f"{self.name} without its rows") from None
        except (TypeError, ValueError, OverflowError):
            return 0  # the call says what is wrong with its arguments


def parsed(message: Any) -> Request:
    """Return the request in a message, or raise MalformedMessage."""
    match message:
        case [str(name), list(arguments), dict(options)]:
            pass
        case _:  # its value may be large, and is not shown
            raise MalformedMessage("it is no request")
    if name not in CALLS:
        raise ArgumentError(f"the server has no call {shown(name)}: it may be of an older version")
    return Request(name, CALLS[name], arguments, options)


def answer(stream: Stream, request: Request) -> Any:
    """Return the answer to a request, or raise the error of the replay."""
    try:
        return request.call.answer(stream, *request.arguments, **request.options)
    except TypeError as error:
        raise ArgumentError(f"{request.name} cannot be called like this: {error}") from None


def _method(name: str) -> Callable[..., Any]:
    return lambda stream, *arguments, **options: getattr(stream.replay, name)(*arguments, **options)


def _property(name: str) -> Callable[..., Any]:
    return lambda stream: getattr(stream.replay, name)


def _describe(stream: Stream) -> dict[str, Any]:
    """Return the facts that a client keeps."""
    replay = stream.replay
    return {
        "prioritized": hasattr(replay, "update_priorities"),
        "capacity": replay.capacity,
        "path": str(replay.path),
        "schema": _schema(stream),
        "group_rows": stream.group_rows,
    }


def _schema(stream: Stream) -> Any:
    schema: Schema | None = stream.replay.schema
    return None if schema is None else schema.to_plain()


def _push_first(
    stream: Stream, client: str, number: int, method: str, values: list[Any], options: Any
) -> tuple[int, int]:
    """Add the rows of a call that a client could not check, since it knew no schema yet."""
    if method not in ("push", "extend"):
        raise MalformedMessage(f"no method that adds rows: {shown(method)}")
    if not isinstance(options, dict) or "with_notes" in options:  # notes are its server's alone
        raise MalformedMessage("rows come with notes")
    _check_group(client, number)
    add = partial(getattr(stream.replay, method), *values, **options)
    return stream.groups.store(client, number, 1 if method == "push" else len(values[2]), add)


def _push_group(
    stream: Stream, client: str, number: int, columns: list[Any], options: dict[str, Any]
) -> tuple[int, int]:
    """Add a group of rows, whose columns are in the order of the schema."""
    schema: Schema | None = stream.replay.schema
    if not isinstance(options, dict) or options.keys() - _GROUP_OPTIONS:
        raise MalformedMessage(f"no options of a group: {shown(options)}")
    known = [] if schema is None else [field.name for field in schema.fields]
    given = options.pop("fields", None)
    if schema is None or given != known or len(columns) != len(known):
        raise MismatchError(
            f"{stream.replay.path} has the fields {', '.join(known) or 'of its first row to come'} "
            f"(found rows of {', '.join(map(str, given or ['no names']))}): it is another store "
            "than before; connect again"
        )
    _check_group(client, number)
    values = schema.nested(columns)
    standard, further = values[:5], dict(zip(schema.extra_names, values[5:], strict=True))
    further.pop("truncated", None)
    if options.get("env") is not None:
        further.pop("env", None)
    add = partial(stream.replay.extend, *standard, **further, **options)
    return stream.groups.store(client, number, len(columns[0]), add)


def _check_group(client: Any, number: Any) -> None:
    """Raise MalformedMessage for names and numbers of groups that no client has."""
    if not (isinstance(client, str) and _CLIENT.fullmatch(client)):
        raise MalformedMessage(f"no name of a client: {shown(client)}")
    if not (type(number) is int and 0 < number < 2**62):
        raise MalformedMessage(f"no number of a group: {shown(number)}")


def _rows(stream: Stream, at: int, end: int | None) -> Any:
    """Return the live transitions from a write id on, at most some of them, None at the end.

    Their end at the beginning of an iteration comes with them: the next request gives it back.
    """
    if type(at) is not int or type(end) not in (int, type(None)):
        raise MalformedMessage(f"no write ids: {shown(at)}, {shown(end)}")
    replay = stream.replay
    while True:
        count = replay.count
        end = count if end is None else min(end, count)
        at = max(at, replay.first)
        if at >= end:
            return None
        try:
            row_bytes = max(1, replay.schema.payload_bytes)
            n = min(_ROWS_READ, max(1, _BYTES_READ // row_bytes), end - at)
            return end, replay.get(np.arange(at, at + n))
        except NotLiveError:  # evicted meanwhile
            continue


def _leave(stream: Stream, client: str) -> None:
    """Forget a client that sends no more groups."""
    stream.groups.forget(client)


def _rewind(stream: Stream, name: str, missing: str) -> int:
    found: int = stream.replay.rewind(name, missing)
    stream.groups.recover()  # the notes are those of the mark
    return found


def _marks(stream: Stream) -> list[Any]:
    return [mark.to_plain() for mark in stream.replay.marks()]


def _number(arguments: list[Any], options: dict[str, Any]) -> int:
    """Return the rows that a draw reads: the first argument, times the steps of each."""
    return _whole(arguments[0]) * _whole(options.get("n_step", 1))


def _sequences(arguments: list[Any], options: dict[str, Any]) -> int:
    return _whole(arguments[0]) * _whole(arguments[1])


def _whole(value: Any) -> int:
    """Return a whole number; 0 for anything else, which the call refuses."""
    return as_whole(value) or 0


def _ids(arguments: list[Any], options: dict[str, Any]) -> int:
    return int(np.size(arguments[0]))


def _columns(arguments: list[Any], options: dict[str, Any]) -> int:
    return len(arguments[2][0])


def _first_rows(arguments: list[Any], options: dict[str, Any]) -> int:
    return 1 if arguments[2] == "push" else len(arguments[3][2])


_ROWS = {
    "sample": _number,
    "draw": _number,
    "sample_sequences": _sequences,
    "get": _ids,
    "priorities": _ids,
    "runs_of": _ids,
    "update_priorities": _ids,
    "push_group": _columns,
    "push_first": _first_rows,
}
CALLS = {
    "describe": Call("", _describe),
    "schema": Call("", _schema),
    "rows": Call("read", _rows),
    "marks": Call("read", _marks),
    "len": Call("read", _method("__len__")),
    **{
        name: Call("read", _method(name))
        for name in (
            "sample_sequences", "get", "draw", "priorities", "is_ready",
            "check", "refresh", "runs_of",
        )
    },
    **{
        name: Call("read", _property(name))
        for name in ("count", "first", "total_mass", "beta", "frame", "max_priority")
    },
    **{
        name: Call("read", getattr(Stream, name))
        for name in ("sample", "take_back", "begin_episodes", "next_episode", "stats")
    },
    **{
        name: Call("admin", getattr(Stream, name))
        for name in ("begin_save", "read_saved", "end_save")
    },
    "rewind": Call("admin", _rewind),
    "push_first": Call("push", _push_first),
    "leave": Call("push", _leave),
    "push_group": Call("push", _push_group),
    "end_episode": Call("push", _method("end_episode")),
    "flush": Call("push", _method("flush")),
    "update_priorities": Call("update", _method("update_priorities")),
    **{
        name: Call("admin", _method(name)) for name in ("clear", "mark", "delete_mark")
    },
}  # fmt: skip
CALLS = {
    name: call._replace(rows=_ROWS[name]) if name in _ROWS else call for name, call in CALLS.items()
}

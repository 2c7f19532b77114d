"""A server that is broken, or none of ours: its client raises an error, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

pytest.importorskip("pyarrow.flight")

from pyarrow import flight

import diskreplay
from diskreplay import ArgumentError, DiskReplayError, ServiceError
from diskreplay.service.messages import SCHEMA, receive, send

FACTS = {"prioritized": False, "capacity": 100, "path": "/there", "schema": None, "group_rows": 100}


class OddServer(flight.FlightServerBase):  # type: ignore[misc]
    """Answers each request as a function says."""

    def __init__(self, answer: Callable[[Any, str], object]) -> None:
        self._answer = answer
        super().__init__("grpc://127.0.0.1:0")

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Answer until the client closes the stream."""
        writer.begin(SCHEMA)
        while True:
            try:
                name, _, _ = receive(reader)
            except StopIteration:
                return
            self._answer(writer, name)


@contextmanager
def odd(answer: Callable[[Any, str], object]) -> Iterator[str]:
    """A server within a block, and its URL."""
    with OddServer(answer) as server:
        yield f"grpc://127.0.0.1:{server.port}"


def nested(levels: int) -> bytes:
    value: bytes = msgpack.packb(None)
    for _ in range(levels):
        value = msgpack.packb(msgpack.ExtType(2, b"\x91" + value))
    return msgpack.packb([value, []])  # type: ignore[no-any-return]


@pytest.mark.parametrize("metadata", [b"\xc1", msgpack.packb([b"\x01", []]), nested(300)])
def test_an_answer_that_is_no_message_is_an_error(metadata: bytes) -> None:
    with (
        odd(lambda writer, name: writer.write_metadata(metadata)) as url,
        pytest.raises(ServiceError, match="a message that cannot be read"),
    ):
        diskreplay.connect(url, timeout=5)


@pytest.mark.parametrize(
    "answer", [None, [], [True], [1, FACTS], [True, FACTS, 1], "yes", [True, {}], [True, [1]],
               [True, {**FACTS, "path": 1}], [False, "no"], [False, [1, 2, 3]]],
)  # fmt: skip
def test_an_answer_of_another_form_is_an_error(answer: object) -> None:
    before = set(threading.enumerate())
    with odd(lambda writer, name: send(writer, answer)) as url, pytest.raises(ServiceError):
        diskreplay.connect(url, timeout=5)
    left = set(threading.enumerate()) - before
    assert not [one for one in left if one.name == "diskreplay watch"]


@pytest.mark.parametrize("name", ["__class__", "printable", "sys", "warnings", "Mine", ""])
def test_an_error_of_no_known_class_is_one_of_ours(name: str) -> None:
    error = [False, [name, ["no"]]]
    with odd(lambda writer, _: send(writer, error)) as url:
        with pytest.raises(DiskReplayError, match="no") as caught:
            diskreplay.connect(url, timeout=5)
        assert type(caught.value) is DiskReplayError


@pytest.mark.parametrize("part", [b"", b"x" * 200])
def test_a_copy_of_another_size_than_the_server_says_ends(tmp_path: Path, part: bytes) -> None:
    answers = {
        "describe": FACTS,
        "flush": None,
        "begin_save": ["11111111-1111-4111-8111-111111111111", 100],
        "read_saved": part,
    }
    with (
        odd(lambda writer, name: send(writer, [True, answers[name]])) as url,
        diskreplay.connect(url, timeout=5) as replay,
    ):
        with pytest.raises(ServiceError, match=r"bytes of its store \(expected 1 to 100\)"):
            replay.save(tmp_path / "copy")
        assert [*tmp_path.iterdir()] == []


def test_a_stream_that_a_server_refuses_is_not_tried_again() -> None:
    asked: list[str] = []

    def answer(writer: Any, name: str) -> None:
        asked.append(name)
        raise flight.FlightServerError("no")

    with odd(answer) as url, pytest.raises(ServiceError, match="the server ended the stream: no"):
        diskreplay.connect(url, timeout=5)
    assert asked == ["describe"]


CALLS_DONE_ONCE: dict[str, Callable[[Any], object]] = {
    "clear": lambda replay: replay.clear(),
    "mark": lambda replay: replay.mark("a"),
    "rewind": lambda replay: replay.rewind("a"),
    "delete_mark": lambda replay: replay.delete_mark("a"),
}


@pytest.mark.parametrize("name", CALLS_DONE_ONCE)
def test_a_call_that_may_have_been_done_is_not_made_again(name: str) -> None:
    asked: list[str] = []

    def answer(writer: Any, name: str) -> None:
        asked.append(name)
        if name != "describe" and len(asked) < 4:
            raise flight.FlightUnavailableError("gone")
        send(writer, [True, FACTS if name == "describe" else 7])

    with odd(answer) as url, diskreplay.connect(url, timeout=5) as replay:
        with pytest.raises(ServiceError, match=rf"{name}\(\), which may or may not have been done"):
            CALLS_DONE_ONCE[name](replay)
        assert asked == ["describe", name]
        assert len(replay) == 7
        assert asked == ["describe", name, "len", "len"]


@pytest.mark.parametrize(
    "token", ["", "secret\n", "a b", "é", "a\r\nb: c", "\0", "x" * 5000, "\udcff"]
)
def test_a_token_that_no_header_can_carry_is_refused_at_once(token: str) -> None:
    with pytest.raises(ArgumentError, match="a token has 1 to 4,096 letters") as caught:
        diskreplay.connect("grpc://127.0.0.1:1", token=token)
    assert "secret" not in str(caught.value)

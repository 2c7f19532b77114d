"""Clients that take streams, connections and memory without end: the others are served."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

from pyarrow import flight
from service_process import PATIENCE, ServiceProcess, make_store, serving
from strangers import ROOM, exchanged, others_go_on, raw
from test_messages import Wire

import diskreplay
from diskreplay.service.limits import Limits
from diskreplay.service.messages import SCHEMA, receive, send
from diskreplay.service.rights import ANYONE
from diskreplay.service.room import Room
from diskreplay.service.server import ReplayServer

LOCAL = "grpc://127.0.0.1:0"


def test_answers_that_are_not_read_take_bounded_memory(tmp_path: Path, log: Path) -> None:
    wide = (np.zeros(2**16, np.uint8), 0, 0.0, np.zeros(2**16, np.uint8), False)
    store = make_store(tmp_path / "wide")
    given = ("--listen", LOCAL, "--max-memory-bytes", 40 << 20)
    with (
        serving(store, *given, log=log) as service,
        diskreplay.connect(service.url) as replay,
    ):
        for _ in range(10):
            replay.push(*wide)
        replay.flush()
        before = service.memory_bytes()
        streams = [raw(service) for _ in range(60)]
        for writer, _ in streams:  # each answer takes 13 MB
            send(writer, ["get", [np.zeros(100, np.int64)], {}])
        assert len(replay.sample(5).states) == 5
        # All answers together take 790 MB.
        assert service.memory_bytes() < before + 3 * (40 << 20) + 2 * ROOM
        refused = []
        for _, reader in streams:
            try:
                is_done, _ = receive(reader)
                assert is_done
            except flight.FlightUnavailableError as error:
                refused.append(str(error))
        assert 0 < len(refused) < 60
        assert all("--max-memory-bytes" in text for text in refused)
        assert replay.get(np.zeros(200, np.int64)).states.shape == (200, 2**16)


class Noting(diskreplay.ReplayBuffer):
    """A buffer that notes what is taken of a server's room while it reads."""

    room: Room
    taken = 0

    def get(self, *arguments: Any, **options: Any) -> Any:
        """Read, as a buffer."""
        self.taken = self.room.taken
        return super().get(*arguments, **options)


class Requests(Wire):
    """A reader of requests that have come."""

    schema = SCHEMA


class Answers(Wire):
    """A writer that notes what is taken of a server's room while it sends."""

    def __init__(self, room: Room) -> None:
        super().__init__()
        self.room, self.taken = room, 0

    def begin(self, schema: Any) -> None:
        """Begin a stream."""

    def write_metadata(self, metadata: bytes) -> None:
        """Send an answer without arrays."""
        self.taken = self.room.taken
        super().write_metadata(metadata)

    def write_with_metadata(self, batch: Any, metadata: bytes | None) -> None:
        """Send arrays."""
        self.taken = self.room.taken
        super().write_with_metadata(batch, metadata)


def test_requests_and_answers_take_room_until_they_are_sent() -> None:
    large, none = np.zeros((100, 2**14), np.uint8), np.zeros(100)
    with Noting(capacity=100) as buffer, ReplayServer({"a": buffer}) as server:
        buffer.room = server._room
        buffer.extend(large, none, none, large, np.arange(100) == 99)

        def taken_by(*calls: list[Any]) -> int:
            requests, answers = Requests(), Answers(buffer.room)
            for name, *arguments in calls:
                send(requests, [name, arguments, {}])
            server.answer_stream("a", ANYONE, "here", requests, answers)
            assert buffer.room.taken == 0
            return answers.taken

        assert taken_by(["len"]) == 0
        assert taken_by(["get", np.arange(100)]) >= 2 * large.nbytes
        assert buffer.taken >= 2 * large.nbytes  # before its bytes were there
        assert taken_by(["begin_episodes", False], ["next_episode"]) >= 2 * large.nbytes
        assert taken_by(["mark", large, None]) >= large.nbytes  # of the request


def test_streams_beyond_the_limit_are_refused(service: ServiceProcess, store: Path) -> None:
    with others_go_on(service, store):
        streams, refused = [], []
        for _ in range(60):
            try:
                streams.append(raw(service))
                assert exchanged(streams[-1], ["len", [], {}]) == [True, 100]
            except flight.FlightUnavailableError as error:
                refused.append(str(error))
        assert len(refused) == 12  # two streams are those of the first client
        assert all("50 open calls" in text for text in refused)
        for writer, _ in streams:
            with contextlib.suppress(flight.FlightError):
                writer.close()


def test_calls_that_have_ended_make_room_for_others() -> None:
    with (
        diskreplay.ReplayBuffer(capacity=10) as buffer,
        ReplayServer({"a": buffer}, limits=Limits(calls=2)) as server,
    ):
        for _ in range(6):
            with diskreplay.connect(server.url) as replay:
                assert len(replay) == 0
        value_of = server.gate.metrics.registry.get_sample_value
        end = time.monotonic() + PATIENCE  # a server learns later of the end of a stream
        while value_of("diskreplay_open_calls", {"client": "anyone"}) != 0:
            assert time.monotonic() < end


def test_idle_connections_beyond_the_limit_are_ended(service: ServiceProcess, store: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = min(1000, soft - 200)
    port = int(service.url.rpartition(":")[2])
    with others_go_on(service, store), contextlib.ExitStack() as stack:
        idle = []
        for _ in range(n):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            idle.append(one)
        with diskreplay.connect(service.url) as another:
            assert len(another) == 100
        for one in idle[:-50]:  # the oldest; the limit is 50
            with contextlib.suppress(ConnectionError):
                while one.recv(1 << 16):
                    pass

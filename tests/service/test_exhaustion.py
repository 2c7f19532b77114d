"""Clients that take streams, connections and memory without end: the others are served."""

from __future__ import annotations

import contextlib
import resource
import socket
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

from pyarrow import flight
from service_process import ServiceProcess, make_store, serving
from strangers import ROOM, exchanged, others_go_on, raw

import diskreplay
from diskreplay.service.messages import receive, send

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

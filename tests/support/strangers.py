"""Streams to a server without our client, and a client beside them that must not notice."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import numbers_of, row
from pyarrow import flight
from service_process import ServiceProcess

import diskreplay
from diskreplay.service.messages import SCHEMA, receive, send

ROOM = 64 << 20  # bytes that the memory of a server may grow by


@contextlib.contextmanager
def others_go_on(service: ServiceProcess, store: Path) -> Iterator[Any]:
    """A client that works before, within and after a block; server and store stay sound."""
    with diskreplay.connect(service.url) as replay:
        for number in range(100):
            replay.push(**row(number))
        replay.flush()
        replay.sample(50)
        before = service.most_memory_bytes()
        yield replay
        assert service.most_memory_bytes() < before + ROOM
        for number in range(100, 200):
            replay.push(**row(number))
        replay.flush()
        newest = replay.get(np.arange(replay.count - 100, replay.count))
        assert numbers_of(newest).tolist() == [*range(100, 200)]
        replay.sample(50)
    service.send(signal.SIGTERM)
    assert service.wait() == 0
    assert diskreplay.verify(store) == []
    assert any(entry["event"] == "stopped" for entry in service.logged)


def raw(service: ServiceProcess) -> tuple[Any, Any]:
    """A stream to the server without our client."""
    client = flight.connect(service.url)
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b""))
    writer.begin(SCHEMA)
    return writer, reader


def exchanged(stream: tuple[Any, Any], request: Any) -> list[Any]:
    """Send a request, and return whether it was done, and the answer."""
    writer, reader = stream
    send(writer, request)
    found: list[Any] = receive(reader)
    return found

"""The end of `diskreplay ui`: Ctrl-C and SIGTERM, whatever happens at that moment."""

from __future__ import annotations

import ast
import contextlib
import http.client
import importlib.util
import os
import re
import signal
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import service_process
from common import columns
from ui_process import serving

import diskreplay

pytest.importorskip("nicegui")
needs_service = pytest.mark.skipif(
    None in map(importlib.util.find_spec, ("pyarrow", "prometheus_client")),
    reason="pyarrow or prometheus_client is not installed",
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with diskreplay.PrioritizedReplayBuffer(500, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 200))
    return tmp_path / "b"


def loaded(address: str) -> str:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return str(answer.read().decode())


@contextlib.contextmanager
def visited(address: str) -> Iterator[None]:
    """Connect as the page in a browser does, and read nothing of what comes."""
    found = re.search(r"query: ({.*}),\n", loaded(address))
    assert found
    query = {**ast.literal_eval(found[1]), "document_id": 1, "tab_id": 2, "old_tab_id": 3}
    query |= {"EIO": 4, "transport": "websocket"}
    place = urlsplit(address).netloc
    with socket.create_connection(place.split(":"), timeout=60) as connection:
        connection.sendall(
            f"GET /_nicegui_ws/socket.io/?{urlencode(query)} HTTP/1.1\r\nHost: {place}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert connection.recv(12) == b"HTTP/1.1 101"
        connection.sendall(b"\x81\x82\0\0\0\x0040")  # a text: connect, of socket.io
        yield


@contextlib.contextmanager
def half_asked(address: str) -> Iterator[None]:
    """Send half a request."""
    with socket.create_connection(urlsplit(address).netloc.split(":"), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        yield


@contextlib.contextmanager
def loading(address: str) -> Iterator[None]:
    """Load the page in four threads, again and again until it is gone."""
    has_loaded = threading.Event()

    def load() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            while loaded(address):
                has_loaded.set()

    for _ in range(4):
        threading.Thread(target=load, daemon=True).start()
    assert has_loaded.wait(60)
    yield


@contextlib.contextmanager
def nobody(address: str) -> Iterator[None]:
    """Come directly after the start."""
    yield


@pytest.mark.parametrize("visit", [nobody, half_asked, loading, visited])
@pytest.mark.parametrize(
    "ends", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT] * 3], ids=["int", "term", "thrice"]
)
def test_it_ends_without_a_word(
    ends: list[int], visit: Callable[[str], contextlib.AbstractContextManager[None]], store: Path
) -> None:
    with contextlib.ExitStack() as visits, serving(store, ends=ends) as address:
        visits.enter_context(visit(address))  # until after the end
    with diskreplay.open(store, access="exclusive") as buffer:
        assert [opener["pid"] for opener in buffer.stats()["openers"]] == [os.getpid()]


@needs_service
def test_it_does_not_wait_for_a_service_that_does_not_answer(store: Path, tmp_path: Path) -> None:
    listen = "--listen", "grpc://127.0.0.1:0"
    with service_process.serving(store, *listen, log=tmp_path / "log") as service:
        with serving(service.url) as address:
            loaded(address)
            service.send(signal.SIGSTOP)
            loaded(address)
        service.send(signal.SIGCONT)

"""A server that is there: one that answers nothing is told of, and one that is slow waited for."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

from common import columns, run_python
from pyarrow import flight
from service_process import PATIENCE, ServiceProcess, make_store, serving

import diskreplay
from diskreplay import ServiceError
from diskreplay.service.connection import BrokenError
from diskreplay.service.messages import SCHEMA, receive, send

SILENT = "keeps the connection, and answers nothing"
FACTS = {"prioritized": False, "capacity": 100, "path": "/there", "schema": None, "group_rows": 100}
QUESTIONS = 5  # in this time a server that is not asked would be given up


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServiceProcess]:
    store = make_store(tmp_path / "a")
    with serving(store, "--listen", "grpc://127.0.0.1:0", log=tmp_path / "log") as running:
        yield running


@contextmanager
def stopped(server: ServiceProcess) -> Iterator[None]:
    """Stop the process of a server within a block."""
    server.send(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send(signal.SIGCONT)


def large(n: int) -> dict[str, Any]:
    """Rows of a megabyte."""
    states = np.zeros((n, 1 << 17), np.float32)
    return {
        "states": states,
        "actions": np.arange(n),
        "rewards": np.zeros(n, np.float32),
        "next_states": states,
        "dones": np.zeros(n, bool),
    }


def test_rows_that_a_stopped_server_does_not_take_wait_for_it(server: ServiceProcess) -> None:
    with (
        diskreplay.connect(server.url, timeout=0.1) as replay,
    ):
        replay.extend(**large(2))
        replay.flush()
        with stopped(server):
            replay.extend(**large(4))  # more than a connection takes ahead
            # Bytes that the system has taken keep a stream until it gives them up, in 20 seconds.
            with pytest.raises(ServiceError, match="4 transitions wait for the server"):
                replay.flush()
        replay.flush()
        assert replay.count == 6


def test_calls_end_while_a_server_is_stopped_and_go_on_afterwards(server: ServiceProcess) -> None:
    with (
        diskreplay.connect(server.url, timeout=0.1) as replay,
        replay.batches(4, prefetch=2) as batches,
        ThreadPoolExecutor() as pool,
    ):
        replay.extend(**columns(0, 10))
        replay.flush()
        next(batches)
        calls: list[Callable[[], object]] = [
            lambda: replay.sample(4),
            lambda: [next(batches) for _ in range(3)],
            lambda: replay.update_priorities(np.arange(4), np.ones(4)),
            lambda: replay.rewind("a mark"),
            replay.flush,
        ]
        with stopped(server):
            replay.extend(**columns(10, 20))
            in_others = [pool.submit(call) for call in calls]
            with pytest.raises(ServiceError, match=SILENT):  # in the main thread
                replay.sample(4)
            for one in in_others:
                with pytest.raises(ServiceError, match=SILENT):
                    one.result(PATIENCE)
            with pytest.raises(BrokenError, match=SILENT):  # a new one might never end
                replay._connection.new_channel()
        replay.flush()
        assert replay.count == 30
        assert len(next(batches).states) == len(replay.sample(4).states) == 4


class SlowServer(flight.FlightServerBase):  # type: ignore[misc]
    """A server that answers a request after it was asked several times whether it is alive."""

    def __init__(self, answer: Callable[[], list[Any]]) -> None:
        self._answer, self._asked, self._lock = answer, 0, threading.Lock()
        self._is_enough = threading.Event()
        super().__init__("grpc://127.0.0.1:0")

    def do_action(self, context: Any, action: Any) -> list[Any]:
        """Count."""
        with self._lock:
            self._asked += 1
        if self._asked >= QUESTIONS:
            self._is_enough.set()
        return self._answer()

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Answer the requests that a client makes first, and then one."""
        writer.begin(SCHEMA)
        for answer in (FACTS, 7):
            receive(reader)
            if answer == 7:
                assert self._is_enough.wait(PATIENCE)
            send(writer, [True, answer])
        receive(reader)


def none() -> list[Any]:
    return []


def an_error() -> list[Any]:
    raise flight.FlightServerError("there is no such action")


@pytest.mark.parametrize("answer", [none, an_error])
def test_a_call_waits_for_a_server_that_is_alive(answer: Callable[[], list[Any]]) -> None:
    with (
        SlowServer(answer) as server,
        diskreplay.connect(f"grpc://127.0.0.1:{server.port}", timeout=0.1) as replay,
    ):
        assert len(replay) == 7


def test_a_program_ends_while_a_thread_of_it_waits_for_a_stopped_server(
    server: ServiceProcess,
) -> None:
    code = """
        import os, signal, sys, threading
        import common, diskreplay
        url, server = sys.argv[1:]
        replay = diskreplay.connect(url, timeout=0.1)
        replay.push(**common.row(0))
        replay.flush()
        ended = []
        def wait():
            try:
                replay.sample(1)
            except diskreplay.DiskReplayError as error:
                ended.append(str(error))
        threads = [threading.Thread(target=wait, daemon=True) for _ in range(2)]
        os.kill(int(server), signal.SIGSTOP)
        threads[0].start()
        threads[0].join()
        print(ended)
        threads[1].start()  # and the program ends
    """
    result = run_python(code, server.url, str(server.process.pid))
    assert SILENT in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("end", ["close", "collect"])
def test_a_client_leaves_no_thread(end: str, server: ServiceProcess) -> None:
    before = set(threading.enumerate())
    replay = diskreplay.connect(server.url, timeout=4)
    replay.extend(**columns(0, 10))
    replay.flush()
    next(replay.batches(4, prefetch=2))
    threads = set(threading.enumerate()) - before
    assert {one.name for one in threads} >= {
        f"diskreplay {name}" for name in ("answers", "push", "watch")
    }
    if end == "close":
        replay.close()
    del replay
    gc.collect()
    for one in threads:
        one.join(PATIENCE)
        assert not one.is_alive(), one

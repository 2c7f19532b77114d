"""The ends of clients, servers and programs, while rows wait."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

from common import columns, row, run_python
from service_process import PATIENCE, make_store, serving

import diskreplay
from diskreplay import ClosedError, RateLimitError, ServiceError
from diskreplay.service.limits import Limits
from diskreplay.service.server import ReplayServer

LOCAL = "grpc://127.0.0.1:0"


def test_rows_of_a_client_that_is_gone_are_stored_before_the_program_ends(tmp_path: Path) -> None:
    code = """
        import sys
        import common, diskreplay
        def act():
            replay = diskreplay.connect(sys.argv[1])
            for number in range(100):
                replay.push(**common.row(number))
        act()
    """
    with serving(make_store(tmp_path / "a"), "--listen", LOCAL, log=tmp_path / "log") as service:
        run_python(code, service.url)
        with diskreplay.connect(service.url) as replay:
            assert replay.count == 100


@pytest.mark.parametrize("end", ["exit", "collect", "close"])
def test_a_forked_child_ends_while_rows_of_its_parent_wait(end: str, tmp_path: Path) -> None:
    code = """
        import gc, os, signal, sys
        import common, diskreplay
        url, server, end = sys.argv[1:]
        replay = diskreplay.connect(url)
        for number in range(2):
            replay.push(**common.row(number))
            replay.flush()
        batches = replay.batches(1, prefetch=2)
        next(batches)
        os.kill(int(server), signal.SIGSTOP)
        replay.push(**common.row(2))
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # which only a process that hangs takes
            if end == "collect":
                del replay, batches
                gc.collect()
                os._exit(0)
            if end == "close":
                try:
                    replay.close()
                except diskreplay.ServiceError:
                    os._exit(0)
            sys.exit(0)
        status = os.waitpid(child, 0)[1]
        os.kill(int(server), signal.SIGCONT)
        replay.close()
        print(status)
    """
    with serving(make_store(tmp_path / "a"), "--listen", LOCAL, log=tmp_path / "log") as service:
        ended = run_python(code, service.url, str(service.process.pid), end)
        assert ended.stdout == "0\n"
        assert "Traceback" not in ended.stderr
        with diskreplay.connect(service.url) as replay:
            assert replay.count == 3


def test_rows_wait_for_a_server_whose_replay_was_closed_before_it(tmp_path: Path) -> None:
    buffer = diskreplay.ReplayBuffer(100, path=tmp_path / "b")
    server = ReplayServer({"b": buffer})
    with diskreplay.connect(server.url, timeout=0.1) as replay:
        for number in range(2):  # the second is sent by the thread
            replay.push(**row(number))
            replay.flush()
        buffer.close()
        replay.push(**row(2))
        with pytest.raises(ServiceError, match="1 transition wait"):
            replay.flush()
        with pytest.raises(ServiceError, match="did not answer"):
            replay.sample(1)
        server.close()
        with (
            diskreplay.ReplayBuffer(100, path=tmp_path / "b") as again,
            ReplayServer({"b": again}, server.url),
        ):
            replay.flush()
            assert again.count == replay.count == 3
            replay.close()


def test_refused_rows_of_a_client_that_is_gone_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: errors.append(str(told.exc_value)))
    before = set(threading.enumerate())
    with (
        diskreplay.ReplayBuffer(capacity=100) as buffer,
        ReplayServer({"b": buffer}, limits=Limits(rows=10)) as server,
    ):
        replay = diskreplay.connect(server.url)
        replay.push(**row(0))
        replay.extend(**columns(1, 20))
        made = set(threading.enumerate()) - before
        [thread] = [one for one in made if one.name == "diskreplay push"]
        del replay
        gc.collect()
        thread.join(PATIENCE)
    [error] = errors
    assert "the server refused 20 transitions" in error


@pytest.mark.parametrize("call", ["flush", "push"])
def test_a_close_ends_the_waiting_of_other_threads(call: str, tmp_path: Path) -> None:
    with serving(make_store(tmp_path / "a"), "--listen", LOCAL, log=tmp_path / "log") as service:
        replay = diskreplay.connect(service.url, timeout=0.5, queue_bytes=5000)
        replay.push(**row(0))
        replay.flush()
        service.send(signal.SIGKILL)
        service.wait()
        replay.extend(**columns(1, 50))
        errors: list[type] = []

        def wait() -> None:
            try:
                while True:  # a flush tells of each attempt that failed; the last one of the end
                    try:
                        replay.flush() if call == "flush" else replay.extend(**columns(0, 100))
                    except ServiceError:
                        continue
            except ClosedError as error:
                errors.append(type(error))

        threads = [threading.Thread(target=wait, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        with pytest.raises(ServiceError, match="transitions wait"):
            replay.close()
        for thread in threads:
            thread.join(PATIENCE)
        assert errors == [ClosedError, ClosedError]


def test_a_close_ends_a_call_that_waits_for_the_pushes_of_others(tmp_path: Path) -> None:
    with (
        ThreadPoolExecutor() as pool,
        diskreplay.RateLimited(diskreplay.ReplayBuffer(100, path=tmp_path / "b"), min_size=4) as b,
        ReplayServer({"b": b}) as server,
    ):
        replay = diskreplay.connect(server.url)
        waiting = pool.submit(replay.sample, 2)
        while not b.stats()["rate_limiter"]["waiting_to_sample"]:
            pass
        replay.close()
        with pytest.raises(ClosedError):
            waiting.result(PATIENCE)


@contextmanager
def limited(path: Path, **limits: Any) -> Iterator[tuple[Any, Any]]:
    """A buffer, and a client of a server that limits its rate."""
    with (
        diskreplay.PrioritizedReplayBuffer(1000, path=path) as buffer,
        ReplayServer({"b": diskreplay.RateLimited(buffer, **limits)}) as server,
        diskreplay.connect(server.url) as replay,
    ):
        yield buffer, replay


def test_rows_that_a_limiter_does_not_allow_in_time_wait(tmp_path: Path) -> None:
    limits = {"samples_per_insert": 1.0, "tolerance": 2.0, "timeout": 0}
    with limited(tmp_path / "b", min_size=1, **limits) as (buffer, replay):
        for number in range(3):
            replay.push(**row(number))
            replay.flush()
        replay.push(**row(3))
        with pytest.raises(RateLimitError, match="1 transition waits"):
            replay.flush()
        replay.sample(2)
        replay.flush()
        assert buffer.count == 4


def test_a_limiter_admits_the_rows_of_a_client_a_few_at_a_time(tmp_path: Path) -> None:
    limits = {"samples_per_insert": 2.0, "tolerance": 8.0, "timeout": 10}
    with limited(tmp_path / "b", min_size=20, **limits) as (buffer, replay):
        for number in range(220):
            replay.push(**row(number))
        errors = []
        for _ in range(400 // 8):
            replay.sample(8)
            errors.append(replay.stats()["rate_limiter"]["error"])
        replay.flush()
        assert buffer.count == 220
        assert max(map(abs, errors)) <= 8.0


def test_rows_that_wait_take_the_memory_of_rows(tmp_path: Path) -> None:
    with serving(make_store(tmp_path / "a"), "--listen", LOCAL, log=tmp_path / "log") as service:
        code = """
            import os, pathlib, signal, sys
            import common, diskreplay
            url, server = sys.argv[1:]
            replay = diskreplay.connect(url)
            for number in range(4):
                replay.push(**common.row(number))
                replay.flush()
            os.kill(int(server), signal.SIGSTOP)
            pages = lambda: int(pathlib.Path("/proc/self/statm").read_text().split()[1])
            before = pages()
            for number in range(2500):  # those with a priority need groups of their own
                replay.push(**common.row(number), priority=1.0)
                replay.push(**common.row(number))
            print((pages() - before) * os.sysconf("SC_PAGE_SIZE"))
            os._exit(0)
        """
        grown = int(run_python(code, service.url, str(service.process.pid)).stdout)
        assert grown < 40_000_000

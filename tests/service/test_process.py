"""`diskreplay serve`: the process, its signals, sockets, names, figures and health."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from common import columns, numbers_of, row

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

from service_process import PATIENCE, make_store, serving

import diskreplay
from diskreplay import LockedError, ServiceError

LOCAL = "grpc://127.0.0.1:0"


def numbers_in(path: Path) -> list[int]:
    assert diskreplay.verify(path) == []
    with diskreplay.open(path, access="read") as buffer:
        ids = np.arange(buffer.first, buffer.count)
        return numbers_of(buffer.get(ids)).tolist() if len(ids) else []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_commits_and_ends_with_0(store: Path, log: Path, number: signal.Signals) -> None:
    with serving(store, "--listen", LOCAL, log=log) as service:
        with diskreplay.connect(service.url) as replay:
            replay.extend(**columns(0, 50))
            replay.flush()
            replay.update_priorities(np.arange(50), np.full(50, 3.0))
            # The connection is open and asks for nothing.
            service.send(number)
            assert service.wait() == 0
        events = [entry["event"] for entry in service.logged]
    assert events[0] == "serving"
    assert events[-2:] == ["stopping", "stopped"]
    assert numbers_in(store) == [*range(50)]
    with diskreplay.open(store, access="read") as buffer:
        assert isinstance(buffer, diskreplay.PrioritizedReplayBuffer)
        assert (buffer.priorities(np.arange(50)) == 3).all()


def test_a_server_limits_the_rate_and_ends_with_rows_that_wait(store: Path, log: Path) -> None:
    rate = ["--min-size", 4, "--samples-per-insert", 2, "--tolerance", 8]
    with (
        serving(store, "--listen", LOCAL, *rate, log=log) as service,
        diskreplay.connect(service.url, timeout=1.0) as replay,
    ):
        for number in range(100):
            replay.push(**row(number))
        limiter = replay.stats()["rate_limiter"]
        while not limiter["waiting_to_insert"]:
            limiter = replay.stats()["rate_limiter"]
        assert 4 <= limiter["inserts"] <= 8
        service.send(signal.SIGTERM)
        assert service.wait() == 0
        with pytest.raises(ServiceError, match="transitions wait for the server"):
            replay.flush()
        with pytest.raises(ServiceError):
            replay.close()
    assert numbers_in(store) == [*range(limiter["inserts"])]


def test_a_second_signal_ends_it_at_once(store: Path, log: Path) -> None:
    with (
        serving(store, "--listen", LOCAL, log=log) as service,
        diskreplay.connect(service.url) as replay,
    ):
        replay.extend(**columns(0, 20))
        replay.flush()
        service.send(signal.SIGSTOP)  # both are there before it goes on
        service.send(signal.SIGTERM)
        service.send(signal.SIGINT)
        service.send(signal.SIGCONT)
        assert service.wait() in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert numbers_in(store) == [*range(20)]


def test_what_was_acknowledged_survives_a_kill_and_the_client_goes_on(
    store: Path, log: Path
) -> None:
    with serving(store, "--listen", LOCAL, log=log) as service:
        replay = diskreplay.connect(service.url, timeout=PATIENCE)
        for number in range(30):
            replay.push(**row(number))
        replay.flush()
        service.send(signal.SIGKILL)
        service.wait()
    for number in range(30, 60):
        replay.push(**row(number))  # nobody takes them yet
    with serving(store, "--listen", service.url, log=log) as again:
        replay.close()
        again.send(signal.SIGTERM)
        assert again.wait() == 0
    assert numbers_in(store) == [*range(60)]


@pytest.fixture
def short_place() -> Iterator[Path]:
    """A directory whose path leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        yield Path(place)


def test_a_unix_socket_is_for_its_user_alone(
    store: Path, log: Path, tmp_path: Path, short_place: Path
) -> None:
    path = short_place / "s.sock"
    url = f"grpc+unix://{path}"
    with serving(store, "--listen", url, log=log) as service:
        assert service.url == url
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with diskreplay.connect(url) as replay:
            replay.push(**row(0))
            replay.flush()
        other = refused(make_store(tmp_path / "b"), "--listen", url)
        assert "another server listens at" in other
        service.send(signal.SIGKILL)
        service.wait()
    assert path.exists()
    with serving(store, "--listen", url, log=log) as service:
        with diskreplay.connect(url) as replay:
            assert len(replay) == 1
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    assert not path.exists()
    path.write_text("mine")
    assert "is no socket" in refused(store, "--listen", url)
    assert path.read_text() == "mine"
    assert sorted(short_place.iterdir()) == [path]
    long = f"grpc+unix:///tmp/{'a' * 90}"
    assert "at most 80 bytes" in refused(store, "--listen", long)


def test_a_socket_that_another_server_made_meanwhile_stays(short_place: Path) -> None:
    from diskreplay.service.unix_socket import listening_at

    path = short_place / "s.sock"
    url = f"grpc+unix://{path}"

    def listen(at: str) -> socket.socket:
        one = socket.socket(socket.AF_UNIX)
        held.append(one)
        one.bind(at.removeprefix("grpc+unix://"))
        one.listen()
        return one

    def come_second(at: str) -> socket.socket:
        made.append(listening_at(url, listen))  # another server is faster
        return listen(at)

    made: list[tuple[socket.socket, Callable[[], None]]] = []
    held: list[socket.socket] = []
    with pytest.raises(LockedError, match="another server listens"):
        listening_at(url, come_second)
    [(first, remove)] = made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    _, remove_second = listening_at(url, listen)
    remove()  # not the socket of the second one
    assert path.exists()
    first.close()
    for _ in range(200):  # until no more can wait for the server
        waiting = socket.socket(socket.AF_UNIX)
        waiting.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            waiting.connect(str(path))
        held.append(waiting)
    with pytest.raises(LockedError, match="another server listens"):
        listening_at(url, listen)
    remove_second()
    assert [*short_place.iterdir()] == []
    for one in held:
        one.close()


def refused(*arguments: object) -> str:
    """Return what a server says that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "diskreplay_tools", "serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1, done
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_what_cannot_be_served_is_told_in_a_sentence(store: Path, tmp_path: Path) -> None:
    assert "other machines" in refused(store, "--listen", "grpc://0.0.0.0:0")
    assert "give both --tls-cert and --tls-key" in refused(store, "--tls-cert", __file__)
    assert "URL of a server must be" in refused(store, "--listen", "http://127.0.0.1:0")
    for address in ("9100", "127.0.0.1:65536"):
        assert "HOST:PORT" in refused(store, "--metrics", address)
    assert "64 letters" in refused(f"a b={store}")
    assert "none" in refused(tmp_path / "none")
    tokens = tmp_path / "tokens"
    tokens.write_text("a read 00\n")
    tokens.chmod(0o600)
    assert "line 1 of the tokens file" in refused(store, "--tokens", tokens)


def test_an_address_that_is_taken_is_told(store: Path, log: Path, tmp_path: Path) -> None:
    with serving(store, "--listen", LOCAL, log=log) as service:
        other = make_store(tmp_path / "b")
        assert f"{service.url}" in refused(other, "--listen", service.url)
        assert f"pid {service.process.pid}" in refused(store, "--listen", LOCAL)


def test_several_stores_are_served_by_name(store: Path, log: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "b")
    with serving(store, f"second={other}", "--listen", LOCAL, log=log) as service:
        for name, n in (("a", 3), ("second", 5)):
            with diskreplay.connect(f"{service.url}/{name}") as replay:
                replay.extend(**columns(0, n))
                replay.flush()
                assert len(replay) == n
        with pytest.raises(ValueError, match="a, second"):
            diskreplay.connect(f"{service.url}/b")
        with pytest.raises(ValueError, match="a, second"):
            diskreplay.connect(service.url)
    assert numbers_in(other) == [*range(5)]


def test_figures_and_health_tell_what_is_served(store: Path, log: Path) -> None:
    from pyarrow import flight

    with (
        serving(store, "--listen", LOCAL, "--metrics", "127.0.0.1:0", log=log) as service,
        diskreplay.connect(service.url) as replay,
        flight.connect(service.url) as client,
    ):
        replay.extend(**columns(0, 40))
        replay.flush()
        replay.sample(8)
        replay.update_priorities(np.arange(4), np.ones(4))
        [metrics] = [entry["metrics"] for entry in service.logged if entry["event"] == "serving"]
        with urllib.request.urlopen(metrics, timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        [health] = [json.loads(one.body.to_pybytes()) for one in client.do_action("health")]
    assert health["status"] == "serving"
    assert health["replays"] == {"a": {"size": 40, "count": 40, "capacity": 1000}}
    for line in (
        'diskreplay_rows{buffer="a"} 40.0',
        'diskreplay_pushed_rows_total{buffer="a"} 40.0',
        'diskreplay_sampled_rows_total{buffer="a"} 8.0',
        'diskreplay_updated_rows_total{buffer="a"} 4.0',
        'diskreplay_open_calls{client="anyone"} 1.0',
        'diskreplay_seconds_count{what="sample"} 1.0',
    ):
        assert line in lines, lines


@pytest.mark.parametrize(("host", "warnings"), [("127.0.0.1", 0), ("0.0.0.0", 1)])
def test_figures_that_other_machines_can_read_are_warned_of(
    host: str, warnings: int, store: Path, log: Path
) -> None:
    with serving(store, "--listen", LOCAL, "--metrics", f"{host}:0", log=log) as service:
        told = [entry["warning"] for entry in service.logged if entry["event"] == "warning"]
    assert len(told) == warnings
    assert all("other machines can read the figures at --metrics" in text for text in told)


def test_a_client_of_a_server_that_is_gone_is_told(store: Path, log: Path) -> None:
    with serving(store, "--listen", LOCAL, log=log) as service:
        replay = diskreplay.connect(service.url, timeout=1)
        service.send(signal.SIGKILL)
        service.wait()
        with pytest.raises(ServiceError):
            replay.sample(1)
    replay.close()


def test_a_client_of_a_server_that_hangs_can_be_closed(store: Path, log: Path) -> None:
    with serving(store, "--listen", LOCAL, log=log) as service:
        code = (
            f"import diskreplay; replay = diskreplay.connect({service.url!r}); len(replay)\n"
            f"print('connected', flush=True); input(); replay.close(); print('closed')"
        )
        client = subprocess.Popen(
            [sys.executable, "-c", code],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "connected\n"
            service.send(signal.SIGSTOP)
            assert client.communicate("\n", timeout=PATIENCE) == ("closed\n", "")
            assert client.returncode == 0
        finally:
            client.kill()
            client.communicate()

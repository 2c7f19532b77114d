"""The parts of the page behind `diskreplay ui`: searches, values, failures, and who may ask."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import itertools
import json
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import COMMAND, refused, run
from common import columns
from diskreplay_tools.stores import Target
from diskreplay_tools.ui import charts, transitions
from diskreplay_tools.ui.guarding import OwnPagesOnly, is_loopback
from diskreplay_tools.ui.monitor import Monitor
from diskreplay_tools.ui.source import FAILURES, Source
from diskreplay_tools.ui.transitions import Filter, episode_ids, search, transition
from diskreplay_tools.ui.values import png, shown
from others import Other
from stores import spoil

import diskreplay

needs_service = pytest.mark.skipif(
    None in map(importlib.util.find_spec, ("pyarrow", "prometheus_client")),
    reason="pyarrow or prometheus_client is not installed",
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Write ids 0 to 199, done at every fifth, two runs of 100, priorities 0 to 199."""
    for first in (0, 100):
        with diskreplay.PrioritizedReplayBuffer(500, path=tmp_path / "b", seed=1) as buffer:
            buffer.extend(**columns(first, 100), priorities=np.arange(first, first + 100))
            buffer.sample(8)
    return tmp_path / "b"


def reading(path: Path) -> Any:
    return diskreplay.open(path, access="read", window_bytes=0)


def ids_of(page: transitions.Page) -> list[int]:
    return [row.write_id for row in page.rows]


def test_pages_go_from_the_newest_to_the_oldest(store: Path) -> None:
    with reading(store) as buffer:
        found, before = [], None
        while before != 0:
            page = search(buffer, Filter(), before)
            assert len(page.rows) <= transitions.PAGE_ROWS
            found += ids_of(page)
            before = page.before
    assert found == list(range(199, -1, -1))


@pytest.mark.parametrize(
    ("wanted", "passing"),
    [
        (Filter(run=0), range(100)),
        (Filter(run=1), range(100, 200)),
        (Filter(least=150), range(150, 200)),
        (Filter(least=20, most=40), range(20, 41)),
        (Filter(end="done"), range(4, 200, 5)),
        (Filter(end="either", run=0, most=50), range(4, 51, 5)),
        (Filter(end="truncated"), range(0)),
        (Filter(run=7), range(0)),
    ],
)
def test_a_filter_lets_through_what_it_says(wanted: Filter, passing: range, store: Path) -> None:
    with reading(store) as buffer:
        found, before = [], None
        while before != 0:
            page = search(buffer, wanted, before)
            found += ids_of(page)
            assert not page.at_limit
            before = page.before
    assert found == list(passing)[::-1]


def test_a_search_ends_at_its_limit_and_goes_on_there(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transitions, "MOST_LOOKED_AT", 30)
    monkeypatch.setattr(transitions, "_CHUNK", 10)
    with reading(store) as buffer:
        page = search(buffer, Filter(most=5), None)
        assert (page.rows, page.looked_at, page.before, page.at_limit) == ([], 30, 170, True)
        searches = 1
        while not page.rows:
            page = search(buffer, Filter(most=5), page.before)
            searches += 1
        assert ids_of(page) == [5, 4, 3, 2, 1, 0]
        assert searches == 7
    monkeypatch.setattr(transitions, "MOST_READ", 10)
    with reading(store) as buffer:
        page = search(buffer, Filter(end="done"), None)
        assert (ids_of(page), page.looked_at, page.at_limit) == ([199, 194], 10, True)


def test_rows_say_what_is_known_of_them(store: Path) -> None:
    with reading(store) as buffer:
        row = transition(buffer, 104)
        assert row is not None
        assert (row.priority, row.run, row.episode_end) == (104.0, 1, "done")
        assert row.fields is not None
        assert float(row.fields["reward"]) == 13.0
        assert transition(buffer, 200) is None


def test_a_damaged_record_is_a_row_that_says_so(store: Path) -> None:
    spoil(store, [150])
    with reading(store) as buffer:
        page = search(buffer, Filter(), 152)
        damaged = [row.write_id for row in page.rows if row.fields is None]
        assert 150 in damaged
        assert len(page.rows) == transitions.PAGE_ROWS
        assert 150 not in ids_of(search(buffer, Filter(end="done"), 152))


def test_an_episode_is_found_among_those_of_other_environments(tmp_path: Path) -> None:
    with diskreplay.ReplayBuffer(500, path=tmp_path / "b") as buffer:
        for step in range(20):
            for env in range(3):
                done = step % 10 == 9
                buffer.push([float(step)], env, 1.0, [step + 1.0], done, env=env)
    with reading(tmp_path / "b") as buffer:
        assert episode_ids(buffer, 31) == list(range(31, 60, 3))
        assert episode_ids(buffer, 10) == list(range(1, 30, 3))


def test_a_long_episode_is_shown_around_the_transition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transitions, "MOST_STEPS", 10)
    with diskreplay.ReplayBuffer(500, path=tmp_path / "b") as buffer:
        for step in range(100):
            buffer.push([float(step)], 0, 1.0, [step + 1.0], False)
    with reading(tmp_path / "b") as buffer:
        assert episode_ids(buffer, 50) == list(range(45, 55))
        assert episode_ids(buffer, 1) == list(range(10))
        assert episode_ids(buffer, 99) == list(range(90, 100))


def pixels_of(uri: str) -> np.ndarray[Any, Any]:
    """Decode a PNG whose lines have no filter."""
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    at, parts = 8, {}
    while at < len(content):
        (n,) = struct.unpack_from(">I", content, at)
        name, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + n]
        assert struct.unpack_from(">I", content, at + 8 + n) == (zlib.crc32(name + data),)
        parts[name], at = data, at + 12 + n
    width, height, _, kind = struct.unpack_from(">IIBB", parts[b"IHDR"])
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape((height, width, 3) if kind == 2 else (height, width))


def test_images_are_drawn_frame_by_frame() -> None:
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (12, 9), np.uint8)
    assert (pixels_of(png(gray)) == gray).all()
    stack = rng.integers(0, 256, (4, 16, 16), np.uint8)
    drawn = [pixels_of(uri) for uri in shown(stack).pictures]
    assert (np.stack(drawn) == stack).all()
    color = rng.integers(0, 256, (16, 20, 3), np.uint8)
    [uri] = shown(color).pictures
    assert (pixels_of(uri) == color).all()
    first = rng.integers(0, 256, (2, 3, 16, 16), np.uint8)  # two frames of channels first
    drawn = [pixels_of(uri) for uri in shown(first).pictures]
    assert (np.stack(drawn) == np.moveaxis(first, 1, 3)).all()
    large = shown(np.zeros((1000, 700), np.uint8))
    assert max(pixels_of(large.pictures[0]).shape) <= 336
    many = shown(np.zeros((40, 8, 8, 1), np.uint8))
    assert len(many.pictures) == 16
    assert "the last 16 of 40 frames" in many.text


def test_texts_and_numbers_are_cut_and_command_nothing() -> None:
    assert shown("two\nlines").text == "two\nlines"
    assert "\x1b" not in shown("a\x1b[31m").text
    long = shown("x" * 5000)
    assert len(long.text) < 2100
    assert long.summary == "5,000 characters in all"
    assert shown(b"\x00ab").text == r"b'\x00ab'"
    numbers = shown(np.arange(1000.0))
    assert numbers.text.endswith("... 999")
    assert numbers.summary == "0 to 999, mean 499.5"
    assert shown(np.float32(np.nan)).text == "nan"


def test_a_store_that_is_removed_is_told_of_and_one_that_comes_back_is_shown(
    store: Path, tmp_path: Path
) -> None:
    source = Source(Target(str(store)))
    monitor = Monitor(source)

    def look() -> None:
        monitor._next_look = 0.0
        monitor.look(with_sample=True)

    look()
    assert monitor.problem == ""
    assert monitor.last is not None
    assert monitor.last.stats["size"] == 200
    shutil.move(store, tmp_path / "away")
    look()
    assert str(store) in monitor.problem
    look()
    assert str(store) in monitor.problem
    with pytest.raises(FAILURES):
        source.read(len)
    with Other(store) as writer:
        writer.open(77, kind="ReplayBuffer")
        look()
        assert monitor.problem == ""
        assert monitor.last.stats["capacity"] == 77
        assert len(monitor.moments) == 1  # those of the other store are gone
    source.close()


def test_a_monitor_follows_commits_a_clear_and_the_first_schema(tmp_path: Path) -> None:
    def look() -> Any:
        monitor._next_look = monitor._next_sample = 0.0
        monitor.look(with_sample=True)
        assert monitor.problem == ""
        return monitor.last

    with Other(tmp_path / "b") as writer:
        writer.open(100)
        monitor = Monitor(Source(Target(str(tmp_path / "b"))))
        assert (look().stats["schema"], look().quantiles) == (None, None)
        assert monitor.sample is not None
        assert (monitor.sample.priorities, monitor.sample.reward_bins) == (None, None)
        writer.extend(0, 60, np.arange(60))
        writer.flush()
        assert look().quantiles[-1] == 59
        assert monitor.sample.rewards_of == monitor.sample.size == 60
        assert sum(monitor.sample.reward_bins.counts) == 60  # type: ignore[union-attr]
        writer.clear()
        writer.flush()
        assert (look().stats["size"], look().quantiles) == (0, None)
        assert monitor.sample.rewards == []
        monitor.source.close()


def test_rounds_that_take_long_wait_long(store: Path) -> None:
    source = Source(Target(str(store)))
    monitor = Monitor(source)
    monitor.look(with_sample=False)
    monitor.look(with_sample=False)
    assert len(monitor.moments) == 1  # the second one came too early, and read nothing
    source.close()


def test_figures_are_plain_numbers_and_no_key_is_run() -> None:
    found = [
        charts.over_time([1.0, 2.0], {"a": ("#fff", [None, np.inf])}, log=False),
        charts.over_time([1.0], {"a": ("#fff", [0.0])}, log=True),
        charts.episodes(np.arange(30), np.append(np.arange(29.0), np.nan), "return"),
        charts.over_write_ids([(1, 2.0)], "mean"),
        charts.empty(),
    ]

    def keys(value: Any) -> list[str]:
        parts = value.values() if isinstance(value, dict) else value
        own = list(value) if isinstance(value, dict) else []
        nested = [keys(part) for part in parts if isinstance(part, dict | list)]
        return own + list(itertools.chain.from_iterable(nested))

    for options in found:
        json.dumps(options, allow_nan=False)
        assert not [key for key in keys(options) if key.startswith(":")]


def asked(hosts: tuple[str, ...] | None, kind: str = "http", **headers: str) -> Any:
    """Return what is answered to a request, or a connection, with some headers."""
    sent: list[Any] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    guard = OwnPagesOnly(page, hosts)
    asyncio.run(guard({"type": kind, "headers": given}, None, send))  # type: ignore[arg-type]
    return sent[0]


def test_only_requests_of_its_own_pages_are_answered() -> None:
    hosts = ("127.0.0.1", "localhost", "::1")
    for host in ("127.0.0.1:80", "localhost:7788", "LOCALHOST", "[::1]:80"):
        assert asked(hosts, host=host)["status"] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::1"):
        assert asked(hosts, host=host)["status"] == 403
    own, other = "http://127.0.0.1:80", "http://127.0.0.1:81"
    assert asked(hosts, host="127.0.0.1:80", origin=own)["status"] == 200
    assert asked(hosts, host="127.0.0.1:80", origin=other)["status"] == 403
    assert asked(None, host="trainer-17:80")["status"] == 200
    assert asked(None, host="trainer-17:80", origin="http://evil.example")["status"] == 403
    assert asked(hosts, "websocket", host="evil.example")["type"] == "websocket.close"
    policy = dict(asked(hosts, host="localhost")["headers"])[b"content-security-policy"]
    assert b"default-src 'self'" in policy


def test_an_address_that_others_reach_needs_the_word(store: Path) -> None:
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("trainer-17")
    assert is_loopback("127.8.8.8")
    said = refused("ui", store, "--host", "0.0.0.0", status=2)
    assert "--insecure allows it" in " ".join(said.split())


def test_a_port_that_is_taken_is_refused(store: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused("ui", store, "--port", port)
    assert f"cannot serve at 127.0.0.1, port {port}: Address already in use" in said


def test_without_nicegui_it_says_how_to_install_it(store: Path) -> None:
    code = (
        "import sys; sys.modules['nicegui'] = None; from diskreplay_tools.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "ui", store, "--port", "0"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "the page needs nicegui, which is not installed: pip install 'diskreplay[ui]'" in (
        done.stderr
    )


@contextlib.contextmanager
def served(path: Path, port: int = 0) -> Iterator[str]:
    """Serve a store, and yield its URL."""
    server = subprocess.Popen(
        [*COMMAND, "serve", path, "--listen", f"grpc://127.0.0.1:{port}"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        yield server.stdout.readline().split()[-1]
    finally:
        server.terminate()
        server.communicate(timeout=60)


@needs_service
def test_the_replay_of_a_service_is_shown_like_a_store(tmp_path: Path) -> None:
    with diskreplay.PrioritizedReplayBuffer(500, path=tmp_path / "b", seed=1) as buffer:
        for i in range(100):
            buffer.push([float(i)], 0, 1.0, [i + 1.0], i % 5 == 4, priority=i)
    with served(tmp_path / "b") as url:
        source = Source(Target(url))
        monitor = Monitor(source)
        monitor.look(with_sample=True)
        assert (monitor.problem, monitor.sample_problem) == ("", "")
        assert monitor.last is not None
        assert monitor.last.stats["size"] == 100
        assert monitor.last.quantiles is not None
        assert monitor.last.quantiles[-1] == 99.0
        found = monitor.sample
        assert found is not None
        assert found.rewards_of == 100
        assert found.episodes is not None
        assert [column.tolist() for column in found.episodes] == [
            list(range(4, 100, 5)), [5.0] * 20, [5] * 20
        ]  # fmt: skip
        page = source.read(lambda replay: search(replay, Filter(least=50, end="done"), None))
        assert ids_of(page) == list(range(99, 50, -5))
        row = source.read(lambda replay: transition(replay, 54))
        assert row is not None
        assert (row.priority, row.run, row.episode_end) == (54.0, 0, "done")
        assert source.read(lambda replay: episode_ids(replay, 52)) == [50, 51, 52, 53, 54]
        shown_once = run("top", url, "--once", "--seconds", 0.1).stdout
        assert "pushes         100" in shown_once
        assert "  clients     anyone: 1 at 127.0.0.1:" in shown_once  # and not itself
        source.close()


@needs_service
def test_a_service_that_ends_is_told_of_and_one_that_comes_back_is_shown(store: Path) -> None:
    with served(store) as url:
        monitor = Monitor(Source(Target(url)))
        monitor.look(with_sample=True)
        assert monitor.problem == ""
    monitor._next_look = 0.0
    monitor.look(with_sample=True)
    assert monitor.problem
    with served(store, int(url.rpartition(":")[2])):
        monitor._next_look = 0.0
        monitor.look(with_sample=True)
        assert monitor.problem == ""
        monitor.source.close()

"""Limits, metrics and logs of a service, on their own."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from diskreplay import ArgumentError, ReplayBuffer, StorageError
from diskreplay.service.limits import Limits
from diskreplay.service.logs import LOGGER, log, log_json_lines
from diskreplay.service.room import SMALL_BYTES, NoRoomError, Room


def test_a_call_beyond_a_limit_is_told_which() -> None:
    limits = Limits(message_bytes=1000, rows=10)
    limits.check(10, 1000)
    with pytest.raises(ArgumentError, match=r"at most 10 rows a call \(found 11\): .*--max-rows"):
        limits.check(11, 0)
    with pytest.raises(ArgumentError, match=r"at most 1.00 kB \(found 1.01 kB\): .*--max-message"):
        limits.check(1, 1010)
    with pytest.raises(ArgumentError, match="max_calls must be a whole number of at least 1"):
        Limits(calls=0)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The logger of the service, put back as it was."""
    handlers, level, propagates = LOGGER.handlers, LOGGER.level, LOGGER.propagate
    LOGGER.handlers = []
    yield LOGGER
    LOGGER.handlers, LOGGER.propagate = handlers, propagates
    LOGGER.setLevel(level)


def test_a_log_is_one_json_object_a_line(logger: logging.Logger) -> None:
    out = io.StringIO()
    log_json_lines(out)
    log("serving", url="grpc://127.0.0.1:1", names=["a\nb\x1b[2J"], value=object)
    try:
        raise OSError("no\nspace")
    except OSError:
        logger.exception("failed")
    first, second = out.getvalue().splitlines()
    assert out.getvalue().isascii()
    found = json.loads(first)
    assert found["event"] == "serving"
    assert (found["level"], found["names"]) == ("info", ["a\nb\x1b[2J"])
    assert found["time"].endswith("+00:00")
    assert "no\nspace" in json.loads(second)["error"]


def test_the_library_says_nothing_by_itself(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    log("serving")
    assert capsys.readouterr().err == ""


def test_figures_are_collected_over_http() -> None:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("pyarrow")
    from diskreplay.service.clients import Clients
    from diskreplay.service.groups import Groups
    from diskreplay.service.metrics import Metrics
    from diskreplay.service.streams import Served

    metrics, other = Metrics(), Metrics()
    buffer = ReplayBuffer(capacity=10)
    buffer.extend(np.zeros((12, 2)), np.zeros(12), np.zeros(12), np.zeros((12, 2)), np.zeros(12))
    groups = Groups(buffer)
    rows = np.zeros((3, 2)), np.zeros(3), np.zeros(3), np.zeros((3, 2)), np.zeros(3)
    for number in (1, 2, 2):
        groups.store("me", number, 3, partial(buffer.extend, *rows))
    metrics.watch([Served("a", buffer, groups, Clients(), 4096)])
    with metrics.timed("sample"):
        pass
    with metrics.listening("127.0.0.1", 0) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        with pytest.raises(StorageError, match=rf"127.0.0.1:{port} \(Address already in use\)"):
            other.listening("127.0.0.1", port).__enter__()
    for line in (
        'diskreplay_rows{buffer="a"} 10.0',
        'diskreplay_written_rows{buffer="a"} 18.0',
        'diskreplay_waiting_groups{buffer="a"} 0.0',
        'diskreplay_pushed_groups_total{buffer="a"} 2.0',
        'diskreplay_pushed_rows_total{buffer="a"} 6.0',
        'diskreplay_repeated_groups_total{buffer="a"} 1.0',
        'diskreplay_commits_total{buffer="a"} 3.0',
        'diskreplay_seconds_count{what="sample"} 1.0',
    ):
        assert line in lines


def test_large_messages_share_a_room_and_small_ones_need_none() -> None:
    large = SMALL_BYTES * 2
    room = Room(3 * large)
    with room.share() as one, room.share() as other:
        one.add(2 * large)
        other.add(large)
        one.add(SMALL_BYTES)
        assert room.taken == 3 * large
        for take in (other.add, other.expect, other.send):
            with pytest.raises(NoRoomError, match=r"6.29 MB are under way.*--max-memory-bytes"):
                take(large)
        assert room.taken == 3 * large
    assert room.taken == 0
    with room.share() as alone:  # alone it may be as large as a message can be
        alone.add(10 * large)
        alone.add(large)
        assert room.taken == 11 * large
    with contextlib.suppress(KeyError), room.share() as failing:
        failing.add(large)
        raise KeyError
    assert room.taken == 0


def test_an_answer_takes_the_bytes_that_it_has() -> None:
    large = SMALL_BYTES * 2
    room = Room(10 * large)
    with room.share() as share:
        share.expect(large)
        share.send(large)
        assert room.taken == large
        share.send(3 * large)
        assert room.taken == 3 * large


def test_a_server_that_stops_waits_for_the_answers_under_way() -> None:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("pyarrow.flight")
    from diskreplay.service.gate import Gate, StoppingError
    from diskreplay.service.metrics import Metrics

    gate = Gate(None, Limits(), Metrics())
    with gate.answering():
        pass
    has_begun = threading.Event()
    done = []

    def answer() -> None:
        with gate.answering():
            has_begun.set()
            while True:
                try:
                    with gate.answering():
                        pass
                except StoppingError:
                    break
            done.append(sum(range(10**6)))  # goes on for a while after the server has to stop

    thread = threading.Thread(target=answer)
    thread.start()
    has_begun.wait()
    assert gate.stop(60) == 0
    assert done
    thread.join()

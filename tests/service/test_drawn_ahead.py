"""Batches that a server sends before they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

from common import columns, numbers_of
from served import served
from service_process import PATIENCE
from test_hostile_server import FACTS, odd

import diskreplay
from diskreplay import ArgumentError, ClosedError, PrioritizedReplayBuffer, SampleError
from diskreplay.service.messages import send


@pytest.fixture
def replay(tmp_path: Path) -> Iterator[Any]:
    with served(PrioritizedReplayBuffer(100, path=tmp_path / "b", seed=1)) as replay:
        yield replay


def wait_for_frame(replay: Any, frame: int) -> None:
    """Return when so many batches were drawn."""
    while replay.frame < frame:
        pass


def test_draws_after_those_of_others_are_not_taken_back(replay: Any) -> None:
    replay.extend(**columns(0, 50))
    replay.flush()
    with (
        diskreplay.connect(replay._connection.url) as other,
        replay.batches(8, prefetch=3) as batches,
    ):
        next(batches)
        wait_for_frame(replay, 4)
        other.sample(8)
        batches.close()
        assert replay.frame == 5
        with replay.batches(8, prefetch=2) as alone:
            next(alone)
            wait_for_frame(replay, 8)
        assert replay.frame == 6


def test_a_stream_takes_back_no_draws_but_its_last(replay: Any) -> None:
    replay.extend(**columns(0, 50))
    replay.flush()
    with diskreplay.connect(replay._connection.url) as other:
        one, two = (client._connection.new_channel() for client in (replay, other))
        for channel in (one, two, one):
            channel.call("sample", 8)
        for n in (2, 3, 100):
            one.call("take_back", n)
            assert replay.frame == 3
        two.call("take_back", 1)
        assert replay.frame == 3
        for _ in range(2):
            one.call("take_back", 1)
            assert replay.frame == 2


def test_a_close_of_the_client_takes_draws_back(replay: Any) -> None:
    replay.extend(**columns(0, 50))
    replay.flush()
    other = diskreplay.connect(replay._connection.url)
    batches = other.batches(8, prefetch=3)
    next(batches)
    wait_for_frame(replay, 4)
    other.close()
    assert replay.frame == 1
    with pytest.raises(ClosedError):
        next(batches)


def test_a_draw_that_fails_is_made_again(replay: Any) -> None:
    with replay.batches(8, prefetch=3) as batches:
        for _ in range(2):
            with pytest.raises(SampleError, match="holds 0"):
                next(batches)
        replay.extend(**columns(0, 50))
        replay.flush()
        for _ in range(9):
            assert set(numbers_of(next(batches)).tolist()) <= set(range(50))


def test_a_clear_drops_what_was_drawn_before(replay: Any) -> None:
    replay.extend(**columns(0, 50))
    replay.flush()
    with replay.batches(8, prefetch=3) as batches:
        next(batches)
        wait_for_frame(replay, 4)
        replay.clear()
        replay.extend(**columns(50, 20))
        replay.flush()
        for _ in range(5):
            assert min(next(batches).indices) >= 50


def test_a_batch_that_was_asked_for_before_a_clear_is_not_given_after_it() -> None:
    asked: list[int] = []
    may_answer = threading.Event()

    def answer(writer: Any, name: str) -> None:
        found: Any = FACTS if name == "describe" else None
        if name == "sample":
            asked.append(found := len(asked))
            assert may_answer.wait(PATIENCE)
        send(writer, [True, found])

    with (
        ThreadPoolExecutor() as pool,
        odd(answer) as url,
        diskreplay.connect(url) as replay,
        replay.batches(8, prefetch=3) as batches,
    ):
        given = pool.submit(next, batches)
        while not asked:
            pass
        replay.clear()
        may_answer.set()
        assert given.result() > 0


def test_a_rewind_drops_what_was_drawn_before(replay: Any) -> None:
    replay.extend(**columns(0, 20))
    replay.mark("step")
    replay.extend(**columns(20, 80))
    replay.flush()
    with replay.batches(8, prefetch=3) as batches:
        next(batches)
        wait_for_frame(replay, 4)
        replay.rewind("step")
        for _ in range(5):
            assert max(next(batches).indices) < 20


@pytest.mark.parametrize("prefetch", [0, 2])
def test_closed_batches_give_none(prefetch: int, replay: Any) -> None:
    replay.extend(**columns(0, 50))
    replay.flush()
    batches = replay.batches(8, prefetch=prefetch)
    next(batches)
    batches.close()
    with pytest.raises(ClosedError, match="these batches are closed"):
        next(batches)


def test_batches_that_take_too_much_memory_are_refused_once_their_size_is_known(
    replay: Any,
) -> None:
    with replay.batches(100, prefetch=2**40) as batches:
        replay.extend(**columns(0, 50))
        replay.flush()
        with pytest.raises(ArgumentError, match="prefetch"):
            next(batches)
    with pytest.raises(ArgumentError, match="prefetch"):
        replay.batches(100, prefetch=2**40)


def test_an_error_of_prepare_belongs_to_its_batch(replay: Any) -> None:
    replay.extend(**columns(0, 50))
    replay.flush()
    seen: list[bytes] = []

    def prepare(batch: Any) -> bytes:
        content: bytes = batch.indices.tobytes()
        if content not in seen:
            seen.append(content)
            if len(seen) == 3:
                raise RuntimeError("no")
        return content

    found: list[bytes] = []
    with replay.batches(8, prefetch=2, prepare=prepare) as batches:
        while len(found) < 5:
            try:
                found.append(next(batches))
            except RuntimeError:
                assert len(found) <= 2
    assert found == seen[:5]

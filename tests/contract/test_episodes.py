"""n-step returns, sequences and episodes of every Replay, after more than a lap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from episode_twin import EpisodeTwin, check_n_step, check_sequences, columns
from replays import CAPACITY, Exclusive

import diskreplay

GAMMA = 0.9


def filled(writer: Exclusive, path: Path) -> tuple[Any, EpisodeTwin]:
    """Return a replay with several envs and commits, and its twin."""
    replay, twin = writer.make(path, seed=5), EpisodeTwin(CAPACITY)
    for first in range(0, 90, 15):
        numbers = range(first, first + 15)
        steps = [twin.push(i % 4, done=i % 19 == 7, truncated=i % 23 == 3) for i in numbers]
        replay.extend(**columns(steps))
        writer.settle(replay)
    return replay, twin


def compare(replay: Any, twin: EpisodeTwin) -> None:
    check_n_step(twin, replay.sample(30, n_step=3, gamma=GAMMA), 3, GAMMA)
    for pad, across in ((True, False), (True, True), (False, True)):
        batch = replay.sample_sequences(10, 4, pad=pad, across=across)
        check_sequences(twin, batch, 4, pad=pad, across=across)
    whole = sorted(twin.whole_episodes())
    assert [batch.indices.tolist() for batch in replay.episodes()] == whole
    assert [batch.indices.tolist() for batch in replay.episodes(newest_first=True)] == whole[::-1]


def test_of_a_writer_and_of_a_reader(writer: Exclusive, tmp_path: Path) -> None:
    replay, twin = filled(writer, tmp_path / "b")
    with replay:
        compare(replay, twin)
    with diskreplay.open(tmp_path / "b", access="read", seed=1) as reader:
        compare(reader, twin)
    with writer.open(tmp_path / "b") as again:
        twin.reopen()
        compare(again, twin)
        again.extend(**columns([twin.push(i % 4) for i in range(10)]))
        writer.settle(again)
        compare(again, twin)


def test_batches_are_those_of_sample(writer: Exclusive, tmp_path: Path) -> None:
    replay, twin = filled(writer, tmp_path / "b")
    with replay, replay.batches(8, prefetch=2, n_step=3, gamma=GAMMA) as batches:
        for _ in range(5):
            check_n_step(twin, next(batches), 3, GAMMA)


def test_what_is_cleared_is_gone(writer: Exclusive, tmp_path: Path) -> None:
    replay, _ = filled(writer, tmp_path / "b")
    with replay:
        replay.clear()
        writer.settle(replay)
        assert list(replay.episodes()) == []
        for call in (replay.sample, replay.sample_sequences):
            with pytest.raises(diskreplay.SampleError):
                call(1, 2) if call == replay.sample_sequences else call(1, n_step=2)

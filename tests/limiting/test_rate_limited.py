"""RateLimited: what waits, what wakes it, and counts that go on with the buffer."""

from __future__ import annotations

import copy
import pickle
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_values import put
from children import in_child
from common import columns, row
from kills import at_random

import diskreplay
from diskreplay import (
    ArgumentError,
    ClosedError,
    DamageError,
    PrioritizedReplayBuffer,
    RateLimited,
    RateLimitError,
    ReadOnlyError,
    ReplayBuffer,
    SampleError,
    SchemaError,
    StorageError,
)
from diskreplay.records.seals import seal

LIMITS: dict[str, Any] = {"min_size": 10, "samples_per_insert": 2, "tolerance": 16}
Begin = Callable[[RateLimited[Any], str, Callable[[], Any]], "Future[Any]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "b"


def limited(path: Path, kind: Any = ReplayBuffer, **limits: Any) -> RateLimited[Any]:
    buffer = kind(100, path=path, seed=1, commit_interval=1e9, durability="process")
    return RateLimited(buffer, **{**LIMITS, "timeout": 0, **limits})


def counts(replay: RateLimited[Any]) -> tuple[int, int]:
    found = replay.stats()["rate_limiter"]
    return found["inserts"], found["samples"]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begin a call in another thread, and return once it waits."""
    with ThreadPoolExecutor(8) as pool:

        def begin(replay: RateLimited[Any], what: str, call: Callable[[], Any]) -> Future[Any]:
            name = f"waiting_to_{what}"
            before = replay.stats()["rate_limiter"][name]
            future = pool.submit(call)
            while replay.stats()["rate_limiter"][name] == before:
                assert not future.done(), "it did not wait"
            return future

        yield begin


# Waiting


@pytest.mark.parametrize("what", ["sample", "batches", "draw", "sequences"])
def test_a_draw_waits_for_the_minimum(what: str, path: Path, begin: Begin) -> None:
    with limited(path, PrioritizedReplayBuffer, timeout=None) as replay:
        replay.extend(**columns(0, 9))
        calls: dict[str, Callable[[], Any]] = {
            "sample": lambda: replay.sample(4).rewards.size,
            "batches": lambda: next(replay.batches(4)).rewards.size,
            "draw": lambda: replay.draw(4).indices.size,  # type: ignore[attr-defined]
            "sequences": lambda: replay.sample_sequences(2, 2).mask.size,
        }
        waiting = begin(replay, "sample", calls[what])
        replay.push(**row(9))
        assert waiting.result(30) == 4
        assert counts(replay) == (10, 4)


def test_inserts_and_samples_wake_each_other(path: Path, begin: Begin) -> None:
    with limited(path, timeout=None) as replay:
        replay.extend(**columns(0, 10))
        replay.extend(**columns(10, 8))  # 16 samples behind, as many as may be
        waiting = begin(replay, "insert", lambda: replay.push(**row(18)))
        replay.sample(2)
        assert waiting.result(30) == 18
        for _ in range(4):
            replay.sample(8)  # 16 samples ahead
        assert replay.stats()["rate_limiter"]["error"] == -16
        samples = begin(replay, "sample", lambda: replay.sample(8).rewards.size)
        replay.extend(**columns(19, 3))
        assert not samples.done()
        replay.extend(**columns(22, 1))
        assert samples.result(30) == 8
        assert counts(replay) == (23, 42)


def test_what_waits_goes_on_after_an_error_of_others(path: Path, begin: Begin) -> None:
    with limited(path, timeout=None) as replay:
        replay.extend(**columns(0, 9))
        waiting = begin(replay, "sample", lambda: replay.sample(4).rewards.size)
        with pytest.raises(SchemaError):
            replay.push(**{**row(9), "reward": float("nan")})
        with pytest.raises(SchemaError):
            replay.extend(**{**columns(9, 1), "rewards": np.full(1, np.nan)})
        assert (counts(replay), waiting.done()) == ((9, 0), False)
        replay.push(**row(9))
        assert waiting.result(30) == 4
        with pytest.raises(SampleError):
            replay.sample(12)
        assert counts(replay) == (10, 4)


def test_close_ends_what_waits(path: Path, begin: Begin) -> None:
    replay = limited(path, timeout=None)
    replay.extend(**columns(0, 9))
    samples = [begin(replay, "sample", lambda: replay.sample(4)) for _ in range(3)]
    replay.end_waits()
    with pytest.raises(ClosedError, match="is closed: open it again"):
        replay.push(**row(9))
    assert len(replay) == 9
    replay.close()
    for waiting in samples:
        with pytest.raises(ClosedError, match="is closed: open it again"):
            waiting.result(30)
    for call in (lambda: replay.push(**row(9)), lambda: replay.sample(1), lambda: len(replay)):
        with pytest.raises(ClosedError, match="is closed: open it again"):
            call()
    replay.close()
    with diskreplay.open(path) as buffer:
        assert len(buffer) == 9


def test_an_interrupt_ends_what_waits(path: Path) -> None:
    with limited(path, timeout=None) as replay:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                replay.sample(1)
        finally:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        assert replay.stats()["rate_limiter"]["waiting_to_sample"] == 0
        replay.extend(**columns(0, 10))
        assert replay.sample(1).rewards.size == 1


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_timeout_says_what_is_missing(timeout: float, path: Path) -> None:
    within = f"within {timeout:g} s: the replay has "
    with limited(path, timeout=timeout) as replay:
        replay.extend(**columns(0, 9))
        said = f"no sample was allowed {within}9 transitions (expected min_size=10): push in"
        with pytest.raises(RateLimitError, match=re.escape(said)):
            replay.sample(1)
        replay.extend(**columns(9, 9))
        said = (
            f"no insert was allowed {within}18 inserts and 0 samples, 16 samples less than "
            "samples_per_insert=2 asks for (tolerance 16): sample in another thread, or give"
        )
        with pytest.raises(RateLimitError, match=re.escape(said)):
            replay.push(**row(18))
        for _ in range(4):
            replay.sample(8)
        said = (
            f"no sample was allowed {within}18 inserts and 32 samples, 16 samples more than "
            "samples_per_insert=2 asks for (tolerance 16): push in another thread, or give"
        )
        with pytest.raises(TimeoutError, match=re.escape(said)):
            replay.sample(1)
        assert (replay.is_ready(1), replay.count, counts(replay)) == (False, 18, (18, 32))


def test_a_call_within_a_call_is_refused(path: Path) -> None:
    with limited(path) as replay:
        replay.extend(**columns(0, 10))
        batches = replay.batches(1, prepare=lambda batch: replay.sample(1))
        with pytest.raises(StorageError, match="in use by the call that this one interrupted"):
            next(batches)
        assert counts(replay) == (10, 0)
        assert replay.sample(1).rewards.size == 1


@pytest.mark.parametrize("prefetch", [0, 2])
def test_many_threads_keep_the_limits(prefetch: int, path: Path) -> None:
    rows, actors, learners = 240, 4, 3
    limits = {"min_size": 20, "samples_per_insert": 3, "tolerance": 20}
    with limited(path, PrioritizedReplayBuffer, timeout=60, **limits) as replay:
        errors: list[float] = []
        failures: list[BaseException] = []
        is_done = threading.Event()

        def watched(call: Callable[[], Any]) -> None:
            try:
                call()
            except ClosedError:
                assert is_done.is_set()
            except BaseException as error:
                failures.append(error)

        def act(actor: int) -> None:
            for number in range(rows // actors):
                if number % 5:
                    replay.push(**row(number), env=actor)
                else:
                    replay.extend(**columns(number, 1), env=actor)

        def learn() -> None:
            with replay.batches(8, prefetch) as batches:
                while True:
                    batch = next(batches)
                    replay.update_priorities(batch.indices, np.ones(8))
                    found = replay.stats()["rate_limiter"]
                    if found["inserts"] > 20:
                        errors.append(found["error"])

        calls: list[Callable[[], Any]] = [lambda n=n: act(n) for n in range(actors)]  # type: ignore[misc]
        threads = [threading.Thread(target=watched, args=(call,)) for call in calls]
        others = [threading.Thread(target=watched, args=(learn,)) for _ in range(learners)]
        for thread in (*threads, *others):
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
        # A call that was woken is one that waits until it has looked.
        while replay.stats()["rate_limiter"]["waiting_to_sample"] < learners or replay.is_ready(8):
            assert not failures
        inserts, samples = counts(replay)
        is_done.set()
        replay.close()
        for thread in others:
            thread.join(60)
            assert not thread.is_alive()
    assert failures == []
    assert inserts == rows
    assert (rows - 20) * 3 + 20 - 8 < samples <= (rows - 20) * 3 + 20
    assert min(errors) >= -20
    assert max(errors) <= 20


# Counts


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_counts_go_on_after_opening_and_back_with_rewind(kind: Any, path: Path) -> None:
    with limited(path, kind) as replay:
        replay.extend(**columns(0, 12))
        replay.sample(4)
        replay.mark("early")
        replay.push(**row(12))
    with limited(path, kind) as replay:
        assert counts(replay) == (13, 4)
        replay.sample(6)
        replay.push(**row(13))
        assert counts(replay) == (14, 10)
        replay.rewind("early")
        assert (counts(replay), replay.count) == ((12, 4), 12)
        replay.push(**row(12))
    with diskreplay.open(path) as buffer:
        buffer.push(**row(13))  # past the limiter, and yet of its transitions
    with limited(path, kind) as replay:
        assert counts(replay) == (14, 4)


def test_a_rewind_and_a_clear_wake_what_may_go_on(path: Path, begin: Begin) -> None:
    with limited(path, timeout=None) as replay:
        replay.extend(**columns(0, 10))
        replay.mark("begin")
        replay.extend(**columns(10, 8))
        waiting = begin(replay, "insert", lambda: replay.push(**row(10)))
        replay.rewind("begin")
        assert waiting.result(30) == 10
        replay.extend(**columns(11, 7))
        waiting = begin(replay, "insert", lambda: replay.push(**row(18)))
        assert replay.is_ready(1)
        replay.clear()
        assert waiting.result(30) == 18
        assert not replay.is_ready(1)


def test_counts_of_other_limits_begin_anew_without_error(path: Path) -> None:
    with limited(path, samples_per_insert=None, tolerance=None) as replay:
        replay.extend(**columns(0, 90))
        for _ in range(9):
            replay.sample(50)
        assert counts(replay) == (90, 450)
    with limited(path) as replay:
        assert (counts(replay), replay.stats()["rate_limiter"]["error"]) == ((10, 0), 0)
        replay.push(**row(90))
    with limited(path, tolerance=30) as replay:
        assert counts(replay) == (11, 0)


def test_counts_go_on_in_a_saved_copy_and_begin_anew_after_a_load(path: Path) -> None:
    with limited(path) as replay:
        replay.extend(**columns(0, 12))
        replay.sample(4)
        replay.save(path.with_name("copy"))
        replay.load(path.with_name("copy"))
        assert counts(replay) == (10, 0)
        replay.push(**row(12))
    with limited(path) as replay:
        assert counts(replay) == (11, 0)
    with limited(path.with_name("copy")) as replay:
        assert counts(replay) == (12, 4)


def test_a_damaged_note_is_told_with_the_way_out(path: Path) -> None:
    with limited(path) as replay:
        replay.extend(**columns(0, 12))
        note = replay.notes()["rate limiter"]
    for wrong in (None, 1.5, "x", 2**63, True):
        put(path, "notes", {b"rate limiter": seal("rate limiter", {**note, "samples": wrong})})
        with diskreplay.open(path) as buffer:
            with pytest.raises(DamageError, match=r"delete_note\('rate limiter'\) of the buffer"):
                RateLimited(buffer, **LIMITS)
            buffer.check()
    with diskreplay.open(path) as buffer:
        buffer.delete_note("rate limiter")
        assert counts(RateLimited(buffer, **LIMITS)) == (10, 0)


def test_a_buffer_that_only_reads_is_refused(path: Path) -> None:
    ReplayBuffer(100, path=path).close()
    with diskreplay.open(path, access="read") as buffer, pytest.raises(ReadOnlyError):
        RateLimited(buffer)


def test_a_forked_child_reads_without_limits(path: Path, begin: Begin) -> None:
    with limited(path, timeout=None, min_size=20) as replay:
        replay.extend(**columns(0, 12))
        replay.flush()
        waiting = begin(replay, "sample", lambda: replay.sample(4).rewards.size)

        def read() -> list[Any]:
            with pytest.raises(ReadOnlyError):
                replay.push(**row(12))
            return [replay.sample(4).rewards.size, replay.stats()["rate_limiter"]["samples"]]

        with replay._turns.lock:  # as a call of another thread would hold it
            assert in_child(read).value == [4, 0]
        replay.extend(**columns(12, 8))
        assert waiting.result(30) == 4


@pytest.mark.parametrize("call", [pickle.dumps, copy.copy, copy.deepcopy])
def test_copies_are_refused(call: Callable[[Any], Any], path: Path) -> None:
    with limited(path) as replay:
        with pytest.raises(ArgumentError, match="send the replay that it wraps"):
            call(replay)
        pickle.dumps(replay._replay)


def test_what_else_a_buffer_can_do_goes_through(path: Path) -> None:
    with limited(path, PrioritizedReplayBuffer) as replay:
        replay.extend(**columns(0, 12), priorities=np.arange(12))
        assert replay.priorities([3]).tolist() == [3.0]
        assert (replay.path, replay.max_priority) == (path, 11.0)
        batch = replay.sample(4, beta=1.0)
        assert replay.sample(4, out=batch).rewards is batch.rewards
        assert repr(replay) == f"RateLimited({replay._replay!r})"
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            replay.nothing  # noqa: B018


def test_counts_are_those_of_the_transitions_after_a_kill(path: Path, long: bool) -> None:
    def work() -> None:
        with limited(path) as replay:
            for number in range(replay.count, 100_000):
                if replay._allows_insert(1):
                    replay.push(**row(number))
                while replay.is_ready(8):
                    replay.sample(8)
                if not number % 7:
                    replay.flush()

    rounds = 100 if long else 8
    moments = np.random.default_rng(3).uniform(0.02, 0.3, rounds).tolist()
    killed = 0
    for was_killed in at_random(work, moments):
        killed += was_killed
        if not (path / "diskreplay.json").exists():
            continue
        assert diskreplay.verify(path) == []
        with limited(path) as replay:
            inserts, samples = counts(replay)
            assert inserts == replay.count
            assert abs((inserts - 10) * 2 - samples) <= 20 or inserts <= 10
    assert killed == rounds
    assert inserts > 100

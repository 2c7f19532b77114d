"""Batches drawn ahead by a thread: nobody can tell, but for what the documentation says."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, run_python
from drawn import KINDS, SIZE, N, as_bytes, expected, fill, filled
from inside import store_of
from interrupted import interrupted_at
from refused import writes_refused

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.buffer.guard import open_guards


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for guard in list(open_guards):
        guard.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("prefetch", [0, 1, 8])
def test_batches_and_their_weights_are_those_of_sample(prefetch: int) -> None:
    found = []
    buffer = filled(PrioritizedReplayBuffer)
    with buffer.batches(SIZE, prefetch=prefetch) as batches:
        for _, batch in zip(range(30), batches, strict=False):
            found.append(as_bytes(batch))
            assert buffer.frame == len(found) == buffer.stats()["frame"]
            assert buffer.beta == pytest.approx(0.4 + 0.6 * len(found) / 50)
    assert found == expected(PrioritizedReplayBuffer, 30)


@pytest.mark.parametrize("kind", KINDS)
def test_closed_batches_count_for_nothing(kind: type) -> None:
    wanted = expected(kind, 4)
    buffer = filled(kind)
    batches = buffer.batches(SIZE, prefetch=4)
    assert as_bytes(next(batches)) == wanted[0]
    fill(batches)
    batches.close()
    batches.close()
    assert as_bytes(buffer.sample(SIZE)) == wanted[1]
    with buffer.batches(SIZE, prefetch=2) as again:
        assert as_bytes(next(again)) == wanted[2]
        fill(again)
    del again
    assert as_bytes(buffer.sample(SIZE)) == wanted[3]


def test_dropped_batches_count_for_nothing_and_the_thread_ends() -> None:
    wanted = expected(PrioritizedReplayBuffer, 2)
    buffer = filled(PrioritizedReplayBuffer)
    batches = buffer.batches(SIZE, prefetch=3)
    next(batches)
    fill(batches)
    thread = batches._drawn_ahead.thread
    del batches
    thread.join(30)
    assert not thread.is_alive()
    assert as_bytes(buffer.sample(SIZE)) == wanted[1]
    assert buffer.frame == 2


def test_a_buffer_and_its_batches_go_together(tmp_path: Path) -> None:
    batches = filled(ReplayBuffer, tmp_path / "b").batches(SIZE, prefetch=2)
    fresh = [as_bytes(next(batches)) for _ in range(2)]
    fill(batches)
    del batches  # nobody else has the buffer: it is closed, and its store can be opened
    with diskreplay.open(tmp_path / "b") as buffer:
        assert [*fresh, as_bytes(buffer.sample(SIZE))] == expected(ReplayBuffer, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interval", [0, 1e9])
def test_a_killed_run_goes_on_with_the_batch_that_was_not_given(
    kind: type, interval: float, tmp_path: Path
) -> None:
    code = """
        import os, signal, sys
        import drawn as t
        buffer = t.filled(getattr(t, sys.argv[1]), sys.argv[2], commit_interval=float(sys.argv[3]))
        batches = buffer.batches(t.SIZE, prefetch=4)
        for _ in range(5):
            next(batches)
        t.fill(batches)
        if buffer._options.commit_interval:
            buffer.flush()
            next(batches)  # after the last commit: it is given again
            t.fill(batches)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = run_python(code, kind.__name__, tmp_path / "b", interval, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with diskreplay.open(tmp_path / "b", commit_interval=1e9) as buffer:
        assert [as_bytes(buffer.sample(SIZE)) for _ in range(6)] == expected(kind, 11)[5:]
        if isinstance(buffer, PrioritizedReplayBuffer):
            assert buffer.frame == 11


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_error_comes_where_its_batch_would_and_is_gone_with_its_cause(prefetch: int) -> None:
    with ReplayBuffer(N, seed=3) as buffer, buffer.batches(SIZE, prefetch) as batches:
        for n in range(3):
            with pytest.raises(diskreplay.SampleError, match=f"cannot draw 16 .* holds {5 * n}"):
                next(batches)
            buffer.extend(**columns(5 * n, 5))
        buffer.extend(**columns(15, N - 15))
        found = [as_bytes(next(batches)) for _ in range(6)]
    assert found == expected(ReplayBuffer, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_met_at_the_batch_that_holds_it(kind: type, tmp_path: Path) -> None:
    with filled(kind, tmp_path / "b", window_bytes=0):
        pass
    data = bytearray((tmp_path / "b" / "data.mdb").read_bytes())
    data[data.index(columns(76, 1)["states"].tobytes())] ^= 1
    (tmp_path / "b" / "data.mdb").write_bytes(data)

    def drawn(prefetch: int) -> list[bytes]:
        found = []
        buffer: Any = diskreplay.open(tmp_path / "b", access="read", seed=5, window_bytes=0)
        with buffer.batches(SIZE, prefetch) as batches:
            for _ in range(60):
                try:
                    found.append(as_bytes(next(batches)))
                except diskreplay.DamageError as error:
                    found.append(str(error).encode())
        buffer.close()
        return found

    alone = drawn(0)
    assert 0 < sum(b"write id 76 " in one for one in alone) < 30
    assert drawn(3) == alone


@pytest.mark.parametrize("n", [1, 4])
def test_pushes_and_updates_take_effect_n_batches_later(n: int) -> None:
    wanted = expected(PrioritizedReplayBuffer, 1 + n)
    buffer = filled(PrioritizedReplayBuffer)
    with buffer.batches(SIZE, prefetch=n) as batches:
        found = [as_bytes(next(batches))]
        fill(batches)
        buffer.extend(**columns(N, N))  # evicts all
        buffer.update_priorities([N + 5], [1e30])
        for _ in range(n):
            batch = next(batches)
            found.append(as_bytes(batch))
            assert buffer.update_priorities(batch.indices, np.ones(SIZE)) == 0
        assert found == wanted
        assert buffer.stats()["stale_updates"] == n * SIZE
        assert set(next(batches).indices) == {N + 5}


@pytest.mark.parametrize("how", ["clear", "load"])
def test_what_was_cleared_or_replaced_is_not_given(how: str, tmp_path: Path) -> None:
    def drawn(prefetch: int) -> list[bytes]:
        buffer = filled(PrioritizedReplayBuffer)
        with buffer.batches(SIZE, prefetch) as batches:
            found = [as_bytes(next(batches))]
            if prefetch:
                fill(batches)
            if how == "load":
                buffer.load(tmp_path / "saved")
            else:
                buffer.clear()
                with pytest.raises(diskreplay.SampleError):
                    next(batches)
                buffer.extend(**columns(N, 50))
            found += [as_bytes(next(batches)) for _ in range(5)]
            assert buffer.frame == (6 if how == "clear" else 5 + 2)
        buffer.close()
        return found

    with PrioritizedReplayBuffer(N, path=tmp_path / "saved", seed=8, beta_frames=50) as saved:
        saved.extend(**columns(N, 40))
        saved.sample(3)
        saved.sample(3)
    assert drawn(3) == drawn(0)


def test_all_who_draw_are_given_the_draws_in_their_order(tmp_path: Path) -> None:
    wanted = expected(PrioritizedReplayBuffer, 12)
    buffer = filled(PrioritizedReplayBuffer, tmp_path / "b")
    first, second = buffer.batches(SIZE, prefetch=2), buffer.batches(SIZE, prefetch=3)
    found = [next(first)]
    fill(first)  # has 1 and 2
    found += [buffer.sample(SIZE), next(second)]
    fill(second)  # has 3, 4 and 5
    found += [next(first), next(first), next(second)]
    buffer.flush()
    with store_of(buffer).snapshot() as snapshot:
        state = snapshot.meta("state")
        assert (state["draws"], state["sampler"]["frame"]) == (6, 6)
    second.close()
    found += [buffer.sample(SIZE), next(first)]
    first.close()
    found.append(buffer.sample(SIZE))
    assert [*map(as_bytes, found)] == wanted[:9]
    assert buffer.frame == 9


def test_a_commit_that_fails_leaves_the_batch_for_the_next_call(tmp_path: Path) -> None:
    buffer = filled(PrioritizedReplayBuffer, tmp_path / "b", commit_interval=0)
    found: list[bytes] = []
    with buffer.batches(SIZE, prefetch=3) as batches:
        found.append(as_bytes(next(batches)))
        fill(batches)
        with writes_refused(), pytest.raises(diskreplay.StorageError):
            next(batches)
        assert buffer.frame == len(found)
        found += [as_bytes(next(batches)) for _ in range(3)]
    assert found == expected(PrioritizedReplayBuffer, len(found))


def test_a_closed_buffer_has_no_batches() -> None:
    buffer = filled(ReplayBuffer)
    batches, direct = buffer.batches(SIZE, prefetch=2), buffer.batches(SIZE)
    next(batches)
    fill(batches)
    thread = batches._drawn_ahead.thread
    buffer.close()
    assert not thread.is_alive()
    for closed in (batches, direct):
        with pytest.raises(diskreplay.ClosedError, match="open it again"):
            next(closed)
    batches.close()


def test_a_user_who_waits_is_told_that_the_buffer_was_closed() -> None:
    buffer = filled(ReplayBuffer)
    batches = buffer.batches(SIZE, prefetch=1)
    next(batches)
    errors: list[BaseException] = []

    def use() -> None:
        try:
            while True:
                next(batches)
        except diskreplay.ClosedError as error:
            errors.append(error)

    users = [threading.Thread(target=use) for _ in range(3)]
    for user in users:
        user.start()
    buffer.close()
    for user in users:
        user.join(60)
    assert len(errors) == 3


@pytest.mark.parametrize("what", ["next", "close"])
def test_an_interrupt_at_any_line_leaves_what_is_drawn_and_counted_agreeing(what: str) -> None:
    wanted = expected(PrioritizedReplayBuffer, 600)
    with filled(PrioritizedReplayBuffer) as buffer:
        line, came_so_far = 0, True
        while came_so_far:
            line += 1
            batches = buffer.batches(SIZE, prefetch=2)
            if line > 5:  # before that, with the making of the thread
                assert as_bytes(next(batches)) == wanted[buffer.frame - 1]
                fill(batches)
            call = batches.close if what == "close" else lambda: next(batches)  # noqa: B023
            came_so_far = interrupted_at(line, call)
            batches.close()
            assert as_bytes(buffer.sample(SIZE)) == wanted[buffer.frame - 1]
    assert line > 10


def test_a_forked_child_is_told_and_makes_its_own(tmp_path: Path) -> None:
    code = """
        import os, sys, warnings, diskreplay
        import drawn as t
        warnings.simplefilter("ignore", DeprecationWarning)
        buffer = t.filled(t.ReplayBuffer, sys.argv[1], commit_interval=0.001)
        buffer.flush()  # a child sees what is committed
        batches = buffer.batches(t.SIZE, prefetch=3)
        found = []
        for _ in range(20):
            found.append(t.as_bytes(next(batches)))
            child = os.fork()
            if child == 0:
                try:
                    next(batches)
                except diskreplay.ClosedError as error:
                    assert "in the process that this one was forked from" in str(error)
                    batches.close()
                    with buffer.batches(t.SIZE, prefetch=2) as own:
                        next(own), next(own)
                    del batches
                    buffer.close()
                    os._exit(0)
                os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
        assert found == t.expected(t.ReplayBuffer, 20)
    """
    run_python(code, tmp_path / "b")


def test_a_program_may_end_in_the_middle(tmp_path: Path) -> None:
    code = """
        import sys
        import drawn as t
        buffer = t.filled(t.PrioritizedReplayBuffer, sys.argv[1])
        batches = buffer.batches(t.SIZE, prefetch=3)
        for _ in range(7):
            next(batches)
    """
    assert run_python(code, tmp_path / "b").stderr == ""
    with diskreplay.open(tmp_path / "b") as buffer:
        wanted = expected(PrioritizedReplayBuffer, 8)
        assert as_bytes(buffer.sample(SIZE)) == wanted[7]


def test_a_trainer_pushes_and_updates_beside_the_thread() -> None:
    buffer = filled(PrioritizedReplayBuffer, commit_interval=0.001, window_bytes=0)
    with buffer.batches(SIZE, prefetch=4) as batches:
        for step, batch in zip(range(500), batches, strict=False):
            assert numbers_of(batch).tolist() == batch.indices.tolist()
            buffer.extend(**columns(N + 3 * step, 3))
            buffer.update_priorities(batch.indices, np.abs(np.sin(batch.indices)))
    assert buffer.frame == 500
    buffer.check()
    assert os.path.exists(buffer.path)

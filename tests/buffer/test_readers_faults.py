"""Readers that are killed, stopped or cannot run; damage, interrupts and other writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from common import numbers_of
from drawn import KINDS, SIZE
from others import Other
from reading import (
    CAPACITY,
    WIDE,
    assert_sound,
    content,
    drawn,
    functions_of,
    nothing_left,
    pids_of,
    rows,
    state_of,
    stored,
    wait_for_reads,
    wait_until,
)
from refused import writes_refused
from stores import change
from stores import stored as value_of
from talking import Talking

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


@pytest.mark.parametrize("width", [0, WIDE])
def test_the_batches_of_readers_that_are_killed_are_the_same(
    width: int, tmp_path: Path, long: bool
) -> None:
    rng = np.random.default_rng(width)
    kills, most = 0, 250 if long else 8
    with (
        stored(PrioritizedReplayBuffer, tmp_path / "b", width) as buffer,
        stored(PrioritizedReplayBuffer, None, width, window_bytes=1 << 30) as other,
        buffer.batches(SIZE, 3, 2, reuse=True) as batches,
    ):
        while kills < most:
            assert content(next(batches)) == content(other.sample(SIZE))
            how = rng.random()
            if how < 0.5:  # or else while they read, or begin
                wait_for_reads(batches)
            if how < 0.8:
                reader = int(rng.choice(pids_of(batches)))
                if how < 0.2:
                    os.kill(reader, signal.SIGSTOP)
                os.kill(reader, signal.SIGKILL)
                kills += 1
        for _ in range(5):
            assert content(next(batches)) == content(other.sample(SIZE))
        assert len(pids_of(batches)) == 2


def test_the_request_of_a_stopped_reader_goes_to_another_when_it_is_killed(tmp_path: Path) -> None:
    wanted = drawn(ReplayBuffer, 4, WIDE)
    with (
        stored(ReplayBuffer, tmp_path / "b", WIDE) as buffer,
        buffer.batches(SIZE, 1, 1) as batches,
    ):
        found = [content(next(batches))]
        wait_for_reads(batches)
        [reader] = pids_of(batches)
        os.kill(reader, signal.SIGSTOP)
        found.append(content(next(batches)))
        user = threading.Thread(target=lambda: found.append(content(next(batches))))
        user.start()
        wait_until(lambda: "wait_for_reply" in functions_of(user))
        os.kill(reader, signal.SIGKILL)
        user.join()
        assert [*found, content(next(batches))] == wanted


def test_readers_that_are_killed_all_at_once_are_replaced(tmp_path: Path) -> None:
    n = 5  # as many deaths one after the other would be an error
    with (
        stored(ReplayBuffer, tmp_path / "b") as buffer,
        stored(ReplayBuffer, None) as other,
        buffer.batches(SIZE, n, n) as batches,
    ):
        for _ in range(2):
            assert content(next(batches)) == content(other.sample(SIZE))
            wait_for_reads(batches)
            readers = pids_of(batches)
            assert len(readers) == n
            for reader in readers:
                os.kill(reader, signal.SIGSTOP)
            for _ in range(n):  # all that is ready, so that each reader has a request
                assert content(next(batches)) == content(other.sample(SIZE))
            for reader in readers:
                os.kill(reader, signal.SIGKILL)
            wait_until(lambda: not {*map(state_of, readers)} - {"", "Z"})  # noqa: B023
            for _ in range(12):
                assert content(next(batches)) == content(other.sample(SIZE))


@pytest.mark.parametrize("moment", ["before", "while a reader starts"])
def test_readers_do_not_read_another_store_that_was_put_in_its_place(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with ReplayBuffer(CAPACITY, path=tmp_path / "other") as other:
        other.extend(**rows(5000, CAPACITY))
    with stored(ReplayBuffer, tmp_path / "b") as buffer, buffer.batches(SIZE, 2, 1) as batches:
        swap = f"mv {tmp_path}/b {tmp_path}/old && mv {tmp_path}/other {tmp_path}/b"
        if moment == "before":
            subprocess.run(swap, shell=True, check=True)
        else:
            python = tmp_path / "python"
            python.write_text(
                f'#!/bin/sh\n[ -e {tmp_path}/old ] || {{ {swap}; }}\nexec {sys.executable} "$@"\n'
            )
            python.chmod(0o755)
            monkeypatch.setattr(sys, "executable", str(python))
        with pytest.raises(diskreplay.StorageError, match="another file now"):
            next(batches)
        told = "is another store now: it was replaced while it was open"
        assert (told in capfd.readouterr().err) == (moment != "before")
        monkeypatch.undo()
        subprocess.run(f"mv {tmp_path}/b {tmp_path}/other", shell=True, check=True)
        subprocess.run(f"mv {tmp_path}/old {tmp_path}/b", shell=True, check=True)
        assert content(next(batches)) == drawn(ReplayBuffer, 1)[0]


@pytest.mark.parametrize("reason", ["frozen", "no text"])
def test_readers_that_cannot_be_started_are_an_error(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen program would start itself, which would start itself, and so on."""
    with stored(ReplayBuffer, tmp_path / "b") as buffer, buffer.batches(SIZE, 2, 1) as batches:
        with monkeypatch.context() as patch:
            if reason == "frozen":
                patch.setattr(sys, "frozen", True, raising=False)
            else:
                patch.setattr(sys, "path", [*sys.path, "a\0b"])
            with pytest.raises(diskreplay.StorageError, match=r"readers?.*: use readers=0"):
                next(batches)
        assert content(next(batches)) == drawn(ReplayBuffer, 1)[0]


def test_readers_that_cannot_live_are_an_error_and_hold_up_no_commit(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho this Python is broken >&2\nexit 1\n")
    broken.chmod(0o755)
    with (
        stored(PrioritizedReplayBuffer, tmp_path / "b") as buffer,
        stored(PrioritizedReplayBuffer, None) as other,
        buffer.batches(SIZE, 2, 2) as batches,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(broken))
            for _ in range(2):
                with pytest.raises(diskreplay.StorageError, match=r"end at once.*readers=0"):
                    next(batches)
            assert capfd.readouterr().err.count("broken") >= 10
        found = [content(next(batches))]
        wait_for_reads(batches)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(broken))
            for reader in pids_of(batches):
                os.kill(reader, signal.SIGKILL)
            found.append(content(next(batches)))  # it was read, and so was the third
            assert found == [content(other.sample(SIZE)) for _ in range(2)]
            buffer.extend(**rows(CAPACITY, CAPACITY))
            buffer.update_priorities([CAPACITY + 1], [1e30])
            buffer.flush()  # although the fourth cannot be read
            assert set(buffer.sample(SIZE).indices) == {CAPACITY + 1}
        assert set(next(batches).indices) == {CAPACITY + 1}


@pytest.mark.parametrize("executable", ["", "/nonexistent/python"])
def test_an_interpreter_that_is_not_there_is_named(
    executable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = drawn(ReplayBuffer, 2)
    with stored(ReplayBuffer, tmp_path / "b") as buffer, buffer.batches(SIZE, 2, 1) as batches:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", executable)
            with pytest.raises(diskreplay.StorageError, match=r"reader process.*readers=0"):
                next(batches)
        with monkeypatch.context() as patch:  # entries that no import understands are passed over
            patch.setattr(sys, "path", [*sys.path, tmp_path])
            assert [content(next(batches)), content(buffer.sample(SIZE))] == wanted


def test_memory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with nothing_left(), stored(ReplayBuffer, tmp_path / "b") as buffer:
        batches = buffer.batches(SIZE, 2, 1)
        with (
            writes_refused(),
            pytest.raises(diskreplay.StorageError, match="no memory for batches"),
        ):
            next(batches)
        assert content(next(batches)) == drawn(ReplayBuffer, 1)[0]


def test_a_commit_that_fails_leaves_the_batch_for_the_next_call(tmp_path: Path) -> None:
    wanted = drawn(PrioritizedReplayBuffer, 5)
    with (
        stored(PrioritizedReplayBuffer, tmp_path / "b", commit_interval=0) as buffer,
        buffer.batches(SIZE, 3, 1) as batches,
    ):
        found = [content(next(batches))]
        with writes_refused(), pytest.raises(diskreplay.StorageError):
            next(batches)
        assert buffer.frame == 1
        assert [*found, *(content(next(batches)) for _ in range(4))] == wanted


def spoil(path: Path, write_id: int) -> None:
    """Change a bit of a record, through the engine: no page is damaged."""
    with diskreplay.open(path, access="read") as buffer:
        record_bytes = buffer._guard.replica.rows._codec.record_bytes
        group, within = divmod(write_id, buffer._guard.replica.rows._grouping.per_value)
    value = bytearray(value_of(path, "transitions", group))
    value[(within + 1) * record_bytes - 3] ^= 4
    change(path, "transitions", group, bytes(value))


@pytest.mark.parametrize("width", [0, WIDE])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_met_at_the_batch_that_holds_it(kind: type, width: int, tmp_path: Path) -> None:
    stored(kind, tmp_path / "b", width).close()
    spoil(tmp_path / "b", 76)

    def found(prefetch: int, readers: int) -> list[bytes]:
        said = []
        with (
            diskreplay.open(tmp_path / "b", access="read", seed=5, window_bytes=0) as buffer,
            buffer.batches(SIZE, prefetch, readers) as batches,
        ):
            for _ in range(30):
                try:
                    said.append(content(next(batches)))
                except diskreplay.DamageError as error:
                    said.append(str(error).encode())
        return said

    alone = found(0, 0)
    assert 0 < sum(b"write id 76 " in one for one in alone) < 30
    assert found(3, 2) == alone


def test_damage_is_left_out_if_the_user_says_so(tmp_path: Path) -> None:
    stored(PrioritizedReplayBuffer, tmp_path / "b").close()
    for write_id in (20, 76, 77):
        spoil(tmp_path / "b", write_id)
    with (
        diskreplay.open(tmp_path / "b", on_damage="skip") as buffer,
        buffer.batches(SIZE, 3, 2) as batches,
    ):
        for _, batch in zip(range(40), batches, strict=False):
            assert numbers_of(batch).tolist() == batch.indices.tolist()
            assert not {20, 76, 77} & set(batch.indices.tolist())
        assert buffer.frame == 40
        assert {20, 76, 77} == buffer._guard.replica.damaged


@pytest.mark.parametrize("access", ["read", "shared"])
@pytest.mark.parametrize("width", [0, WIDE])
def test_rows_that_another_process_evicts_are_drawn_again(
    access: str, width: int, tmp_path: Path
) -> None:
    write = """
        import sys, diskreplay
        from reading import CAPACITY, rows
        path, width = sys.argv[1], int(sys.argv[2])
        for lap in range(1, 3):
            input()
            with diskreplay.open(path, access="shared") as buffer:
                buffer.extend(**rows(lap * CAPACITY, CAPACITY, width))
            print("written", flush=True)
    """
    stored(PrioritizedReplayBuffer, tmp_path / "b", width).close()
    with (
        diskreplay.open(tmp_path / "b", access=access, seed=1, window_bytes=0) as buffer,
        buffer.batches(SIZE, 2, 1, reuse=True) as batches,
        Talking(write, tmp_path / "b", width) as writer,
    ):
        next(batches)
        for lap in range(1, 3):
            wait_for_reads(batches)
            [reader] = pids_of(batches)
            os.kill(reader, signal.SIGSTOP)
            for _ in range(2):  # and two more are asked for
                assert next(batches).indices.max() < lap * CAPACITY
            writer.say()
            assert writer.hear() == "written"
            os.kill(reader, signal.SIGCONT)
            for _ in range(3):
                batch = next(batches)
                assert_sound(batch, width)
                assert batch.indices.min() >= lap * CAPACITY
        assert buffer._guard.replica.draws == 11


def test_beside_writers_every_batch_is_sound(tmp_path: Path, other: Other) -> None:
    other.open(CAPACITY, access="shared")
    other.extend(0, CAPACITY, x=np.arange(CAPACITY))
    other.flush()
    with (
        diskreplay.open(tmp_path / "b", access="shared", window_bytes=0, seed=2) as buffer,
        buffer.batches(SIZE, 3, 2, reuse=True) as batches,
    ):
        for step in range(60):
            oldest = buffer.first
            batch = next(batches)
            assert_sound(batch, 0)
            assert batch.indices.min() >= oldest - 4 * 7  # as of its draw, or later
            count = CAPACITY + 7 * step
            other.extend(count, 7, x=np.arange(count, count + 7))
            other.flush()
            buffer.update_priorities(batch.indices, np.abs(np.sin(batch.indices)))
            if step == 30:
                buffer.clear()
                other.extend(count + 7, SIZE, x=np.arange(count + 7, count + 7 + SIZE))
                other.flush()
                break
        batch = next(batches)
        assert_sound(batch, 0)
        assert batch.indices.min() >= count + 7

"""Batches with Frames after interrupts, kills, and beside writers: those of an undisturbed run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import run_python
from interrupted import COMPUTING, interrupted_at
from reading import pids_of, wait_for_reads
from stacked import columns, content, stored
from talking import Talking

import diskreplay
from diskreplay import ReplayBuffer
from diskreplay.buffer.batch_form import BatchForm
from diskreplay.buffer.batch_slots import BatchSlots
from diskreplay.buffer.stored_rows import RowsPart

N, SIZE = 80, 16


def test_the_batches_of_readers_that_are_killed_are_the_same(long: bool) -> None:
    rng = np.random.default_rng(5)
    with (
        stored(None, N, pending=20) as buffer,
        stored(None, N, pending=20) as twin,
        buffer.batches(SIZE, 3, 2, reuse=True, frames=True) as batches,
    ):
        for _ in range(100 if long else 7):
            assert content(next(batches)) == content(twin.sample(SIZE))
            if rng.random() < 0.5:  # or else while they read, or begin
                wait_for_reads(batches)
            os.kill(int(rng.choice(pids_of(batches))), signal.SIGKILL)
        assert content(next(batches)) == content(twin.sample(SIZE))


@pytest.mark.parametrize(("prefetch", "readers"), [(0, 0), (2, 0), (2, 1)])
def test_an_interrupt_at_any_line_loses_no_batch(prefetch: int, readers: int, long: bool) -> None:
    over = [*COMPUTING, "sampling", "store"]
    with stored(None, N, pending=20) as buffer, stored(None, N, pending=20) as twin:
        wanted: list[bytes] = []

        def check(batch: Any) -> None:
            while len(wanted) < buffer.frame:
                wanted.append(content(twin.sample(SIZE)))
            assert content(batch) == wanted[-1]

        batches = buffer.batches(SIZE, prefetch, readers, reuse=True, frames=True)
        line, came_so_far = 0, True
        while came_so_far:
            line += 1 if long else 3
            check(next(batches))
            came_so_far = interrupted_at(line, lambda: next(batches), over=over)
            check(next(batches))
        batches.close()
        check(buffer.sample(SIZE))
        assert line > 10


@pytest.mark.parametrize("readers", [0, 2])
def test_a_killed_run_goes_on_with_the_batch_that_was_not_given(
    readers: int, tmp_path: Path
) -> None:
    code = """
        import os, signal, sys
        import stacked as t
        buffer = t.stored(sys.argv[1], 80)
        batches = buffer.batches(16, 3, int(sys.argv[2]), frames=True)
        for _ in range(5):
            next(batches)
        buffer.flush()
        next(batches)  # after the last commit: it is given again
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = run_python(code, tmp_path / "b", readers, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with (
        stored(None, N) as twin,
        diskreplay.open(tmp_path / "b") as buffer,
        buffer.batches(SIZE, 3, readers, frames=True) as batches,
    ):
        wanted = [content(twin.sample(SIZE)) for _ in range(11)]
        assert [content(next(batches)) for _ in range(6)] == wanted[5:]


@pytest.mark.parametrize(("prefetch", "readers"), [(0, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_pushes_between_batches_are_drawn_whole(
    access: str, prefetch: int, readers: int, tmp_path: Path
) -> None:
    """Laps of the ring, so that the log loses frames while batches wait."""
    with (
        ReplayBuffer(
            60, path=tmp_path / "b", access=access, frame_axis=0, commit_interval=1e9
        ) as buffer,
        buffer.batches(SIZE, prefetch, readers, reuse=True, frames=True) as batches,
    ):
        given = columns(0, 200)
        for first in range(0, 200, 20):
            buffer.extend(**{name: column[first : first + 20] for name, column in given.items()})
            for turn in range(3):
                if access == "shared" or turn == 1:
                    buffer.flush()
                batch = next(batches)
                for name in ("states", "next_states"):
                    wanted = given[name][batch.indices]
                    np.testing.assert_array_equal(getattr(batch, name).whole(), wanted)


@pytest.mark.parametrize(("prefetch", "readers"), [(0, 0), (2, 0), (2, 1)])
def test_a_reader_beside_a_writer_sees_whole_stacks(
    prefetch: int, readers: int, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    stored(path, 30).close()
    code = """
        import sys, diskreplay
        import stacked as t
        for first in range(30, 30 + 4 * 40, 40):
            input()
            with diskreplay.open(sys.argv[1]) as buffer:
                buffer.extend(**t.columns(first, 40))
            print("written", flush=True)
    """
    given = columns(0, 30 + 4 * 40)
    with (
        diskreplay.open(path, access="read", seed=1) as buffer,
        buffer.batches(SIZE, prefetch, readers, frames=True) as batches,
        Talking(code, path) as writer,
    ):
        for _ in range(4):
            writer.say()
            assert writer.hear() == "written"
            for _ in range(4):
                batch = next(batches)
                wanted = given["states"][batch.indices]
                np.testing.assert_array_equal(batch.states.whole(), wanted)


def test_a_read_that_is_made_again_writes_the_same() -> None:
    """As another reader does in place of one that was killed at the end of its read."""
    with stored(None, N, pending=20) as buffer:
        replica = buffer._guard.replica
        [slot] = BatchSlots(buffer.schema, N, 1, BatchForm(frames=True)).slots
        columns, ids = slot.arrays.columns, np.arange(N)
        places = replica.rows.take_uncommitted(columns, ids, replica.committed)
        assert places.size == N - 20
        found = []
        for _ in range(2):
            replica.rows.stored.read([RowsPart(columns, ids[places], None, places)])
            states, next_states = columns[0], columns[3]
            found.append((states.frames.tobytes(), states.whole(), next_states.whole()))
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(found[1][1], buffer.get(ids).states)

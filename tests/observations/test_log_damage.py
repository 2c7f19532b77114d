"""Damaged entries of the log are reported, and never part of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import run_python
from env_streams import EnvStream, frame_of

import diskreplay
from diskreplay import ReplayBuffer
from diskreplay.lmdbfile import Faults, Walk
from diskreplay.store import held_data_file, pinned_commit

BAD = 17  # the frame of this number is damaged
ROWS = 40
REFERRING = {14, 15, 16, 17}  # its write ids: next state of 14, and three more with the stack


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of one stream, in which frame number BAD has a flipped bit."""
    path, stream = tmp_path / "b", EnvStream()
    with ReplayBuffer(ROWS, path=path, frame_axis=0, window_bytes=0) as buffer:
        for number in range(1, ROWS + 1):
            buffer.push(**stream.step(number + 2))
    data = bytearray((path / "data.mdb").read_bytes())
    frame = frame_of(BAD).tobytes()
    assert data.count(frame) == 1
    data[data.index(frame) + 5] ^= 4
    (path / "data.mdb").write_bytes(data)
    return path


def opened(path: Path, **settings: Any) -> ReplayBuffer:
    return ReplayBuffer(ROWS, path=path, window_bytes=0, **settings)


def test_reading_names_the_transition_and_the_observation(path: Path) -> None:
    with opened(path) as buffer:
        for write_id in sorted(REFERRING):
            expected = (
                rf"transition of write id {write_id} in slot {write_id} is damaged: the entry"
            )
            with pytest.raises(
                diskreplay.DamageError, match=rf"{expected} of observation 15 .*check"
            ):
                buffer.get([write_id])
        with pytest.raises(diskreplay.DamageError, match="write id"):
            buffer.sample(ROWS)
        good = [i for i in range(ROWS) if i not in REFERRING]
        states = buffer.get(good).states
        np.testing.assert_array_equal(
            states[:, -1, -1, -1], [max(i + 2, 0) if i else 0 for i in good]
        )
        # Fields in the record are not concerned.
        assert buffer.get(range(ROWS), fields=["action"])["action"].tolist() == list(range(3, 43))


def test_draws_leave_the_transitions_out(path: Path) -> None:
    with opened(path, on_damage="skip", seed=2) as buffer:
        drawn: set[int] = set()
        for _ in range(20):
            drawn |= set(buffer.sample(ROWS - len(REFERRING)).indices.tolist())
        assert drawn == set(range(ROWS)) - REFERRING
        assert buffer.stats()["damaged"] == len(REFERRING)


def test_check_and_verify_name_the_observation_once(path: Path) -> None:
    with opened(path) as buffer, pytest.raises(diskreplay.DamageError) as error:
        buffer.check()
    assert str(error.value).count("the entry of observation 15 is damaged") == 1
    assert "\n".join(diskreplay.verify(path)).count("observation 15 is damaged") == 1


def test_a_run_goes_on_with_a_damaged_tail(tmp_path: Path) -> None:
    """New entries go into another value than the damaged last one."""
    path, stream = tmp_path / "b", EnvStream()
    rows = [stream.step(number) for number in range(1, 30)]
    with ReplayBuffer(ROWS, path=path, frame_axis=0) as buffer:
        for row in rows[:10]:
            buffer.push(**row)
    data = bytearray((path / "data.mdb").read_bytes())
    at = data.index(frame_of(4).tobytes())
    begin = data.rindex(b"\xc6\0\0\0\x30", 0, at)  # the offsets of eleven entries, and the end
    data[begin + 1] ^= 0x80
    (path / "data.mdb").write_bytes(data)
    with opened(path) as buffer:
        for row in rows[10:]:
            buffer.push(**row)
        buffer.flush()
    with opened(path) as buffer:
        batch = buffer.get(range(12, 29))
        np.testing.assert_array_equal(batch.states, [row["state"] for row in rows[12:]])
        with pytest.raises(diskreplay.DamageError, match="observation"):
            buffer.get([3])
    # Its entries are there as before, for a repair.
    assert diskreplay.repair(path, tmp_path / "repaired").copied == 29
    with diskreplay.open(tmp_path / "repaired") as buffer:
        np.testing.assert_array_equal(buffer.get(range(29)).states, [row["state"] for row in rows])


@pytest.mark.parametrize("layout", [{}, {"frame_axis": 0}, {"observations": "log"}])
def test_opening_after_a_kill_reads_no_record_and_no_entry(
    layout: dict[str, Any], tmp_path: Path
) -> None:
    """All of them are damaged, and the buffer opens, draws, and takes new transitions."""
    path = tmp_path / "b"
    run_python(
        f"""
        import os, signal
        from env_streams import EnvStream
        from diskreplay import PrioritizedReplayBuffer
        buffer = PrioritizedReplayBuffer(2000, path={str(path)!r}, seed=3, **{layout!r})
        stream = EnvStream()
        for step in range(3000):
            buffer.push(**stream.step(step % 251), priority=step % 7)
        buffer.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        check=False,
    )
    with diskreplay.open(path, access="read", seed=1) as buffer:
        expected = buffer.draw(64)
    faults = Faults()
    with held_data_file(path, faults) as (file, _), pinned_commit(path, file) as (meta, _):
        assert file is not None
        assert meta is not None
        walk = Walk(file, meta)
        trees = walk.trees()
        places = [
            (at, len(value))
            for name in (b"transitions", b"observations")
            for _, at, value in walk.numbered(name, trees[name])
        ]
    data = bytearray((path / "data.mdb").read_bytes())
    for at, nbytes in places:
        data[at : at + nbytes] = bytes(nbytes)
    (path / "data.mdb").write_bytes(data)
    with diskreplay.open(path, access="read", seed=1) as buffer:
        assert len(buffer) == 2000
        np.testing.assert_array_equal(buffer.draw(64).indices, expected.indices)
    with diskreplay.open(path, window_bytes=0) as buffer:
        row = EnvStream().step(9)
        new = buffer.push(**row)
        buffer.flush()
        np.testing.assert_array_equal(buffer.get([new]).next_states[0], row["next_state"])
        with pytest.raises(diskreplay.DamageError):
            buffer.get([1500])

"""Draws and rows by field beside kills, damage, and batches that wait."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, run_python
from drawn import KINDS, fill
from stores import RECORD_BYTES, spoil

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

ACCESS = ["exclusive", "shared", "read"]
N = 60


def filled(kind: Any, path: Path | None = None, **arguments: Any) -> Any:
    if kind is PrioritizedReplayBuffer:
        arguments = {"beta_frames": 50, **arguments}
    buffer = kind(N, seed=3, path=path, **{"commit_interval": 1e9, **arguments})
    more = {"priorities": np.arange(80) % 7} if kind is PrioritizedReplayBuffer else {}
    buffer.extend(**columns(0, 80), x=np.arange(80), **more)
    return buffer


def opened(kind: Any, access: str, path: Path, **arguments: Any) -> Any:
    """A filled buffer, opened in one of the three ways, with a random stream of its own."""
    if not path.exists():
        filled(kind, path).close()
    return diskreplay.open(path, access=access, seed=5, commit_interval=1e9, **arguments)


TRAIN = """
import os, sys
import diskreplay
from common import columns

kind, path, begin, end, how = sys.argv[1:]
more = {"beta_frames": 50} if kind == "PrioritizedReplayBuffer" else {}
buffer = getattr(diskreplay, kind)(60, seed=3, path=path, commit_interval=1e9, **more)
for step in range(int(begin), int(end)):
    buffer.extend(**columns(4 * step, 4))
    if how == "batches":
        print(buffer.sample(4).indices.tolist(), getattr(buffer, "beta", 1.0))
    else:
        print(buffer.draw(4).indices.tolist(), getattr(buffer, "beta", 1.0))
buffer.flush()
if how == "draws":
    print(buffer.draw(4).indices.tolist(), "is not committed", flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("kind", ["ReplayBuffer", "PrioritizedReplayBuffer"])
def test_a_commit_saves_draws_as_it_saves_samples(kind: str, tmp_path: Path) -> None:
    def train(path: str, begin: int, end: int, how: str) -> list[str]:
        done = run_python(TRAIN, kind, tmp_path / path, begin, end, how, check=False)
        assert done.returncode == (-signal.SIGKILL if how == "draws" else 0), done.stderr
        return done.stdout.splitlines()

    whole = train("whole", 0, 30, "batches")
    first = train("parts", 0, 20, "draws")
    assert first.pop().endswith("is not committed")
    assert [*first, *train("parts", 20, 30, "batches")] == whole


@pytest.mark.parametrize("kind", KINDS)
def test_each_draw_is_committed_where_every_call_is(kind: Any, tmp_path: Path) -> None:
    with filled(kind, tmp_path / "b", commit_interval=0) as buffer:
        before = buffer.stats()["commits"]
        buffer.draw(4)
        assert buffer.stats()["commits"] == before + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("access", ACCESS)
def test_draws_beside_batches_that_wait(kind: Any, access: str, tmp_path: Path) -> None:
    with opened(kind, access, tmp_path / "b") as buffer:
        expected = [buffer.sample(8).indices.tolist() for _ in range(6)]
    with opened(kind, access, tmp_path / "c") as buffer:
        with buffer.batches(8, prefetch=2) as batches:
            found = [next(batches).indices.tolist()]
            fill(batches)
            found.append(buffer.draw(8).indices.tolist())  # and the two that wait are drawn anew
            found += [next(batches).indices.tolist() for _ in range(2)]
            fill(batches)
        found.append(buffer.draw(8).indices.tolist())
        found.append(buffer.sample(8).indices.tolist())
        assert found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_reads_nothing_so_it_meets_no_damage(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "b"
    filled(kind, path).close()
    spoil(path, [4, 30], RECORD_BYTES + 9)  # write ids 64 and 30
    with diskreplay.open(path, window_bytes=0, on_damage="skip", seed=1) as buffer:
        drawn = {i for _ in range(40) for i in buffer.draw(20).indices.tolist()}
        assert {64, 30} <= drawn
        assert buffer.stats()["damaged"] == 0
        while buffer.stats()["damaged"] < 2:
            buffer.sample(20)
        for _ in range(40):
            indices, probabilities = buffer.draw(20)
            assert not {64, 30} & set(indices.tolist())
        if kind is ReplayBuffer:
            assert probabilities.tolist() == [1 / 58] * 20
            assert buffer.total_mass == 58.0
        else:
            masses = (np.delete(np.arange(20, 80), [10, 44]) % 7 + 1e-6) ** 0.6
            assert buffer.total_mass == pytest.approx(masses.sum())


def test_a_record_is_checked_whichever_fields_are_asked_for(tmp_path: Path) -> None:
    filled(ReplayBuffer, tmp_path / "b").close()
    spoil(tmp_path / "b", [3], RECORD_BYTES + 9)  # a byte of x, of write id 63
    with diskreplay.open(tmp_path / "b") as buffer:
        with pytest.raises(diskreplay.DamageError, match="write id 63 in slot 3 is damaged"):
            buffer.get([62, 63], fields=["reward"])
        assert buffer.get([62], fields=["reward"])["reward"] == 62 / 8


def test_rows_of_which_some_fields_were_read_are_whole_later(tmp_path: Path) -> None:
    with opened(ReplayBuffer, "read", tmp_path / "b") as buffer:
        ids = np.arange(20, 80)
        for names in (["x"], ["reward", "state"]):
            buffer.get(ids[::2], fields=names)
            assert numbers_of(buffer.get(ids[::3])).tolist() == ids[::3].tolist()
            buffer.get(ids, fields=names)
        assert numbers_of(buffer.get(ids)).tolist() == ids.tolist()
        assert buffer.get(ids).x.tolist() == ids.tolist()


def test_large_rows_are_read_field_by_field() -> None:
    with ReplayBuffer(10) as buffer:
        frames = np.arange(8 * 2000, dtype=np.uint8).reshape(8, 2000)
        buffer.extend(frames, range(8), range(8), frames + 1, [0] * 8)
        found = buffer.get([[7], [0]], fields=["next_state", "action"])
        assert found["action"].tolist() == [[7], [0]]
        assert found["next_state"].tobytes() == (frames + 1)[[7, 0]].tobytes()

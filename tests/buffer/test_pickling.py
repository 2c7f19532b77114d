"""Pickling sends a buffer's path to another process; copies in memory are refused."""

# ruff: noqa: S301  what is unpickled is what was pickled before

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import in_child
from common import SUPPORT, columns, numbers_of

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


def read_elsewhere(pickled: bytes, expression: str) -> str:
    """What an expression gives of an unpickled object in a process of its own."""
    code = f"""
import pickle, sys
from common import numbers_of
found = pickle.load(sys.stdin.buffer)
print({expression})
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, input=pickled, capture_output=True, cwd=SUPPORT, timeout=100)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda b: copy.deepcopy({"a": [b]})])
@pytest.mark.parametrize("access", ["exclusive", "shared", "read"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_in_memory_is_refused_with_what_to_do_instead(
    kind: Any, access: str, make: Callable[[Any], Any], tmp_path: Path
) -> None:
    path = tmp_path / "b"
    with kind(10, path=path) as buffer:
        buffer.extend(**columns(0, 5))
    with kind(10, path=path, access=access) as buffer:
        with pytest.raises(diskreplay.LockedError, match=r"save\(\) writes a store.*'read'"):
            make(buffer)
        assert sorted(numbers_of(buffer.get(range(5))).tolist()) == list(range(5))
        buffer.save(tmp_path / "copy")  # as it says
        with diskreplay.open(tmp_path / "copy") as other:
            assert len(other) == 5
    with pytest.raises(diskreplay.ClosedError, match="is closed"):
        make(buffer)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_pickled_here_is_for_other_processes(kind: Any, tmp_path: Path) -> None:
    with kind(10, path=tmp_path / "b", schema={"state": ("f4", (3,))}) as buffer:
        buffer.extend(**columns(0, 5))
        buffer.flush()
        pickled = pickle.dumps(buffer)
        assert len(pickled) < 500  # arguments, no transitions
        with pytest.raises(
            diskreplay.LockedError, match="for other processes: use the open buffer"
        ):
            pickle.loads(pickled)
        said = read_elsewhere(pickled, "type(found).__name__, len(found)")
        assert said == f"{kind.__name__} 5"

        def read_in_child() -> int:
            return len(pickle.loads(pickled))

        assert in_child(read_in_child).value == 5
        assert buffer.push(*(column[0] for column in columns(5, 1).values())) == 5
    with pickle.loads(pickled) as reader:
        assert (type(reader), len(reader)) == (kind, 6)
        with pytest.raises(diskreplay.ReadOnlyError):
            reader.clear()


def test_a_temporary_buffer_can_be_read_elsewhere_while_it_is_open(tmp_path: Path) -> None:
    with ReplayBuffer(10) as buffer:
        buffer.extend(**columns(0, 5))
        buffer.flush()
        pickled, path = pickle.dumps(buffer), buffer.path
        assert read_elsewhere(pickled, "(len(found), found.close())") == "(5, None)"
        assert path.exists()  # it is removed by who made it
        assert len(buffer) == 5
    assert not path.exists()
    with pytest.raises(diskreplay.NotAStoreError, match=r"was temporary.*path="):
        pickle.loads(pickled)
    ReplayBuffer(10, path=tmp_path / "b").close()
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        pickled = pickle.dumps(buffer)
    os.rename(tmp_path / "b", tmp_path / "c")
    with pytest.raises(diskreplay.NotAStoreError, match="holds no store"):
        pickle.loads(pickled)


@pytest.mark.parametrize("started", [False, True])
def test_batches_drawn_ahead_stay_in_their_process(started: bool, tmp_path: Path) -> None:
    makers: list[Callable[[Any], Any]] = [pickle.dumps, copy.copy, copy.deepcopy]
    with ReplayBuffer(10, seed=1, path=tmp_path / "b") as buffer, ReplayBuffer(10, seed=1) as twin:
        for one in (buffer, twin):
            one.extend(**columns(0, 10))
        with buffer.batches(4, prefetch=2) as batches:
            for _ in range(started):
                np.testing.assert_array_equal(next(batches).rewards, twin.sample(4).rewards)
            for make in makers:
                with pytest.raises(diskreplay.ArgumentError, match=r"call batches\(\) on it"):
                    make(batches)
            np.testing.assert_array_equal(next(batches).rewards, twin.sample(4).rewards)


def test_other_batches_travel_with_their_buffer(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 10))
        buffer.flush()
        batches = buffer.batches(4)
        said = read_elsewhere(pickle.dumps(batches), "numbers_of(next(found)).size")
        assert said == "4"
        again = copy.copy(batches)
        batches.close()
        assert next(again).rewards.shape == (4,)
        with pytest.raises(diskreplay.LockedError, match="save"):
            copy.deepcopy(again)

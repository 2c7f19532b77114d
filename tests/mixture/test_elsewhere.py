"""Mixtures in forked children, in other processes, and copied."""

# ruff: noqa: S301  what is unpickled is what was pickled before

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from children import in_child
from common import SUPPORT
from mixed import prioritized, uniform, whole

from diskreplay import ClosedError, LockedError, Mixture


def stored(tmp_path: Path) -> Mixture:
    uniform(1, 60, path=tmp_path / "demos").close()
    online = prioritized(0, 60, path=tmp_path / "online")
    online.flush()
    return Mixture({"online": online, "demos": tmp_path / "demos"}, {"online": 1, "demos": 1})


def test_a_forked_child_draws_from_streams_of_its_own(tmp_path: Path) -> None:
    mixture = stored(tmp_path)
    started = mixture.batches(8, prefetch=1)
    next(started)

    def draw() -> list[list[int]]:
        with pytest.raises(ClosedError, match="forked from"):
            next(started)
        assert mixture.update_priorities(mixture.sample(8), [9.0] * 8) == 0  # a child only reads
        return [whole(mixture.sample(8)).tolist() for _ in range(4)]

    children = [in_child(draw).value for _ in range(2)]
    started.close()
    here = [whole(mixture.sample(8)).tolist() for _ in range(4)]
    assert len({str(found) for found in (*children, here)}) == 3
    assert mixture["online"].max_priority == 3


def test_a_child_may_be_forked_while_another_thread_draws(tmp_path: Path) -> None:
    mixture = stored(tmp_path)
    stop: list[bool] = []

    def draw() -> None:
        while not stop:
            mixture.sample(8)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _ in range(5):
            assert in_child(lambda: whole(mixture.sample(8)).size).value == 8
    finally:
        stop.append(True)
        thread.join()


def test_a_pickled_mixture_reads_in_another_process(tmp_path: Path) -> None:
    mixture = stored(tmp_path)
    mixture.sample(8)
    code = """
import pickle, sys
from mixed import whole
mixture = pickle.load(sys.stdin.buffer)
numbers = whole(mixture.sample(8))
buffers = [mixture[name] for name in mixture.names]
print(mixture.draws, numbers.size, mixture.stats()["shares"]["online"])
mixture.close()
for buffer in buffers:
    try:
        len(buffer)
    except Exception as error:
        print(type(error).__name__)
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, input=pickle.dumps(mixture), capture_output=True, cwd=SUPPORT, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == ["2", "8", "0.5", "ClosedError", "ClosedError"]
    with pytest.raises(LockedError, match="is open in this process already"):
        pickle.loads(pickle.dumps(mixture))


def test_beta_in_another_process_is_that_of_the_source_that_is_written_here(tmp_path: Path) -> None:
    prioritized(1, 60, path=tmp_path / "demos", beta_start=0.25).close()
    online = prioritized(0, 60, path=tmp_path / "online", beta_start=0.75)
    online.flush()
    mixture = Mixture({"demos": tmp_path / "demos", "online": online})
    code = """
import pickle, sys
print(pickle.load(sys.stdin.buffer).stats()["beta"])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, input=pickle.dumps(mixture), capture_output=True, check=True, timeout=100
    )
    assert done.stdout.decode().split() == ["0.75"]


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_a_copy_in_memory_is_refused(make: Any, tmp_path: Path) -> None:
    mixture = stored(tmp_path)
    with pytest.raises(LockedError, match="make another one of the same buffers"):
        make(mixture)
    assert whole(mixture.sample(8)).size == 8
    mixture.close()
    with pytest.raises(ClosedError):
        pickle.dumps(mixture)
    assert os.path.exists(tmp_path / "demos")

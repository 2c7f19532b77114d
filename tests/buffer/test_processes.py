"""Buffers in forked and spawned processes: a child reads, and harms nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from common import run_python

# Newer Pythons warn of fork beside threads, rightly: the committing thread is one.
PRELUDE = """
import multiprocessing, os, pickle, sys, threading, warnings
import numpy as np
import numpy.testing  # now, or a fork may come in the middle of its import
import diskreplay
from common import columns, numbers_of, row
from inside import store_of
warnings.simplefilter("ignore", DeprecationWarning)

def in_child(work):
    child = os.fork()
    if child == 0:
        work()
        sys.exit(0)  # a regular end, with its atexit functions
    return child

def wait(child):
    assert os.waitpid(child, 0)[1] == 0
"""


def run(code: str, path: Path) -> str:
    return run_python(PRELUDE + code, path).stdout


def test_a_call_of_the_parent_waits_until_the_child_has_left_its_environment(
    tmp_path: Path,
) -> None:
    code = """
import os, sys, time

def hold_up():  # before the library's own, which comes later
    time.sleep(0.2)
    os.mkdir(sys.argv[1] + "-held")

os.register_at_fork(after_in_child=hold_up)
"""
    use = """
buffer = diskreplay.PrioritizedReplayBuffer(100, path=sys.argv[1])
buffer.extend(**columns(0, 50))
child = in_child(lambda: os._exit(0))
buffer.check()
assert os.path.exists(sys.argv[1] + "-held")
wait(child)
"""
    run_python(code + PRELUDE + use, tmp_path / "b")


def test_a_forked_child_reads_and_its_end_leaves_the_parent_alone(tmp_path: Path) -> None:
    code = """
buffer = diskreplay.PrioritizedReplayBuffer(100, path=sys.argv[1], commit_interval=1e9)
buffer.extend(**columns(0, 50))
buffer.flush()
buffer.extend(**columns(50, 10))

def work():
    assert len(buffer) == 50  # what is committed
    assert numbers_of(buffer.sample(20)).max() < 50
    assert numbers_of(buffer.get(buffer.draw(9).indices)).max() < 50
    assert (buffer.first, buffer.priorities([3]).tolist()) == (0, [1.0])
    for call in (lambda: buffer.push(**row(50)), lambda: buffer.update_priorities([1], [1.0]),
                 buffer.clear):
        try:
            call()
        except diskreplay.ReadOnlyError as error:
            assert "a child can only read it" in str(error)
        else:
            raise AssertionError
    grandchild = in_child(lambda: numbers_of(buffer.sample(20)))
    wait(grandchild)
    buffer.check()
    buffer.close()

wait(in_child(work))
wait(in_child(lambda: None))
wait(in_child(buffer.close))
buffer.extend(**columns(60, 10))
buffer.check()
buffer.close()
assert len(diskreplay.open(sys.argv[1])) == 70
"""
    run(code, tmp_path / "b")


def test_a_child_follows_its_parent_and_draws_its_own_batches(tmp_path: Path) -> None:
    code = """
buffer = diskreplay.ReplayBuffer(1000, path=sys.argv[1], commit_interval=1e9, seed=0)
buffer.extend(**columns(0, 600))
buffer.flush()
told, tell = os.pipe()

def work():
    first = numbers_of(buffer.sample(20))
    os.read(told, 1)
    assert len(buffer) == 1000
    numbers = numbers_of(buffer.get(np.arange(500, 1500)))
    assert numbers.tolist() == list(range(500, 1500))
    print(*first)

children = [in_child(work) for _ in range(2)]
buffer.extend(**columns(600, 900))
buffer.flush()
os.write(tell, b"12")
for child in children:
    wait(child)
print(*numbers_of(buffer.sample(20)))
"""
    drawn = run(code, tmp_path / "b").splitlines()
    assert len(set(drawn)) == 3


def test_forks_in_the_middle_of_other_threads_work(tmp_path: Path) -> None:
    code = """
buffer = diskreplay.PrioritizedReplayBuffer(
    500, path=sys.argv[1], commit_interval=0.001, window_bytes=0)
buffer.extend(**columns(0, 500))
buffer.flush()
done = threading.Event()
failed = []

def draw():
    try:
        while not done.is_set():
            batch = buffer.sample(64)
            assert numbers_of(batch).tolist() == batch.indices.tolist()
    except BaseException as error:
        failed.append(error)

def push():
    try:
        while not done.is_set():
            buffer.extend(**columns(buffer.count, 20))
    except BaseException as error:
        failed.append(error)

threads = [threading.Thread(target=f) for f in (draw, draw, push)]
for thread in threads:
    thread.start()
for _ in range(30):
    wait(in_child(lambda: [numbers_of(buffer.sample(64)) for _ in range(3)] and os._exit(0)))
done.set()
for thread in threads:
    thread.join()
assert not failed, failed
buffer.check()
readers = store_of(buffer)._env.readers().count("\\n")
assert readers <= 2, store_of(buffer)._env.readers()
"""
    run(code, tmp_path / "b")


def test_two_threads_that_fork_take_turns(tmp_path: Path) -> None:
    code = """
buffers = [diskreplay.ReplayBuffer(100, path=sys.argv[1] + name) for name in "ab"]
for buffer in buffers:
    buffer.extend(**columns(0, 50))
    buffer.flush()
failed = []

def fork():
    try:
        for _ in range(25):
            wait(in_child(lambda: [numbers_of(b.sample(9)) for b in buffers] and os._exit(0)))
    except BaseException as error:
        failed.append(error)

threads = [threading.Thread(target=fork) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed
for buffer in buffers:
    buffer.extend(**columns(50, 5))
    buffer.check()
"""
    run(code, tmp_path / "b")


def test_a_child_that_goes_on_iterating_sees_what_is_committed(tmp_path: Path) -> None:
    code = """
buffer = diskreplay.ReplayBuffer(500, path=sys.argv[1], commit_interval=1e9)
buffer.extend(**columns(0, 700))
buffer.flush()
buffer.extend(**columns(700, 100))
iterator = iter(buffer)
assert next(iterator).reward * 8 == 300

def work():
    numbers = [int(e.reward * 8) for e in iterator]
    assert numbers[-1] == 699, numbers[-1]

wait(in_child(work))
assert [int(e.reward * 8) for e in iterator] == list(range(301, 800))
"""
    run(code, tmp_path / "b")


def test_a_temporary_buffer_outlives_its_children() -> None:
    code = """
buffer = diskreplay.ReplayBuffer(100)
buffer.extend(**columns(0, 50))
buffer.flush()
wait(in_child(lambda: numbers_of(buffer.sample(50))))
wait(in_child(lambda: len(buffer) == 50 and buffer.close()))
assert buffer.path.exists()
numbers_of(buffer.sample(50))
"""
    run(code, Path())


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_of_multiprocessing_gets_a_reader(method: str, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("""
def work(buffer, n):
    from common import numbers_of
    buffer.check()
    return len(buffer), type(buffer).__name__, numbers_of(buffer.sample(n)).tolist()
""")
    code = f"""
sys.path.insert(0, {str(tmp_path)!r})
import worker

if __name__ == "__main__":
    buffer = diskreplay.PrioritizedReplayBuffer(100, path=sys.argv[1], alpha=0.3)
    buffer.extend(**columns(0, 50))
    buffer.flush()
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        for size, kind, drawn in pool.starmap(worker.work, [(buffer, n) for n in (3, 9, 27)]):
            assert (size, kind) == (50, "PrioritizedReplayBuffer")
            assert set(drawn) <= set(range(50))
    buffer.extend(**columns(50, 10))
    buffer.check()
"""
    run(code, tmp_path / "b")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_torch_data_loader_reads_in_its_workers(method: str, tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("""
import torch

class Transitions(torch.utils.data.Dataset):
    def __init__(self, buffer):
        self.buffer = buffer

    def __len__(self):
        return len(self.buffer)

    def __getitem__(self, index):
        batch = self.buffer.get([index])
        return torch.from_numpy(batch.states[0]), torch.from_numpy(batch.rewards[0:1])
""")
    code = f"""
sys.path.insert(0, {str(tmp_path)!r})
import torch
import data

if __name__ == "__main__":
    buffer = diskreplay.ReplayBuffer(500, path=sys.argv[1])
    buffer.extend(**columns(0, 500))
    buffer.flush()
    loader = torch.utils.data.DataLoader(
        data.Transitions(buffer), batch_size=50, shuffle=True, num_workers=2,
        multiprocessing_context={method!r})
    seen = torch.cat([rewards for _, rewards in loader]).flatten() * 8
    assert sorted(seen.round().long().tolist()) == list(range(500))
    buffer.push(**row(500))
    buffer.check()
"""
    run(code, tmp_path / "b")


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("end", ["returns", "exits"])
def test_a_child_of_multiprocessing_commits_at_its_end(
    method: str, end: str, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(
        """
import multiprocessing, sys, warnings
import diskreplay
warnings.simplefilter("ignore", DeprecationWarning)

def push(path, end):
    global buffer  # so that nothing but the end of the process closes it
    buffer = diskreplay.ReplayBuffer(100, path=path, access="shared", commit_interval=1e9)
    buffer.itself = buffer
    buffer.extend([[0.0]] * 7, [0] * 7, [0.0] * 7, [[0.0]] * 7, [False] * 7)
    if end == "exits":
        sys.exit(3)

if __name__ == "__main__":
    method, end, path = sys.argv[1:]
    child = multiprocessing.get_context(method).Process(target=push, args=(path, end))
    child.start()
    child.join()
    print(child.exitcode, len(diskreplay.open(path)))
"""
    )
    command = [sys.executable, tmp_path / "program.py", method, end, tmp_path / "b"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{3 if end == 'exits' else 0} 7\n", "")

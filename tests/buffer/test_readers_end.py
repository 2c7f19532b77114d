"""Nothing of the readers stays behind, however the batches, the buffer or the process end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from common import run_python
from drawn import SIZE
from reading import (
    content,
    drawn,
    nothing_left,
    pids_of,
    rows,
    shared_memory_here,
    state_of,
    stored,
    wait_until,
)
from talking import Talking

import diskreplay
from diskreplay import ReplayBuffer

LEARNER = """
    import ctypes, gc, multiprocessing, os, signal, sys, time, warnings
    import diskreplay
    import reading as t
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads

    def begin():
        global buffer, batches
        buffer = t.stored(diskreplay.ReplayBuffer, sys.argv[1])
        batches = buffer.batches(t.SIZE, 3, 2)
        for _ in range(4):
            next(batches)
        print(*t.pids_of(batches), flush=True)
"""


def ended(pids: list[int]) -> bool:
    return all(state_of(pid) in ("", "Z", "X") for pid in pids)


def test_with_the_block_the_buffer_or_the_iterator(tmp_path: Path) -> None:
    with nothing_left():
        buffer = stored(ReplayBuffer, tmp_path / "b")
        for how in ("closed", "dropped", "never begun", "the buffer's"):
            batches = buffer.batches(SIZE, 3, 2)
            readers = []
            if how != "never begun":
                next(batches)
                readers = pids_of(batches)
                assert len(readers) == 2
                memory = shared_memory_here()
                assert memory
                assert all("(deleted)" in link for link in memory)  # it has no name anywhere
            if how == "closed":
                batches.close()
                assert not any(map(state_of, readers))
                batches.close()
                with pytest.raises(diskreplay.ClosedError, match="these batches are closed"):
                    next(batches)
            elif how == "the buffer's":
                buffer.close()
                assert not any(map(state_of, readers))
                with pytest.raises(diskreplay.ClosedError, match="open it again"):
                    next(batches)
                batches.close()
            else:
                del batches
                wait_until(lambda: ended(readers))  # noqa: B023
                buffer.extend(**rows(buffer.count, 1))
                buffer.flush()  # a commit frees what the iterator has left
                assert not any(map(state_of, readers))
        del batches


def test_a_store_can_be_replaced_right_after_the_close(tmp_path: Path) -> None:
    for _ in range(2):
        buffer = stored(ReplayBuffer, tmp_path / "b", if_exists="replace")
        batches = buffer.batches(SIZE, 3, 2)
        assert content(next(batches)) == drawn(ReplayBuffer, 1)[0]
        buffer.close()


def test_batches_and_buffer_that_are_dropped_together(tmp_path: Path) -> None:
    with nothing_left():
        batches = stored(ReplayBuffer, tmp_path / "b").batches(SIZE, 3, 2)
        next(batches)
        readers = pids_of(batches)
        del batches
        assert not any(map(state_of, readers))
        with diskreplay.open(tmp_path / "b") as buffer:
            assert content(buffer.sample(SIZE)) == drawn(ReplayBuffer, 2)[1]


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "1 / 0", "batches.itself = batches"])
def test_the_end_of_a_program(end: str, tmp_path: Path) -> None:
    with Talking(
        LEARNER
        + f"""
    begin()
    {end}
    """,
        tmp_path / "b",
    ) as learner:
        readers = [int(pid) for pid in learner.hear().split()]
        said = learner.end()
    assert ended(readers)
    assert said == "" or ("ZeroDivisionError" in said and end == "1 / 0")
    assert learner.returncode == {"pass": 0, "sys.exit(3)": 3, "1 / 0": 1}.get(end, 0)
    with diskreplay.open(tmp_path / "b") as buffer:
        assert content(buffer.sample(SIZE)) == drawn(ReplayBuffer, 5)[4]


@pytest.mark.parametrize(
    "beside", ["", "forked", "forked by multiprocessing", "forked past Python"]
)
def test_the_kill_of_a_learner(beside: str, tmp_path: Path) -> None:
    """Also where a child of it lives on, which inherits its descriptors."""
    with Talking(
        LEARNER
        + """
    begin()
    beside = sys.argv[2]
    child = 0
    if beside == "forked":
        child = os.fork()
        if child == 0:
            time.sleep(600)
    elif beside == "forked past Python":  # no hook closes what the child inherits
        libc = ctypes.CDLL(None)
        child = libc.fork()
        if child == 0:
            libc.sleep(600)
    elif beside:
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=[600])
        process.start()
        child = process.pid
    next(batches)
    print(child, flush=True)
    while True:
        next(batches)
    """,
        tmp_path / "b",
        beside,
    ) as learner:
        readers = [int(pid) for pid in learner.hear().split()]
        child = int(learner.hear())
        learner.kill()
        learner.wait()
        try:
            wait_until(lambda: ended(readers))
            if child:
                assert state_of(child) == "S"
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
        assert learner.stdout is not None
        assert learner.stdout.read() == ""  # no traceback of a reader
    with diskreplay.open(tmp_path / "b") as buffer:
        buffer.check()


def test_ctrl_c_at_a_terminal_reaches_the_learner_alone(tmp_path: Path) -> None:
    with Talking(
        LEARNER
        + """
    begin()
    try:
        print("begun", flush=True)
        while True:
            next(batches)
    except KeyboardInterrupt:
        pass
    next(batches)  # with the same readers, if it was not they who were waited for
    print(buffer._guard.replica.draws >= 5, flush=True)
    batches.close()
    """,
        tmp_path / "b",
        within=["setsid", "-w"],
    ) as learner:
        readers = [int(pid) for pid in learner.hear().split()]
        assert learner.hear() == "begun"
        group = Path(f"/proc/{readers[0]}/stat").read_text().rpartition(")")[2].split()
        os.killpg(int(group[1]), signal.SIGINT)  # the parent of a reader leads a group
        assert learner.end() == "True\n"
    assert ended(readers)


def test_a_forked_child_leaves_the_readers_to_its_parent(tmp_path: Path) -> None:
    code = (
        LEARNER
        + """
    before = t.pipes_here()
    begin()
    assert len(t.pipes_here()) == len(before) + 4
    found = []
    for how in range(4):
        found.append(t.content(next(batches)))
        child = os.fork()
        if child == 0:
            assert t.pipes_here() == before  # or the readers would outlive the parent
            try:
                next(batches)
            except diskreplay.ClosedError as error:
                assert "in the process that this one was forked from" in str(error)
                if how == 1:
                    batches.close()
                if how == 2:
                    del batches
                    gc.collect()
                with buffer.batches(t.SIZE, 2, 1) as own:
                    next(own), next(own)
                    readers = t.pids_of(own)
                assert not any(map(t.state_of, readers))
                if how == 3:
                    sys.exit(0)  # with the ends of an interpreter
                buffer.close()
                os._exit(0)
            os._exit(1)
        found.append(t.content(next(batches)))
        assert os.waitpid(child, 0)[1] == 0
    assert found == t.drawn(diskreplay.ReplayBuffer, 12)[4:]
    """
    )
    assert len(run_python(code, tmp_path / "b").stdout.split()) == 2


def test_children_of_multiprocessing_have_readers_of_their_own(tmp_path: Path) -> None:
    stored(ReplayBuffer, tmp_path / "b").close()
    code = """
        import multiprocessing, sys, warnings
        import diskreplay
        import reading as t
        warnings.simplefilter("ignore", DeprecationWarning)
        if __name__ == "__main__":
            buffer = diskreplay.open(sys.argv[1], access="read", window_bytes=0)
            with buffer.batches(t.SIZE, 2, 1) as batches:
                next(batches)
                for method in ("fork", "spawn"):
                    context = multiprocessing.get_context(method)
                    queue = context.SimpleQueue()
                    process = context.Process(target=t.draw_in_child, args=[buffer, queue])
                    process.start()
                    assert queue.get() == 3
                    process.join()
                    assert process.exitcode == 0, (method, process.exitcode)
                    next(batches)
    """
    assert run_python(code, tmp_path / "b").stderr == ""

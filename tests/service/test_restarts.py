"""A server that is killed and started again beneath a client, in processes of their own."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

from common import SUPPORT, WARNINGS, columns, numbers_of, row, run_python

import diskreplay
from diskreplay import ReplayBuffer, ServiceError
from diskreplay.service.server import ReplayServer

SERVER = """
import os, signal, sys
import diskreplay
from diskreplay.service.groups import Groups
from diskreplay.service.server import ReplayServer

path, address, commits, where = sys.argv[1:]

def commit(self, added, real=Groups._commit):
    if where == "before" and self.commits == int(commits):
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, added)
    if where == "after" and self.commits == int(commits):
        os.kill(os.getpid(), signal.SIGKILL)

Groups._commit = commit
with diskreplay.ReplayBuffer(1000, path=path) as buffer, ReplayServer({"b": buffer}, address) as s:
    print(s.url, flush=True)
    sys.stdin.readline()
"""


class Server:
    """A server in a process of its own, which ends with the block; it may kill itself before.

    commits, where:  kill it before, or after, this commit of groups is made, but not acknowledged
    """

    def __init__(
        self, path: Path, address: str = "grpc://127.0.0.1:0", commits: int = -1, where: str = ""
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *WARNINGS, "-c", SERVER, str(path), address, str(commits), where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=SUPPORT,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.communicate("\n")


def rows_in(path: Path) -> list[int]:
    with diskreplay.open(path) as buffer:
        buffer.check()
        assert not [name for name in buffer.notes() if name.startswith("service.")]
        return numbers_of(buffer.get(range(buffer.first, buffer.count))).tolist()


@pytest.mark.parametrize(
    ("where", "commits"),
    [("before", 0), ("after", 1), ("before", 3), ("after", 3)],  # the first group tells the fields
)
def test_a_kill_in_a_commit_loses_no_row_and_doubles_none(
    where: str, commits: int, tmp_path: Path
) -> None:
    second: list[Server] = []
    with Server(tmp_path / "b", commits=commits, where=where) as first:

        def start_again() -> None:
            first.process.wait()
            second.append(Server(tmp_path / "b", first.url))

        starter = threading.Thread(target=start_again)
        starter.start()
        with diskreplay.connect(first.url) as replay:
            replay.push(**row(0))
            for begin in range(1, 101, 10):
                replay.extend(**columns(begin, 10))
                replay.flush()
            assert replay.count == 101
        starter.join()
        assert first.process.returncode == -9
    [other] = second
    with other:
        pass
    assert rows_in(tmp_path / "b") == list(range(101))


def test_rows_that_a_client_cannot_send_are_counted(tmp_path: Path) -> None:
    with Server(tmp_path / "b") as server:
        replay: Any = diskreplay.connect(server.url, timeout=2.0, queue_bytes=5000)
        replay.push(**row(0))
        replay.flush()
        server.process.kill()
        server.process.wait()
        for number in range(1, 4):
            replay.push(**row(number))
        with pytest.raises(ServiceError, match=r"3 transitions wait for the server, and will be"):
            replay.flush()
        with pytest.raises(ServiceError, match=r"did not answer for 2 seconds"):
            replay.sample(1)
        with pytest.raises(ServiceError, match="transitions wait for the server"):
            replay.extend(**columns(4, 100))  # no room for them
        with Server(tmp_path / "b", server.url):
            replay.flush()
            assert replay.count == 4
            replay.close()
    assert rows_in(tmp_path / "b") == [0, 1, 2, 3]


def test_rows_for_a_replay_that_its_server_closed_are_told_and_kept(tmp_path: Path) -> None:
    buffer = ReplayBuffer(capacity=1000, path=tmp_path / "b")
    with ReplayServer({"a": buffer}) as server:
        replay: Any = diskreplay.connect(server.url, timeout=1)
        replay.push(**row(0))
        replay.flush()
        buffer.close()
        replay.push(**row(1))
        for _ in range(2):
            with pytest.raises(ServiceError, match=r"1 transition waits for .* is closed: open"):
                replay.flush()
    with Server(tmp_path / "b", server.url):
        replay.close()
    assert rows_in(tmp_path / "b") == [0, 1]


def test_a_client_is_shown_without_its_server(tmp_path: Path) -> None:
    with Server(tmp_path / "b") as server:
        replay = diskreplay.connect(server.url)
        facts = repr(replay)
        assert ", size=0, url=" in facts
        server.process.kill()
        server.process.wait()
        assert repr(replay) == facts.replace(", size=0", "")
        replay.close()
        assert ", closed, url=" in repr(replay)


def test_a_forked_child_is_refused_and_a_spawned_one_connects(tmp_path: Path) -> None:
    with Server(tmp_path / "b") as server, diskreplay.connect(server.url) as replay:
        replay.extend(**columns(0, 20))
        replay.flush()
        child = os.fork()
        if child == 0:
            try:
                replay.sample(1)
            except ServiceError as error:
                os._exit(0 if "start processes with spawn" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        code = """
            import pickle, sys
            with pickle.loads(bytes.fromhex(sys.argv[1])) as replay:
                replay.push([0.0] * 3, 0, 0.0, [0.0] * 3, False)
                print(len(replay.sample(8).indices))
        """
        assert run_python(code, pickle.dumps(replay).hex()).stdout == "8\n"
        assert replay.count == 21
        client = weakref.ref(replay._connection._client)
    del replay
    gc.collect()
    assert client() is None  # the fork kept it for the child alone


def push_rows(replay: Any) -> None:
    for number in range(30):
        replay.push(**row(number))


def test_rows_are_sent_at_the_end_of_a_spawned_worker(tmp_path: Path) -> None:
    with Server(tmp_path / "b") as server, diskreplay.connect(server.url) as replay:
        workers = [
            multiprocessing.get_context("spawn").Process(target=push_rows, args=(replay,))
            for _ in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        assert replay.count == 60


def test_rows_are_sent_at_the_end_of_a_program(tmp_path: Path) -> None:
    with Server(tmp_path / "b") as server:
        code = """
            import sys
            import common, diskreplay
            replay = diskreplay.connect(sys.argv[1])
            for number in range(30):
                replay.push(**common.row(number))
        """
        run_python(code, server.url)
        with diskreplay.connect(server.url) as replay:
            assert replay.count == 30

"""The command `export` when it is killed or interrupted, beside a writer, and on a large store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stores
from commands import KILLER, run
from common import columns, run_python
from exported import read

from diskreplay import ReplayBuffer


def test_an_interrupt_leaves_no_output(tmp_path: Path) -> None:
    path, out = stores.uniform(tmp_path / "b"), tmp_path / "x.npz"
    code = """
import os, signal, sys
from diskreplay.buffer import Scan
from diskreplay_tools import cli
rows = Scan.__iter__
def interrupted(scan):
    for found in rows(scan):
        yield found
        os.kill(os.getpid(), signal.SIGINT)
Scan.__iter__ = interrupted
cli.main(sys.argv[1:])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "export", path, out],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (1, "Aborted!")
    assert [place.name for place in tmp_path.iterdir()] == ["b"]


WHOLE = """
whole = []
def is_whole(out):
    whole.append(out.read_bytes())
    return whole[-1] == whole[0]
kill_often(Path(sys.argv[3]), 20, b"old", is_whole)
print(len(whole[0]))
"""


@pytest.mark.parametrize(("form", "rows"), [("npz", 40_000), ("parquet", 40_000), ("jsonl", 8_000)])
def test_a_kill_leaves_what_was_there_or_the_whole_file(
    tmp_path: Path, form: str, rows: int
) -> None:
    if form == "parquet" and not has_pyarrow():
        pytest.skip("parquet needs pyarrow")
    path, out = tmp_path / "b", tmp_path / "out" / f"x.{form}"
    out.parent.mkdir()
    with ReplayBuffer(capacity=rows, path=path) as buffer:
        buffer.extend(**columns(0, rows))
    found = run_python(KILLER + WHOLE, "export", path, out).stdout.split()
    assert int(found[0]) >= 5
    assert int(found[1]) > 400_000


# Beside a writer

WRITER = """
import sys
import numpy as np
import diskreplay

interval = float(sys.argv[2])
with diskreplay.PrioritizedReplayBuffer(
    int(sys.argv[3]), path=sys.argv[1], commit_interval=interval, durability="process"
) as buffer:
    count = buffer.count
    while True:
        n = np.arange(count, count + (1 if interval == 0 else 37))
        states = np.repeat(n[:, None], 60, 1).astype(np.float32)
        buffer.extend(states, n, n.astype(np.float32), states + 1, n % 2, n.astype(np.float32))
        count += n.size
        if count >= 1.5 * buffer.capacity and not len(sys.argv) > 4:
            print(flush=True)
            sys.argv.append("told")
"""


@pytest.mark.parametrize(("interval", "capacity"), [(0, 500), (0.01, 20_000)])
def test_rows_are_whole_beside_a_writer_at_full_speed(
    tmp_path: Path, interval: float, capacity: int
) -> None:
    path = tmp_path / "b"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path, str(interval), str(capacity)], stdout=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.read(1)
            size = path.joinpath("data.mdb").stat().st_size
            exported = 0
            for i in range(12):
                out = tmp_path / f"{i}.npz"
                result = run("export", path, out)
                found = read(out)
                n = found["write_id"]
                np.testing.assert_array_equal(found["state"], np.repeat(n[:, None], 60, 1))
                np.testing.assert_array_equal(found["next_state"], found["state"] + 1)
                np.testing.assert_array_equal(found["action"], n)
                for name in ("reward", "priority"):
                    np.testing.assert_array_equal(found[name], n)
                assert (np.diff(n) > 0).all()
                left_out = 0
                if result.stderr:
                    left_out = int(result.stderr.split()[2].replace(",", ""))
                    assert "evicted before they were read" in result.stderr
                assert len(n) + left_out == capacity
                exported += len(n)
            assert writer.poll() is None
            assert path.joinpath("data.mdb").stat().st_size < size + (64 << 20)
        finally:
            writer.kill()
    assert exported


def has_pyarrow() -> bool:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True


def test_memory_is_bounded_whatever_the_store_takes(tmp_path: Path) -> None:
    path, rows, width = tmp_path / "b", 6000, 4096
    state = np.zeros((500, width), np.float32)
    with ReplayBuffer(rows, path=path, window_bytes=0) as buffer:
        for _ in range(0, rows, 500):
            buffer.extend(state, np.zeros(500), np.zeros(500), state, np.zeros(500))
    code = """
        import contextlib, sys
        with contextlib.suppress(ImportError):
            import pyarrow.parquet
        from diskreplay.buffer import Scan
        from watched import peak_mib
        print(peak_mib(Scan, "__iter__", ["export", *sys.argv[1:]]))
    """
    most = {"npz": 60, "parquet": 150} if has_pyarrow() else {"npz": 60}  # MiB, of 190
    for form, mib in most.items():
        found = run_python(code, path, tmp_path / f"out.{form}").stdout
        assert int(found.split()[-1]) < mib

"""The command `export` when it is killed or interrupted, beside a writer, and on a large store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import KILLER
from common import columns, run_python

from diskreplay import ReplayBuffer

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

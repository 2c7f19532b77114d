"""The benchmark of layouts: a tiny run, and the recorded steps that all layouts store.

No time is asserted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from bench.frames import LAYOUTS, SOURCES
from bench.recorded import Play, Step, record, walk
from bench.rows import Task, columns, singles

TOOLS = Path(__file__).parents[2] / "tools"
N = 50


def stacks(steps: int) -> Iterator[Step]:
    """Stacks of two frames, in episodes of 7 steps."""
    rng = np.random.default_rng(3)
    for step in range(steps):
        if step % 7 == 0:
            first = rng.integers(256, size=(4, 5), dtype=np.uint8)
            state = np.stack([first, first])
        frame = rng.integers(256, size=(4, 5), dtype=np.uint8)
        next_state = np.stack([state[1], frame])
        yield state, step, step / 2, next_state, step % 7 == 6
        state = next_state


@pytest.mark.parametrize(("play", "stacked"), [(walk, False), (stacks, True)])
def test_recorded_steps_are_those_of_the_environment(
    play: Play, stacked: bool, tmp_path: Path
) -> None:
    record(play, N, stacked, tmp_path / "steps")
    task = Task(rows=N, width=0 if stacked else 60, recorded=str(tmp_path / "steps"))
    for found, step in zip(singles(task, 0, N), play(N), strict=True):
        for one, other in zip(found, step, strict=True):
            np.testing.assert_array_equal(one, other)
    # The second time they are mirror images, the third time as at first.
    whole, mirrored, again = (columns(task, lap * N, N) for lap in range(3))
    for index in (0, 3):
        np.testing.assert_array_equal(mirrored[index], whole[index][..., ::-1])
        np.testing.assert_array_equal(again[index], whole[index])
    across = columns(task, N - 3, 6)
    for column, first, second in zip(across, whole, mirrored, strict=True):
        np.testing.assert_array_equal(column, np.concatenate([first[-3:], second[:3]]))
    frames = np.load(tmp_path / "steps" / "frames.npy")
    assert len(np.unique(frames.reshape(len(frames), -1), axis=0)) == len(frames)


def test_all_layouts_are_measured(tmp_path: Path) -> None:
    (stores := tmp_path / "stores").mkdir()
    out = tmp_path / "out.json"
    sources = ["cartpole", "walk", *(["pong"] if find_spec("ale_py") and find_spec("cv2") else [])]
    arguments = ["--tiny", "--rounds", 1, "--place", stores, "--out", out]
    result = subprocess.run(
        [sys.executable, "-m", "bench", "frames", "--only", ",".join(sources)]
        + [str(argument) for argument in arguments],
        capture_output=True, text=True, cwd=TOOLS, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(out.read_text())
    assert list(found["sources"]) == sources
    for name, legs in found["sources"].items():
        assert f"\n| {SOURCES[name].title} | " in result.stdout
        for layout, package in LAYOUTS.items():
            is_there = not package or find_spec(package) is not None
            assert f"{layout}: push" in legs or not is_there
            assert (f"| {layout} | {package} is missing |" in result.stdout) is not is_there
        for leg in legs.values():
            assert not leg["missing"]
            assert all(value > 0 for values in leg["figures"].values() for value in values)
    assert ("a push to the log" in result.stdout) is ("pong" in sources)
    assert not list(stores.iterdir())

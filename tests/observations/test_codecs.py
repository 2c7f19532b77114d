"""Buffers with a codec: the batches of a twin without, in fewer bytes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import run_python
from env_streams import EnvStream, columns_of

import diskreplay

PACKAGES = {"lz4": "lz4", "zstd": "zstandard"}
COMPRESSING = [
    pytest.param(
        codec,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(package) is None, reason=f"{package} is not installed"
        ),
    )
    for codec, package in PACKAGES.items()
]
CAPACITY = 300


def fill(buffer: Any, first: int) -> None:
    """Push a lap and a half: one by one, and in columns."""
    env = EnvStream()
    for number in range(first, first + CAPACITY):
        buffer.push(**env.step(number % 251, done=number % 40 == 39))
        if number % 40 == 39:
            env.reset(number % 250)
    buffer.extend(**columns_of([env.step(number % 249) for number in range(CAPACITY // 2)]))
    buffer.flush()


@pytest.mark.parametrize("window_bytes", [0, 1 << 24])
@pytest.mark.parametrize("codec", COMPRESSING)
def test_batches_are_those_of_a_twin_without(codec: str, window_bytes: int, tmp_path: Path) -> None:
    layouts: dict[str, Any] = {"record": {}, "plain": {"frame_axis": 0}}
    layouts["compressed"] = {"frame_axis": 0, "codec": codec}
    sizes = {}
    for name, layout in layouts.items():
        with diskreplay.ReplayBuffer(CAPACITY, seed=1, path=tmp_path / name, **layout) as buffer:
            fill(buffer, 0)
    for first in (0, 7):
        opened = {name: diskreplay.open(tmp_path / name, window_bytes=window_bytes)
                  for name in layouts}  # fmt: skip
        for _ in range(5):
            batches = {name: buffer.sample(64) for name, buffer in opened.items()}
            for found, expected in zip(batches["compressed"], batches["record"], strict=True):
                np.testing.assert_array_equal(found, expected)
        sizes = {name: buffer.stats()["disk_bytes"] for name, buffer in opened.items()}
        assert sizes["compressed"] < sizes["plain"] < sizes["record"]
        for buffer in opened.values():
            fill(buffer, first)
            buffer.check()
            buffer.close()
    assert diskreplay.verify(tmp_path / "compressed") == []


@pytest.mark.parametrize("codec", COMPRESSING)
def test_a_store_whose_codec_is_not_installed_is_refused(codec: str, tmp_path: Path) -> None:
    with diskreplay.ReplayBuffer(9, path=tmp_path / "a", frame_axis=0, codec=codec) as buffer:
        buffer.push(**EnvStream().step(1))
    code = f"""
        import sys
        sys.modules[{PACKAGES[codec]!r}] = None
        import diskreplay
        for access in ("exclusive", "shared", "read"):
            try:
                diskreplay.open(sys.argv[1], access=access)
            except diskreplay.NotInstalledError as error:
                print(error)
    """
    message = (
        f"codec {codec} needs the package {PACKAGES[codec]}, which is not installed: "
        f"pip install 'diskreplay[{codec}]'"
    )
    assert run_python(code, tmp_path / "a").stdout.splitlines() == 3 * [message]
    with diskreplay.open(tmp_path / "a") as buffer:
        assert len(buffer) == 1


@pytest.mark.parametrize("codec", COMPRESSING)
def test_black_first_frames_do_not_decide_how_large_values_get(codec: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    before = np.zeros(100_000, np.uint8)
    with diskreplay.ReplayBuffer(
        40, path=tmp_path / "b", codec=codec, window_bytes=0, commit_interval=0.0
    ) as buffer:
        for step in range(300):
            after = before if step < 3 else rng.integers(0, 256, before.shape, dtype=np.uint8)
            buffer.push(before, 0, 0.0, after, False)
            before = after
        assert buffer.schema is not None
        expected = diskreplay.estimate(buffer.schema, 40, prioritized=False)
        assert buffer.stats()["disk_bytes"] <= 1.1 * expected.disk_bytes


@pytest.mark.parametrize("given", ["codec='lz4'", "schema={'state': Field('state', codec='lz4')}"])
def test_a_missing_codec_is_told_before_a_store_is_made(given: str, tmp_path: Path) -> None:
    run_python(
        f"""
        import os, sys
        sys.modules["lz4"] = None  # as where it is not installed
        from diskreplay import Field, NotInstalledError, ReplayBuffer
        try:
            ReplayBuffer(10, path={str(tmp_path / "b")!r}, {given})
        except NotInstalledError as error:
            assert "pip install 'diskreplay[lz4]'" in str(error), error
        else:
            raise AssertionError("it was made")
        assert not os.path.exists({str(tmp_path / "b")!r})
        """
    )

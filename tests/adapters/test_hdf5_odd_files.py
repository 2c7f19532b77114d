"""Files in HDF5 that are damaged or do not fit are refused with an error, and leave nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

import h5py
from common import contents

import diskreplay
from diskreplay import ReplayBuffer
from diskreplay.adapters.hdf5 import from_hdf5, to_hdf5


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """Return a file of two episodes of four steps, in the layout of d3rlpy."""
    with ReplayBuffer(20) as buffer:
        for i in range(8):
            buffer.push([float(i), 0.0], i, 1.0, [i + 1.0, 0.0], i % 4 == 3, log_prob=float(i))
        assert to_hdf5(buffer, tmp_path / "good.h5") == 8
    return tmp_path / "good.h5"


def changed(file: Path, change: Callable[[Any], None]) -> Path:
    shutil.copy(file, place := file.parent / "changed.h5")
    with h5py.File(place, "a") as opened:
        change(opened)
    return place


def put(name: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]
        file[name] = value

    return change


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("actions_1", np.zeros((5, 1), int), "episode 1: action has 5 rows"),
        ("observations_1", np.zeros((4, 3), np.float32), "shapes of the first episode"),
        ("num_episodes", [1, 2], "cannot be read"),
        ("diskreplay/extra_0_1", np.zeros(5, np.float32), "episode 1: log_prob has 5 rows"),
        ("diskreplay/rows_1", np.array([4]), r"expected rows below 4 \(found \[4\]\)"),
        ("diskreplay/rows_1", np.array([-1]), r"expected rows below 4 \(found \[-1\]\)"),
        ("diskreplay/observations_1", np.zeros((1, 3), np.float32), "shapes of the first episode"),
        ("diskreplay/facts", "{", "cannot be read"),
        ("diskreplay", np.zeros(3), "cannot be read"),
    ],
)
def test_a_dataset_that_does_not_fit_is_named(
    name: str, value: Any, says: str, exported: Path, tmp_path: Path
) -> None:
    file = changed(exported, put(name, value))
    before = contents(tmp_path)
    with pytest.raises((diskreplay.ArgumentError, diskreplay.SchemaError), match=says):
        from_hdf5(file, tmp_path / "s")
    assert contents(tmp_path) == before


@pytest.mark.skipif(
    h5py.version.hdf5_version_tuple < (1, 14, 0), reason="this HDF5 crashes on damaged files"
)
def test_bytes_that_are_damaged_raise_no_error_of_h5py(exported: Path, tmp_path: Path) -> None:
    whole, rng = exported.read_bytes(), np.random.default_rng(0)
    refused = 0
    for number in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 30):
            damaged[place] ^= int(rng.integers(1, 256))
        (tmp_path / "damaged.h5").write_bytes(damaged)
        try:
            from_hdf5(tmp_path / "damaged.h5", tmp_path / str(number))
        except diskreplay.DiskReplayError:
            refused += 1
            assert not (tmp_path / str(number)).exists()
    assert refused > 10


def test_ends_may_be_a_table_of_one_column(tmp_path: Path) -> None:
    rows = {"observations": np.arange(12.0).reshape(6, 2), "actions": np.zeros((6, 1))}
    ends = {"terminals": [0, 0, 1, 0, 0, 0], "timeouts": [0, 0, 0, 0, 1, 0]}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in {**rows, **ends, "rewards": np.arange(6.0)}.items():
            file[name] = np.reshape(column, (6, -1))
    assert from_hdf5(tmp_path / "a.h5", tmp_path / "s") == 4
    with diskreplay.open(tmp_path / "s", access="read") as buffer:
        assert [episode.rewards.tolist() for episode in buffer.episodes()] == [[0, 1, 2], [3]]

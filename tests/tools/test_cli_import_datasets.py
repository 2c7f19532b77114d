"""import of datasets, by the adapters."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import refused, run
from common import contents
from kills import at_each_step

import diskreplay


def d4rl(path: Path, n: int = 50) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["observations"] = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
        file["actions"] = np.arange(n)
        file["rewards"] = np.arange(n, dtype=np.float32)
        file["terminals"] = np.arange(n) % 10 == 9
        file["timeouts"] = np.zeros(n, bool)
    return path


def test_an_hdf5_file(tmp_path: Path) -> None:
    file, out = d4rl(tmp_path / "walks.hdf5"), tmp_path / "a"
    said = run("import", file, out).stdout
    assert said == f"{out}: 50 transitions of {file}, uniform, capacity 50\n"
    assert "exists" in refused("import", file, out)
    done = run(
        "import", file, out, "--force", "--kind", "prioritized", "--capacity", 30,
        "--observations", "log",
    )  # fmt: skip
    assert done.stdout == f"{out}: 30 transitions of {file}, prioritized, capacity 30\n"
    assert done.stderr == "left out the first 20 transitions: the capacity is 30\n"
    with diskreplay.open(out) as buffer:
        assert isinstance(buffer, diskreplay.PrioritizedReplayBuffer)
        assert buffer.schema["state"].log
        assert [len(episode.rewards) for episode in buffer.episodes()] == [10] * 3
    (tmp_path / "empty").mkdir()
    run("import", file, tmp_path / "empty", "--format", "hdf5")
    assert diskreplay.verify(tmp_path / "empty") == []
    assert sorted(place.name for place in tmp_path.iterdir()) == ["a", "empty", "walks.hdf5"]


def test_a_dataset_of_minari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minari")
    pytest.importorskip("h5py")
    from gymnasium import spaces

    from diskreplay.adapters.minari import to_minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    with diskreplay.ReplayBuffer(10) as buffer:
        buffer.push([0.0], 0, 0.5, [1.0], True)
        box: Any = spaces.Box(0, 1, (1,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari asks for an author and more
            to_minari(buffer, "mine/a-v0", observation_space=box, action_space=spaces.Discrete(1))
    said = run("import", "mine/a-v0", tmp_path / "a", "--format", "minari").stdout
    assert said == f"{tmp_path / 'a'}: 1 transition of mine/a-v0, uniform, capacity 1\n"
    out = tmp_path / "b"
    assert "mine/b-v0 not found" in refused("import", "mine/b-v0", out, "--format", "minari")
    told = refused("import", "mine/a-v0", out, status=2)
    assert "does not exist" in told
    assert "--format minari" in told
    assert not out.exists()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = d4rl(tmp_path / "walks.hdf5")
    before = contents(tmp_path)
    assert "for npz and parquet" in refused("import", file, tmp_path / "a", "--drop", "x", status=2)
    assert "no dataset of LeRobot" in refused("import", tmp_path, tmp_path / "a")
    (tmp_path / "text").write_text("text")
    assert "cannot be read as HDF5" in refused(
        "import", tmp_path / "text", tmp_path / "a", "--format", "hdf5"
    )
    (tmp_path / "text").unlink()
    assert contents(tmp_path) == before
    assert not (tmp_path / "a").exists()


def test_a_kill_at_any_step_leaves_no_store_or_a_whole_one(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    from diskreplay.adapters.hdf5 import from_hdf5

    file, out = d4rl(tmp_path / "walks.hdf5"), tmp_path / "a"
    kills = 0
    for _ in at_each_step(lambda: from_hdf5(file, out)):
        kills += 1
        if out.exists():
            assert diskreplay.verify(out) == []
            with diskreplay.open(out, access="read") as buffer:
                assert len(buffer) == 50
            break
    assert kills > 10

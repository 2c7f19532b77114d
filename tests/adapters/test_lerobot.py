"""Datasets of LeRobot, and our Parquet files in `datasets` of Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
from common import contents, run_python
from limited import group
from pyarrow import parquet

import diskreplay
from diskreplay import ReplayBuffer
from diskreplay.adapters.lerobot import from_lerobot

LENGTHS, DONE = (5, 1, 4, 1, 6), (True, True, False, False, True)


def frames(width: int = 3) -> dict[str, Any]:
    """The columns of episodes that end as DONE says."""
    rng, n = np.random.default_rng(0), sum(LENGTHS)
    done = np.zeros(n, bool)
    done[np.cumsum(LENGTHS) - 1] = DONE
    return {
        "observation.state": rng.standard_normal((n, width)).astype(np.float32),
        "action": rng.standard_normal((n, 2)).astype(np.float32),
        "episode_index": np.repeat(np.arange(len(LENGTHS)), LENGTHS),
        "frame_index": np.concatenate([np.arange(length) for length in LENGTHS]),
        "timestamp": np.concatenate([np.arange(length) for length in LENGTHS]) / np.float32(50),
        "next.reward": rng.standard_normal(n).astype(np.float32),
        "next.done": done,
        "next.success": done,
        "index": np.arange(n),
        "task_index": np.zeros(n, np.int64),
    }


def write(place: Path, columns: dict[str, Any], files: list[slice]) -> Path:
    """Write a dataset of some files."""
    (place / "meta").mkdir(parents=True)
    shapes = {name: {"shape": list(c.shape[1:]) or [1]} for name, c in columns.items()}
    (place / "meta" / "info.json").write_text(json.dumps({"features": shapes}))
    (place / "data" / "chunk-000").mkdir(parents=True)
    for number, span in enumerate(files):
        table = {
            name: c[span] if c.ndim == 1 else [*c[span].reshape(len(c[span]), -1)]
            for name, c in columns.items()
        }
        table["image"] = [{"bytes": b"", "path": "a.png"}] * len(columns["index"][span])
        file = place / "data" / "chunk-000" / f"file-{number:03}.parquet"
        parquet.write_table(pa.table(table), file, row_group_size=7)
    return place


def stored(path: Path) -> dict[str, Any]:
    with diskreplay.open(path, access="read") as buffer:
        return buffer.get(range(buffer.first, buffer.count), fields=list(buffer.schema.names))


def test_next_state_is_the_following_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = frames()
    monkeypatch.setattr("diskreplay.adapters.lerobot.CHUNK_BYTES", 300)
    # An episode may go on in the next file.
    place = write(tmp_path / "a", columns, [slice(0, 3), slice(3, 9), slice(9, 10), slice(10, 17)])
    kept, last, cut = [], [], []
    for begin, n, done in zip(np.cumsum([0, *LENGTHS[:-1]]), LENGTHS, DONE, strict=True):
        kept += range(begin, begin + (n if done else n - 1))
        last += [begin + n - 1] * done
        cut += [begin + n - 2] * (not done and n > 1)
    for kind in ("uniform", "prioritized"):
        assert from_lerobot(place, tmp_path / kind, kind=kind) == len(kept)
        assert diskreplay.verify(tmp_path / kind) == []
        found = stored(tmp_path / kind)
        after = [i if i in last else i + 1 for i in kept]
        np.testing.assert_array_equal(found.pop("next_state"), columns["observation.state"][after])
        assert found.pop("truncated").tolist() == [float(i in cut) for i in kept]
        for name, of in {
            "state": "observation.state", "action": "action", "reward": "next.reward",
            "done": "next.done", "success": "next.success", "episode_index": "episode_index",
            "frame_index": "frame_index", "timestamp": "timestamp", "task_index": "task_index",
        }.items():  # fmt: skip
            np.testing.assert_array_equal(found.pop(name), columns[of][kept], err_msg=name)
        assert not found
    with diskreplay.open(tmp_path / "uniform") as buffer:
        assert [len(episode.rewards) for episode in buffer.episodes()] == [5, 1, 3, 6]


def test_several_observations_and_no_rewards(tmp_path: Path) -> None:
    columns = frames()
    columns["observation.grid"] = np.arange(17 * 6).reshape(17, 2, 3)
    for name in ("next.reward", "next.done", "next.success"):
        del columns[name]
    n = from_lerobot(write(tmp_path / "a", columns, [slice(0, 17)]), tmp_path / "s")
    assert n == sum(length - 1 for length in LENGTHS)
    found = stored(tmp_path / "s")
    assert found["state.grid"].shape == (n, 2, 3)
    np.testing.assert_array_equal(found["next_state.grid"][:4], columns["observation.grid"][1:5])
    np.testing.assert_array_equal(found["state.state"][:4], columns["observation.state"][:4])
    assert not found["reward"].any()
    assert found["truncated"].sum() == 3


def test_what_is_no_dataset_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    columns = frames()
    del columns["action"]
    cases = [
        (tmp_path / "none", "is no dataset of LeRobot"),
        (write(tmp_path / "a", columns, [slice(0, 17)]), "no column of numbers action"),
        (write(tmp_path / "b", frames(), [slice(0, 17)]), "holds no frames"),
        (write(tmp_path / "c", frames(), [slice(0, 17)]), "cannot be read"),
    ]
    (tmp_path / "c" / "data" / "chunk-000" / "file-000.parquet").write_bytes(b"PAR1 and no more")
    ragged = write(tmp_path / "d", frames(), [slice(0, 17)])
    file = ragged / "data" / "chunk-000" / "file-000.parquet"
    rows = [[1.0]] * 16 + [[1.0, 2.0]]
    table = parquet.read_table(file)
    parquet.write_table(table.slice(0, 0), tmp_path / "b" / "data" / "chunk-000" / file.name)
    parquet.write_table(table.set_column(0, "observation.state", pa.array(rows)), file)
    cases.append((ragged, "as many numbers in each row"))
    before = contents(tmp_path)
    for place, says in cases:
        with pytest.raises(diskreplay.ArgumentError, match=says):
            from_lerobot(place, tmp_path / "s")
    assert contents(tmp_path) == before
    assert not (tmp_path / "s").exists()


def test_datasets_of_hugging_face_read_an_export(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from commands import run

    with ReplayBuffer(100, path=tmp_path / "a") as buffer:
        rng = np.random.default_rng(0)
        states = rng.standard_normal((41, 3)).astype(np.float32)
        dones = np.arange(40) % 10 == 9
        buffer.extend(states[:-1], np.arange(40), rng.random(40), states[1:], dones)
    run("export", tmp_path / "a", tmp_path / "a.parquet")
    found = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache")
    )["train"].with_format("numpy")  # fmt: skip
    expected = stored(tmp_path / "a")
    for name, column in expected.items():
        np.testing.assert_array_equal(found[:][name], column)
    # And back, by way of its own Parquet file.
    found.to_parquet(str(tmp_path / "b.parquet"))
    run("import", tmp_path / "b.parquet", tmp_path / "b")
    again = stored(tmp_path / "b")
    for name, column in expected.items():
        np.testing.assert_array_equal(again[name], column)
    with diskreplay.open(tmp_path / "b") as buffer:
        assert [len(episode.rewards) for episode in buffer.episodes()] == [10] * 4


IMPORT = """
import sys
from diskreplay.adapters.lerobot import from_lerobot
print(from_lerobot(sys.argv[1], sys.argv[2]))
"""


def test_a_dataset_of_four_times_the_memory(disk_path: Path, long: bool) -> None:
    if not long:
        pytest.skip("takes a minute: --long")
    limit, n, width = 192 << 20, 2000, 5000
    files = 4 * limit // (n * width * 4) + 1
    rng = np.random.default_rng(0)
    place = write(disk_path / "a", frames(), [])
    for number in range(files):
        states = rng.standard_normal(n * width, np.float32)
        table = {
            "observation.state": pa.FixedSizeListArray.from_arrays(states, width),
            "action": np.zeros(n), "episode_index": np.full(n, number),
            "next.done": np.arange(n) == n - 1,
        }  # fmt: skip
        file = place / "data" / "chunk-000" / f"file-{number:03}.parquet"
        parquet.write_table(pa.table(table), file, row_group_size=100, compression="none")
    with group(limit) as limited:
        if limited is None:
            out = run_python(IMPORT, place, disk_path / "s").stdout
        else:
            found = limited.run(IMPORT, place, disk_path / "s")
            assert (found.status, found.kills) == (0, 0), found
            out = found.out
    assert int(out) == n * files

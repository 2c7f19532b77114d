"""Files of d3rlpy and D4RL, in and out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("h5py")

import h5py
from common import contents, run_python
from limited import group

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.adapters.hdf5 import from_hdf5, to_hdf5

LENGTHS = (5, 1, 7, 1, 4, 3)
TERMINATED = (True, True, False, False, True, False)


def rows(lengths: Any = LENGTHS, seed: int = 0) -> dict[str, Any]:
    """Rows as D4RL has them, of episodes that end as TERMINATED says."""
    rng, n = np.random.default_rng(seed), sum(lengths)
    ends = np.zeros(n, bool)
    ends[np.cumsum(lengths) - 1] = True
    terminals = np.zeros(n, bool)
    terminals[np.cumsum(lengths) - 1] = np.resize(TERMINATED, len(lengths))
    return {
        "observations": rng.standard_normal((n, 3)),
        "actions": rng.standard_normal((n, 2)).astype(np.float32),
        "rewards": rng.standard_normal(n),
        "next_observations": rng.standard_normal((n, 3)),
        "terminals": terminals,
        "timeouts": ends & ~terminals,
    }


def written(path: Path, values: dict[str, Any], *left_out: str) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            if name not in left_out:
                file[name] = value
    return path


def arrays(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def stored(path: Path) -> dict[str, Any]:
    with diskreplay.open(path, access="read") as buffer:
        return buffer.get(range(buffer.first, buffer.count), fields=list(buffer.schema.names))


def episodes_of(path: Path) -> list[Any]:
    with diskreplay.open(path, access="read") as buffer:
        return list(buffer.episodes())


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name)
        assert np.asarray(found[name]).dtype == np.asarray(column).dtype, name


@pytest.mark.filterwarnings("ignore::diskreplay.EpisodeWarning")
def test_d4rl_with_next_observations_is_kept_to_the_bit(tmp_path: Path) -> None:
    values = rows()
    for i in range(len(values["rewards"]) - 1):
        if not (values["terminals"] | values["timeouts"])[i]:
            values["next_observations"][i] = values["observations"][i + 1]
    file = written(tmp_path / "a.hdf5", values)
    assert from_hdf5(file, tmp_path / "s") == sum(LENGTHS)
    assert diskreplay.verify(tmp_path / "s") == []
    assert [len(e.rewards) for e in episodes_of(tmp_path / "s")] == [*LENGTHS]
    assert to_hdf5(tmp_path / "s", tmp_path / "b.hdf5", layout="d4rl") == sum(LENGTHS)
    assert_equal(arrays(tmp_path / "b.hdf5"), values)


@pytest.mark.parametrize("end", ["timeouts", "episode_terminals"])
def test_next_state_is_the_following_row(end: str, tmp_path: Path) -> None:
    values = rows()
    values["episode_terminals"] = (values["terminals"] | values["timeouts"]).astype(np.float32)
    left_out = {"timeouts", "episode_terminals"} - {end}
    file = written(tmp_path / "a.hdf5", values, "next_observations", *left_out)
    from_hdf5(file, tmp_path / "s")
    found, expected, at = stored(tmp_path / "s"), [], 0
    for length, is_terminated in zip(LENGTHS, TERMINATED, strict=True):
        kept = length if is_terminated else length - 1
        for i in range(at, at + kept):
            is_done = is_terminated and i == at + length - 1
            after = values["observations"][i if is_done else i + 1]
            is_cut = not is_terminated and i == at + kept - 1
            expected.append((i, after, float(is_done), float(is_cut)))
        at += length
    ids = [i for i, *_ in expected]
    for name, of in (("state", "observations"), ("action", "actions"), ("reward", "rewards")):
        np.testing.assert_array_equal(found[name], values[of][ids])
    np.testing.assert_array_equal(found["next_state"], [after for _, after, *_ in expected])
    assert found["done"].tolist() == [done for *_, done, _ in expected]
    assert found["truncated"].tolist() == [cut for *_, cut in expected]
    lengths = [n if t else n - 1 for n, t in zip(LENGTHS, TERMINATED, strict=True)]
    assert [len(e.rewards) for e in episodes_of(tmp_path / "s")] == [n for n in lengths if n]


def test_chunks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "a.hdf5", rows(LENGTHS * 5), "next_observations")
    from_hdf5(file, tmp_path / "whole")
    expected = stored(tmp_path / "whole")
    for nbytes in (1, 150, 300):
        monkeypatch.setattr("diskreplay.adapters.hdf5.CHUNK_BYTES", nbytes)
        place = tmp_path / str(nbytes)
        from_hdf5(file, place, kind="prioritized", observations="log")
        assert_equal(stored(place), expected)
        lengths = [len(e.rewards) for e in episodes_of(place)]
        assert lengths == [len(e.rewards) for e in episodes_of(tmp_path / "whole")]


def d3rlpy_file(path: Path, *, nested: bool = False) -> dict[str, Any]:
    """Write a file as d3rlpy dumps episodes, and return its arrays."""
    rng = np.random.default_rng(1)
    values: dict[str, Any] = {}
    for i, (n, is_terminated) in enumerate(zip(LENGTHS, TERMINATED, strict=True)):
        observations = rng.integers(0, 256, (n, 2, 4, 4), np.uint8)
        values[f"observations_{i}_0" if nested else f"observations_{i}"] = observations
        if nested:
            values[f"observations_{i}_1"] = rng.standard_normal((n, 3)).astype(np.float32)
        values[f"actions_{i}"] = rng.integers(0, 5, (n, 1))
        values[f"rewards_{i}"] = rng.standard_normal((n, 1)).astype(np.float32)
        values[f"terminated_{i}"] = np.bool_(is_terminated)
    values["columns"] = ["observations", "actions", "rewards", "terminated"]
    values["num_episodes"], values["version"] = len(LENGTHS), "2.1"
    written(path, values)
    return arrays(path)


@pytest.mark.parametrize("nested", [False, True])
def test_d3rlpy_in_and_out(nested: bool, tmp_path: Path) -> None:
    expected = d3rlpy_file(tmp_path / "a.h5", nested=nested)
    kept = [n if t else n - 1 for n, t in zip(LENGTHS, TERMINATED, strict=True)]
    assert from_hdf5(tmp_path / "a.h5", tmp_path / "s") == sum(kept)
    assert to_hdf5(tmp_path / "s", tmp_path / "b.h5") == sum(kept)
    found = arrays(tmp_path / "b.h5")
    # An episode of one row that is not terminated has no transition.
    numbers = [i for i, n in enumerate(kept) if n]
    assert found["num_episodes"] == len(numbers)
    for new, old in enumerate(numbers):
        for name in [name for name in expected if name.split("_")[1:2] == [str(old)]]:
            of, _, *place = name.split("_")
            given, column = expected[name], found["_".join([of, str(new), *place])]
            assert given.dtype == column.dtype
            if of in ("actions", "rewards") and not TERMINATED[old]:
                # The last row is no transition of d3rlpy.
                np.testing.assert_array_equal(column[-1], 0)
                given, column = given[:-1], column[:-1]
            np.testing.assert_array_equal(column, given)


def test_a_buffer_goes_through_d3rlpy(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(200, path=tmp_path / "a") as buffer:
        for env in (0, 1, 0, 1):
            n = 7 + env
            states = np.arange(n + 1, dtype=np.float32)[:, None] + 100 * env
            dones = (np.arange(n) == n - 1) & (env == 1)
            buffer.extend(states[:-1], np.arange(n), np.arange(n), states[1:], dones,
                          truncateds=(np.arange(n) == n - 1) & ~dones, env=env)  # fmt: skip
        expected = buffer.get(range(30))
        assert to_hdf5(buffer, tmp_path / "a.h5") == 30
    from_hdf5(tmp_path / "a.h5", tmp_path / "b", kind="prioritized", capacity=50)
    with diskreplay.open(tmp_path / "b") as found:
        batch = found.get(range(30))
        assert isinstance(found, PrioritizedReplayBuffer)
        assert found.capacity == 50
    for name in ("states", "rewards", "dones", "truncated"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name))
    assert batch.actions.tolist() == [[action] for action in expected.actions.tolist()]
    is_done = expected.dones != 0
    np.testing.assert_array_equal(batch.next_states[~is_done], expected.next_states[~is_done])
    np.testing.assert_array_equal(batch.next_states[is_done], expected.states[is_done])


@pytest.mark.skipif(importlib.util.find_spec("d3rlpy") is None, reason="d3rlpy is not installed")
def test_d3rlpy_reads_and_writes_them(tmp_path: Path) -> None:
    from d3rlpy.dataset import InfiniteBuffer
    from d3rlpy.dataset import ReplayBuffer as OfD3rlpy

    d3rlpy_file(tmp_path / "a.h5")
    from_hdf5(tmp_path / "a.h5", tmp_path / "s")
    to_hdf5(tmp_path / "s", tmp_path / "b.h5")
    with (tmp_path / "b.h5").open("rb") as file:
        found = OfD3rlpy.load(file, InfiniteBuffer())
    assert found.transition_count == len(stored(tmp_path / "s")["reward"])
    with (tmp_path / "c.h5").open("w+b") as file:
        found.dump(file)
    assert_equal(arrays(tmp_path / "c.h5"), arrays(tmp_path / "b.h5"))


def test_further_fields_and_open_episodes(tmp_path: Path) -> None:
    values = rows()
    values["infos/log_probs"] = np.arange(len(values["rewards"]), dtype=np.float64)
    file = written(tmp_path / "a.hdf5", values, "next_observations")
    from_hdf5(file, tmp_path / "s", fields={"log_prob": "infos/log_probs"})
    found = stored(tmp_path / "s")
    assert found["log_prob"].tolist()[:6] == [0, 1, 2, 3, 4, 5]
    with diskreplay.open(tmp_path / "s") as buffer:
        n = len(buffer)
        for i in range(3):
            buffer.push(np.full(3, i), [0.0, 0.0], 0.0, np.full(3, i + 1), False, log_prob=1.0)
        assert to_hdf5(buffer, tmp_path / "open.h5", layout="d4rl") == n
    assert len(arrays(tmp_path / "open.h5")["log_prob"]) == n


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    values = rows()
    ArgumentError = diskreplay.ArgumentError
    (tmp_path / "text.h5").write_text("no HDF5")
    cases: list[tuple[Path, type[Exception], str]] = [
        (tmp_path / "text.h5", ArgumentError, "cannot be read as HDF5"),
        (tmp_path / "none.h5", ArgumentError, "cannot be read as HDF5"),
        (written(tmp_path / "1.h5", values, "actions"), ArgumentError, "no dataset 'actions'"),
        (written(tmp_path / "2.h5", {**values, "actions": values["actions"][1:]}), ArgumentError,
         "action has 20 rows"),
        (written(tmp_path / "3.h5", {n: c[:0] for n, c in values.items()}), ArgumentError,
         "holds no rows"),
        (written(tmp_path / "4.h5", {**values, "terminals": values["terminals"] * 2}),
         diskreplay.SchemaError, "True or False"),
    ]  # fmt: skip
    before = contents(tmp_path)
    for file, error, says in cases:
        with pytest.raises(error, match=says):
            from_hdf5(file, tmp_path / "s")
    good = written(tmp_path / "good.h5", values)
    with pytest.raises(ArgumentError, match="kind must be one of"):
        from_hdf5(good, tmp_path / "s", kind="both")
    with pytest.raises(diskreplay.StorageError, match=r"1\.h5 exists"):
        from_hdf5(good, tmp_path / "1.h5")
    d3rlpy_file(tmp_path / "d.h5")
    with pytest.raises(ArgumentError, match="no further fields"):
        from_hdf5(tmp_path / "d.h5", tmp_path / "s", fields={"x": "y"})
    for name in ("good.h5", "d.h5"):
        (tmp_path / name).unlink()
    assert contents(tmp_path) == before


def test_what_a_layout_does_not_have_is_refused(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "s") as buffer:
        buffer.push({"a": [0.0]}, 0, 0.0, {"a": [0.0]}, True, text="x")
        for layout, says in (("d3rlpy", "'state.a'"), ("d4rl", "'state.a'"), ("x", "one of")):
            with pytest.raises(diskreplay.ArgumentError, match=says):
                to_hdf5(buffer, tmp_path / "x.h5", layout=layout)
    with ReplayBuffer(10) as buffer:
        buffer.push([0.0], 0, 0.0, [0.0], True, text="x")
        with pytest.raises(diskreplay.ArgumentError, match="'text', str"):
            to_hdf5(buffer, tmp_path / "x.h5", layout="d4rl")
        assert to_hdf5(buffer, tmp_path / "x.h5") == 1
        with pytest.raises(diskreplay.ArgumentError, match="exists"):
            to_hdf5(buffer, tmp_path / "x.h5")
    assert sorted(place.name for place in tmp_path.iterdir()) == ["s", "x.h5"]


IMPORT = """
import sys
from limited import anonymous_bytes
from diskreplay.adapters.hdf5 import from_hdf5, to_hdf5

path, out, again = sys.argv[1:]
before = anonymous_bytes()
print(from_hdf5(path, out), to_hdf5(out, again, layout="d4rl"), anonymous_bytes() - before)
"""


def test_a_dataset_of_four_times_the_memory(disk_path: Path) -> None:
    limit, step, width = 96 << 20, 1000, 5000
    n = 4 * limit // (2 * 4 * width) // step * step + step
    rng = np.random.default_rng(0)
    with h5py.File(disk_path / "a.h5", "w") as file:
        for name, shape in {
            "observations": (width,),
            "next_observations": (width,),
            "actions": (),
            "rewards": (),
            "terminals": (),
            "timeouts": (),
        }.items():
            file.create_dataset(name, (n, *shape), "f4", chunks=(100, *shape))
        for at in range(0, n, step):
            states = rng.standard_normal((step + 1, width)).astype(np.float32)
            file["observations"][at : at + step] = states[:-1]
            file["next_observations"][at : at + step] = states[1:]
            file["timeouts"][at + 199 : at + step : 200] = 1
    with group(limit) as limited:
        arguments = disk_path / "a.h5", disk_path / "s", disk_path / "b.h5"
        if limited is None:
            out = run_python(IMPORT, *arguments).stdout
        else:
            found = limited.run(IMPORT, *arguments)
            assert (found.status, found.kills) == (0, 0), found
            out = found.out
    imported, exported, more = map(int, out.split())
    assert imported == exported == n
    assert more <= limit // 2
    with h5py.File(disk_path / "a.h5") as one, h5py.File(disk_path / "b.h5") as other:
        for at in range(0, n, step):
            for name in one:
                np.testing.assert_array_equal(
                    one[name][at : at + step], other[name][at : at + step]
                )

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


def following_rows() -> dict[str, Any]:
    """Return rows whose next observations are those of the following rows, within episodes."""
    values = rows()
    goes_on = np.flatnonzero(~(values["terminals"] | values["timeouts"])[:-1])
    values["next_observations"][goes_on] = values["observations"][goes_on + 1]
    return values


def written(path: Path, values: dict[str, Any], *left_out: str) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            if name not in left_out:
                file[name] = value
    return path


def arrays(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file if name != "diskreplay"}


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
    values = following_rows()
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
        monkeypatch.setattr("diskreplay.adapters.hdf5.reading.CHUNK_BYTES", nbytes)
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


OF_TUPLES = {
    f"{root}[{place}]": kind
    for root in ("state", "next_state")
    for place, kind in enumerate([("float32", (3,)), ("uint8", (2,))])
}


def odd_buffer(path: Path, *, of_tuples: bool, kind: Any = ReplayBuffer) -> Any:
    """Return a buffer of two environments, whose rows have all that a file might lose."""
    rng, n = np.random.default_rng(3), 60
    schema = {
        **(OF_TUPLES if of_tuples else {"next_state": ("float64", (3,))}),
        "reward": "float64", "action": "int32", "truncated": "uint8",
        "note.at": "int16", "note.pair[0]": ("float32", (2, 2)), "note.pair[1]": "bool",
        "log_prob": "float64",
    }  # fmt: skip
    buffer = kind(200, path=path, schema=schema)
    ends, cuts = rng.random((2, n)) < [[0.15], [0.1]]
    cuts[:4], ends[:4] = [True, False, False, False], [True, False, True, False]
    cuts[-2:] = True

    def observed() -> Any:
        vectors = rng.standard_normal((n, 3)).astype(np.float32)
        return (vectors, rng.integers(0, 255, (n, 2), np.uint8)) if of_tuples else vectors

    states, after = observed(), observed()
    for env in (0, 1):  # half of the next observations are the following ones
        rows = np.flatnonzero(np.arange(n) % 2 == env)
        for old, new in zip(*((after, states) if of_tuples else ([after], [states])), strict=True):
            old[rows[:15]] = new[rows[1:16]]
    note = {"at": np.arange(n), "pair": (rng.random((n, 2, 2)), rng.random(n) < 0.5)}
    numbers = np.arange(n)
    buffer.extend(states, numbers, rng.random(n), after, ends, truncateds=cuts, env=numbers % 2,
                  note=note, log_prob=rng.random(n), text=["x"] * n)  # fmt: skip
    return buffer


@pytest.mark.filterwarnings("ignore::diskreplay.EpisodeWarning")
@pytest.mark.parametrize("of_tuples", [False, True])
@pytest.mark.parametrize("nbytes", [1, 200, 4 << 20])
def test_a_buffer_goes_through_d3rlpy_and_keeps_every_array(
    nbytes: int, of_tuples: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diskreplay.adapters.hdf5.reading.CHUNK_BYTES", nbytes)
    with odd_buffer(tmp_path / "a", of_tuples=of_tuples, kind=PrioritizedReplayBuffer) as buffer:
        episodes = list(buffer.episodes())
        order = np.concatenate([episode.indices for episode in episodes])
        names = [name for name in buffer.schema.names if name != "text"]
        expected = buffer.get(order, fields=names)
        assert sorted(order) == [*range(60)]
        assert ((expected["done"] != 0) & (expected["truncated"] != 0)).any()
        assert to_hdf5(buffer, tmp_path / "a.h5") == 60
    from_hdf5(tmp_path / "a.h5", tmp_path / "b", kind="prioritized", capacity=70)
    with diskreplay.open(tmp_path / "b", access="read") as found:
        assert isinstance(found, PrioritizedReplayBuffer)
        assert found.capacity == 70
        assert sorted(found.schema.names) == sorted(names)
        columns = found.get(range(60), fields=names)
        lengths = [len(episode.rewards) for episode in found.episodes()]
    assert lengths == [len(episode.rewards) for episode in episodes]
    last = np.cumsum(lengths) - 1
    was_cut = (expected["truncated"] != 0) | (expected["done"] == 0)
    np.testing.assert_array_equal(columns.pop("truncated")[last] != 0, was_cut[last])
    del expected["truncated"]
    assert_equal(columns, expected)


@pytest.mark.filterwarnings("ignore::diskreplay.EpisodeWarning")
def test_d4rl_keeps_ends_that_are_both(tmp_path: Path) -> None:
    values = following_rows()
    values["timeouts"][4] = True  # terminal, too
    for left_out in ((), ("next_observations",)):
        file = written(tmp_path / f"{len(left_out)}.h5", values, *left_out)
        from_hdf5(file, tmp_path / f"s{len(left_out)}")
        found = stored(tmp_path / f"s{len(left_out)}")
        assert (found["done"][4], found["truncated"][4]) == (1, 1)
    assert to_hdf5(tmp_path / "s0", tmp_path / "again.h5", layout="d4rl") == sum(LENGTHS)
    assert_equal(arrays(tmp_path / "again.h5"), values)


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
    pair = (([0.0], [1.0]),)
    nested = {f"{root}[0][{i}]": ("f4", (1,)) for root in ("state", "next_state") for i in (0, 1)}
    for values, schema, layout, says in (
        ([[0.0], 0, 0.0, [0.0, 1.0], True], {"next_state": ("f4", (2,))}, "d3rlpy", "another one"),
        ([[0.0], 0, 0.0, [0.0, 1.0], True], {"next_state": ("f4", (2,))}, "d4rl", "another one"),
        ([[0.0], 0, 0.0, [0.0], [True, False]], {"done": ("?", (2,))}, "d3rlpy", "'done'"),
        ([[0.0], 0, 0.0, [0.0], [True, False]], {"done": ("?", (2,))}, "d4rl", "'done'"),
        ([pair, 0, 0.0, pair, True], nested, "d3rlpy", r"'state\[0\]\[0\]'"),
    ):
        with ReplayBuffer(10, schema=schema) as buffer:
            buffer.push(*values)
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

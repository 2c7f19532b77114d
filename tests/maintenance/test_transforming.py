"""transform: each layout against a twin in memory, what is kept, and what is refused."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from common import columns, contents
from stores import MAKERS, content_of_column, stream_of
from test_links_in_maintenance import DONES, EXPECTED, make, rows_before

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.records import unseal
from diskreplay.schema import Schema


def rows_of(path: Path) -> dict[str, Any]:
    """The live rows of a store, by field."""
    with diskreplay.open(path, access="read") as buffer:
        assert buffer.schema is not None
        return buffer.get(np.arange(buffer.first, buffer.count), fields=list(buffer.schema.names))


def facts_of(path: Path) -> dict[str, Any]:
    """All that a store keeps beside its rows."""
    with diskreplay.open(path, access="read") as buffer:
        stats = buffer.stats()
        names = ("size", "count", "capacity", "durability", "commit_interval", "commits", "runs")
        found = {name: stats[name] for name in (*names, "stale_updates", "cuts")}
        found |= {"kind": type(buffer), "first": buffer.first, "stream": stream_of(buffer)}
        if isinstance(buffer, PrioritizedReplayBuffer):
            ids = np.arange(buffer.first, buffer.count)
            found |= {"priorities": buffer.priorities(ids).tolist(), "alpha": stats["alpha"]}
            found |= {"max_priority": buffer.max_priority, "frame": buffer.frame}
        return found


@pytest.mark.parametrize("maker", MAKERS)
def test_all_layouts_against_a_twin(maker: Callable[[Path], Path], tmp_path: Path) -> None:
    path, out = maker(tmp_path / "a"), tmp_path / "out"
    before, given = contents(path), rows_of(path)
    sizes = []

    def relabel(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        sizes.append(len(columns["reward"]))
        assert {*columns} == {*given}
        return {
            "reward": columns["reward"] * 2 - columns["done"],
            "old": columns["reward"],
            "step.number": np.arange(sum(sizes[:-1]), sum(sizes)),
        }

    n = diskreplay.transform(path, out, relabel)
    assert diskreplay.verify(out) == []
    assert contents(path) == before
    assert n == sum(sizes) == len(given["reward"])
    twin = {**given, "reward": given["reward"] * 2 - given["done"], "old": given["reward"]}
    twin["step.number"] = np.arange(n)
    found = rows_of(out)
    assert {name: content_of_column(c) for name, c in found.items()} == {
        name: content_of_column(c) for name, c in twin.items()
    }
    assert facts_of(out) == facts_of(path)
    with diskreplay.open(out, access="read") as new, diskreplay.open(path, access="read") as old:
        assert new.schema is not None
        assert old.schema is not None
        assert new.schema.fields[: len(old.schema.fields)] == old.schema.fields
        assert str(new.schema["step.number"]) == "step.number: int64"


@pytest.mark.parametrize("maker", [stores.uniform, stores.prioritized, stores.logged])
def test_both_stores_go_on_alike(maker: Callable[[Path], Path], tmp_path: Path) -> None:
    path, out = maker(tmp_path / "a"), tmp_path / "out"
    diskreplay.transform(path, out, lambda columns: {"reward": -columns["reward"]})
    with diskreplay.open(path) as old, diskreplay.open(out) as new:
        for step in range(12):
            for buffer, sign in ((old, 1), (new, -1)):
                rows = columns(1000 + 50 * step, 50)
                buffer.extend(**{**rows, "rewards": sign * rows["rewards"]})
            one, other = old.sample(16), new.sample(16)
            assert one.indices.tolist() == other.indices.tolist()
            assert one.states.tobytes() == other.states.tobytes()
            assert one.rewards.tolist() == (-other.rewards).tolist()
            for buffer, batch in ((old, one), (new, other)):
                if isinstance(buffer, PrioritizedReplayBuffer):
                    buffer.update_priorities(batch.indices, np.arange(16) + step)
        new.check()
    assert diskreplay.verify(out) == []


def test_fields_are_removed_retyped_and_put_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "a"
    frames = (np.arange(40 * 2 * 8 * 8) % 251).reshape(40, 2, 8, 8).astype(np.uint8)
    with ReplayBuffer(30, path=path, frame_axis=0, schema={
        "state": ("uint8", (2, 8, 8)), "action": "uint8", "reward": "float32",
        "next_state": ("uint8", (2, 8, 8)), "done": "float32", "text": str, "log_prob": "float64",
    }) as buffer:  # fmt: skip
        more: Any = {"text": [f"row {i}" for i in range(40)], "log_prob": np.arange(40.0)}
        dones = np.arange(40) % 7 == 6
        buffer.extend(frames, np.arange(40), np.arange(40.0), frames + 1, dones, **more)

    def crop(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "state": columns["state"][:, :, 1:7, 1:7],
            "next_state": columns["next_state"][:, :, 1:7, 1:7],
            "action": columns["action"] + 0.5,
            "reward": [float(reward) for reward in columns["reward"]],
            "text": [text.upper() for text in columns["text"]],
            "log_prob": None,
            "length": np.array([len(text) for text in columns["text"]], np.int16),
        }

    assert diskreplay.transform(path, tmp_path / "out", crop) == 30
    assert diskreplay.verify(tmp_path / "out") == []
    found = rows_of(tmp_path / "out")
    assert found["state"].tobytes() == frames[10:, :, 1:7, 1:7].tobytes()
    assert found["next_state"].tobytes() == (frames[10:, :, 1:7, 1:7] + 1).tobytes()
    assert found["action"].tolist() == [i + 0.5 for i in range(10, 40)]
    assert found["text"] == [f"ROW {i}" for i in range(10, 40)]
    with diskreplay.open(tmp_path / "out", access="read") as buffer:
        assert [str(field) for field in buffer.schema.fields] == [
            "state: uint8[2, 6, 6] (in the log, frame axis 0)",
            "action: float32",
            "reward: float32",
            "next_state: uint8[2, 6, 6] (in the log, frame axis 0)",
            "done: float32",
            "text: str",
            "length: int16",
        ]  # fmt: skip

    def features(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        of = {name: columns[name].mean(axis=(1, 2, 3)) for name in ("state", "next_state")}
        return {**of, "text": np.arange(len(columns["text"]))}

    # Without any field in the log, the store has no log.
    diskreplay.transform(tmp_path / "out", tmp_path / "small", features)
    assert diskreplay.verify(tmp_path / "small") == []
    layout = unseal(stores.stored(tmp_path / "small", "meta", "layout"), "layout", "layout")
    assert "observations" not in layout
    with diskreplay.open(tmp_path / "small") as buffer:
        assert buffer.schema["state"].type == "float32"
        assert buffer.schema["text"].type == "int64"
        assert not any(field.log for field in buffer.schema.fields)
        buffer.push(0.0, 1.0, 0.0, 0.0, False, text=1, length=2)


def test_the_pages_of_a_ring_that_went_round_are_full(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with ReplayBuffer(20_000, path=path) as buffer:
        for first in range(0, 30_000, 1000):
            buffer.extend(**columns(first, 1000))
    diskreplay.transform(path, tmp_path / "out", lambda columns: {})
    diskreplay.compact(path)
    used = []
    for place in (tmp_path / "out", path):
        with diskreplay.open(place, access="read") as buffer:
            stats = buffer.stats()
            used.append(stats["disk_bytes"] - stats["free_bytes"])
    assert used[0] <= 1.02 * used[1]
    assert (tmp_path / "out" / "data.mdb").stat().st_size <= used[1] + (2 << 20)


def test_values_cannot_be_changed_in_place(tmp_path: Path) -> None:
    path = stores.varying(tmp_path / "a")

    def double(columns: Any) -> Any:
        for name in ("reward", "note"):
            with pytest.raises(ValueError, match="read-only"):
                columns[name][0] = columns[name][1]
        with pytest.raises(TypeError):
            columns["reward"] = columns["reward"] * 2
        return {}

    diskreplay.transform(path, tmp_path / "out", double)
    assert facts_of(tmp_path / "out") == facts_of(path)


def test_episodes_stay_and_end_where_done_says_so(tmp_path: Path) -> None:
    path = make(tmp_path / "a")
    diskreplay.transform(path, tmp_path / "b", lambda columns: {})
    assert rows_before(tmp_path / "b") == EXPECTED

    def cut(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"done": columns["reward"] % 4 == 3}

    diskreplay.transform(path, tmp_path / "c", cut)
    assert diskreplay.verify(tmp_path / "c") == []
    # What ended an episode before still does.
    assert rows_before(tmp_path / "c") == {i: b for i, b in EXPECTED.items() if b % 4 != 3}
    assert not DONES[::4].all()

    def truncate(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"truncated": columns["reward"] % 5 == 4}

    diskreplay.transform(path, tmp_path / "d", truncate)
    assert rows_before(tmp_path / "d") == {i: b for i, b in EXPECTED.items() if b % 5 != 4}


def test_a_store_without_transitions(tmp_path: Path) -> None:
    calls: list[int] = []

    def add(columns: Mapping[str, Any]) -> Mapping[str, Any]:
        calls.append(len(columns["reward"]))
        return {"advantage": columns["reward"] * 2}

    stores.empty(tmp_path / "a")
    assert diskreplay.transform(tmp_path / "a", tmp_path / "b", add) == 0
    assert not calls
    with diskreplay.open(stores.prioritized(tmp_path / "c")) as buffer:
        buffer.clear()
    assert diskreplay.transform(tmp_path / "c", tmp_path / "d", add) == 0
    assert calls == [0]
    for name in "bd":
        assert diskreplay.verify(tmp_path / name) == []
    with diskreplay.open(tmp_path / "d") as buffer:
        assert buffer.schema.extra_names == ("advantage",)
        assert buffer.count == 1350
        rows = columns(1350, 5)
        buffer.extend(**rows, advantage=np.zeros(5))


def test_marks_are_dropped(tmp_path: Path) -> None:
    with ReplayBuffer(20, path=tmp_path / "a", keep_rows=10) as buffer:
        buffer.extend(**columns(0, 15))
        buffer.mark("half")
        buffer.extend(**columns(15, 12))
    diskreplay.transform(tmp_path / "a", tmp_path / "b", lambda columns: {})
    assert diskreplay.verify(tmp_path / "b") == []
    with diskreplay.open(tmp_path / "b") as buffer:
        assert not buffer.marks()
        assert buffer.stats()["keep_rows"] == 10
        assert (buffer.first, buffer.count) == (7, 27)


class Fault(Exception):
    pass


def raising(columns: Any) -> Any:
    raise Fault("by the function")


def late(columns: Any) -> Any:
    """A column that does not fit the one of the first call."""
    late.calls = getattr(late, "calls", 0) + 1  # type: ignore[attr-defined]
    return {"x": np.zeros((len(columns["reward"]), late.calls))}  # type: ignore[attr-defined]


REFUSALS: list[tuple[Any, type[Exception], str]] = [
    (raising, Fault, "by the function"),
    (3, diskreplay.ArgumentError, r"needs a function .* \(found 3\)"),
    (lambda c: None, diskreplay.ArgumentError, r"a dictionary .* \(found None\)"),
    (lambda c: {"reward": [1.0]}, diskreplay.SchemaError, "write ids 160 to 299.*one length"),
    (lambda c: {"reward": 1.0}, diskreplay.SchemaError, "write ids 160 .*one number"),
    (lambda c: {n: [0] for n in c}, diskreplay.SchemaError, r"expected columns of 140 .*found 1"),
    (lambda c: {"reward": c["reward"] * np.nan}, diskreplay.SchemaError, "finite"),
    (lambda c: {"reward": None}, diskreplay.SchemaError, "needs the field 'reward'"),
    (lambda c: {"x": None}, diskreplay.SchemaError, r"removes the field 'x', .*\(found state"),
    (lambda c: {"states": c["state"]}, diskreplay.SchemaError, "'states' cannot name a field"),
    (lambda c: {3: c["state"]}, diskreplay.SchemaError, "found 3"),
    (lambda c: {"done": c["reward"] + 2}, diskreplay.SchemaError, "expected True or False"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "error", "says"), REFUSALS)
def test_a_refused_call_changes_nothing(
    function: Any, error: type[Exception], says: str, tmp_path: Path
) -> None:
    path = stores.uniform(tmp_path / "a")
    before = contents(tmp_path)
    with pytest.raises(error, match=says):
        diskreplay.transform(path, tmp_path / "out", function)
    assert contents(tmp_path) == before
    assert [place.name for place in tmp_path.iterdir()] == ["a"]


def test_columns_that_change_from_chunk_to_chunk_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with ReplayBuffer(20_000, path=path) as buffer:
        buffer.extend(**columns(0, 20_000))
    with pytest.raises(diskreplay.SchemaError, match=r"write ids 8192 to 16383, .* shape"):
        diskreplay.transform(path, tmp_path / "out", late)
    numbers = itertools.count()

    def other_names(columns: Any) -> Any:
        return {f"x{next(numbers)}": columns["reward"]}

    with pytest.raises(diskreplay.SchemaError, match=r"as at first .*found .*x1"):
        diskreplay.transform(path, tmp_path / "out", other_names)
    assert [place.name for place in tmp_path.iterdir()] == ["a"]


def test_an_output_that_is_in_use_is_refused(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = contents(tmp_path)
    for out in (path, path / "inside", tmp_path / "full"):
        with pytest.raises((diskreplay.StorageError, diskreplay.NotAStoreError)):
            diskreplay.transform(path, out, lambda columns: {})
    assert contents(tmp_path) == before
    with pytest.raises(diskreplay.NotAStoreError):
        diskreplay.transform(tmp_path / "full", tmp_path / "out", lambda columns: {})


def test_damage_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "a")
    stores.change(path, "transitions", 7, bytes(stores.RECORD_BYTES))
    with pytest.raises(diskreplay.DamageError, match=r"slot 7 .*missing.*repair"):
        diskreplay.transform(path, tmp_path / "out", lambda columns: {})
    assert [place.name for place in tmp_path.iterdir()] == ["a"]


def test_beside_a_writer_it_reads_one_commit(tmp_path: Path) -> None:
    with ReplayBuffer(3000, path=tmp_path / "a", commit_interval=0) as buffer:
        buffer.extend(**columns(0, 4000))
        buffer.flush()

        def meanwhile(given: Mapping[str, Any]) -> Mapping[str, Any]:
            buffer.extend(**columns(buffer.count, 500))
            buffer.flush()
            return {}

        # Another process has the store open: it is copied here, since a process opens a store once.
        shutil.copytree(tmp_path / "a", tmp_path / "copy")
        assert diskreplay.transform(tmp_path / "copy", tmp_path / "out", meanwhile) == 3000
    assert rows_of(tmp_path / "out")["reward"].tolist() == (np.arange(1000, 4000) / 8).tolist()


def test_types_are_those_of_a_push(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "a")
    diskreplay.transform(
        path,
        tmp_path / "out",
        lambda columns: {
            "state": {"a": 1} and columns["state"].astype(np.float64),
            "value": columns["reward"].astype(np.float64),
            "step": np.arange(len(columns["reward"])),
            "flag": columns["reward"] > 3,
        },
    )
    with diskreplay.open(tmp_path / "out", access="read") as buffer:
        types = {field.name: field.type for field in buffer.schema.fields}
    assert types == {
        **{name: Schema(stores.FIELDS)[name].type for name in stores.FIELDS},
        "value": "float32", "step": "int64", "flag": "bool",
    }  # fmt: skip

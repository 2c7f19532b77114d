"""Values that vary in size, from the call of the user to the log and to the batch."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run
from stores import change
from untrusted import fact, put_fact

import diskreplay
from diskreplay import (
    ArgumentError,
    DamageError,
    Field,
    FormatVersionError,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    SchemaError,
)
from diskreplay.records import entry_of, pack

CODECS = (None, "lz4", "zstd")


def fields(codec: str | None = None) -> dict[str, Any]:
    """Return a schema with a field of each sort."""
    return {
        "state": Field("state", str, codec=codec),
        "tokens": Field("tokens", "int32", (None,), codec=codec),
        "points": Field("points", "float32", (None, 3), codec=codec),
        "blob": Field("blob", bytes, codec=codec),
    }


def row(number: int, size: int) -> dict[str, Any]:
    """Return a transition; equal arguments give equal ones."""
    generator = np.random.default_rng(number)
    return {
        "state": f"über {number} " * (size % 5),
        "action": number,
        "reward": float(number),
        "next_state": f"über {number + 1} " * (size % 5),
        "done": False,
        "tokens": generator.integers(0, 9, size).astype("i4"),
        "points": generator.random((size % 4, 3)).astype("f4"),
        "blob": generator.bytes(size // 2),
    }


def columns_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    plural = {"state": "states", "action": "actions", "reward": "rewards", "done": "dones"}
    plural["next_state"] = "next_states"
    return {plural.get(name, name): [each[name] for each in rows] for name in rows[0]}


def check(batch: Any, rows: list[dict[str, Any]]) -> None:
    """Compare a batch with the rows that it must hold."""
    assert list(batch.states) == [each["state"] for each in rows]
    assert list(batch.next_states) == [each["next_state"] for each in rows]
    assert batch.actions.tolist() == [each["action"] for each in rows]
    assert list(batch.blob) == [each["blob"] for each in rows]
    for name in ("tokens", "points"):
        for found, each in zip(getattr(batch, name), rows, strict=True):
            np.testing.assert_array_equal(found, each[name], strict=True)


class VaryingAgainstList(RuleBasedStateMachine):
    """A buffer, and the list of all rows ever pushed."""

    @initialize(
        capacity=st.integers(1, 40),
        window_bytes=st.sampled_from([0, 1 << 24]),
        codec=st.sampled_from(CODECS),
        access=st.sampled_from(["exclusive", "shared"]),
    )
    def start(self, capacity: int, window_bytes: int, codec: str | None, access: str) -> None:
        if codec is not None:
            pytest.importorskip({"lz4": "lz4", "zstd": "zstandard"}[codec])
        self.directory = tempfile.TemporaryDirectory()
        self.rows: list[dict[str, Any]] = []
        self.options = {
            "capacity": capacity,
            "path": Path(self.directory.name) / "store",
            "schema": fields(codec),
            "window_bytes": window_bytes,
            "access": access,
            "commit_interval": 1e9,
        }
        self.buffer = ReplayBuffer(**self.options)

    @rule(number=st.integers(0, 5), size=st.integers(0, 12))
    def push(self, number: int, size: int) -> None:
        self.rows.append(row(number, size))
        self.buffer.push(**self.rows[-1])

    @rule(number=st.integers(0, 5), sizes=st.lists(st.integers(0, 12), min_size=1, max_size=90))
    def extend(self, number: int, sizes: list[int]) -> None:
        rows = [row(number + i % 3, size) for i, size in enumerate(sizes)]
        self.rows += rows
        self.buffer.extend(**columns_of(rows))

    @rule()
    def flush(self) -> None:
        self.buffer.flush()

    @rule()
    def reopen(self) -> None:
        self.buffer.close()
        self.buffer = ReplayBuffer(**self.options)

    @rule(n=st.integers(1, 9))
    def sample(self, n: int) -> None:
        self.buffer.flush()
        if self.buffer.is_ready(n):
            batch = self.buffer.sample(n)
            check(batch, [self.rows[i] for i in batch.indices.tolist()])

    @invariant()
    def is_equal(self) -> None:
        if hasattr(self, "buffer"):
            ids = np.arange(self.buffer.first, self.buffer.count)
            if ids.size:
                check(self.buffer.get(ids), [self.rows[i] for i in ids.tolist()])

    def teardown(self) -> None:
        if hasattr(self, "buffer"):
            self.buffer.flush()
            self.buffer.check()
            self.buffer.close()
            assert diskreplay.verify(self.options["path"]) == []
            self.directory.cleanup()


def test_a_buffer_gives_back_the_rows_of_a_list(long: bool) -> None:
    run(
        VaryingAgainstList,
        settings=settings(max_examples=400 if long else 12, stateful_step_count=25),
    )


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[PrioritizedReplayBuffer]:
    with PrioritizedReplayBuffer(
        capacity=50, path=tmp_path / "store", schema=fields(), seed=1, window_bytes=0
    ) as made:
        for number in range(60):
            made.push(**row(number, number % 13))
        yield made


def test_values_are_copied_and_batches_are_fresh(buffer: PrioritizedReplayBuffer) -> None:
    given = row(7, 9)
    buffer.push(**given)
    given["tokens"][:] = -1
    for _ in range(2):
        [found] = buffer.get([60]).tokens
        np.testing.assert_array_equal(found, row(7, 9)["tokens"])
        found[:] = -1


def test_all_ways_of_reading_give_the_same(buffer: PrioritizedReplayBuffer) -> None:
    first = buffer.sample(8)
    check(first, [row(i, i % 13) for i in first.indices.tolist()])
    lists = [first.tokens, first.states]
    again = buffer.sample(8, out=first)
    assert again is first
    assert (again.tokens, again.states) == (lists[0], lists[1])
    check(again, [row(i, i % 13) for i in again.indices.tolist()])
    for reuse in (False, True):
        with buffer.batches(8, prefetch=2, reuse=reuse) as batches:
            for _, batch in zip(range(5), batches, strict=False):
                check(batch, [row(i, i % 13) for i in batch.indices.tolist()])
    nested = buffer.get([[10, 11], [12, 13]], fields=["state", "tokens"])
    assert nested["state"] == [[row(i, i % 13)["state"] for i in p] for p in ((10, 11), (12, 13))]
    np.testing.assert_array_equal(nested["tokens"][1][0], row(12, 12)["tokens"])
    assert buffer.get(20).states == row(20, 7)["state"]
    experiences = list(buffer)
    assert experiences[-1].state == row(59, 59 % 13)["state"]
    assert experiences[0].tokens.tolist() == row(10, 10)["tokens"].tolist()


def test_what_is_no_earlier_batch_is_refused(buffer: PrioritizedReplayBuffer) -> None:
    batch = buffer.sample(4)
    with pytest.raises(ArgumentError, match=r"out.tokens must be a list of 4 values"):
        buffer.sample(4, out=batch._replace(tokens=batch.tokens[:3]))
    with pytest.raises(ArgumentError, match="out has one list in two places"):
        buffer.sample(4, out=batch._replace(tokens=batch.points))
    with pytest.raises(ArgumentError, match="readers=1 read rows of one size"):
        buffer.batches(4, prefetch=1, readers=1)
    with pytest.raises(ArgumentError, match=r"pad=True makes arrays of a new shape .*reuse=True"):
        buffer.batches(4, pad=True, reuse=True)
    with pytest.raises(ArgumentError, match=r"pad=True makes arrays of a new shape .*out="):
        buffer.sample(4, out=batch, pad=True)
    with pytest.raises(ArgumentError, match="pad must be True or False"):
        buffer.sample(4, pad="yes")  # type: ignore[arg-type]


# Padding


def test_padded_arrays_have_a_mask(buffer: PrioritizedReplayBuffer) -> None:
    assert buffer.sample(5, pad=True)._fields[-2:] == ("tokens_mask", "points_mask")
    with buffer.batches(5, prefetch=1, pad=True) as batches:
        for batch in (next(batches), buffer.get(range(40, 50), pad=True)):
            rows = [row(i, i % 13) for i in batch.indices.tolist()]
            n, longest = len(rows), max(len(each["tokens"]) for each in rows)
            assert batch.tokens.shape == batch.tokens_mask.shape == (n, longest)
            assert batch.points.shape[::2] == (n, 3)
            for i, each in enumerate(rows):
                assert batch.tokens[i, batch.tokens_mask[i]].tolist() == each["tokens"].tolist()
                assert batch.tokens_mask[i].sum() == len(each["tokens"])
                np.testing.assert_array_equal(batch.points[i][batch.points_mask[i]], each["points"])
            assert not batch.tokens[~batch.tokens_mask].any()
            assert batch.states == [each["state"] for each in rows]
    found = buffer.get([[10], [11]], fields=["tokens"], pad=True)
    assert list(found) == ["tokens", "tokens_mask"]
    assert found["tokens"].shape == (2, 1, 11)
    assert buffer.get([], pad=True).tokens.shape == (0, 0)


def test_masks_of_parts_are_in_a_dictionary() -> None:
    parts = {"seen": ("float32", (None,)), "rest": {"grid": ("u1", (2, None))}}
    schema = {"state": parts, "next_state": parts}
    buffer = ReplayBuffer(capacity=10, schema=schema)
    state = {"seen": [1.0], "rest": {"grid": np.ones((2, 3), "u1")}}
    buffer.push(state, 0, 0.0, {"seen": [], "rest": {"grid": np.ones((2, 0), "u1")}}, True)
    batch = buffer.sample(1, pad=True)
    assert batch._fields[5:] == ("states_mask", "next_states_mask")
    assert batch.states_mask["seen"].tolist() == [[True]]
    assert batch.states_mask["rest.grid"].tolist() == [[True, True, True]]
    assert batch.next_states["rest"]["grid"].shape == (1, 2, 0)
    found = buffer.get([0], fields=["state.seen"], pad=True)
    assert found["state.seen_mask"].tolist() == [[True]]


def test_a_field_of_the_name_of_a_mask_refuses_padding() -> None:
    buffer = ReplayBuffer(capacity=10, schema={"tokens": ("i4", (None,)), "tokens_mask": "bool"})
    buffer.push(0.0, 0, 0.0, 0.0, True, tokens=[1], tokens_mask=True)
    with pytest.raises(SchemaError, match="pad=True adds the mask 'tokens_mask', which"):
        buffer.sample(1, pad=True)
    assert buffer.sample(1).tokens_mask.tolist() == [True]


# Equal values, memory and disk


def test_equal_values_are_kept_once(tmp_path: Path) -> None:
    prompt = "word " * 4000
    with ReplayBuffer(capacity=1000, path=tmp_path / "a") as buffer:
        for _ in range(300):
            buffer.push(prompt, 0, 0.0, prompt, True)
            buffer.flush()
        assert buffer.stats()["observations_bytes"] < 4 * len(prompt)


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_what_waits_is_bounded_in_bytes(tmp_path: Path, access: str) -> None:
    size, rows = 1 << 20, 60
    generator = np.random.default_rng(0)
    with ReplayBuffer(
        capacity=1000, path=tmp_path / "a", access=access, window_bytes=0, commit_interval=1e9,
        durability="process",
    ) as buffer:  # fmt: skip
        buffer.push("", 0, 0.0, "", True, blob=b"")
        stated = buffer.stats()["memory_bytes"]
        tracemalloc.start()
        for _ in range(rows):
            buffer.push("", 0, 0.0, "", True, blob=generator.bytes(size))
        current, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert current < stated + 2 * size
        assert buffer.count >= rows - 8 if access == "shared" else buffer.count == rows + 1
        assert buffer.stats()["commits"] >= rows // 8


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_a_value_larger_than_the_window_is_committed_at_once(tmp_path: Path, access: str) -> None:
    blob = np.random.default_rng(0).bytes(20 << 20)
    with ReplayBuffer(
        capacity=5, path=tmp_path / "a", access=access, window_bytes=0, commit_interval=1e9
    ) as buffer:
        buffer.push("", 0, 0.0, "", True, blob=b"small")
        buffer.push("", 0, 0.0, "", True, blob=blob)
        assert buffer.stats()["commits"] >= 2
        assert buffer.get([0, 1]).blob == [b"small", blob]
        ids = buffer.extend([""] * 3, [0] * 3, [0.0] * 3, [""] * 3, [1] * 3, blob=[blob, b"", b"x"])
        assert len(ids) == 3
        assert buffer.get([2, 4], fields=["blob"])["blob"] == [blob, b"x"]


PUSHES = """
import sys
import diskreplay
from test_varying_values import fields, row

with diskreplay.ReplayBuffer(
    capacity=40, path=sys.argv[1], schema=fields(), access=sys.argv[2], commit_interval=0.0
) as buffer:
    for number in range(buffer.count, 10**6):
        buffer.push(**row(number, number % 13))
        print(number, flush=True)
"""


@pytest.mark.parametrize("access", ["exclusive", "shared"])
def test_a_killed_writer_leaves_whole_rows(tmp_path: Path, access: str) -> None:
    path = tmp_path / "store"
    places = [Path(__file__).parent, Path(__file__).parents[1] / "support"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, *map(str, places)])}
    command = [sys.executable, "-c", PUSHES, str(path), access]
    for pushes in (3, 70):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        with child:
            assert child.stdout is not None
            for _ in range(pushes):
                told = int(child.stdout.readline())
            child.kill()
        assert diskreplay.verify(path) == []
        with diskreplay.open(path, access="read") as buffer:
            assert buffer.count > told
            ids = np.arange(buffer.first, buffer.count)
            check(buffer.get(ids), [row(i, i % 13) for i in ids.tolist()])


# Damage, and strangers' stores


def spoiled(path: Path, content: bytes) -> None:
    """Replace the first entry of the log by one of any content, with its right checksum."""
    k = fact(path, "layout")["observations"]["entries_per_value"]
    change(path, "observations", 0, pack([entry_of(i, content) for i in range(k)]))


HOSTILE = {
    "a size beyond all values": struct.pack("<I", 2**32 - 1) + b"x",
    "a size that the bytes cannot stand for": struct.pack("<I", 2**26) + b"\x1f" * 20,
    "no size": b"\1\0",
    "another size": struct.pack("<I", 9) + bytes(8),
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_entry_is_damage_and_takes_no_memory(
    tmp_path: Path, codec: str | None, what: str
) -> None:
    if codec is not None:
        pytest.importorskip({"lz4": "lz4", "zstd": "zstandard"}[codec])
    path = tmp_path / "store"
    schema = {"tokens": Field("tokens", "int32", (None,), codec=codec)}
    with ReplayBuffer(capacity=10, path=path, schema=schema) as buffer:
        for i in range(4):
            buffer.push(0.0, 0, 0.0, 0.0, True, tokens=[i])
    spoiled(path, HOSTILE[what])
    tracemalloc.start()
    with diskreplay.open(path, access="read") as found:
        with pytest.raises(DamageError, match="observation"):
            found.get([1])
        with pytest.raises(DamageError):
            found.check()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    assert diskreplay.verify(path)
    with diskreplay.open(path, on_damage="skip") as left, pytest.raises(diskreplay.SampleError):
        left.sample(4)


def test_an_older_version_refuses_by_the_name_of_the_feature(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with ReplayBuffer(capacity=10, path=path) as buffer:
        buffer.push("text", 0, 0.0, "text", True)
    layout = fact(path, "layout")
    assert layout["features"] == ["observation-log", "varying-fields", "links"]
    layout["features"].append("fields-of-a-newer-version")
    put_fact(path, "layout", layout)
    plain = fact(path, "schema")
    plain[0][1] = "video"
    put_fact(path, "schema", plain)
    with pytest.raises(FormatVersionError, match="fields-of-a-newer-version"):
        diskreplay.open(path)


# The rest of the buffer


def test_saved_and_loaded_stores_have_the_same_values(
    buffer: PrioritizedReplayBuffer, tmp_path: Path
) -> None:
    buffer.save(tmp_path / "saved")
    with PrioritizedReplayBuffer(capacity=30, path=tmp_path / "b", schema=fields()) as other:
        other.push(**row(1, 1))
        other.load(tmp_path / "saved")
        check(other.get(range(other.first, other.count)), [row(i, i % 13) for i in range(30, 60)])
        other.clear()
        other.push(**row(2, 5))
        check(other.get([other.first]), [row(2, 5)])
    with diskreplay.open(tmp_path / "saved", access="read", window_bytes=0) as saved:
        check(saved.get(range(10, 60)), [row(i, i % 13) for i in range(10, 60)])


def test_batches_with_frames_are_whole_where_values_vary(tmp_path: Path) -> None:
    schema = {"state": ("uint8", (4, 64, 64)), "note": str}
    with ReplayBuffer(20, path=tmp_path / "b", schema=schema, frame_axis=0) as found:
        for i in range(20):
            found.push(np.full((4, 64, 64), i), 0, 0.0, np.full((4, 64, 64), i), True, note=f"{i}")
        for prefetch, reuse in ((0, False), (0, True), (2, True)):
            with found.batches(6, prefetch, frames=True, reuse=reuse) as batches:
                for _ in range(3):
                    batch = next(batches)
                    assert batch.states.shape == (6, 4, 64, 64)
                    assert batch.note == [f"{i}" for i in batch.indices]


def test_an_estimate_takes_the_mean_size(tmp_path: Path) -> None:
    standard = {"state": "f4", "action": "i8", "reward": "f4", "next_state": "f4", "done": "f4"}
    schema = {**standard, "tokens": ("int32", (None,))}
    with pytest.raises(ArgumentError, match=r"'tokens' vary in size: .* mean_bytes=\{'tokens': 80"):
        diskreplay.estimate(schema, 100)
    with pytest.raises(ArgumentError, match="mean_bytes has 'state', which is no field that varie"):
        diskreplay.estimate(schema, 100, mean_bytes={"tokens": 80, "state": 4})
    with pytest.raises(ArgumentError, match="mean_bytes must be a number"):
        diskreplay.estimate(schema, 100, mean_bytes={"tokens": -1})
    for mean in (40, 400, 4000):
        expected = diskreplay.estimate(schema, 2000, prioritized=False, mean_bytes={"tokens": mean})
        with ReplayBuffer(2000, path=tmp_path / str(mean), schema=schema) as found:
            for i in range(5000):
                tokens = np.arange(i, i + mean // 4 + (i % 3 - 1) * 5)
                found.push(0.0, 0, 0.0, 0.0, True, tokens=tokens)
            found.flush()
            assert found.stats()["disk_bytes"] <= 1.1 * expected.disk_bytes
            assert found.stats()["observations_bytes"] <= 1.1 * expected.observations_disk_bytes
            assert found.stats()["memory_bytes"] == expected.memory_bytes

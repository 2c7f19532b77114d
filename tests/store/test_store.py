"""The store alone: bytes by slot, one transaction for all, damage reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import run_python
from stores import change, records_in, stored
from xxhash import xxh3_64_intdigest

import diskreplay
from diskreplay.errors import DamageError
from diskreplay.records.seals import seal, unseal
from diskreplay.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An open store of bytes."""
    Store.create(tmp_path / "s", {"kind": "uniform", "capacity": 10}, {"state": {"count": 0}})
    store = Store(tmp_path / "s", access="exclusive")
    yield store
    store.close()


@pytest.fixture
def one_row(tmp_path: Path) -> Path:
    """A prioritized store of one transition."""
    with diskreplay.PrioritizedReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.push([0.0], 0, 0.0, [0.0], False)
    return tmp_path / "b"


def commit(
    store: Store,
    capacity: int,
    rows: Iterable[tuple[int, list[bytes]]],
    blocks: dict[int, bytes] | None = None,
    state: dict[str, Any] | None = None,
) -> None:
    with store.transaction() as txn:
        for first, part in rows:
            txn.put_records(capacity, first, part)
        txn.put_blocks(blocks or {}, "priorities")
        txn.put_meta({"state": state or {}})


def records(first: int, n: int, size: int = 100) -> list[bytes]:
    return [f"{number:08d}".encode() * (size // 8) for number in range(first, first + n)]


@pytest.mark.parametrize("runs", [[10, 10, 10], [3] * 11, [7, 2, 9, 10, 1, 5], [1] * 25])
@pytest.mark.parametrize("start", [0, 4])
def test_records_go_to_their_slots_on_every_lap(runs: list[int], start: int, store: Store) -> None:
    first = start
    expected: dict[int, bytes] = {}
    for n in runs:
        rows = records(first, n)
        commit(store, 10, [(first, rows[: n // 2]), (first + n // 2, rows[n // 2 :])])
        expected |= {(first + i) % 10: row for i, row in enumerate(rows)}
        first += n
        assert records_in(store, list(range(10))) == [expected.get(slot, b"") for slot in range(10)]


def test_the_first_lap_fills_the_pages(store: Store) -> None:
    for first in range(0, 4000, 100):
        commit(store, 10**6, [(first, records(first, 100, 480))])
    assert store.disk_bytes() < 1.3 * 4000 * 480  # inserting instead of appending takes twice


def test_a_commit_that_fails_changes_nothing(store: Store) -> None:
    commit(store, 10, [(0, records(0, 4))], {0: b"old"}, {"count": 4})

    def broken() -> Iterator[tuple[int, list[bytes]]]:
        yield 0, records(50, 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commit(store, 10, broken(), {0: b"new"}, {"count": 8})
    assert records_in(store, [0, 1, 2, 3, 4]) == [*records(0, 4), b""]
    with store.snapshot() as snapshot:
        assert snapshot.meta("state") == {"count": 4}
        assert snapshot.blocks([0], "priorities") == {0: b"old"}
    commit(store, 10, [(4, records(4, 1))])


def test_a_snapshot_does_not_move(store: Store) -> None:
    commit(store, 10, [(0, records(0, 10))], {3: b"a"})
    with store.snapshot() as snapshot:
        before = snapshot.seals("priorities")
        commit(store, 10, [(10, records(10, 10))], {3: b"b", 4: b"c"})
        assert [bytes(r) for r in snapshot.records(np.arange(10))] == records(0, 10)
        assert snapshot.blocks([3], "priorities") == {3: b"a"}
    with store.snapshot() as snapshot:
        assert snapshot.blocks([3, 4], "priorities") == {3: b"b", 4: b"c"}
        assert set(snapshot.seals("priorities")) == {3, 4}
        assert snapshot.seals("priorities")[3] != before[3]
        with pytest.raises(DamageError, match="priority block 5 is missing"):
            snapshot.block(5, "priorities")


@pytest.mark.parametrize("content", [None, 7, "text", b"bytes", [1, [2]], {"a": {"b": 1.5}}])
def test_what_is_sealed_comes_back_and_no_other_bytes_do(content: Any) -> None:
    raw = seal("state", content)
    assert unseal(raw, "state", "it") == content
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError, match="it is damaged"):
            unseal(flipped, "state", "it")
    for bad in (raw[:-1], raw + b"\0", seal("other", content), seal(0, content), b"\x93\xcf"):
        with pytest.raises(DamageError, match="it is damaged"):
            unseal(bad, "state", "it")
    with pytest.raises(DamageError, match="it is missing"):
        unseal(b"", "state", "it")


def test_a_sealed_bomb_is_damage_and_not_a_crash() -> None:
    for body in (b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xa5state\xdf\xff\xff\xff\xff"):
        raw = b"\x93\xcf" + xxh3_64_intdigest(body).to_bytes(8, "big") + body
        with pytest.raises(DamageError):
            unseal(raw, "state", "it")


def test_nesting_that_the_interpreter_cannot_follow_is_damage(tmp_path: Path) -> None:
    code = """
        import os, sys
        os.environ["MSGPACK_PUREPYTHON"] = "1"  # as where there is no wheel of it
        import msgpack, diskreplay
        from diskreplay.records.seals import unseal
        from xxhash import xxh3_64_intdigest

        assert msgpack.Unpacker.__module__ == "msgpack.fallback"
        name = msgpack.packb("identity")
        nested = name + b"\\x91" * 450 + b"\\xc0"
        path = sys.argv[1]
        with diskreplay.ReplayBuffer(10, path=path) as buffer:
            buffer.push([0.0], 1, 0.0, [0.0], False)
        data = bytearray(open(path + "/data.mdb", "rb").read())
        at = data.rindex(name)
        while at >= 0:
            data[at : at + len(nested)] = nested
            at = data.rfind(name, 0, at)
        with open(path + "/data.mdb", "wb") as file:
            file.write(data)
        sys.setrecursionlimit(400)
        raw = b"\\x93\\xcf" + xxh3_64_intdigest(nested).to_bytes(8, "big") + nested
        calls = {
            "unseal": lambda: unseal(raw, "identity", "the identity"),
            "repair": lambda: diskreplay.repair(path, path + "2"),
            "open": lambda: diskreplay.open(path),
        }
        for what, call in calls.items():
            try:
                call()
            except diskreplay.DamageError:
                continue
            raise AssertionError(f"{what} took it")
    """
    run_python(code, tmp_path / "b")


@pytest.mark.parametrize("name", ["identity", "state", "schema"])
@pytest.mark.parametrize("content", [None, 5, [], {}, {"kind": 3}, {"count": -1}, "x" * 1000])
def test_facts_of_other_types_are_damage(name: str, content: Any, one_row: Path) -> None:
    change(one_row, "meta", name, seal(name, content))
    for call in (diskreplay.open, lambda path: diskreplay.PrioritizedReplayBuffer(10, path=path)):
        with pytest.raises(DamageError, match=str(one_row)):
            call(one_row)


@pytest.mark.parametrize(
    "changes",
    [
        {"count": "many"},
        {"start": 5},
        {"commits": None},
        {"stale_updates": -1},
        {"seed": b"1" * 15},
        {"seed": 5},
        {"seed": None, "generator": None},
        {"draws": -1},
        {"sampler": {"frame": 1.5, "max_priority": 1.0}},
        {"sampler": {"frame": 1, "max_priority": float("nan")}},
        {"sampler": []},
    ],
)
def test_a_state_that_makes_no_sense_is_damage(changes: dict[str, Any], one_row: Path) -> None:
    state = unseal(stored(one_row, "meta", "state"), "state", "it")
    change(one_row, "meta", "state", seal("state", state | changes))
    with pytest.raises(DamageError):
        diskreplay.open(one_row)


@pytest.mark.parametrize("content", [b"", b"\0" * 39, b"\0" * 44, b"\xff" * 40, 5, None])
def test_a_priority_block_that_holds_none_is_damage(content: Any, one_row: Path) -> None:
    change(one_row, "priorities", 0, seal(0, content))
    with pytest.raises(DamageError, match="priority block 0"):
        diskreplay.open(one_row)


def test_a_missing_priority_block_is_damage(tmp_path: Path) -> None:
    with diskreplay.PrioritizedReplayBuffer(2500, path=tmp_path / "b") as buffer:
        buffer.extend(*np.zeros((5, 2100)))
    change(tmp_path / "b", "priorities", 1, None)
    with pytest.raises(DamageError, match=r"priority block 1 of .*b is missing"):
        diskreplay.open(tmp_path / "b")


def test_another_durability_reopens_the_environment_alone(store: Store) -> None:
    with pytest.raises(diskreplay.LockedError):  # it is held all the time
        Store(store.path, access="exclusive")
    for durability, metasync in (("full", True), ("process", False), ("system", False)):
        files, environment = store._files, store._env._env
        store.set_durability(durability)
        assert store._files is files
        assert store._env._env is not environment
        flags = store._env._live.flags()
        assert (flags["sync"], flags["metasync"]) == (durability != "process", metasync)
        commit(store, 10, [(0, records(0, 4))], {0: durability.encode()})
        with store.snapshot() as snapshot:
            assert snapshot.blocks([0], "priorities") == {0: durability.encode()}
        note = (store.path / "data.known").read_bytes()
        assert note.startswith(b"- ") == (durability != "process")
    environment = store._env._env
    store.set_durability("system")
    assert store._env._env is environment


def test_equal_facts_have_equal_bytes(store: Store) -> None:
    with store.snapshot() as snapshot:
        before = snapshot.raw("state")
        assert snapshot.raw("nothing") is None
    assert before is not None
    assert unseal(before, "state", "it") == {"count": 0}
    for count, is_same in ((0, True), (1, False)):
        commit(store, 10, [], state={"count": count})
        with store.snapshot() as snapshot:
            assert (snapshot.raw("state") == before) is is_same

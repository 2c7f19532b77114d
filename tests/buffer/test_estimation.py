"""What a buffer takes when full: said before, measured afterwards, warned of where too much."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, row, run_python
from drawn import KINDS
from inside import replica_of
from refused import small_file_system
from sized import rows_of, schema_of
from stores import FIELDS as SMALL
from stores import laid_out

import diskreplay
from diskreplay import (
    DiskSpaceWarning,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    Schema,
    estimate,
)
from diskreplay.wording import human


def is_prioritized(kind: Any) -> bool:
    return kind is PrioritizedReplayBuffer


@pytest.mark.parametrize("access", ["exclusive", "shared", "read"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window_bytes", [0, 100_000, 1 << 28])
def test_memory_is_what_stats_says(
    kind: Any, access: str, window_bytes: int, tmp_path: Path
) -> None:
    more: dict[str, Any] = {"more": ("float16", (5,)), "flag": "bool"}
    for name, schema in (("a", SMALL), ("b", SMALL | more), ("c", schema_of(2030))):
        for capacity in (1, 1001, 30_000):
            path = tmp_path / f"{name}{capacity}"
            kind(capacity, path=path, schema=schema).close()
            with kind(
                capacity, path=path, schema=schema, access=access, window_bytes=window_bytes
            ) as buffer:
                found = estimate(
                    schema,
                    capacity,
                    prioritized=is_prioritized(kind),
                    window_bytes=window_bytes,
                    access=access,
                )
                assert found.memory_bytes == buffer.stats()["memory_bytes"]
                assert found.memory_bytes == (
                    found.window_bytes + found.side_table_bytes + found.outbox_bytes
                )


def test_the_memory_of_each_part_is_that_of_its_arrays(tmp_path: Path) -> None:
    with ReplayBuffer(500, schema=SMALL | {"flag": "bool", "more": ("c8", (3, 2))}) as buffer:
        window = replica_of(buffer).rows.window
        assert window.nbytes == window._memory.nbytes
        assert 0 <= window.nbytes - 500 * (8 + buffer.schema.payload_bytes) < 500 * 16
    with ReplayBuffer(500, path=tmp_path / "b", schema=SMALL, access="shared") as shared:
        outbox = replica_of(shared)._pending
        arrays = [outbox._priorities, outbox._links]
        assert outbox.nbytes == outbox._window._memory.nbytes + sum(a.nbytes for a in arrays)
    with PrioritizedReplayBuffer(500) as prioritized:
        table = prioritized._table
        arrays = [table.values, table._dirty, table._staged]
        assert table.nbytes == 16 * 500 + sum(array.nbytes for array in arrays)


@pytest.mark.parametrize(
    ("payload", "prioritized", "access"),
    [
        (40, True, "exclusive"),
        (130, False, "exclusive"),
        (300, True, "shared"),
        (496, True, "exclusive"),
        (980, True, "exclusive"),
        (2030, False, "shared"),
        (4100, True, "exclusive"),
        (28_240, False, "exclusive"),
        (3_000_000, False, "exclusive"),
    ],
)
def test_disk_is_a_little_above_what_a_file_becomes(
    payload: int, prioritized: bool, access: str, tmp_path: Path
) -> None:
    """As push commits when nobody flushes; all priorities change all the time."""
    capacity = max(20, (40 << 20) // max(payload, 160))
    schema = schema_of(payload)
    kind = PrioritizedReplayBuffer if prioritized else ReplayBuffer
    found = estimate(schema, capacity, prioritized=prioritized)
    n = max(1, (200 << 10) // payload)
    rows = rows_of(0, n, payload)
    generator = np.random.default_rng(0)
    with kind(
        capacity,
        path=tmp_path / "b",
        schema=schema,
        access=access,
        commit_interval=1e9,
        durability="process",
        window_bytes=4 << 20,
    ) as buffer:
        pushed = 0
        while pushed < 2.5 * capacity:
            buffer.extend(**rows)
            pushed += n
            if isinstance(buffer, PrioritizedReplayBuffer) and len(buffer):
                ids = generator.integers(buffer.count - len(buffer), buffer.count, 1000)
                buffer.update_priorities(ids, ids % 7)
        buffer.flush()
        there = buffer.stats()["disk_bytes"]
    assert there <= found.disk_bytes <= 1.05 * there
    assert found.disk_bytes == (
        found.records_disk_bytes
        + found.priorities_disk_bytes
        + found.links_disk_bytes
        + found.spare_disk_bytes
    )


@pytest.mark.parametrize("capacity", [1, 7, 300, 5000])
def test_disk_is_enough_for_a_small_store_of_many_commits(capacity: int, tmp_path: Path) -> None:
    for payload in (40, 980):
        schema = schema_of(payload)
        with PrioritizedReplayBuffer(
            capacity,
            path=tmp_path / f"{payload}",
            schema=schema,
            commit_interval=1e9,
            durability="process",
        ) as buffer:
            n = max(1, capacity // 3)
            for _ in range(30):
                buffer.extend(**rows_of(0, n, payload))
                buffer.flush()
            assert buffer.stats()["disk_bytes"] <= estimate(schema, capacity).disk_bytes


def test_what_it_is_made_of() -> None:
    found = estimate(schema_of(980), 1_000_000)
    assert (found.payload_bytes, found.record_bytes, found.records_per_value) == (980, 1008, 2)
    assert found == estimate(Schema(schema_of(980)), 1_000_000)
    assert found.side_table_bytes > 24_000_000
    alone = estimate(schema_of(980), 1_000_000, prioritized=False)
    assert (alone.priorities_disk_bytes, alone.links_disk_bytes) == (0, found.links_disk_bytes)
    assert alone.side_table_bytes < 5_000_000 < found.side_table_bytes
    assert estimate(schema_of(980), 1_000_000, access="shared").outbox_bytes > 1 << 20
    assert str(found) == (
        "1,000,000 transitions of 980 bytes (1,008 as a record, 2 to a value)\n"
        "disk    1.05 GB: records 1.03 GB, priorities 4.13 MB, links 4.13 MB, "
        "spare pages 14.4 MB; 1.07 times the payload\n"
        "memory  293 MB: window 268 MB, side tables 24.1 MB"
    )
    assert "priorities" not in str(alone)
    assert "outbox" in str(estimate(SMALL, 10**6, access="shared"))
    assert "times" not in str(estimate(dict.fromkeys(SMALL, ("u1", (0,))), 10))
    assert estimate(SMALL, 2**40).disk_bytes > 2**46


def test_arguments_that_a_constructor_refuses_are_refused() -> None:
    with pytest.raises(diskreplay.SchemaError, match=r"reward, done missing in the schema \(found"):
        estimate({n: SMALL[n] for n in ("state", "action", "next_state")}, 10)
    with pytest.raises(diskreplay.SchemaError, match="found no field"):
        estimate({}, 10)
    with pytest.raises(diskreplay.SchemaError, match="expected a Schema, or fields by name"):
        estimate("state", 10)  # type: ignore[arg-type]
    for capacity in (0, 2.5, 2**41):
        with pytest.raises(diskreplay.ArgumentError, match="capacity"):
            estimate(SMALL, capacity)  # type: ignore[arg-type]
    with pytest.raises(diskreplay.ArgumentError, match="window_bytes"):
        estimate(SMALL, 10, window_bytes=-1)
    with pytest.raises(diskreplay.ArgumentError, match="access must be one of"):
        estimate(SMALL, 10, access="all")


def test_numbers_have_three_digits() -> None:
    for n, word in (
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (9994, "9.99 kB"),
        (9996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_600, "1.00 MB"),
        (2.5e9, "2.50 GB"),
        (1.2e17, "120 PB"),
        (5e19, "50000 PB"),
    ):
        assert human(n) == word


# The warning


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_file_system(tmp_path / "disk", "4m") as place:
        yield place


@pytest.mark.parametrize("access", ["exclusive", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_constructor_warns_where_there_is_too_little_room(
    kind: Any, access: str, small_disk: Path
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DiskSpaceWarning)
        with kind(1_000_000, path=small_disk / "b", schema=SMALL, access=access) as buffer:
            buffer.push(**row(0))
            buffer.extend(**columns(1, 10))
    [warning] = caught
    assert warning.category is DiskSpaceWarning
    assert warning.filename == __file__
    needed = human(estimate(SMALL, 1_000_000, prioritized=is_prioritized(kind)).disk_bytes)
    said = str(warning.message)
    begin = f"{small_disk / 'b'} takes {needed} of disk when it holds all of its 1000000"
    assert said.startswith(begin)
    assert "MB free, and " in said
    assert said.endswith("or a smaller capacity with diskreplay.estimate()")
    with pytest.warns(DiskSpaceWarning) as again:  # at each opening, by whatever name
        diskreplay.open(small_disk / "b", access=access).close()
    assert [found.filename for found in again] == [__file__]


@pytest.mark.parametrize("call", ["push", "extend"])
def test_the_first_push_warns_when_it_fixes_the_schema(call: str, small_disk: Path) -> None:
    buffer = ReplayBuffer(1_000_000, path=small_disk / "b")
    values = row(0) if call == "push" else columns(0, 5)
    with pytest.warns(DiskSpaceWarning, match="takes 7") as caught:
        getattr(buffer, call)(**values)
    spoken = [found for found in caught if found.category is DiskSpaceWarning]
    assert [found.filename for found in spoken] == [__file__]
    buffer.push(**row(1))
    buffer.extend(**columns(2, 3))
    buffer.close()


def test_what_counts_is_how_a_store_keeps_its_records(small_disk: Path) -> None:
    with pytest.warns(DiskSpaceWarning, match="takes 7"):
        ReplayBuffer(1_000_000, path=small_disk / "b", schema=SMALL).close()
    laid_out(small_disk / "b", 1)
    with pytest.warns(DiskSpaceWarning, match="takes 9"):
        diskreplay.open(small_disk / "b").close()


def test_a_warning_that_is_an_error_changes_nothing(small_disk: Path) -> None:
    with pytest.raises(DiskSpaceWarning):
        ReplayBuffer(1_000_000, path=small_disk / "b", schema=SMALL)
    buffer = ReplayBuffer(1_000_000, path=small_disk / "c")
    with pytest.raises(DiskSpaceWarning):
        buffer.push(**row(0))
    assert len(buffer) == 0
    assert buffer.schema is None
    assert buffer.push(**row(0)) == 0  # once is enough
    buffer.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ReplayBuffer(1_000_000, path=small_disk / "b").close()  # nothing holds it


def test_who_reads_is_not_warned_nor_who_has_room(small_disk: Path) -> None:
    with ReplayBuffer(2000, path=small_disk / "b", schema=SMALL) as buffer:  # room for it all
        buffer.extend(**columns(0, 2000))
    with pytest.warns(DiskSpaceWarning):
        ReplayBuffer(1_000_000, path=small_disk / "c", schema=SMALL).close()
    diskreplay.open(small_disk / "c", access="read").close()
    with pytest.warns(DiskSpaceWarning), ReplayBuffer(1_000_000, path=small_disk / "c") as buffer:
        buffer.push(**row(0))


def test_what_a_store_has_on_the_disk_counts_as_room(small_disk: Path) -> None:
    capacity = 15_000
    with ReplayBuffer(capacity, path=small_disk / "b", schema=SMALL) as buffer:
        for first in range(0, 2 * capacity, 500):
            buffer.extend(**columns(first, 500))
            buffer.flush()
    needed = estimate(SMALL, capacity, prioritized=False).disk_bytes
    free = shutil.disk_usage(small_disk).free
    there = (small_disk / "b" / "data.mdb").stat().st_size
    assert free < needed
    (small_disk / "ballast").write_bytes(bytes(max(0, free + there - needed - (64 << 10))))
    diskreplay.open(small_disk / "b").close()
    with (small_disk / "ballast").open("ab") as ballast:
        ballast.write(bytes(128 << 10))
    with pytest.warns(DiskSpaceWarning):
        diskreplay.open(small_disk / "b").close()


def test_a_file_system_that_tells_nothing_is_not_spoken_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage

    def refuse(path: object) -> None:
        raise OSError(38, "Function not implemented")

    for tell in (refuse, lambda path: usage(0, 0, 0)):
        monkeypatch.setattr("shutil.disk_usage", tell)
        ReplayBuffer(2**30, path=tmp_path / f"{id(tell)}", schema=SMALL).close()
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(100, 100, 0))
    with pytest.warns(DiskSpaceWarning, match="0 bytes free"):
        ReplayBuffer(100, path=tmp_path / "full", schema=SMALL).close()


def test_the_line_is_that_of_the_user_through_a_subclass_too(small_disk: Path) -> None:
    code = """
        import sys, warnings, diskreplay
        warnings.simplefilter("always")
        class Own(diskreplay.ReplayBuffer):
            def __init__(self, path):
                super().__init__(1_000_000, path=path, schema=SCHEMA)
        Own(sys.argv[1]).close()
    """.replace("SCHEMA", repr(SMALL))
    said = run_python(code, small_disk / "b").stderr
    assert said.startswith("<string>:6: DiskSpaceWarning:")

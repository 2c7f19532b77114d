"""Scan: rows in order, whole, and what is evicted or damaged meanwhile is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from common import columns
from others import Other

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.buffer import Scan, scan


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of ten rows of `common.columns`, whose rows take less than 64 bytes."""
    monkeypatch.setattr(scan, "CHUNK_BYTES", 10 * 64)


def ids_of(rows: Scan) -> list[list[int]]:
    return [write_ids.tolist() for write_ids, _ in rows]


def test_all_rows_come_in_order_in_chunks(few: None, tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(25, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 40), priorities=np.arange(40))
        rows = Scan(buffer, priorities=True)
        found = list(rows)
        assert [ids.size for ids, _ in found] == [10, 10, 5]
        assert (rows.total, rows.done, rows.evicted, rows.damaged) == (25, 25, 0, [])
        for ids, values in found:
            assert list(values) == [*buffer.schema.names, "priority"]  # type: ignore[union-attr]
            np.testing.assert_array_equal(values["reward"], ids / 8)
            np.testing.assert_array_equal(values["priority"], ids)


def test_some_fields_of_write_ids_in_any_order(few: None) -> None:
    with PrioritizedReplayBuffer(40) as buffer:
        buffer.extend(**columns(0, 40))
        rows = list(Scan(buffer, np.arange(40)[::-3], ["action"]))
        assert [ids.tolist() for ids, _ in rows] == [list(range(39, 9, -3)), [9, 6, 3, 0]]
        assert [list(values) for _, values in rows] == [["action"]] * 2
        priorities = list(Scan(buffer, range(3, 5), (), priorities=True))
        assert [list(values) for _, values in priorities] == [["priority"]]


def test_a_buffer_with_nothing_in_it() -> None:
    with ReplayBuffer(10) as buffer:
        assert ids_of(Scan(buffer)) == ids_of(Scan(buffer, fields=["reward"])) == []


def test_what_is_evicted_meanwhile_is_left_out_and_counted(
    few: None, tmp_path: Path, other: Other
) -> None:
    other.open(100)
    other.extend(0, 100)
    other.flush()
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        rows, backwards = Scan(reader), Scan(reader, np.arange(100)[::-1])
        found, mixed = iter(rows), iter(backwards)
        assert next(found)[0].tolist() == list(range(10))
        assert next(mixed)[0].tolist() == list(range(99, 89, -1))
        other.extend(100, 35)  # write ids 0 to 34 go
        other.flush()
        assert [ids.tolist()[0] for ids, _ in found] == [35, *range(40, 100, 10)]
        assert (rows.evicted, rows.done, rows.total) == (25, 100, 100)
        assert [ids.tolist()[-1] for ids, _ in mixed] == [*range(80, 39, -10), 35]
        assert (backwards.evicted, backwards.done) == (35, 100)


def test_a_writer_that_clears_leaves_nothing(few: None, tmp_path: Path) -> None:
    with ReplayBuffer(50, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 50))
        rows = Scan(buffer)
        found = iter(rows)
        next(found)
        buffer.clear()
        assert list(found) == []
        assert rows.evicted == 40


def test_a_damaged_record_is_an_error_or_left_out(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "b")
    slots: list[Any] = [7, 8]
    for slot in slots:
        raw = stores.stored(path, "transitions", slot)
        stores.change(path, "transitions", slot, raw[:-1] + bytes([raw[-1] ^ 1]))
    with diskreplay.open(path, access="read", window_bytes=0) as buffer:
        with pytest.raises(diskreplay.DamageError):
            list(Scan(buffer))
        rows = Scan(buffer, skip_damaged=True)
        read = np.concatenate([ids for ids, _ in rows])
        assert rows.damaged == [307, 308]
        assert read.tolist() == [n for n in range(160, 460) if n not in (307, 308)]
        assert rows.done == rows.total == 300

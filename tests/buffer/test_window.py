"""Window: rows are taken bit for bit as they were written, and newer ones are never pushed out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diskreplay import DamageError, Field, ReplayBuffer, Schema
from diskreplay.aliases import Bools, Columns, Ints
from diskreplay.buffer.new_window import new_window
from diskreplay.buffer.packed_window import PackedWindow
from diskreplay.buffer.window import Window
from diskreplay.buffer.window_layout import MIN_ROWS, window_rows

TYPES = ["b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"]
SHAPES: list[tuple[int, ...]] = [(), (3,), (2, 2), (0,), (1500,)]


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    names = ("state", "action", "reward", "next_state", "done", "more", "most")
    types, shapes = st.sampled_from(TYPES), st.sampled_from(SHAPES)
    fields = [Field(name, draw(types), draw(shapes)) for name in names if name != "reward"]
    return Schema([*fields, Field("reward", draw(st.sampled_from(["f2", "f4", "f8", "i4"])))])


def values_of(schema: Schema, n: int, seed: int) -> list[Any]:
    """Return columns of any bits that a field may hold, NaN of every kind among them."""
    rng = np.random.default_rng(seed)
    columns = []
    for field in schema.fields:
        if field.dtype.kind == "b" or field.name == "done":
            columns.append(rng.integers(0, 2, (n, *field.shape)).astype(field.dtype))
        elif field.name == "reward":
            columns.append(rng.integers(-100, 100, n).astype(field.dtype))
        else:
            raw = rng.bytes(n * field.payload_bytes)
            columns.append(np.frombuffer(raw, field.dtype).reshape(n, *field.shape))
    return columns


def the_bytes(columns: list[Any]) -> list[bytes]:
    return [column.tobytes() for column in columns]


@given(schemas(), st.integers(0, 99), st.lists(st.integers(1, 60), max_size=6), st.booleans())
def test_what_is_written_is_taken_bit_for_bit(
    schema: Schema, seed: int, sizes: list[int], one_by_one: bool
) -> None:
    window = new_window(schema, 100, 0)
    count = 0
    everything = values_of(schema, sum(sizes), seed)
    for n in sizes:
        part = [column[count : count + n] for column in everything]
        if one_by_one:
            for i in range(n):
                row = [column[i] for column in part]
                extra = dict(zip(schema.extra_names, row[5:], strict=True))
                prepared = window.prepared(schema.accept_row(row[:5], extra))
                window.write_row(count + i, prepared)
        else:
            window.write(count, part)
        count += n
    asked = np.arange(count + 5)
    columns, held = taken(window, schema, asked)
    expected = (asked >= count - window.rows) & (asked < count)
    assert held.tolist() == expected.tolist()
    assert [len(column) for column in taken(window, schema, asked[:0])[0]] == [0] * len(columns)
    for column, whole, field in zip(columns, everything, schema.fields, strict=False):
        assert column[held].tobytes() == whole[asked[held]].tobytes()
        assert (column.dtype, column.shape[1:]) == (field.dtype, field.shape)


@given(schemas(), st.data())
def test_some_fields_of_any_write_ids_are_taken(schema: Schema, data: st.DataObject) -> None:
    window = new_window(schema, 100, 0)
    everything = values_of(schema, 100, 4)
    window.write(20, [column[20:80] for column in everything])
    asked = np.array(data.draw(st.lists(st.integers(0, 99), min_size=1, max_size=90)))
    fields = data.draw(st.lists(st.sampled_from(range(len(schema.fields))), unique=True))
    columns = schema.empty_columns(asked.size, fields)
    held = window.take(columns, asked, fields)
    assert held.tolist() == ((asked >= 20) & (asked < 80)).tolist()
    for column, index in zip(columns, fields, strict=True):
        assert column[held].tobytes() == everything[index][asked[held]].tobytes()


@given(schemas(), st.integers(2, 5), st.integers(1, 8), st.integers(0, 99))
def test_chains_are_taken_where_all_of_their_rows_are_held(
    schema: Schema, steps: int, n: int, seed: int
) -> None:
    window = new_window(schema, 100, 0)
    if not isinstance(window, PackedWindow):
        return
    columns = values_of(schema, window.rows, seed)
    window.write(50, columns)
    ids = np.random.default_rng(seed).integers(50, 50 + window.rows, (steps, n))
    found, first, last, reward = schema.empty_columns(n), (0, 1, 6), (3, 4), 2
    of_all = window.take_chains(found, ids, first, last, reward)
    assert of_all is not None
    assert of_all.tobytes() == columns[reward][ids - 50].tobytes()
    for fields, step in ((first, 0), (last, -1)):
        expected = [columns[i][ids[step] - 50] for i in fields]
        assert the_bytes([found[i] for i in fields]) == the_bytes(expected)
    for other in (49, 50 + window.rows):  # the place of either holds another row
        ids[seed % steps, seed % n] = other
        assert window.take_chains(found, ids, first, last, reward) is None
    assert window.take_chains(found, np.full((window.rows, n + 1), 50), first, last, reward) is None


@pytest.mark.parametrize("size", [2, 9000])
def test_what_is_taken_is_a_copy(size: int) -> None:
    window = new_window(schema_of(size), 100, 0)
    window.write(0, values_of(schema_of(size), 3, 1))
    before, _ = taken(window, schema_of(size), np.arange(3))
    kept = the_bytes(before)
    window.write(0, values_of(schema_of(size), 3, 2))
    assert the_bytes(before) == kept
    before[0][:] = 7
    after, _ = taken(window, schema_of(size), np.arange(3))
    assert the_bytes(after) == the_bytes(values_of(schema_of(size), 3, 2))


def taken(window: Window, schema: Schema, write_ids: Ints) -> tuple[Columns, Bools]:
    """The rows of write ids as fresh columns, and which of them are held."""
    columns = schema.empty_columns(write_ids.size)
    return columns, window.take(columns, write_ids)


def schema_of(size: int) -> Schema:
    state = ("u1", (size,))
    return Schema(
        {"state": state, "action": "i8", "reward": "f4", "next_state": state, "done": "f4"}
    )


@given(st.lists(st.integers(0, 399), min_size=1, max_size=200), st.integers(1, 400))
@example(list(range(65)), 400)
def test_read_rows_take_no_place_from_newer_ones(wanted: list[int], limit: int) -> None:
    schema, wanted = schema_of(2), [write_id % limit for write_id in wanted]
    window = new_window(schema, 100, 0)
    everything = values_of(schema, 500, 3)
    window.write(limit, [column[limit : limit + 20] for column in everything])
    ids = np.array(wanted)
    window.write_below(ids, [column[ids] for column in everything], limit)
    owners = {(limit + i) % window.rows: limit + i for i in range(20)}
    for write_id in wanted if len(wanted) <= window.rows else []:
        if owners.get(write_id % window.rows, -1) < limit:
            owners[write_id % window.rows] = write_id
    columns, held = taken(window, schema, np.arange(500))
    assert np.flatnonzero(held).tolist() == sorted(owners.values())
    assert the_bytes([c[held] for c in columns]) == the_bytes([c[held] for c in everything[:]])


def test_its_size_is_what_was_allowed() -> None:
    schema = schema_of(1000)
    assert window_rows(schema, 10, 0) == 10
    assert window_rows(schema, 10**6, 0) == MIN_ROWS
    for allowed in (200_000, 1 << 20):
        window = new_window(schema, 10**6, allowed)
        assert 0.99 * allowed < window.nbytes <= allowed
        assert window.rows == window_rows(schema, 10**6, allowed)


def test_chunks_are_the_rows_in_order() -> None:
    schema = schema_of(2)
    window = new_window(schema, 100, 0)
    everything = values_of(schema, 100, 5)
    window.write(36, [column[36:100] for column in everything])
    found = list(window.chunks(40, 100, 25))
    assert [(first, len(columns[0])) for first, columns in found] == [(40, 24), (64, 25), (89, 11)]
    for index, column in enumerate(everything):
        parts = [columns[index] for _, columns in found]
        assert np.concatenate(parts).tobytes() == column[40:100].tobytes()


def test_dropped_rows_are_held_no_more() -> None:
    schema = schema_of(2)
    window = new_window(schema, 100, 0)
    window.write(0, values_of(schema, 10, 1))
    window.drop_from(7)
    assert window.holds(np.arange(10)).tolist() == [True] * 7 + [False] * 3


def test_rows_that_wait_for_a_commit_keep_their_places() -> None:
    def rows(first: int, n: int) -> dict[str, Any]:
        ids = np.arange(first, first + n)
        states = ids[:, None].astype(np.float32)
        return {
            "states": states, "actions": ids, "rewards": np.zeros(n), "next_states": states,
            "dones": np.zeros(n),
        }  # fmt: skip

    with ReplayBuffer(1000, window_bytes=0, commit_interval=1e9) as buffer:
        buffer.extend(**rows(0, 500))
        buffer.flush()
        buffer.extend(**rows(500, 30))
        buffer.get(np.arange(60))
        for first in range(530, 730, 10):
            buffer.extend(**rows(first, 10))
        buffer.flush()
        assert buffer.get(np.arange(730)).actions.tolist() == list(range(730))


def test_a_row_of_another_write_id_is_not_given_for_a_commit() -> None:
    window = new_window(schema_of(2), 100, 0)
    window.write(0, values_of(schema_of(2), 10, 1))
    window.write(67, values_of(schema_of(2), 1, 2))  # in the place of 3
    with pytest.raises(DamageError, match=r"does not hold the rows of the write ids \[0, 10\)"):
        list(window.chunks(0, 10, 100))

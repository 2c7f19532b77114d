"""Maintenance of stores with an observation log: nothing is mixed, lost or left over."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of
from logs import fact, flip, ids_in, log_of, put, set_id
from stores import FIELDS, PAGE, change, content_of_column, logged, logged_frames, varying, walk_of

import diskreplay
from diskreplay import DamageError, PrioritizedReplayBuffer, ReplayBuffer, repair, verify
from diskreplay.records import entry_of, pack

LOG = {"schema": FIELDS, "observations": "log"}


def rows_of(path: Path) -> tuple[list[int], list[bytes]]:
    """The write ids of a store, and the bytes of its columns."""
    with diskreplay.open(path, access="read", window_bytes=0) as buffer:
        buffer.check()
        ids = np.arange(buffer.first, buffer.count)
        batch = buffer.get(ids)
        found = [*map(content_of_column, batch)]
        if isinstance(buffer, PrioritizedReplayBuffer):
            found.append(buffer.priorities(ids).tobytes())
        return ids.tolist(), found


@pytest.mark.parametrize("make", [logged, logged_frames, varying])
def test_a_resized_store_keeps_no_more_than_its_rows_need(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path / "s")
    ids, _ = rows_of(path)
    first, count, _ = log_of(path)
    diskreplay.resize(path, 10**6)
    assert log_of(path)[:2] == (first, count)
    diskreplay.resize(path, 5)
    assert rows_of(path)[0] == ids[-5:]
    assert first <= log_of(path)[0] < count == log_of(path)[1]
    assert verify(path) == []
    with diskreplay.open(path) as buffer:
        buffer.clear()
    diskreplay.compact(path)
    assert verify(path) == []
    assert log_of(path)[:2] == (count, count)
    with diskreplay.open(path) as buffer:  # and ids go on
        ones: dict[str, Any] = {"note": "1", "blob": b"1"}
        ones |= {
            f.name: np.ones([n or 1 for n in f.shape], f.dtype)
            for f in buffer.schema.fields  # type: ignore[union-attr]
            if f.name not in ones
        }
        names = buffer.schema.names  # type: ignore[union-attr]
        buffer.push(**{name: ones[name] for name in names})
        buffer.flush()
        assert (buffer.get([buffer.first]).states == 1).all()
    assert log_of(path)[1] > count
    assert verify(path) == []


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (
        lambda path: change(path, "observations", log_of(path)[0] // log_of(path)[2], None),
        "the entry of observations .* is missing",
    ),
    (lambda path: flip(path, log_of(path)[1] - 1), "observation .* is damaged: its checksum does"),
    (
        lambda path: change(path, "observations", log_of(path)[1] // log_of(path)[2], b"x"),
        "value .* of observations is damaged: it does not begin with the offsets",
    ),
    (
        lambda path: change(path, "observations", log_of(path)[1] // log_of(path)[2], b""),
        "value .* of observations is damaged: it is missing",
    ),
    (
        lambda path: change(
            path, "observations", log_of(path)[1] // log_of(path)[2], pack([b""] * 400)
        ),
        r"value .* of observations is damaged: it has 400 entries \(expected",
    ),
    (
        lambda path: change(path, "observations", 2**63, pack([b"x"])),
        "value 9223372036854775808 of observations is outside of the range",
    ),
    (
        lambda path: put(
            path, "state", {**fact(path, "state"), "observations": {"first": 0, "count": 2**60}}
        ),
        "counts 1,152,921,504,606,846,976 observations, which the file is too short for",
    ),
    (
        lambda path: put(
            path, "state", {**fact(path, "state"), "observations": {"first": 0, "count": 0}}
        ),
        "refers to observation .*, which is not in the log",
    ),
    (
        lambda path: put(path, "layout", {**fact(path, "layout"), "observations": None}),
        "has no observation log",
    ),
]


@pytest.mark.parametrize("number", range(len(FAULTS)))
@pytest.mark.parametrize("make", [logged, logged_frames, varying])
def test_a_log_that_is_not_whole_is_found_and_not_copied(
    make: Callable[[Path], Path], number: int, tmp_path: Path
) -> None:
    path = make(tmp_path / "s")
    spoil, words = FAULTS[number]
    spoil(path)
    faults = verify(path)
    assert re.search(words, "\n".join(faults)), faults
    before = (path / "data.mdb").read_bytes()
    if number != 5:  # a value beyond the log is left behind
        for call in (diskreplay.compact, lambda path: diskreplay.resize(path, 190)):
            with pytest.raises(DamageError, match="observation"):
                call(path)
    assert (path / "data.mdb").read_bytes() == before
    repair(path, tmp_path / "out")
    assert verify(tmp_path / "out") == []


def test_a_record_that_refers_beyond_the_reach_is_not_copied(tmp_path: Path) -> None:
    """No writer makes one. Its observation would be left behind."""
    path = logged(tmp_path / "s")
    set_id(path, 990, log_of(path)[0])
    assert verify(path) == []
    before = (path / "data.mdb").read_bytes()
    with pytest.raises(DamageError, match="write id 990 refers to an observation that is not"):
        diskreplay.resize(path, 50)
    assert (path / "data.mdb").read_bytes() == before
    assert diskreplay.compact(path).size == 200
    assert verify(path) == []


def test_a_damaged_entry_costs_the_rows_that_refer_to_it(tmp_path: Path) -> None:
    path = logged(tmp_path / "s")
    ids, _ = rows_of(path)
    lost = ids[77]
    flip(path, ids_in(path, lost)[1])
    assert len(verify(path)) == 1
    users = [i for i in ids if ids_in(path, lost)[1] in ids_in(path, i)]
    words = rf"write id {users[0]} .* is damaged: .*its checksum"
    with diskreplay.open(path, access="read") as buffer, pytest.raises(DamageError, match=words):
        buffer.get(ids)
    with pytest.raises(DamageError, match=r"its checksum does not match .* nothing was changed"):
        diskreplay.merge([path], tmp_path / "merged")
    done = repair(path, tmp_path / "out")
    assert done.lost == len(users)
    assert [i for low, high in done.lost_ids for i in range(low, high)] == users
    with diskreplay.open(tmp_path / "out") as buffer:
        found = numbers_of(buffer.get(range(buffer.first, buffer.count))).tolist()
        assert found == [i for i in ids if i not in users]
        assert isinstance(buffer, PrioritizedReplayBuffer)
        given = buffer.priorities(range(buffer.first, buffer.count))
        np.testing.assert_array_equal(given, np.float32(np.array(found) / 7))


def test_an_entry_that_is_no_longer_needed_is_checked_and_not_copied(tmp_path: Path) -> None:
    path = logged(tmp_path / "s")
    before = rows_of(path)
    first, _, per_value = log_of(path)
    assert first % per_value  # it shares a value with others
    flip(path, first - 1)
    [fault] = verify(path)
    assert fault.startswith(f"the entry of observation {first - 1} is damaged: its checksum")
    diskreplay.compact(path)
    assert verify(path) == []
    assert rows_of(path) == before
    with diskreplay.open(path) as buffer:
        buffer.extend(**columns(1000, 30))
    assert verify(path) == []


@pytest.mark.parametrize("make", [logged, logged_frames, varying])
def test_entries_are_found_without_their_tree(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / "s")
    before = rows_of(path)
    with walk_of(path) as walk:
        root = walk.trees()[b"observations"].root
    content = bytearray((path / "data.mdb").read_bytes())
    content[root * PAGE : (root + 1) * PAGE] = bytes(PAGE)
    (path / "data.mdb").write_bytes(content)
    done = repair(path, tmp_path / "out")
    if make is logged_frames:  # its values have pages of their own, and only their tree is lost
        assert done.lost == 0
        assert rows_of(tmp_path / "out") == before


def test_an_entry_of_a_free_page_is_not_taken(tmp_path: Path) -> None:
    """It may be of a commit that came to nothing, and its id that of another observation."""
    path = logged(tmp_path / "s")
    ids, _ = rows_of(path)
    [_, observation_id] = ids_in(path, ids[50])
    other = entry_of(observation_id, np.full(3, 7, "<f4").tobytes())
    flip(path, observation_id)
    with walk_of(path) as walk:
        free = int(np.flatnonzero(walk.free)[-1])
    data = path / "data.mdb"
    content = bytearray(data.read_bytes())
    content[free * PAGE + 16 : free * PAGE + 16 + len(other)] = other
    data.write_bytes(content)
    done = repair(path, tmp_path / "out")
    assert done.lost >= 1
    content[:PAGE] = content[PAGE : 2 * PAGE] = bytes(PAGE)  # then what is free is not known
    data.write_bytes(content)
    done = repair(path, tmp_path / "more")
    assert done.copied == 0


def test_repair_keeps_the_order_of_write_ids_around_the_ring(tmp_path: Path) -> None:
    """A block of priorities that both ends of the ring share is whole, and so are the pages."""
    path = tmp_path / "s"
    with PrioritizedReplayBuffer(2500, path=path, seed=1, **LOG) as buffer:
        for first in range(0, 5700, 300):
            given = np.arange(first, first + 300) / 8
            buffer.extend(*columns(first, 300).values(), priorities=given)
    before = rows_of(path)
    assert repair(path, tmp_path / "out").lost == 0
    assert verify(tmp_path / "out") == []
    assert rows_of(tmp_path / "out") == before
    size = (tmp_path / "out" / "data.mdb").stat().st_size
    diskreplay.compact(tmp_path / "out")
    assert size < 1.3 * (tmp_path / "out" / "data.mdb").stat().st_size  # its pages were full


CODECS: list[dict[str, Any]] = [{}, LOG, {"schema": FIELDS, "codec": "lz4"}]


@pytest.mark.parametrize("one", range(3))
@pytest.mark.parametrize("two", range(3))
@pytest.mark.parametrize("order", ["sequence", "interleaved"])
def test_stores_that_keep_the_same_fields_elsewhere_are_merged(
    one: int, two: int, order: str, tmp_path: Path
) -> None:
    if 2 in (one, two):
        pytest.importorskip("lz4")
    for name, first, n, layout in (("a", 0, 130, one), ("b", 500, 260, two)):
        with ReplayBuffer(200, path=tmp_path / name, **CODECS[layout]) as buffer:
            buffer.extend(**columns(first, n))
    paths = [tmp_path / "a", tmp_path / "b"]
    assert diskreplay.merge(paths, tmp_path / "out", order=order) == 330
    assert diskreplay.merge(paths, tmp_path / "last", order=order, capacity=77) == 77
    assert verify(tmp_path / "out") == verify(tmp_path / "last") == []
    with diskreplay.open(tmp_path / "out") as merged, diskreplay.open(tmp_path / "last") as last:
        numbers = numbers_of(merged.get(range(330))).tolist()
        assert numbers_of(last.get(range(last.first, last.count))).tolist() == numbers[-77:]
        assert sorted(numbers) == [*range(130), *range(560, 760)]
        if order == "sequence":
            assert numbers == sorted(numbers)
    schemas = [fact(path, "schema") for path in (tmp_path / "a", tmp_path / "out")]
    assert schemas[0] == schemas[1]  # the layout of the first wins


def test_what_was_copied_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    path = logged(tmp_path / "s")
    shutil.copytree(path, tmp_path / "same")
    diskreplay.compact(path)
    for place in (path, tmp_path / "same"):
        with diskreplay.open(place) as buffer:
            for first in range(1000, 1600, 40):
                buffer.extend(*columns(first, 40).values(), priorities=np.arange(40))
                buffer.flush()
            buffer.sample(8)
    assert rows_of(path) == rows_of(tmp_path / "same")
    assert log_of(path) == log_of(tmp_path / "same")
    assert verify(path) == []

"""Opening a store: going on, refusing, reading beside a writer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest
from common import columns, contents, numbers_of, row, run_python
from others import Other

import diskreplay
from diskreplay import (
    ArgumentError,
    DamageError,
    NotAStoreError,
    PrioritizedReplayBuffer,
    ReplayBuffer,
)


def test_open_takes_the_settings_from_the_store(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"alpha": 0.9, "beta_start": 0.1, "beta_frames": 77, "epsilon": 0.5}
    with PrioritizedReplayBuffer(9, **settings, path=tmp_path / "b", durability="full") as buffer:
        buffer.extend(**columns(0, 4))
    with diskreplay.open(tmp_path / "b", alpha=0.2) as buffer:
        assert isinstance(buffer, PrioritizedReplayBuffer)
        assert buffer.capacity == 9
        assert buffer.beta == 0.1
        assert buffer.stats()["alpha"] == 0.2
        buffer.check()
    for name in ("capacity", "keep_rows", "schema"):
        with pytest.raises(diskreplay.ArgumentError, match=f"{name} is the store's own"):
            diskreplay.open(tmp_path / "b", **{name: 9})


def test_a_new_seed_is_for_open_only(tmp_path: Path) -> None:
    def draws(buffer: Any) -> list[int]:
        with buffer:
            return [n for _ in range(5) for n in numbers_of(buffer.sample(8)).tolist()]

    path = tmp_path / "b"
    with ReplayBuffer(1000, seed=1, path=path) as buffer:
        buffer.extend(**columns(0, 1000))
    for name in ("constructor", "same", "other"):
        shutil.copytree(path, tmp_path / name)
    plain = draws(diskreplay.open(path))
    assert draws(ReplayBuffer(1000, seed=2, path=tmp_path / "constructor")) == plain
    assert draws(diskreplay.open(tmp_path / "same", seed=5)) != plain
    assert draws(diskreplay.open(tmp_path / "other", seed=5)) != plain


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: ReplayBuffer(11, path=p), r"capacity is 10 in .*b \(expected 11\).*open\("),
        (lambda p: PrioritizedReplayBuffer(10, path=p), r"kind is uniform .*expected prioritized"),
        (
            lambda p: ReplayBuffer(10, path=p, schema={"state": ("float32", (4,))}),
            r"field 'state' is float32\[3\] in .* \(expected float32\[4\]\)",
        ),
        (
            lambda p: ReplayBuffer(10, path=p, schema={"log_prob": "float32"}),
            "field 'log_prob' is no such field",
        ),
    ],
)
def test_stored_facts_win(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "b"
    with ReplayBuffer(10, path=path) as buffer:
        buffer.extend(**columns(0, 10))
    before = contents(path)
    with pytest.raises(diskreplay.MismatchError, match=message):
        make(path)
    assert contents(path).keys() == before.keys()
    assert contents(path)["data.mdb"] == before["data.mdb"]
    ReplayBuffer(10, path=path, schema={"state": ("float32", (3,))}).close()


def test_what_is_not_a_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "model.pt").write_text("mine")
    before = contents(tmp_path)
    for name, message in [
        ("file", "is a file or inside one, not a store"),
        ("file/inside", "is a file or inside one, not a store"),
        ("directory", r"expected diskreplay.json in it \(found model.pt\)"),
    ]:
        for make in (diskreplay.open, lambda p: ReplayBuffer(10, path=p)):
            with pytest.raises(NotAStoreError, match=message):
                make(tmp_path / name)
    for name in ("nothing", "nothing/here"):
        with pytest.raises(NotAStoreError, match="holds no store"):
            diskreplay.open(tmp_path / name)
        with pytest.raises(NotAStoreError, match="holds no store"):
            ReplayBuffer(10, path=tmp_path / name, access="read")
    assert contents(tmp_path) == before
    (tmp_path / "empty").mkdir()
    ReplayBuffer(10, path=tmp_path / "empty").close()


DAMAGES: list[tuple[Callable[[Path], object], type[Exception], str]] = [
    (lambda p: (p / "data.mdb").unlink(), DamageError, "is missing beside"),
    (lambda p: os.truncate(p / "data.mdb", 0), DamageError, "short: it has 0 by"),
    (lambda p: os.truncate(p / "data.mdb", 4096), DamageError, "is short"),
    (lambda p: os.truncate(p / "data.mdb", 5 * 4096), DamageError, "the file ends before it"),
    (lambda p: (p / "data.mdb").write_bytes(b"\1" * 40960), DamageError, "is short|is damaged"),
    (
        lambda p: (p / "diskreplay.json").write_text('{"format": 4, "uuid": "x"}'),
        diskreplay.FormatVersionError,
        r"has format 4 \(this diskreplay reads 1, 2, 3\)",
    ),
    (
        lambda p: (p / "diskreplay.json").unlink(),
        NotAStoreError,
        "expected diskreplay.json in it",
    ),
    (
        lambda p: (p / "diskreplay.json").write_text('{"format": '),
        DamageError,
        "expected a format version and a uuid",
    ),
    (
        lambda p: (p / "diskreplay.json").write_text('["format", "uuid"]'),
        DamageError,
        "expected a format version and a uuid",
    ),
    (
        lambda p: shutil.copy(p.parent / "other" / "data.mdb", p / "data.mdb"),
        DamageError,
        "belongs to another store",
    ),
    (lambda p: (p / "openers.lock").unlink(), DamageError, "openers.lock is missing"),
]


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGES)
def test_a_damaged_directory_is_refused_and_left_as_it_is(
    damage: Callable[[Path], object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    for name in ("b", "other"):
        with ReplayBuffer(100, path=tmp_path / name) as buffer:
            buffer.extend(**columns(0, 100))
    damage(tmp_path / "b")
    before = contents(tmp_path)
    for make in (
        lambda: ReplayBuffer(100, path=tmp_path / "b"),
        lambda: ReplayBuffer(100, path=tmp_path / "b", access="read"),
        lambda: diskreplay.open(tmp_path / "b"),
    ):
        with pytest.raises(error, match=message):
            make()
        after = contents(tmp_path)
        after.pop("b/writer.lock"), before.pop("b/writer.lock", None)  # the last holder's name
        assert after == before
    diskreplay.open(tmp_path / "other").close()


@pytest.mark.parametrize("url", ["grpc://trainer:7777", "grpc+unix:///run/replay.sock"])
def test_a_url_is_no_path(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (
        lambda: ReplayBuffer(10, path=url),
        lambda: ReplayBuffer(10, path=Path(url)),
        lambda: diskreplay.open(url),
        lambda: diskreplay.Mixture({"a": url}),
        lambda: diskreplay.verify(url),
    ):
        with pytest.raises(ArgumentError, match=r"a path cannot be the URL .*diskreplay\.connect"):
            call()
    assert [*tmp_path.iterdir()] == []


def test_a_second_writer_is_refused_with_the_holders_name(tmp_path: Path, other: Other) -> None:
    other.open(10)
    message = rf"is held by pid {other.process.pid} on .*, since \d{{4}}-.*access='read'"
    with pytest.raises(diskreplay.LockedError, match=message):
        PrioritizedReplayBuffer(10, path=tmp_path / "b")
    diskreplay.open(tmp_path / "b", access="read").close()
    other.kill()
    PrioritizedReplayBuffer(10, path=tmp_path / "b").close()  # the lock died with its process


def test_a_refused_opening_here_leaves_the_lock_to_its_holder(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        with pytest.raises(diskreplay.LockedError, match="is open in this process already"):
            ReplayBuffer(10, path=tmp_path / "b")
        code = "import sys, diskreplay; diskreplay.open(sys.argv[1])"
        assert "LockedError" in run_python(code, tmp_path / "b", check=False).stderr
        buffer.extend(**columns(0, 10))


def test_a_reader_follows_a_writer(tmp_path: Path, other: Other) -> None:
    def seen() -> Any:
        drawn = reader.sample(20)
        assert numbers_of(drawn).tolist() == drawn.indices.tolist()
        assert reader.first == reader.count - len(reader)
        masses = reader.priorities(range(reader.first, reader.count)).astype(float) + 1e-6
        assert reader.total_mass == pytest.approx(masses.sum())
        return len(reader), reader.count, sorted(set(drawn.indices.tolist()))

    other.open(2000, alpha=1.0)
    other.extend(0, 100)
    other.flush()
    with diskreplay.open(tmp_path / "b", access="read", seed=0) as reader:
        assert isinstance(reader, PrioritizedReplayBuffer)
        assert seen()[:2] == (100, 100)
        assert (reader.stats()["priority_max"], reader.frame) == (1.0, 0)
        other.extend(100, 50)
        assert seen()[:2] == (100, 100)  # not committed yet
        other.flush()
        assert seen()[:2] == (150, 150)
        other.update([7], [1e6])
        other.sample(10)
        other.flush()
        assert seen() == (150, 150, [7])
        assert (reader.stats()["priority_max"], reader.frame) == (1e6, 1)
        other.extend(150, 2500)
        other.flush()
        size, count, drawn = seen()
        assert (size, count, drawn[0] >= 650) == (2000, 2650, True)
        other.clear()
        other.extend(2650, 20)
        other.flush()
        size, count, drawn = seen()
        assert (size, count, drawn[0] >= 2650) == (20, 2670, True)


def test_a_reader_may_not_write(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 10))
    data = (tmp_path / "b" / "data.mdb").read_bytes()
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        assert isinstance(reader, PrioritizedReplayBuffer)
        for call in (
            lambda: reader.push(**row(0)),
            lambda: reader.extend(**columns(0, 1)),
            lambda: reader.update_priorities([1], [1.0]),
            lambda: reader.load(tmp_path / "b"),
            reader.clear,
        ):
            with pytest.raises(diskreplay.ReadOnlyError, match="open it with access='exclusive'"):
                call()
        reader.sample(5)
        reader.flush()
        assert reader.frame == 0
        reader.check()
        reader.save(tmp_path / "copy")
    assert (tmp_path / "b" / "data.mdb").read_bytes() == data
    assert len(diskreplay.open(tmp_path / "copy")) == 10


def test_a_reader_of_an_empty_store_waits_for_the_first_commit(
    tmp_path: Path, other: Other
) -> None:
    other.open(10)
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        assert (len(reader), reader.schema) == (0, None)
        other.extend(0, 4)
        other.flush()
        assert len(reader) == 4
        assert numbers_of(reader.sample(4)).size == 4


def test_opening_does_not_read_the_records(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(3000, path=tmp_path / "b", seed=0) as buffer:
        buffer.extend(**columns(0, 3000))
    # With every record spoilt, opening still works and sampling must not.
    env = lmdb.open(str(tmp_path / "b"), max_dbs=8, map_size=1 << 30)
    database = env.open_db(b"transitions", integerkey=True, create=False)
    with env.begin(write=True, db=database) as txn:
        for key, _ in list(txn.cursor()):
            txn.put(key, b"spoilt")
    env.close()
    buffer = diskreplay.open(tmp_path / "b")
    assert len(buffer) == 3000
    with pytest.raises(DamageError, match=r"has 6 bytes|is missing"):
        buffer.sample(1)
    with pytest.raises(DamageError, match=r"write id 0 in slot 0 .* and 2900 more"):
        buffer.check()
    buffer.close()


def test_a_reader_gives_masses_to_rows_whose_block_has_the_bytes_it_knows(
    tmp_path: Path, other: Other
) -> None:
    def cleared(first: int, n: int) -> None:
        other.clear()
        other.extend(first, n)
        other.flush()

    other.open(10)
    cleared(0, 1)
    with diskreplay.open(tmp_path / "b", access="read") as reader:
        assert len(reader) == 1
        other.extend(1, 9, [0.0] * 9)
        other.flush()
        assert len(reader) == 10
        reader.check()
        drawn: set[int] = set()
        for first in (10, 14):
            cleared(first, 4)
            drawn |= {n for _ in range(9) for n in numbers_of(reader.sample(4)).tolist()}
        assert drawn == set(range(10, 18))
        reader.check()


def test_a_whole_schema_must_be_the_stores(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.push(**row(0), log_prob=0.5)
        whole = buffer.schema
    assert whole is not None
    five = diskreplay.Schema(whole.fields[:5])
    with pytest.raises(diskreplay.MismatchError, match=r"the fields are .*log_prob in .*expected"):
        ReplayBuffer(10, path=tmp_path / "b", schema=five)
    ReplayBuffer(10, path=tmp_path / "b", schema=whole).close()


def test_a_new_seed_is_remembered_though_nothing_is_drawn(tmp_path: Path) -> None:
    with ReplayBuffer(1000, seed=1, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 1000))
    diskreplay.open(tmp_path / "b", seed=5).close()
    shutil.copytree(tmp_path / "b", tmp_path / "again")
    first = numbers_of(diskreplay.open(tmp_path / "b").sample(9)).tolist()
    assert first == numbers_of(diskreplay.open(tmp_path / "again", seed=5).sample(9)).tolist()


@pytest.mark.parametrize("path", [5, None, b"bytes", "", "a\0b", ["a"]])
def test_what_is_no_path_is_refused(path: Any, tmp_path: Path) -> None:
    buffer = ReplayBuffer(10)
    calls: list[Callable[[Any], object]] = [diskreplay.open, buffer.save, buffer.load]
    if path is not None:
        calls.append(lambda p: ReplayBuffer(10, path=p))
    for call in calls:
        with pytest.raises(diskreplay.ArgumentError, match="a path must be a string"):
            call(path)


def test_open_names_a_setting_that_the_kind_has_not(tmp_path: Path) -> None:
    ReplayBuffer(10, path=tmp_path / "b").close()
    with pytest.raises(diskreplay.ArgumentError, match="'alpha' is no setting of a uniform buffer"):
        diskreplay.open(tmp_path / "b", alpha=0.5)

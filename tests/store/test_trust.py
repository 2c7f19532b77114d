"""When a data file is checked: in company, after kills, with notes of strangers."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from common import columns, run_python
from talking import Talking
from users import NOBODY, let_others_in, needs_root

import diskreplay
from diskreplay import ReplayBuffer
from diskreplay.lmdbfile import DataFile, Meta, meta_pages, newest_of, transaction_of
from diskreplay.store.known_note import KnownNote, is_known, make_known
from diskreplay.store.trust import pinned_commit, structural_faults

# Opens the store, says how often it walked over the pages, and what came of it.
OPEN = """
    import sys, diskreplay, diskreplay.store.trust
    walk, walks = diskreplay.store.trust.structural_faults, []
    def counted(data, meta):
        found = walk(data, meta)
        walks.append(1)
        if len(sys.argv) > 2:
            print("checked", flush=True)
            sys.stdin.readline()
        return found
    diskreplay.store.trust.structural_faults = counted
    try:
        with diskreplay.open(sys.argv[1], access="read", window_bytes=0) as buffer:
            for _ in range(50):
                buffer.sample(64)
            outcome = "sampled"
    except diskreplay.DamageError as error:
        outcome = str(error)
    print(len(walks), outcome, flush=True)
"""


def opened(path: Path) -> str:
    """Return what a process says that opens a store; it may have been ended by a signal."""
    result = run_python(OPEN, path, check=False)
    return result.stdout.strip() or f"exit status {result.returncode}"


def opener_that_has_checked(path: Path) -> Talking:
    """Return a process that has checked the file of a store, and waits for a line."""
    process = Talking(OPEN, path, "wait", warnings="always")
    assert process.hear() == "checked"
    return process


def cut(path: Path) -> None:
    """Cut the data file in half, as an interrupted copy is."""
    file = path / "data.mdb"
    os.truncate(file, file.stat().st_size // 2 // 4096 * 4096)


def commit(buffer: Any, n: int = 5) -> None:
    buffer.extend(**columns(buffer.count, n))
    buffer.flush()


@pytest.mark.parametrize("sound", [False, True])
def test_openers_that_come_together_take_turns_and_trust_the_note_alone(
    sound: bool, store: Path
) -> None:
    os.utime(store / "data.mdb") if sound else cut(store)
    with (
        opener_that_has_checked(store) as first,
        Talking(OPEN, store, "wait", warnings="always") as second,
    ):
        told = second.hear()
        assert f"waiting for pid {first.pid} on" in told
        assert "to end its check of" in told
        said = first.end("\n\n"), second.end("\n\n").removeprefix("checked\n")
        assert first.returncode == second.returncode == 0
    if sound:
        assert said == ("1 sampled\n", "0 sampled\n")
    else:
        assert all(re.match("1 .* is damaged: ", one) for one in said)


def test_a_commit_meanwhile_does_not_hide_what_was_found(store: Path) -> None:
    with diskreplay.open(store, commit_interval=1e9) as buffer:
        buffer.sample(10)
        with (store / "data.mdb").open("r+b") as file:
            content = file.read()
            # The page of a record, which nothing here reads or writes again.
            file.seek(content.index(columns(7, 1)["states"].tobytes()) // 4096 * 4096)
            file.write(bytes(4096))
        with opener_that_has_checked(store) as opener:
            buffer.clear()  # a commit that reads no records
            buffer.flush()
            assert "is damaged: " in opener.end("\n")
        buffer._guard._close_store(sync=False)


def test_a_check_beside_a_writer_finds_no_false_faults(store: Path) -> None:
    done = threading.Event()
    with diskreplay.open(store, commit_interval=1e9) as buffer:

        def write() -> None:
            while not done.is_set():
                commit(buffer, 100)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            checked = 0
            while checked < 2:
                # A note that goes in the middle of a commit is written anew: no check then.
                (store / "data.known").unlink()
                said = opened(store)
                assert re.fullmatch("[012] sampled", said)
                checked += said[0] != "0"
        finally:
            done.set()
            writer.join()
        assert buffer.count > 2000


WRITER = """
    import sys, diskreplay
    from common import columns
    with diskreplay.open(sys.argv[1], commit_interval=1e9) as buffer:
        print("open", flush=True)
        for _ in sys.stdin:
            buffer.extend(**columns(buffer.count, 5))
            buffer.flush()
            print("committed", flush=True)
"""


def test_commits_between_the_reads_of_both_meta_pages_are_no_damage(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, first_pages = DataFile._meta, []
    descriptor = os.open(store / "data.mdb", os.O_RDONLY)
    file = DataFile(descriptor)
    with contextlib.closing(file), Talking(WRITER, store) as writer:
        assert writer.hear() == "open"

        def commit() -> None:
            writer.say()
            assert writer.hear() == "committed"

        def read_while_others_commit(data: DataFile, at: int) -> Meta | None:
            found = read(data, at)
            if at == 0:
                first_pages.append(found)
                if len(first_pages) == 2:  # the look that follows the begin of the transaction
                    for _ in range(3):
                        commit()
            return found

        if transaction_of(newest_of(meta_pages(descriptor))) % 2:
            commit()  # so that the newest commit is in the first page
        monkeypatch.setattr(DataFile, "_meta", read_while_others_commit)
        with pinned_commit(store, file) as (meta, faults):
            assert meta is not None
            assert not faults
            assert structural_faults(file, meta) == []
        assert len(first_pages) == 3
        assert writer.end() == ""


KILLED = """
    import os, sys, diskreplay
    from common import columns
    from inside import store_of
    buffer = diskreplay.open(sys.argv[1], commit_interval=1e9)
    buffer.extend(**columns(2000, 100))
    with store_of(buffer).transaction() as txn:
        txn.put_run(7, {"bytes": "x" * 100_000})
        os._exit(9)
"""


def older(path: Path) -> None:
    shutil.copyfile(path / "older", path / "data.mdb")


def other(path: Path) -> None:
    with ReplayBuffer(3000, path=path / "other") as buffer:
        buffer.extend(**columns(0, 3000))
    shutil.copyfile(path / "other" / "data.mdb", path / "data.mdb")


def half_of_itself(path: Path) -> None:
    shutil.copyfile(path / "data.mdb", path / "itself")
    cut(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (None, "0 sampled"),
        (older, "1 sampled"),
        (other, "1 .*belongs to another store"),
        (half_of_itself, "1 .*is damaged: .* is missing: the file ends before it"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_copied_over_a_file_after_a_kill_in_a_commit_is_checked(
    change: Callable[[Path], None] | None, expected: str, store: Path
) -> None:
    shutil.copyfile(store / "data.mdb", store / "older")
    with diskreplay.open(store) as buffer:
        commit(buffer)
    assert run_python(KILLED, store, check=False).returncode == 9
    assert "?" in (store / "data.known").read_text()
    if change is not None:
        change(store)  # cp writes into the file that is there
    assert re.match(expected, opened(store))


@needs_root
@pytest.mark.parametrize("mark", [False, True])
def test_a_stranger_cannot_vouch_for_his_own_file(mark: bool, tmp_path: Path) -> None:
    code = """
        import os, pathlib, sys, diskreplay
        from diskreplay.store import known_note
        from diskreplay.lmdbfile import pages
        from common import columns
        from users import NOBODY
        diskreplay.ReplayBuffer(10).close()  # imports all that may not be found later
        os.chown(sys.argv[1], NOBODY, NOBODY)
        os.setgid(NOBODY), os.setuid(NOBODY)
        path = sys.argv[1] + "/b"
        with diskreplay.ReplayBuffer(2000, path=path) as buffer:
            buffer.extend(**columns(0, 2000))
        file = path + "/data.mdb"
        half = os.stat(file).st_size // 2 // 4096 * 4096
        descriptor = os.open(file, os.O_RDWR)
        os.pwrite(descriptor, bytes(half), half)
        found = os.stat(file)
        note = known_note._likeness(found)
        if sys.argv[2] == "True":
            note = known_note._mark(found, pages.meta_pages(descriptor)[0])
        open(path + "/data.known", "wb").write(note)
        assert known_note.is_known(pathlib.Path(path))
    """
    (tmp_path / "his").mkdir()
    let_others_in(tmp_path)
    run_python(code, tmp_path / "his", mark)
    store = tmp_path / "his" / "b"
    assert not is_known(store)
    assert "is damaged" in opened(store)
    assert any("is damaged" in fault for fault in diskreplay.verify(store))


def test_no_note_vouches_for_a_file_that_ends_before_its_last_page(store: Path) -> None:
    cut(store)
    make_known(store)
    assert not is_known(store)
    assert "is damaged" in opened(store)


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.chmod(0o664),
        lambda note: note.chmod(0o646),
        lambda note: note.with_name("second").hardlink_to(note),
        lambda note: os.truncate(note, 2 << 30),
        Path.unlink,
    ],
    ids=["group", "others", "second link", "large", "gone"],
)
def test_a_note_that_others_may_have_written_does_not_count(
    change: Callable[[Path], None], store: Path, walks: list[object]
) -> None:
    note, text = store / "data.known", (store / "data.known").read_bytes()
    assert is_known(store)
    change(note)
    assert not is_known(store)
    for _ in range(2):
        diskreplay.open(store, access="read").close()
        assert len(walks) == 1
        assert note.read_bytes() == text  # a new one
        assert note.stat().st_mode & 0o777 == 0o644


def test_where_no_note_can_be_written_a_process_checks_a_file_once(
    store: Path, walks: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KnownNote, "_writable", lambda self: None)
    (store / "data.known").unlink()
    for changes in (1, 2):
        for _ in range(2):
            diskreplay.open(store, access="read").close()
            assert len(walks) == changes
        os.utime(store / "data.mdb")


@needs_root
def test_the_note_of_root_counts_for_others_who_write_their_own(store: Path) -> None:
    for place in (store, *store.iterdir(), store / "openers"):
        os.chown(place, NOBODY, NOBODY)
    os.chown(store / "data.known", 0, 0)
    os.utime(store / "data.mdb")
    assert opened(store) == "1 sampled"
    let_others_in(store.parent)
    code = """
        import os, sys, diskreplay, diskreplay.store.trust
        from common import columns
        from users import NOBODY
        diskreplay.ReplayBuffer(10).close()
        os.setgid(NOBODY), os.setuid(NOBODY)
        diskreplay.store.trust.structural_faults = None  # would be called
        for _ in range(2):
            with diskreplay.open(sys.argv[1]) as buffer:
                buffer.extend(**columns(buffer.count, 10))
        assert os.stat(sys.argv[1] + "/data.known").st_uid == NOBODY
    """
    run_python(code, store)


def test_a_file_is_known_at_every_moment_of_a_commit(store: Path) -> None:
    code = """
        import pathlib, sys
        from diskreplay.store.known_note import is_known
        print("ready", flush=True)
        found = [is_known(pathlib.Path(sys.argv[1])) for _ in range(3000)]
        print(found.count(False), flush=True)
    """
    with diskreplay.open(store, commit_interval=1e9) as buffer, Talking(code, store) as looking:
        assert looking.hear() == "ready"
        while looking.poll() is None:
            commit(buffer)
        assert looking.end() == "0\n"
        assert buffer.count > 2050


def test_a_commit_between_the_looks_at_note_and_file_is_no_change_by_others(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, commits = KnownNote._read, []
    with diskreplay.open(store, commit_interval=1e9) as buffer:

        def read_and_commit(note: KnownNote) -> bytes:
            noted = read(note)
            if len(commits) < 3:
                commits.append(noted)
                commit(buffer)
            return noted

        monkeypatch.setattr(KnownNote, "_read", read_and_commit)
        assert is_known(store)
        assert len(commits) == 3


def test_a_file_that_was_written_to_during_its_check_is_not_noted(store: Path) -> None:
    with diskreplay.open(store, commit_interval=1e9) as buffer:
        (store / "data.known").unlink()
        with opener_that_has_checked(store) as opener:
            commit(buffer)
            assert opener.end("\n") == "1 sampled\n"
        assert not is_known(store)

"""When a data file is checked: in company, after kills, with notes of strangers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from common import SUPPORT, columns, run_python

import diskreplay
from diskreplay import ReplayBuffer
from diskreplay.store import trust
from diskreplay.store.known_note import KnownNote, is_known, make_known

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="other users need root")

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


def started(path: Path) -> subprocess.Popen[str]:
    """Start a process that opens a store, and waits for a line when it has checked it."""
    process = subprocess.Popen(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(OPEN), str(path), "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=SUPPORT,
    )
    assert process.stdout is not None
    return process


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with ReplayBuffer(2000, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 2000))
    return tmp_path / "b"


def cut(path: Path) -> None:
    """Cut the data file in half, as an interrupted copy is."""
    file = path / "data.mdb"
    os.truncate(file, file.stat().st_size // 2 // 4096 * 4096)


def test_nobody_is_trusted_because_somebody_else_is_still_checking(store: Path) -> None:
    cut(store)
    with started(store) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "checked\n"
        with started(store) as second:
            assert second.stderr is not None
            told = second.stderr.readline()
            assert f"waiting for pid {first.pid} on" in told
            assert "to end its check of" in told
            for process in (first, second):
                said, _ = process.communicate("\n\n", timeout=60)
                assert "1 " in said
                assert "is damaged: " in said
                assert process.returncode == 0


def test_those_who_come_together_check_a_sound_file_once(store: Path) -> None:
    os.utime(store / "data.mdb")
    with started(store) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "checked\n"
        with started(store) as second:
            assert second.stderr is not None
            assert "waiting for pid" in second.stderr.readline()
            assert first.communicate("\n", timeout=60)[0] == "1 sampled\n"
            assert second.communicate("\n", timeout=60)[0] == "0 sampled\n"


def test_a_commit_meanwhile_does_not_hide_what_was_found(store: Path) -> None:
    with diskreplay.open(store, commit_interval=1e9) as buffer:
        buffer.sample(10)
        with (store / "data.mdb").open("r+b") as file:
            content = file.read()
            # The page of a record, which nothing here reads or writes again.
            file.seek(content.index(columns(7, 1)["states"].tobytes()) // 4096 * 4096)
            file.write(bytes(4096))
        with started(store) as opener:
            assert opener.stdout is not None
            assert opener.stdout.readline() == "checked\n"
            buffer.clear()  # a commit that reads no records
            buffer.flush()
            said, _ = opener.communicate("\n", timeout=60)
        assert "is damaged: " in said
        buffer._guard._close_store(sync=False)


def test_a_check_beside_a_writer_finds_no_false_faults(store: Path) -> None:
    done = threading.Event()
    with diskreplay.open(store, commit_interval=1e9) as buffer:

        def write() -> None:
            while not done.is_set():
                buffer.extend(**columns(buffer.count, 100))
                buffer.flush()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            checked = 0
            while checked < 2:
                # One that goes in the middle of a commit is written anew: nothing is checked then.
                (store / "data.known").unlink()
                said = opened(store)
                assert re.fullmatch("[012] sampled", said)
                checked += said[0] != "0"
        finally:
            done.set()
            writer.join()
        assert buffer.count > 2000


KILLED = """
    import os, sys, diskreplay
    from common import columns
    buffer = diskreplay.open(sys.argv[1], commit_interval=1e9)
    buffer.extend(**columns(2000, 100))
    with buffer._guard.replica.store.transaction() as txn:
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
        buffer.extend(**columns(0, 5))
    assert run_python(KILLED, store, check=False).returncode == 9
    assert "?" in (store / "data.known").read_text()
    if change is not None:
        change(store)  # cp writes into the file that is there
    said = opened(store)
    assert said[0] == expected[0]
    assert re.search(expected, said), said


@needs_root
@pytest.mark.parametrize("mark", [False, True])
def test_a_stranger_cannot_vouch_for_his_own_file(mark: bool, tmp_path: Path) -> None:
    code = """
        import os, pathlib, sys, diskreplay
        from diskreplay.store import known_note
        from diskreplay.lmdbfile import pages
        from common import columns
        diskreplay.ReplayBuffer(10).close()  # imports all that may not be found later
        os.chown(sys.argv[1], 65534, 65534)
        os.setgid(65534), os.setuid(65534)
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
    place = tmp_path / "his"
    place.mkdir()
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == 0 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    run_python(code, place, mark)
    assert not is_known(place / "b")
    assert "is damaged" in opened(place / "b")
    assert any("is damaged" in fault for fault in diskreplay.verify(place / "b"))


def test_no_note_vouches_for_a_file_that_ends_before_its_last_page(store: Path) -> None:
    cut(store)
    make_known(store)
    assert not is_known(store)
    assert "is damaged" in opened(store)


@pytest.mark.parametrize("change", ["group", "others", "second link", "large", "gone"])
def test_a_note_that_others_may_have_written_does_not_count(
    change: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk, walks = trust.structural_faults, []
    monkeypatch.setattr(trust, "structural_faults", lambda *what: walks.append(what) or walk(*what))
    note, text = store / "data.known", (store / "data.known").read_bytes()
    assert is_known(store)
    if change in ("group", "others"):
        note.chmod(0o664 if change == "group" else 0o646)
    elif change == "second link":
        (store / "second").hardlink_to(note)
    elif change == "large":
        os.truncate(note, 2 << 30)
    else:
        note.unlink()
    assert not is_known(store)
    for _ in range(2):
        diskreplay.open(store, access="read").close()
        assert len(walks) == 1
        assert note.read_bytes() == text  # a new one
        assert note.stat().st_mode & 0o777 == 0o644


def test_where_no_note_can_be_written_a_process_checks_a_file_once(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk, walks = trust.structural_faults, []
    monkeypatch.setattr(trust, "structural_faults", lambda *what: walks.append(what) or walk(*what))
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
        os.chown(place, 65534, 65534)
    os.chown(store / "data.known", 0, 0)
    os.utime(store / "data.mdb")
    assert opened(store) == "1 sampled"
    for directory in store.parents:
        if directory.stat().st_uid == 0 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    code = """
        import os, sys, diskreplay, diskreplay.store.trust
        from common import columns
        diskreplay.ReplayBuffer(10).close()
        os.setgid(65534), os.setuid(65534)
        diskreplay.store.trust.structural_faults = None  # would be called
        for _ in range(2):
            with diskreplay.open(sys.argv[1]) as buffer:
                buffer.extend(**columns(buffer.count, 10))
        assert os.stat(sys.argv[1] + "/data.known").st_uid == 65534
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
    with (
        diskreplay.open(store, commit_interval=1e9) as buffer,
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(store)],
            stdout=subprocess.PIPE,
            text=True,
        ) as looking,
    ):
        assert looking.stdout is not None
        assert looking.stdout.readline() == "ready\n"
        while looking.poll() is None:
            buffer.extend(**columns(buffer.count, 5))
            buffer.flush()
        assert looking.stdout.read() == "0\n"
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
                buffer.extend(**columns(buffer.count, 5))
                buffer.flush()
            return noted

        monkeypatch.setattr(KnownNote, "_read", read_and_commit)
        assert is_known(store)
        assert len(commits) == 3


def test_a_file_that_was_written_to_during_its_check_is_not_noted(store: Path) -> None:
    with diskreplay.open(store, commit_interval=1e9) as buffer:
        (store / "data.known").unlink()
        with started(store) as opener:
            assert opener.stdin is not None
            assert opener.stdout is not None
            assert opener.stdout.readline() == "checked\n"
            buffer.extend(**columns(buffer.count, 5))
            buffer.flush()
            print(file=opener.stdin, flush=True)
            assert opener.communicate(timeout=60)[0] == "1 sampled\n"
        assert not is_known(store)

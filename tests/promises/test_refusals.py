"""Refusals of the operating system are errors of ours with a way out, and nothing is lost."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from common import columns, run_python
from diskreplay_tools.cli import main
from refused import calls_with
from users import let_others_in

import diskreplay
from diskreplay import ArgumentError, DiskReplayError, ReplayBuffer, StorageError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def test_a_relative_path_in_a_removed_directory_is_refused(tmp_path: Path) -> None:
    code = """
        import os, sys, diskreplay
        from refused import calls_with
        os.makedirs(sys.argv[1])
        os.chdir(sys.argv[1])
        os.rmdir(sys.argv[1])
        for call in calls_with("runs/a"):
            try:
                call()
            except diskreplay.StorageError as error:
                assert "give an absolute path" in str(error), error
            else:
                raise AssertionError(call)
    """
    run_python(code, tmp_path / "gone")


@pytest.mark.parametrize("name", ["\ud800", "a\0b", ""])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    for call in calls_with(name):
        with pytest.raises(ArgumentError):
            call()


@pytest.mark.parametrize("words", ["copy OK BAD", "export OK BAD", "inspect BAD", "merge OK BAD"])
def test_a_command_says_what_helps_with_a_path_that_leads_nowhere(
    words: str, tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    ReplayBuffer(10, path=tmp_path / "a").close()
    for bad in (tmp_path / "loop" / "b", tmp_path / ("x" * 300)):
        given = [
            {"OK": str(tmp_path / "a"), "BAD": str(bad)}.get(word, word) for word in words.split()
        ]
        done = CliRunner().invoke(main, given)
        assert isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code in (1, 2)
        assert len(done.stderr.splitlines()) <= 4, done.stderr


def test_without_a_place_for_temporary_files_a_path_is_asked_for(tmp_path: Path) -> None:
    code = """
        import sys, tempfile, diskreplay
        tempfile.tempdir = sys.argv[1]
        try:
            diskreplay.ReplayBuffer(10)
        except diskreplay.StorageError as error:
            assert sys.argv[1] in str(error) and "Choose a path that exists" in str(error), error
        else:
            raise AssertionError("it was taken")
    """
    run_python(code, tmp_path / "none")


@needs_root
def test_without_threads_a_push_changes_nothing_and_goes_on_later() -> None:
    code = """
        import os, resource, diskreplay
        from common import columns, row
        diskreplay.ReplayBuffer(10).close()  # imports all that may not be found later
        os.setuid(65534)
        buffer = diskreplay.ReplayBuffer(10, commit_interval=60)
        most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        resource.setrlimit(resource.RLIMIT_NPROC, (0, most))
        iterator = iter(buffer.batches(1, prefetch=1))
        for call in (lambda: buffer.push(**row(0)), lambda: buffer.extend(**columns(0, 3))):
            try:
                call()
            except diskreplay.StorageError as error:
                assert "a thread cannot be started" in str(error) and "ulimit -u" in str(error)
            else:
                raise AssertionError("it was taken")
            assert len(buffer) == buffer.count == 0
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        assert buffer.push(**row(0)) == 0
        resource.setrlimit(resource.RLIMIT_NPROC, (0, most))
        try:
            next(iterator)
        except diskreplay.StorageError:
            pass
        else:
            raise AssertionError("it was given")
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        assert next(iterator).rewards.shape == (1,)
        buffer.check()
        buffer.close()
    """
    run_python(code)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("loop/b", "circle"), ("x" * 300, "shorter"), ("file/b", "is a file or inside one")],
)
def test_a_path_that_leads_nowhere_is_refused_with_a_way_out(
    name: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    for call in calls_with(tmp_path / name):
        with pytest.raises(DiskReplayError, match=expected):
            call()
    with ReplayBuffer(10, path=tmp_path / "a") as buffer:
        buffer.extend(**columns(0, 5))
        with pytest.raises(DiskReplayError, match=expected):
            buffer.save(tmp_path / name)
        with pytest.raises(DiskReplayError, match=expected):
            buffer.load(tmp_path / name)
        assert len(buffer) == 5


@pytest.mark.parametrize(
    ("name", "closed", "mode", "forbidden"),
    [
        ("private/b", "private", 0o700, "enter"),
        ("private/new", "private", 0o744, "enter"),
        ("private/deep/er/new", "private", 0o700, "enter"),
        ("private/b", "private/b", 0o700, "enter"),
        ("private/b", "private/b", 0o711, "list"),
    ],
)
def test_a_directory_that_a_user_may_not_look_into_is_named(
    name: str, closed: str, mode: int, forbidden: str, tmp_path: Path
) -> None:
    ReplayBuffer(10, path=tmp_path / "private" / "b").close()
    let_others_in(tmp_path)
    code = """
        import os, sys, diskreplay
        from pathlib import Path
        from click.testing import CliRunner
        from diskreplay_tools.cli import main
        from refused import calls_with
        from users import NOBODY
        place, closed, forbidden = sys.argv[1:]
        calls = calls_with(place)  # and imports all that may not be found later
        calls.append(lambda: diskreplay.open(place, access="read"))
        # The checkout may be below another closed directory: no path is relative to it, and all
        # modules that the commands import are imported before.
        os.chdir("/")
        for words in ("inspect", "--help"), ("inspect", "/no"), ("export", "/no", "out.npz"):
            CliRunner().invoke(main, words)
        if os.geteuid() == 0:
            os.setgid(NOBODY), os.setuid(NOBODY)
        said = f"user {os.geteuid()} may not {forbidden} {closed}: Permission denied: change the "
        with diskreplay.ReplayBuffer(10) as buffer:
            for call in (*calls, lambda: buffer.save(place), lambda: buffer.load(place)):
                try:
                    call()
                except diskreplay.StorageError as error:
                    assert said in str(error), error
                else:
                    raise AssertionError(call)
        for words in ("inspect", place), ("export", place, "out.npz"):
            done = CliRunner().invoke(main, words)
            assert isinstance(done.exception, SystemExit), done.exception
    """
    (tmp_path / closed).chmod(mode if os.geteuid() == 0 else mode & 0o077)
    try:
        run_python(code, tmp_path / name, tmp_path / closed, forbidden)
    finally:
        (tmp_path / closed).chmod(0o700)


def test_without_descriptors_a_sound_store_is_not_said_to_be_none(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        for call in (
            lambda: diskreplay.open(tmp_path / "c"),
            lambda: diskreplay.verify(tmp_path / "c"),
            lambda: ReplayBuffer(10, path=tmp_path / "new"),
            lambda: ReplayBuffer(10),
            buffer.stats,
        ):
            with pytest.raises(StorageError, match="ulimit -n"):
                run_out_of_descriptors(call)
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]
    with pytest.raises(StorageError, match="ulimit -n"):
        run_out_of_descriptors(lambda: diskreplay.open(tmp_path / "b"))


def run_out_of_descriptors(call: Callable[[], Any]) -> Any:
    """Call a function in a process that has no descriptor left."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            return call()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

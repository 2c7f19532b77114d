"""`diskreplay top`: rates from the counters of a store, and the reason where nobody counts."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from commands import COMMAND, refused, run, strict_json
from common import columns
from diskreplay_tools.rates import NewestRow, Rates, counters_of
from others import Other

import diskreplay


def test_rates_are_of_the_last_seconds() -> None:
    rates = Rates()
    now = {"pushes": 100, "batches": None, "commits": 1}
    assert rates.add(0.0, now) == {"pushes": None, "batches": None, "commits": None}
    assert rates.add(2.0, {**now, "pushes": 120}) == {
        "pushes": 10.0, "batches": None, "commits": 0.0
    }  # fmt: skip
    for at in range(4, 40, 2):
        found = rates.add(float(at), {**now, "pushes": 120, "batches": at * 3})
    assert found == {"pushes": 0.0, "batches": 3.0, "commits": 0.0}
    assert rates.add(40.0, {"pushes": 5, "batches": 1, "commits": 1})["pushes"] is None


@pytest.mark.parametrize("kind", ["ReplayBuffer", "PrioritizedReplayBuffer"])
def test_a_reader_counts_what_an_exclusive_writer_stores(kind: str, tmp_path: Path) -> None:
    with Other(tmp_path / "b") as writer:
        writer.open(1000, kind=kind)
        writer.extend(0, 50)
        writer.flush()
        with diskreplay.open(tmp_path / "b", access="read") as reader:
            before = reader.stats()
            for _ in range(3):
                writer.sample(8)
            writer.extend(50, 5)
            writer.flush()
            after = reader.stats()
    then, now = counters_of(before), counters_of(after)
    assert (then["pushes"], now["pushes"]) == (50, 55)
    assert (then["batches"], now["batches"]) == (0, 3)
    assert after["draws"] == 3
    assert now["commits"] == 1 + then["commits"]  # type: ignore[operator]
    assert now["updates"] is None  # an exclusive writer stores no number of them


def test_shared_writers_count_updates_and_only_the_annealing_counts_their_draws(
    tmp_path: Path,
) -> None:
    with Other(tmp_path / "b") as writer:
        writer.open(1000, access="shared")
        writer.extend(0, 50)
        writer.flush()
        for _ in range(4):
            writer.update(np.arange(5), np.ones(5))
        writer.sample(8)
        writer.flush()
        with diskreplay.open(tmp_path / "b", access="read") as reader:
            found = counters_of(reader.stats())
    assert (found["pushes"], found["batches"], found["updates"]) == (50, 1, 4)
    with Other(tmp_path / "u") as writer:
        writer.open(1000, access="shared", kind="ReplayBuffer")
        writer.extend(0, 50)
        writer.flush()
        writer.sample(8)
        with diskreplay.open(tmp_path / "u", access="read") as reader:
            found = counters_of(reader.stats())
        assert (found["pushes"], found["batches"], found["updates"]) == (50, None, None)
        shown = run("top", tmp_path / "u", "--once", "--seconds", 0.1).stdout
        assert "  batches     not counted where processes share a uniform buffer\n" in shown


def test_the_newest_row_is_as_old_as_the_commit_that_brought_it(tmp_path: Path) -> None:
    with diskreplay.ReplayBuffer(100, path=tmp_path / "b", commit_interval=1e9) as buffer:
        newest = NewestRow(is_here=True)
        assert newest.look(buffer.stats())["newest_seconds"] is None
        buffer.extend(**columns(0, 5))
        buffer.flush()
        found = newest.look(buffer.stats())
        assert found["newest_seconds"] == found["last_commit_seconds"] is not None
        buffer.sample(2)
        buffer.flush()  # a commit without rows makes none newer
        again = newest.look(buffer.stats())
        assert again["last_commit_seconds"] < again["newest_seconds"]  # type: ignore[operator]
        first_look = NewestRow(is_here=True).look(buffer.stats())
        assert first_look["newest_seconds"] is None
        assert first_look["last_commit_seconds"] is not None


def test_of_a_store_elsewhere_no_file_of_this_machine_is_looked_at(tmp_path: Path) -> None:
    with diskreplay.ReplayBuffer(100, path=tmp_path / "b", commit_interval=1e9) as buffer:
        newest = NewestRow(is_here=False)
        newest.look(buffer.stats())
        buffer.extend(**columns(0, 5))
        buffer.flush()
        found = newest.look(buffer.stats())
    assert found == {"newest_seconds": 0.0, "last_commit_seconds": None}


def test_once_prints_one_view_with_rates(tmp_path: Path) -> None:
    with diskreplay.PrioritizedReplayBuffer(100, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 25))
        buffer.sample(8)
    shown = run("top", tmp_path / "b", "--once", "--seconds", 0.1).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["pushes", "25", "0.0"] in lines
    assert ["batches", "1", "0.0"] in lines
    assert "updates     not counted by an exclusive writer" in shown
    assert "newest row  write id 24, committed " in shown
    assert "25 of 100 transitions" in shown
    found = strict_json(run("top", tmp_path / "b", "--once", "--seconds", 0.1, "--json").stdout)
    assert (found["pushes_per_second"], found["updates_per_second"]) == (0.0, None)
    assert (found["size"], found["draws"], found["newest_seconds"]) == (25, 1, None)


def test_an_empty_store_has_no_newest_row(tmp_path: Path) -> None:
    diskreplay.ReplayBuffer(100, path=tmp_path / "b").close()
    shown = run("top", tmp_path / "b", "--once", "--seconds", 0.1).stdout
    assert "newest row  none" in shown
    assert "updates     a uniform buffer has none" in shown


def test_it_goes_on_until_it_is_interrupted(tmp_path: Path) -> None:
    with Other(tmp_path / "b") as writer:
        writer.open(1000)
        writer.extend(0, 10)
        writer.flush()
        watcher = subprocess.Popen(
            [*COMMAND, "top", tmp_path / "b", "--seconds", "0.1"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert watcher.stdout is not None
        assert "size 10  written 10  pushes/s -" in watcher.stdout.readline()
        writer.extend(10, 20)
        writer.flush()
        while "written 30" not in (line := watcher.stdout.readline()):
            assert line
        watcher.send_signal(signal.SIGINT)
        assert watcher.communicate(timeout=60)[1] == ""
        assert watcher.returncode == 0


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused("top", tmp_path / "none", status=2)
    (tmp_path / "empty").mkdir()
    assert "holds no store" in refused("top", tmp_path / "empty", "--once")

"""`diskreplay inspect`: the figures are those of the store."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import stores
from commands import COMMAND, WIDTHS, facts, refused, run, shown, strict_json
from common import columns, contents, row
from diskreplay_tools.terminal import overview
from diskreplay_tools.terminal.text import Screen

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Write ids 1000 to 1349 are live, with the priorities 0, 1/3, 2/3, ..."""
    return stores.prioritized(tmp_path / "b")


# The whole


def test_the_figures_are_those_of_the_buffer(store: Path) -> None:
    with diskreplay.open(store, access="read") as buffer:
        stats = buffer.stats()
    found = facts(store)
    del stats["openers"]
    assert {name: found[name] for name in stats} == {
        **stats, "runs": [{**run, "live": [350, 350]} for run in stats["runs"]]
    }  # fmt: skip
    assert found["first"] == 1000
    assert found["openers"] == []
    text = shown(store)
    for part in (
        "prioritized: 350 of 1,100 transitions",
        "31.8 %",
        "1,000 to 1,349 are live; 1,350 written in all",
        "wrote 1,350, 350 of them live",
        f"pid {os.getpid()} on ",
        "state      float32[3]  12 bytes",
        "alpha        0.6",
        "beta         0.4, after 1 call of sample (frame)",
        "new priority 116.3, the largest so far",
        "system, a commit after 1 s",
        "Open now: by nobody",
        "0 to 349 write ids behind the newest",
    ):
        assert part in text, f"no {part!r} in\n{text}"


def test_notes_are_listed_as_they_are_stored(store: Path) -> None:
    assert (facts(store)["notes"], "Notes" in shown(store)) == ({}, False)
    with diskreplay.open(store) as buffer:
        buffer.set_note("lines", {"file": "a\x1b[2J.csv", "number": 7})
        buffer.set_note("means", [0.5, float("inf")])
    assert facts(store)["notes"] == {
        "lines": {"file": "a\x1b[2J.csv", "number": 7},
        "means": [0.5, "Infinity"],
    }
    text = shown(store)
    assert re.search(r"Notes\n  lines\n    \{.*a\\u001b\[2J.csv", text)
    with diskreplay.open(store) as buffer:
        for number in range(9):
            buffer.set_note(f"more-{number}", "x" * 5000)
    text = shown(store)
    assert "Notes: the first 8 of 11" in text
    assert "more-7" not in text
    assert max(map(len, text.splitlines()[1:])) <= 80  # the first is the path


def test_marks_are_listed_as_they_are_stored(store: Path) -> None:
    with diskreplay.open(store) as buffer:
        buffer.mark("begin")
        buffer.mark("step-7", {"network": "a\x1b[2J.pt", "loss": float("nan")})
        marks = [mark.to_plain() for mark in buffer.marks()]
    found = facts(store)["marks"]
    assert found[0] == marks[0]
    assert found[1] == {**marks[1], "data": {"network": "a\x1b[2J.pt", "loss": "NaN"}}
    text = shown(store)
    assert re.search(r"Marks\n  begin\n    20\d\d-.*, 1,350 written\n  step-7\n", text)
    assert "written; {" in text
    assert "a\\u001b[2J.pt" in text
    with diskreplay.open(store) as buffer:
        for number in range(9):
            buffer.mark(f"more-{number}", "x" * 5000)
    text = shown(store)
    assert "Marks: the last 8 of 11" in text
    assert "step-7" not in text
    assert max(map(len, text.splitlines()[1:])) <= 80  # the first is the path
    with ReplayBuffer(10, path=store.parent / "kept", keep_rows=1234):
        pass
    assert "of 10 transitions, and 1,234 kept" in shown(store.parent / "kept")


def test_distributions_count_what_is_there(store: Path) -> None:
    found = facts(store)["histograms"]
    priorities = (np.arange(350) / 3).astype(np.float32)
    rewards = columns(1000, 350)["rewards"]
    for name, values in (("priority", priorities), ("reward", rewards)):
        counts, edges = found[name]["counts"], np.array(found[name]["edges"])
        assert counts == np.histogram(values, edges)[0].tolist()
        assert (sum(counts), found[name]["of"]) == (350, 350)
    assert found["done"] == {
        "values": [0.0, 1.0], "counts": [280, 70], "of": 350, "not_finite": 0
    }  # fmt: skip
    ages = found["age"]
    assert (ages["from"][0], ages["to"][-1], sum(ages["count"])) == (0, 349, 350)
    for begin, end, mean in zip(ages["from"], ages["to"], ages["mean_priority"], strict=True):
        np.testing.assert_allclose(mean, priorities[::-1][begin : end + 1].mean(), rtol=1e-6)


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize(
    "make", [stores.prioritized, stores.uniform, stores.large, stores.packed, stores.empty]
)
def test_nothing_is_wider_than_the_terminal(
    make: Any, columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "b")
    monkeypatch.chdir(tmp_path)  # the path is told as it was given
    views = [["b"], ["b", "--last", 3]]
    views += [["b", "--top", 3]] if make is stores.prioritized else []
    for view in views:
        for line in shown(*view, columns=columns).splitlines():
            assert len(line) <= columns, line
            assert line == line.rstrip()
    assert path.exists()


def test_looking_changes_nothing(store: Path) -> None:
    before = contents(store)
    for view in ([], ["--json"], ["--top", 3], ["--bottom", 3], ["--last", 3], ["--at", 1000]):
        shown(store, *view)
    run("schema", store)
    assert contents(store) == before


def test_output_without_blocks_is_plain_ascii(store: Path) -> None:
    for view in ([], ["--top", 3]):
        result = run("inspect", store, *view, charset="ascii")
        assert result.exit_code == 0, result.output
        assert result.stdout_bytes.isascii()
    assert "###" in run("inspect", store, charset="ascii").stdout
    assert "███" in shown(store)


def test_a_name_that_the_output_cannot_say_is_no_error(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "café")
    result = subprocess.run(
        [*COMMAND, "inspect", path],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.isascii()
    assert strict_json(shown(path, "--json"))["path"] == str(path)


def test_a_large_store_is_sampled_evenly_and_says_so(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(25_000, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 25_000))
    text = shown(tmp_path / "b")
    assert re.search(r"Rewards of 10,000 of 25,000: \d.* to 3,12[45].*, mean 1,56[1-4]", text)
    assert "Priorities: all the same" in text
    found = facts(tmp_path / "b")["histograms"]
    assert found["priority"]["counts"] == [25_000]
    assert found["reward"]["of"] == 10_000
    even = np.array(found["reward"]["counts"]) / np.diff(found["reward"]["edges"])
    assert even[:-1].std() < 0.01 * even[:-1].mean()


def test_what_comes_at_every_other_place_is_in_the_sample(tmp_path: Path) -> None:
    with ReplayBuffer(20_000, path=tmp_path / "b") as buffer:
        rows = columns(0, 20_000)
        rows["dones"] = np.arange(20_000) % 50 == 49  # always at odd write ids
        buffer.extend(**rows)
    found = facts(tmp_path / "b")["histograms"]["done"]
    assert found["values"] == [0, 1]
    assert 150 < found["counts"][1] < 250


def test_rows_of_a_megabyte_are_few_in_the_sample(tmp_path: Path) -> None:
    with ReplayBuffer(200, path=tmp_path / "b", window_bytes=0) as buffer:
        frames = np.zeros((40, 500_000), np.uint8)
        for _ in range(4):
            buffer.extend(frames, [0] * 40, [1.0] * 40, frames, [False] * 40)
    assert facts(tmp_path / "b")["histograms"]["reward"]["of"] == (64 << 20) // 1_000_016
    assert "Rewards of 67 of 160: all the same" in shown(tmp_path / "b")


# Stores at the edge


def test_a_store_with_nothing_in_it(tmp_path: Path) -> None:
    stores.empty(tmp_path / "none")
    with PrioritizedReplayBuffer(
        10, path=tmp_path / "known", schema=dict.fromkeys(row(0), "float32")
    ):
        pass
    text = shown(tmp_path / "none")
    assert "none yet: the first transition that is pushed fixes it" in text
    assert "none is live; 0 written in all" in text
    assert "Runs: nothing was written yet" in text
    assert "float32" in shown(tmp_path / "known")
    for name in ("none", "known"):
        found = facts(tmp_path / name)
        assert (found["size"], found["first"], found["histograms"]) == (0, 0, {"age": {}})
        assert "there are no transitions to show" in shown(tmp_path / name, "--last", 3)
        assert facts(tmp_path / name, "--last", 3)["transitions"] == []
        message = refused("inspect", tmp_path / name, "--at", 0)
        assert "write id 0 was not written yet: none is live" in message
    assert "there are no transitions to show" in shown(tmp_path / "known", "--top", 3)
    assert "has no schema yet" in refused("schema", tmp_path / "none")


def test_a_store_that_was_cleared(store: Path) -> None:
    with diskreplay.open(store) as buffer:
        buffer.clear()
    found = facts(store)
    assert (found["size"], found["first"], found["count"]) == (0, 1350, 1350)
    assert found["priority_mean"] is None
    assert "wrote 1,350, none of them live" in shown(store)
    assert "was evicted, or cleared: none is live" in refused("inspect", store, "--at", 1349)


def test_a_store_of_one_transition(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(1, path=tmp_path / "b") as buffer:
        for number in range(3):
            buffer.push(**row(number), priority=3e38)
    text = shown(tmp_path / "b")
    assert "1 of 1 transition" in text
    assert "100.0 %" in text
    assert "3e+38" in text
    found = facts(tmp_path / "b", "--top", 5)
    assert [each["write_id"] for each in found["transitions"]] == [2]
    assert facts(tmp_path / "b")["histograms"]["age"]["to"] == [0]


def test_numbers_that_json_has_not(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(10, path=tmp_path / "b", commit_interval=float("inf")) as buffer:
        buffer.push(
            [float("nan"), float("inf"), float("-inf"), 0.5], 1, 0.25, [0.0] * 4, True,
            mask=[True, False], wave=1 - 2j,
        )  # fmt: skip
    found = facts(tmp_path / "b", "--last", 1)
    assert found["commit_interval"] == "Infinity"
    (transition,) = found["transitions"]
    assert transition == {
        "write_id": 0, "age": 0, "priority": 1.0, "damaged": False,
        "fields": {
            "state": ["NaN", "Infinity", "-Infinity", 0.5], "action": 1, "reward": 0.25,
            "next_state": [0.0] * 4, "done": 1.0, "mask": [True, False], "wave": [1.0, -2.0],
        },
    }  # fmt: skip
    text = shown(tmp_path / "b", "--last", 1)
    assert "nan inf -inf 0.5" in text
    assert re.search(r"mask +bool\[2\] +true false", text)
    assert re.search(r"wave +complex128 +1-2j", text)
    assert "no commit by time" in shown(tmp_path / "b")


def test_rewards_of_several_numbers_and_in_no_order(tmp_path: Path) -> None:
    fields = {**dict.fromkeys(row(0), "float32"), "reward": ("float32", (2,))}
    with ReplayBuffer(10, path=tmp_path / "b", schema=fields) as buffer:
        buffer.push(0.0, 0.0, [1.0, 2.0], 0.0, False)
    assert facts(tmp_path / "b")["histograms"]["reward"]["counts"] == [1, 1]
    with ReplayBuffer(10, path=tmp_path / "c", schema={**fields, "reward": "complex64"}) as buffer:
        buffer.push(0.0, 0.0, 1j, 0.0, False)
    assert "Rewards: no numbers in order" in shown(tmp_path / "c")


def test_runs_are_told_and_which_of_their_rows_are_live(tmp_path: Path) -> None:
    for first in range(0, 50, 10):
        with ReplayBuffer(25, path=tmp_path / "b") as buffer:
            buffer.extend(**columns(first, 10))
    text = shown(tmp_path / "b")
    assert "Runs: the last 3 of 5" in text
    assert [int(n) for n in re.findall(r"wrote 10, (\d+) of them live", text)] == [5]
    assert text.count("wrote 10, all of them live") == 2
    assert f"diskreplay {diskreplay.__version__}, python " in text
    assert [run["live"] for run in facts(tmp_path / "b")["runs"]] == [
        [0, 0], [0, 0], [5, 5], [10, 10], [10, 10]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("least", "rows", "live", "told"),
    [
        (0, 0, (0, 0), "wrote none"),
        (1, 1, (1, 1), "wrote 1, which is live"),
        (1, 1, (0, 0), "wrote 1, which is gone"),
        (1, 1, (0, 1), "wrote 1, which may be live"),
        (5, 5, (0, 0), "wrote 5, none of them live"),
        (5, 5, (1, 1), "wrote 5, 1 of them live"),
        (5, 5, (5, 5), "wrote 5, all of them live"),
        (5000, 5000, (0, 1200), "wrote 5,000, at most 1,200 of them live"),
        (5000, 5000, (10, 5000), "wrote 5,000, 10 to 5,000 of them live"),
        (20, 40, (20, 40), "wrote 20 to 40, 20 to 40 of them live"),  # as merge leaves it
    ],
)
def test_what_a_run_wrote_is_a_sentence(
    least: int, rows: int, live: tuple[int, int], told: str
) -> None:
    run = {"first": 0, "end": 9999, "rows": rows, "live": live, "started": 0.0}
    run |= {"rows_least": least} if least < rows else {}
    lines = list(overview._run_lines([run], Screen(100, blocks=True)))
    assert lines[1].splitlines()[0].endswith(f"  {told}")


def test_a_run_that_tells_lies_is_no_error(store: Path) -> None:
    with diskreplay.open(store, access="read") as buffer:
        assert len(buffer.stats()["runs"]) == 1
    for wrong in (
        {}, {"rows": "\x1b[2J", "started": 1e300, "versions": [1]},
        {"rows": 1, "first": 1.5, "end": None, "host": "\x1b[31m\n", "versions": {"a": "\x07"}},
    ):  # fmt: skip
        lines = overview._run_lines([{**wrong, "live": None}], Screen(80, blocks=True))
        text = click.unstyle("\n".join(lines))
        assert "\x1b" not in text
        assert "\x07" not in text

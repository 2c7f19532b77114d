"""The benchmarks: tiny runs of all of them, as a user starts them, and what they could get wrong.

No time is asserted, and no peer is needed: there are none where these tests look for them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from bench import driver, limits
from bench.driver import OWN, PEERS, Leg, Measured, Pythons, WorkerError, measure
from bench.endure import FLAT, growths_of
from bench.goals import GROUPS, TINY, Figure, Row, Size
from bench.options import stop_if_failed
from bench.report import BEGIN, END, cells, write_into
from bench.rows import Task, columns, singles

TOOLS = Path(__file__).parents[2] / "tools"
SMALL = Task(rows=2000, width=3, batch=32, seconds=0.001, count=50)


def bench(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=TOOLS,
        timeout=600,
    )
    assert result.returncode == status, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


def test_all_groups_run_and_are_written_down(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    out = tmp_path / "out.json"
    stores = tmp_path / "stores"
    stores.mkdir()
    arguments = ["--tiny", "--rounds", 1, "--peers", tmp_path, "--place", stores, "--out", out]
    result = bench("run", *arguments, "--write", page)
    found = json.loads(out.read_text())

    assert list(found["groups"]) == list(GROUPS)
    for legs in found["groups"].values():
        for name, leg in legs.items():
            if leg["system"] in PEERS:
                assert leg["missing"] == "not installed"
            elif leg["limit_bytes"] and leg["missing"]:
                assert leg["missing"].startswith(("no control group", "there are no control"))
            else:
                assert not leg["missing"], (name, leg["missing"])
                assert {len(values) for values in leg["figures"].values()} == {1}
                assert all(value >= 0 for values in leg["figures"].values() for value in values)
    assert {"cpu", "cores", "memory_bytes", "kernel", "python"} <= found["machine"].keys()
    assert found["versions"]["diskreplay"].keys() >= {"diskreplay", "numpy", "lmdb", "python"}
    assert found["load_before"] >= 0
    assert found["command"].startswith("python -m bench run --tiny")

    written = page.read_text()
    assert written.startswith(f"before\n{BEGIN}\n")
    assert written.endswith(f"{END}\nafter\n")
    assert "old" not in written
    assert result.stdout.strip() in written
    rows = [row for make in GROUPS.values() for row in make(TINY, tmp_path).rows]
    assert all(f"| {row.work} | " in result.stdout for row in rows)
    assert not list(stores.iterdir())


def test_a_curve_is_measured_and_drawn(tmp_path: Path) -> None:
    out, picture = tmp_path / "curve.json", tmp_path / "curve.svg"
    bench("curve", "--tiny", "--rounds", 2, "--peers", tmp_path, "--out", out)
    curves = json.loads(out.read_text())["curves"]
    assert set(curves["diskreplay"]) == {"rows", "batch"}
    for legs in curves["diskreplay"].values():
        assert all(len(leg["figures"]["sample"]) == 2 for leg in legs.values())
    if importlib.util.find_spec("matplotlib"):
        bench("plot", out, "--into", picture)
        assert "diskreplay" in picture.read_text()
    else:
        result = bench("plot", out, "--into", picture, status=1)
        assert re.fullmatch(r"Error: .*matplotlib.*requirements-plot.txt\n", result.stderr)


def test_a_ring_endures(tmp_path: Path) -> None:
    result = bench("endure", "--pushes", 160_000, "--capacity", 4000, "--place", tmp_path)
    assert re.search(r"^data file: flat, 1\.\d+ x", result.stdout, re.M), result.stdout
    assert len(re.findall(" pushed, ", result.stderr)) == 40
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("grows", ["file", "resident", "private"])
def test_what_grows_is_seen(grows: str) -> None:
    sizes = {"file": 1e6, "resident": 1e6, "private": 1e6}
    seen = [{"pushed": n * 100, **sizes, grows: 1e6 + 2e4 * n} for n in range(2, 10)]
    growths = growths_of(seen, 100)
    assert sorted(growth > FLAT for growth in growths.values()) == [False, False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--only", "stop"], "'stop' is none of step, sample"),
        (["run", "--against", "cpprb,gzip"], "'gzip' is none of cpprb, sb3"),
        (["endure", "--pushes", "100"], "--pushes has to be 6 times the capacity"),
        (["install", "gzip"], "'gzip' is not one of"),
    ],
)
def test_wrong_arguments_are_told(arguments: list[str], message: str) -> None:
    assert message in bench(*arguments, status=2).stderr


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    (page := tmp_path / "page.md").write_text("nothing\n")
    with pytest.raises(ValueError, match="does not hold the lines"):
        write_into(page, "table")
    assert page.read_text() == "nothing\n"


# The rows


@pytest.mark.parametrize("width", [3, 0])
def test_rows_follow_from_their_numbers(width: int) -> None:
    task = replace(SMALL, width=width)
    n = task.block
    whole = columns(task, 0, 2 * n)
    part = columns(task, n - 5, 10)
    for column, piece in zip(whole, part, strict=True):
        assert column.dtype == piece.dtype
        np.testing.assert_array_equal(column[n - 5 : n + 5], piece)
    assert len(np.unique(whole[0].reshape(2 * n, -1)[:, :16], axis=0)) == 2 * n
    assert sum(column[0].nbytes for column in whole) == task.row_bytes
    states, actions, rewards, next_states, dones = zip(*singles(task, n - 5, 10), strict=True)
    for given, piece in zip((states, actions, rewards, next_states, dones), part, strict=True):
        np.testing.assert_array_equal(np.array(given, piece.dtype), piece)


# The processes


def test_sides_run_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    real = driver.Side.round
    monkeypatch.setattr(
        driver.Side, "round", lambda side: order.append(side._leg.task.seed) or real(side)
    )
    legs = {
        f"{seed}": Leg(
            "arrays", "gather", replace(SMALL, seed=seed), rounds=most, warms_up=warms_up
        )
        for seed, most, warms_up in ((1, None, True), (2, None, True), (3, 1, False))
    }
    measured = measure(legs, Pythons(tmp_path), 3, 1, lambda _: None)
    assert not [one.missing for one in measured.values() if one.missing]
    assert order == [1, 2, 1, 2, 3, 1, 2, 1, 2]
    assert [len(one.rounds["fresh 32"]) for one in measured.values()] == [3, 3, 1]


def test_a_leg_that_fails_has_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    told: list[str] = []
    legs = {
        "missing": Leg("diskreplay", "read", replace(SMALL, path=str(tmp_path / "nothing"))),
        "arrays": Leg("arrays", "gather", SMALL),
        "cpprb": Leg("cpprb", "step", SMALL),
    }
    measured = measure(legs, Pythons(tmp_path), 2, 0, told.append)
    assert re.match(
        "the worker of diskreplay failed: NotAStoreError: .*nothing", measured["missing"].missing
    )
    assert any("NotAStoreError" in line for line in told)
    assert measured["cpprb"].missing == "not installed"
    assert [one.has_failed for one in measured.values()] == [True, False, False]
    assert not measured["arrays"].missing


def test_a_peer_that_does_not_run_is_left_out(tmp_path: Path) -> None:
    for peer, mode in (("cpprb", 0o755), ("sb3", 0o644)):
        python = tmp_path / peer / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
        python.chmod(mode)
    result = bench(
        "run", "--tiny", "--rounds", 1, "--only", "sample", "--against", "cpprb,sb3",
        "--peers", tmp_path,
    )  # fmt: skip
    assert " | cpprb | the worker of cpprb ended with status 3: it is broken |  |" in result.stdout
    assert "Permission denied" in result.stdout
    assert "- cpprb: unknown: the worker of cpprb ended with status 3" in result.stdout


def test_only_what_is_ours_has_to_work() -> None:
    ours, peer = Leg("diskreplay", "step", SMALL), Leg("cpprb", "step", SMALL)
    gone = Measured(peer, missing="gone", has_failed=True)
    stop_if_failed([Measured(ours), gone, Measured(ours, missing="no control group")])
    with pytest.raises(click.ClickException, match="broken"):
        stop_if_failed([gone, Measured(ours, missing="broken", has_failed=True)])


def test_a_worker_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Pythons(tmp_path).worker("diskreplay") as worker:
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"ended with status -9: "):
            worker.round()
    worker = driver.Worker(Path(sys.executable), "nothing")
    with pytest.raises(WorkerError, match=r"worker of nothing ended with status 1: .*No module"):
        worker.round()
    worker.kill()


def test_what_a_system_prints_is_no_answer() -> None:
    code = """
        import os
        from bench.serving import serve
        def loud(task):
            print("printed")
            os.write(1, b"written\\n")
            while True:
                os.system("echo by a child")
                yield {"rows": task.rows}
        serve({"loud": loud}, ())
    """
    requests = [{"do": "start", "bench": "loud", "task": {"rows": 7}}, {"do": "round"}]
    requests += [{"do": "start", "bench": "other", "task": {}}, {"do": "versions"}]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        cwd=TOOLS,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert answers[:2] == 2 * [{"figures": {"rows": 7.0}}]
    assert answers[2] == {"error": "KeyError: 'other'"}
    assert set(answers[3]["versions"]) == {"python", "numpy"}
    assert result.stderr.count("by a child") == 2


def test_workers_die_with_the_driver(tmp_path: Path) -> None:
    code = f"""
        import time
        from pathlib import Path
        from bench.driver import Pythons, Leg
        from bench.rows import Task
        with Pythons(Path({str(tmp_path)!r})).worker("arrays") as worker:
            worker.start(Leg("arrays", "gather", Task(rows=1000, width=1, seconds=600)))
            print(worker._process.pid, flush=True)
            worker.round()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, cwd=TOOLS, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        pid = int(process.stdout.readline())
    began = processor_ticks(pid)
    wait_until(lambda: processor_ticks(pid) > began + 5)  # it is in a round of ten minutes
    process.kill()
    process.wait()
    try:
        wait_until(lambda: not is_running(pid))
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "run", "--only", "stall", "--place", tmp_path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=TOOLS,
        text=True,
    )
    assert process.stderr is not None
    while "pushes only: preparing" not in (line := process.stderr.readline()):
        assert line
    wait_until(lambda: list(tmp_path.rglob("data.mdb")))  # which a worker fills with a million
    process.send_signal(number)
    assert process.stderr.read().split() == ["Aborted!"]
    process.stderr.close()
    assert process.wait() == 1
    assert not list(tmp_path.iterdir())


def wait_until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError("what was waited for did not happen in a minute")
        time.sleep(0.01)


def processor_ticks(pid: int) -> int:
    """Return how long a process has run, in ticks of the system."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_without_control_groups_a_limit_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ROOT", tmp_path / "nothing")
    with (
        pytest.raises(limits.NoLimitError, match="no control group could be made"),
        limits.memory_group(1 << 30),
    ):
        pass
    legs = {"held": Leg("arrays", "gather", SMALL, limit_bytes=1 << 30)}
    measured = measure(legs, Pythons(tmp_path), 1, 0, lambda _: None)
    assert measured["held"].missing.startswith("no control group could be made")
    assert not measured["held"].has_failed


def test_a_limit_holds_a_process() -> None:
    code = "import sys; sys.stdin.readline(); b = bytearray(300 << 20); print(len(b))"
    try:
        with limits.memory_group(100 << 20) as group:
            process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
            group.hold(process.pid)
            process.communicate(b"\n")
    except limits.NoLimitError as error:
        pytest.skip(str(error))
    assert process.returncode == -signal.SIGKILL
    assert not group.place.exists()


# The table


@pytest.mark.parametrize(
    ("ours", "theirs", "goal", "expected"),
    [
        pytest.param(
            [1e3, 2e3, 9e3], [4e3], ("us", "<=", 0.7),
            ["2.00 us (1.50 to 5.50)", "theirs", "4.00 us", "0.50", "<= 0.7 x", "yes"],
            id="of medians",
        ),
        pytest.param(
            [4e3], [4e3], ("us", "<=", 0.7),
            ["4.00 us", "theirs", "4.00 us", "1.00", "<= 0.7 x", "no"], id="not reached",
        ),
        pytest.param(
            [1e3], [2e3], ("rows/s", ">=", 1.0),
            ["1,000,000 rows/s", "theirs", "500,000 rows/s", "2.00", ">= 1 x", "yes"], id="rates",
        ),
        pytest.param(
            [1e3], [], ("us", "<=", 0.7),
            ["1.00 us", "theirs", "not installed", "", "<= 0.7 x", ""], id="missing",
        ),
        pytest.param(
            [1e6, 2e6, 6e6], None, ("ms", "<=", 5.0),
            ["6.00 ms", "", "", "", "<= 5 ms", "no"], id="the largest, by itself",
        ),
    ],
)  # fmt: skip
def test_cells_of_a_row(
    ours: list[float], theirs: list[float] | None, goal: Any, expected: list[str]
) -> None:
    leg = Leg("diskreplay", "step", SMALL)
    measured = {
        "ours": Measured(leg, {"time": ours}),
        "theirs": Measured(leg, {"time": theirs or []}, missing="" if theirs else "not installed"),
    }
    compared = None if theirs is None else Figure("theirs", "time")
    row = Row("work", Figure("ours", "time", 1.0 if theirs is None else 0.5), compared, *goal)
    assert cells(row, measured) == ["work", *expected]


# What belongs together


def test_each_row_has_its_legs_and_each_leg_its_worker() -> None:
    for make in GROUPS.values():
        group = make(Size(), Path("place"))
        for row in group.rows:
            assert row.ours.leg in group.legs
            assert row.theirs is None or row.theirs.leg in group.legs
            assert group.legs[row.ours.leg].system == "diskreplay"
        # A store can be open once, and a directory belongs to one system.
        own = [leg for leg in group.legs.values() if leg.system == "diskreplay"]
        together = [leg for leg in own if not leg.is_fresh and leg.bench != "rebuild"]
        others = [leg for leg in group.legs.values() if leg.system != "diskreplay"]
        paths = [leg.task.path for leg in [*together, *others] if leg.task.path]
        assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("peer", PEERS)
def test_each_peer_is_pinned(peer: str) -> None:
    assert peer not in OWN
    lines = (TOOLS / f"bench/requirements-{peer}.txt").read_text().splitlines()
    assert sum("==" in line for line in lines) >= 1
    if peer in ("sb3", "tianshou", "torchrl"):
        assert any(line.startswith("torch==") for line in lines)
    assert (TOOLS / f"bench/workers/{peer}.py").exists()


def test_the_page_has_a_place_for_the_table_and_explains_each_group() -> None:
    page = (TOOLS.parent / "docs/performance.md").read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    for group in GROUPS:
        assert f"| `{group}` |" in page

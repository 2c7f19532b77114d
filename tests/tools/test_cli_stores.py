"""verify, compact, resize, clear, copy, merge, repair and bench, as a user calls them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import stores
from commands import COMMAND, refused, run
from common import columns, contents, numbers_of, run_python
from diskreplay_tools.cli import main
from inside import replica_of
from kills import around_changes
from others import Other

import diskreplay


def numbers(path: Path) -> list[int]:
    with diskreplay.open(path, access="read") as buffer:
        return [int(row.reward * 8) for row in buffer]


def flip(path: Path) -> None:
    """Damage one record of `stores.large`, of write id 15."""
    raw = bytearray((path / "data.mdb").read_bytes())
    at = raw.find(np.arange(22_500, 22_600).tobytes())
    raw[at] ^= 1
    (path / "data.mdb").write_bytes(raw)


# verify


@pytest.mark.parametrize("deep", [(), ("--deep",)])
def test_verify_tells_every_fault_of_every_store(tmp_path: Path, deep: tuple[str, ...]) -> None:
    sound, damaged = stores.prioritized(tmp_path / "a"), stores.large(tmp_path / "b")
    flip(damaged)
    no_store = tmp_path / "c"
    no_store.mkdir()
    faults = diskreplay.verify(damaged)
    assert "write id 15" in faults[0]
    assert run("verify", *deep, sound, sound).stdout == f"{sound}: sound\n" * 2
    done = run("verify", *deep, sound, damaged, no_store, sound, status=1)
    assert done.stdout.splitlines() == [
        f"{sound}: sound", f"{damaged}: 1 fault", f"  {faults[0]}", f"{sound}: sound",
    ]  # fmt: skip
    assert done.stderr.startswith(f"Error: {no_store} holds no store")
    run("verify", *deep, sound, no_store, status=1)
    lines = run("verify", *deep, "--json", sound, damaged, status=1).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"path": str(path), "deep": bool(deep), "faults": found}
        for path, found in ((sound, []), (damaged, faults))
    ]
    assert "Missing argument 'PATH...'" in refused("verify", status=2)
    absent = tmp_path / "absent"
    done = run("verify", *deep, absent, sound, tmp_path / "other", damaged, status=2)
    assert done.stdout.splitlines() == [
        f"{sound}: sound", f"{damaged}: 1 fault", f"  {faults[0]}",
    ]  # fmt: skip
    for path in (absent, tmp_path / "other"):
        assert f"Directory '{path}' does not exist" in done.stderr
    assert f"Directory '{absent}' does not exist" in refused("verify", *deep, absent, status=2)


def test_deep_finds_values_that_no_field_may_hold(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with diskreplay.ReplayBuffer(10, path=path) as buffer:
        buffer.extend(**columns(0, 5))
        replica_of(buffer).rows.window._columns[2][3] = np.nan  # past the checks of a push
        replica_of(buffer).rows.window._columns[4][4] = 7
    assert run("verify", path).stdout == f"{path}: sound\n"
    lines = run("verify", "--deep", path, status=1).stdout.splitlines()
    assert lines == [
        f"{path}: 2 faults",
        "  the reward of write id 3 is not finite",
        "  done of write id 4 is not 0 or 1",
    ]


# compact, resize, clear


def test_compact_and_resize_and_clear(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    kept = numbers(path)
    before = (path / "data.mdb").stat().st_size
    said = run("compact", path).stdout
    lines = [f"{path}: 300 transitions", "data file: .* kB before, .* kB now", ""]
    assert re.fullmatch("\n".join(lines), said)
    assert (path / "data.mdb").stat().st_size <= before
    assert numbers(path) == kept
    assert "Drop the oldest 180 transitions" in run(
        "resize", path, "--capacity", 120, input="n\n", status=1
    ).output  # fmt: skip
    assert numbers(path) == kept
    assert "capacity 120; 120 transitions, 180 dropped" in run(
        "resize", path, "--capacity", 120, "--yes"
    ).stdout  # fmt: skip
    assert numbers(path) == kept[-120:]
    assert "Remove all 120 transitions" in run("clear", path, input="n\n", status=1).output
    assert numbers(path) == kept[-120:]
    run("resize", path, "--capacity", 120, "--keep-rows", 30)
    with diskreplay.open(path) as buffer:
        assert buffer.stats()["keep_rows"] == 30
    run("resize", path, "--capacity", 120)
    with diskreplay.open(path) as buffer:
        assert buffer.stats()["keep_rows"] == 30
    assert "0 is not in the range" in refused("resize", path, "--capacity", 0, status=2)
    assert run("clear", path, "--yes").stdout == f"{path}: 120 transitions removed\n"
    assert numbers(path) == []


def test_who_has_the_store_is_named(tmp_path: Path, other: Other) -> None:
    path = stores.prioritized(tmp_path / "b")
    kept = numbers(path)
    other.open(1100)
    for arguments in (["compact", path], ["resize", path, "--capacity", 5, "--yes"]):
        assert f"held by pid {other.process.pid} on" in refused(*arguments)
    assert f"held by pid {other.process.pid} on" in refused("clear", path, "--yes")
    another = stores.uniform(tmp_path / "another")
    assert f"held by pid {other.process.pid} on" in refused("copy", another, path, "--force")
    assert "sound" in run("verify", path).stdout
    assert "350 transitions" in run("copy", path, tmp_path / "c").stdout
    other.close()
    assert numbers(path) == kept == numbers(tmp_path / "c")


def test_a_damaged_store_is_not_compacted(tmp_path: Path) -> None:
    path = stores.large(tmp_path / "s")
    flip(path)
    before = contents(path)
    assert "write id 15" in refused("compact", path)
    assert contents(path) == before


# copy, merge, repair


def test_copy_and_merge(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    kept = numbers(path)
    out = tmp_path / "deep" / "out"
    assert run("copy", path, out).stdout == f"{out}: 300 transitions, write ids [160, 460)\n"
    said = run("merge", path, out, "-o", tmp_path / "both", "--order", "interleaved").stdout
    assert said == f"{tmp_path / 'both'}: 600 transitions of 2 stores\n"
    assert numbers(tmp_path / "both") == np.repeat(kept, 2).tolist()
    run("merge", path, "-o", tmp_path / "few", "--capacity", 10)
    assert numbers(tmp_path / "few") == kept[-10:]
    assert "given twice" in refused("merge", path, path, "-o", tmp_path / "x", status=2)
    prioritized = stores.prioritized(tmp_path / "p")
    assert "one kind" in refused("merge", path, prioritized, "-o", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_kill_at_any_step_of_an_overwriting_leaves_one_store(tmp_path: Path, long: bool) -> None:
    (place := tmp_path / "stores").mkdir()
    a, out = stores.uniform(tmp_path / "a"), stores.empty(place / "out")

    def copy() -> None:
        with contextlib.suppress(SystemExit):
            main(["copy", str(a), str(out), "--force"], "diskreplay")

    def look(_: bool) -> tuple[int, ...]:
        assert diskreplay.verify(out) == []
        return tuple(numbers(out))

    whole = set(around_changes(copy, place, look, 1 if long else 4))
    assert whole == {(), tuple(numbers(a))}


def test_overwriting_from_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = stores.uniform(tmp_path / "a"), stores.empty(tmp_path / "b")
    monkeypatch.chdir(b)
    run("copy", "../a", "../b", "--force")
    monkeypatch.chdir(tmp_path)
    assert numbers(b) == numbers(a)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_repair_says_what_is_lost(tmp_path: Path) -> None:
    path = stores.large(tmp_path / "s")
    done = run("repair", path, tmp_path / "sound")
    assert "copied all transitions of a sound store: 20" in done.stdout
    flip(path)
    done = run("repair", path, tmp_path / "out", status=1)
    assert "transitions copied: 19; lost: 1 (write ids 15)" in done.stdout
    assert "write id 15" in done.stderr
    assert numbers(tmp_path / "out") == [n for n in range(10, 30) if n != 15]


# Terminals, pipes, interrupts


def in_terminal(*arguments: object) -> str:
    """What a command writes to a terminal."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=child, stderr=child, stdin=child
    )
    os.close(child)
    said = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # the terminal is gone with the last who wrote to it
            break
        if not part:
            break
        said += part
    os.close(parent)
    assert process.wait() == 0
    return said.decode()


@pytest.mark.parametrize("name", ["compact", "verify"])
def test_a_bar_on_a_terminal_and_none_in_a_pipe(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with diskreplay.ReplayBuffer(60_000, path=path) as buffer:
        buffer.extend(**columns(0, 60_000))
    said = in_terminal(name, path)
    assert re.search(rf"{name} .*\d+%", said)
    done = subprocess.run([*COMMAND, name, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: ")
    assert "%" not in done.stdout


@pytest.mark.parametrize(
    ("command", "patched"),
    [
        (["merge", "-o"], ("diskreplay.maintenance.building", "StoreBuilder.finish")),
        (["export", "--format", "npz"], ("diskreplay.buffer", "Scan.__iter__")),
    ],
)
def test_ctrl_c_leaves_nothing_half_done(
    tmp_path: Path, command: list[str], patched: tuple[str, str]
) -> None:
    a, (module, method) = stores.uniform(tmp_path / "a"), patched
    owner, name = method.split(".")
    code = f"""
        import os, signal, sys
        from {module} import {owner}
        from diskreplay_tools.cli import main
        whole = {owner}.{name}
        def interrupted(*arguments):
            found = whole(*arguments)
            os.kill(os.getpid(), signal.SIGINT)
            return found
        {owner}.{name} = interrupted
        main(sys.argv[1:])
    """
    name, *options = command
    done = run_python(code, name, a, *options, tmp_path / "out", check=False)
    assert (done.returncode, done.stderr.strip()) == (1, "Aborted!")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_reader_of_the_output_that_leaves(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    process = subprocess.Popen(
        [*COMMAND, "verify", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate()
    assert b"Traceback" not in said
    assert process.returncode in (0, 1, -signal.SIGPIPE)


# bench


def test_bench(tmp_path: Path) -> None:
    given = ["bench", tmp_path, "--capacity", 3000, "--batch-size", 8]
    said = run(*given, "--estimate", "--field", "state=uint8:8x8").stdout
    fields = {"state": ("u1", (8, 8)), "next_state": ("u1", (8, 8)), "action": "i8"}
    schema = diskreplay.Schema({**fields, "reward": "f4", "done": "f4"})
    assert said == f"{diskreplay.estimate(schema, 3000)}\n"
    done = json.loads(run(*given, "--seconds", 0.1, "--json").stdout)
    for name in ("pushes", "extended_rows", "steps"):
        assert done[f"{name}_per_second"] > 0
    assert done["transitions"] == 3000
    text = run(*given, "--seconds", 0.1, "--uniform").stdout
    assert [line.split()[0] for line in text.splitlines()] == [
        "3,000", "disk", "memory", "push", "extend", "step", "reopen"
    ]  # fmt: skip
    assert "priorities" not in text
    path = stores.prioritized(tmp_path / "s")
    found = json.loads(run("bench", "--like", path, "--estimate", "--json").stdout)
    assert (found["capacity"], found["payload_bytes"]) == (1100, 40)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]
    assert "leave out --field" in refused(
        "bench", "--like", path, "--field", "state=f4:2", status=2
    )  # fmt: skip
    assert "found nan" in refused("bench", "--seconds", "nan", status=2)
    assert "cannot name a field" in refused(
        "bench", "--field", "self=f4", "--estimate", status=2
    )  # fmt: skip
    assert "expected NAME=DTYPE:SHAPE" in refused("bench", "--field", "state", status=2)
    assert "is empty" in refused("bench", "--like", stores.empty(tmp_path / "e"))
    assert "Error" in refused("bench", "--field", "state=text:3", "--estimate", status=2)


def test_numbers_are_whole_after_all_of_it(tmp_path: Path) -> None:
    """One store through every command that makes another."""
    path = stores.prioritized(tmp_path / "a")
    with diskreplay.open(path, access="read") as buffer:
        ids = np.arange(buffer.count - 350, buffer.count)
        expected = numbers_of(buffer.get(ids)).tolist(), buffer.priorities(ids).tolist()
    run("compact", path)
    run("copy", path, tmp_path / "b")
    run("repair", tmp_path / "b", tmp_path / "c")
    run("resize", tmp_path / "c", "--capacity", 400)
    run("merge", tmp_path / "c", "-o", tmp_path / "d")
    with diskreplay.open(tmp_path / "d") as buffer:
        ids = np.arange(350)
        assert (numbers_of(buffer.get(ids)).tolist(), buffer.priorities(ids).tolist()) == expected
        buffer.check()

"""The fault injectors: short runs, as a user starts them, and that each sees a broken library."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from injectors import run

KINDS = """
import os, signal, time, diskreplay
kinds = diskreplay.ReplayBuffer, diskreplay.PrioritizedReplayBuffer
"""
FLUSHES_NOTHING = f"{KINDS}for kind in kinds: kind.flush = lambda self: None"
LOSES_A_ROW = f"""{KINDS}
def cut(column):
    if isinstance(column, dict):
        return dict(zip(column, map(cut, column.values())))
    return column[:-1]
for kind in kinds:
    def extend(self, *columns, priorities=None, real=kind.extend):
        return real(self, *map(cut, columns))
    kind.extend = extend
"""
IGNORES_PRIORITIES = f"{KINDS}kinds[1].update_priorities = lambda self, ids, given: len(ids)"
MIXES_ROWS = f"""{KINDS}
for kind in kinds:
    def get(self, indices, real=kind.get):
        batch = real(self, indices)
        batch.rewards[-1] = batch.rewards[0] + 1
        return batch
    kind.get = get
"""
STAYS_WHERE_IT_IS = f"{KINDS}for kind in kinds: kind.rewind = lambda self, name: 0"
DIES_IN_CHECK = (
    f"{KINDS}for kind in kinds: kind.check = lambda self: os.kill(os.getpid(), signal.SIGSEGV)"
)
SYNCS_NOTHING = """
import lmdb
def opened(*given, real=lmdb.open, **flags):
    return real(*given, **{**flags, "sync": flags.get("metasync", True)})
lmdb.open = opened
"""
SWALLOWS_ERRORS = f"""{KINDS}
for kind in kinds:
    def flush(self, real=kind.flush):
        try:
            real(self)
        except diskreplay.StorageError:
            pass
    kind.flush = flush
"""
FINDS_NOTHING = "import diskreplay; diskreplay.verify = lambda path: []"
DIES_IN_VERIFY = "import diskreplay, os; diskreplay.verify = lambda _: os.kill(os.getpid(), 11)"
CHECKS_NO_CHECKSUM = """
import xxhash
class Seven:
    __init__ = update = lambda self, *_: None
    digest = lambda self: (7).to_bytes(8, "big")
xxhash.xxh3_64, xxhash.xxh3_64_intdigest = Seven, lambda *_: 7
"""

REPLACES_UNSEEN = "from diskreplay.store import Store; Store.check_place = lambda self: None"
# What `refresh` does, which all processes of a company call.
REFRESHING = (
    KINDS
    + """
def refresh(self):
    {}
for kind in kinds: kind.refresh = refresh
"""
)
COMPANY = """
import os, sys
from pathlib import Path
import numpy as np
from crash import company, company_group
from crash.file_faults import Fault
company_group.PATIENCE = 5
for number in range(30):  # on a machine that is busy not every round gets as far as the fault
    place = Path(os.environ["TMPDIR"]) / str(number)
    found = company.play(Fault("{}", "{}"), place, np.random.default_rng(number), span=0.2)
    if found.failures:
        break
print(*found.failures, sep="\\n")
sys.exit(any(found.counts[column] for column in company.BAD))
"""

KILL = "-m crash.kill --rounds 5 --durability process --access exclusive"
MORE_KILLS = KILL.replace("--rounds 5", "--rounds 15")
SHARE = "-m crash.share --minutes 0.03 --readers 1"
FLIP = "-m crash.flip --rounds 12"
LOST, UNDONE = r"[1-9]\d* transitions are lost", r"[1-9]\d* priorities are undone"
# What is run (a command, or a file of a company's store and what is done to it), what is broken in
# the library, and what then has to be reported.
BROKEN: dict[str, tuple[str | tuple[str, str], str, str]] = {
    "kill: flush does nothing": (KILL, FLUSHES_NOTHING, LOST),
    "kill: the last row is lost": (
        KILL, LOSES_A_ROW, f"{LOST}|write ids .* for the transitions of"
    ),
    "kill: updates are ignored": (KILL, IGNORES_PRIORITIES, UNDONE),
    "kill: get mixes transitions": (KILL, MIXES_ROWS, "transitions are not whole"),
    "kill: a rewind does nothing": (
        MORE_KILLS, STAYS_WHERE_IT_IS,
        "write ids .* for the transitions of|are not whole|are out of order, or twice",
    ),
    "kill: the reader dies": (KILL, DIES_IN_CHECK, "died of SIGSEGV"),
    "share: flush does nothing": (SHARE, FLUSHES_NOTHING, LOST),
    "power: nothing is synced": (
        "-m crash.power --rounds 15", SYNCS_NOTHING,
        r"^full +5 +5 +0 [^$]*^system +5 +\d +[1-5] ",
    ),
    "disk: an error is swallowed": (
        "-m crash.disk --points 1", SWALLOWS_ERRORS, r"^file-size limit +1 +\d +1 "
    ),
    "flip: verify finds nothing": (FLIP, FINDS_NOTHING, "^missed, "),
    "flip: verify dies": (FLIP, DIES_IN_VERIFY, "^verify died, "),
    "flip: no checksum is checked": (FLIP, CHECKS_NO_CHECKSUM, "^changed values, "),
    "company: files that were replaced are not looked at": (
        ("data.mdb", "older"), REPLACES_UNSEEN,
        r"process \d+ (committed to|read from) a data\.mdb that was not at its path",
    ),
    "company: flush does nothing": (("nothing", "disturbed"), FLUSHES_NOTHING, f"{LOST}|{UNDONE}"),
    "company: a process dies": (
        ("data.known", "removed"), REFRESHING.format("os.kill(os.getpid(), 11)"),
        r"process \d+ \(\w+\) ended by 11",
    ),
    "company: an error is not ours": (
        ("data.known", "removed"), REFRESHING.format("{}['size']"), "KeyError: 'size'"
    ),
    "company: an error does not name the store": (
        ("openers", "removed"), REFRESHING.format("raise diskreplay.StorageError('no')"),
        "an error does not name the store: StorageError: no",
    ),
    "company: a process hangs": (
        ("openers", "removed"), REFRESHING.format("while True: time.sleep(1)"),
        r"process \d+ did not end within \d",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(BROKEN))
def test_a_broken_library_is_seen(what: str, tmp_path: Path) -> None:
    command, broken, expected = BROKEN[what]
    arguments = command.split() if isinstance(command, str) else ["-c", COMPANY.format(*command)]
    result = run(tmp_path, *arguments, broken=broken)
    assert result.status == 1, result.said
    assert re.search(expected, result.said, re.MULTILINE), result.said
    kept = re.findall(r"^(\S+) is kept", result.stderr, re.MULTILINE)
    assert bool(kept) == (command in (KILL, MORE_KILLS, SHARE))
    assert all((Path(path) / "data.mdb").exists() for path in kept)


@pytest.mark.parametrize(
    ("name", "option", "short", "full", "line"),
    [
        pytest.param(
            "kill", "--rounds", 12, 1000,
            r"([\d,]+) rounds in \d+ s: of ([\d,]+) acknowledged transitions 0 lost, "
            r"of ([\d,]+) priorities 0 undone, 0 wrong reads, 0 failed stores",
            id="kill",
        ),
        pytest.param(
            "company", "--seconds", 0.1, 600,
            r"([\d,]+) rounds in \d+ s: ([\d,]+) processes, of ([\d,]+) acknowledged transitions "
            r"0 lost, 0 unnoticed, 0 ended by a signal, 0 other errors, 0 hung, 0 wrong",
            id="company",
        ),
    ],
)  # fmt: skip
def test_processes_lose_nothing(
    name: str, option: str, short: float, full: float, line: str, long: bool, tmp_path: Path
) -> None:
    result = run(tmp_path, "-m", f"crash.{name}", option, full if long else short)
    assert result.status == 0, result.said
    found = re.fullmatch(line, result.last_line)
    assert found, result.stdout
    assert all(int(number.replace(",", "")) > 0 for number in found.groups())
    assert not result.kept


def test_the_kinds_of_kills_can_be_chosen(tmp_path: Path) -> None:
    result = run(tmp_path, *KILL.split())
    assert result.status == 0, result.said
    rows = [line.split()[:2] for line in result.stdout.splitlines()[2:-1]]
    assert rows == [["exclusive,", "process"]]


def test_sharing_loses_nothing(tmp_path: Path, long: bool) -> None:
    result = run(tmp_path, "-m", "crash.share", "--minutes", 5 if long else 0.06, "--seed", 1)
    assert result.status == 0, result.said
    assert result.last_line == "0 failures"
    rows = dict(re.findall(r"^(.+?)((?:  +\S+){4})$", result.stdout, re.MULTILINE))
    for fact in ("lost", "undone", "wrong reads", "reader slots of the dead"):
        assert rows[fact].split() == ["0", "0", "0", "0"]
    for fact in ("killed", "batches that readers checked", "acknowledged transitions found"):
        assert all(int(value.replace(",", "")) > 0 for value in rows[fact].split()), result.stdout
    assert not result.kept


def counted(place: Path, *arguments: object) -> Any:
    result = run(place, "-m", *arguments, "--json")
    assert result.status == 0, result.said
    assert not result.kept
    return json.loads(result.stdout)


def test_power_loss_costs_what_the_durability_word_says(tmp_path: Path) -> None:
    counts = counted(tmp_path, "crash.power", "--rounds", 30)
    for word in ("full", "system"):
        assert counts[word]["rounds"] == counts[word]["opened sound"] == 10
        assert counts[word]["damaged"] == counts[word]["lost more"] == 0
    assert counts["full"]["lost 0"] == 10
    assert counts["process"]["damaged"] > 3


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    found = counted(tmp_path, "crash.disk", "--points", 3)  # meets each mode and a kill
    assert found["faults"] == []
    assert list(found["rows"])[:3] == [
        f"file-size limit{doing}" for doing in ("", ", creating", ", opening")
    ]
    for kind, row in found["rows"].items():
        assert row["points"] == row["errors clean"] == row["went on"] == 3, kind
        assert row["committed lost"] == row["held lost"] == 0
        assert row["killed"] == (kind in ("file-size limit", "small disk"))


def test_damage_is_found_and_nothing_changed_is_returned(tmp_path: Path) -> None:
    counts = counted(tmp_path, "crash.flip", "--rounds", 40, "--seed", 1)
    total = {name: sum(row[name] for row in counts.values()) for name in counts["page zeroed"]}
    assert total["rounds"] == total["found"] + total["harmless"] == 40
    assert total["found"] >= 25
    for damage in ("bit of a key or value", "page zeroed", "file of another store"):
        assert counts[damage]["found"] == counts[damage]["rounds"] > 0
    assert counts["bit of slack"]["harmless"] == counts["bit of slack"]["rounds"] > 0

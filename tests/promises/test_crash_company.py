"""The injector that takes files away: short rounds, and what they can see."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from test_crash_kill import last_line, run

PLAY = """
for number in range(30):  # on a machine that is busy not every round gets as far as the fault
    place = Path(os.environ["TMPDIR"]) / str(number)
    tally, told, errors = company.play(plan, place, np.random.default_rng(number), span=0.2)
    if tally.is_bad:
        break
print(*told, sep="\\n")
print(len(told), tally.is_bad)
"""
BEFORE = """\
import os, signal, time
from pathlib import Path
import numpy as np
import diskreplay
from crash import company, crew
from crash.disturbing import Plan
from diskreplay.store.store import Store
kinds = diskreplay.ReplayBuffer, diskreplay.PrioritizedReplayBuffer
"""
# What is broken in the library, what is done to a file, and what then has to be reported.
SABOTAGE = {
    "files that were replaced are not looked at": (
        "Store.check_place = lambda self: None",
        "'data.mdb', 'older'",
        r"process \d+ (committed to|read from) a data\.mdb that was not at its path",
    ),
    "acknowledged before it is committed": (
        "for kind in kinds: kind.flush = lambda self: None",
        "'nothing', 'disturbed'",
        r"[1-9]\d* transitions are lost",
    ),
    "a process dies": (
        "for kind in kinds: kind.refresh = lambda self: os.kill(os.getpid(), signal.SIGSEGV)",
        "'data.known', 'removed'",
        r"process \d+ \(\w+\) ended by 11",
    ),
    "an error is not ours": (
        "for kind in kinds: kind.refresh = lambda self: {}['size']",
        "'data.known', 'removed'",
        "KeyError: 'size'",
    ),
    "an error does not name the store": (
        """
        def refresh(self):
            raise diskreplay.StorageError("no")
        for kind in kinds: kind.refresh = refresh
        """,
        "'openers', 'removed'",
        "an error does not name the store: StorageError: no",
    ),
    "a process hangs": (
        """
        def refresh(self):
            while True:
                time.sleep(1)
        for kind in kinds: kind.refresh = refresh
        crew.PATIENCE = 0.5
        """,
        "'openers', 'removed'",
        r"process \d+ did not end within 0.5 s",
    ),
}


def test_a_company_loses_nothing(tmp_path: Path, long: bool) -> None:
    seconds = "600" if long else "0.1"
    result = run(tmp_path, "-m", "crash.company", "--seconds", seconds, "--seed", "0")
    assert result.returncode == 0, result.stdout + result.stderr
    found = re.fullmatch(
        r"([\d,]+) rounds in \d+ s: ([\d,]+) processes, of ([\d,]+) acknowledged transitions "
        r"0 lost, 0 unnoticed, 0 ended by a signal, 0 other errors, 0 hung, 0 wrong",
        last_line(result),
    )
    assert found, result.stdout
    assert all(int(number.replace(",", "")) > 0 for number in found.groups())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", list(SABOTAGE))
def test_a_company_with_a_broken_library_is_seen(what: str, tmp_path: Path) -> None:
    broken, plan, expected = SABOTAGE[what]
    code = f"{BEFORE}{textwrap.dedent(broken)}\nplan = Plan({plan})\n{PLAY}"
    result = run(tmp_path, "-c", code)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(expected, result.stdout), result.stdout + result.stderr
    assert last_line(result).split()[1] == "True"

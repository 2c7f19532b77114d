"""The picture of the rooms in CONTRIBUTING.md, and the counts that tools/house.py prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def printed(*options: str) -> str:
    command = [sys.executable, str(ROOT / "tools" / "house.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_picture_in_contributing_is_the_one_of_the_code() -> None:
    picture = printed()
    assert re.search(r"^floor \d+ +store$", picture, re.M)
    assert picture in (ROOT / "CONTRIBUTING.md").read_text(), "run tools/house.py --write"


def test_an_arrow_leads_to_a_lower_floor() -> None:
    room = r"^floor (\d+) +(.*)\n(?:(?! +-->) +.*\n)+(?: +--> (.*)\n)?"
    rooms = re.findall(room, printed(), re.M)
    floor = {room: int(number) for number, room, _ in rooms}
    arrows = [(room, below) for _, room, names in rooms for below in names.split(", ") if below]
    assert len(arrows) > 10
    assert not [(room, below) for room, below in arrows if floor[below] >= floor[room]]


@pytest.mark.parametrize(
    ("option", "least"),
    [("--arrows", {"all": 40, "store": 10}), ("--calls", {"push": 3, "open": 9, "repair": 9})],
)
def test_the_counts_are_of_the_code(option: str, least: dict[str, int]) -> None:
    rows = [line.split("|") for line in printed(option).splitlines()[1:]]
    counts = {name.strip(): [int(cell) for cell in cells] for name, *cells in rows}
    for name, files in least.items():
        assert counts[name][0] >= files
        assert all(number > 0 for number in counts[name])

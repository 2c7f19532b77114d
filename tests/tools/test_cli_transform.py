"""transform, as a user calls it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import stores
from commands import refused, run
from common import contents

import diskreplay


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("relabel_rows.py").write_text(
        "def double(columns):\n"
        "    return {'reward': columns['reward'] * 2}\n"
        "def wrong(columns):\n"
        "    return {'reward': columns['price']}\n"
        "class Nested:\n"
        "    double = staticmethod(double)\n"
        "number = 3\n"
    )
    Path("broken_rows.py").write_text("1 / 0\n")
    return tmp_path


def test_a_function_of_the_working_directory(place: Path) -> None:
    stores.prioritized(Path("a"))
    said = run("transform", "a", "b", "relabel_rows:double").stdout
    assert said == "b: 350 transitions of a, changed by relabel_rows:double\n"
    assert refused("transform", "a", "b", "relabel_rows:double").endswith(
        "b exists: give another name, or --force to overwrite it\n"
    )
    run("transform", "b", "c", "relabel_rows:Nested.double")
    run("transform", "c", "b", "relabel_rows:double", "--force")
    with diskreplay.open("b") as buffer:
        rewards = buffer.get(range(buffer.first, buffer.count)).rewards
    assert rewards.tolist() == (np.arange(1000, 1350) / 8 * 8).tolist()
    assert diskreplay.verify("b") == []


@pytest.mark.parametrize(
    ("function", "says", "status"),
    [
        ("relabel_rows", "expected MODULE:FUNCTION", 2),
        ("relabel_rows:", "expected MODULE:FUNCTION", 2),
        ("relabel_rows:triple", "relabel_rows has no function 'triple'", 1),
        ("relabel_rows:number", "relabel_rows has no function 'number'", 1),
        ("no_such_rows:f", "cannot import no_such_rows: there is no no_such_rows.py in ", 1),
        ("broken_rows:f", "cannot import broken_rows: ZeroDivisionError: division by zero", 1),
        ("relabel_rows:wrong", "relabel_rows:wrong failed: KeyError: 'price' (", 1),
        ("builtins:len", "expects a dictionary", 1),
    ],
)
def test_what_goes_wrong_is_told_and_leaves_nothing(
    function: str, says: str, status: int, place: Path
) -> None:
    stores.uniform(Path("a"))
    before = contents(place)
    said = refused("transform", "a", "b", function, status=status)
    assert says in said
    assert ("rows.py, line " in said) == ("Zero" in says or "KeyError" in says)
    assert "Traceback" not in said
    found = {name: content for name, content in contents(place).items() if ".pyc" not in name}
    assert found == before

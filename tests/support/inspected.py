"""Runs of `diskreplay inspect`, and what they print."""

from __future__ import annotations

import json
import sys
from typing import Any

from click.testing import Result
from diskreplay_tools.cli import main
from runner import runner

COMMAND = [sys.executable, "-W", "error", "-m", "diskreplay_tools", "inspect"]
WIDTHS = (40, 80, 120)


def run(*arguments: object, columns: int = 80, charset: str = "utf-8") -> Result:
    return runner(charset=charset).invoke(
        main, [str(argument) for argument in arguments], env={"COLUMNS": str(columns)}
    )


def shown(*arguments: object, columns: int = 80) -> str:
    result = run("inspect", *arguments, columns=columns)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def facts(*arguments: object) -> Any:
    return strict_json(shown(*arguments, "--json"))


def error(*arguments: object, status: int = 1) -> str:
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr

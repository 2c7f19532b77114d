"""Commands run in this process, with their output and their complaints apart."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from click.testing import CliRunner

# Newer ones keep the two apart always, and do not know the word.
_VERSION = importlib.metadata.version("click").split(".")
_APART = {} if tuple(map(int, _VERSION[:2])) >= (8, 2) else {"mix_stderr": False}


def runner(**settings: Any) -> CliRunner:
    return CliRunner(**_APART, **settings)

"""Modules that not everybody has installed."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import click


def needed(module: str, extra: str, what: str) -> ModuleType:
    """Return a module that not everybody has installed, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        name = module.split(".")[0]
        raise click.ClickException(
            f"{what} needs {name}, which is not installed: pip install 'diskreplay[{extra}]'"
        ) from None


def pyarrow() -> Any:
    """Return pyarrow, or say how to install it."""
    return needed("pyarrow", "parquet", "parquet")

"""An adapter whose framework is not installed says how to install it."""

from __future__ import annotations

import importlib
import sys

import pytest


def test_without_torch_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("diskreplay.adapters.torch")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match=r'not installed: pip install "diskreplay\[torch'):
        importlib.import_module("diskreplay.adapters.torch")

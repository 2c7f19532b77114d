"""An adapter whose framework is not installed says how to install it."""

from __future__ import annotations

import importlib
import sys

import pytest


def test_without_torch_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "diskreplay.adapters.torch", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r'not installed: pip install "diskreplay\[torch'):
        importlib.import_module("diskreplay.adapters.torch")

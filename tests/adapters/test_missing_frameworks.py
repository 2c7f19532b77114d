"""An adapter whose framework is not installed says how to install it."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("framework", "adapter", "extra"),
    [
        ("torch", "torch", "torch"),
        ("torch", "cleanrl", "torch"),
        ("stable_baselines3", "stable_baselines3", "sb3"),
        ("h5py", "hdf5", "hdf5"),
        ("pyarrow", "lerobot", "parquet"),
        ("minari", "minari", "minari"),
        ("ray", "ray_shards", "ray"),
    ],
)
def test_without_a_framework_the_error_says_how_to_install_it(
    framework: str, adapter: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"diskreplay.adapters.{adapter}"
    monkeypatch.setitem(sys.modules, framework, None)
    for loaded in [loaded for loaded in sys.modules if loaded.startswith(name)]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(
        ModuleNotFoundError, match=rf'not installed\)?: pip install "diskreplay\[{extra}'
    ):
        importlib.import_module(name)

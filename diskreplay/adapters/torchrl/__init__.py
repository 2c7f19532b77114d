"""A storage of TorchRL: its replay buffers, samplers, transforms and collectors over a store."""

from __future__ import annotations

import importlib

try:
    importlib.import_module("torchrl")
except ModuleNotFoundError as error:
    if error.name != "torchrl":
        raise
    raise ModuleNotFoundError(
        "diskreplay.adapters.torchrl needs torchrl, which is not installed: "
        'pip install "diskreplay[torchrl]"',
        name="torchrl",
    ) from None

from diskreplay.adapters.torchrl.storage import DiskReplayStorage

__all__ = ["DiskReplayStorage"]

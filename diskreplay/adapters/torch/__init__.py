"""Tensors and datasets of PyTorch: to_torch, TensorBatches, TransitionDataset, BatchDataset."""

from __future__ import annotations

import importlib

try:
    importlib.import_module("torch")
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "diskreplay.adapters.torch needs torch, which is not installed: "
        'pip install "diskreplay[torch]"',
        name="torch",
    ) from None

from diskreplay.adapters.torch.datasets import BatchDataset, TransitionDataset
from diskreplay.adapters.torch.tensor_batches import TensorBatches
from diskreplay.adapters.torch.tensors import to_torch

__all__ = ["BatchDataset", "TensorBatches", "TransitionDataset", "to_torch"]

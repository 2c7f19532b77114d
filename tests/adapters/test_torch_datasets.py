"""Datasets of PyTorch: what DataLoaders make of a store, in this process and in workers."""

from __future__ import annotations

import importlib
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, run_python
from drawn import N, filled

import diskreplay
from diskreplay import ArgumentError, LockedError, NotLiveError, PrioritizedReplayBuffer

torch = pytest.importorskip("torch")
adapter = importlib.import_module("diskreplay.adapters.torch")
FewBatches = importlib.import_module("few_batches").FewBatches
TransitionDataset, BatchDataset = adapter.TransitionDataset, adapter.BatchDataset
DataLoader = torch.utils.data.DataLoader

# How many workers, and how they start; Python warns of a fork beside the thread of a buffer.
WORKERS = [(0, None), (2, "fork")]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def loader_of(dataset: Any, workers: int, method: str | None, **arguments: Any) -> Any:
    return DataLoader(dataset, num_workers=workers, multiprocessing_context=method, **arguments)


def arrays_of(batch: Any) -> Any:
    return batch._make(tensor.numpy() for tensor in batch)


def first_batches(dataset: Any, n: int, workers: int = 0, method: str | None = None) -> list[Any]:
    """Return what the first batches of a loader hold, as lists."""
    loader = loader_of(dataset, workers, method, batch_size=None)
    found = [batch for _, batch in zip(range(n), loader, strict=False)]
    assert all(isinstance(batch.states, torch.Tensor) for batch in found)
    return [numbers_of(arrays_of(batch)).tolist() for batch in found]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    filled(PrioritizedReplayBuffer, tmp_path / "b").close()
    return tmp_path / "b"


@pytest.mark.parametrize(("workers", "method"), WORKERS)
def test_a_loader_returns_each_transition_once(
    workers: int, method: str | None, tmp_path: Path
) -> None:
    filled(diskreplay.ReplayBuffer, tmp_path / "b").close()
    dataset = TransitionDataset(tmp_path / "b")
    loader = loader_of(dataset, workers, method, batch_size=32, shuffle=True)
    for _ in range(2):
        batches = list(loader)
        assert all(isinstance(batch, diskreplay.Batch) for batch in batches)
        numbers = [number for batch in batches for number in numbers_of(arrays_of(batch))]
        assert numbers != sorted(numbers)
        assert sorted(numbers) == list(range(N))


def test_the_transitions_are_those_of_the_moment_it_is_made(tmp_path: Path) -> None:
    with filled(diskreplay.ReplayBuffer, tmp_path / "b") as buffer:
        dataset = TransitionDataset(buffer)
        buffer.extend(**columns(N, 3))  # evicts three, and comes into none
        with pytest.raises(NotLiveError, match="write id 2 is not live"):
            dataset[[3, 2]]
        assert numbers_of(dataset[[3, -1]]).tolist() == [3, N - 1]
        assert numbers_of(TransitionDataset(buffer)[[0, -1]]).tolist() == [3, N + 2]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_beside_the_open_buffer(method: str, store: Path) -> None:
    with diskreplay.open(store) as buffer:
        batches = list(loader_of(TransitionDataset(buffer), 2, method, batch_size=100))
        found = [number for batch in batches for number in numbers_of(arrays_of(batch))]
        assert found == list(range(N))
        few = FewBatches(BatchDataset(store, 8, seed=1), 2)
        drawn = first_batches(few, 5, 2, method)  # and the end, after four
        assert buffer.frame == 0
        with pytest.raises(LockedError, match="open in this process already"):
            next(iter(BatchDataset(store, 8)))
    assert drawn == first_batches(BatchDataset(store, 8, seed=1), 4, 2, "fork")


def test_batch_samplers_get_whole_batches(store: Path) -> None:
    dataset = TransitionDataset(store)
    order = torch.utils.data.SequentialSampler(dataset)
    sampler = torch.utils.data.BatchSampler(order, batch_size=7, drop_last=False)
    loader = DataLoader(dataset, batch_size=None, sampler=sampler, collate_fn=adapter.to_torch)
    batches = list(loader)
    assert [batch.indices.tolist() for batch in batches] == list(sampler)
    assert numbers_of(arrays_of(batches[3])).tolist() == list(range(21, 28))


def test_items_are_found_by_index(store: Path) -> None:
    dataset = TransitionDataset(store)
    assert len(dataset) == N
    assert dataset[5].rewards == dataset[torch.tensor(5)].rewards == np.float32(5 / 8)
    assert dataset[[]].states.shape == (0, 3)
    assert len(list(torch.utils.data.Subset(dataset, [3, 4]))) == 2
    assert numbers_of(dataset[np.array([-N, -1])]).tolist() == [0, N - 1]
    for outside in (N, [0, -N - 1]):
        with pytest.raises(IndexError, match="is not in the dataset: expected less than 300"):
            dataset[outside]
    for other in ("state", 1.5, [True]):
        with pytest.raises(ArgumentError, match="an index must be a whole number"):
            dataset[other]


def test_an_empty_store_is_an_empty_dataset(tmp_path: Path) -> None:
    diskreplay.ReplayBuffer(capacity=10, path=tmp_path / "b").close()
    dataset = TransitionDataset(tmp_path / "b")
    assert len(dataset) == 0
    with pytest.raises(NotLiveError, match="index 0 is not in the dataset"):
        dataset[0]


def test_nested_and_varying_fields_are_collated(tmp_path: Path) -> None:
    schema = {"text": str, "tokens": ("int32", (None,))}
    with diskreplay.ReplayBuffer(capacity=10, path=tmp_path / "b", schema=schema) as buffer:
        for i in range(4):
            state = {"camera": np.full((2, 2), i, np.uint8), "arm": ([float(i)], i)}
            buffer.push(state, 0, 1.0, state, False, text=f"t{i}", tokens=[i, i])
    loader = DataLoader(TransitionDataset(tmp_path / "b"), batch_size=4)
    batch = next(iter(loader))
    assert batch.states["camera"][:, 0, 0].tolist() == [0, 1, 2, 3]
    assert [part.shape for part in batch.states["arm"]] == [(4, 1), (4,)]
    assert list(batch.text) == ["t0", "t1", "t2", "t3"]
    assert batch.tokens.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]


@pytest.mark.parametrize("make", [TransitionDataset, lambda path: BatchDataset(path, 8)])
def test_a_dataset_pickles_without_data(make: Any, store: Path) -> None:
    dataset = make(store)
    next(iter(dataset))  # opens the store
    assert len(pickle.dumps(dataset)) < 1000


@pytest.mark.parametrize(("workers", "method"), WORKERS)
def test_streams_repeat_and_differ(workers: int, method: str | None, store: Path) -> None:
    dataset = BatchDataset(store, 8, seed=5)
    found = first_batches(dataset, 6, workers, method)
    assert first_batches(dataset, 6, workers, method) == found
    assert len({tuple(batch) for batch in found}) == 6
    for other in (BatchDataset(store, 8, seed=6), BatchDataset(store, 8, seed=5, rank=1)):
        batches = first_batches(other, 6, workers, method)
        assert not {tuple(batch) for batch in batches} & {tuple(batch) for batch in found}


@pytest.mark.parametrize(("workers", "method"), WORKERS)
def test_without_a_seed_streams_follow_the_generator_of_torch(
    workers: int, method: str | None, store: Path
) -> None:
    dataset = BatchDataset(store, 8)
    passes = []
    for _ in range(2):
        torch.manual_seed(3)
        passes.append([first_batches(dataset, 4, workers, method) for _ in range(2)])
    assert passes[0] == passes[1]
    assert passes[0][0] != passes[0][1]


def test_workers_that_stay_draw_other_batches_in_each_iteration(store: Path) -> None:
    torch.manual_seed(3)
    options = {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True}
    loader = DataLoader(FewBatches(BatchDataset(store, 8), 2), batch_size=None, **options)
    drawn = set()
    for _ in range(3):
        drawn |= {tuple(batch.indices.tolist()) for batch in loader}
    assert len(drawn) == 12


def test_batches_are_those_of_a_reader(store: Path) -> None:
    dataset = BatchDataset(
        store, 8, seed=5, n_step=2, gamma=0.5, sampler=diskreplay.samplers.Newest(20)
    )
    batch = next(iter(dataset))
    assert isinstance(batch, diskreplay.PrioritizedBatch)
    assert batch.indices.min() >= N - 20
    assert set(batch.discounts.tolist()) <= {0.5, 0.25}
    assert next(iter(BatchDataset(store, 8, seed=5, pad=True))).states.shape == (8, 3)


def test_the_rank_is_that_of_the_group(store: Path, tmp_path: Path) -> None:
    code = """
        import sys
        import torch
        from diskreplay.adapters.torch import BatchDataset

        group, store, rank = sys.argv[1:]
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{group}", rank=int(rank), world_size=2
        )
        print(next(iter(BatchDataset(store, 8, seed=1))).indices.tolist())
        torch.distributed.destroy_process_group()
    """
    with ThreadPoolExecutor(2) as threads:
        ranks = [threads.submit(run_python, code, tmp_path / "g", store, rank) for rank in (0, 1)]
        found = [json.loads(rank.result().stdout) for rank in ranks]
    assert found == [
        next(iter(BatchDataset(store, 8, seed=1, rank=rank))).indices.tolist() for rank in (0, 1)
    ]


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"rank": 0.5}, {"seed": "a"}])
def test_wrong_numbers_are_refused(wrong: dict[str, Any], store: Path) -> None:
    with pytest.raises(ArgumentError, match="must be a whole number of at least 0"):
        BatchDataset(store, 8, **wrong)

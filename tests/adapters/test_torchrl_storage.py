"""DiskReplayStorage: replay buffers of TorchRL over a store."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import run_python

import diskreplay
from diskreplay import ArgumentError, MismatchError, ReadOnlyError, SchemaError

torch = pytest.importorskip("torch")
pytest.importorskip("torchrl")
data = importlib.import_module("torchrl.data")
tensordict = importlib.import_module("tensordict")
adapter = importlib.import_module("diskreplay.adapters.torchrl")
DiskReplayStorage, TensorDict = adapter.DiskReplayStorage, tensordict.TensorDict

# TorchRL itself gives warnings of PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def steps(first: int, n: int, trajectory: int = 0) -> Any:
    """Return n steps of an episode of ten steps each, as a collector of TorchRL gives them."""
    numbers = torch.arange(first, first + n)
    terminated, truncated = (numbers % 20 == 9)[:, None], (numbers % 20 == 19)[:, None]
    flags = torch.zeros(n, 1, dtype=torch.bool)
    observation = numbers[:, None] + torch.tensor([0.0, 0.25, 0.5])
    pixels = (numbers[:, None, None] + torch.arange(4).view(2, 2)).to(torch.uint8)
    after = {
        "observation": observation + 1,
        "pixels": pixels + 1,
        "reward": numbers[:, None] / 8,
        "done": terminated | truncated,
        "terminated": terminated,
        "truncated": truncated,
    }
    return TensorDict(
        {
            "observation": observation,
            "pixels": pixels,
            "action": torch.nn.functional.one_hot(numbers % 3, 3),
            "done": flags,
            "terminated": flags.clone(),
            "truncated": flags.clone(),
            "sample_log_prob": numbers.double() / 3,
            "collector": {"traj_ids": numbers // 10 + trajectory},
            "next": after,
        },
        [n],
    )


@tensordict.tensorclass
class Pair:
    x: torch.Tensor
    y: torch.Tensor


def uniform(size: int) -> Any:
    return data.RandomSampler()


def prioritized(size: int) -> Any:
    try:
        importlib.import_module("torchrl._torchrl")
    except ImportError as error:
        pytest.skip(f"the compiled part of TorchRL is for another version of PyTorch: {error}")
    return data.PrioritizedSampler(size, 0.7, 0.5)


def replay(storage: Any, **arguments: Any) -> Any:
    return data.TensorDictReplayBuffer(storage=storage, batch_size=16, **arguments)


def assert_same(found: Any, wanted: Any) -> None:
    """Check that two tensordicts have the same keys, types and values."""
    keys = set(found.keys(True, True))
    assert keys == set(wanted.keys(True, True))
    for key in keys:
        assert found[key].dtype == wanted[key].dtype, key
        assert torch.equal(found[key], wanted[key]), key


@pytest.mark.parametrize("size", [30, 7])
def test_it_holds_what_a_storage_in_memory_holds(size: int, tmp_path: Path) -> None:
    storage, twin = DiskReplayStorage(size, tmp_path / "b"), data.LazyTensorStorage(size)
    ours, theirs = replay(storage), replay(twin)
    for first, n in ((0, 5), (5, 1), (6, 13), (19, 20)):
        found, wanted = ours.extend(steps(first, n)), theirs.extend(steps(first, n))
        assert torch.equal(found, wanted)
        assert len(ours) == len(theirs)
        assert_same(ours[:], theirs[:])
    assert ours.add(steps(39, 1)[0]) == theirs.add(steps(39, 1)[0])
    for index in (0, -1, [3, 3, 1], range(2, 5), slice(1, None, 2), torch.tensor([[0], [2]])):
        assert_same(ours[index], theirs[index])
    mask = torch.arange(size) % 2 == 0
    assert_same(storage.get(mask), twin.get(mask))
    assert torch.equal(ours["next", "reward"], theirs["next", "reward"])
    for outside in (size, [0, -size - 1]):
        with pytest.raises(IndexError, match=f"expected places below {size}"):
            storage.get(outside)
    assert storage.contains(size - 1)
    assert storage.contains(torch.tensor([0, size])).tolist() == [True, False]
    storage.buffer.check()


def test_the_store_can_be_read_without_torchrl(tmp_path: Path) -> None:
    storage = DiskReplayStorage(100, tmp_path / "b", frame_axis=0)
    replay(storage).extend(steps(0, 40))
    storage.close()
    with diskreplay.open(tmp_path / "b") as buffer:
        batch = buffer.get(range(40))
        assert batch.states["observation"][:, 0].tolist() == list(range(40))
        assert batch.next_states["pixels"][:, 0, 0].tolist() == list(range(1, 41))
        assert batch.rewards.tolist() == [i / 8 for i in range(40)]
        assert np.flatnonzero(batch.dones).tolist() == [9, 29]
        assert np.flatnonzero(batch.truncated).tolist() == [19, 39]
        assert batch.td["sample_log_prob"].dtype == np.float64
        assert [len(episode.rewards) for episode in buffer.episodes()] == [10] * 4
        assert buffer.schema is not None
        assert buffer.schema["state.pixels"].log
        assert buffer.stats()["cuts"] == 0


def test_a_store_of_diskreplay_can_be_read_with_torchrl(tmp_path: Path) -> None:
    with diskreplay.ReplayBuffer(capacity=10, path=tmp_path / "b") as buffer:
        for i in range(5):
            buffer.push([float(i)], i, 0.5, [i + 1.0], False, log_prob=-1.0)
    found = DiskReplayStorage(10, tmp_path / "b", access="read").get(range(5))
    assert found["observation"].flatten().tolist() == [0, 1, 2, 3, 4]
    assert found["next", "observation"].flatten().tolist() == [1, 2, 3, 4, 5]
    assert found["next", "reward"].tolist() == [[0.5]] * 5
    assert found["next", "done"].shape == (5, 1)
    assert found["log_prob"].tolist() == [-1.0] * 5


@pytest.mark.parametrize(
    "values",
    [
        {"a": torch.arange(6), ("b", "c"): torch.rand(6, 2, 3).half()},
        {"action": torch.rand(6), "reward": torch.rand(6), ("next", "reward"): torch.rand(6)},
        {"state": torch.rand(6, 2), "index": torch.arange(6), ("next", "done"): torch.ones(6, 1)},
        {("next", "terminated"): torch.ones(6, 1, dtype=torch.bool), "x": torch.arange(6)},
        {
            ("next", "done"): torch.zeros(6, 1, dtype=torch.bool),
            ("agents", "action"): torch.ones(6),
        },
        {("action", "move"): torch.ones(6, 2), ("next", "action"): torch.ones(6, 2)},
        {"obs": torch.rand(6, 2), ("next", "obs"): torch.rand(6, 3)},
        {"done": torch.ones(6, 1), ("next", "td", "x"): torch.ones(6, 1), "td": torch.ones(6)},
    ],
)
def test_any_keys_are_kept(values: dict[Any, Any], tmp_path: Path) -> None:
    given = TensorDict(values, [6])
    storage = DiskReplayStorage(6, tmp_path / "b")
    storage.set(range(6), given)
    assert_same(storage.get(range(6)), given)
    storage.close()
    with diskreplay.open(tmp_path / "b") as buffer:
        assert len(buffer.sample(4).rewards) == 4
    assert_same(DiskReplayStorage(6, tmp_path / "b").get(range(6)), given)


def test_batch_sizes_of_parts_and_tensorclasses_are_kept() -> None:
    agents = TensorDict({"x": torch.rand(4, 3, 2)}, [4, 3])
    storage = DiskReplayStorage(10)
    storage.set(range(4), TensorDict({"agents": agents}, [4]))
    assert storage.get([1, 2])["agents"].batch_size == (2, 3)
    storage = DiskReplayStorage(10)
    storage.set(range(2), TensorDict({"x": torch.rand(2, 5)}, [2, 5]))
    assert storage.get(slice(None)).batch_size == (2, 5)

    storage = DiskReplayStorage(10)
    storage.set(range(2), Pair(x=torch.ones(2), y=torch.zeros(2, 3), batch_size=[2]))
    assert type(storage.get([0])) is Pair
    assert storage.get(1).y.shape == (3,)


@pytest.mark.parametrize("sampler_of", [uniform, prioritized])
@pytest.mark.parametrize("size", [50, 15])
def test_a_run_goes_on_in_the_store(size: int, sampler_of: Any, tmp_path: Path) -> None:
    storage = DiskReplayStorage(size, tmp_path / "b")
    buffer = replay(storage)
    storage.resume(buffer)
    buffer.extend(steps(0, 20))
    storage.close()

    storage = DiskReplayStorage(size, tmp_path / "b")
    buffer = replay(storage, sampler=sampler_of(size))
    if size == 50:
        with pytest.raises(ArgumentError, match=r"is 20 \(found \[0\]\): .*storage\.resume"):
            buffer.extend(steps(20, 3))
    storage.resume(buffer)
    buffer.extend(steps(20, 3))
    found = buffer[:]["next", "reward"].flatten() * 8
    assert sorted(found.int().tolist()) == list(range(23))[-size:]
    assert buffer.sample()["index"].max() < len(buffer)


@pytest.mark.parametrize("sampler_of", [uniform, prioritized])
def test_a_checkpoint_is_a_pointer_to_a_moment(sampler_of: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "b"
    storage = DiskReplayStorage(20, path, keep_rows=10)
    buffer = replay(storage, sampler=sampler_of(20))
    buffer.extend(steps(0, 25))
    if sampler_of is prioritized:
        buffer.update_priority(torch.arange(20), torch.rand(20))
    buffer.dumps(tmp_path / "checkpoint")
    state = json.loads((tmp_path / "checkpoint" / "storage" / "diskreplay.json").read_text())
    assert state == {"path": str(path), "mark": "torchrl-25"}
    wanted = buffer[:]
    buffer.extend(steps(25, 8))
    storage.close()

    storage = DiskReplayStorage(20, path, keep_rows=10)
    buffer = replay(storage, sampler=sampler_of(20))
    buffer.loads(tmp_path / "checkpoint")
    assert_same(buffer[:], wanted)
    assert buffer.extend(steps(25, 2)).tolist() == [5, 6]
    twin = data.LazyTensorStorage(20)
    replay(twin).extend(steps(0, 25))
    twin.set(torch.tensor([5, 6]), steps(25, 2).set("index", torch.tensor([5, 6])))
    assert_same(buffer[:], twin[:])


def test_checkpoints_that_cannot_be_loaded_say_why(tmp_path: Path) -> None:
    storage = DiskReplayStorage(10, tmp_path / "b")
    buffer = replay(storage)
    buffer.extend(steps(0, 10))
    state = buffer.state_dict()
    buffer.extend(steps(10, 4))
    storage.flush()
    with pytest.raises(MismatchError, match="keep_rows"):
        buffer.load_state_dict(state)
    for n in range(9):
        buffer.extend(steps(14 + n, 1))
        storage.state_dict()
    assert len(storage.buffer.marks()) == 8
    with pytest.raises(MismatchError, match=r"has no mark 'torchrl-10': use DiskReplayStorage"):
        buffer.load_state_dict(state)


def test_it_can_be_emptied() -> None:
    storage = DiskReplayStorage(10)
    buffer = replay(storage)
    buffer.extend(steps(0, 13))
    buffer.empty()
    assert len(buffer) == 0
    assert buffer.extend(steps(20, 4)).tolist() == [0, 1, 2, 3]
    assert (buffer[:]["next", "reward"].flatten() * 8).tolist() == [20, 21, 22, 23]


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"sampler": data.SamplerWithoutReplacement()},
        lambda: {"sampler": data.RandomSampler()},
        lambda: {"sampler": prioritized(100)},
        lambda: {"sampler": data.SliceSampler(num_slices=4, end_key=("next", "done"))},
        lambda: {"sampler": data.SliceSampler(slice_len=4, cache_values=True)},
        lambda: {"transform": lambda batch: batch.set("twice", batch["observation"] * 2)},
        lambda: {"prefetch": 2},
    ],
)
def test_samplers_and_transforms_find_what_they_find_in_memory(make: Any) -> None:
    batches = []
    for storage in (DiskReplayStorage(100), data.LazyTensorStorage(100)):
        arguments = make()
        buffer = replay(storage, generator=torch.Generator().manual_seed(3), **arguments)
        buffer.extend(steps(0, 60))
        torch.manual_seed(4)
        if "prefetch" in arguments:
            batch = buffer.sample()
            assert_same(batch, storage.get(batch["index"]))
            continue
        batches.append([buffer.sample() for _ in range(3)])
        buffer.update_tensordict_priority(batches[-1][-1].set("td_error", torch.rand(16)))
    for found, wanted in zip(*batches, strict=True) if batches else ():
        assert_same(found, wanted)
    if batches and "transform" not in make():
        numbers = [batch["observation"][:, 0].tolist() for batch in batches[0]]
        assert len({*numbers[0]}) > 1


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    storage = DiskReplayStorage(10, tmp_path / "b")
    buffer = replay(storage)
    with pytest.raises(RuntimeError, match="non-initialized"):
        storage.get(0)
    buffer.extend(steps(0, 5))
    with pytest.raises(ArgumentError, match="transitions on disk are not changed"):
        buffer[2] = steps(0, 1)[0]
    with pytest.raises(SchemaError, match=r"missing: \[\('action',\)\]; new: \[\('other',\)\]"):
        buffer.extend(steps(5, 2).exclude("action").set("other", torch.zeros(2)))
    with pytest.raises(TypeError, match="takes tensordicts and tensorclasses"):
        storage.set(5, torch.zeros(3))
    with pytest.raises(ArgumentError, match="is no tensor"):
        DiskReplayStorage(10).set(range(2), TensorDict({"x": ["a", "b"]}, [2]))
    with pytest.raises(ArgumentError, match=r'needs access="exclusive" or "read"'):
        DiskReplayStorage(10, tmp_path / "c", access="shared")
    with pytest.raises(KeyError, match="have no key"):
        storage.get(("next", "other"))


def read(storage: Any, queue: Any) -> None:
    try:
        storage.set(5, steps(0, 1)[0].set("index", torch.tensor(5)))
    except ReadOnlyError:
        queue.put(storage.get([0, 4])["next", "reward"].flatten().tolist())


def test_other_processes_read_it(tmp_path: Path) -> None:
    storage = DiskReplayStorage(10, tmp_path / "b")
    replay(storage).extend(steps(0, 5))
    storage.flush()
    assert len(pickle.dumps(storage)) < 10_000
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=read, args=(storage, queue))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert not queue.empty()
    assert queue.get() == [0.0, 0.5]


def test_a_collector_of_torchrl_fills_it(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    collectors = importlib.import_module("torchrl.collectors")
    envs = importlib.import_module("torchrl.envs")
    storage = DiskReplayStorage(1000, tmp_path / "b")
    buffer = replay(storage)
    make = (
        collectors.Collector if hasattr(collectors, "Collector") else collectors.SyncDataCollector
    )
    collector = make(envs.GymEnv("CartPole-v1"), None, frames_per_batch=50, total_frames=200)
    for batch in collector:
        buffer.extend(batch)
    collector.shutdown()
    assert len(buffer) == 200
    wholes = list(storage.buffer.episodes())
    assert storage.buffer.stats()["cuts"] == 0
    assert all(len(whole.rewards) == whole.rewards.sum() for whole in wholes)
    assert sum(len(whole.rewards) for whole in wholes) > 100


def test_without_torchrl_the_error_says_how_to_install_it() -> None:
    code = """
        import sys
        sys.modules["torchrl"] = None
        import diskreplay.adapters.torchrl
    """
    result = run_python(code, check=False)
    assert 'not installed: pip install "diskreplay[torchrl]"' in result.stderr

"""A program of a user, in which mypy and pyright look for types that the package does not declare.

`.ci/run` checks and runs it outside of the checkout, with an installed wheel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import diskreplay
from diskreplay import (
    Batch,
    Experience,
    Field,
    Mixture,
    PrioritizedBatch,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    Schema,
    SequenceBatch,
    SumTree,
    samplers,
)
from diskreplay.protocols import Replay


def rows(buffer: ReplayBuffer | PrioritizedReplayBuffer, n: int) -> NDArray[np.int64]:
    """Push n transitions in two ways."""
    write_id: int = buffer.push([0.0, 0.5], 1, 1.0, [1.0, 0.5], False, truncated=True, env=0)
    assert write_id >= 0
    states = np.zeros((n - 1, 2), np.float32)
    return buffer.extend(states, [1] * (n - 1), [1.0] * (n - 1), states, [True] * (n - 1))


def uniform_rewards(replay: Replay[Batch]) -> float:
    """Return the mean of a batch of anything that is a replay."""
    return float(replay.sample(8).rewards.mean())


def uniform() -> None:
    """Use a uniform buffer."""
    schema = {"state": ("float32", (2,))}
    with ReplayBuffer(100, seed=1, path="runs/u", schema=schema, if_exists="replace") as buffer:
        assert rows(buffer, 50).dtype == np.int64
        batch: Batch = buffer.sample(8, n_step=3, gamma=0.9)
        states, _actions, rewards, _next_states, _dones, *_ = batch
        total: float = float(rewards.sum()) + float(states.sum())
        assert total >= 0
        assert uniform_rewards(buffer) == 1.0
        ids: NDArray[np.int64] = batch.indices
        found: Batch = buffer.get(ids)
        columns: dict[str, Any] = buffer.get(ids, fields=["reward"])
        assert found.rewards.shape == columns["reward"].shape
        draw = buffer.draw(4)
        assert draw.indices.shape == draw.probabilities.shape
        sequences: SequenceBatch = buffer.sample_sequences(2, 4)
        assert sequences.mask.shape == (2, 4)
        for experience in buffer:
            first: Experience = experience
            assert first.reward == 1.0
        for ahead in buffer.batches(8, prefetch=1):
            each: Batch = ahead
            assert len(each.rewards) == 8
            break
        stats: dict[str, Any] = buffer.stats()
        known: Schema | None = buffer.schema
        assert known is not None
        assert stats["size"] == len(buffer) == buffer.count
        state: Field = known["state"]
        assert state.shape == (2,)
        buffer.mark("here", data={"step": 1})
        buffer.rewind("here")
        buffer.save("runs/copy")


def prioritized() -> None:
    """Use a prioritized buffer and a mixture with it."""
    sampler = samplers.RankBased(0.7)
    with (
        PrioritizedReplayBuffer(100, alpha=0.5, path="runs/p", if_exists="replace") as buffer,
        PrioritizedReplayBuffer(100, sampler=sampler) as ranked,
    ):
        rows(buffer, 50)
        rows(ranked, 50)
        batch: PrioritizedBatch = buffer.sample(8, beta=0.5)
        weights: NDArray[Any] = batch.weights
        n: int = buffer.update_priorities(batch.indices, np.abs(weights))
        assert 0 < n <= 8
        assert buffer.priorities(batch.indices).shape == (8,)
        assert buffer.beta <= 1.0
        assert buffer.max_priority >= 0.0
        assert buffer.total_mass > 0.0
        mixture = Mixture({"a": buffer, "b": ranked}, {"a": 0.5, "b": 0.5}, seed=0)
        mixed = mixture.sample(8)
        mixture.update_priorities(mixed, np.ones(8))


def known_fields() -> dict[str, Any]:
    """Return the fields of the stores, in two ways that a schema takes."""
    field = Field("state", np.dtype(np.float32), (2,))
    pair = ("float32", (2,))
    return {
        "state": field,
        "action": "int64",
        "reward": "float32",
        "next_state": pair,
        "done": "float32",
    }


def whole_stores() -> None:
    """Use what works on whole stores."""
    steps: list[tuple[int, int]] = []

    def show(done: int, total: int) -> None:
        steps.append((done, total))

    def doubled(columns: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        return {"reward": columns["reward"] * 2}

    faults: list[str] = diskreplay.verify("runs/u", progress=show)
    assert not faults
    assert steps
    compacted: diskreplay.Rewritten = diskreplay.compact(
        "runs/u", progress=lambda done, total: steps.append((done, total))
    )
    assert compacted.after_bytes > 0
    diskreplay.resize("runs/u", 200)
    assert diskreplay.merge(["runs/u", "runs/copy"], "runs/merged") == 100
    assert diskreplay.transform("runs/u", "runs/doubled", doubled) == 50
    assert diskreplay.repair("runs/u", "runs/repaired").copied == 50
    sizes = diskreplay.estimate(known_fields(), 1000)
    assert sizes.disk_bytes > 0
    with diskreplay.open("runs/p", access="read") as opened:
        if isinstance(opened, PrioritizedReplayBuffer):
            assert opened.frame >= 0
        assert opened.is_ready(8)
    try:
        diskreplay.open("runs/nothing")
    except diskreplay.NotAStoreError as found:
        print(found)


def parts() -> None:
    """Use the parts that stand on their own."""
    tree = SumTree(8)
    tree.set([0, 3], [1.0, 2.0])
    slots, masses = tree.find([0.5, 2.5])
    assert slots.tolist() == [0, 3]
    assert masses.sum() == tree.total_priority == 3.0
    weights: NDArray[np.float32] = diskreplay.importance_weights(np.array([0.5, 0.5]), 2, 0.4)
    assert weights.dtype == np.float32


if __name__ == "__main__":
    uniform()
    prioritized()
    whole_stores()
    parts()

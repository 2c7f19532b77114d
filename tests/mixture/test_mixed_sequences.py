"""Sequences of several buffers: whose they are, their weights, and where their priorities go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mixed import APART, prioritized, uniform
from numpy.typing import NDArray
from scipy.stats import chi2

import diskreplay
from diskreplay import (
    ArgumentError,
    Mixture,
    PrioritizedReplayBuffer,
    PrioritizedSequenceBatch,
    ReplayBuffer,
    SampleError,
    SequenceBatch,
)

STEPS, EPISODES = 7, 6
SIZE = STEPS * EPISODES


def walked(place: int, kind: Any, **settings: Any) -> Any:
    """A buffer of episodes of 7 steps, whose states say the place and the step."""
    buffer = kind(APART, **{"seed": place, **settings})
    priorities = {} if kind is ReplayBuffer else {"priorities": np.arange(SIZE) % 3 + 1}
    steps = APART * place + np.arange(SIZE + 1.0)[:, None]
    ends = np.arange(SIZE) % STEPS == STEPS - 1
    buffer.extend(steps[:-1], np.arange(SIZE) % 2, np.ones(SIZE), steps[1:], ends, **priorities)
    return buffer


def sources(**settings: Any) -> dict[str, Any]:
    return {
        "online": walked(0, ReplayBuffer, **settings),
        "demos": walked(1, PrioritizedReplayBuffer, alpha=1.0, **settings),
    }


MASSES = (np.ones(SIZE), np.arange(SIZE) % 3 + 1 + 1e-6)


def starts_of(batch: Any) -> NDArray[np.int64]:
    """The first write ids of sequences, after checking all others by the states."""
    mask, ids = batch.mask, batch.indices
    assert (batch.sources.dtype, batch.sources.shape) == (np.int64, (len(ids),))
    assert (np.diff(batch.sources) >= 0).all()  # the sequences of a source stand together
    numbers = APART * batch.sources[:, None] + ids
    assert (batch.states[:, :, 0] == np.where(mask, numbers, 0)).all()
    assert (batch.next_states[:, :, 0] == np.where(mask, numbers + 1, 0)).all()
    assert ((ids >= 0) == mask).all()
    assert (batch.firsts == (mask & (ids % STEPS == 0))).all()
    assert (np.diff(ids, axis=1)[mask[:, 1:]] == 1).all()
    starts: NDArray[np.int64] = ids[:, 0]
    return starts


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("across", [False, True])
def test_a_source_gives_the_sequences_that_it_would_have_given(pad: bool, across: bool) -> None:
    twins = sources()
    mixture = Mixture(sources(), {"online": 3, "demos": 1}, seed=1)
    for turn in range(5):
        batch = mixture.sample_sequences(12, 4, pad=pad, across=across)
        parts = [
            twins[name].sample_sequences(n, 4, pad=pad, across=across)
            for name, n in (("online", 9), ("demos", 3))
        ]
        assert isinstance(batch, PrioritizedSequenceBatch)
        assert batch._fields == (*PrioritizedSequenceBatch._fields, "sources")
        assert batch.sources.tolist() == [0] * 9 + [1] * 3
        starts_of(batch)
        assert batch.mask.all() or pad
        for name in SequenceBatch._fields:
            found, wanted = getattr(batch, name), [getattr(part, name) for part in parts]
            assert found.dtype == wanted[0].dtype
            assert found.tolist() == np.concatenate(wanted).tolist()
        assert mixture.draws == turn + 1
    uniform_ones = {"a": walked(0, ReplayBuffer), "b": walked(1, ReplayBuffer)}
    batch = Mixture(uniform_ones).sample_sequences(4, 3)
    assert isinstance(batch, SequenceBatch)
    assert batch._fields == (*SequenceBatch._fields, "sources")


def test_sequences_and_batches_take_turns_in_the_draws() -> None:
    one, twin = (Mixture(sources(), {"online": 1, "demos": 2}, seed=3) for _ in range(2))
    for turn in range(6):
        sequences = one.sample_sequences(10, 3)
        drawn = twin.sample(10) if turn % 2 else twin.draw(10)
        assert sequences.indices[:, 0].tolist() == drawn.indices.tolist()
        assert sequences.sources.tolist() == drawn.sources.tolist()
        assert (one.sample(10).indices == twin.sample(10).indices).all()


@pytest.mark.parametrize(("pad", "length"), [(True, 4), (False, 4), (False, 1)])
@pytest.mark.parametrize("online", [0.5, 0.43])
def test_starts_are_drawn_by_share_and_mass(pad: bool, length: int, online: float) -> None:
    # Fixed seeds, and an error rate of 1e-3 a statistic.
    shares, n, batches = (online, 1 - online), 8, 1500
    mixture = Mixture(
        sources(seed=length), {"online": online, "demos": 1 - online}, seed=round(online * 100)
    )
    found = np.zeros((2, SIZE))
    for _ in range(batches):
        batch = mixture.sample_sequences(n, length, pad=pad)
        np.add.at(found, (batch.sources, starts_of(batch)), 1)
    can_start = pad | (np.arange(SIZE) % STEPS <= STEPS - length)
    assert not found[:, ~can_start].any()
    for place, share in enumerate(shares):
        total = found[place].sum()
        assert abs(total - share * n * batches) < 3.3 * np.sqrt(0.25 * batches)
        masses = MASSES[place][can_start]
        expected = masses / masses.sum() * total
        statistic = ((found[place][can_start] - expected) ** 2 / expected).sum()
        assert statistic <= chi2.ppf(1 - 1e-3, expected.size - 1)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("pad", [False, True])
def test_weights_are_those_of_the_starts_over_the_largest_of_the_batch(
    beta: float, pad: bool
) -> None:
    third = walked(2, PrioritizedReplayBuffer, alpha=0.5)
    masses = np.array([*MASSES, np.sqrt(MASSES[1])])
    mixture = Mixture({**sources(), "third": third}, {"online": 2, "demos": 5, "third": 3}, seed=1)
    for n in (20, 20, 5, 1):
        batch = mixture.sample_sequences(n, 3, pad=pad, beta=beta)
        of = masses[batch.sources]
        mass = of[np.arange(n), starts_of(batch)]
        expected = (SIZE * mass / of.sum(axis=1)) ** -beta
        assert (batch.weights.dtype, batch.weights.shape) == (np.float32, (n,))
        np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-5)
        assert batch.largest_weight == pytest.approx(expected.max(), rel=1e-6)
        assert batch.weights.max() == 1.0


def test_priorities_of_sequences_go_home() -> None:
    a, b, c = prioritized(0, 30), uniform(1, 30), prioritized(2, 30)
    mixture = Mixture({"a": a, "b": b, "c": c}, {"a": 1, "b": 1, "c": 2}, seed=2)
    batch = mixture.sample_sequences(16, 5)
    td_errors = batch.mask * (10.0 + np.arange(16)[:, None])
    new = diskreplay.sequence_priorities(td_errors, batch.mask)
    before = {name: mixture[name].priorities(range(30)) for name in "ac"}
    assert mixture.update_priorities(batch, new) == 12
    for place, name in ((0, "a"), (2, "c")):
        wanted = before[name]
        for i in np.flatnonzero(batch.sources == place):
            wanted[batch.indices[i, 0]] = new[i]  # the last of duplicates wins
        assert mixture[name].priorities(range(30)).tolist() == wanted.tolist()
    for wrong in (td_errors, new[1:]):
        with pytest.raises(diskreplay.PriorityError):
            mixture.update_priorities(batch, wrong)


def test_elements_that_vary_and_nested_ones_are_those_of_the_sources() -> None:
    def pushed(place: int) -> Any:
        schema = {"tokens": ("int64", (None,))}
        buffer = PrioritizedReplayBuffer(100, seed=place, schema=schema)
        for i in range(20):
            state = {"camera": np.full((2, 3), i), "text": f"{place} {i}"}
            after = {"camera": np.full((2, 3), i + 1), "text": f"{place} {i + 1}"}
            buffer.push(state, 0, 1.0, after, i % 5 == 4, tokens=np.arange(i % 4), step=i)
        return buffer

    mixture, twins = Mixture({"a": pushed(0), "b": pushed(1)}, seed=1), [pushed(0), pushed(1)]
    batch = mixture.sample_sequences(6, 3)
    parts = [twin.sample_sequences(3, 3) for twin in twins]
    assert batch._fields[-3:] == ("tokens", "step", "sources")
    cameras = [part.states["camera"] for part in parts]
    assert batch.states["camera"].tolist() == np.concatenate(cameras).tolist()
    assert batch.states["text"] == [*parts[0].states["text"], *parts[1].states["text"]]
    assert batch.step.tolist() == np.concatenate([part.step for part in parts]).tolist()
    tokens = [row for part in parts for row in part.tokens]
    assert [[list(t) for t in row] for row in batch.tokens] == [
        [list(t) for t in r] for r in tokens
    ]


def test_what_cannot_be_had_is_refused() -> None:
    mixture = Mixture({"a": walked(0, ReplayBuffer), "b": walked(1, ReplayBuffer)}, seed=0)
    for name, bad in (("length", 0), ("length", 1.5), ("pad", 1), ("across", "yes"), ("n", 0)):
        arguments: Any = {"n": 4, "length": 3, name: bad}
        with pytest.raises(ArgumentError, match=f"{name} must be"):
            mixture.sample_sequences(**arguments)
    with pytest.raises(ArgumentError, match="no source of this mixture is prioritized"):
        mixture.sample_sequences(4, 3, beta=0.5)
    with pytest.raises(ArgumentError, match="source 'a': length=1001 is more transitions than"):
        mixture.sample_sequences(4, APART + 1)
    with pytest.raises(SampleError, match="source 'a' holds 42 transitions"):
        mixture.sample_sequences(2 * SIZE + 2, 3)
    assert mixture.draws == 0
    with pytest.raises(SampleError, match="source 'a': of 42 starts drawn, 0 begin a whole"):
        mixture.sample_sequences(4, STEPS + 1, pad=False)
    named = ReplayBuffer(10)
    named.push([0.0], 0, 0.0, [0.0], False, mask=1)
    with pytest.raises(diskreplay.SchemaError, match=r"source 'a': sample_sequences .* 'mask'"):
        Mixture({"a": named}).sample_sequences(1, 1)
    assert Mixture({"a": named}).sample(1).mask.tolist() == [1]

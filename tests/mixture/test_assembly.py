"""The elements of a batch of several sources: whatever they are, the rows are those of the sources.

`joined` batches of small rows, and `written` ones, as of large rows, are the same.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from mixed import APART, prioritized, uniform, whole
from nested_rows import assert_same
from nested_rows import columns as nested_columns
from nested_rows import numbers_of as numbers_of_nested

from diskreplay import ArgumentError, Mixture, PrioritizedReplayBuffer, ReplayBuffer

WEIGHTS = {"a": 1, "b": 2, "c": 1}


@pytest.fixture(params=["joined", "written"])
def assembly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    most = 2**62 if request.param == "joined" else 0
    monkeypatch.setattr("diskreplay.mixture.assembly._LARGE", most)
    return str(request.param)


def three(**settings: Any) -> dict[str, Any]:
    return {
        "a": uniform(0, 30, **settings),
        "b": prioritized(1, 30, **settings),
        "c": uniform(2, 30, observations="log", **settings),
    }


def test_large_rows_are_written_once_by_their_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    image = ("uint8", (64, 64, 4))
    buffers = {}
    given: list[Any] = []
    for name in "ab":
        buffers[name] = ReplayBuffer(100, schema={"state": image, "next_state": image})
        states = np.random.default_rng(ord(name)).integers(0, 255, (50, 64, 64, 4), np.uint8)
        zeros = np.zeros(50, int)
        buffers[name].extend(states, zeros, zeros, states, zeros)
        own = buffers[name].sample

        def sample(n: int, *, out: Any = None, own: Any = own, **more: Any) -> Any:
            given.append(out)
            return own(n, out=out, **more)

        monkeypatch.setattr(buffers[name], "sample", sample)
    mixture = Mixture(buffers, {"a": 1, "b": 1}, seed=1)
    for n in (64, 64, 80):
        given.clear()
        batch = mixture.sample(n)
    assert [out.states.base is batch.states for out in given] == [True, True]
    for name, place in (("a", 0), ("b", 1)):
        rows = batch.sources == place
        states = buffers[name].get(batch.indices[rows]).states
        assert (batch.states[rows] == states).all()
        assert (batch.next_states[rows] == states).all()


def test_layouts_and_kinds_may_differ(assembly: str) -> None:
    mixture = Mixture(three(), WEIGHTS, seed=2)
    for n in (8, 8, 21, 1, 8):
        batch = mixture.sample(n)
        assert whole(batch).size == n
        assert all(len(element) == n for element in batch)


def test_batches_are_fresh(assembly: str) -> None:
    mixture = Mixture(three(), WEIGHTS, seed=2)
    batches = [mixture.sample(8) for _ in range(4)]
    numbers = [whole(batch).tolist() for batch in batches]
    batches[0].states[:] = -1
    assert [whole(batch).tolist() for batch in batches[1:]] == numbers[1:]


def test_an_earlier_batch_is_written_into(assembly: str) -> None:
    mixture, twin = (Mixture(three(), WEIGHTS, seed=2) for _ in range(2))
    out = mixture.sample(12)
    twin.sample(12)
    for _ in range(4):
        states = out.states
        assert mixture.sample(12, out=out) is out
        assert out.states is states
        fresh = twin.sample(12)
        assert [x.tolist() for x in out] == [x.tolist() for x in fresh]
        assert out.largest_weight == fresh.largest_weight
    uniform_only = Mixture({"a": mixture["a"], "b": uniform(1, 30)}, {"a": 1, "b": 1})
    out = uniform_only.sample(12)
    ids = out.indices
    uniform_only.sample(12, out=out)
    assert out.indices is ids
    whole(out)


def test_a_batch_that_cannot_be_written_into_is_refused(assembly: str) -> None:
    mixture = Mixture(three(), WEIGHTS, seed=2)
    fresh = Mixture({"a": mixture["a"]})
    out = mixture.sample(12)
    read_only = out.states.copy()
    read_only.flags.writeable = False
    for bad, message in (
        (
            mixture.sample(11),
            r"out.states must be .* float32 \(12, 3\) \(it is float32 \(11, 3\)\)",
        ),
        (out._replace(actions=out.actions.astype(np.int32)), r"out.actions must be .*int32 \(12,"),
        (out._replace(states=read_only), "out.states must be a writeable"),
        (out._replace(states=np.asfortranarray(out.states)), "out.states must be .*C-contiguous"),
        (out._replace(sources=[0] * 12), r"out.sources must be .* \(it is list\)"),
        (mixture["b"].sample(12), "out must be an earlier batch of this mixture"),
        (out._replace(next_states=out.states), "out.next_states must have memory of its own"),
        (tuple(out), r"out must be an earlier batch of this mixture \(found a tuple\)"),
    ):
        with pytest.raises(ArgumentError, match=message):
            mixture.sample(12, out=bad)
    assert mixture.draws == 2
    with pytest.raises(ArgumentError, match="out must be an earlier batch of this mixture"):
        fresh.sample(12, out=out)
    with pytest.raises(ArgumentError, match=r"pad=True .*\(found out=\)"):
        mixture.sample(12, out=out, pad=True)


def test_nested_fields(assembly: str) -> None:
    buffers: dict[str, Any] = {
        "a": PrioritizedReplayBuffer(APART),
        "b": ReplayBuffer(APART, observations="log"),
    }
    for place, buffer in enumerate(buffers.values()):
        buffer.extend(**reordered(nested_columns(APART * place, 40), place))
    mixture = Mixture(buffers, {"a": 1, "b": 1}, seed=3)
    out = None
    for n in (8, 8, 9, 8):
        batch = mixture.sample(n)
        numbers = numbers_of_nested(batch)
        assert (numbers // APART == batch.sources).all()
        assert (numbers % APART == batch.indices).all()
        rows = batch.sources == 1
        own = buffers["b"].get(batch.indices[rows]).states  # with its keys in its own order
        assert_same(part_of(batch.states, rows), reordered({"own": own}, 1)["own"])
        if n == 8:
            out = mixture.sample(n, out=out)
            assert numbers_of_nested(out).size == n
    with pytest.raises(ArgumentError, match=r"out.states"):
        mixture.sample(8, out=out._replace(states=out.states[next(iter(out.states))]))


def reordered(columns: dict[str, Any], turns: int) -> dict[str, Any]:
    """Return columns whose dictionaries have the other order of keys."""

    def turned(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: turned(value[key]) for key in list(value)[:: -1 if turns else 1]}

    return {name: turned(value) for name, value in columns.items()}


def part_of(value: Any, rows: Any) -> Any:
    if isinstance(value, dict):
        return {key: part_of(inner, rows) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(part_of(inner, rows) for inner in value)
    return value[rows]


def words(place: int, n: int = 20, kind: Any = ReplayBuffer) -> Any:
    """Transitions of texts and tokens; the tokens of the second source are longer."""
    buffer = kind(100, schema={"tokens": ("int32", (None,)), "state": "str", "next_state": "str"})
    for i in range(n):
        tokens = np.full(1 + i % 3 + 4 * place, i)
        buffer.push(f"{place} {i}", 0, i, "", False, tokens=tokens)
    return buffer


def test_values_that_vary_in_size(assembly: str) -> None:
    mixture = Mixture({"a": words(0), "b": words(1)}, {"a": 1, "b": 1}, seed=1)
    out = None
    for n in (6, 6, 7, 6):
        batch = mixture.sample(n)
        if n == 6:
            out = mixture.sample(n, out=out)
        for found in (batch, out):
            assert found is not None
            assert type(found.tokens) is type(found.states) is list
            for at, (k, i) in enumerate(zip(found.sources, found.indices, strict=True)):
                assert found.states[at] == f"{k} {i}"
                assert found.tokens[at].tolist() == [i] * (1 + i % 3 + 4 * k)


def test_padded_values_are_as_long_as_the_longest_of_all_sources(assembly: str) -> None:
    mixture = Mixture({"a": words(0), "b": words(1, kind=PrioritizedReplayBuffer)}, seed=1)
    for _ in range(3):
        batch = mixture.sample(20, pad=True)
        lengths = 1 + batch.indices % 3 + 4 * batch.sources
        assert batch.tokens.shape == batch.tokens_mask.shape == (20, lengths.max())
        assert (batch.tokens_mask == (np.arange(lengths.max()) < lengths[:, None])).all()
        assert (batch.tokens == batch.tokens_mask * batch.indices[:, None]).all()
        assert batch._fields[-1] == "sources"
        assert mixture.sample(20)._fields[-2:] == ("tokens", "sources")
    with mixture.batches(4, pad=True) as batches:
        assert next(batches).tokens.ndim == 2


def test_a_source_may_give_nothing_for_a_while(assembly: str) -> None:
    mixture = Mixture(three(), lambda k: {"a": k < 2, "b": k == 3, "c": k != 0}, seed=1)
    for wanted in ({0}, {0, 2}, {2}, {1, 2}, {2}):
        batch = mixture.sample(8)
        whole(batch)
        assert set(batch.sources.tolist()) == wanted
        assert batch.weights.max() == 1.0


def test_batches_are_pickled_and_copied_whole() -> None:
    batch = Mixture(three(), WEIGHTS).sample(8)
    for made in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch), batch._replace()):  # noqa: S301
        assert type(made) is type(batch)
        assert whole(made).tolist() == whole(batch).tolist()

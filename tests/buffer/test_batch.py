"""Batches and experiences as named tuples, which others copy, send, take apart and make anew."""

# ruff: noqa: S301  what is unpickled is what was pickled before
from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row

import diskreplay
from diskreplay import (
    Batch,
    Experience,
    Field,
    PrioritizedBatch,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    Schema,
    SchemaError,
)
from diskreplay.store.store import Store

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]
FIVE = ("states", "actions", "rewards", "next_states", "dones")
SEVEN = (*FIVE, "weights", "indices")
EXTRA = ("log_prob", "mask")


def buffer_with_extras(kind: Any) -> Any:
    buffer = kind(capacity=20, seed=0)
    masks = np.eye(10, dtype=bool)
    buffer.extend(**columns(0, 10), log_prob=np.arange(10) / 4, mask=masks)
    return buffer


def assert_whole(found: Any, expected: Any, array_of: Callable[[Any], Any] = np.asarray) -> None:
    """Both are of one type, and all their elements are equal."""
    assert type(found) is type(expected)
    assert found._fields == expected._fields
    for name in expected._fields:
        np.testing.assert_array_equal(array_of(getattr(found, name)), getattr(expected, name))


def sent(given: Any) -> Any:
    """Return a tuple from a process that was told nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(copy.copy, (given,))


COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(
        lambda given, protocol=protocol: pickle.loads(pickle.dumps(given, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
]


@pytest.mark.parametrize(
    ("kind", "standard"), [(ReplayBuffer, FIVE), (PrioritizedReplayBuffer, SEVEN)]
)
def test_extra_fields_are_the_last_elements(kind: Any, standard: tuple[str, ...]) -> None:
    batch = buffer_with_extras(kind).sample(4)
    assert batch._fields == type(batch)._fields == (*standard, *EXTRA)
    assert numbers_of(batch).tolist() == batch.indices.tolist()
    assert batch[-2] is batch.log_prob
    assert (batch.log_prob * 4 == batch.rewards * 8).all()
    assert list(batch._asdict()) == [*standard, *EXTRA]
    states, *_, mask = batch
    assert states is batch.states
    assert mask is batch.mask
    with pytest.raises(AttributeError, match=r"Batch has no 'extra': its elements are .*, mask$"):
        _ = batch.extra


def test_the_types_are_those_of_the_package() -> None:
    uniform = buffer_with_extras(ReplayBuffer)
    batches = [uniform.sample(2), buffer_with_extras(PrioritizedReplayBuffer).sample(2)]
    assert [isinstance(batch, Batch) for batch in batches] == [True, False]
    assert [isinstance(batch, PrioritizedBatch) for batch in batches] == [False, True]
    assert issubclass(type(batches[0]), Batch)
    assert not isinstance((1, 2), Batch)
    assert not issubclass(Batch, type(batches[0]))
    experience = next(iter(uniform))
    assert isinstance(experience, Experience)
    assert experience._fields == ("state", "action", "reward", "next_state", "done", *EXTRA)
    assert experience.log_prob == 0
    assert isinstance(Experience([0.0], 1, 0.5, [1.0], False), Experience)
    assert type(uniform.sample(2)) is type(buffer_with_extras(ReplayBuffer).get([1]))
    assert repr(experience).startswith("Experience(state=array(")


def test_the_types_look_like_named_tuples_to_all_who_ask() -> None:
    # Older versions of torch's tree functions take no type that has another base.
    for kind in KINDS:
        for cls in (type(buffer_with_extras(kind).sample(1)), Batch, PrioritizedBatch, Experience):
            assert cls.__bases__ == (tuple,)
            assert all(type(name) is str for name in cls._fields)
            assert callable(cls._make)
            assert cls.__module__ == "diskreplay.buffer.batch"


@pytest.mark.parametrize("extra", [{}, {"log_prob": 0.5}, {"état": [1, 2], "状態": 3}])
@pytest.mark.parametrize("kind", KINDS)
def test_copies_have_all_of_a_tuple(kind: Any, extra: dict[str, Any]) -> None:
    buffer = kind(capacity=20, seed=0)
    for number in range(10):
        buffer.push(**row(number), **extra)
    for batch in (buffer.sample(4), buffer.get([3, 1]), next(buffer.batches(2))):
        for copied in (*COPIES, lambda batch: batch._replace(states=batch.states)):
            found = copied(batch)
            assert_whole(found, batch)
            assert found.indices.tolist() == batch.indices.tolist() == numbers_of(batch).tolist()
            assert isinstance(found, Batch | PrioritizedBatch)
    experience = next(iter(buffer))
    for copied in COPIES:
        assert_whole(copied(experience), experience)
        for given in (batch, experience):
            assert copied(type(given)) is type(given)
    assert_whole(sent(batch), batch)
    assert sent(batch).indices.tolist() == batch.indices.tolist()


def test_no_other_type_has_a_name_in_the_module() -> None:
    for name in ("nothing", "Nothing[mask]", "Draw[mask]"):
        with pytest.raises(AttributeError, match=r"diskreplay\.buffer\.batch"):
            getattr(diskreplay.buffer.batch, name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_made_anew_of_its_elements_has_all_of_them(kind: Any) -> None:
    batch = buffer_with_extras(kind).sample(4)
    for found in (type(batch)(*batch), type(batch)._make(batch), type(batch)(**batch._asdict())):
        assert_whole(found, batch)
    changed = batch._replace(rewards=batch.rewards / 10)
    assert (changed.rewards * 10 == batch.rewards).all()
    assert changed.mask is batch.mask
    with pytest.raises((TypeError, ValueError), match="unexpected field names"):
        batch._replace(wrong=1)
    with pytest.raises(TypeError):
        type(batch)(*batch[:5])


def test_a_uniform_batch_made_anew_says_that_it_has_no_indices() -> None:
    buffer = ReplayBuffer(capacity=20, seed=0)
    buffer.extend(**columns(0, 10))
    batch = buffer.sample(4)
    assert len(batch) == 5
    anew = type(batch)(*batch)
    assert not hasattr(anew, "indices")
    with pytest.raises(AttributeError, match=r"made anew .* read batch\.indices before"):
        _ = anew.indices
    with pytest.raises(AttributeError, match="Batch has no 'state': its elements are states, "):
        _ = batch.state


def test_fields_may_be_named_as_methods_of_tuples() -> None:
    buffer = ReplayBuffer(capacity=4)
    buffer.push(**row(0), count=3, index=[1, 2], extra=1.5)
    batch = buffer.sample(1)
    assert (batch.count, batch.extra) == (3, 1.5)
    assert batch.index.tolist() == [[1, 2]]
    assert next(iter(buffer)).count == 3


def test_no_element_can_have_the_name_of_a_keyword_or_an_underscore_first() -> None:
    buffer = ReplayBuffer(capacity=4)
    for name in ("_hidden", "__class__", "_5", "lambda", "None", "class"):
        with pytest.raises(SchemaError, match=f"'{name}' cannot name a field, since batches are"):
            buffer.push(**row(0), **{name: 1.0})
        with pytest.raises(SchemaError, match=f"'{name}' cannot name a field, since batches are"):
            Field(name)
    buffer.push(**row(0), match=1.0, hidden_=2.0)  # neither is a keyword everywhere
    assert buffer.sample(1)._fields[5:] == ("match", "hidden_")


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_has_such_a_name_opens_and_goes_on(kind: Any, tmp_path: Path) -> None:
    path, names = tmp_path / "b", {"lambda": 0.5, "tail": 7, "_hidden": [1.0, 2.0]}
    kind(capacity=8, path=path).close()
    plain = Schema({**dict.fromkeys(("action", "reward", "done"), "f4"),
                    **dict.fromkeys(("state", "next_state"), ("f4", (3,)))}).to_plain()  # fmt: skip
    plain += [["lambda", "<f4", []], ["tail", "<i8", []], ["_hidden", "<f4", [2]]]
    store = Store(path, access="exclusive")
    with store.transaction() as txn:
        txn.put_meta({"schema": plain})
    store.close()

    with diskreplay.open(path) as buffer:
        buffer.push(**row(0), **names)
        buffer.extend(**columns(1, 2), **{name: [value] * 2 for name, value in names.items()})
        at = len(buffer.sample(1)) - 3
        for batch in (buffer.get([2, 0]), pickle.loads(pickle.dumps(buffer.get([2, 0])))):
            assert batch._fields[5:] == ("_5", "tail", "_7")
            assert batch[5].tolist() == [0.5, 0.5]
            assert batch._7.tolist() == [[1.0, 2.0]] * 2
        assert buffer.sample(2)._fields[at:] == (f"_{at}", "tail", f"_{at + 2}")
        assert [tuple(e)[5:7] for e in buffer] == [(0.5, 7)] * 3
        schema = buffer.schema
        buffer.save(tmp_path / "copy")
    kind(capacity=8, path=path, schema=schema).close()
    assert diskreplay.merge([path, tmp_path / "copy"], tmp_path / "both") == 6
    with diskreplay.open(tmp_path / "both") as both:
        assert both.schema == schema
        assert both.get([5])._5.tolist() == [0.5]
    assert diskreplay.resize(path, 2).size == 2


# Libraries that take batches apart and make them anew


@pytest.mark.parametrize("kind", KINDS)
def test_tree_functions_of_torch_keep_every_element(kind: Any) -> None:
    torch = pytest.importorskip("torch")
    batch = buffer_with_extras(kind).sample(4)
    for name in ("torch.utils._pytree", "torch.utils._cxx_pytree"):
        tree = pytest.importorskip(name, exc_type=ImportError)  # one of them needs optree
        found = tree.tree_map(torch.from_numpy, batch)
        assert isinstance(found.mask, torch.Tensor)
        assert_whole(found, batch)
    pinned = torch.utils.data._utils.pin_memory.pin_memory
    if torch.cuda.is_available():
        assert_whole(pinned(found), batch)


@pytest.mark.parametrize("kind", KINDS)
def test_data_loaders_of_torch_keep_every_element(kind: Any) -> None:
    torch = pytest.importorskip("torch")
    buffer = buffer_with_extras(kind)
    batch = buffer.sample(4)
    for workers in (0, 1):
        loader = torch.utils.data.DataLoader(
            [batch], batch_size=None, num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
        )  # fmt: skip
        assert_whole(next(iter(loader)), batch)
    rows = list(buffer)
    found = next(iter(torch.utils.data.DataLoader(rows, batch_size=10)))
    assert type(found) is type(rows[0])
    assert found.log_prob.tolist() == [row.log_prob for row in rows]
    assert found.mask.tolist() == np.eye(10, dtype=bool).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_tree_functions_of_jax_keep_every_element(kind: Any) -> None:
    jax = pytest.importorskip("jax")
    batch = buffer_with_extras(kind).sample(4)
    assert_whole(jax.tree.map(np.asarray, batch), batch)
    found = jax.device_put(batch)
    assert isinstance(found.mask, jax.Array)
    assert_whole(found, batch)
    assert jax.tree.structure(batch) == jax.tree.structure(buffer_with_extras(kind).sample(4))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(batch)]
    assert paths[-1] == ".mask"


@pytest.mark.parametrize("kind", KINDS)
def test_tree_functions_of_optree_keep_every_element(kind: Any) -> None:
    optree = pytest.importorskip("optree")
    batch = buffer_with_extras(kind).sample(4)
    assert_whole(optree.tree_map(np.copy, batch), batch)

"""What users hand over: steps of vector environments, tensors, masked arrays, spaces, floats."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from common import columns, row, run_python
from stores import FIELDS

import diskreplay
from diskreplay import (
    ArgumentError,
    PrioritizedReplayBuffer,
    PriorityError,
    ReplayBuffer,
    SchemaError,
)

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


# One transition or several


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("environments", [1, 4])
def test_a_step_of_several_environments_is_no_transition(kind: Any, environments: int) -> None:
    buffer = kind(capacity=10)
    step = dict(zip(row(0), columns(0, environments).values(), strict=True))
    for wrong, name in ((step, "reward"), ({**row(0), "done": step["done"]}, "done")):
        with pytest.raises(SchemaError, match=rf"'{name}': expected one number .* call extend\(\)"):
            buffer.push(**wrong)
    assert buffer.schema is None
    assert len(buffer) == 0
    buffer.extend(**columns(0, environments))
    for wrong, message in (  # also when the schema is known
        (step, r"'state': expected shape \(3,\) .* call extend\(\)"),
        ({**row(0), "reward": step["reward"]}, r"'reward': expected shape \(\) .* call extend\(\)"),
    ):
        with pytest.raises(SchemaError, match=message):
            buffer.push(**wrong)
    assert len(buffer) == environments


def test_a_reward_in_a_list_of_one_is_told_to_be_a_number() -> None:
    buffer = ReplayBuffer(capacity=10)
    for name, value in (("reward", [1.0]), ("done", np.zeros(1)), ("reward", np.zeros((1, 1)))):
        with pytest.raises(SchemaError, match=f"'{name}': .*: give a plain number, or "):
            buffer.push(**{**row(0), name: value})
    for values, way_out in ((np.zeros((4, 1)), "give shape (4,)"), (np.zeros((4, 2)), "")):
        with pytest.raises(SchemaError, match=r"shape \(4, .* counts the transitions\)") as info:
            buffer.extend(**{**columns(0, 4), "rewards": values})
        assert ("give shape" in str(info.value)) == bool(way_out)
        assert way_out in str(info.value)
    buffer.push(**{**row(0), "reward": np.array(1.0), "done": np.array(True)})
    assert buffer.sample(1).rewards.shape == (1,)


def test_a_reward_whose_shape_is_given_may_have_one() -> None:
    schema = {"reward": ("float32", (2,)), "done": ("float32", (1,))}
    buffer = ReplayBuffer(capacity=10, schema=schema)
    buffer.push(**{**row(0), "reward": [1.0, 2.0], "done": [True]})
    several = {"rewards": np.ones((4, 2)), "dones": np.zeros((4, 1))}
    buffer.extend(**{**columns(1, 4), **several})
    assert buffer.get([0, 1]).rewards.tolist() == [[1.0, 2.0], [1.0, 1.0]]


def test_one_transition_is_not_taken_as_several() -> None:
    buffer = ReplayBuffer(capacity=10)
    one = {f"{name}s": value for name, value in row(0).items()}
    for _ in range(2):  # before the schema is known, and after
        with pytest.raises(SchemaError, match=r"one number as action, reward, done\): push\(\) ta"):
            buffer.extend(**one)
        with pytest.raises(SchemaError, match=r"number as reward\): push\(\) takes"):
            buffer.extend(**{**columns(0, 3), "rewards": 1.0})
        buffer.push(**row(0))
    assert len(buffer) == 2


# Objects that cannot be converted


class Tensor:
    """What a tensor of PyTorch without numbers does when somebody asks for them."""

    dtype = np.float32

    def __init__(self, error: type[Exception], message: str) -> None:
        self._error = error, message

    def _refuse(self, *_: Any, **__: Any) -> Any:
        error, message = self._error
        raise error(message)

    __array__ = __float__ = __index__ = __int__ = __iter__ = _refuse
    detach = cpu = numpy = resolve_conj = _refuse


TENSORS = [
    Tensor(RuntimeError, "Can't call numpy() on Tensor that requires grad."),
    Tensor(TypeError, "can't convert cuda:0 device type tensor to numpy."),
    Tensor(KeyError, "tensor"),
    Tensor(ZeroDivisionError, "a tensor of any other library"),
]


def some() -> PrioritizedReplayBuffer:
    buffer = PrioritizedReplayBuffer(capacity=20, seed=0)
    buffer.extend(**columns(0, 10), x=np.arange(10))
    return buffer


def calls() -> dict[str, list[Callable[[Any], Any]]]:
    """All calls that take numbers or names of a user, as functions of one of their arguments."""
    buffer, tree = some(), diskreplay.SumTree(8)
    tree.set([0, 1], [1.0, 2.0])
    new, several = {**row(10), "x": 1}, {**columns(10, 1), "x": [1]}
    settings = ["capacity", "alpha", "beta_start", "beta_end", "beta_frames", "epsilon", "seed",
                "commit_interval", "window_bytes"]  # fmt: skip
    weights = diskreplay.importance_weights
    return {
        "push": [*(lambda bad, n=n: buffer.push(**{**new, n: bad}) for n in new),
                 lambda bad: buffer.push(**new, priority=bad)],
        "first push": [lambda bad, n=n: ReplayBuffer(4).push(**{**row(0), n: bad}) for n in row(0)],
        "extend": [*(lambda bad, n=n: buffer.extend(**{**several, n: bad}) for n in several),
                   lambda bad: buffer.extend(**several, priorities=bad)],
        "update": [lambda bad: buffer.update_priorities([0], bad),
                   lambda bad: buffer.update_priorities(bad, [1.0])],
        "look up": [buffer.get, buffer.priorities],
        "counts": [buffer.sample, buffer.is_ready, buffer.batches,
                   lambda bad: buffer.batches(4, prefetch=bad),
                   lambda bad: diskreplay.estimate(FIELDS, bad)],
        "settings": [lambda bad, n=n: PrioritizedReplayBuffer(**{"capacity": 4, n: bad})
                     for n in settings],
        "tree": [diskreplay.SumTree, tree.add, tree.get, tree.find, tree.masses,
                 lambda bad: tree.update(0, bad), lambda bad: tree.update(bad, 1.0),
                 lambda bad: tree.set([0], bad), lambda bad: tree.set(bad, [1.0])],
        "weights": [lambda bad: weights(bad, 4, 1.0), lambda bad: weights([0.5], bad, 1.0),
                    lambda bad: weights([0.5], 4, bad)],
        "schema": [lambda bad: diskreplay.Field("x", "f4", (bad,)), diskreplay.Schema,
                   lambda bad: diskreplay.estimate(bad, 10),
                   lambda bad: ReplayBuffer(4, schema=bad)],
        "names": [lambda bad: buffer.get([0], fields=bad),
                  lambda bad: diskreplay.merge(bad, "never")],
    }  # fmt: skip


def masked(values: Any) -> Any:
    return np.ma.masked_array(values, np.zeros(np.shape(values), bool))


MASKED = [masked([1.0]), masked([[1.0, 2.0, 3.0]]), masked(4), np.ma.masked]


@pytest.mark.parametrize("what", calls())
@pytest.mark.parametrize("bads", [*([each, [each]] for each in TENSORS), MASKED])
def test_what_cannot_be_converted_is_an_error_of_ours(what: str, bads: list[Any]) -> None:
    for call, bad in itertools.product(calls()[what], bads):
        with pytest.raises(diskreplay.DiskReplayError):
            call(bad)


@pytest.mark.parametrize("tensor", TENSORS)
def test_an_object_that_is_no_shape_is_an_error_of_ours(tensor: Any) -> None:
    with pytest.raises(SchemaError, match="'state' has no usable dtype or shape"):
        ReplayBuffer(4, schema={"state": ("f4", tensor)})


def test_the_error_has_the_way_out() -> None:
    buffer, tensor = some(), TENSORS[0]
    before = buffer.stats()
    for call, error in [
        (lambda: buffer.push(**{**row(0), "state": tensor}, x=1), SchemaError),
        (lambda: buffer.push(**row(0), x=1, priority=tensor), PriorityError),
        (lambda: buffer.extend(**columns(0, 1), x=[1], priorities=tensor), PriorityError),
        (lambda: buffer.update_priorities([0], tensor), PriorityError),
        (lambda: buffer.get(tensor), ArgumentError),
        (lambda: buffer.priorities(tensor), ArgumentError),
    ]:
        with pytest.raises(error, match=r"requires grad: give a tensor that has .*to_dense\(\)"):
            call()
    assert buffer.stats() == before


def test_the_error_of_a_shape_names_what_it_should_be() -> None:
    both = r'schema=\{"state": \("float64", \(None,\)\), "next_state": \("float64", \(None,\)\)\}'
    buffer = ReplayBuffer(10, schema={"state": ("float64", (1,)), "next_state": ("float64", (1,))})
    wanted = rf"state and next_state need one shape \(found \(1,\) and \(2,\)\), or where .*{both}"
    with pytest.raises(SchemaError, match=wanted):
        buffer.push([0.0], 0, 1.0, [1.0, 2.0], False)
    with pytest.raises(SchemaError, match=wanted):
        buffer.extend([[0.0]] * 3, [0] * 3, [1.0] * 3, [[1.0, 2.0]] * 3, [False] * 3)
    with pytest.raises(SchemaError, match=rf"float64\): where lengths vary, say so with {both}"):
        buffer.push([0.0, 1.0], 0, 1.0, [1.0], False)
    with pytest.raises(SchemaError, match=r"state.a and next_state.a need one shape"):
        ReplayBuffer(10).push({"a": [0.0]}, 0, 1.0, {"a": [0.0, 1.0]}, False)


def test_the_schema_of_a_vector_environment_is_told() -> None:
    schema = {"state": ("float32", (4, 3)), "action": "int64"}
    states = np.zeros((4, 3), np.float32)
    wanted = "make it of its single_observation_space and single_action_space"
    with pytest.raises(SchemaError, match=wanted):
        ReplayBuffer(10, schema=schema).push(states[0], 0, 0.0, states[0], False)
    with pytest.raises(SchemaError, match=wanted):
        ReplayBuffer(10, schema=schema).extend(states, [0] * 4, [0.0] * 4, states, [False] * 4)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_list_of_dictionaries_is_told_to_be_a_dictionary_of_arrays(is_known: bool) -> None:
    values = [{"a": [0.0, 1.0]}, {"a": [2.0, 3.0]}]
    buffer = ReplayBuffer(10)
    if is_known:
        buffer.push(values[0], 0, 0.0, values[0], False)
    wanted = r"\(found (a list of dictionaries|list)\): give one dictionary of arrays, \{key: \[one"
    with pytest.raises(SchemaError, match=wanted):
        buffer.extend(values, [0, 0], [0.0, 0.0], values, [False, False])
    column = {key: [one[key] for one in values] for key in values[0]}
    buffer.extend(column, [0, 0], [0.0, 0.0], column, [False, False])


def test_tensors_of_other_libraries_convert_themselves() -> None:
    class Other(Tensor):
        def __array__(self, *_: Any, **__: Any) -> Any:
            return np.ones(3, np.float32)

        @property
        def resolve_conj(self) -> Any:
            raise AttributeError("only tensors of PyTorch have it")

    buffer = some()
    other = Other(RuntimeError, "this is not called")
    write_id = buffer.push(**{**row(10), "state": other}, x=1)
    assert buffer.get([write_id]).states.tolist() == [[1.0, 1.0, 1.0]]
    assert buffer.update_priorities([1, 2, 3], other) == 3


def test_hidden_values_are_not_stored() -> None:
    buffer = ReplayBuffer(capacity=20)
    hidden = np.ma.masked_array([1.0, 999.0, 2.0], [False, True, False])
    for state in (hidden, [hidden[0], hidden[1], hidden[2]], tuple(hidden)):
        with pytest.raises(SchemaError, match=r"'state(\[1\])?' .*a masked array would lo"):
            buffer.push(**{**row(0), "state": state})
    for states in (np.ma.stack([hidden] * 2), [hidden] * 2, [[*hidden], [*hidden]]):
        with pytest.raises(SchemaError, match=r"'state(\[1\])?' .*a masked array would lo"):
            buffer.extend(**{**columns(0, 2), "states": states})
    with pytest.raises(SchemaError, match=r"'reward' .*a masked array would lose its mask"):
        buffer.push(**{**row(0), "reward": hidden[1]})
    buffer.push(**{**row(0), "state": hidden.filled(0.0)})
    assert buffer.sample(1).states.tolist() == [[1.0, 0.0, 2.0]]


def test_lists_are_taken_while_another_thread_loads_the_masked_arrays() -> None:
    """numpy loads them by itself, in numpy.unique; until that is done the module has no names."""
    code = """
        import sys, threading
        import diskreplay
        from common import columns, row

        buffer = diskreplay.PrioritizedReplayBuffer(capacity=10)
        buffer.extend(**columns(0, 5))
        if "numpy.ma" in sys.modules:
            raise SystemExit(0)  # an older numpy loads it with itself
        has_begun, may_go_on = threading.Event(), threading.Event()

        class Slow:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "numpy.ma.core":
                    has_begun.set()
                    may_go_on.wait()

        sys.meta_path.insert(0, Slow)
        thread = threading.Thread(target=__import__, args=("numpy.ma",))
        thread.start()
        has_begun.wait()
        try:
            assert not hasattr(sys.modules["numpy.ma"], "MaskedArray")
            assert buffer.update_priorities([1, 2], [3.0, 4.0]) == 2
            assert buffer.get([[1], [2]]).rewards.tolist() == [[0.125], [0.25]]
            assert buffer.push(**{**row(5), "state": [1.0, 2.0, 3.0]}) == 5
        finally:
            may_go_on.set()
            thread.join()
        masked = sys.modules["numpy.ma"].masked_array([1], [True])
        try:
            buffer.get([masked])
        except diskreplay.ArgumentError as error:
            assert "a masked array would lose its mask" in str(error)
        else:
            raise AssertionError("it was taken")
    """
    run_python(code)


def test_a_long_value_is_shown_in_part() -> None:
    class Silent:
        def __repr__(self) -> str:
            raise RuntimeError("it is not shown")

    buffer = some()
    batch = buffer.sample(8)
    for value in (batch, [batch] * 99, "x " * 9999, b"y" * 9999, {"z": batch}, Silent(), 10**6000):
        calls_with_value: list[Callable[[], Any]] = [
            lambda v=value: buffer.sample(4, v),
            lambda v=value: buffer.batches(v),
            lambda v=value: ReplayBuffer(v),
            lambda v=value: ReplayBuffer(10, path=v if not isinstance(v, str) else v + "\0"),
            lambda v=value: ReplayBuffer(10, access=v),
            lambda v=value: ReplayBuffer(10, schema={"x": v}),
            lambda v=value: ReplayBuffer(10, schema={"x": ("f4", [v, v])}),
            lambda v=value: diskreplay.Field(v, "f4"),
            lambda v=value: diskreplay.Field("x", "f4", [-1] * 99999),
            lambda v=value: buffer.get([0], fields=[v]),
            lambda v=value: buffer.update_priorities([v], [1.0]),
            lambda v=value: buffer.batches(v, reuse=v),
            lambda v=value: buffer.batches(2, prepare=v),
        ]
        for call in calls_with_value:
            with pytest.raises((diskreplay.DiskReplayError, TypeError)) as caught:
                call()
            assert len(str(caught.value)) < 700
    with pytest.raises(ArgumentError, match=r"beta must .* give an earlier batch as out=$"):
        buffer.sample(8, batch)


# Fields given as what has a dtype and a shape


class Space:
    """What a space of Gymnasium has, and a specification of dm_env or JAX."""

    def __init__(self, dtype: Any, shape: Any) -> None:
        self.dtype, self.shape = dtype, shape


def test_a_field_may_be_given_as_a_space() -> None:
    pixels = Space(np.dtype(np.uint8), (4, 84, 84))
    for entry in (pixels, (pixels, ()), (pixels, (4, 84, 84)), np.zeros((4, 84, 84), np.uint8)):
        fields = {**FIELDS, "state": entry, "next_state": pixels, "action": Space("i8", ())}
        schema = diskreplay.Schema(fields)
        assert schema["state"] == diskreplay.Field("state", "u1", (4, 84, 84))
        assert schema["action"] == diskreplay.Field("action", "i8")
        assert diskreplay.estimate(fields, 1_000_000).disk_bytes > 2 * 4 * 84 * 84 * 1_000_000
    field = partial(diskreplay.Field, "x")
    assert field(pixels) == field("u1", (4, 84, 84))
    assert field(np.dtype(("f4", (3,)))) == field("f4", (3,))
    assert field(np.dtype((">f4", 3)), (2,)) == field("f4", (2, 3))
    assert field(np.float32) == field("f4")
    frame = np.zeros((4, 84, 84), np.uint8)
    with ReplayBuffer(4, schema={"state": pixels}) as buffer:
        buffer.push(frame, 0, 0.0, frame, False)
        assert buffer.sample(1).states.dtype == np.uint8


def test_a_space_without_a_dtype_or_a_shape_of_its_own_is_refused() -> None:
    class Strange:
        shape = ()

        @property
        def dtype(self) -> Any:
            raise RuntimeError("no dtype today")

    for entry in (Space(None, None), Space(None, (3,)), Space("f4", None)):
        with pytest.raises(SchemaError, match="'state': a Space has not one dtype and one shape"):
            diskreplay.estimate({**FIELDS, "state": entry}, 10)
    with pytest.raises(SchemaError, match=r"expected the shape \(3,\) of the Space.*\(found \(2,"):
        diskreplay.Field("x", Space("f4", (3,)), (2,))
    for entry in (Strange(), Space("f4", 3), Space("f4", "ab"), Space("nonsense", ())):
        with pytest.raises(SchemaError, match="field 'x' has no usable dtype or shape"):
            diskreplay.Field("x", entry)
    with pytest.raises(SchemaError, match="field 'x': expected numbers or bools"):
        diskreplay.Field("x", Space("U3", ()))
    assert diskreplay.Field("x", Space(str, ())).type == "str"  # as that of texts


def test_spaces_of_gymnasium_are_fields() -> None:
    spaces = pytest.importorskip("gymnasium").spaces
    box, discrete = spaces.Box(0, 255, (4, 8, 8), np.uint8), spaces.Discrete(4)
    given = {"state": box, "action": discrete, "next_state": box, "mask": spaces.MultiBinary(5)}
    for schema in (given, spaces.Dict(given)):
        buffer = ReplayBuffer(4, schema=schema)
        buffer.push(box.sample(), discrete.sample(), 0.0, box.sample(), False, mask=[0, 1, 0, 1, 1])
        batch = buffer.sample(1)
        assert (batch.states.dtype, batch.states.shape) == (np.uint8, (1, 4, 8, 8))
        assert (batch.actions.dtype, batch.mask.dtype) == (np.int64, np.int8)
    others = [spaces.Sequence(spaces.Text(3)), spaces.Graph(box, discrete)]
    if hasattr(spaces, "OneOf"):  # not in older releases
        others.append(spaces.OneOf([box]))
    for space in others:
        for given, name in ((space, "state"), (spaces.Dict(a=space), "state.a")):
            with pytest.raises(SchemaError, match=f"'{name}': a .* has not one dtype and one sh"):
                ReplayBuffer(4, schema={"state": given})


# Counts


def test_a_float_that_is_whole_is_a_count() -> None:
    for thousand in (1e3, np.float64(1000), np.float32(1000), np.int32(1000), np.array(1000)):
        buffer = PrioritizedReplayBuffer(
            thousand, beta_frames=thousand, seed=thousand, window_bytes=thousand
        )
        assert buffer.capacity == 1000
        assert buffer.stats()["beta_frames"] == 1000
        assert type(buffer.stats()["capacity"]) is int
        buffer.extend(**columns(0, 10))
        assert not buffer.is_ready(thousand)
        assert buffer.sample(np.float64(4)).states.shape == (4, 3)
        with buffer.batches(4.0, prefetch=1.0) as batches:
            assert next(batches).states.shape == (4, 3)
        assert diskreplay.SumTree(thousand).capacity == 1000
        assert diskreplay.estimate(FIELDS, thousand, window_bytes=thousand)
        assert diskreplay.Field("x", "f4", (thousand, 2)).shape == (1000, 2)
        assert diskreplay.importance_weights([0.5], thousand, 1.0) == 1.0


def test_a_store_takes_whole_floats(tmp_path: Any) -> None:
    with PrioritizedReplayBuffer(1e2, beta_frames=1e5, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 10))
    with diskreplay.open(tmp_path / "b", window_bytes=1e6, seed=3.0) as buffer:
        assert buffer.capacity == 100
        assert buffer.stats()["beta_frames"] == 100_000
    diskreplay.resize(tmp_path / "b", 5e1)
    assert diskreplay.verify(tmp_path / "b") == []
    diskreplay.merge([tmp_path / "b"], tmp_path / "c", capacity=2e1)
    with diskreplay.open(tmp_path / "c") as buffer:
        assert buffer.capacity == 20


def test_what_is_no_count_is_none() -> None:
    inf = float("inf")
    for bad in (True, np.True_, 1.5, np.float32(1.5), inf, -inf, float("nan"), "3", None, [3], 3j):
        for call in calls()["counts"]:
            with pytest.raises(ArgumentError, match=r"must be a whole number of at least \d"):
                call(bad)
    for bad in (2.0**70, 1e300):
        with pytest.raises(ArgumentError, match="capacity must be a whole number of at most"):
            ReplayBuffer(bad)

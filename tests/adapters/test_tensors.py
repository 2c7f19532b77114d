"""Tensors of PyTorch are taken wherever arrays are, and stored bit for bit as arrays would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from common import columns, row

import diskreplay
from diskreplay import ArgumentError, PrioritizedReplayBuffer, PriorityError, SchemaError

torch = pytest.importorskip("torch")


class OnADevice:
    """What a tensor on a GPU does: numpy cannot convert it before it has been copied to the CPU."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def detach(self) -> OnADevice:
        return OnADevice(self._tensor.detach())

    def cpu(self) -> Any:
        return self._tensor.cpu()

    @property
    def dtype(self) -> Any:
        return self._tensor.dtype

    def resolve_conj(self) -> OnADevice:
        return self

    def numpy(self, *, force: bool = False) -> Any:
        return self._tensor.numpy(force=True) if force else self.__array__()

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")

    def __index__(self) -> int:
        return int(self._tensor)

    def __float__(self) -> float:
        return float(self._tensor)


def with_grad(array: Any) -> Any:
    """Return a tensor that requires grad where its type allows that."""
    tensor = torch.from_numpy(np.asarray(array)).clone()
    return tensor.requires_grad_() * 1 if tensor.is_floating_point() else tensor


def non_contiguous(array: Any) -> Any:
    tensor = torch.from_numpy(np.asarray(array))
    wide = torch.stack([tensor, tensor], dim=-1)
    return wide[..., 0]


def in_a_list(array: Any) -> Any:
    """Return a list of tensors, nested where the array is; of a single number its tensor."""
    tensor = with_grad(array)
    return list(tensor) if tensor.ndim else tensor


MAKERS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda array: torch.from_numpy(np.asarray(array)),
    "with grad": with_grad,
    "parameter": lambda array: torch.nn.Parameter(with_grad(array).detach(), requires_grad=False),
    "non-contiguous": non_contiguous,
    "in a list": in_a_list,
    "in a nested tuple": lambda array: tuple(map(in_a_list, array)) if np.ndim(array) else array,
    "on a device": lambda array: OnADevice(with_grad(array)),
    "on a device, in a list": lambda array: [*map(OnADevice, in_a_list(array))]
    if np.ndim(array)
    else OnADevice(with_grad(array)),
}  # fmt: skip


def every_call(buffer: PrioritizedReplayBuffer, made: Callable[[Any], Any]) -> list[Any]:
    """Give a buffer arrays in all places that take some, and return what it says of them."""
    x = np.arange(12, dtype=np.float32).reshape(6, 2) / 3
    buffer.push(**{name: made(value) for name, value in row(0).items()}, x=made(x[0]))
    priority = made(np.float32(0.25))
    buffer.push(**row(1), x=made(x[1]), priority=priority)
    several = {name: made(column) for name, column in columns(2, 4).items()}
    buffer.extend(**several, x=made(x[2:]), priorities=made(np.float64([1.5, 2.5, 0.5, 0.1])))
    one = {name: made(column) for name, column in columns(6, 1).items()}
    buffer.extend(**one, x=made(x[:1]), priorities=made(np.float32([4.0])))
    ids = made(np.array([1, 5, 5]))
    applied = buffer.update_priorities(ids, made(np.float32([0.7, 8.0, 0.3])))
    tree = diskreplay.SumTree(8)
    tree.set(made(np.array([0, 5])), made(np.float32([1.0, 2.0])))
    tree.update(2, made(np.float32(0.5)))
    pairs = made(np.array([[0, 1, 2], [3, 4, 5]]))
    return [
        buffer.schema, applied, *buffer.get(made(np.arange(7))), *buffer.get(made(np.int64(3))),
        *buffer.get(pairs), buffer.priorities(pairs), *buffer.sample(made(np.int64(4))),
        buffer.sample(3, beta=made(np.float64(0.5))).weights, buffer.is_ready(made(np.int32(7))),
        *tree.find(made(np.float64([0.0, 1.2, 2.0]))), tree.masses(made(np.arange(6))),
        diskreplay.importance_weights(made(np.float64([0.1, 0.2])), 4, made(np.float64(0.5))),
    ]  # fmt: skip


def assert_taken_as_arrays_are(made: Callable[[Any], Any]) -> None:
    expected = every_call(PrioritizedReplayBuffer(capacity=20, seed=0), np.asarray)
    found = every_call(PrioritizedReplayBuffer(capacity=20, seed=0), made)
    assert len(expected) == len(found) > 20
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)
        assert getattr(one, "dtype", None) == getattr(other, "dtype", None)


@pytest.mark.parametrize("kind", MAKERS)
def test_tensors_are_stored_as_arrays_would_be(kind: str) -> None:
    assert_taken_as_arrays_are(MAKERS[kind])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_tensors_on_a_gpu_are_stored_as_arrays_would_be() -> None:
    assert_taken_as_arrays_are(lambda array: with_grad(array).cuda())
    assert_taken_as_arrays_are(
        lambda array: list(with_grad(array).cuda()) if np.ndim(array) else array
    )


@pytest.mark.parametrize("dtype", [np.float16, np.uint8, np.uint16, np.bool_, np.complex64])
def test_the_type_of_a_tensor_is_that_of_the_array(dtype: Any) -> None:
    values = np.array([[0, 1, 1], [1, 1, 0]], dtype)
    for made in (torch.from_numpy, with_grad, in_a_list):
        buffer = diskreplay.ReplayBuffer(capacity=4)
        twin = diskreplay.ReplayBuffer(capacity=4)
        buffer.extend(**columns(0, 2), x=made(values))
        twin.extend(**columns(0, 2), x=values)
        assert buffer.schema == twin.schema
        assert np.array_equal(buffer.get([0, 1]).x, values)


def test_float16_fields_stay_exact() -> None:
    buffer = diskreplay.ReplayBuffer(capacity=4, schema={"state": (torch.float16, (3,))})
    state = np.float16([0.1, 6e-8, 65504.0])
    buffer.push(with_grad(state), 0, 0.0, torch.from_numpy(state), False)
    assert buffer.get([0]).states.dtype == np.float16
    assert buffer.get([0]).states.tobytes() == state.tobytes()


def test_bfloat16_becomes_float32_and_loses_nothing() -> None:
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    numbers = numbers.reshape(-1, 8)
    expected = numbers.float().numpy()
    buffer = diskreplay.ReplayBuffer(capacity=len(numbers))
    n = len(numbers)
    for states in (
        numbers,
        list(numbers),
        OnADevice(numbers),
    ):  # every number that there is, NaN and infinity included
        buffer.extend(states, np.zeros(n), np.zeros(n), states, np.zeros(n))
        batch = buffer.get(np.arange(buffer.count - n, buffer.count))
        assert batch.states.dtype == np.float32
        np.testing.assert_array_equal(batch.states, expected)
    prioritized = PrioritizedReplayBuffer(capacity=4)
    prioritized.push(**row(0), priority=torch.tensor(0.5, dtype=torch.bfloat16))
    errors = torch.tensor([1.5], dtype=torch.bfloat16, requires_grad=True) * 2
    assert prioritized.update_priorities(torch.tensor([0]), errors) == 1
    assert prioritized.priorities([0]).tolist() == [3.0]


def test_tensors_that_are_read_through_a_sign_are_taken_as_they_read() -> None:
    numbers = torch.tensor([1 + 2j, 3 - 4j])
    for view in (numbers.conj(), numbers.conj().imag):
        buffer = diskreplay.ReplayBuffer(capacity=2)
        buffer.push(**row(0), x=view)
        assert buffer.get([0]).x[0].tolist() == view.tolist()


def test_dtypes_and_tensors_describe_fields() -> None:
    for entry in (torch.zeros(4, 84, dtype=torch.uint8), (torch.uint8, (4, 84)),
                  torch.zeros(4, 84, dtype=torch.uint8, device="meta")):  # fmt: skip
        assert diskreplay.Field("x", *entry if isinstance(entry, tuple) else (entry,)) == (
            diskreplay.Field("x", "uint8", (4, 84))
        )
    assert diskreplay.Field("x", torch.bfloat16) == diskreplay.Field("x", "float32")
    with pytest.raises(SchemaError, match="'x' has no usable dtype or shape"):
        diskreplay.Field("x", torch.float8_e5m2)


@pytest.mark.filterwarnings("ignore")  # torch warns that some of these are new, or old
def test_tensors_without_numbers_of_numpy_are_refused_with_the_way_out() -> None:
    quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)
    buffer = PrioritizedReplayBuffer(capacity=4, commit_interval=600)
    buffer.push(**row(0))
    before = buffer.stats()
    for tensor, reason in (
        (torch.ones(3, device="meta"), "no data"),
        (torch.ones(3).to_sparse(), "Sparse layout"),
        (torch.ones(1, 3).to_sparse_csr(), "SparseCsr layout"),
        (torch.ones(3).to_mkldnn(), "Mkldnn layout"),
        (quantized, "QUInt8"),
        (torch.ones(3).to(torch.float8_e4m3fn), "Float8"),
        (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "Nested"),
    ):
        way_out = rf"{reason}.*: give a tensor that has .* tensor\.dequantize\(\) or"
        for bad in (tensor, [tensor], (tensor, tensor)):
            for call, error in (
                (lambda bad=bad: buffer.push(**{**row(0), "state": bad}), SchemaError),
                (lambda bad=bad: buffer.push(**row(0), priority=bad), PriorityError),
                (lambda bad=bad: buffer.extend(**{**columns(0, 3), "rewards": bad}), SchemaError),
                (lambda bad=bad: buffer.update_priorities([0], bad), PriorityError),
                (lambda bad=bad: buffer.get(bad), ArgumentError),
            ):
                with pytest.raises(error, match=way_out):
                    call()
    assert buffer.stats() == before


def test_a_tensor_can_be_changed_after_it_was_pushed() -> None:
    buffer = PrioritizedReplayBuffer(capacity=4)
    state, priorities = torch.ones(3), torch.ones(1)
    buffer.push(state, 0, 1.0, state, False)
    ids = torch.tensor([0])
    buffer.update_priorities(ids, priorities)
    for tensor in (state, priorities, ids):
        tensor += 1
    assert buffer.get([0]).states.tolist() == [[1.0, 1.0, 1.0]]
    assert buffer.priorities([0]).tolist() == [1.0]

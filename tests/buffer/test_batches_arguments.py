"""Arguments of batches(): what is refused, and how much; prepare must not call the buffer."""

from __future__ import annotations

from typing import Any

import pytest
from common import columns
from drawn import KINDS, SIZE, as_bytes, filled

import diskreplay
from diskreplay import ArgumentError, PrioritizedReplayBuffer, ReplayBuffer, StorageError


@pytest.mark.parametrize(("prefetch", "readers"), [(0, 0), (1, 0), (1, 1)])
@pytest.mark.parametrize("call", ["sample", "update", "push", "close", "batches"])
def test_prepare_must_not_call_the_buffer(call: str, prefetch: int, readers: int) -> None:
    buffer = filled(PrioritizedReplayBuffer)
    buffer.flush()
    calls: dict[str, Any] = {
        "sample": lambda batch: buffer.sample(SIZE),
        "update": lambda batch: buffer.update_priorities(batch.indices, batch.weights),
        "push": lambda batch: buffer.extend(**columns(0, 1)),
        "close": lambda batch: buffer.close(),
        "batches": lambda batch: buffer.batches(SIZE),
    }
    are_calling = [True]

    def prepare(batch: Any) -> Any:
        return calls[call](batch) if are_calling else batch

    with buffer.batches(SIZE, prefetch, readers, prepare=prepare) as batches:
        with pytest.raises(StorageError, match="prepare= must not call the buffer; call it when"):
            next(batches)
        are_calling.clear()
        assert next(batches).states.shape == (SIZE, 3)
    buffer.sample(SIZE)


@pytest.mark.parametrize("prefetch", [0, 1])
def test_prepare_may_call_another_buffer(prefetch: int) -> None:
    buffer, other = filled(ReplayBuffer), filled(ReplayBuffer)
    twin = filled(ReplayBuffer)

    def prepare(batch: Any) -> Any:
        return other.sample(SIZE)

    with buffer.batches(SIZE, prefetch, prepare=prepare) as batches:
        assert as_bytes(next(batches)) == as_bytes(twin.sample(SIZE))


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_of_other_types_are_refused(kind: Any) -> None:
    buffer = filled(kind)
    for prepare in (3, "torch", [len]):
        with pytest.raises(ArgumentError, match=r"prepare must be a function .*, or None \(found"):
            buffer.batches(SIZE, prepare=prepare)
    for reuse in ("yes", "no", 1, None, [True]):
        with pytest.raises(ArgumentError, match=r"reuse must be True or False \(found"):
            buffer.batches(SIZE, reuse=reuse)
    with pytest.raises(ArgumentError, match=r"prioritized must be True or False \(found 'no'\)"):
        diskreplay.estimate(buffer.schema, 10, prioritized="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("readers", "reuse"), [(0, False), (0, True), (1, False)])
def test_more_batches_than_memory_are_refused(kind: Any, readers: int, reuse: bool) -> None:
    buffer = filled(kind)
    with pytest.raises(
        ArgumentError,
        match=r"prefetch=10{12} keeps 10{11}1 batches of 16 transitions in [\d.]+ TB of memory "
        r"\(this machine has [\d.]+ .B\): choose a smaller prefetch",
    ):
        buffer.batches(SIZE, 10**12, readers, reuse=reuse)
    assert buffer.stats()["memory_bytes"] < 1 << 30
    empty = kind(1000)
    with empty.batches(SIZE, 10**12, readers, reuse=reuse) as batches:  # rows of unknown size
        with pytest.raises(diskreplay.SampleError):
            next(batches)
        empty.extend(**columns(0, 100))
        with pytest.raises(ArgumentError, match="choose a smaller prefetch"):
            next(batches)
        assert empty.sample(SIZE).states.shape == (SIZE, 3)


def test_more_readers_than_a_machine_has_cores_are_refused() -> None:
    buffer = filled(ReplayBuffer)
    with pytest.raises(ArgumentError, match=r"readers must .* of at most 256 \(found 1000\)"):
        buffer.batches(SIZE, 2, readers=1000)
    with buffer.batches(SIZE, 2, readers=256) as batches:  # they start at the first batch
        batches.close()

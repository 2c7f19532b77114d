"""sample(n, out=batch): the batch of the same draw, in the arrays of an earlier one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pixels
import pytest
from drawn import KINDS, as_bytes
from inside import replica_of
from interrupted import interrupted_at
from pixels import ALONE, GROUPED, SMALL, WIDTHS

import diskreplay
from diskreplay import ArgumentError, PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.records.row_copier import LARGE_ROW

PLACES = [  # access, opened again, window_bytes
    ("exclusive", False, 1 << 30),  # all in the window
    ("exclusive", False, 0),  # the last 64 in the window, the others on disk
    ("shared", False, 0),
    ("exclusive", True, 0),  # all on disk
    ("shared", True, 0),
    ("read", True, 0),
    ("exclusive", True, 1 << 30),  # on disk at first
    ("read", True, 1 << 30),
]


def whole(batch: Any) -> tuple[bytes, bytes]:
    """All bytes of a batch; the write ids of a uniform one are none of its elements."""
    return as_bytes(batch), batch.indices.tobytes()


def arrays_of(batch: Any) -> dict[str, Any]:
    return {"indices": batch.indices, **batch._asdict()}


def spoilt(batch: Any) -> Any:
    for array in arrays_of(batch).values():
        array.reshape(-1).view(np.uint8)[:] = 0xA5
    return batch


def with_array(batch: Any, name: str, array: Any) -> Any:
    """The batch with another array, which of a uniform batch may be the write ids."""
    if name in batch._fields:
        return batch._replace(**{name: array})
    changed = batch._replace()
    changed.indices = array
    return changed


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("access", "again", "window_bytes"), PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_batches_are_those_without_out_bit_for_bit(
    kind: Any, access: str, again: bool, window_bytes: int, width: int, tmp_path: Path
) -> None:
    settings = {"access": "shared" if access == "shared" else "exclusive"}
    buffers = []
    for name in ("b", "twin"):
        buffer = pixels.filled(kind, tmp_path / name, width, window_bytes=window_bytes, **settings)
        if access == "shared":
            buffer.flush()
        if again:
            buffer.close()
            settings_again = {"access": access, "window_bytes": window_bytes, "seed": 3}
            buffer = diskreplay.open(tmp_path / name, **settings_again)
        buffers.append(buffer)
    buffer, twin = buffers
    assert pixels.records_per_value(buffer) == {SMALL: 5, GROUPED: 3, ALONE: 1}[width]
    assert (pixels.record_bytes(buffer) > LARGE_ROW) == (width != SMALL)
    for n in (16, 100):  # fewer, and more, than the smallest window has rows
        out = buffer.sample(n)
        assert whole(out) == whole(twin.sample(n))
        for turn in range(6):
            before = arrays_of(spoilt(out))
            given = {"beta": 0.3} if turn == 1 and kind is PrioritizedReplayBuffer else {}
            assert buffer.sample(n, out=out, **given) is out
            wanted = twin.sample(n, **given)
            assert whole(out) == whole(wanted)
            for name, array in arrays_of(out).items():
                assert array is before[name]
            pixels.check(out)
            if turn == 3:
                assert whole(buffer.sample(n)) == whole(twin.sample(n))
            if given and access != "read":
                for one in buffers:
                    one.update_priorities(out.indices, out.rewards)
    assert replica_of(buffer).draws == replica_of(twin).draws == 16
    for one in buffers:
        one.close()


@pytest.mark.parametrize("kind", KINDS)
def test_any_arrays_like_those_of_sample_are_taken(kind: Any, tmp_path: Path) -> None:
    with (
        pixels.filled(kind, tmp_path / "b", GROUPED) as buffer,
        pixels.filled(kind, tmp_path / "twin", GROUPED) as twin,
    ):
        out = buffer.sample(8)
        twin.sample(8)
        block = np.zeros(1 << 20, np.uint8)  # as shared or pinned memory: many arrays in one

        def in_a_block(batch: Any) -> Any:
            at = 0
            for name, array in arrays_of(batch).items():
                part = block[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
                batch, at = with_array(batch, name, part), at + array.nbytes
                at += -at % 8
            return batch

        again: list[Callable[[Any], Any]] = [
            copy.deepcopy,
            lambda batch: pickle.loads(pickle.dumps(batch)),  # noqa: S301
            in_a_block,
            lambda batch: batch._replace(states=np.zeros_like(batch.states)),
        ]
        if kind is ReplayBuffer:
            again.append(lambda _: buffer.get(range(100, 108)))
        else:
            again.append(lambda batch: type(batch)(*batch))
        for make in again:
            made = make(out)
            assert buffer.sample(8, out=made) is made
            assert whole(made) == whole(twin.sample(8))
        with buffer.batches(8, prefetch=2) as batches:
            out = next(batches)
            twin.sample(8)
            assert whole(buffer.sample(8, out=out)) == whole(twin.sample(8))
            next(batches)
            twin.sample(8)
        assert whole(buffer.sample(8, out=out)) == whole(twin.sample(8))


def test_what_a_batch_gave_before_stays(tmp_path: Path) -> None:
    """Write ids and rows that were handed over are copies, not the arrays that are used again."""
    settings: dict[str, Any] = {"path": tmp_path / "b", "access": "shared", "commit_interval": 1e9}
    with PrioritizedReplayBuffer(100, seed=1, **settings) as buffer:
        buffer.extend(**pixels.columns(4, 0, 50))
        buffer.flush()
        out = buffer.sample(8)
        first, found = out.indices.copy(), buffer.get(out.indices)
        buffer.update_priorities(out.indices, np.arange(8) + 2.0)
        buffer.push(*(column[0] for column in out[:5]), mask=out.mask[0], log_prob=out.log_prob[0])
        expected = [column[0].tobytes() for column in out[:5]]
        known = dict(zip(first.tolist(), (np.arange(8) + 2.0).tolist(), strict=True))
        for _ in range(5):
            buffer.sample(8, out=out)
        buffer.flush()
        assert found.indices.tolist() == first.tolist()
        assert buffer.priorities([*known]).tolist() == [*known.values()]
        assert [column[0].tobytes() for column in buffer.get([50])[:5]] == expected


# Refusals


class Tensor:
    """An array of another library."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.array


class Subclass(np.ndarray[Any, Any]):
    """An array whose assignments may mean anything."""


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


def misaligned(array: Any) -> Any:
    if array.dtype.itemsize == 1:  # is aligned anywhere
        return array[:0]
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    return memory.view(array.dtype).reshape(array.shape)


ARRAYS: dict[str, Callable[[Any], Any]] = {
    "it is None": lambda array: None,
    "it is a list": lambda array: array.tolist(),
    "it is a Tensor": Tensor,
    "it is a Subclass": lambda array: array.view(Subclass),
    "it is complex64 ": lambda array: array.astype("c8"),
    r"it is [<>a-z0-9]+ \(8,": lambda array: array.astype(">i2"),
    r"it is [a-z0-9]+ \(7,": lambda array: array[:7].copy(),
    r"it is [a-z0-9]+ \(1, 8": lambda array: array[None].copy(),
    "it is not contiguous": lambda array: np.repeat(array, 2, 0)[::2],
    "it is read-only": read_only,
    r"it is (not aligned|[a-z0-9]+ \(0,)": misaligned,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_that_cannot_be_written_is_named_and_nothing_is_drawn(
    kind: Any, tmp_path: Path
) -> None:
    with (
        pixels.filled(kind, tmp_path / "b", 4) as buffer,
        pixels.filled(kind, tmp_path / "twin", 4) as twin,
    ):
        out = buffer.sample(8)
        expected, kept = twin.sample(8), whole(out)
        draws, stats = replica_of(buffer).draws, buffer.stats()
        for name, array in arrays_of(expected).items():
            wanted = rf"{array.dtype} {array.shape}".replace("(", r"\(").replace(")", r"\)")
            start = rf"^out\.{name} must be a writeable, aligned, C-contiguous array, {wanted} "
            for problem, change in ARRAYS.items():
                bad = with_array(out, name, change(getattr(out, name)))
                with pytest.raises(ArgumentError, match=rf"{start}\({problem}.*leave out= away$"):
                    buffer.sample(8, out=bad)
        assert (replica_of(buffer).draws, buffer.stats(), whole(out)) == (draws, stats, kept)
        assert whole(buffer.sample(8, out=out)) == whole(twin.sample(8))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_batch_of_the_buffer_is_refused(kind: Any, tmp_path: Path) -> None:
    other_kind = KINDS[1 - KINDS.index(kind)]
    with (
        pixels.filled(kind, tmp_path / "b", 4) as buffer,
        pixels.filled(other_kind, tmp_path / "other", 4) as other,
        kind(10, path=tmp_path / "plain") as plain,
    ):
        plain.push([0.0], 0, 0.0, [0.0], False)
        draws, stats = replica_of(buffer).draws, buffer.stats()
        batch: Any = buffer.get(range(100, 108))  # of the elements of a uniform batch
        kind_of_batch = "Batch" if kind is ReplayBuffer else "PrioritizedBatch"
        elements = (
            rf" must be an earlier batch of this buffer, a {kind_of_batch} with the elements "
        )
        elements += r"states, .*, mask, log_prob \(found "
        bad: list[tuple[Any, str]] = [
            (5, rf"{elements}a int\)"),
            ([*batch], rf"{elements}a list\)"),
            (tuple(batch), rf"{elements}a tuple\)"),
            (batch._asdict(), rf"{elements}a dict\)"),
            (batch.states, rf"{elements}a ndarray\)"),
            (plain.sample(1), rf"{elements}a {kind_of_batch} with the elements states, .*dones"),
            (other.sample(8), rf"{elements}a (Prioritized)?Batch with the elements states, "),
        ]
        if kind is ReplayBuffer:
            anew, square = type(batch)(*batch), buffer.get([range(100, 108)])
            bad.append((anew, r".indices must be .*int64 \(8,\) \(it is None\)"))
            bad.append((square, r".states must be .*uint8 \(8, 4\) \(it is uint8 \(1, 8, 4\)\)"))
        else:
            bad.append((batch, rf"{elements}a Batch with the elements"))
        for out, message in bad:
            with pytest.raises(ArgumentError, match=rf"^out{message}.*leave out= away"):
                buffer.sample(8, out=out)
        with pytest.raises(diskreplay.SampleError, match="cannot draw 151"):
            buffer.sample(151, out=batch)
        with pytest.raises(ArgumentError, match="batch_size must be"):
            buffer.sample(0, out=batch)
        assert (replica_of(buffer).draws, buffer.stats()) == (draws, stats)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_with_bytes_in_common_are_refused(kind: Any) -> None:
    arguments = {"none": np.zeros((50, 0))}
    buffer = kind(100, seed=1)
    buffer.extend(**pixels.columns(4, 0, 50), **arguments)
    twin = kind(100, seed=1)
    twin.extend(**pixels.columns(4, 0, 50), **arguments)
    out = buffer.sample(8)
    twin.sample(8)
    block = np.zeros(8 * 9, np.uint8)
    nothing = block[16:16].view(np.float32).reshape(8, 0)  # has no bytes
    floats = block[:32].view(np.float32)
    apart = block[:32].reshape(8, 4), block[32:64].reshape(8, 4)
    bad = {
        "next_states": out._replace(next_states=out.states),
        "log_prob": out._replace(log_prob=out.rewards),
        "dones": out._replace(rewards=floats, dones=floats[:]),
        "(next_)?states": out._replace(states=apart[0], next_states=block[31:63].reshape(8, 4)),
        "mask": out._replace(mask=out.states.view(np.bool_)),
        "(indices|actions)": with_array(out, "indices", out.actions),
    }
    for name, batch in bad.items():
        message = rf"^out\.{name} must have memory of its own \(it has bytes in common with out\."
        with pytest.raises(ArgumentError, match=message):
            buffer.sample(8, out=batch)
    for batch in (
        out._replace(states=apart[1], next_states=apart[0]),
        out._replace(none=nothing, states=apart[0]),
    ):
        assert whole(buffer.sample(8, out=batch)) == whole(twin.sample(8))


# Interrupts


@pytest.mark.parametrize("width", [SMALL, GROUPED])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_at_any_line_leaves_the_buffer_sound(
    kind: Any, width: int, tmp_path: Path, long: bool
) -> None:
    step = 1 if long else 3
    with pixels.filled(kind, tmp_path / "twin", width) as twin:
        wanted = [whole(twin.sample(4)) for _ in range(1000 // step)]
    buffer = pixels.filled(kind, tmp_path / "b", width, window_bytes=0)
    out, line, came_so_far = buffer.sample(4), 0, True
    while came_so_far:
        line += step
        before = replica_of(buffer).draws
        came_so_far = interrupted_at(line, partial(buffer.sample, 4, out=out))
        after = replica_of(buffer).draws
        assert after - before in (0, 1)
        assert whole(buffer.sample(4, out=out)) == wanted[after]
        pixels.check(out)
    buffer.check()
    assert line > 50

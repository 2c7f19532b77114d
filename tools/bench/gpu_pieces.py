"""Times of single pieces of a step that is fed from memory: gathers, copies to a GPU, launches."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

import diskreplay
from bench.gpu_feeds import Setting, gathered
from bench.gpu_learner import Learner
from bench.rows import Array

Piece = Callable[[], object]


def pieces(setting: Setting, learner: Learner, seconds: float) -> dict[str, list[float]]:
    """Return the milliseconds of each call of each piece, for `seconds` each."""
    found = {name: times(piece, seconds) for name, piece in gathers(setting).items()}
    with contextlib.ExitStack() as stack:
        found |= {name: times(piece, seconds) for name, piece in reads(setting, stack).items()}
    if setting.device.type == "cuda":
        with contextlib.ExitStack() as stack:
            for name, piece in copies(setting, learner, stack).items():
                found[name] = times(piece, seconds, partial(torch.cuda.synchronize, setting.device))
    return found


def times(piece: Piece, seconds: float, settle: Piece = lambda: None) -> list[float]:
    """Call a piece again and again, after two calls that do not count.

    `settle` is called in between and not timed: it waits for work that a call has left to the GPU.
    """
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(found) < 3:
        start = time.perf_counter()
        piece()
        found.append((time.perf_counter() - start) * 1e3)
        settle()
    return found[2:]


def gathers(setting: Setting) -> dict[str, Piece]:
    """Return pieces that gather random rows of the states and the next states in memory."""
    rng = np.random.default_rng(1)
    drawn = itertools.cycle(rng.integers(0, len(setting.columns[0]), (64, setting.batch)))
    pixels = [setting.columns[0], setting.columns[3]]
    reused = [np.empty((setting.batch, *column.shape[1:]), np.uint8) for column in pixels]

    def fresh() -> list[Array]:
        rows = next(drawn)
        return [column[rows] for column in pixels]

    def again() -> None:
        rows = next(drawn)
        for column, out in zip(pixels, reused, strict=True):
            np.take(column, rows, axis=0, out=out, mode="clip")

    return {"gather into fresh arrays": fresh, "gather into the same arrays": again}


def reads(setting: Setting, stack: contextlib.ExitStack) -> dict[str, Piece]:
    """Return pieces that read a batch into the same arrays, as stacks, and of a log as frames."""
    found: dict[str, Piece] = {}
    for name, path in {"pairs": setting.path, **setting.logs}.items():
        buffer: Any = stack.enter_context(diskreplay.open(path, access="read"))
        for frames in (False, True) if name in setting.logs else (False,):
            batches = stack.enter_context(buffer.batches(setting.batch, reuse=True, frames=frames))
            found[f"read {'frames' if frames else 'stacks'}, {name}"] = batches.__next__
    return found


def copies(setting: Setting, learner: Learner, stack: contextlib.ExitStack) -> dict[str, Piece]:
    """Return pieces that need a GPU; the states and the next states are copied to it."""
    device, rows = setting.device, np.arange(setting.batch)
    pair = torch.from_numpy(np.stack([setting.columns[0][rows], setting.columns[3][rows]]))
    there = torch.empty_like(pair, device=device)
    batch = gathered(setting, rows)
    errors = learner(batch)
    aside, done = torch.cuda.Stream(device), torch.cuda.Event()
    pinned_errors = torch.empty(errors.shape, dtype=errors.dtype, pin_memory=True)

    def copy_from(source: Any) -> Piece:
        def piece() -> None:
            with torch.cuda.stream(aside):
                there.copy_(source, non_blocking=True)
                done.record()
            done.synchronize()

        return piece

    def launch_and_wait() -> None:
        learner(batch)
        torch.cuda.synchronize(device)

    def step_beside_copy() -> None:
        with torch.cuda.stream(aside):
            there.copy_(pinned, non_blocking=True)
        learner(batch).cpu()

    def copy_back_pinned() -> None:
        pinned_errors.copy_(errors, non_blocking=True)
        done.record()
        done.synchronize()

    pinned = pair.pin_memory()
    registered = in_shared_memory(pair)
    took = stack.enter_context(registered_with_cuda(registered))
    return {
        "copy to the GPU, not pinned": copy_from(pair),
        "copy to the GPU, pinned by torch": copy_from(pinned),
        "copy to the GPU, shared memory": copy_from(in_shared_memory(pair)),
        f"copy to the GPU, shared memory that was registered in {took:.1f} ms": copy_from(
            registered
        ),
        "launch of a step, without waiting": lambda: learner(batch),
        "step, and wait for the GPU": launch_and_wait,
        "step, and TD errors copied back": lambda: learner(batch).cpu(),
        "step beside a pinned copy, and TD errors copied back": step_beside_copy,
        "copy back of TD errors": errors.cpu,
        "copy back of TD errors, pinned": copy_back_pinned,
    }


def in_shared_memory(tensor: Any) -> Any:
    """Return a copy of a tensor in shared memory without a name, which ends with the copy."""
    memory = mmap.mmap(-1, tensor.nbytes)
    return torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)


@contextlib.contextmanager
def registered_with_cuda(tensor: Any) -> Iterator[float]:
    """Pin the memory of a tensor for CUDA; give the milliseconds that it took."""
    cudart, address = torch.cuda.cudart(), tensor.data_ptr()
    start = time.perf_counter()
    status = int(cudart.cudaHostRegister(address, tensor.nbytes, 0))
    took = (time.perf_counter() - start) * 1e3
    if status:
        raise RuntimeError(f"cudaHostRegister failed with error {status}")
    try:
        yield took
    finally:
        torch.cuda.synchronize()
        cudart.cudaHostUnregister(address)

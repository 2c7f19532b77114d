"""PackedBatch: a batch that lies in one piece of memory, for few copies to a device."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import torch

import diskreplay
from diskreplay.adapters.torch.tensors import (
    arrays_in,
    bytes_of_frames,
    put_together,
    with_ids_on_cpu,
)


class PackedBatch:
    """The memory of a batch that is used again: its arrays, and behind them its frames, if any.

    The arrays stay where they are. Of the frames another number is used in each batch, so what is
    behind them goes in copies of its own: the frames of a second size or codec::

        states' rows, actions, rewards, ... frames ------>      frames of the second kind ---->
        first copy ------------------------------------->       second copy ------------------>

    memory:  uint8, of this batch and others, as far as it was reserved
    """

    def __init__(self, batch: Any, base: mmap.mmap) -> None:
        self.memory = np.frombuffer(base, np.uint8)
        self._elements = [one for one in arrays_in(batch) if one is not batch.indices]  # keeps ids
        self._frames: dict[int, diskreplay.Frames] = {}  # one of each memory, by its place
        self._places: dict[int, int] = {}  # of the memory of each Frames, by its id
        arrays = []
        for element in self._elements:
            if isinstance(element, diskreplay.Frames):
                place = self._places[id(element)] = self._place(bytes_of_frames(element))
                self._frames.setdefault(place, element)
                arrays.append(element.rows)
            else:
                arrays.append(element)
        self._begin = min(map(self._place, arrays))
        self._end = max(self._place(array) + array.nbytes for array in arrays)
        self._parts = {
            id(array): (
                slice(at := self._place(array) - self._begin, at + array.nbytes),
                torch.from_numpy(array).dtype,
                array.shape,
            )
            for array in arrays
        }

    @classmethod
    def of(cls, batch: Any) -> PackedBatch | None:
        """Return a batch that is used again as one in a piece of memory; None for any other."""
        arrays = [
            one.rows if isinstance(one, diskreplay.Frames) else one
            for one in arrays_in(batch)
            if one is not batch.indices
        ]
        base = arrays[0].base
        if type(base) is not mmap.mmap or any(array.base is not base for array in arrays):
            return None
        found = cls(batch, base)
        return found if all(place >= found._end for place in found._frames) else None

    def pieces(self) -> list[Any]:
        """Return the memory that the present batch uses, as tensors of bytes."""
        ends = [place + one.frames.nbytes for place, one in sorted(self._frames.items())]
        begins = [self._begin, *sorted(self._frames)[1:]]
        parts = zip(begins, ends or [self._end], strict=True)
        return [torch.from_numpy(self.memory[begin:end]) for begin, end in parts]

    def unpacked(self, batch: Any, copies: list[Any]) -> tuple[Any, list[Any]]:
        """Return a batch of tensors in copies of the pieces, and the tensors that hold all others.

        The batch holds no frames: their memory is free as soon as the stacks are put together.
        """
        begin, head = self._begin, copies[0]
        frames: dict[int, Any] = {}
        for place, copy in zip(sorted(self._frames), copies, strict=False):
            shape = bytes_of_frames(self._frames[place]).shape
            frames[place] = (copy[place - begin :] if copy is head else copy).view(shape)
        if frames:
            head = head[: self._end - begin].clone()
        memory = [head]

        def part(array: Any) -> torch.Tensor:
            where, dtype, shape = self._parts[id(array)]
            return head[where].view(dtype).view(shape)

        def tensor_of(element: Any) -> torch.Tensor:
            if not isinstance(element, diskreplay.Frames):
                return part(element)
            of_memory = frames[self._places[id(element)]]
            memory.append(put_together(element, of_memory, part(element.rows)))
            return memory[-1]

        return with_ids_on_cpu(batch, tensor_of), memory

    def _place(self, array: Any) -> int:
        place: int = array.ctypes.data - self.memory.ctypes.data
        return place

"""BatchSlots: memory for a few batches of one size, which other processes may map, too.

A slot holds the arrays of a batch, each on pages of its own, and the request to read its rows::

    header     request number, rows to read, request number when done, whether it failed
    columns    one array for each field
    indices    the write ids, and the weights
    wanted     the places in the batch of the rows to read
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from diskreplay.aliases import Array, Ints
from diskreplay.buffer.batch_arrays import BatchArrays
from diskreplay.errors import StorageError
from diskreplay.schema import Schema

_HEADER = 4
_REQUEST, _N_WANTED, _DONE, _FAILED = range(_HEADER)


class BatchSlot:
    """The memory of one batch.

    arrays:  of the batch
    wanted:  the places in the batch of the rows to read, the first `n_wanted`
    """

    def __init__(self, header: Ints, arrays: BatchArrays, wanted: Ints) -> None:
        self.arrays = arrays
        self._header = header
        self._wanted = wanted

    # In the process that draws

    def ask(self, request: int, places: Ints) -> None:
        """Write a request to read the rows at some places of the batch."""
        self._wanted[: places.size] = places
        self._header[_N_WANTED] = places.size
        self._header[_REQUEST] = request

    def is_done(self, request: int) -> bool:
        """Return whether a request is done, or has failed."""
        return int(self._header[_DONE]) == request

    @property
    def has_failed(self) -> bool:
        """True if the request that is done could not be fulfilled."""
        return bool(self._header[_FAILED])

    # In the process that reads

    @property
    def request(self) -> int:
        """The number of the request."""
        return int(self._header[_REQUEST])

    @property
    def wanted(self) -> Ints:
        """The places in the batch of the rows to read."""
        return self._wanted[: int(self._header[_N_WANTED])]

    def finish(self, request: int, *, failed: bool) -> None:
        """Mark a request as done; the rows must be written."""
        self._header[_FAILED] = failed
        self._header[_DONE] = request


class BatchSlots:
    """Some slots in one piece of memory.

    descriptor:  of the memory; None allocates memory, of this process alone or `shared`
    """

    def __init__(
        self,
        schema: Schema,
        batch_size: int,
        number: int,
        *,
        are_weighted: bool = True,
        shared: bool = False,
        descriptor: int | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.batch_size = batch_size
        shapes: list[tuple[np.dtype[Any], tuple[int, ...]]] = [
            (np.dtype(np.int64), (_HEADER,)),
            *((field.dtype, (batch_size, *field.shape)) for field in schema.fields),
            (np.dtype(np.int64), (batch_size,)),
            (np.dtype(np.float32), (batch_size,)),
            (np.dtype(np.int64), (batch_size,)),
        ]
        sizes = [_whole_pages(dtype.itemsize * int(np.prod(shape))) for dtype, shape in shapes]
        self.nbytes = number * sum(sizes)
        with _errors_of_memory(self.nbytes):
            if shared:
                self.descriptor = _shared_memory(self.nbytes)
            if self.descriptor is None:
                memory = mmap.mmap(-1, self.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            else:
                memory = mmap.mmap(self.descriptor, self.nbytes)

        def arrays(at: int) -> Iterator[Array]:
            for (dtype, shape), size in zip(shapes, sizes, strict=True):
                yield np.ndarray(shape, dtype, memory, at)
                at += size

        self.slots: list[BatchSlot] = []
        for index in range(number):
            header, *columns, indices, weights, wanted = arrays(index * sum(sizes))
            batch = BatchArrays(columns, indices, weights if are_weighted else None)
            self.slots.append(BatchSlot(header, batch, wanted))

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; the memory is there as long as an array refers to it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def _whole_pages(n: int) -> int:
    return -(-max(n, 1) // mmap.PAGESIZE) * mmap.PAGESIZE


@contextlib.contextmanager
def _errors_of_memory(nbytes: int) -> Iterator[None]:
    try:
        yield
    except (OSError, OverflowError) as error:
        cause = getattr(error, "strerror", None) or error
        raise StorageError(
            f"there is no memory for batches that are drawn ahead: {nbytes >> 20} MiB ({cause}): "
            "choose a smaller prefetch, or readers=0 without reuse=True"
        ) from None


def _shared_memory(nbytes: int) -> int:
    """Return a descriptor of memory without a name: nothing is left when its users are gone."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("diskreplay")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        if hasattr(os, "posix_fallocate"):  # or the lack of memory would end the process later
            os.posix_fallocate(descriptor, 0, nbytes)
        else:
            os.ftruncate(descriptor, nbytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor

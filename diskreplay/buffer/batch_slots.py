"""BatchSlots: memory for a few batches of one size, which other processes may map, too.

A slot holds the arrays of a batch, each on pages of its own, and the request to read its rows::

    header     request number, rows to read, request number when done, whether it failed
    wanted     the places in the batch of the rows to read
    indices    the write ids
    chains     of n-step returns: the write ids of each, its length, and the discount
    columns    one array for each field, and the weights
    frames     of fields in the log, if they are wanted: their counts, their rows, and at last the
               frames, of which a part is used: one copy takes all from the columns to its end
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np

from diskreplay.aliases import Array, Ints
from diskreplay.buffer.batch_arrays import BatchArrays, batch_arrays, batch_shapes
from diskreplay.buffer.batch_form import BatchForm
from diskreplay.errors import StorageError
from diskreplay.observations import ArraySpec
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
    """Some slots in one piece of memory, of this process alone or shared with others.

    form:        of the batches, which have Frames only where the schema allows it
    shared:      whether to make memory that can be shared
    descriptor:  of memory that another process has made
    """

    def __init__(
        self,
        schema: Schema,
        batch_size: int,
        number: int,
        form: BatchForm,
        *,
        are_weighted: bool = True,
        shared: bool = False,
        descriptor: int | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.form = form = form.allowed_by(schema)
        self.slots: list[BatchSlot] = []
        self._descriptors = [] if descriptor is None else [descriptor]
        shapes = [
            (np.dtype(np.int64), (_HEADER,)),
            (np.dtype(np.int64), (batch_size,)),
            *batch_shapes(schema, batch_size, form),
        ]
        sizes = [_whole_pages(dtype.itemsize * int(np.prod(shape))) for dtype, shape in shapes]
        self.nbytes = number * sum(sizes)
        try:
            with _errors_of_memory(self.nbytes):
                if shared:
                    self._descriptors.append(_file_without_name())
                    _allocate(self._descriptors[0], self.nbytes)
                memory = self._mapped()
            for index in range(number):
                arrays = _arrays_in(memory, index * sum(sizes), shapes, sizes)
                header, wanted = next(arrays), next(arrays)
                batch = batch_arrays(schema, batch_size, arrays, form, are_weighted=are_weighted)
                self.slots.append(BatchSlot(header, batch, wanted))
        except BaseException:
            self.close()
            raise

    @property
    def descriptor(self) -> int:
        """The descriptor of the memory, if it is shared."""
        return self._descriptors[0]

    def close(self) -> None:
        """Close the descriptor, and forget the slots; memory stays where an array refers to it."""
        self.slots = []
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _mapped(self) -> mmap.mmap:
        if self._descriptors:
            return mmap.mmap(self.descriptor, self.nbytes)
        return mmap.mmap(-1, self.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _arrays_in(
    memory: mmap.mmap, at: int, shapes: Iterable[ArraySpec], sizes: Iterable[int]
) -> Iterator[Array]:
    """Yield arrays one behind the other."""
    for (dtype, shape), size in zip(shapes, sizes, strict=True):
        yield np.ndarray(shape, dtype, memory, at)
        at += size


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


def _file_without_name() -> int:
    """Return a descriptor of memory, of which nothing is left when its users are gone."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("diskreplay")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _allocate(descriptor: int, nbytes: int) -> None:
    if hasattr(os, "posix_fallocate"):  # or a lack of memory would end the process later
        os.posix_fallocate(descriptor, 0, nbytes)
    else:
        os.ftruncate(descriptor, nbytes)

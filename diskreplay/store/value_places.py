"""ValuePlaces: where values are in the data file, remembered so that they need not be looked up.

A value that is too long for a leaf has pages of its own. LMDB never writes to pages that the last
commit uses: a value stays at its place until a commit writes it anew. So a place that was looked up
once holds as of each later commit that did not write the value::

    as of commit 17    places[3] = page 812     places[5] = page 90
    this process is about to write value 5: places[5] = unknown, whether or not the commit succeeds
    as of commit 18    places[3] = page 812     places[5] = unknown, looked up when it is needed

A commit of another process may have written any value: then all places are unknown. The records
that are read at remembered places are checked like all others.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Bools, Ints
from diskreplay.records import PAGE_BYTES, PAGE_HEADER


class ValuePlaces:
    """The places of the values of one database in the data file of one environment."""

    def __init__(self, data: int) -> None:
        """Take a descriptor of the data file, which stays the caller's."""
        self._data = data
        self._pages = np.zeros(0, np.uint32)  # the first page of each value; 0 is unknown
        self._commit = -1  # the number of the commit as of which the places are known
        self._map: mmap.mmap | None = None
        self._has_no_map = False  # True where there is no address space, or none any more

    # What is known

    def starts(self, keys: Ints, nbytes: int, commit: int) -> tuple[Ints, Bools] | None:
        """Return where values start in the file, and which of these are known; None if none is.

        nbytes:  of a value; the map of the file reaches to the end of all known ones afterwards
        """
        if commit != self._commit or not keys.size:
            return None
        self._make_room(int(keys.max()) + 1)
        pages = self._pages[keys]
        known = pages > 0
        if not known.any():
            return None
        starts = pages * np.int64(PAGE_BYTES) + PAGE_HEADER
        return (starts, known) if self._maps(int(starts.max()) + nbytes) else None

    def learn(
        self,
        keys: Ints,
        values: Sequence[Any],
        nbytes: int,
        commit: int,
        offset: Callable[[int], int | None],
    ) -> None:
        """Remember the places of values of `nbytes` that were looked up as of a commit.

        offset:  returns where in the file an address is, None where that is not known
        """
        whole = np.fromiter(map(len, values), np.int64, len(values)) == nbytes
        if not whole.all():  # the last value of a ring may be shorter; others are damaged
            keys, values = keys[whole], [values[i] for i in np.flatnonzero(whole).tolist()]
        if self._has_no_map or commit < self._commit or not keys.size:
            return
        if commit != self._commit:
            self._pages[:] = 0
            self._commit = commit
        self._make_room(int(keys.max()) + 1)
        addresses = np.fromiter(map(_address, values), np.int64, len(values))
        first = offset(int(addresses[0]))
        if first is not None:
            pages, within = np.divmod(addresses - addresses[0] + first - PAGE_HEADER, PAGE_BYTES)
            # A value in a leaf does not begin at the head of a page.
            self._pages[keys] = np.where((within == 0) & (pages < 2**32), pages, 0)

    def forget(self, first: int, end: int) -> None:
        """Forget the values of the keys [first, end), which are about to be written."""
        self._pages[first:end] = 0

    def follow(self, commit: int) -> None:
        """Take the places as of a commit of this process; they were as of the one before it."""
        if self._commit == commit - 1:
            self._commit = commit

    def close(self) -> None:
        """Forget all places, give the map back, and remember nothing from now on."""
        self._has_no_map = True
        self._commit = -1
        self._pages = np.zeros(0, np.uint32)
        self._map = None  # views of it keep it as long as they are there

    # What is at the places

    def rows(self, starts: Ints, nbytes: int) -> NDArray[np.uint8]:
        """Return the bytes at some places of the file, each copied once, as uint8 (n, nbytes)."""
        file: Any = self._map
        # A view at each byte of the file: numpy gathers those that are wanted.
        everywhere = np.ndarray((len(file) - nbytes + 1,), f"V{nbytes}", file, strides=(1,))
        return everywhere[starts].view(np.uint8).reshape(starts.size, nbytes)

    def views(self, starts: Ints, nbytes: int) -> list[memoryview]:
        """Return the bytes at some places of the file, without copying them."""
        file: Any = self._map
        view = memoryview(file)
        return [view[start : start + nbytes] for start in starts.tolist()]

    def _maps(self, end: int) -> bool:
        """Map the data file at least up to a place; return False if that is not possible."""
        if self._map is None or len(self._map) < end:
            try:
                self._map = _map_of(self._data)
            except (OSError, OverflowError, ValueError):
                self._has_no_map = True
                return False
            if hasattr(mmap, "MADV_RANDOM"):
                self._map.madvise(mmap.MADV_RANDOM)
        return len(self._map) >= end

    def _make_room(self, n: int) -> None:
        if n > self._pages.size:
            more = np.zeros(max(n, 2 * self._pages.size), np.uint32)
            more[: self._pages.size] = self._pages
            self._pages = more


def _map_of(data: int) -> mmap.mmap:
    """Map an open file.

    A map keeps a duplicate of its descriptor. In a forked child that of the data file itself would
    keep the lock of the commits after the parent is killed: so the file is opened once more.
    """
    own = os.open(f"/proc/self/fd/{data}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mmap.mmap(own, os.fstat(own).st_size, mmap.MAP_SHARED, mmap.PROT_READ)
    finally:
        os.close(own)


def _address(value: Any) -> int:
    found: int = np.frombuffer(value, np.uint8).__array_interface__["data"][0]
    return found

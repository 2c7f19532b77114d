"""ReadAhead: pages that are on disk only are read before the caller needs them.

A page that is not in memory holds up the caller that touches it, some 70 microseconds on a fast
disk, and the disk can read many at once, or many in a row::

    caller   get get get .. these were on disk ..  wait  get get get get get get get get
    helpers                                   get get
                                              get get         each throws away what it read
                                              get get

Values that stand in a row in the file, as in a scan, are read from the file in one piece instead.
Neither can change what the caller reads, only whether it is in memory by then: helpers take read
transactions of their own. And values that are in memory already take as long as ever: the operating
system counts the pages that a thread had to wait for.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from time import perf_counter
from typing import Any

import lmdb
import numpy as np

from diskreplay.aliases import Ints
from diskreplay.bell import Bell
from diskreplay.store.tables import integer_keys

HELPERS = 16
_FEW = 512  # values in no order that are read as they are, unless those before them were slow
_FIRST_LOOK = 8  # values read before it is asked whether they were in memory
_MOST_UNSEEN = 64  # values read until it is asked again
_WORTH_IT = 8  # pages to wait for that take longer than to wake the helpers
_SLOW_SECONDS = 4e-6  # for a value; a few times what it takes in memory
_PIECE_BYTES = 1 << 20
_WHOSE = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


def pages_waited_for() -> int:
    """Return how many pages this thread had to have read from disk so far."""
    return resource.getrusage(_WHOSE).ru_majflt


class ReadAhead:
    """Reads pages of one environment. Its threads are started when they are first needed."""

    def __init__(self, env: lmdb.Environment, data: int) -> None:
        """Take an environment and a descriptor of its data file, which stays the caller's."""
        self.helpers: list[threading.Thread] = []
        self._env = env
        self._file = _MappedFile(data)
        self._shares: SimpleQueue[_Share | None] = SimpleQueue()
        self._given: list[_Share] = []
        self._was_cold = True  # nobody has read anything yet

    def values(self, txn: Any, database: Any, numbers: Ints) -> list[Any]:
        """Return the value of each number as `txn` has it, empty where there is none."""
        if not len(numbers):
            return []  # which tells nothing of where values are
        get, keys = txn.get, integer_keys(numbers)
        few = _FIRST_LOOK if _stand_in_a_row(numbers) else _FEW  # a scan goes on for long
        if not self._was_cold and len(keys) <= few:
            started = perf_counter()
            found = [get(key, b"", database) for key in keys]
            enough = max(len(keys), _FIRST_LOOK)  # the time of one or two values tells little
            self._was_cold = perf_counter() - started > _SLOW_SECONDS * enough
            return found
        was_cold = self._was_cold
        self._was_cold = was_cold and len(keys) <= _FIRST_LOOK
        found = []
        for begin, end in self.parts(txn, database, numbers, was_cold=was_cold):
            found.extend([get(key, b"", database) for key in keys[begin:end]])
        return found

    def parts(
        self, txn: Any, database: Any, numbers: Ints, *, was_cold: bool = False
    ) -> Iterator[tuple[int, int]]:
        """Yield (begin, end) of parts of numbers whose values the caller then reads, in order.

        When many of a part were on disk only, all that are left are read before the next part.
        Cost, where all is in memory: less than a microsecond for each part.

        was_cold:  the values before these were on disk only: then it is asked after each value
        """
        begin, total, streamed = 0, len(numbers), False
        read, n, most = 0, _FIRST_LOOK, _MOST_UNSEEN
        if was_cold:
            n = most = 1
        before, started = pages_waited_for(), perf_counter()

        def is_slow() -> bool:
            # The clock is asked first, since it is cheap; the pages decide.
            return perf_counter() - started > _SLOW_SECONDS * read > 0.0

        while begin < total:
            if is_slow() and (pages_waited_for() - before) * (total - begin) >= _WORTH_IT * read:
                rest = np.unique(numbers[begin:])
                if not streamed and self._file.read(txn, database, rest):
                    streamed = True
                else:
                    self._share_out(database, rest)
                self._was_cold = True
                read, n, most = 0, _FIRST_LOOK, _MOST_UNSEEN
                before, started = pages_waited_for(), perf_counter()
            end = min(begin + n, total)
            yield begin, end
            read, begin, n = read + end - begin, end, min(8 * n, most)
        if is_slow():  # so that the next values are not taken for hot
            self.note_pages(pages_waited_for() - before)

    @property
    def was_cold(self) -> bool:
        """True if the values of the last call were on disk only."""
        return self._was_cold

    def note_pages(self, waited_for: int) -> None:
        """Take account of pages that a caller had to wait for when it read remembered places."""
        if waited_for >= _WORTH_IT:
            self._was_cold = True

    def offset_of(self, address: int) -> int | None:
        """Return where in the data file an address in its map is, None if it is in no map."""
        return self._file.offset_of(address)

    def forget_map(self) -> None:
        """Forget where in memory the file is: the map was moved."""
        self._file.mapped = range(0)

    def settle(self) -> None:
        """Return when no helper reads; no share is begun any more. It may be done again."""
        for share in self._given:
            if not share.take("caller"):
                share.wait()
        self._given = []

    def stop(self) -> None:
        """End the helpers, and wait for their end. A forked child has none."""
        self.settle()
        self._shares.put(None)
        for helper in self.helpers:
            if helper is not threading.current_thread():  # the collector ends a store anywhere
                helper.join()
        self.helpers = []

    def _share_out(self, database: Any, numbers: Ints) -> None:
        """Read the values of some numbers on helper threads, and wait for the threads."""
        keys = integer_keys(numbers)
        size = -(-len(keys) // HELPERS)
        self.settle()  # an interrupted call may have left some
        try:
            with contextlib.suppress(RuntimeError):  # no more threads: as many as there are
                self._start_helpers()
            if self.helpers:
                spans = range(0, len(keys), size)
                self._given = [_Share(database, keys[at : at + size]) for at in spans]
            for share in self._given:
                self._shares.put(share)
            for share in self._given:
                share.wait()
        finally:
            self.settle()

    def _start_helpers(self) -> None:
        while len(self.helpers) < HELPERS:
            helper = threading.Thread(
                target=_help, args=(self._env.begin, self._shares), name="diskreplay", daemon=True
            )
            helper.start()
            self.helpers.append(helper)


class _Share:
    """Some keys for one helper, which either takes them or is too late."""

    def __init__(self, database: Any, keys: list[bytes]) -> None:
        self.database = database
        self.keys = keys
        self.is_done = False
        self._done = Bell()
        self._taken: dict[str, str] = {}

    def take(self, taker: str) -> bool:
        """Return whether `taker` has this share, from now on or from before."""
        return self._taken.setdefault("by", taker) == taker

    def end(self) -> None:
        """Mark the share as read, and wake the caller."""
        self.is_done = True
        self._done.ring()

    def wait(self) -> None:
        """Return when the helper is done with it."""
        self._done.wait_until(lambda: self.is_done)


def _help(begin: Callable[..., Any], shares: SimpleQueue[_Share | None]) -> None:
    while (share := shares.get()) is not None:
        if share.take("helper"):
            try:
                # An error of the store is for the caller to meet, and to tell.
                with contextlib.suppress(Exception):
                    _read(begin(buffers=True), share)
            finally:
                share.end()
        del share
    shares.put(None)  # for the next helper


def _read(txn: Any, share: _Share) -> None:
    try:
        get, database = txn.get, share.database
        for key in share.keys:
            get(key, b"", database)
    finally:
        txn.abort()


class _MappedFile:
    """The data file, for reading values that stand in a row in it.

    mapped:  the addresses of LMDB's map of it, empty where they are not known
    """

    def __init__(self, descriptor: int) -> None:
        self.mapped = range(0)
        self._descriptor = descriptor
        self._read_to = 0  # the end of the part that was read last

    def read(self, txn: Any, database: Any, numbers: Ints) -> bool:
        """Read the part of the file that holds the values of numbers, if there is one such part.

        Where it begins behind the part that was read last, as in a scan, a whole piece is read.

        numbers:  sorted; only numbers without gaps are likely to stand in a row
        """
        if not _stand_in_a_row(numbers):
            return False
        ends = integer_keys(numbers[[0, -1]])
        values = [txn.get(key, None, database) for key in ends]
        if not all(isinstance(value, memoryview) and value for value in values):
            return False
        first, last = (
            np.frombuffer(value, np.uint8).__array_interface__["data"][0] for value in values
        )
        length = len(values[0])
        if abs(last - first) > 2 * numbers.size * max(length, 64) or not self._find(first):
            return False
        begin = min(first, last) - self.mapped.start
        end = begin + abs(last - first) + length
        if 0 <= begin - self._read_to <= _PIECE_BYTES:
            end = max(end, begin + _PIECE_BYTES)
        self._read_to = end
        return self._read(begin, end)

    def offset_of(self, address: int) -> int | None:
        """Return where in the file an address is, None if it is in no map of it."""
        return address - self.mapped.start if self._find(address) else None

    def _find(self, address: int) -> bool:
        """Return whether it is known where in memory the file begins."""
        if address not in self.mapped:
            with contextlib.suppress(OSError, ValueError), open("/proc/self/maps") as maps:
                for line in maps:
                    begin, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
                    if begin <= address < end:
                        self.mapped = range(begin - int(line.split()[2], 16), end)
                        return True
            return False
        return True

    def _read(self, begin: int, end: int) -> bool:
        try:
            piece = bytearray(min(_PIECE_BYTES, end - begin))
            for at in range(begin, end, _PIECE_BYTES):
                os.preadv(self._descriptor, [memoryview(piece)[: end - at]], at)
        except OSError:
            return False
        return True


def _stand_in_a_row(numbers: Ints) -> bool:
    """Return whether numbers may be those of values in a row: sorted, they have no gaps."""
    return bool(numbers[-1] - numbers[0] + 1 == numbers.size)

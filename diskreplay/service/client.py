"""The clients of a server: a replay of each kind, over a connection."""

from __future__ import annotations

import contextlib
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diskreplay.aliases import PathLike
from diskreplay.buffer import (
    Batch,
    Mark,
    PrioritizedBatch,
    PrioritizedSequenceBatch,
    SequenceBatch,
    checked_write_ids,
    refused_priorities,
)
from diskreplay.errors import (
    ArgumentError,
    DiskReplayError,
    LockedError,
    ServiceError,
    StorageError,
)
from diskreplay.sampling import Values, checked_priorities
from diskreplay.schema import Schema
from diskreplay.service.connection import Connection
from diskreplay.service.outbox import Outbox
from diskreplay.service.remote_writing import RemoteWriting
from diskreplay.service.tls import client_arguments
from diskreplay.store import DATA, building, check_outside, holds_store
from diskreplay.validation import checked_path, real_number, whole_number, whole_numbers

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST_QUEUE_BYTES = 2**40


class RemoteReplay(RemoteWriting):
    """A replay on a server: what both kinds can do."""

    def __init__(
        self,
        connection: Connection,
        facts: dict[str, Any],
        queue_bytes: int,
        reconnect: tuple[Any, ...],
    ) -> None:
        self._connection, self._reconnect = connection, reconnect
        self._outbox = Outbox(connection, queue_bytes, facts["group_rows"])
        self._first_push = threading.Lock()
        self._batches = weakref.WeakSet()
        self._capacity, self._path = facts["capacity"], Path(facts["path"])
        self._schema = None if facts["schema"] is None else Schema.from_plain(facts["schema"])

    # The whole replay

    def stats(self) -> dict[str, Any]:
        """Return a description of the replay, as a plain dict, see ReplayBuffer.stats."""
        found: dict[str, Any] = self._call("stats")
        return found

    def check(self) -> None:
        """Raise DamageError with the faults found by the server."""
        self._call("check")

    def refresh(self) -> None:
        """Load the commits of other processes, on the server."""
        self._call("refresh")

    def save(self, path: PathLike) -> None:
        """Write the whole replay to a new store on this machine, see ReplayBuffer.save."""
        self._flush_rows()
        target = checked_path(path)
        if holds_store(target):
            raise StorageError(f"{target} holds a store already: choose a new directory")
        check_outside(target)
        with self._connection.channel() as channel:
            uuid, size = channel.call("begin_save")
            with building(target, uuid) as place, (place / DATA).open("wb") as file:
                while (at := file.tell()) < size:
                    part = channel.call("read_saved", at)
                    if not 0 < len(part) <= size - at:
                        raise ServiceError(
                            f"{self._connection.url} sent {len(part):,} bytes of its store "
                            f"(expected 1 to {size - at:,}): save again"
                        )
                    file.write(part)
            channel.call("end_save")

    def mark(self, name: str, data: Any = None) -> None:
        """Commit everything under a name, see ReplayBuffer.mark."""
        self._flush_rows()
        self._connection.call("mark", name, data, is_repeatable=False)

    def marks(self) -> list[Mark]:
        """Return the marks, oldest first; raise DamageError for a damaged one."""
        return [Mark(**plain) for plain in self._call("marks")]

    def delete_mark(self, name: str) -> None:
        """Commit everything, and delete a mark, see ReplayBuffer.delete_mark."""
        self._flush_rows()
        self._connection.call("delete_mark", name, is_repeatable=False)

    def rewind(self, name: str, missing: str = "raise") -> int:
        """Go back to a mark, see ReplayBuffer.rewind; rows that wait are stored before."""
        self._flush_rows()
        found: int = self._connection.call("rewind", name, missing, is_repeatable=False)
        self._drop_drawn()
        return found

    def close(self) -> None:
        """Commit the rows that wait, and close the connection; a second call does nothing.

        Raises the error of rows that are not stored; the connection is closed then, too. One that
        is interrupted leaves it open, and the rows are sent.
        """
        if self._connection.is_closed:
            return
        for batches in list(self._batches):
            batches.close()
        try:
            self._flush_rows()
            if self._outbox.has_sent:
                # It spares the server a note; one that is gone is not waited for.
                self._connection.close_channel()  # it may be to a server that was killed since
                with contextlib.suppress(DiskReplayError):
                    self._connection.call("leave", self._outbox.client, timeout=0.0)
        except DiskReplayError:
            self._end()
            raise
        self._end()

    def _end(self) -> None:
        """Close the connection; rows that still wait are not sent."""
        self._connection.is_closed = True
        self._outbox.stop()
        self._connection.close()

    def __enter__(self) -> Self:
        self._connection.check_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        outbox = getattr(self, "_outbox", None)
        if outbox is not None:
            outbox.end()  # its thread sends the rows that wait

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the arguments that connect to the same replay in another process."""
        return connected, self._reconnect

    def __copy__(self) -> NoReturn:
        """Raise LockedError: rows that wait belong to one client."""
        raise LockedError(
            f"a client of {self._connection.url} cannot be copied in memory: diskreplay.connect "
            "makes another one"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        """Raise LockedError, as `copy.copy` does."""
        self.__copy__()

    def __repr__(self) -> str:
        facts = [f"capacity={self.capacity}", f"url={self._connection.url!r}"]
        if self._connection.is_closed:
            facts.insert(1, "closed")
        else:  # the size, unless the server is away, or refuses it to this token
            with contextlib.suppress(DiskReplayError):
                facts.insert(1, f"size={self._connection.call('len', timeout=0.0)}")
        return f"{type(self).__name__}({', '.join(facts)})"


class RemoteReplayBuffer(RemoteReplay):
    """A ReplayBuffer on a server."""

    def sample(
        self,
        batch_size: int,
        *,
        out: Batch | None = None,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> Batch:
        """Draw a batch, see ReplayBuffer.sample."""
        found: Batch = self._sample(batch_size, out, pad, n_step, gamma)
        return found

    def sample_sequences(
        self, n: int, length: int, *, pad: bool = True, across: bool = False
    ) -> SequenceBatch:
        """Draw sequences of transitions, see ReplayBuffer.sample_sequences."""
        found: SequenceBatch = self._call("sample_sequences", n, length, pad=pad, across=across)
        return found

    def _checked_priorities(self, priorities: ArrayLike, n: int) -> Values:
        raise refused_priorities()


class RemotePrioritizedReplayBuffer(RemoteReplay):
    """A PrioritizedReplayBuffer on a server."""

    _is_weighted = True

    def sample(
        self,
        batch_size: int,
        beta: float | None = None,
        *,
        out: PrioritizedBatch | None = None,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> PrioritizedBatch:
        """Draw a batch by priority, see PrioritizedReplayBuffer.sample."""
        more: dict[str, Any] = {}
        if beta is not None:
            why = ": give an earlier batch as out=" if isinstance(beta, tuple) else ""
            more["beta"] = real_number("beta", beta, low=0.0, high=1.0, why=why)
        found: PrioritizedBatch = self._sample(batch_size, out, pad, n_step, gamma, **more)
        return found

    def sample_sequences(
        self,
        n: int,
        length: int,
        *,
        pad: bool = True,
        across: bool = False,
        beta: float | None = None,
    ) -> PrioritizedSequenceBatch:
        """Draw sequences by priority, see PrioritizedReplayBuffer.sample_sequences."""
        options = {"pad": pad, "across": across, "beta": beta}
        found: PrioritizedSequenceBatch = self._call("sample_sequences", n, length, **options)
        return found

    def update_priorities(self, indices: ArrayLike, priorities: ArrayLike) -> int:
        """Set priorities by write id, see PrioritizedReplayBuffer.update_priorities."""
        write_ids = checked_write_ids(indices)
        checked = checked_priorities(priorities, write_ids.size)
        found: int = self._call("update_priorities", write_ids, checked)
        return found

    def priorities(self, indices: ArrayLike) -> NDArray[np.float32]:
        """Return the raw priorities of transitions by write id, of the shape of `indices`."""
        ids = whole_numbers("indices", indices, any_shape=True)
        found: NDArray[np.float32] = self._call("priorities", ids)
        return found

    @property
    def beta(self) -> float:
        """The exponent of the importance weights in the next batch."""
        found: float = self._call("beta")
        return found

    @property
    def frame(self) -> int:
        """The number of batches given so far, over all runs and clients."""
        found: int = self._call("frame")
        return found

    @property
    def max_priority(self) -> float:
        """The largest priority so far, given to new transitions; 1.0 before the first priority."""
        found: float = self._call("max_priority")
        return found

    def _checked_priorities(self, priorities: ArrayLike, n: int) -> Values:
        return checked_priorities(priorities, n)


def connected(
    url: str,
    token: str | None,
    timeout: float,
    queue_bytes: int,
    ca: PathLike | None,
    cert: tuple[PathLike, PathLike] | None,
) -> RemoteReplay:
    """Return a client of the kind of the replay at a URL, see `connect`."""
    if token is not None and not isinstance(token, str):
        raise ArgumentError(f"token must be a string, or None (found {type(token).__name__})")
    seconds = real_number("timeout", timeout, low=0.0, high=float("inf"))
    most = whole_number("queue_bytes", queue_bytes, at_least=1, at_most=_MOST_QUEUE_BYTES)
    connection = Connection(url, token, seconds, client_arguments(url, ca, cert))
    try:
        match facts := connection.call("describe"):
            case {
                "prioritized": bool(), "capacity": int(), "path": str(), "schema": _,
                "group_rows": int(),
            }:  # fmt: skip
                pass
            case _:
                raise ServiceError(
                    f"{url} is no diskreplay serve of a version that this client knows"
                )
        kind = RemotePrioritizedReplayBuffer if facts["prioritized"] else RemoteReplayBuffer
        return kind(connection, facts, most, (url, token, seconds, most, ca, cert))
    except BaseException:
        connection.close()
        raise

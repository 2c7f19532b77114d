"""RemoteReading: the methods of a client that read and draw."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from diskreplay.aliases import Ints
from diskreplay.buffer import BatchForm, Draw, Experience, checked_n_step, checked_pad, with_extra
from diskreplay.buffer import reused_arrays as arrays_of
from diskreplay.schema import Schema
from diskreplay.service.connection import Connection
from diskreplay.service.remote_batches import RemoteBatches
from diskreplay.validation import true_or_false, whole_number, whole_numbers


class RemoteReading:
    """A replay on a server: the methods that read and draw transitions."""

    _connection: Connection
    _schema: Schema | None
    _capacity: int
    _path: Path
    _batches: weakref.WeakSet[RemoteBatches]
    _is_weighted = False

    # Drawing

    def _sample(
        self, batch_size: int, out: Any, pad: bool, n_step: int, gamma: float, **more: Any
    ) -> Any:
        """Draw a batch, into the arrays of an earlier one if it is given."""
        n_steps = checked_n_step(n_step, gamma, self._capacity)
        form = BatchForm(pad=checked_pad(pad, out=out), n_step=n_steps)
        options = {**form.arguments(), **more}
        schema = self.schema
        if out is None or schema is None:
            return self._call("sample", batch_size, **options)
        n = whole_number("batch_size", batch_size, at_least=1)
        arrays = arrays_of(out, schema, n, form, are_weighted=self._is_weighted)
        batch = self._call("sample", n, **options)
        columns = list(batch)
        discounts = columns.pop() if n_steps is not None else None
        weights = None
        if self._is_weighted:
            weights = columns[5]
            del columns[5:7]
        lists = {field.name: values for values, field, _ in arrays.lists}
        of_fields = zip(schema.fields, arrays.columns, schema.flat(columns), strict=True)
        for field, array, column in of_fields:
            target = lists[field.name] if field.varies else array
            target[:] = column
        arrays._replace(lists=()).fill(batch.indices, weights, discounts)
        vars(out).update({k: v for k, v in vars(batch).items() if k != "indices"})
        return out

    def batches(
        self,
        batch_size: int,
        prefetch: int = 0,
        readers: int = 0,
        *,
        reuse: bool = False,
        prepare: Callable[[Any], Any] | None = None,
        frames: bool = False,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> RemoteBatches:
        """Return an endless iterator over batches, see ReplayBuffer.batches.

        With prefetch=k the server may send k batches before they are asked for: those that were not
        returned when the iterator is closed are drawn again, unless others have drawn meanwhile.

        readers:  is checked and not used: the server reads
        """
        self._connection.check_open()
        n_steps = checked_n_step(n_step, gamma, self._capacity)
        found = RemoteBatches(
            self, batch_size, prefetch, readers,
            reuse=reuse, prepare=prepare, frames=frames, pad=pad, n_step=n_steps,
        )  # fmt: skip
        self._batches.add(found)
        return found

    def draw(self, n: int) -> Draw:
        """Draw transitions, and return write ids and probabilities, see ReplayBuffer.draw."""
        found: Draw = self._call("draw", n)
        return found

    # Reading by write id

    def get(
        self, indices: ArrayLike, fields: Iterable[str] | None = None, *, pad: bool = False
    ) -> Any:
        """Return transitions by write id, see ReplayBuffer.get."""
        is_padded = checked_pad(pad)
        ids = whole_numbers("indices", indices, any_shape=True)
        if fields is not None and not isinstance(fields, str | list):
            try:
                fields = list(fields)
            except Exception:  # the server says what is wrong with it
                return self._call("get", ids, repr(fields), pad=is_padded)
        return self._call("get", ids, fields, pad=is_padded)

    def runs_of(self, indices: ArrayLike) -> Ints:
        """Return the number of the run that wrote each transition, see ReplayBuffer.runs_of."""
        found: Ints = self._call("runs_of", whole_numbers("indices", indices, any_shape=True))
        return found

    def __iter__(self) -> Iterator[Experience]:
        """Yield the live transitions, oldest first; those evicted meanwhile are left out."""
        at, end = 0, None
        while (found := self._call("rows", at, end)) is not None:
            end, batch = found
            schema: Any = self.schema  # as there are transitions
            kind = with_extra(Experience, schema.extra_names)
            rows = zip(*schema.flat(batch), strict=True)
            yield from map(kind._make, rows if schema.is_flat else map(schema.nested, rows))
            at = int(batch.indices[-1]) + 1

    def episodes(self, newest_first: bool = False) -> Iterator[Any]:
        """Return an iterator over the whole episodes, see ReplayBuffer.episodes."""
        backwards = true_or_false("newest_first", newest_first)
        self._connection.check_open()
        return self._episodes(backwards)

    def _episodes(self, backwards: bool) -> Iterator[Any]:
        with self._connection.channel() as channel:
            channel.call("begin_episodes", backwards)
            while (episode := channel.call("next_episode")) is not None:
                yield episode

    def __len__(self) -> int:
        found: int = self._call("len")
        return found

    def is_ready(self, n: int) -> bool:
        """Return whether a batch of n transitions can be drawn now."""
        found: bool = self._call("is_ready", n)
        return found

    @property
    def capacity(self) -> int:
        """The number of transitions that the replay holds when full."""
        return self._capacity

    @property
    def count(self) -> int:
        """The number of transitions ever written, which is the next write id."""
        found: int = self._call("count")
        return found

    @property
    def first(self) -> int:
        """The oldest live write id; `count` in an empty replay."""
        found: int = self._call("first")
        return found

    @property
    def total_mass(self) -> float:
        """The sum of the masses of the live transitions."""
        found: float = self._call("total_mass")
        return found

    @property
    def path(self) -> Path:
        """The directory of the store, on the machine of the server."""
        return self._path

    @property
    def schema(self) -> Schema | None:
        """The fields of a transition; None before the first push, unless given."""
        self._connection.check_open()
        if self._schema is None:
            plain = self._call("schema")
            self._schema = None if plain is None else Schema.from_plain(plain)
        return self._schema

    # Inside

    def _drop_drawn(self) -> None:
        """Drop the batches that were drawn ahead."""
        for batches in list(self._batches):
            batches.drop()

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Return the answer of the server to a request that may be made twice."""
        return self._connection.call(name, *arguments, **options)

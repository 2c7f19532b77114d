"""Sources: the buffers of a mixture, by name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import numpy as np

from diskreplay.buffer import open
from diskreplay.errors import ArgumentError, DiskReplayError, MismatchError, SchemaError
from diskreplay.schema import Schema
from diskreplay.wording import shown

_ELEMENT = "sources"  # of a batch, which no field may be named


class Sources:
    """The buffers of a mixture, in the order of their names.

    Those given as a path are opened for reading, and closed by `close`; the others stay open.
    """

    def __init__(self, given: Mapping[str, Any], seed: int | None, draws: int) -> None:
        self.schema: Schema | None = None  # of the first one that has one
        self._checked: set[str] = set()  # names of those whose fields agree with it
        self._opened: list[Any] = []
        if not isinstance(given, Mapping) or not given:
            raise ArgumentError(
                "a mixture needs a dictionary of buffers or paths by name, as "
                f"{{'online': buffer, 'demos': path}} (found {shown(given)})"
            )
        self.names = tuple(given)
        self.replays: list[Any] = []
        try:
            for place, (name, source) in enumerate(given.items()):
                self.replays.append(self._replay(name, source, seed_of(seed, place, draws)))
            self.check_fields()
        except BaseException:
            self.close()
            raise
        self.are_weighted = [hasattr(one, "update_priorities") for one in self.replays]
        self.beta_place = self._beta_place()

    def __len__(self) -> int:
        return len(self.names)

    def _replay(self, name: Any, source: Any, seed: int | None) -> Any:
        """Return a buffer as it is, and a path as a buffer that reads it."""
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"the name of a source must be a text (found {shown(name)})")
        if not isinstance(source, str | os.PathLike):
            if not hasattr(source, "sample") or hasattr(source, "sizes"):
                raise ArgumentError(
                    f"source {name!r} must be a buffer or the path of a store (found "
                    f"{type(source).__name__})"
                )
            return source
        try:
            self._opened.append(open(source, access="read", seed=seed))
        except DiskReplayError as error:
            raise _named(name, error) from error
        return self._opened[-1]

    def _beta_place(self) -> int | None:
        """Return the place of the source whose beta all weights have; None where there are none.

        The annealing of a reader stands still, so it is the first prioritized source that this
        process writes, or else the first one.
        """
        places = [place for place, is_so in enumerate(self.are_weighted) if is_so]
        if len(places) < 2:
            return next(iter(places), None)
        return next((place for place in places if _is_written(self.replays[place])), places[0])

    def beta(self) -> float | None:
        """Return the exponent of the weights of the next batch; None where there are none."""
        if self.beta_place is None:
            return None
        found: float = self.call(self.beta_place, attrgetter("beta"))
        return found

    def sizes(self) -> list[int]:
        """Return the number of live transitions of each."""
        return [self.call(place, len) for place in range(len(self.names))]

    def call(self, place: int, function: Callable[[Any], Any]) -> Any:
        """Return the result of a function of a buffer; name the source in its errors."""
        try:
            return function(self.replays[place])
        except DiskReplayError as error:
            raise _named(self.names[place], error) from error

    def check_fields(self) -> None:
        """Raise MismatchError unless all sources whose fields are known have the same ones."""
        if len(self._checked) == len(self.names):
            return
        for place, name in enumerate(self.names):
            if name in self._checked:
                continue
            schema = self.call(place, attrgetter("schema"))
            if schema is None:
                continue
            if _ELEMENT in schema.extra_names:
                raise SchemaError(
                    f"source {name!r} has a field {_ELEMENT!r}, which is an element of each batch "
                    "of a mixture: export it, and import it with --field NAME=sources"
                )
            if self.schema is None:
                self.schema, self._first = schema, name
            elif schema.types != self.schema.types:
                raise _other_fields(self._first, self.schema, name, schema)
            self._checked.add(name)

    def own_all(self) -> None:
        """Close all buffers in `close`."""
        self._opened = list(self.replays)

    def close(self) -> None:
        """Close the buffers of paths."""
        with contextlib.ExitStack() as closing:
            for replay in self._opened:
                closing.callback(replay.close)


def _is_written(replay: Any) -> bool:
    """Return whether this process has opened a buffer for writing."""
    openers = replay.stats().get("openers", ())
    return any(of["pid"] == os.getpid() and of["access"] != "read" for of in openers)


def _named(name: str, error: DiskReplayError) -> DiskReplayError:
    return type(error)(f"source {name!r}: {error}")


def seed_of(seed: int | None, *key: int) -> int | None:
    """Return a seed that follows from another one and a key; None from None."""
    if seed is None:
        return None
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])


def _other_fields(first: str, schema: Schema, name: str, other: Schema) -> MismatchError:
    """Return the error of two sources whose fields differ."""
    types, others = dict(schema.types), dict(other.types)
    for field, found in types.items():
        if field in others and others[field] != found:
            way_out = (
                'type with "diskreplay export" and "diskreplay import --field '
                f'{field}={field}:DTYPE"'
            )
            if schema[field].shape != other[field].shape:
                way_out = "shape with diskreplay.transform(path, out, function)"
            return MismatchError(
                f"field {field!r} is {found} in source {first!r} and {others[field]} in source "
                f"{name!r}, and the sources of a mixture have the same fields: make a store of the "
                f"other {way_out}"
            )
    having, missing, more = first, name, types.keys() - others.keys()
    if not more:
        having, missing, more = name, first, others.keys() - types.keys()
    field = min(more)
    return MismatchError(
        f"field {field!r} is {dict(schema.types | other.types)[field]} in source {having!r} and "
        f"missing in source {missing!r}, and the sources of a mixture have the same fields: make a "
        'store without it with "diskreplay export" and "diskreplay import --drop '
        f'{field}", or give it to the pushes of {missing!r}'
    )

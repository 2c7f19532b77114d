"""Sources: the buffers of a mixture, by name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from diskreplay.aliases import Ints
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
        with self.naming(name):
            self._opened.append(open(source, access="read", seed=seed))
        return self._opened[-1]

    def sizes(self) -> Ints:
        """Return the number of live transitions of each."""
        found = np.empty(len(self.names), np.int64)
        for place, (name, replay) in enumerate(zip(self.names, self.replays, strict=True)):
            with self.naming(name):
                found[place] = len(replay)
        return found

    @contextlib.contextmanager
    def naming(self, name: str) -> Iterator[None]:
        """Name the source in an error of its buffer."""
        try:
            yield
        except DiskReplayError as error:
            raise type(error)(f"source {name!r}: {error}") from error

    def check_fields(self) -> None:
        """Raise MismatchError unless all sources whose fields are known have the same ones."""
        for name, replay in zip(self.names, self.replays, strict=True):
            if name in self._checked:
                continue
            with self.naming(name):
                schema = replay.schema
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
            return MismatchError(
                f"field {field!r} is {found} in source {first!r} and {others[field]} in source "
                f"{name!r}, and the sources of a mixture have the same fields: make a store of the "
                'other type with "diskreplay export" and "diskreplay import --field '
                f'{field}={field}:DTYPE"'
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

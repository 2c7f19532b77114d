"""What a buffer gives back: named tuples of arrays, and of one transition.

Where a schema has extra fields, its tuples have them as further elements, behind the standard ones,
and are of a type made for it. That type is a plain named tuple for whoever takes tuples apart and
makes them anew, and what is of it counts as a Batch, a PrioritizedBatch or an Experience.
"""

from __future__ import annotations

import copyreg
from collections import namedtuple
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from diskreplay.schema import Array

KindT = TypeVar("KindT")

_kinds: dict[str, type[Any]] = {}
_types: dict[tuple[type[Any], tuple[str, ...]], Any] = {}


class _Type(type):
    """The type of the types, by which those with extra elements are subclasses of their kind.

    To Python they are none: some libraries take as a named tuple only what has no base but `tuple`.
    """

    _kind: type[Any]
    _extra: tuple[str, ...]

    def __subclasscheck__(cls, other: type) -> bool:
        return super().__subclasscheck__(other) or getattr(other, "_kind", None) is cls

    def __instancecheck__(cls, instance: object) -> bool:
        return cls.__subclasscheck__(type(instance))


def with_extra(kind: type[KindT], names: tuple[str, ...]) -> type[KindT]:
    """Return the type of the tuples of a kind that have extra elements of these names.

    Where no element can have a name, as that of a field in an old store, it has its place: `_5`.
    """
    if not names:
        return kind
    found: type[KindT] | None = _types.get((kind, names))
    if found is not None:
        return found
    fields = (*kind._fields, *names)  # type: ignore[attr-defined]
    plain: Any = namedtuple(kind.__name__, fields, rename=True)  # type: ignore[misc]
    # One type for all threads: others compare types, to see whether two batches are alike.
    made: type[KindT] = _types.setdefault((kind, names), _made(plain, kind, names))
    return made


def _kind(plain: type[KindT]) -> type[KindT]:
    """Make a kind of a named tuple."""
    kind: Any = _made(plain, plain, ())
    kind._kind = _kinds[plain.__name__] = kind
    return plain if TYPE_CHECKING else kind


def _made(plain: type[Any], kind: type[Any], extra: tuple[str, ...]) -> Any:
    """Return a named tuple as a type of a kind, whose tuples can have attributes."""

    def _replace(self: Any, /, **changes: Any) -> Any:
        """Return the tuple with some of its elements replaced."""
        replaced = plain._replace(self, **changes)
        replaced.__dict__.update(self.__dict__)
        return replaced

    namespace = {
        **vars(plain),
        "__doc__": kind.__doc__,
        "__module__": __name__,
        "__getattr__": kind.__getattr__,
        "__reduce__": _reduced,
        "__replace__": _replace,
        "_replace": _replace,
        "_kind": kind,
        "_extra": extra,
    }
    del namespace["__slots__"]
    return _Type(plain.__name__, (tuple,), namespace)


def _reduced(self: Any) -> tuple[Any, ...]:
    """Pickle and copy by the names of what a type is made of: no module has the type itself."""
    cls = type(self)
    return _tuple_again, (cls._kind.__name__, cls._extra, tuple(self)), self.__dict__ or None


def _tuple_again(kind: str, extra: tuple[str, ...], elements: Iterable[Any]) -> Any:
    return _type_again(kind, extra)._make(elements)


def _type_again(kind: str, extra: tuple[str, ...]) -> Any:
    return with_extra(_kinds[kind], extra)


copyreg.pickle(_Type, lambda made: (_type_again, (made._kind.__name__, made._extra)))


def _no_such(found: Any, name: str) -> AttributeError:
    fields = ", ".join(found._fields)
    return AttributeError(f"{type(found).__name__} has no {name!r}: its elements are {fields}")


@_kind
class Experience(NamedTuple):
    """One transition: state, action, reward, next_state, done, and then its extra fields.

    >>> state, action, reward, next_state, done = Experience([0.0], 1, 0.5, [1.0], False)
    """

    state: Any
    action: Any
    reward: Any
    next_state: Any
    done: Any

    def __getattr__(self, name: str) -> Any:
        raise _no_such(self, name)


@_kind
class Batch(NamedTuple):
    """n transitions as arrays whose first dimension is n: the five fields, then the extra ones.

    `indices`, the write ids, is an attribute and no element. It goes where the tuple is copied,
    pickled or changed with `_replace`; a tuple made anew of the elements has none.
    """

    states: Array
    actions: Array
    rewards: Array
    next_states: Array
    dones: Array

    def __getattr__(self, name: str) -> Array:
        if name == "indices":
            raise AttributeError(
                "this batch was made anew of the elements of another (as tree functions and data "
                "loaders do), and the write ids are none of them: take batch.indices before"
            )
        raise _no_such(self, name)


@_kind
class PrioritizedBatch(NamedTuple):
    """A Batch with two more elements before the extra ones.

    `weights` is float32 (n,), and `indices`, the write ids, int64 (n,).
    """

    states: Array
    actions: Array
    rewards: Array
    next_states: Array
    dones: Array
    weights: Array
    indices: Array

    def __getattr__(self, name: str) -> Array:
        raise _no_such(self, name)


class Draw(NamedTuple):
    """What `draw` returns: write ids, int64 (n,), and their probabilities, float64 (n,)."""

    indices: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def batch_of(columns: Iterable[Array], names: tuple[str, ...], indices: Array) -> Batch:
    """Return columns, of which some have extra names, as a batch of these write ids."""
    batch = tuple.__new__(with_extra(Batch, names), columns)
    batch.__dict__["indices"] = indices
    return batch

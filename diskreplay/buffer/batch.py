"""The types of batches and of single transitions: named tuples.

For a schema with extra fields, the tuples have these fields as further elements after the standard
ones, and a type made for their names. The only base of that type is `tuple`: libraries that take
tuples apart and make them anew accept only such a type as a named tuple. isinstance() still counts
its tuples as Batch, PrioritizedBatch or Experience.
"""

from __future__ import annotations

from abc import ABCMeta
from collections import namedtuple
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from diskreplay.aliases import Array, Floats, Ints

KindT = TypeVar("KindT")

_KINDS = (
    "Batch", "Experience", "PrioritizedBatch", "PrioritizedSequenceBatch", "SequenceBatch",
)  # fmt: skip
_types: dict[tuple[type[Any], tuple[str, ...]], Any] = {}


def with_extra(kind: type[KindT], names: tuple[str, ...]) -> type[KindT]:
    """Return the type of the tuples of a kind that have extra elements of these names.

    A name that a named tuple cannot have, as of a field of an old store, is replaced by the place
    of the element: `_5`.
    """
    if not names:
        return kind
    if (found := _types.get((kind, names))) is None:
        fields = (*kind._fields, *names)  # type: ignore[attr-defined]
        plain: Any = namedtuple(kind.__name__, fields, rename=True)  # type: ignore[misc]
        qualified = ascii(f"{kind.__name__}[{','.join(names)}]")[1:-1]
        made = _made(plain, kind, qualified)
        # One type for all threads, since users compare the types of batches.
        found = _types.setdefault((kind, names), made)
        kind.register(found)  # type: ignore[attr-defined]
    return found  # type: ignore[no-any-return]


def __getattr__(name: str) -> Any:
    """Return the type of a qualified name such as `Batch[mask]`, by which pickle refers to it."""
    kind, _, names = name.encode().decode("unicode_escape").partition("[")
    if names and kind in _KINDS:
        return with_extra(globals()[kind], tuple(names[:-1].split(",")))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _made(plain: type[Any], kind: type[Any], qualified: str) -> Any:
    """Return a type like a named tuple, whose tuples can have further attributes."""

    def _replace(self: Any, /, **changes: Any) -> Any:
        """Return the tuple with some of its elements replaced."""
        replaced = plain._replace(self, **changes)
        replaced.__dict__.update(self.__dict__)
        return replaced

    namespace = {
        **vars(plain),
        "__doc__": kind.__doc__,
        "__module__": __name__,
        "__qualname__": qualified,
        "__getattr__": kind.__getattr__,
        "__replace__": _replace,
        "_replace": _replace,
    }
    del namespace["__slots__"]
    return ABCMeta(plain.__name__, (tuple,), namespace)


def _kind(plain: type[KindT]) -> type[KindT]:
    """Return a named tuple as a kind: its tuples can have further attributes."""
    return plain if TYPE_CHECKING else _made(plain, plain, plain.__name__)


def _no_such(found: Any, name: str) -> AttributeError:
    fields = ", ".join(found._fields)
    return AttributeError(f"{type(found).__name__} has no {name!r}: its elements are {fields}")


@_kind
class Experience(NamedTuple):
    """One transition: state, action, reward, next_state, done, and then its extra fields.

    Where a field is a dictionary or a tuple, so is its element.

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

    Where a field is a dictionary or a tuple, its element is one of arrays, nested as it was given.

    `indices`, the write ids, is an attribute and no element. Copies, pickles and `_replace` keep
    it; a tuple made anew from the elements has none.
    """

    states: Any
    actions: Any
    rewards: Array
    next_states: Any
    dones: Array

    def __getattr__(self, name: str) -> Any:
        if name == "indices":
            raise AttributeError(
                "this batch was made anew from the elements of another (as tree functions and data "
                "loaders do), and the write ids are not an element: read batch.indices before"
            )
        raise _no_such(self, name)


@_kind
class PrioritizedBatch(NamedTuple):
    """A Batch with two more elements before the extra ones.

    `weights` is float32 (n,), and `indices`, the write ids, int64 (n,). The attribute
    `largest_weight` is the number that the weights were divided by: their product is
    `(size * P(i)) ** -beta`. Batches that reader processes have read do not have it.
    """

    states: Any
    actions: Any
    rewards: Array
    next_states: Any
    dones: Array
    weights: Array
    indices: Array

    def __getattr__(self, name: str) -> Any:
        raise _no_such(self, name)


@_kind
class SequenceBatch(NamedTuple):
    """n sequences as arrays whose first dimensions are n and length, with zeros after an end.

    The five fields, then `mask`, bool (n, length), which is true where a transition is; `firsts`,
    bool, which is true for the first transition of an episode; `indices`, the write ids, int64, -1
    where no transition is; then the extra fields.
    """

    states: Any
    actions: Any
    rewards: Array
    next_states: Any
    dones: Array
    mask: Array
    firsts: Array
    indices: Array

    def __getattr__(self, name: str) -> Any:
        raise _no_such(self, name)


@_kind
class PrioritizedSequenceBatch(NamedTuple):
    """A SequenceBatch with `weights` before `mask`, float32 (n,): of the starts.

    The attribute `largest_weight` is that of a PrioritizedBatch.
    """

    states: Any
    actions: Any
    rewards: Array
    next_states: Any
    dones: Array
    weights: Array
    mask: Array
    firsts: Array
    indices: Array

    def __getattr__(self, name: str) -> Any:
        raise _no_such(self, name)


class Draw(NamedTuple):
    """The result of `draw`: write ids, int64 (n,), and their probabilities, float64 (n,)."""

    indices: Ints
    probabilities: Floats

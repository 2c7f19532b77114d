"""Layout: the elements of the batches of a mixture."""

from __future__ import annotations

from typing import Any, NamedTuple

from diskreplay.buffer import (
    Batch,
    PrioritizedBatch,
    PrioritizedSequenceBatch,
    SequenceBatch,
    with_extra,
)
from diskreplay.errors import ArgumentError
from diskreplay.mixture.parts import check_reusable, form_of, fresh, has_lists, row_bytes, stretch
from diskreplay.schema import Schema

Elements = dict[str, Any]  # of a batch, by name
_KINDS: dict[str, tuple[Any, Any]] = {  # without weights, and with them
    "sample": (Batch, PrioritizedBatch),
    "sample_sequences": (SequenceBatch, PrioritizedSequenceBatch),
}


class Stretch(NamedTuple):
    """The rows of a batch that one source gives."""

    source: int
    begin: int
    end: int


class BatchType(NamedTuple):
    """The type of the batches of a mixture, and the names of their elements, in order.

    names:  without `sources`, and with the write ids, also where they are an attribute
    """

    kind: Any
    names: list[str]

    @classmethod
    def of(cls, method: str, part: Any, schema: Schema | None, *, are_weighted: bool) -> BatchType:
        """Return the type of a batch whose first part, as a method has drawn it, is `part`."""
        kinds = _KINDS[method]
        plain, (_, weighted) = kinds[are_weighted], kinds
        own = [name for name in part._fields if name not in weighted._fields]
        extra = [name for name in schema.extra_names if name in own] if schema else []
        extra += [name for name in own if name not in extra]
        attribute = [] if "indices" in plain._fields else ["indices"]
        return cls(with_extra(plain, (*extra, "sources")), [*plain._fields, *extra, *attribute])

    def batch(self, elements: Elements) -> Any:
        """Return elements as a batch."""
        values = [elements[name] for name in self.names]
        ids = [] if "indices" in self.kind._fields else [values.pop()]
        batch = self.kind._make((*values, elements["sources"]))
        if ids:
            [batch.indices] = ids
        return batch


class Layout:
    """The elements of batches as far as earlier ones have shown them."""

    def __init__(self) -> None:
        self.type: BatchType | None = None
        self.row_bytes = 0
        self.lists: list[str] = []  # the names of elements that have lists
        self._forms: Elements = {}  # of the elements of a batch
        self._kinds: dict[int, Any] = {}  # the types of the batches of sources

    def knows(self, stretches: list[Stretch]) -> bool:
        """Return whether an earlier batch had rows of each of these sources."""
        return all(at.source in self._kinds for at in stretches)

    def learn(
        self, found: BatchType, elements: Elements, stretches: list[Stretch], parts: list[Any]
    ) -> None:
        """Remember which elements a batch and those of its sources have."""
        for at, part in zip(stretches, parts, strict=True):
            self._kinds[at.source] = type(part)
        if self.type is None:
            self.type = found
            self._forms = {name: form_of(element) for name, element in elements.items()}
            self.lists = [name for name, form in self._forms.items() if has_lists(form)]
            self.row_bytes = row_bytes(self._forms)

    def fresh(self, n: int) -> Elements:
        """Return the elements of a batch of n arbitrary rows."""
        return {name: fresh(form, n) for name, form in self._forms.items()}

    def part(self, at: Stretch, elements: Elements) -> Any:
        """Return the stretch of a source as an earlier batch of that source."""
        kind = self._kinds[at.source]
        part = kind._make(stretch(elements[name], at.begin, at.end) for name in kind._fields)
        if "indices" not in kind._fields:
            part.indices = elements["indices"][at.begin : at.end]
        return part

    def elements_of(self, out: Any, n: int) -> Elements:
        """Return the elements of an earlier batch; raise ArgumentError if it cannot be reused."""
        if self.type is None or type(out) is not self.type.kind:
            raise ArgumentError(
                f"out must be an earlier batch of this mixture (found a {type(out).__name__}): "
                "leave out= away for a fresh one"
            )
        elements = {name: getattr(out, name) for name in self._forms}
        check_reusable(elements, self._forms, n)
        return elements

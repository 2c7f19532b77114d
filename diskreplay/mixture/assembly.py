"""Assembly: one batch of the batches of several sources.

The batches of small rows are joined. Of large rows each source writes its own into its stretch of
the arrays, as it does with `out=`, so that they are written once; for that an earlier batch of that
source must have shown which elements there are.
"""

from __future__ import annotations

from operator import methodcaller
from typing import Any, NamedTuple

import numpy as np

from diskreplay.aliases import Floats, Ints
from diskreplay.buffer import Batch, PrioritizedBatch, with_extra
from diskreplay.errors import ArgumentError
from diskreplay.mixture.parts import (
    check_reusable,
    form_of,
    fresh,
    has_lists,
    joined,
    put_lists,
    row_bytes,
    stretch,
)
from diskreplay.mixture.sources import Sources

_LARGE = 1 << 20  # bytes of a batch
Elements = dict[str, Any]  # of a batch, by name


class SourcedDraw(NamedTuple):
    """The result of `Mixture.draw`: write ids, probabilities, and places in `Mixture.names`."""

    indices: Ints
    probabilities: Floats
    sources: Ints


class Stretch(NamedTuple):
    """The rows of a batch that one source gives."""

    source: int
    begin: int
    end: int


class Layout:
    """The elements of batches as far as earlier ones have shown them."""

    def __init__(self) -> None:
        self.kinds: dict[int, Any] = {}  # the types of the batches of sources
        self.forms: Elements = {}  # of the elements of a batch
        self.lists: list[str] = []  # the names of elements that have lists
        self.row_bytes = 0

    def learn(self, elements: Elements, stretches: list[Stretch], parts: list[Any]) -> None:
        """Remember which elements a batch and those of its sources have."""
        for at, part in zip(stretches, parts, strict=True):
            self.kinds[at.source] = type(part)
        if not self.forms:
            self.forms = {name: form_of(element) for name, element in elements.items()}
            self.lists = [name for name, form in self.forms.items() if has_lists(form)]
            self.row_bytes = row_bytes(self.forms)

    def part(self, at: Stretch, elements: Elements) -> Any:
        """Return the stretch of a source as an earlier batch of that source."""
        kind = self.kinds[at.source]
        part = kind._make(stretch(elements[name], at.begin, at.end) for name in kind._fields)
        if "indices" not in kind._fields:
            part.indices = elements["indices"][at.begin : at.end]
        return part


class Assembly:
    """Draws from sources, and puts their batches together."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._is_weighted = any(sources.are_weighted)
        self._plain: Any = PrioritizedBatch if self._is_weighted else Batch
        self._layouts = {False: Layout(), True: Layout()}  # without n-step returns, and with them
        self._last_counts: list[int] = []
        self._last_places = np.zeros(0, np.int64)

    def sample(
        self, counts: list[int], beta: float | None, out: Any, options: dict[str, Any]
    ) -> Any:
        """Return a batch of `counts` rows of each source, in the arrays of `out` if it is given.

        options:  further arguments for the `sample` of each source
        """
        stretches, n = [], 0
        for place, count in enumerate(counts):
            if count:
                stretches.append(Stretch(place, n, n := n + count))
        layout = self._layouts["n_step" in options]
        reused = None if out is None else self._elements_of(out, n, layout)
        are_known = all(at.source in layout.kinds for at in stretches)
        is_padded = "pad" in options
        if are_known and not is_padded and n * layout.row_bytes >= _LARGE:
            elements = reused or {name: fresh(form, n) for name, form in layout.forms.items()}
            parts = []
            for at in stretches:
                part = layout.part(at, elements)
                parts.append(self._drawn(at, beta, {**options, "out": part}))
                for name in layout.lists:
                    put_lists(elements[name], at.begin, getattr(part, name))
        else:
            parts = [self._drawn(at, beta, options) for at in stretches]
            elements = self._joined(parts, reused)
            if not (are_known or is_padded):
                layout.learn(elements, stretches, parts)
        elements["sources"][...] = self._places_of(counts)
        batch = self._batch(elements) if out is None else out
        if self._is_weighted:
            batch.largest_weight = _weigh(elements["weights"], stretches, parts)
        return batch

    def _drawn(self, at: Stretch, beta: float | None, options: dict[str, Any]) -> Any:
        """Return the batch of a source."""
        if beta is not None and self._sources.are_weighted[at.source]:
            options = {**options, "beta": beta}
        sample = methodcaller("sample", at.end - at.begin, **options)
        return self._sources.call(at.source, sample)

    def _joined(self, parts: list[Any], reused: Elements | None) -> Elements:
        """Return the elements of a batch of fresh batches, in the arrays of an earlier one."""
        elements = {} if reused is None else reused
        for name in self._names(parts[0]) if reused is None else reused.keys() - {"sources"}:
            of_parts = [_element(part, name) for part in parts]
            elements[name] = joined(of_parts, None if reused is None else reused[name])
        if reused is None:
            elements["sources"] = np.empty(len(elements["indices"]), np.int64)
        return elements

    def _places_of(self, counts: list[int]) -> Ints:
        """Return the place of the source of each row; they are mostly those of the last batch."""
        if self._last_counts != counts:
            self._last_counts, self._last_places = counts, places_of(counts)
        return self._last_places

    def _names(self, part: Any) -> list[str]:
        """Return the names of the elements of a batch, extra ones in the order of the first source.

        The write ids are among them, also where they are an attribute.
        """
        own = [name for name in part._fields if name not in PrioritizedBatch._fields]
        schema = self._sources.schema
        extra = [name for name in schema.extra_names if name in own] if schema else []
        others = [name for name in own if name not in extra]
        weights = ["weights"] if self._is_weighted else []
        return [*Batch._fields, *weights, "indices", *extra, *others]

    def _batch(self, elements: Elements) -> Any:
        """Return the elements as a batch."""
        extra = tuple(name for name in elements if name not in PrioritizedBatch._fields)
        batch = with_extra(self._plain, extra)._make(
            elements[name] for name in (*self._plain._fields, *extra)
        )
        if not self._is_weighted:
            batch.indices = elements["indices"]
        return batch

    def _elements_of(self, out: Any, n: int, layout: Layout) -> Elements:
        """Return the elements of an earlier batch; raise ArgumentError if it cannot be reused."""
        extra = tuple(name for name in layout.forms if name not in PrioritizedBatch._fields)
        kind: Any = with_extra(self._plain, extra)
        if not layout.forms or type(out) is not kind:
            raise ArgumentError(
                f"out must be an earlier batch of this mixture (found a {type(out).__name__}): "
                "leave out= away for a fresh one"
            )
        elements = {name: getattr(out, name) for name in layout.forms}
        check_reusable(elements, layout.forms, n)
        return elements


def places_of(counts: list[int]) -> Ints:
    """Return the place of the source of each row."""
    return np.repeat(np.arange(len(counts)), counts)


def _element(part: Any, name: str) -> Any:
    """Return an element of a batch of a source; the weights of a uniform one are 1."""
    if name == "weights" and name not in part._fields:
        return np.ones(len(part.indices), np.float32)
    return getattr(part, name)


def _weigh(weights: Any, stretches: list[Stretch], parts: list[Any]) -> float:
    """Divide the weights of each source by the largest of the whole batch, and return it.

    Those of a source are divided by its own largest one. A transition of a uniform source has the
    weight `(size * 1 / size) ** -beta`, which is 1.
    """
    largest = [getattr(part, "largest_weight", 1.0) for part in parts]
    top = max(largest)
    for at, part, of_part in zip(stretches, parts, largest, strict=True):
        if "weights" in part._fields:
            weights[at.begin : at.end] *= of_part / top
        else:
            weights[at.begin : at.end] = 1.0 / top
    return float(top)

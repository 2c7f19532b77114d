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
from diskreplay.mixture.layout import BatchType, Elements, Layout, Stretch
from diskreplay.mixture.parts import joined, put_lists
from diskreplay.mixture.sources import Sources

_LARGE = 1 << 20  # bytes of a batch


class SourcedDraw(NamedTuple):
    """The result of `Mixture.draw`: write ids, probabilities, and places in `Mixture.names`."""

    indices: Ints
    probabilities: Floats
    sources: Ints


class Assembly:
    """Draws from sources, and puts their batches together."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._is_weighted = any(sources.are_weighted)
        self._layouts = {False: Layout(), True: Layout()}  # without n-step returns, and with them
        self._types: dict[tuple[str, Any], BatchType] = {}  # by method and type of the first part
        self._last_counts: list[int] = []
        self._last_places = np.zeros(0, np.int64)

    def sample(
        self, counts: list[int], beta: float | None, out: Any, options: dict[str, Any]
    ) -> Any:
        """Return a batch of `counts` rows of each source, in the arrays of `out` if it is given.

        options:  further arguments for the `sample` of each source
        """
        n, stretches = sum(counts), stretches_of(counts)
        layout = self._layouts["n_step" in options]
        reused = None if out is None else layout.elements_of(out, n)
        is_known, is_padded = layout.knows(stretches), "pad" in options
        found = layout.type
        if found and is_known and not is_padded and n * layout.row_bytes >= _LARGE:
            elements = reused or layout.fresh(n)
            self._put_sources(elements, counts)
            parts = []
            for at in stretches:
                part = layout.part(at, elements)
                parts.append(self._drawn("sample", at, beta, out=part, **options))
                for name in layout.lists:
                    put_lists(elements[name], at.begin, getattr(part, name))
        else:
            parts = [self._drawn("sample", at, beta, **options) for at in stretches]
            found = self._type_of("sample", parts[0])
            elements = _joined(found.names, parts, reused)
            self._put_sources(elements, counts)
            if not (is_known or is_padded):
                layout.learn(found, elements, stretches, parts)
        batch = found.batch(elements) if out is None else out
        return self._weighted(batch, stretches, parts)

    def sample_sequences(
        self, counts: list[int], beta: float | None, options: dict[str, Any]
    ) -> Any:
        """Return `counts` sequences of each source.

        options:  further arguments for the `sample_sequences` of each source
        """
        stretches = stretches_of(counts)
        parts = [self._drawn("sample_sequences", at, beta, **options) for at in stretches]
        found = self._type_of("sample_sequences", parts[0])
        elements = _joined(found.names, parts, None)
        self._put_sources(elements, counts)
        return self._weighted(found.batch(elements), stretches, parts)

    def _drawn(self, method: str, at: Stretch, beta: float | None, **options: Any) -> Any:
        """Return the batch of a source."""
        if beta is not None and self._sources.are_weighted[at.source]:
            options["beta"] = beta
        draw = methodcaller(method, at.end - at.begin, **options)
        return self._sources.call(at.source, draw)

    def _type_of(self, method: str, part: Any) -> BatchType:
        """Return the type of a batch with such a first part."""
        key = method, type(part)
        if key not in self._types:
            schema, are_weighted = self._sources.schema, self._is_weighted
            self._types[key] = BatchType.of(method, part, schema, are_weighted=are_weighted)
        return self._types[key]

    def _put_sources(self, elements: Elements, counts: list[int]) -> None:
        """Put the place of the source of each row; they are mostly those of the last batch."""
        if self._last_counts != counts:
            self._last_counts, self._last_places = counts, places_of(counts)
        if "sources" in elements:
            elements["sources"][...] = self._last_places
        else:
            elements["sources"] = self._last_places.copy()

    def _weighted(self, batch: Any, stretches: list[Stretch], parts: list[Any]) -> Any:
        """Return a batch with the weights of a mixture, if it has some."""
        if self._is_weighted:
            batch.largest_weight = _weigh(batch.weights, stretches, parts)
        return batch


def places_of(counts: list[int]) -> Ints:
    """Return the place of the source of each row."""
    return np.repeat(np.arange(len(counts)), counts)


def stretches_of(counts: list[int]) -> list[Stretch]:
    """Return the rows that each source gives, of those that give some."""
    stretches, n = [], 0
    for place, count in enumerate(counts):
        if count:
            stretches.append(Stretch(place, n, n := n + count))
    return stretches


def _joined(names: list[str], parts: list[Any], reused: Elements | None) -> Elements:
    """Return the elements of a batch of fresh batches, in the arrays of an earlier one."""
    elements: Elements = {} if reused is None else reused
    for name in names:
        of_parts = [_element(part, name) for part in parts]
        elements[name] = joined(of_parts, elements.get(name))
    return elements


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

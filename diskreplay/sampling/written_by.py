"""Runs: draws from the transitions of some runs alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from diskreplay.errors import ArgumentError
from diskreplay.live_range import LiveRange
from diskreplay.sampling.distribution import Distribution, DrawBasis, Sampler
from diskreplay.sampling.restricted import sampler_within
from diskreplay.validation import MAX_COUNT, as_whole, whole_number
from diskreplay.wording import shown


@dataclass(frozen=True)
class Runs(Distribution):
    """Draw from the transitions that some runs wrote, as far as that is known.

    The runs of a store are its openings for writing, numbered from 0, as in `stats()["runs"]`. A
    lone writer's own run is the next one, also before its first commit. Where several processes
    wrote in turns with access="shared", nothing tells who wrote which transition between the first
    and the last of each, and none of those is drawn: see `runs_of`.

    Uniformly, without duplicates in a batch; in a prioritized buffer in proportion to the masses,
    stratified, with replacement. Raises SampleError where none is live. Cost: as without a sampler,
    and O(runs) at each commit of another process.

    >>> from diskreplay import samplers
    >>> for run in range(3):
    ...     with ReplayBuffer(capacity=100, path="runs/a") as buffer:
    ...         ids = buffer.extend([[0.0]] * 4, [0] * 4, [1.0] * 4, [[0.0]] * 4, [False] * 4)
    >>> with open("runs/a", sampler=samplers.Runs([0, 2])) as buffer:
    ...     sorted(buffer.sample(8).indices.tolist())
    [0, 1, 2, 3, 8, 9, 10, 11]

    numbers:  of the runs, or that of one
    """

    numbers: tuple[int, ...]
    needs_runs = True

    def __init__(self, numbers: int | Iterable[int]) -> None:
        given: Any = numbers
        try:
            listed = [given] if as_whole(given) is not None else [*given]
        except Exception:  # an object may raise anything when it is iterated
            listed = []
        if not listed or isinstance(given, str | bytes):
            raise ArgumentError(
                f"numbers must be the numbers of runs, at least one (found {shown(given)})"
            )
        checked = {whole_number("numbers", n, at_least=0, at_most=MAX_COUNT) for n in listed}
        object.__setattr__(self, "numbers", tuple(sorted(checked)))

    def sampler(self, basis: DrawBasis) -> Sampler:
        """Return a sampler of a buffer."""
        return sampler_within(_WrittenBy(self, basis), basis)


class _WrittenBy:
    """The live write ids of some runs."""

    def __init__(self, runs: Runs, basis: DrawBasis) -> None:
        self._runs = runs
        self._basis = basis

    def __repr__(self) -> str:
        return repr(self._runs)

    def ranges(self, live: LiveRange) -> Iterable[tuple[int, int]]:
        """Return the live ranges that are known to be of the runs."""
        for first, end in self._basis.runs.of(self._runs.numbers) if self._basis.runs else ():
            begin, end = max(first, live.first), min(end, live.count)
            if begin < end:
                yield begin, end

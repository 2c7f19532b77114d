"""Rate: how many transitions may be inserted and sampled now, by the arithmetic of Reverb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diskreplay.errors import ArgumentError, DamageError
from diskreplay.validation import MAX_COUNT, real_number, whole_number
from diskreplay.wording import count_of, shown


@dataclass(frozen=True)
class Rate:
    """The limits of a replay: no more samples, and no more inserts, than the ratio allows.

    The error of the ratio is `(inserts - min_size) * samples_per_insert - samples`. Samples may
    lower it to -tolerance, and inserts may raise it to tolerance. Source: SampleToInsertRatio of
    Reverb, whose words are min_size_to_sample, samples_per_insert and error_buffer.

    samples_per_insert, tolerance:  None, both, where nothing but min_size is limited
    """

    min_size: int
    samples_per_insert: float | None
    tolerance: float | None

    @classmethod
    def of(cls, min_size: Any, samples_per_insert: Any, tolerance: Any, capacity: int) -> Rate:
        """Return the limits that the user gives, or raise ArgumentError."""
        least = whole_number("min_size", min_size, at_least=0)
        if least > capacity:
            raise ArgumentError(
                f"min_size must be at most the capacity, {capacity} (found {least}): nothing could "
                "ever be sampled"
            )
        if samples_per_insert is None:
            if tolerance is not None:
                raise ArgumentError(
                    f"tolerance is of samples_per_insert, which is not given (found "
                    f"{shown(tolerance)})"
                )
            return cls(least, None, None)
        ratio = real_number("samples_per_insert", samples_per_insert, low=0.0, high=1e9, above=True)
        if tolerance is None:
            raise ArgumentError(
                "samples_per_insert needs tolerance=: by how many samples the ratio may be wrong, "
                "at least half of a batch and of the samples of an insert together"
            )
        allowed = real_number("tolerance", tolerance, low=0.0, high=float("inf"))
        if allowed < max(1.0, ratio):
            raise ArgumentError(
                f"tolerance must be at least 1 and samples_per_insert, {max(1.0, ratio):g} (found "
                f"{allowed:g}): a smaller one would stop inserts and samples for ever"
            )
        return cls(least, ratio, allowed)

    def error(self, inserts: int, samples: int) -> float:
        """Return the error of the ratio, in samples; 0 where no ratio is limited."""
        if self.samples_per_insert is None:
            return 0.0
        return (inserts - self.min_size) * self.samples_per_insert - samples

    def allows_insert(self, n: int, inserts: int, samples: int) -> bool:
        """Return whether n more inserts are allowed, but for the first `min_size`, which are."""
        return self.tolerance is None or self.error(inserts + n, samples) <= self.tolerance

    def allows_sample(self, n: int, inserts: int, samples: int) -> bool:
        """Return whether n more samples are allowed, once there are `min_size` transitions."""
        return self.tolerance is None or self.error(inserts, samples + n) >= -self.tolerance

    def check_progress(self, insert: int, sample: int) -> None:
        """Raise ArgumentError if inserts and samples of these sizes could stop each other."""
        if self.samples_per_insert is None or self.tolerance is None:
            return
        least = (insert * self.samples_per_insert + sample) / 2
        if self.tolerance < least:
            raise ArgumentError(
                f"tolerance must be at least {least:g} with {count_of(sample, 'transition')} in a "
                f"batch, {count_of(insert, 'transition')} in an insert and samples_per_insert="
                f"{self.samples_per_insert:g} (found {self.tolerance:g}): inserts and samples "
                "could stop each other for ever; give a larger tolerance, or smaller batches"
            )

    @property
    def insert_rows(self) -> int | None:
        """The most transitions of an insert that goes with batches as large as the tolerance."""
        if self.samples_per_insert is None or self.tolerance is None:
            return None
        return int(self.tolerance / self.samples_per_insert)

    @property
    def counted_for(self) -> dict[str, Any]:
        """The limits that stored counts must be of, to go on with them."""
        return {"min_size": self.min_size, "samples_per_insert": self.samples_per_insert}

    def to_plain(self) -> dict[str, Any]:
        """Return the limits as plain data."""
        return {**self.counted_for, "tolerance": self.tolerance}


@dataclass
class Counts:
    """How many transitions were inserted and sampled so far.

    before:  inserts without those that the replay counts: it keeps the inserts right, whatever
             a commit holds of the transitions
    """

    before: int
    samples: int

    @classmethod
    def of(cls, note: Any, rate: Rate, count: int, size: int) -> Counts:
        """Return the counts of a note, or begin at no error where there is none of this rate."""
        limits = rate.counted_for
        if isinstance(note, dict) and {name: note.get(name) for name in limits} == limits:
            counts: list[Any] = [note.get(name) for name in ("before", "samples")]
            if all(type(n) is int and abs(n) <= MAX_COUNT for n in counts):
                return cls(*counts)
            raise DamageError(
                f"the note of the rate limiter is damaged (found {shown(note)}): "
                "delete_note('rate limiter') of the buffer removes it, and the counts begin anew"
            )
        return cls(min(size, rate.min_size) - count, 0)

    def to_plain(self, rate: Rate) -> dict[str, Any]:
        """Return the note that keeps the counts."""
        return {**rate.counted_for, "before": self.before, "samples": self.samples}

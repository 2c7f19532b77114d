"""The arithmetic of the limiter against that of Reverb, written down naively."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from common import columns
from hypothesis import given, settings
from hypothesis import strategies as st

from diskreplay import ArgumentError, RateLimited, RateLimitError, ReplayBuffer

CAPACITY = 25


class Reverb:
    """A table of Reverb with a limiter, by its documentation: items go one by one."""

    def __init__(self, samples_per_insert: float, min_size: int, error_buffer: float) -> None:
        offset = samples_per_insert * min_size
        self.min_diff, self.max_diff = offset - error_buffer, offset + error_buffer
        self.samples_per_insert, self.min_size = samples_per_insert, min_size
        self.inserts = self.samples = self.deletes = 0

    @property
    def size(self) -> int:
        return self.inserts - self.deletes

    def can_insert(self, n: int) -> bool:
        if self.size + n <= self.min_size:
            return True
        return (self.inserts + n) * self.samples_per_insert - self.samples <= self.max_diff

    def can_sample(self, n: int) -> bool:
        if self.size < self.min_size:
            return False
        return self.inserts * self.samples_per_insert - self.samples - n >= self.min_diff

    def insert(self, n: int) -> None:
        self.inserts += n
        self.deletes += max(0, self.size - CAPACITY)

    def clear(self) -> None:
        self.deletes = self.inserts


# Of the form k / 8, so that no way to compute them rounds; whole ones meet the limits exactly.
ratios = st.integers(1, 4).map(float) | st.integers(1, 64).map(lambda k: k / 8)
steps = st.lists(
    st.tuples(
        st.sampled_from(["insert", "extend", "sample", "draw", "sequences", "next", "clear"]),
        st.integers(1, 6),
    ),
    min_size=20,
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(ratio=ratios, min_size=st.integers(1, 10), more=st.integers(0, 12), steps=steps)
def test_calls_are_allowed_as_reverb_allows_them(
    ratio: float, min_size: int, more: int, steps: list[tuple[str, int]]
) -> None:
    tolerance = float(math.ceil((6 * ratio + 6) / 2) + more)
    reverb = Reverb(ratio, min_size, tolerance)
    with RateLimited(
        ReplayBuffer(CAPACITY, commit_interval=1e9),
        min_size=min_size,
        samples_per_insert=ratio,
        tolerance=tolerance,
        timeout=0,
    ) as replay:
        rows = columns(0, 6)
        batches: dict[int, Any] = {}
        for what, n in steps:
            if what == "clear":
                replay.clear()
                reverb.clear()
                continue
            if what in ("insert", "extend"):
                n = 1 if what == "insert" else n
                part = {name: values[:n] for name, values in rows.items()}
                if reverb.can_insert(n):
                    if what == "insert":
                        replay.push(*(values[0] for values in part.values()), env=0)
                    else:
                        replay.extend(**part, env=0)
                    reverb.insert(n)
                else:
                    with pytest.raises(RateLimitError, match="no insert was allowed within 0 s"):
                        replay.extend(**part, env=0)
                continue
            n = min(n, max(1, len(replay)))
            calls = {
                "sample": lambda n=n: replay.sample(n),
                "draw": lambda n=n: replay.draw(n),
                "sequences": lambda n=n: replay.sample_sequences(n, 1),
                "next": lambda n=n: next(batches.setdefault(n, replay.batches(n))),
            }
            assert replay.is_ready(n) == (reverb.can_sample(n) and reverb.size >= n)
            if reverb.can_sample(n):
                calls[what]()
                reverb.samples += n
            else:
                with pytest.raises(RateLimitError, match="no sample was allowed within 0 s"):
                    calls[what]()
        found = replay.stats()["rate_limiter"]
        assert (found["inserts"], found["samples"]) == (reverb.inserts, reverb.samples)
        assert found["error"] == (reverb.inserts - min_size) * ratio - reverb.samples


@settings(deadline=None)
@given(
    ratio=ratios, min_size=st.integers(0, 10), insert=st.integers(1, 6), sample=st.integers(1, 6)
)
def test_the_least_tolerance_never_stops_both_sides(
    ratio: float, min_size: int, insert: int, sample: int
) -> None:
    tolerance = max(1.0, ratio, (insert * ratio + sample) / 2)
    reverb = Reverb(ratio, min_size, tolerance)
    for step in range(300):
        assert reverb.size < min_size or reverb.can_insert(insert) or reverb.can_sample(sample)
        if reverb.can_insert(insert) and (step % 3 or not reverb.can_sample(sample)):
            reverb.insert(insert)
        elif reverb.can_sample(sample):
            reverb.samples += sample


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"min_size": -1}, "min_size"),
        ({"min_size": 101}, r"min_size must be at most the capacity, 100 \(found 101\)"),
        ({"samples_per_insert": 0, "tolerance": 1}, r"samples_per_insert must be a number in \(0"),
        ({"samples_per_insert": "x", "tolerance": 1}, "samples_per_insert must be a number"),
        ({"samples_per_insert": 2}, "samples_per_insert needs tolerance="),
        ({"tolerance": 2}, "tolerance is of samples_per_insert, which is not given"),
        ({"samples_per_insert": 2, "tolerance": 1.9}, r"at least 1 and .*, 2 \(found 1.9\)"),
        ({"samples_per_insert": 0.5, "tolerance": 0.9}, r"at least 1 and .*, 1 \(found 0.9\)"),
        ({"samples_per_insert": 2, "tolerance": float("nan")}, "tolerance must be a number"),
        ({"timeout": -1}, "timeout must be a number"),
    ],
)
def test_impossible_limits_are_refused(arguments: dict[str, Any], said: str) -> None:
    with ReplayBuffer(100) as buffer, pytest.raises(ArgumentError, match=said):
        RateLimited(buffer, **arguments)


def test_sizes_that_could_stop_both_sides_are_refused_before_anything_waits(
    tmp_path: Path,
) -> None:
    with RateLimited(
        ReplayBuffer(100, path=tmp_path / "b"), min_size=10, samples_per_insert=2, tolerance=6
    ) as replay:
        replay.extend(**columns(0, 4))
        with pytest.raises(ArgumentError, match=r"tolerance must be at least 6.5 with 5 trans"):
            replay.sample(5)
        with pytest.raises(ArgumentError, match=r"at least 7 with .* 7 transitions in an insert"):
            replay.extend(**columns(4, 7))
        assert replay.count == 4
        replay.extend(**columns(4, 4))
        replay.extend(**columns(8, 4))
        assert replay.sample(4).rewards.size == 4

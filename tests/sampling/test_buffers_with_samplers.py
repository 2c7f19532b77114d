"""Buffers with a sampler: over reopenings, kills, forks and processes, and beside damage."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import in_child
from common import columns
from drawn import fill
from kills import child_of, was_killed
from others import Other
from stores import RECORD_BYTES, spoil

import diskreplay
from diskreplay import ArgumentError, PrioritizedReplayBuffer, ReplayBuffer, SampleError
from diskreplay.samplers import AtMost, Epoch, Mixed, Newest, Range, RankBased, Recent
from diskreplay.sampling import Distribution
from diskreplay.sampling.uniform import UniformSampler

N, SIZE = 60, 8
FOR_BOTH: list[Any] = [Newest(25), Range(40, 80), Recent(7.5), Epoch()]
FOR_PRIORITIZED: list[Any] = [Mixed(0.25), RankBased(0.7)]
CASES = [
    *((kind, sampler) for sampler in FOR_BOTH for kind in (ReplayBuffer, PrioritizedReplayBuffer)),
    *((PrioritizedReplayBuffer, sampler) for sampler in FOR_PRIORITIZED),
]
ALL = pytest.mark.parametrize(("kind", "sampler"), CASES, ids=str)


def extend(buffer: Any, first: int, n: int, **more: Any) -> None:
    if isinstance(buffer, PrioritizedReplayBuffer):
        more["priorities"] = np.arange(first, first + n) % 7 + 0.5
    buffer.extend(**columns(first, n), **more)


def opened(kind: Any, path: Path, sampler: Any, **arguments: Any) -> Any:
    return kind(N, seed=3, path=path, commit_interval=1e9, sampler=sampler, **arguments)


def indices(batch: Any) -> list[int]:
    found: list[int] = batch.indices.tolist()
    return found


def may_be_drawn(sampler: Any, buffer: Any) -> range:
    """Return the write ids that the sampler of a buffer may draw."""
    first, end = buffer.first, buffer.count
    if isinstance(sampler, Newest):
        first = max(first, end - sampler.n)
    elif isinstance(sampler, Range):
        first, end = max(first, sampler.first), min(end, sampler.end or end)
    return range(first, end)


@ALL
def test_a_resumed_run_draws_what_one_run_would(kind: Any, sampler: Any, tmp_path: Path) -> None:
    def train(buffer: Any, begin: int, end: int) -> list[list[int]]:
        found = []
        for step in range(begin, end):
            if step % 3 == 0:
                extend(buffer, 50 + step, 1)  # over the end of the ring
            found.append(indices(buffer.sample(SIZE)))
            if kind is PrioritizedReplayBuffer:
                buffer.update_priorities(found[-1], [step % 5 + 0.25] * SIZE)
        return found

    with opened(kind, tmp_path / "whole", sampler) as buffer:
        extend(buffer, 0, 50)
        whole = train(buffer, 0, 30)
    with opened(kind, tmp_path / "parts", sampler) as buffer:
        extend(buffer, 0, 50)
        parts = train(buffer, 0, 11)
    with diskreplay.open(tmp_path / "parts", sampler=sampler) as buffer:
        parts += train(buffer, 11, 17)
        buffer.flush()
        assert pickle.loads(pickle.dumps(buffer._options)).sampler == sampler  # noqa: S301
    with opened(kind, tmp_path / "parts", sampler) as buffer:
        parts += train(buffer, 17, 30)
    assert parts == whole


@ALL
def test_batches_drawn_ahead_are_those_of_sample(kind: Any, sampler: Any, tmp_path: Path) -> None:
    for name in ("plain", "ahead", "readers"):
        with opened(kind, tmp_path / name, sampler) as buffer:
            extend(buffer, 0, 90)
    with opened(kind, tmp_path / "plain", sampler) as buffer:
        expected = [indices(buffer.sample(SIZE)) for _ in range(12)]
    with opened(kind, tmp_path / "ahead", sampler) as buffer, buffer.batches(SIZE, 3) as batches:
        found = [indices(next(batches)) for _ in range(5)]
        fill(batches)
    with opened(kind, tmp_path / "ahead", sampler) as buffer, buffer.batches(SIZE, 2) as batches:
        found += [indices(next(batches)) for _ in range(7)]
    assert found == expected
    buffer = opened(kind, tmp_path / "readers", sampler)
    with buffer, buffer.batches(SIZE, prefetch=2, readers=1) as batches:
        assert [indices(next(batches)) for _ in range(12)] == expected


@ALL
def test_a_killed_run_goes_on_where_it_committed(kind: Any, sampler: Any, tmp_path: Path) -> None:
    def train(path: str, begin: int, end: int) -> list[list[int]]:
        """Draw in another process, which is killed after a batch that no commit has counted."""
        said = tmp_path / "said"

        def work() -> None:
            buffer = opened(kind, tmp_path / path, eval(repr(sampler)))
            if begin == 0:
                buffer.extend(**columns(0, 90))
            found = [indices(buffer.sample(SIZE)) for _ in range(begin, end)]
            buffer.flush()
            buffer.sample(SIZE)
            said.write_text(json.dumps(found))
            os.kill(os.getpid(), signal.SIGKILL)

        assert was_killed(child_of(work))
        found: list[list[int]] = json.loads(said.read_text())
        assert len(found) == end - begin
        return found

    whole = train("whole", 0, 9)
    assert train("parts", 0, 4) + train("parts", 4, 9) == whole


@ALL
def test_writers_that_share_and_readers_draw_what_may_be_drawn(
    kind: Any, sampler: Any, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    with opened(kind, path, sampler) as buffer:
        extend(buffer, 0, 55)
    with Other(path) as other:
        other.open(N, kind=kind.__name__, access="shared")
        for access in ("shared", "read"):
            with opened(kind, path, sampler, access=access) as buffer:
                found = []
                for step in range(12):
                    if step % 4 == 3:  # over the end of the ring
                        other.extend(other.count(), 12)
                        other.flush()
                    found.append(indices(buffer.sample(SIZE)))
                    allowed = may_be_drawn(sampler, buffer)
                    assert set(found[-1]) <= set(allowed)
                assert len({tuple(ids) for ids in found}) > 9


@ALL
def test_the_sampler_goes_along_to_other_processes(kind: Any, sampler: Any, tmp_path: Path) -> None:
    with opened(kind, tmp_path / "b", sampler) as buffer:
        extend(buffer, 0, 90)
        buffer.flush()
        allowed = set(may_be_drawn(sampler, buffer))
        pickled = pickle.dumps(buffer)

        def draws_of_child() -> tuple[list[int], str]:
            ids = [i for _ in range(40) for i in indices(buffer.sample(SIZE))]
            return ids, repr(buffer._options.sampler)

        ids, name = in_child(draws_of_child).value
        assert set(ids) <= allowed
        assert name == repr(sampler)
    with pickle.loads(pickled) as reader:  # noqa: S301
        assert reader._options.sampler == sampler
        assert {i for _ in range(40) for i in indices(reader.sample(SIZE))} <= allowed


@ALL
def test_a_damaged_record_is_left_out(kind: Any, sampler: Any, tmp_path: Path) -> None:
    path = tmp_path / "b"
    with opened(kind, path, sampler) as buffer:
        extend(buffer, 0, 90)
    spoil(path, [10, 17])  # write ids 70 and 77
    with opened(kind, path, sampler, window_bytes=0, on_damage="skip") as buffer:
        found = [i for _ in range(60) for i in indices(buffer.sample(SIZE))]
        assert not {70, 77} & set(found)
        assert buffer.stats()["damaged"] == 2
        assert set(found) <= set(may_be_drawn(sampler, buffer))


@pytest.mark.parametrize(("kind", "sampler"), [(ReplayBuffer, None), *CASES], ids=str)
def test_a_write_id_that_is_given_again_is_drawn_again(
    kind: Any, sampler: Any, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    with opened(kind, path, sampler) as buffer:
        extend(buffer, 0, 68)
        buffer.mark("before")
        extend(buffer, 68, 10)
    spoil(path, [10], record_bytes=RECORD_BYTES)  # write id 70
    with opened(kind, path, sampler, window_bytes=0, on_damage="skip") as buffer:
        while not buffer.stats()["damaged"]:
            buffer.sample(SIZE)
        buffer.rewind("before", missing="drop")
        extend(buffer, 68, 10)
        assert 70 in {i for _ in range(60) for i in indices(buffer.sample(SIZE))}


@pytest.mark.parametrize("sampler", [*FOR_BOTH, *FOR_PRIORITIZED], ids=str)
def test_the_weights_follow_from_the_probabilities(sampler: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with opened(PrioritizedReplayBuffer, tmp_path / name, sampler) as buffer:
            extend(buffer, 0, 90)
    with diskreplay.open(tmp_path / "a", sampler=sampler) as buffer:
        ids, probabilities = buffer.draw(SIZE)
        expected = diskreplay.importance_weights(probabilities, len(buffer), beta=0.7)
        assert buffer.total_mass > 0.0
    with diskreplay.open(tmp_path / "b", sampler=sampler) as buffer:
        batch = buffer.sample(SIZE, beta=0.7)
        assert batch.indices.tolist() == ids.tolist()
        assert batch.weights.tolist() == expected.tolist()


@ALL
def test_the_starts_of_sequences_are_drawn_by_the_sampler(
    kind: Any, sampler: Any, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        with opened(kind, tmp_path / name, sampler) as buffer:
            extend(buffer, 0, 90, env=0)  # episodes of 5 transitions
    with opened(kind, tmp_path / "a", sampler) as buffer:
        expected = [indices(buffer.sample(SIZE)) for _ in range(8)]
    with opened(kind, tmp_path / "b", sampler) as buffer:
        found = [buffer.sample_sequences(SIZE, 3).indices[:, 0].tolist() for _ in range(8)]
        assert found == expected
        for _ in range(8):
            whole = buffer.sample_sequences(4, 3, pad=False).indices
            assert (whole >= 0).all()
            assert set(whole[:, 0].tolist()) <= set(may_be_drawn(sampler, buffer))


@pytest.mark.parametrize("n", [1, 7, 8, 60])
@pytest.mark.parametrize(("writes", "keep_rows"), [(False, 0), (True, 0), (True, 7)])
def test_each_slot_comes_once_in_an_epoch(
    n: int, writes: bool, keep_rows: int, tmp_path: Path
) -> None:
    with opened(ReplayBuffer, tmp_path / "b", Epoch(), keep_rows=keep_rows) as buffer:
        extend(buffer, 0, 100)
        found = []
        while len(found) < 7 * N:
            found += indices(buffer.sample(n))
            if writes:
                extend(buffer, buffer.count, 3)
        epochs = np.array(found[: 7 * N]).reshape(7, N) % N
        assert (np.sort(epochs) == np.arange(N)).all()
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == 7


def test_an_epoch_is_whole_again_after_a_change(tmp_path: Path) -> None:
    with opened(ReplayBuffer, tmp_path / "b", Epoch()) as buffer:
        for size, skipped in ((20, 3), (35, 4), (N, 2)):
            extend(buffer, buffer.count, size - len(buffer))
            for _ in range(skipped):
                buffer.sample(5)
            while buffer._guard.replica.draws * 5 % size:
                buffer.sample(5)
            found = [i for _ in range(size // 5) for i in indices(buffer.sample(5))]
            assert sorted(found) == list(range(size))


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_a_restriction_with_nothing_live_says_so(kind: Any) -> None:
    message = r"Range\(first=70, end=90\) may draw (0|none).*with another sampler"
    with kind(N, sampler=Range(70, 90), seed=1) as buffer:
        extend(buffer, 0, 50)
        with pytest.raises(SampleError, match=message):
            buffer.sample(1)
        assert buffer.total_mass == 0.0
        extend(buffer, 50, 21)
        assert indices(buffer.sample(1)) == [70]
        extend(buffer, 71, 79)
        with pytest.raises(SampleError, match=rf"{message}|\[90, 150\)"):
            buffer.draw(1)


@pytest.mark.parametrize("sampler", [Mixed(0.5), RankBased()], ids=str)
@pytest.mark.parametrize("opens", [False, True])
def test_what_needs_priorities_is_refused_without_them(
    opens: bool, sampler: Any, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    message = rf"{re.escape(repr(sampler))} follows priorities.*use a Prior.*Buffer, or make one"
    if opens:
        ReplayBuffer(N, path=path).close()
        with pytest.raises(ArgumentError, match=message):
            diskreplay.open(path, sampler=sampler)
        diskreplay.open(path).close()  # it is not left open
    else:
        with pytest.raises(ArgumentError, match=message):
            ReplayBuffer(N, path=path, sampler=sampler)
        assert not path.exists()


@pytest.mark.parametrize("bad", [Epoch, "epoch", 3, [Epoch()]])
def test_a_sampler_is_one_of_the_module(bad: Any) -> None:
    with pytest.raises(ArgumentError, match=r"one of diskreplay.samplers, such as .*\(found "):
        ReplayBuffer(N, sampler=bad)


def test_arguments_of_samplers_are_checked_where_they_are_made() -> None:
    bad: Any
    for bad in (0, -1, 1.5, "3", None, True):
        with pytest.raises(ArgumentError, match="n must be a whole number of at least 1"):
            Newest(bad)
        with pytest.raises(ArgumentError, match=r"first must be a whole|end must be above first"):
            Range(bad, 0)
    with pytest.raises(ArgumentError, match=r"end must be above first \(found first=4 and end=4\)"):
        Range(4, 4)
    for bad in (0, -1.0, float("nan"), float("inf"), "1", None):
        with pytest.raises(ArgumentError, match="half_life must be a number"):
            Recent(bad)
        if bad != 0:
            with pytest.raises(ArgumentError, match="uniform must be a number"):
                Mixed(bad)
            with pytest.raises(ArgumentError, match=r"alpha must be a number in \[0, 10\]"):
                RankBased(bad)
    assert Newest(3.0).n == 3  # type: ignore[arg-type]
    assert repr(Range(2)) == "Range(first=2, end=None)"


# Ready


def draws(buffer: Any, n: int) -> bool:
    """Whether a batch of n is drawn, rather than refused for want of transitions."""
    try:
        buffer.draw(n)
    except SampleError:
        return False
    return True


@ALL
def test_a_buffer_is_ready_if_its_sampler_can_draw(kind: Any, sampler: Any, tmp_path: Path) -> None:
    with opened(kind, tmp_path / "b", sampler) as buffer:
        assert [buffer.is_ready(n) for n in (0, 1)] == [True, False]
        for begin in range(0, 150, 30):
            extend(buffer, begin, 30)
            for n in (1, 5, 20, 21, 25, 26, 39, 40, 60, 61):
                assert buffer.is_ready(n) is draws(buffer, n)
                assert buffer.is_ready(0)


def test_at_most_is_ready_while_enough_have_draws_left(tmp_path: Path) -> None:
    with opened(ReplayBuffer, tmp_path / "b", AtMost(1)) as buffer:
        extend(buffer, 0, 20)
        for left in (20, 12, 4):
            assert [buffer.is_ready(n) for n in (0, 1, left, left + 1)] == [True, True, True, False]
            if left >= SIZE:
                buffer.sample(SIZE)
        buffer.draw(4)
        assert [buffer.is_ready(n) for n in (0, 1)] == [True, False]
        extend(buffer, 20, 3)
        assert [buffer.is_ready(n) for n in (3, 4)] == [True, False]
    with diskreplay.open(tmp_path / "b", access="read", sampler=AtMost(1)) as reader:
        assert [reader.is_ready(n) for n in (0, 1)] == [True, False]
        assert not draws(reader, 1)


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_what_was_left_out_counts_no_more(kind: Any, tmp_path: Path) -> None:
    with opened(kind, tmp_path / "b", None) as buffer:
        extend(buffer, 0, 6)
    spoil(tmp_path / "b", [1, 2], RECORD_BYTES)
    with opened(kind, tmp_path / "b", None, window_bytes=0, on_damage="skip") as buffer:
        assert [buffer.is_ready(n) for n in (6, 7)] == [True, False]
        while buffer.stats()["damaged"] < 2:
            buffer.sample(4)
        for n in (4, 5, 6):
            assert buffer.is_ready(n) is draws(buffer, n)


class Stubborn(UniformSampler):
    """Draws also what was left out."""

    def leave_out(self, write_ids: Any, live: Any) -> None:
        """Do nothing."""


class StubbornDraws(Distribution):
    """Of a sampler that leaves nothing out."""

    def sampler(self, basis: Any) -> Stubborn:
        return Stubborn()


def test_a_sampler_that_leaves_nothing_out_does_not_loop(tmp_path: Path) -> None:
    with opened(ReplayBuffer, tmp_path / "b", None) as buffer:
        extend(buffer, 0, 6)
    spoil(tmp_path / "b", [1, 2], RECORD_BYTES)
    arguments: dict[str, Any] = {"window_bytes": 0, "on_damage": "skip"}
    with opened(ReplayBuffer, tmp_path / "b", StubbornDraws(), **arguments) as buffer:
        calls: list[Any] = [lambda: buffer.sample(6), lambda: buffer.sample_sequences(6, 1)]
        for call in (*calls, *calls):
            with pytest.raises(diskreplay.DamageError, match=r"write id [12] in slot"):
                call()

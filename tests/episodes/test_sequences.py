"""Sequences and whole episodes: the classic edge cases, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import common
import numpy as np
import pytest
from episode_twin import EpisodeTwin, Step, check_n_step, check_sequences, columns
from others import Other
from stores import spoil

import diskreplay
from diskreplay import (
    ArgumentError,
    DamageError,
    PrioritizedReplayBuffer,
    PrioritizedSequenceBatch,
    ReplayBuffer,
    SampleError,
    SchemaError,
    SequenceBatch,
    samplers,
    sequence_priorities,
)

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


def pushed(buffer: Any, steps: list[Step]) -> Any:
    for step in steps:
        buffer.push(**step.row())
    return buffer


def ids_from(
    buffer: Any, start: int, length: int, *, n: int | None = None, across: bool = False
) -> list[int]:
    """Return the write ids of the sequence that begins with one."""
    batch = buffer.sample_sequences(n or len(buffer), length, across=across)
    [at] = np.flatnonzero(batch.indices[:, 0] == start).tolist()
    return [number for number in batch.indices[at].tolist() if number >= 0]


def test_truncated_at_the_seam_of_the_ring() -> None:
    twin = EpisodeTwin(8)
    with pushed(ReplayBuffer(8), [twin.push(0, truncated=i == 7) for i in range(11)]) as buffer:
        assert ids_from(buffer, 6, 4) == [6, 7]
        assert ids_from(buffer, 6, 4, across=True) == [6, 7, 8, 9]
        assert [batch.indices.tolist() for batch in buffer.episodes()] == []


@pytest.mark.parametrize("capacity", [5, 6, 7], ids=["one less", "equal", "one more"])
def test_a_capacity_like_the_length_of_the_episode(capacity: int) -> None:
    twin = EpisodeTwin(capacity)
    with pushed(ReplayBuffer(capacity), [twin.push(0, done=i == 5) for i in range(6)]) as buffer:
        check_sequences(twin, buffer.sample_sequences(min(6, capacity), 5), 5)
        assert [len(batch.rewards) for batch in buffer.episodes()] == [6] * (capacity >= 6)


def test_an_episode_longer_than_the_buffer() -> None:
    twin = EpisodeTwin(5)
    with pushed(ReplayBuffer(5), [twin.push(0, done=i == 22) for i in range(23)]) as buffer:
        assert ids_from(buffer, 18, 5) == [18, 19, 20, 21, 22]
        assert not buffer.sample_sequences(5, 5).firsts.any()  # the first one was evicted
        assert list(buffer.episodes()) == []


def test_the_newest_transition() -> None:
    twin = EpisodeTwin(9)
    with pushed(ReplayBuffer(9), [twin.push(0) for _ in range(4)]) as buffer:
        assert ids_from(buffer, 3, 5) == [3]
        assert list(buffer.episodes()) == []  # it goes on
        buffer.end_episode(0)
        twin.end_episode(0)
        pushed(buffer, [twin.push(0)])
        assert [batch.indices.tolist() for batch in buffer.episodes()] == [[0, 1, 2, 3]]


def test_starts_are_those_of_sample_and_count() -> None:
    for kind in KINDS:
        twin = EpisodeTwin(30)
        steps = [twin.push(i % 2, done=i % 9 == 0) for i in range(40)]
        with kind(30, seed=2) as buffer, kind(30, seed=2) as other:
            pushed(buffer, steps), pushed(other, steps)
            for _ in range(5):
                batch, plain = buffer.sample_sequences(6, 4), other.sample(6)
                assert batch.indices[:, 0].tolist() == plain.indices.tolist()
                check_sequences(twin, batch, 4)
            if kind is PrioritizedReplayBuffer:
                assert batch.weights.tolist() == plain.weights.tolist()
                assert buffer.frame == 5
                assert buffer.sample_sequences(6, 4, beta=0.0).weights.tolist() == [1.0] * 6


def test_a_resumed_run_draws_the_same_sequences(tmp_path: Path) -> None:
    twin = EpisodeTwin(30)
    steps = [twin.push(i % 2, done=i % 9 == 0) for i in range(40)]
    with ReplayBuffer(30, seed=2, path=tmp_path / "b") as buffer:
        pushed(buffer, steps)
        buffer.sample(3)
        buffer.save(tmp_path / "copy")
        expected = [buffer.sample_sequences(4, 3, pad=False).indices for _ in range(5)]
    with diskreplay.open(tmp_path / "copy") as buffer:
        found = [buffer.sample_sequences(4, 3, pad=False).indices for _ in range(5)]
    np.testing.assert_array_equal(found, expected)


def test_the_types_of_batches() -> None:
    twin = EpisodeTwin(9)
    for kind, of_batch in zip(KINDS, (SequenceBatch, PrioritizedSequenceBatch), strict=True):
        with pushed(kind(9), [twin.push(0) for _ in range(4)]) as buffer:
            batch = buffer.sample_sequences(2, 3)
            assert isinstance(batch, of_batch)
            assert batch._fields[:-2] == of_batch._fields
            assert set(batch._fields[-2:]) == {"truncated", "x"}
            assert (batch.mask.dtype, batch.firsts.dtype) == (bool, bool)
            again = pickle.loads(pickle.dumps(batch))  # noqa: S301
            assert type(again) is type(batch)
            np.testing.assert_array_equal(again.indices, batch.indices)
            with pytest.raises(AttributeError, match="its elements are states, actions"):
                batch.state  # noqa: B018


def test_nested_fields_and_fields_that_vary_in_size() -> None:
    schema = {"prompt": str, "tokens": ("int64", (None, 2)), "raw": bytes}
    with ReplayBuffer(10, schema=schema, seed=1) as buffer:
        for i in range(3):
            buffer.push(
                {"a": [i], "b": ([i], [i, i])}, 0, 1.0, {"a": [i], "b": ([i], [i, i])}, i == 2,
                prompt=str(i), tokens=np.full((i, 2), i), raw=b"x" * i, env=0,
            )  # fmt: skip
        batch = buffer.sample_sequences(3, 2)
        [at] = np.flatnonzero(batch.indices[:, 0] == 2).tolist()
        assert batch.states["b"][1].shape == (3, 2, 2)
        assert batch.states["a"][at].tolist() == [[2.0], [0.0]]
        assert (batch.prompt[at], batch.raw[at]) == (["2", ""], [b"xx", b""])
        assert [tokens.shape for tokens in batch.tokens[at]] == [(2, 2), (0, 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_whole_sequences_are_equally_likely(kind: Any) -> None:
    twin = EpisodeTwin(40)
    steps = [twin.push(0, done=i % 10 == 9) for i in range(40)]
    with pushed(kind(40, seed=3), steps) as buffer:
        draws = [buffer.sample_sequences(4, 8, pad=False).indices[:, 0] for _ in range(500)]
        numbers, counts = np.unique(np.concatenate(draws), return_counts=True)
        assert numbers.tolist() == [10 * e + i for e in range(4) for i in range(3)]
        assert ((counts - 2000 / 12) ** 2 / (2000 / 12)).sum() < 31.3  # chi-square of 11, 0.1 %


@pytest.mark.parametrize("kind", KINDS)
def test_rare_whole_sequences_are_found(kind: Any) -> None:
    twin = EpisodeTwin(3000)
    steps = [twin.push(0, done=i % 3 == 0 and not 1500 < i < 1506) for i in range(3000)]
    with kind(3000, seed=3) as buffer:
        buffer.extend(**columns(steps))
        batch = buffer.sample_sequences(2, 5, pad=False)
        check_sequences(twin, batch, 5, pad=False)
        with pytest.raises(SampleError, match=r"begin a whole sequence"):
            buffer.sample_sequences(2, 20, pad=False)


@pytest.mark.parametrize("sampler", [samplers.Newest(9), samplers.Range(31, 40)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_sequences_of_what_a_sampler_may_draw(kind: Any, sampler: Any) -> None:
    twin = EpisodeTwin(40)
    steps = [twin.push(0, done=i % 10 == 9) for i in range(40)]
    with pushed(kind(40, seed=3, sampler=sampler), steps) as buffer:
        n = 4 if kind is ReplayBuffer else 2
        found = {
            start
            for _ in range(20)
            for start in buffer.sample_sequences(n, 6, pad=False).indices[:, 0].tolist()
        }
        assert found == {31, 32, 33, 34}
        with pytest.raises(SampleError, match="begin a whole sequence"):
            buffer.sample_sequences(n, 10, pad=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0), "length must be a whole number of at least 1 (found 0)"),
        ((1, 1.5), "length must be a whole number of at least 1 (found 1.5)"),
        ((1, 11), "length=11 is more transitions than the buffer holds (its capacity is 10)"),
        ((0, 1), "n must be a whole number of at least 1 (found 0)"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_bad_arguments(kind: Any, arguments: Any, message: str) -> None:
    twin = EpisodeTwin(10)
    with pushed(kind(10), [twin.push(0)]) as buffer:
        with pytest.raises(ArgumentError) as error:
            buffer.sample_sequences(*arguments)
        assert message in str(error.value)
        for name in ("pad", "across"):
            with pytest.raises(ArgumentError, match=f"{name} must be True or False"):
                buffer.sample_sequences(1, 1, **{name: 1})
        with pytest.raises(ArgumentError, match="newest_first must be True or False"):
            buffer.episodes("yes")
        with pytest.raises(SampleError, match="cannot draw 2 transitions"):
            buffer.sample_sequences(2, 1)


def test_more_than_the_memory_is_refused() -> None:
    capacity, n = 10**7, 5000
    with ReplayBuffer(capacity) as buffer:
        zeros = np.zeros(n)
        buffer.extend(zeros[:, None], zeros, zeros, zeros[:, None], zeros, env=0)
        with pytest.raises(ArgumentError, match=r"5000 sequences of 10000000 .* or shorter ones"):
            buffer.sample_sequences(n, capacity)


@pytest.mark.parametrize("name", ["mask", "firsts"])
def test_a_field_of_the_name_of_an_element_is_refused(name: str) -> None:
    with ReplayBuffer(10) as buffer:
        buffer.push([0.0], 0, 1.0, [1.0], False, **{name: 2.0})
        assert getattr(buffer.sample(1), name).tolist() == [2.0]
        with pytest.raises(SchemaError, match=f"sample_sequences adds the element '{name}'"):
            buffer.sample_sequences(1, 1)


def test_a_sequence_ends_before_a_damaged_record(tmp_path: Path) -> None:
    with ReplayBuffer(20, path=tmp_path / "b") as buffer:
        buffer.extend(**common.columns(0, 20), env=0)  # episodes of five steps
    spoil(tmp_path / "b", [7])
    with (
        diskreplay.open(tmp_path / "b", window_bytes=0) as buffer,
        pytest.raises(DamageError, match="write id 7 in slot 7 is damaged"),
    ):
        buffer.sample_sequences(20, 3)
    with diskreplay.open(tmp_path / "b", window_bytes=0, on_damage="skip") as buffer:
        batch = buffer.sample_sequences(19, 3)
        assert 7 not in batch.indices
        assert ids_from(buffer, 5, 3, n=19) == [5, 6]
        assert ids_from(buffer, 8, 3, n=19, across=True) == [8, 9, 10]


def test_episodes_that_are_evicted_meanwhile_are_left_out() -> None:
    twin = EpisodeTwin(12)
    with pushed(ReplayBuffer(12), [twin.push(0, done=i % 4 == 3) for i in range(12)]) as buffer:
        oldest, newest = buffer.episodes(), buffer.episodes(newest_first=True)
        assert next(oldest).indices.tolist() == [0, 1, 2, 3]
        assert next(newest).indices.tolist() == [8, 9, 10, 11]
        pushed(buffer, [twin.push(0) for _ in range(5)])
        assert [batch.indices.tolist() for batch in oldest] == [[8, 9, 10, 11]]
        assert [batch.indices.tolist() for batch in newest] == []
        buffer.clear()
        assert list(buffer.episodes()) == []


def test_a_whole_episode_in_the_slots_of_an_evicted_one_is_not_taken_for_it() -> None:
    twin = EpisodeTwin(12)
    steps = [twin.push(0, done=i % 4 == 3) for i in range(20)]
    with pushed(ReplayBuffer(12), steps[:12]) as buffer:
        oldest = buffer.episodes()
        assert next(oldest).indices.tolist() == [0, 1, 2, 3]
        pushed(buffer, steps[12:])  # write ids 16 to 19 have the slots of 4 to 7
        assert [batch.indices.tolist() for batch in oldest] == [[8, 9, 10, 11]]


def test_the_log_gives_the_same_bits() -> None:
    twin = EpisodeTwin(40)
    steps = [twin.push(i % 2, truncated=i % 9 == 8) for i in range(60)]
    with (
        ReplayBuffer(40, seed=1, window_bytes=0) as record,
        ReplayBuffer(40, seed=1, window_bytes=0, observations="log") as log,
    ):
        for buffer in (record, log):
            pushed(buffer, steps[:50]).flush()
            pushed(buffer, steps[50:])
        for pad in (True, False):
            pair = [buffer.sample_sequences(8, 5, pad=pad) for buffer in (record, log)]
            for first, second in zip(*pair, strict=True):
                assert first.tobytes() == second.tobytes()
        for first, second in zip(record.episodes(), log.episodes(), strict=True):
            assert first.next_states.tobytes() == second.next_states.tobytes()


def test_sequence_priorities_mix_maximum_and_mean() -> None:
    errors, mask = [[1.0, -3.0, 2.0], [4.0, 0.0, 9.0], [5.0, 5.0, 5.0]], np.ones((3, 3), bool)
    mask[1, 2] = mask[2] = False
    np.testing.assert_allclose(sequence_priorities(errors, mask), [2.9, 3.8, 0.0])
    np.testing.assert_allclose(sequence_priorities(errors, mask, eta=0), [2.0, 2.0, 0.0])
    np.testing.assert_allclose(sequence_priorities(errors, mask, eta=1), [3.0, 4.0, 0.0])
    errors[1][2] = np.nan  # beyond the mask
    assert sequence_priorities(errors, mask)[1] == pytest.approx(3.8)
    for given in ((errors, mask[:2]), (errors, mask.astype(int)), (errors[0], mask[0])):
        with pytest.raises(ArgumentError, match="expected td_errors and a mask of bools"):
            sequence_priorities(*given)
    with pytest.raises(ArgumentError, match="eta must be a number"):
        sequence_priorities(errors, mask, eta=2)


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    twin = EpisodeTwin(40)
    with Other(tmp_path / "b") as writer:
        writer.open(40, kind="ReplayBuffer")
        with pytest.raises(RuntimeError, match="SampleError"):
            writer.sample_sequences(1, 1)
        writer.extend_given(**columns([twin.push(0)]))
        writer.flush()
        with diskreplay.open(tmp_path / "b", access="read", seed=1) as reader:
            for turn in range(9):
                steps = [twin.push(i % 3, done=turn == 4 and i == 2) for i in range(7)]
                writer.extend_given(**columns(steps))
                writer.flush()
                check_sequences(twin, reader.sample_sequences(7, 4), 4)
                check_n_step(twin, reader.sample(7, n_step=3, gamma=0.9), 3, 0.9)
                found = [batch.indices.tolist() for batch in reader.episodes()]
                assert found == sorted(twin.whole_episodes())

"""What a user does with a buffer, call by call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row

import diskreplay
from diskreplay import Experience, PrioritizedReplayBuffer, ReplayBuffer

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


def push_sixty(buffer: Any, n: int = 100) -> None:
    rng = np.random.default_rng(0)
    for i in range(n):
        buffer.push(
            state=rng.standard_normal(60),
            action=int(rng.integers(4)),
            reward=float(rng.standard_normal()),
            next_state=rng.standard_normal(60),
            done=i % 10 == 9,
        )


def test_the_usage_known_from_memory_works_uniform() -> None:
    buffer = ReplayBuffer(capacity=1000, seed=42)
    push_sixty(buffer)
    states, actions, rewards, next_states, dones = buffer.sample(32)
    assert [a.shape for a in (states, actions, rewards, next_states, dones)] == [
        (32, 60), (32,), (32,), (32, 60), (32,)
    ]  # fmt: skip
    assert [str(a.dtype) for a in (states, actions, rewards, next_states, dones)] == [
        "float32", "int64", "float32", "float32", "float32"
    ]  # fmt: skip
    assert set(dones.tolist()) == {0.0, 1.0}
    assert len(buffer) == 100
    assert buffer.is_ready(100)
    assert not buffer.is_ready(101)


def test_the_usage_known_from_memory_works_prioritized() -> None:
    buffer = PrioritizedReplayBuffer(capacity=1000)
    push_sixty(buffer)
    assert buffer.beta == 0.4
    states, _, _, _, _, weights, indices = buffer.sample(32)
    assert states.shape == (32, 60)
    assert weights.dtype == np.float32
    assert weights.max() == 1.0
    assert indices.dtype == np.int64
    td = np.linspace(-1, 1, 32)
    assert buffer.update_priorities(indices, abs(td) + 0.01) == 32
    for _ in range(9):
        buffer.sample(32)
    assert buffer.beta == pytest.approx(0.40006, abs=1e-12)
    assert buffer.frame == 10


def test_a_batch_has_names_too() -> None:
    buffer = PrioritizedReplayBuffer(capacity=10, seed=0)
    buffer.extend(**columns(0, 10))
    batch = buffer.sample(4)
    assert batch._fields == (
        "states", "actions", "rewards", "next_states", "dones", "weights", "indices"
    )  # fmt: skip
    assert numbers_of(batch).tolist() == batch.indices.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_push_and_extend_give_write_ids_and_the_oldest_go(kind: Any) -> None:
    buffer = kind(capacity=7)
    assert buffer.push(**row(0)) == 0
    assert buffer.extend(**columns(1, 5)).tolist() == [1, 2, 3, 4, 5]
    assert [buffer.push(**row(i)) for i in range(6, 20)] == list(range(6, 20))
    assert len(buffer) == 7
    assert numbers_of(buffer.get(range(13, 20))).tolist() == list(range(13, 20))
    with pytest.raises(diskreplay.NotLiveError, match=r"write id 12 is not live .*\[13, 20\)"):
        buffer.get([15, 12])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 6, 7, 8, 50, 1000])
def test_extend_of_any_length_keeps_the_newest(kind: Any, n: int, tmp_path: Path) -> None:
    buffer = kind(capacity=7, path=tmp_path / "b")
    buffer.extend(**columns(0, 3))
    assert buffer.extend(**columns(3, n)).tolist() == list(range(3, 3 + n))
    newest = list(range(max(0, n + 3 - 7), n + 3))
    assert [int(e.reward * 8) for e in buffer] == newest
    buffer.check()
    buffer.close()
    with diskreplay.open(tmp_path / "b") as again:
        assert [int(e.reward * 8) for e in again] == newest
        again.check()


def test_an_extend_larger_than_the_window_is_one_commit(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(5000, path=tmp_path / "b", window_bytes=0, commit_interval=1e9)
    buffer.extend(**columns(0, 10))
    buffer.extend(**columns(10, 3000), priorities=np.arange(10, 3010))
    assert buffer.stats()["commits"] == 2  # the ten before, then all of it
    assert numbers_of(buffer.get(np.arange(3010))).tolist() == list(range(3010))
    assert buffer.max_priority == 3009


@pytest.mark.parametrize("kind", KINDS)
def test_uniform_or_not_asking_for_too_much_is_refused(kind: Any) -> None:
    buffer = kind(capacity=10)
    with pytest.raises(diskreplay.SampleError, match=r"cannot draw 1 transition: .* holds 0"):
        buffer.sample(1)
    buffer.extend(**columns(0, 3))
    with pytest.raises(diskreplay.SampleError, match=r"cannot draw 4 .* is_ready\(4\)"):
        buffer.sample(4)
    for bad in (0, -1, 1.5, "3", None, True):
        with pytest.raises(diskreplay.ArgumentError, match="batch_size must be a whole number"):
            buffer.sample(bad)
    assert buffer.sample(3).states.shape == (3, 3)


def test_uniform_batches_hold_no_duplicates() -> None:
    buffer = ReplayBuffer(capacity=50, seed=1)
    buffer.extend(**columns(0, 80))
    for n in (1, 10, 49, 50):
        numbers = numbers_of(buffer.sample(n))
        assert len(set(numbers.tolist())) == n
        assert numbers.min() >= 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 0}, "capacity must be a whole number of at least 1"),
        ({"capacity": 2.5}, "capacity must be a whole number"),
        ({"capacity": -3}, "capacity must be a whole number of at least 1 .found -3"),
        ({"alpha": -0.1}, r"alpha must be a number in \[0, 1\]"),
        ({"alpha": 1.1}, r"alpha must be a number in \[0, 1\]"),
        ({"alpha": float("nan")}, r"alpha must be a number in \[0, 1\]"),
        ({"beta_start": -0.1}, r"beta_start must be a number in \[0, 1\]"),
        ({"beta_end": 1.01}, r"beta_end must be a number in \[0, 1\]"),
        ({"beta_frames": 0}, "beta_frames must be a whole number of at least 1"),
        ({"epsilon": 0.0}, r"epsilon must be a number in \(0, "),
        ({"epsilon": -1e-9}, r"epsilon must be a number in \(0, "),
        ({"epsilon": float("inf")}, r"epsilon must be a number in \(0, "),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"commit_interval": -1}, r"commit_interval must be a number in \[0, inf\)"),
        ({"window_bytes": -1}, "window_bytes must be a whole number of at least 0"),
        ({"access": "write"}, "access must be one of exclusive, shared, read"),
        ({"on_damage": "ignore"}, r"on_damage must be one of raise, skip \(found 'ignore'\)"),
        ({"access": "shared", "path": None}, "access='shared' needs the path of a store"),
        ({"durability": "none"}, "durability must be one of full, system, process"),
        ({"schema": {"state": "text"}}, "field 'state' has no usable dtype"),
        ({"schema": {"priority": "f4"}}, "'priority' cannot name a field"),
    ],
)
def test_a_bad_argument_is_refused_and_nothing_is_made(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        PrioritizedReplayBuffer(**{"capacity": 10, "path": tmp_path / "runs" / "b", **arguments})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [-1.0, -1e-300, float("nan"), float("inf"), 1e39, "high", None])
def test_a_bad_priority_is_refused_and_nothing_changes(bad: Any) -> None:
    buffer = PrioritizedReplayBuffer(capacity=10, seed=3)
    buffer.extend(**columns(0, 4), priorities=[1, 2, 3, 4])
    before = buffer.stats()
    with pytest.raises(diskreplay.PriorityError):
        buffer.update_priorities([0, 1], [5.0, bad])
    with pytest.raises(diskreplay.PriorityError):
        buffer.extend(**columns(4, 2), priorities=[5.0, bad])
    if bad is not None:
        with pytest.raises(diskreplay.PriorityError):
            buffer.push(**row(4), priority=bad)
    assert buffer.stats() == before
    with pytest.raises(diskreplay.PriorityError, match=r"expected 2 priorities, shape \(2,\)"):
        buffer.update_priorities([0, 1], [1.0])
    with pytest.raises(diskreplay.ArgumentError, match="indices must be whole numbers"):
        buffer.update_priorities([0.5], [1.0])


def test_a_uniform_buffer_takes_no_priorities() -> None:
    buffer = ReplayBuffer(capacity=10)
    with pytest.raises(diskreplay.PriorityError, match="use a PrioritizedReplayBuffer"):
        buffer.push(**row(0), priority=1.0)
    assert len(buffer) == 0
    assert buffer.schema is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_transition_changes_nothing(kind: Any) -> None:
    buffer = kind(capacity=10)
    good = row(0)
    buffer.push(**good)
    before = buffer.stats()
    for name, bad, message in [
        ("state", np.zeros(4), r"field 'state': expected shape \(3,\) \(found \(4,\), float64\)"),
        ("action", 1.5, "field 'action': expected int64 .found float64"),
        ("reward", float("nan"), "field 'reward': expected finite numbers"),
        ("reward", np.float64("inf"), "field 'reward': expected finite numbers"),
        ("next_state", None, "field 'next_state' is None .at the end of an episode"),
        ("done", 0.5, "field 'done': expected True or False"),
    ]:
        with pytest.raises(diskreplay.SchemaError, match=message):
            buffer.push(**{**good, name: bad})
    with pytest.raises(diskreplay.SchemaError, match="new: log_prob"):
        buffer.push(**good, log_prob=0.5)
    with pytest.raises(diskreplay.SchemaError, match="expected columns of one length"):
        buffer.extend(**{**columns(1, 3), "actions": [1, 2]})
    assert buffer.stats() == before


def test_nan_and_infinity_in_states_are_kept_bit_for_bit(tmp_path: Path) -> None:
    state = np.array([np.nan, np.inf, -np.inf], np.float32)
    with ReplayBuffer(capacity=10, path=tmp_path / "b") as buffer:
        buffer.push(**{**row(0), "state": state})
    with diskreplay.open(tmp_path / "b") as buffer:
        assert buffer.get([0]).states[0].tobytes() == state.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_extra_fields_travel_along(kind: Any, tmp_path: Path) -> None:
    extra = {"log_prob": np.linspace(0, 1, 6), "env": np.arange(6), "mask": np.eye(6) > 0}
    with kind(capacity=10, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 5), **{name: values[:5] for name, values in extra.items()})
        buffer.push(**row(5), log_prob=1.0, env=5, mask=np.eye(6)[5] > 0)
    with diskreplay.open(tmp_path / "b") as buffer:
        batch = buffer.get(np.arange(6))
        assert batch._fields[5:] == ("log_prob", "env", "mask")
        np.testing.assert_array_equal(batch.log_prob, extra["log_prob"].astype("f4"))
        np.testing.assert_array_equal(batch.mask, extra["mask"])
        assert batch.env.dtype == np.int64
        drawn = buffer.sample(3)
        assert (drawn.env == numbers_of(drawn)).all()
        assert [e.env for e in buffer] == list(range(6))


def test_pixels_stay_bytes() -> None:
    buffer = ReplayBuffer(capacity=4)
    frame = np.arange(84 * 84 * 4, dtype=np.uint8).reshape(84, 84, 4)
    buffer.push(frame, 0, 0.0, frame[::-1], False)
    batch = buffer.sample(1)
    assert batch.states.dtype == np.uint8
    np.testing.assert_array_equal(batch.next_states[0], frame[::-1])


def test_a_given_schema_overrides_each_default(tmp_path: Path) -> None:
    schema = {"state": ("float64", (2,)), "action": ("float32", (1,)), "done": "bool"}
    buffer = ReplayBuffer(capacity=4, schema=schema, path=tmp_path / "b")
    assert buffer.schema is None  # the rest is still open
    buffer.push([0.1, 0.2], [0.3], 1, [0.4, 0.5], True)
    batch = buffer.sample(1)
    assert [str(a.dtype) for a in batch] == ["float64", "float32", "float32", "float64", "bool"]
    assert batch.states.tolist() == [[0.1, 0.2]]


def test_what_is_given_back_is_the_callers_own() -> None:
    buffer = ReplayBuffer(capacity=10)
    data = columns(0, 5)
    buffer.extend(**data)
    data["states"][:] = -1
    batch = buffer.sample(5)
    batch.states[:] = -2
    assert numbers_of(buffer.get(range(5))).tolist() == list(range(5))


@pytest.mark.parametrize("window_bytes", [0, 1 << 20])
def test_clear_empties_and_write_ids_go_on(window_bytes: int, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"path": tmp_path / "b", "window_bytes": window_bytes, "seed": 0}
    buffer = PrioritizedReplayBuffer(100, **arguments)
    buffer.extend(**columns(0, 130), priorities=np.full(130, 9.0))
    buffer.sample(5)
    buffer.clear()
    assert len(buffer) == 0
    assert buffer.frame == 1
    assert buffer.max_priority == 1.0
    assert buffer.schema is not None
    assert list(buffer) == []
    with pytest.raises(diskreplay.SampleError):
        buffer.sample(1)
    assert buffer.update_priorities([129], [5.0]) == 0
    assert buffer.push(**row(130)) == 130
    buffer.check()
    buffer.close()
    buffer = PrioritizedReplayBuffer(100, **arguments)
    assert len(buffer) == 1
    buffer.extend(**columns(131, 20))
    assert set(numbers_of(buffer.sample(21)).tolist()) <= set(range(130, 151))
    with pytest.raises(diskreplay.NotLiveError):
        buffer.get([129])


def test_stale_updates_are_ignored_and_counted(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(4, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 6), priorities=np.ones(6))
        assert buffer.update_priorities([0, 1, 2, 5, 6, -1], [7, 7, 3, 4, 7, 7]) == 2
        stats = buffer.stats()
        assert stats["stale_updates"] == 4
        assert stats["priority_max"] == 4.0
        assert buffer.max_priority == 4.0
    with diskreplay.open(tmp_path / "b") as buffer:
        assert buffer.stats()["stale_updates"] == 4


def test_new_transitions_get_the_largest_priority_so_far() -> None:
    buffer = PrioritizedReplayBuffer(10)
    assert buffer.max_priority == 1.0
    buffer.push(**row(0), priority=0.25)
    assert buffer.max_priority == 0.25
    buffer.push(**row(1))
    buffer.update_priorities([0], [5.0])
    buffer.update_priorities([0], [0.5])
    buffer.push(**row(2))
    stats = buffer.stats()
    assert (stats["priority_min"], stats["priority_max"]) == (0.25, 5.0)
    assert stats["priority_mean"] == pytest.approx((0.5 + 0.25 + 5.0) / 3)


def test_one_high_priority_is_drawn_in_about_its_share() -> None:
    buffer = PrioritizedReplayBuffer(1000, alpha=1.0, seed=5)
    buffer.extend(**columns(0, 1000), priorities=np.ones(1000))
    buffer.update_priorities([123], [100.0])
    draws = np.concatenate([buffer.sample(100).indices for _ in range(200)])
    share = 100 / 1099
    # Five standard deviations of independent draws; stratified ones vary less.
    slack = 5 * np.sqrt(share * (1 - share) / draws.size)
    assert abs((draws == 123).mean() - share) < slack


def test_weights_follow_the_formula() -> None:
    buffer = PrioritizedReplayBuffer(50, alpha=0.7, beta_start=0.5, epsilon=1e-3, seed=5)
    priorities = np.linspace(0, 3, 40).astype(np.float32)
    buffer.extend(**columns(0, 40), priorities=priorities)
    for _ in range(3):
        beta = buffer.beta
        batch = buffer.sample(16)
        mass = (priorities.astype(np.float64) + 1e-3) ** 0.7
        expected = (40 * (mass / mass.sum())[batch.indices]) ** -beta
        np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-6)


def test_iterating_goes_on_while_transitions_are_evicted() -> None:
    buffer = ReplayBuffer(capacity=600)
    buffer.extend(**columns(0, 600))
    seen = []
    for experience in buffer:
        assert isinstance(experience, Experience)
        seen.append(int(experience.reward * 8))
        if len(seen) == 10:
            buffer.extend(**columns(600, 400))
    # A chunk was read already; after it comes what is still live.
    assert seen == [*range(256), *range(400, 600)]


def test_a_closed_buffer_says_so(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(4, path=tmp_path / "b")
    buffer.close()
    buffer.close()
    for call in (
        lambda: buffer.push(**row(0)),
        lambda: buffer.sample(1),
        lambda: len(buffer),
        lambda: buffer.update_priorities([], []),
        buffer.flush,
        buffer.clear,
        buffer.stats,
        lambda: buffer.beta,
        lambda: buffer.save(tmp_path / "c"),
    ):
        with pytest.raises(diskreplay.ClosedError, match="is closed: open it again"):
            call()
    assert "closed" in repr(buffer)


def test_a_temporary_buffer_leaves_nothing_behind() -> None:
    with ReplayBuffer(capacity=10) as buffer:
        buffer.extend(**columns(0, 5))
        path = buffer.path
        assert path.is_dir()
    assert not path.exists()


def test_stats_is_plain_and_complete(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(10, path=tmp_path / "b")
    buffer.extend(**columns(0, 12))
    buffer.flush()
    stats = buffer.stats()
    assert set(stats) == {
        "kind", "path", "size", "capacity", "count", "schema", "disk_bytes", "memory_bytes",
        "oldest_reader",
        "payload_bytes", "records_bytes", "priorities_bytes", "free_bytes", "durability",
        "commit_interval", "openers",
        "commits", "stale_updates", "damaged", "runs", "priority_min", "priority_mean",
        "priority_max", "max_priority", "alpha", "beta", "frame", "beta_start",
        "beta_end", "beta_frames", "epsilon",
    }  # fmt: skip
    assert (stats["size"], stats["count"], stats["commits"]) == (10, 12, 1)
    assert [opener["pid"] for opener in stats["openers"]] == [os.getpid()]
    assert stats["disk_bytes"] == (tmp_path / "b" / "data.mdb").stat().st_size
    [run] = stats["runs"]
    assert (run["first"], run["end"], run["rows"]) == (0, 12, 12)
    import json

    json.dumps(stats)


def test_what_is_given_twice_or_misspelt_is_refused() -> None:
    buffer = ReplayBuffer(10)
    with pytest.raises(diskreplay.SchemaError, match="extend takes 'state' as states"):
        buffer.extend(**columns(0, 1), state=[[9.0, 9.0, 9.0]])
    for name in ("priorities", "states", "weights"):
        with pytest.raises(diskreplay.SchemaError, match=f"'{name}' cannot name a field"):
            buffer.push(**row(0), **{name: 1.0})
    assert (len(buffer), buffer.schema) == (0, None)


@pytest.mark.parametrize(
    "schema", [5, "abc", [("state", "f4")], {"state": None}, {"state": ("f4", 3)}]
)
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(diskreplay.SchemaError):
        ReplayBuffer(10, schema=schema)


@pytest.mark.filterwarnings("ignore::diskreplay.DiskSpaceWarning")
def test_arrays_of_no_shape_are_refused() -> None:
    buffer = PrioritizedReplayBuffer(10)
    buffer.extend(**columns(0, 3))
    ragged: Any = [[1], [1, 2]]
    for call in (
        lambda: buffer.get(ragged),
        lambda: buffer.update_priorities(0, 1),
        lambda: buffer.update_priorities(ragged, [1, 1]),
        lambda: buffer.update_priorities([1, 1], ragged),
        lambda: buffer.extend(**columns(3, 2), priorities=ragged),
        lambda: buffer.is_ready("a"),  # type: ignore[arg-type]
        lambda: PrioritizedReplayBuffer(10, beta_frames=2**64),
        lambda: PrioritizedReplayBuffer(2**40),
        lambda: diskreplay.SumTree(2**40),
        lambda: ReplayBuffer(2**40, window_bytes=1 << 62).push(**row(0)),
        lambda: diskreplay.importance_weights([0.5, 0.0], 4, 1.0),
    ):
        with pytest.raises((diskreplay.ArgumentError, diskreplay.PriorityError)):
            call()
    assert len(buffer) == 3


def test_a_finite_number_does_not_become_infinite() -> None:
    buffer = ReplayBuffer(10)
    with pytest.raises(diskreplay.SchemaError, match="field 'state': a number is beyond float32"):
        buffer.push([1e300], 0, 0.0, [0.0], False)
    assert len(buffer) == 0

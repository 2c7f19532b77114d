"""Replays in shards beside what one buffer does; tests/contract has what every Replay does."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, row
from frequencies import assert_not_too_far, chi_square
from scipy.stats import chi2_contingency

import diskreplay
from diskreplay import ArgumentError, MismatchError

pytest.importorskip("ray")

from sharded import PrioritizedSharded, Sharded, start_actors

N = 60
PRIORITIES = np.arange(N) % 7 * (np.arange(N) % 3 + 0.5)
ENVS = np.where(np.arange(N) % 3, 0, np.arange(N) % 5)  # shard 0 has most


@pytest.fixture(scope="session", autouse=True)
def actors() -> None:
    start_actors(6)


def filled(kind: Any, n_shards: int, path: Path, **settings: Any) -> Any:
    replay = kind(n_shards, 5 * N, directory=path, seed=3, **settings)
    given = {"priorities": PRIORITIES} if kind is PrioritizedSharded else {}
    replay.extend(**columns(0, N), env=ENVS, **given)
    replay.flush()
    return replay


def masses() -> Any:
    return (PRIORITIES + 1e-6) ** 0.6


@pytest.mark.parametrize("n_shards", [1, 2, 5])
def test_frequencies_are_those_of_one_buffer(n_shards: int, tmp_path: Path) -> None:
    n, draws = 20, 250

    def counted(replay: Any) -> Any:
        found = [numbers_of(replay.sample(n)) for _ in range(draws)]
        return np.bincount(np.concatenate(found), minlength=N)

    with diskreplay.PrioritizedReplayBuffer(5 * N, seed=4) as buffer:
        buffer.extend(**columns(0, N), priorities=PRIORITIES)
        one = counted(buffer)
    with filled(PrioritizedSharded, n_shards, tmp_path / "p") as replay:
        shards = [shard["mass"] for shard in replay.stats()["shards"]]
        found = counted(replay)
    expected = masses() / masses().sum() * n * draws
    assert_not_too_far(*chi_square(found, expected))
    drawable = one + found > 0
    assert chi2_contingency(np.stack([one, found])[:, drawable]).pvalue > 1e-3
    if n_shards > 1:  # and shards as often as each other would be noticed
        assert max(shards) > 1.5 * min(shards)
    with filled(Sharded, n_shards, tmp_path / "u") as replay:
        assert_not_too_far(*chi_square(counted(replay), np.full(N, n * draws / N)))
        for _ in range(20):
            assert len(set(replay.sample(50).indices.tolist())) == 50


@pytest.mark.parametrize("n_shards", [1, 2, 5])
def test_weights_are_those_of_the_whole(n_shards: int, tmp_path: Path) -> None:
    with filled(PrioritizedSharded, n_shards, tmp_path / "p") as replay:
        for beta in (0.0, 0.4, 0.7, 1.0):
            for n in (1, 16, N):
                batch = replay.sample(n, beta=beta)
                probabilities = masses()[numbers_of(batch)] / masses().sum()
                expected = (N * probabilities) ** -beta
                np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-6)
                sequences = replay.sample_sequences(n, 2, beta=beta)
                numbers = np.rint(sequences.rewards[:, 0] * 8).astype(int)
                expected = (N * masses()[numbers] / masses().sum()) ** -beta
                np.testing.assert_allclose(sequences.weights, expected / expected.max(), rtol=1e-6)


def test_few_rows_of_much_mass_are_drawn_more_often_than_they_are_many(tmp_path: Path) -> None:
    with PrioritizedSharded(2, 100, directory=tmp_path / "p", seed=1, alpha=1.0) as replay:
        replay.extend(**columns(0, 50), priorities=[1000.0] + [1.0] * 49, env=[0] + [1] * 49)
        replay.flush()
        batch = replay.sample(40)  # of one shard that has one row nearly all
        assert (numbers_of(batch) == 0).sum() >= 36
        assert sorted(set((batch.indices % 2).tolist())) == [0, 1]


def test_write_ids_carry_the_shard_and_updates_go_home(tmp_path: Path) -> None:
    with filled(PrioritizedSharded, 5, tmp_path / "p") as replay:
        batch = replay.sample(30)
        envs = ENVS[numbers_of(batch)]
        assert (batch.indices % 5).tolist() == (envs % 5).tolist()
        assert numbers_of(replay.get(batch.indices)).tolist() == numbers_of(batch).tolist()
        assert replay.update_priorities(batch.indices, batch.indices + 1.0) == 30
        assert replay.priorities(batch.indices).tolist() == (batch.indices + 1.0).tolist()
        assert replay.update_priorities([10_000], [1.0]) == 0
        assert replay.stats()["stale_updates"] == 1


def walk(n: int, first: int = 0) -> dict[str, Any]:
    """An episode of n steps, whose states tell their number."""
    numbers = np.arange(first, first + n, dtype=np.float32)
    return {
        "states": numbers[:, None], "actions": np.zeros(n, int), "rewards": np.ones(n),
        "next_states": numbers[:, None] + 1, "dones": np.arange(n) == n - 1,
    }  # fmt: skip


@pytest.mark.parametrize("by_env", [False, True])
def test_episodes_stay_whole(by_env: bool, tmp_path: Path) -> None:
    with Sharded(2, 100, directory=tmp_path / "u", seed=1) as replay:
        for number in range(6):
            steps = walk(8, first=10 * number)
            if number % 2:
                replay.extend(**steps, env=number if by_env else None)
            else:
                for values in zip(*steps.values(), strict=True):
                    replay.push(*values, env=number if by_env else None)
        replay.flush()
        episodes = [batch.states[:, 0].tolist() for batch in replay.episodes()]
        wanted = [[10.0 * number + step for step in range(8)] for number in range(6)]
        assert sorted(episodes) == wanted
        ids = [batch.indices[0] for batch in replay.episodes(newest_first=True)]
        assert ids == sorted(ids, reverse=True)
        assert {size["size"] for size in replay.stats()["shards"]} == {24}
        assert replay.stats()["cuts"] == 0
        batch = replay.sample(20, n_step=3, gamma=0.5)
        left = np.minimum(8 - batch.states[:, 0] % 10, 3)
        assert batch.rewards.tolist() == (2 - 0.5 ** (left - 1)).tolist()
        assert batch.discounts.tolist() == (0.5**left).tolist()
        sequences = replay.sample_sequences(10, 4, pad=False)
        steps_between = np.diff(sequences.states[:, :, 0], axis=1)
        assert sequences.mask.all()
        assert (steps_between == 1).all()
        assert (np.diff(sequences.indices, axis=1) == 2).all()


def test_a_resumed_run_draws_what_an_uninterrupted_one_would_have(tmp_path: Path) -> None:
    def drawn(replay: Any, n: int) -> list[Any]:
        return [
            (b.indices.tolist(), b.weights.tolist()) for b in (replay.sample(8) for _ in "x" * n)
        ]

    with filled(PrioritizedSharded, 2, tmp_path / "a") as whole:
        wanted = drawn(whole, 9)
    with filled(PrioritizedSharded, 2, tmp_path / "b") as replay:
        found = drawn(replay, 4)
        replay.save(tmp_path / "copy")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ready = replay.batches(8, prefetch=3)
        found.append((next(ready).indices.tolist(), wanted[4][1]))
        ready.close()
        found += drawn(replay, 1)
    for path, done in ((tmp_path / "b", 6), (tmp_path / "copy", 4)):
        with PrioritizedSharded(2, 5 * N, directory=path) as again:
            assert (again.frame, again.count, len(again)) == (done, N, N)
            more = drawn(again, 9 - done)
        assert found[:done] + more == wanted or path == tmp_path / "b"


def test_what_disagrees_with_the_stores_is_refused(tmp_path: Path) -> None:
    with filled(Sharded, 2, tmp_path / "u") as replay:
        assert repr(replay).endswith(f"(n_shards=2, capacity=300, size=60, path='{replay.path}')")
        with pytest.raises(diskreplay.LockedError):  # a second one
            Sharded(2, 5 * N, directory=tmp_path / "u")
    for n_shards, capacity, message in (
        (3, 300, r"n_shards is 2 in .*shard-.* \(found 3\): open the shards as they were made"),
        (2, 600, r"capacity is 300 in .*shard-.* \(found 600\)"),
    ):
        with pytest.raises(MismatchError, match=message):
            Sharded(n_shards, capacity, directory=tmp_path / "u")
    with pytest.raises(MismatchError, match=r"kind is uniform in .* \(found prioritized\)"):
        PrioritizedSharded(2, 300, directory=tmp_path / "u")
    shutil.copytree(tmp_path / "u" / "shard-0", tmp_path / "v" / "shard-1")
    with pytest.raises(MismatchError, match=r"number is 0 in .*shard-1 \(found 1\)"):
        Sharded(2, 300, directory=tmp_path / "v")
    shutil.rmtree(tmp_path / "u" / "shard-1")
    with pytest.raises(
        MismatchError, match=r"shard-1 is not there, while .*shard-0 holds .*1 of 2"
    ):
        Sharded(2, 300, directory=tmp_path / "u")
    with diskreplay.ReplayBuffer(150, path=tmp_path / "w" / "shard-0") as buffer:
        buffer.push(**row(0))
    with pytest.raises(MismatchError, match=r"shard-0 is a store of its own"):
        Sharded(2, 300, directory=tmp_path / "w")


def test_a_first_opening_that_was_cut_short_is_made_whole(tmp_path: Path) -> None:
    with Sharded(2, 100, directory=tmp_path / "u"):
        pass
    shutil.rmtree(tmp_path / "u" / "shard-1")
    with Sharded(2, 100, directory=tmp_path / "u") as replay:
        replay.push(**row(0))
        replay.flush()
        assert len(replay) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_shards": 0}, "n_shards must be a whole number of at least 1"),
        ({"capacity": 7}, "capacity must be a multiple of n_shards=2 .found 7.: give 8, or 6"),
        ({"placement": "NEAR"}, "placement must be None or one of SPREAD"),
        ({"spread": "any"}, "spread must be 'episodes' or 'rows'"),
        ({"access": "read"}, "a sharded replay takes no access"),
        ({"path": "b"}, "a sharded replay takes no path"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=message):
        Sharded(**{"n_shards": 2, "capacity": 8, "directory": tmp_path / "u", **given})
    assert not (tmp_path / "u").exists()


def test_stats_tell_of_the_whole_and_of_each_shard(tmp_path: Path) -> None:
    with filled(PrioritizedSharded, 2, tmp_path / "p") as replay:
        stats = replay.stats()
        json.dumps(stats)
        assert (stats["kind"], stats["path"]) == ("prioritized", str(tmp_path / "p"))
        assert (stats["size"], stats["count"], stats["capacity"]) == (N, N, 300)
        assert sum(shard["mass"] for shard in stats["shards"]) == pytest.approx(masses().sum())
        assert sum(run["rows"] for run in stats["runs"]) == N
        assert len(stats["openers"]) == stats["n_shards"] == 2
        assert (stats["away"], stats["outages"], stats["waiting_rows"]) == ({}, 0, 0)
        assert stats["disk_bytes"] == sum(
            file.stat().st_size for file in (tmp_path / "p").glob("shard-*/data.mdb")
        )
        assert stats["priority_mean"] == pytest.approx(PRIORITIES.mean())
        replay.push(**row(N), env=0)
        assert replay.stats()["waiting_rows"] == 1
        replay.check()
        assert replay.schema.to_plain() == stats["schema"]


def test_a_saved_copy_goes_on_alike(tmp_path: Path) -> None:
    with filled(Sharded, 2, tmp_path / "u") as replay:
        replay.save(tmp_path / "copy")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").touch()
        with pytest.raises(diskreplay.NotAStoreError, match="is not empty and holds no shards"):
            replay.save(tmp_path / "mine")
        rows = [experience.reward for experience in replay]
        with Sharded(2, 300, directory=tmp_path / "copy") as copy:
            assert [experience.reward for experience in copy] == rows
            copy.check()
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]
        for path in sorted((tmp_path / "copy").iterdir()):
            diskreplay.verify(path)


def test_nested_and_varying_fields_come_as_they_were_given(tmp_path: Path) -> None:
    schema = {"tokens": ("int64", (None,)), "words": str}
    with Sharded(2, 100, directory=tmp_path / "u", seed=1, schema=schema) as replay:
        for number in range(20):
            state = {"camera": np.full((2, 2), number, np.uint8), "arm": (float(number), 1.0)}
            replay.push(
                state, 0, number / 8, state, True,
                tokens=np.arange(number % 4 + 1), words="a" * number,
            )  # fmt: skip
        replay.flush()
        batch = replay.sample(12)
        numbers = (batch.rewards * 8).astype(int)
        assert batch.states["camera"][:, 1, 1].tolist() == numbers.tolist()
        assert batch.states["arm"][:, 0].tolist() == numbers.tolist()
        assert [tokens.tolist() for tokens in batch.tokens] == [
            list(range(number % 4 + 1)) for number in numbers
        ]
        assert batch.words == ["a" * number for number in numbers]
        padded = replay.sample(12, pad=True)
        lengths = (padded.rewards * 8).astype(int) % 4 + 1
        assert padded.tokens_mask.sum(axis=1).tolist() == lengths.tolist()
        assert padded.tokens.shape == (12, lengths.max())

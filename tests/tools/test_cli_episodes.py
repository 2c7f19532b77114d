"""What the commands say of episodes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import stores
from commands import facts, refused, run, shown

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


def test_whole_episodes_are_counted(tmp_path: Path) -> None:
    ids = iter(range(10**6))
    with ReplayBuffer(1000, path=tmp_path / "b") as buffer:
        for length in range(3, 9):
            for step in range(length):  # two environments in turn, one of which is cut off
                for env in (0, 1):
                    last = step == length - 1
                    ends = {"done": last and not env, "truncated": last and bool(env)}
                    buffer.push([float(next(ids))], 0, 1.0, [0.0], **ends, env=env)
        buffer.push([0.0], 0, 1.0, [0.0], False, env=0)  # an episode that goes on
    found = facts(tmp_path / "b")["episodes"]
    lengths = {"min": 3, "mean": 5.5, "max": 8}
    assert found == {
        "of": 67, "whole": 12, "without_done": 6, "length": lengths, "return": lengths
    }  # fmt: skip
    text = shown(tmp_path / "b")
    for line in (
        "Episodes: 12 whole in all 67 transitions",
        "  length       3 to 8, mean 5.5",
        "  return       3 to 8, mean 5.5",
        "  without done 6 of them",
    ):
        assert line in text.splitlines()
    assert "cuts" not in text


@pytest.mark.filterwarnings("ignore::diskreplay.EpisodeWarning")
def test_ends_that_nobody_declared_are_counted(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        for episode in range(20):
            for step in range(3):
                buffer.push([10.0 * episode + step], 0, 1.0, [10.0 * episode + step + 1], False)
    text = shown(tmp_path / "b")
    assert "Episodes: 2 whole in all 10 transitions" in text
    assert "  cuts         19 ends that nobody declared, in all runs" in text
    assert (facts(tmp_path / "b")["cuts"], facts(tmp_path / "b")["episodes"]["whole"]) == (19, 2)


def test_episodes_of_a_store_without_links_are_not_known(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        for number in range(5):
            buffer.push([0.0], 0, 1.0, [0.0], False, env=number)
    assert facts(tmp_path / "b")["episodes"] is None
    assert "Episodes: not known; no transition says which one it follows" in shown(tmp_path / "b")
    schema = {
        "state": "f4",
        "action": "i8",
        "next_state": "f4",
        "done": "?",
        "reward": ("f4", (2,)),
    }
    with ReplayBuffer(10, path=tmp_path / "c", schema=schema) as buffer:
        buffer.push(0.0, 0, [1.0, 2.0], 0.0, True)
    assert "Episodes: not shown; reward or done is not one real number" in shown(tmp_path / "c")
    stores.empty(tmp_path / "none")
    assert "Episodes" not in shown(tmp_path / "none")
    assert facts(tmp_path / "none")["episodes"] is None


@pytest.fixture
def two_envs(tmp_path: Path) -> Path:
    """Episodes of 3, 4, ... steps of two environments in turn; the first ones are evicted."""
    with PrioritizedReplayBuffer(60, path=tmp_path / "b") as buffer:
        for length in range(3, 10):
            for step in range(length):
                for env in (0, 1):
                    state = [float(buffer.count)]
                    buffer.push(state, env, 1.0, state, step == length - 1, env=env)
    return tmp_path / "b"


def expected(store: Path) -> dict[int, tuple[int, int]]:
    """The episode and the step of each live write id."""
    found, write_id = {}, 0
    with diskreplay.open(store, access="read") as buffer:
        first = buffer.first
    for length in range(3, 10):
        firsts: dict[int, tuple[int, int]] = {}
        for step in range(length):
            for env in (0, 1):
                if write_id >= first:
                    at = firsts.setdefault(env, (write_id, step))
                    found[write_id] = (at[0], step - at[1])
                write_id += 1
    return found


def test_an_export_has_episodes_and_steps(two_envs: Path, tmp_path: Path) -> None:
    wanted = expected(two_envs)
    run("export", two_envs, tmp_path / "all.npz", "--episodes")
    table = np.load(tmp_path / "all.npz")
    assert list(table)[1:6] == ["write_id", "link", "episode", "step", "state"]
    assert table["episode"].dtype == table["step"].dtype == np.int64
    rows = zip(*(table[name].tolist() for name in ("write_id", "episode", "step")), strict=True)
    assert {i: (episode, step) for i, episode, step in rows} == wanted
    told = refused("export", two_envs, tmp_path / "some.npz", "--where", "step>=3", status=2)
    assert "there is no field 'step': with --episodes there is a column 'step'; without" in told
    words = ("--range", "-20:", "--where", "step>=3")
    run("export", two_envs, tmp_path / "some.jsonl", "--episodes", *words)
    lines = [json.loads(line) for line in (tmp_path / "some.jsonl").read_text().splitlines()]
    newest = [i for i in sorted(wanted)[-20:] if wanted[i][1] >= 3]
    assert [(x["write_id"], x["episode"], x["step"]) for x in lines] == [
        (i, *wanted[i]) for i in newest
    ]


def test_an_import_leaves_episodes_out(two_envs: Path, tmp_path: Path) -> None:
    run("export", two_envs, tmp_path / "all.npz", "--episodes")
    run("import", tmp_path / "all.npz", tmp_path / "copy")
    with diskreplay.open(tmp_path / "copy") as copy, diskreplay.open(two_envs) as buffer:
        assert copy.schema == buffer.schema
        assert len(copy) == len(buffer)
    run("import", tmp_path / "all.npz", tmp_path / "kept", "--field", "which=episode")
    with diskreplay.open(tmp_path / "kept") as kept:
        assert kept.schema is not None
        assert kept.schema.extra_names == ("which",)


def test_a_field_of_the_same_name_is_told(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.push([0.0], 0, 1.0, [0.0], True, step=3)
    said = refused("export", tmp_path / "b", tmp_path / "b.npz", "--episodes")
    assert "has a field 'step', which is a column of an export with --episodes: leave" in said
    run("export", tmp_path / "b", tmp_path / "b.npz")

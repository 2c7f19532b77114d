from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import STATE, columns
from diskreplay_tools.report import episodes, reading
from inside import replica_of
from others import Other, shared
from reports import pixels, report
from stores import change, stored

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.buffer import scan

pytest.importorskip("matplotlib")
draw = pytest.importorskip("diskreplay_tools.report.frames")


@pytest.fixture
def buffer(tmp_path: Path) -> PrioritizedReplayBuffer:
    return PrioritizedReplayBuffer(1000, path=tmp_path / "b", seed=1, commit_interval=1e9)


# Episodes


def naive_episodes(
    rows: list[tuple[int, float, bool, int, int]], starts: set[int]
) -> tuple[list[tuple[int, int, float, bool]], str]:
    """End, length, return and whether it was cut off, of whole episodes; or why not: row by row."""
    rest: list[tuple[int, int]] = []  # of the run: where a stretch begins, and its state
    dangling: list[tuple[int, int]] = []
    shown = cut_off = inner = 0
    turns = False
    found = []
    length, total, whole = 0, 0.0, rows[0][0] in starts
    rest.append((0, rows[0][3]))
    for i, (write_id, reward, done, state, next_state) in enumerate(rows):
        length, total = length + 1, total + reward
        last = i + 1 == len(rows)
        gap = not last and rows[i + 1][0] != write_id + 1
        new_run = not last and rows[i + 1][0] in starts
        is_inner = not (last or gap or new_run or done)
        cut = is_inner and rows[i + 1][3] != next_state
        inner += is_inner
        shown += is_inner and not cut and state != next_state
        cut_off += cut
        if cut:
            dangling.append((i, next_state))
        if (done or cut) and whole:
            found.append((write_id, length, total, cut))
        if done or cut or gap or new_run:
            length, total, whole = 0, 0.0, not gap
        if new_run or last:
            turns |= any(at > end and s == n for end, n in dangling for at, s in rest)
            rest, dangling = [], []
        if not last and (done or cut or gap or new_run):
            rest.append((i + 1, rows[i + 1][3]))
    if turns:
        return [], "turns"
    if cut_off * 20 > shown + cut_off:
        return [], "apart"
    return ([], "still") if inner and not shown else (found, "")


def test_episodes_are_cut_as_a_naive_twin_cuts_them() -> None:
    rng = np.random.default_rng(0)
    seen: dict[str, int] = {"": 0, "turns": 0, "apart": 0, "still": 0}
    for _ in range(600):
        n = int(rng.integers(1, 60))
        ids = np.cumsum(rng.choice([1] * 20 + [3], n)) + int(rng.integers(5))
        rewards = rng.integers(-3, 4, n).astype(np.float64)
        dones = rng.random(n) < rng.choice([0.02, 0.3])
        states = rng.integers(0, rng.choice([1, 4, 10**6]), n)
        next_states = rng.choice([states[rng.integers(0, n, n)], rng.integers(0, 10**6, n)])
        follows = rng.random(n) < rng.choice([0.3, 0.97, 1.0], p=[0.2, 0.4, 0.4])
        next_states[:-1][follows[1:]] = states[1:][follows[1:]]
        starts = rng.choice(ids, int(rng.integers(0, 3)))
        found = episodes.episodes_of(ids, rewards, dones, states, next_states, starts)
        columns_ = (ids, rewards, dones, states, next_states)
        rows = list(zip(*(column.tolist() for column in columns_), strict=True))
        wanted, why_not = naive_episodes(rows, set(starts.tolist()))
        assert found.why_not == why_not
        assert found.ends.tolist() == [end for end, *_ in wanted]
        assert found.lengths.tolist() == [length for _, length, *_ in wanted]
        assert found.returns.tolist() == [total for *_, total, _ in wanted]
        assert found.cut_off == sum(cut for *_, cut in wanted)
        seen[why_not] += 1 + len(wanted)
    assert min(seen.values()) > 10


def walk(buffer: Any, ends: list[tuple[int, bool]]) -> None:
    """Push episodes of lengths, each of which is done or cut off."""
    for length, done in ends:
        for step in range(length):
            is_last = step == length - 1
            buffer.push([float(step)], 0, 1.0, [step + 1.0], done and is_last)


def read_episodes(path: Path, starts: list[int]) -> episodes.Episodes:
    with diskreplay.open(path, access="read") as buffer:
        return reading.Reader(buffer, lambda done, total: None).episodes(starts)


@pytest.mark.parametrize("rows_at_once", [1, 4, 1024])
def test_an_episode_that_was_cut_off_is_seen_by_its_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(scan, "CHUNK_BYTES", 64 * rows_at_once)
    for ends in ([(5, True), (7, False), (3, True)], [(4, True), (6, True)]):
        with ReplayBuffer(100, path=tmp_path / "b") as buffer:
            walk(buffer, [*ends, (2, False)])  # the run is left in the middle of an episode
    found = read_episodes(tmp_path / "b", [0, 17])
    assert found.lengths.tolist() == [5, 7, 3, 4, 6]
    assert found.returns.tolist() == [5, 7, 3, 4, 6]
    assert found.cut_off == 1


@dataclass
class CartPole:
    """Episodes of one environment, of 50 to 59 steps unless the pole falls."""

    seed: int
    steps: int = 0

    def __post_init__(self) -> None:
        gymnasium = pytest.importorskip("gymnasium")
        self.rng = np.random.default_rng(self.seed)
        self.env = gymnasium.make("CartPole-v1").unwrapped
        self.state, _ = self.env.reset(seed=self.seed)
        self.limit = int(self.rng.integers(50, 60))
        self.lengths: list[int] = []

    def step(self) -> tuple[Any, ...]:
        """A transition; after the limit of steps the episode is cut off, without done."""
        action = int(self.state[2] + self.state[3] > 0)  # keeps the pole up for long
        action = int(self.rng.integers(2)) if self.rng.random() < 0.3 else action
        state = self.state
        next_state, reward, done, *_ = self.env.step(action)
        self.state, self.steps = next_state, self.steps + 1
        if done or self.steps == self.limit:
            self.lengths.append(self.steps)
            self.state, _ = self.env.reset()
            self.steps, self.limit = 0, int(self.rng.integers(50, 60))
        return state, action, reward, next_state, done


@pytest.mark.parametrize(("n_envs", "at_once"), [(1, 1), (2, 5), (2, 64), (8, 1), (8, 64)])
def test_episodes_of_environments_that_took_turns_are_not_told(
    tmp_path: Path, n_envs: int, at_once: int
) -> None:
    """Each environment makes some steps, and all of them are pushed; then it is the next one."""
    envs = [CartPole(seed) for seed in range(n_envs)]
    with ReplayBuffer(10_000, path=tmp_path / "b") as buffer:
        for _ in range(640 // at_once):
            for env in envs:
                buffer.extend(*map(np.stack, zip(*(env.step() for _ in range(at_once)))))  # noqa: B905
    found = read_episodes(tmp_path / "b", [0])
    if n_envs > 1:
        assert (found.why_not, found.ends.size) == ("turns", 0)
    else:
        assert found.lengths.tolist() == envs[0].lengths
        assert found.cut_off > 5
    if at_once == 1:
        text = report(tmp_path / "b", tmp_path / "report.html").text
        told = f"Length of {len(envs[0].lengths)} whole episodes: from "
        turns = "They cannot be told from all .* several environments were stepped in turn"
        assert (told in text) is (n_envs == 1)
        assert (re.search(turns, text) is None) is (n_envs == 1)
        assert ("whole episode" in text) is (n_envs == 1)
        assert "episodes are shown where each transition begins with the next_state" in text


def rows_of(states: Any, next_states: Any, dones: Any) -> dict[str, Any]:
    n = len(dones)
    columns = np.asarray(states, np.float32)[:, None], np.asarray(next_states, np.float32)[:, None]
    return {
        "states": columns[0], "actions": np.zeros(n, np.int64), "rewards": np.ones(n),
        "next_states": columns[1], "dones": np.asarray(dones, bool),
    }  # fmt: skip


LINE = np.arange(300)
KEPT = np.flatnonzero(np.random.default_rng(0).random(300) < 0.5)
CASES = {
    "states that stay": (rows_of(LINE * 0, LINE * 0, LINE % 10 == 9), "still"),
    "n-step transitions": (rows_of(LINE, LINE + 3, LINE % 50 == 49), "turns"),
    "half of a stream": (rows_of(KEPT, KEPT + 1, KEPT % 50 == 49), "apart"),
    "other next states": (rows_of(LINE, LINE + 0.5, LINE % 10 == 9), "apart"),
    "negative zero": (rows_of(-0.0 * LINE + LINE, LINE + 1, LINE % 10 == 9), ""),
    "not a number": (rows_of(LINE + np.nan, LINE + np.nan, LINE % 10 == 9), "still"),
    "done each time": (rows_of(LINE * 0, LINE * 0, LINE >= 0), ""),
}


@pytest.mark.parametrize("case", CASES)
def test_episodes_are_told_of_one_stream_only(tmp_path: Path, case: str) -> None:
    rows, why_not = CASES[case]
    with ReplayBuffer(1000, path=tmp_path / "b") as buffer:
        buffer.extend(**rows)
    found = read_episodes(tmp_path / "b", [0])
    assert found.why_not == why_not
    assert len(found.ends) == (0 if why_not else rows["dones"].sum())
    if case in ("states that stay", "other next states"):
        text = report(tmp_path / "b", tmp_path / "report.html").text
        if why_not == "still":  # no state tells them, and the links do
            assert "Length of 30 whole episodes: every one is 10" in text
        else:
            why = "too many transitions do not begin with"
            assert f"They cannot be told from all 300 transitions: {why}" in text


def test_episodes_of_environments_that_were_declared_are_told(tmp_path: Path) -> None:
    with ReplayBuffer(1000, path=tmp_path / "b") as buffer:
        for step in range(1, 61):  # env 0: 12 of 5, cut off; env 1: 6 of 10, done
            buffer.push([0.0], 0, 1.0, [9.0], False, truncated=step % 5 == 0, env=0)
            buffer.push([0.0], 0, 2.0, [9.0], step % 10 == 0, env=1)
    text = report(tmp_path / "b", tmp_path / "report.html").text
    assert "Length of 18 whole episodes: from 5 to 10" in text
    assert "Return of 18 whole episodes: from 5 to 20" in text
    assert "ends where done is true, or truncated: 12 episodes of 18 without done" in text


def test_a_new_run_may_begin_where_an_episode_was_cut_off(tmp_path: Path) -> None:
    for begin in (0, 100):  # the second run goes on with the state at which the first was cut off
        with ReplayBuffer(1000, path=tmp_path / "b") as buffer:
            for first in (begin, 1000 + begin):
                line = np.arange(first, first + 100)
                buffer.extend(**rows_of(line, line + 1, line == 1099 + begin))
    found = read_episodes(tmp_path / "b", [0, 200])
    assert (found.why_not, found.lengths.tolist()) == ("", [100, 100, 100, 100])
    assert read_episodes(tmp_path / "b", [0]).why_not == "turns"


def test_episodes_of_runs_that_took_turns_are_not_drawn(tmp_path: Path, other: Other) -> None:
    other.open(1000, access="shared")
    with shared(tmp_path / "b") as buffer:
        for first in range(0, 40, 20):
            buffer.extend(**columns(first, 10))
            buffer.flush()
            other.extend(first + 10, 10)
            other.flush()
    page = report(tmp_path / "b", tmp_path / "report.html")
    assert "several runs wrote at the same time, or a merge interleaved them" in page.text
    assert "Where runs overlap they took turns" in page.text
    assert "The oldest was written by run 0, which began" in page.text
    assert "10 to 20" not in page.text  # nothing is evicted: what each wrote is live


def test_a_learner_that_wrote_nothing_is_no_writer(tmp_path: Path, other: Other) -> None:
    """The runs of an actor and of a learner that only updates priorities overlap."""
    other.open(100, access="shared")
    with shared(tmp_path / "b", 100) as buffer:
        for first in range(0, 300, 50):
            line = np.arange(first, first + 50)
            ids = buffer.extend(**rows_of(line, line + 1, line % 25 == 24))
            buffer.flush()
            other.refresh()
            other.update(ids, np.ones(50))
            other.flush()
    text = report(tmp_path / "b", tmp_path / "report.html").text
    assert re.search(r"Run 0 wrote them; it began 2\d{3}-\d\d-\d\d \d\d:\d\d\. 200 older", text)
    assert re.search(r" 0 2\S+ \S+ 0 to 299 300 100 pid ", text)
    assert re.search(r" 1 2\S+ \S+ none 0 0 pid ", text)
    assert "Length of 4 whole episodes: every one is 25" in text
    assert "took turns" not in text


# Images


@pytest.mark.parametrize(
    ("shape", "sides", "part"),
    [
        ((9, 12), (9, 12), ""),
        ((9, 12, 1), (9, 12), ""),
        ((1, 9, 12), (9, 12), ""),
        ((9, 12, 3), (9, 12, 3), ""),
        ((3, 9, 12), (9, 12, 3), ""),
        ((9, 12, 4), (9, 12), "of 4 stacked frames"),
        ((4, 9, 12), (9, 12), "of 4 stacked frames"),
        ((9, 12, 9), (9, 12, 3), "of 3 stacked frames"),
        ((2, 9, 12, 3), (9, 12, 3), "of 2 stacked frames"),
        ((2, 1, 9, 12), (9, 12), "of 2 stacked frames"),
        ((210, 400), (70, 134), ""),
        ((7, 12), None, ""),
        ((9, 3, 12), None, ""),
        ((0, 9, 12), None, ""),
        ((60,), None, ""),
    ],
)
def test_images_are_known_by_their_shape(
    shape: tuple[int, ...], sides: tuple[int, ...] | None, part: str
) -> None:
    assert draw.is_image(np.dtype(np.uint8), shape) is (sides is not None)
    assert not draw.is_image(np.dtype(np.float32), shape)
    if sides is not None:
        state = np.zeros(shape, np.uint8)
        frame = draw.frame_of(state)
        assert frame.shape == sides
        assert part in draw.how_stacked(shape)
        assert bool(part) is bool(draw.how_stacked(shape))


def test_the_channels_keep_their_order() -> None:
    last = np.arange(9 * 12 * 3, dtype=np.uint8).reshape(9, 12, 3)
    for state in (last, np.moveaxis(last, 2, 0), np.stack([last * 0, last])):
        np.testing.assert_array_equal(draw.frame_of(state), last)
    stack = np.arange(4 * 9 * 12, dtype=np.uint8).reshape(4, 9, 12)
    for state in (stack, np.moveaxis(stack, 0, 2)):
        np.testing.assert_array_equal(draw.frame_of(state), stack[3])


# What is read


def test_of_a_large_store_a_part_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PrioritizedReplayBuffer(5000, path=tmp_path / "b") as buffer:
        rows = columns(0, 4000)
        rows["next_states"] = rows["states"] + STATE  # which is the state of the next one
        buffer.extend(**rows, priorities=np.arange(4000) % 999)
    monkeypatch.setattr(reading, "SPREAD_ROWS", 400)
    monkeypatch.setattr(reading, "PRIORITIES", 1000)
    monkeypatch.setattr(reading, "READ_BYTES", 500 * 40)
    text = report(tmp_path / "b", tmp_path / "report.html").text
    assert re.search(r"400 of 4,000 transitions, spread evenly: from [\d.]+ to 49[89]", text)
    assert "1,000 of 4,000 transitions, spread evenly: from 0 to 998" in text
    assert "From the newest 500 of 4,000 transitions" in text
    assert "Length of 100 whole episodes: every one is 5" in text


def test_the_highest_and_lowest_are_found_among_all(
    buffer: PrioritizedReplayBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PRIORITIES", 10)
    monkeypatch.setattr(scan, "CHUNK_BYTES", 64 * 64)
    rng = np.random.default_rng(0)
    values = rng.permutation(900).astype(np.float32) + 1
    buffer.extend(**columns(0, 900), priorities=values)
    found = reading.Reader(buffer, lambda done, total: None).priorities()
    assert found.highest.tolist() == np.argsort(-values)[:12].tolist()
    assert found.lowest.tolist() == np.argsort(values)[:12].tolist()
    assert found.write_ids.tolist() == list(range(0, 900, 90))
    np.testing.assert_array_equal(found.values, values[::90])


def test_what_a_writer_evicts_meanwhile_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Other
) -> None:
    other.open(2000)
    other.extend(0, 2000)
    other.flush()
    monkeypatch.setattr(scan, "CHUNK_BYTES", 64 * 1000)
    writes = iter([(2000, 1500)])

    def write(done: int, total: int) -> None:
        for numbers in writes:
            other.extend(*numbers)
            other.flush()

    with diskreplay.open(tmp_path / "b", access="read", window_bytes=0) as buffer:
        reader = reading.Reader(buffer, write)
        rewards = reader.spread(["reward"])["reward"][:, 0]
        assert (rewards * 8).tolist() == [*range(1000), *range(1500, 2000)]
        assert len(reader.spread(["reward"])["reward"]) == 2000
        assert reader.damaged == set()


def test_a_damaged_record_is_left_out_and_told(tmp_path: Path) -> None:
    path = pixels(tmp_path / "b")
    with diskreplay.open(path, access="read") as buffer:
        per_value = replica_of(buffer).rows._grouping.per_value
    raw = bytearray(stored(path, "transitions", 2))
    raw[-200] ^= 1
    change(path, "transitions", 2, bytes(raw))
    slot = 3 * per_value - 1
    write_id = slot if slot >= 10 else slot + 50
    page = report(path, tmp_path / "report.html")
    told = f"1 transition could not be read and is left out (write id {write_id})"
    assert told in page.text
    assert "diskreplay repair" in page.text
    assert "49 of 50 transitions" in page.text

"""Links from the call of the user to the store, against a twin of plain Python."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import commits_refused, replica_of
from others import Other

import diskreplay
from diskreplay import ArgumentError, ReplayBuffer, SchemaError, StorageError

SCHEMA = {
    "state": ("f4", (1,)),
    "action": "i8",
    "reward": "f4",
    "next_state": ("f4", (1,)),
    "done": "f4",
}


@dataclass
class Row:
    """A row that was pushed; its write id comes with the commit of its writer."""

    before: Row | None
    goes_on: bool
    write_id: int = -1

    @property
    def link(self) -> int:
        if self.before is None:
            return 0
        distance = self.write_id - self.before.write_id
        return distance if self.goes_on else -distance


@dataclass
class Twin:
    """The envs of one writer, and its rows that wait for a commit."""

    last: dict[int | None, tuple[Row, bool, int]] = field(default_factory=dict)
    waiting: list[Row] = field(default_factory=list)
    cuts: int = 0

    def push(self, env: int | None, state: int, after: int, ends: bool) -> None:
        before, goes_on, expected = self.last.get(env, (None, False, 0))
        if goes_on and env is None and state != expected:
            self.cuts, goes_on = self.cuts + 1, False
        row = Row(before, goes_on)
        self.waiting.append(row)
        self.last[env] = row, not ends, after

    def end_episode(self, env: int | None) -> None:
        if env in self.last:
            self.last[env] = self.last[env][0], False, 0

    def commit(self, rows: list[Row]) -> None:
        """Append the waiting rows to those of the store."""
        for row in self.waiting:
            row.write_id = len(rows)
            rows.append(row)
        self.waiting = []


def end_in_both(buffer: Any, twin: Twin, env: int | None) -> None:
    """End an episode, which is refused where rows of other envs alone were pushed."""
    if twin.last and env not in twin.last:
        with pytest.raises(ArgumentError, match="none was pushed in this run"):
            buffer.end_episode(env)
    else:
        buffer.end_episode(env)
        twin.end_episode(env)


def check(buffer: Any, rows: list[Row], first: int) -> None:
    """Compare the links of a buffer with those of the twin; they lead to live rows or to none."""
    buffer.check()  # which loads the commits of others
    assert (buffer.count, buffer.first) == (len(rows), first)
    replica = replica_of(buffer)
    ids = np.arange(first, len(rows))
    links = replica.links.of(ids, replica.live)
    assert links.tolist() == [row.link for row in rows[first:]]
    after = {row.before.write_id: row.write_id for row in rows if row.before and row.goes_on}
    forward = replica.links.forward(ids, replica.live).tolist()
    assert forward == [after.get(write_id, -1) for write_id in ids.tolist()]


def check_store(path: Path, rows: list[Row], first: int) -> None:
    """Compare the links of a store that nobody has open."""
    assert diskreplay.verify(path) == []
    with diskreplay.open(path, access="read") as buffer:
        check(buffer, rows, first)


FLAGS = st.sampled_from([False, False, False, True])
ROWS = st.tuples(st.integers(0, 1), st.integers(0, 1), FLAGS, FLAGS)
ENV = st.one_of(st.none(), st.integers(0, 2))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), ENV, ROWS),
        st.tuples(st.just("push"), ENV, ROWS),
        st.tuples(
            st.just("extend"),
            st.one_of(ENV, st.just("each")),
            st.lists(st.tuples(st.integers(0, 2), ROWS), min_size=1, max_size=70),
        ),
        st.tuples(st.just("end"), ENV),
        st.sampled_from(
            [("flush",), ("failed flush",), ("reopen",), ("clear",), ("refused",), ("load",)]
        ),
    ),
    min_size=1,
    max_size=16,
)


@pytest.mark.filterwarnings("ignore::diskreplay.EpisodeWarning")
@pytest.mark.parametrize("access", ["exclusive", "shared"])
@settings(max_examples=40)
@given(capacity=st.sampled_from([1, 2, 3, 5, 8, 13, 100]), steps=STEPS)
def test_links_are_those_of_the_twin(access: str, capacity: int, steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "b"
        arguments = {"path": path, "schema": SCHEMA, "access": access, "commit_interval": 1e9}
        rows: list[Row] = []
        twin, start, cuts = Twin(), 0, 0
        buffer = ReplayBuffer(capacity, window_bytes=0, **arguments)

        def flush() -> None:
            buffer.flush()
            twin.commit(rows)
            check(buffer, rows, max(start, len(rows) - capacity))
            assert buffer.stats()["cuts"] == cuts + twin.cuts

        try:
            for name, *given_arguments in steps:
                if name == "push":
                    env, (state, after, done, truncated) = given_arguments
                    buffer.push(
                        [state], 0, 0.0, [after], done, truncated=truncated or None, env=env
                    )
                    twin.push(env, state, after, done or truncated)
                elif name == "extend":  # more rows than the window holds are committed at once
                    env, given_rows = given_arguments
                    columns = np.array([row for _, row in given_rows]).T
                    envs = [of_row if env == "each" else env for of_row, _ in given_rows]
                    buffer.extend(
                        columns[0][:, None],
                        np.zeros(len(given_rows), int),
                        np.zeros(len(given_rows)),
                        columns[1][:, None],
                        columns[2],
                        truncateds=columns[3],
                        env=np.array(envs) if env == "each" else env,
                    )
                    for of_row, (state, after, done, truncated) in zip(
                        envs, (row for _, row in given_rows), strict=True
                    ):
                        twin.push(of_row, state, after, bool(done or truncated))
                elif name == "end":
                    end_in_both(buffer, twin, *given_arguments)
                elif name == "flush":
                    flush()
                elif name == "failed flush":  # rows and links are kept
                    with commits_refused(buffer):
                        if twin.waiting:
                            with pytest.raises(StorageError):
                                buffer.flush()
                    flush()
                elif name == "refused":
                    for bad in ({"truncated": 3}, {"priority_of_nobody": 1.0}):
                        with pytest.raises(SchemaError):
                            buffer.push([0], 0, 0.0, [0], False, **bad)
                elif name == "clear":
                    flush()
                    buffer.clear()
                    start = len(rows)
                    twin.last = {}
                    flush()
                elif name == "load" and access == "exclusive":
                    flush()
                    buffer.save(Path(place) / "saved")
                    with diskreplay.open(Path(place) / "saved") as saved:
                        assert saved.stats()["cuts"] == cuts + twin.cuts
                    with ReplayBuffer(capacity, path=Path(place) / "loaded") as loaded:
                        loaded.load(Path(place) / "saved")
                    check_store(Path(place) / "loaded", rows, max(start, len(rows) - capacity))
                    for of_save in ("saved", "loaded"):
                        for file in sorted((Path(place) / of_save).rglob("*"), reverse=True):
                            file.rmdir() if file.is_dir() else file.unlink()
                        (Path(place) / of_save).rmdir()
                elif name == "reopen":
                    flush()
                    buffer.close()
                    check_store(path, rows, max(start, len(rows) - capacity))
                    cuts, twin = cuts + twin.cuts, Twin()
                    buffer = diskreplay.open(
                        path, access=access, window_bytes=0, commit_interval=1e9
                    )
            flush()
        finally:
            buffer.close()
        check_store(path, rows, max(start, len(rows) - capacity))


@pytest.mark.parametrize("seed", range(3))
def test_shared_writers_never_link_into_the_episodes_of_others(seed: int, tmp_path: Path) -> None:
    path, capacity = tmp_path / "b", 70
    generator = np.random.default_rng(seed)
    rows: list[Row] = []
    twins = [Twin(), Twin(), Twin()]
    arguments = {"schema": SCHEMA, "access": "shared", "commit_interval": 1e9}
    with (
        ReplayBuffer(capacity, path=path, **arguments) as own,
        Other(path) as second,
        Other(path) as third,
    ):
        for other in (second, third):
            other.open(capacity, kind="ReplayBuffer", **arguments)
        writers: list[Any] = [own, second, third]
        for step in range(300):
            who = int(generator.integers(0, 3))
            writer, twin = writers[who], twins[who]
            if step % 7 == 6:
                writer.flush()
                twin.commit(rows)
            elif step % 11 == 10:
                env = int(generator.integers(0, 3))
                end_in_both(writer, twin, env)
            else:
                env = int(generator.integers(0, 3))
                done = bool(generator.random() < 0.1)
                writer.push([0.0], 0, 0.0, [1.0], done, env=env)
                twin.push(env, 0, 1, done)
        for writer, twin in zip(writers, twins, strict=True):
            writer.flush()
            twin.commit(rows)
        check(own, rows, max(0, len(rows) - capacity))
    check_store(path, rows, max(0, len(rows) - capacity))


def test_the_end_of_an_episode_of_an_env_without_transitions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b"
    with ReplayBuffer(100, path=path) as buffer:
        buffer.end_episode(env=7)  # nothing was pushed yet
        buffer.push([0.0], 0, 0.0, [1.0], False, env=0)
        wanted = r"without env=, and none was pushed in this run \(found pushes with env=0\): give"
        with pytest.raises(ArgumentError, match=wanted):
            buffer.end_episode()
        buffer.push([1.0], 0, 0.0, [2.0], True, env=0)  # the refused call has ended nothing
        assert [batch.indices.tolist() for batch in buffer.episodes()] == [[0, 1]]
        buffer.push([0.0], 0, 0.0, [1.0], False)
        for env in range(1, 7):
            buffer.push([0.0], 0, 0.0, [1.0], False, env=env)
        wanted = "episode of env=7, .* with env=0, no env=, env=1, env=2, env=3 and 3 more"
        with pytest.raises(ArgumentError, match=wanted):
            buffer.end_episode(env=7)
        buffer.end_episode()
        buffer.clear()
        buffer.end_episode(env=7)
    with ReplayBuffer(100, path=path) as again:
        again.end_episode(env=7)


def test_truncated_is_a_field_where_the_first_push_gives_it(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.push([0.0], 0, 0.0, [1.0], False, truncated=True)
        buffer.push([5.0], 0, 0.0, [6.0], False)
        buffer.extend([[6.0], [8.0]], [0, 0], [0, 0], [[7.0], [9.0]], [0, 0], truncateds=[1, 0])
        batch = buffer.get(range(4))
        assert batch.truncated.dtype == batch.dones.dtype == np.float32
        assert batch.truncated.tolist() == [1, 0, 1, 0]
        assert buffer.stats()["cuts"] == 0
    with ReplayBuffer(10, path=tmp_path / "c") as buffer:
        buffer.push([0.0], 0, 0.0, [1.0], False)
        buffer.push([1.0], 0, 0.0, [2.0], False, truncated=True)
        buffer.push([5.0], 0, 0.0, [6.0], False)
        assert buffer.schema is not None
        assert "truncated" not in buffer.schema.names
        assert buffer.stats()["cuts"] == 0
        with pytest.raises(SchemaError, match="extend takes 'truncated' as truncateds"):
            buffer.extend([[0.0]], [0], [0.0], [[1.0]], [False], truncated=[True])
        with pytest.raises(SchemaError, match=r"found an array of shape \(1,\)\): extend"):
            buffer.push([0.0], 0, 0.0, [1.0], False, truncated=[True])
        large = np.array([2**63], np.uint64)
        with pytest.raises(ArgumentError, match=f"at most {2**63 - 1} .found {2**63}"):
            buffer.extend([[0.0]], [0], [0.0], [[1.0]], [False], env=large)
        for bad in (2, "yes", None, [True]):
            with pytest.raises(SchemaError, match="truncated"):
                buffer.extend([[0.0]], [0], [0.0], [[1.0]], [False], truncateds=[bad])
        for bad_env in (-1, 0.5, "a", True, 2**63):
            with pytest.raises(diskreplay.ArgumentError, match="env must be"):
                buffer.push([0.0], 0, 0.0, [1.0], False, env=bad_env)  # type: ignore[arg-type]
            with pytest.raises(diskreplay.ArgumentError, match="env must be"):
                buffer.end_episode(bad_env)  # type: ignore[arg-type]
        for bad_envs in ([0, 1], [-1], [[0]], [0.5]):
            with pytest.raises(diskreplay.ArgumentError, match="env must be"):
                buffer.extend([[0.0]], [0], [0.0], [[1.0]], [False], env=bad_envs)
        assert len(buffer) == 3


def test_the_first_cut_that_is_an_error_refuses_the_call(tmp_path: Path) -> None:
    with ReplayBuffer(10, path=tmp_path / "b", commit_interval=1e9) as buffer:
        buffer.push([0.0], 0, 0.0, [1.0], False)
        buffer.flush()
        commits = buffer.stats()["commits"]
        with pytest.warns(diskreplay.EpisodeWarning) as told:
            buffer.push([5.0], 0, 0.0, [1.0], False)
        assert [found.filename for found in told] == [__file__]
        assert (buffer.stats()["cuts"], buffer.stats()["commits"]) == (1, commits)


def test_a_shared_extend_past_the_pending_rows_links_to_the_rows_before_and_after(
    tmp_path: Path,
) -> None:
    width = 1 << 14
    with ReplayBuffer(400, path=tmp_path / "b", access="shared", commit_interval=1e9) as buffer:

        def extend(begin: int, end: int) -> None:
            states = np.zeros((end - begin, width), np.float32)
            zeros = np.zeros(end - begin)
            buffer.extend(states, zeros, zeros, states, zeros, env=0)

        extend(0, 3)
        assert not replica_of(buffer).fits(100)
        extend(3, 103)
        extend(103, 106)
        extend(106, 206)
        buffer.flush()
        assert len(buffer) == 206
        replica = replica_of(buffer)
        assert replica.links.live_values(replica.live).tolist() == [0] + [1] * 205


def test_the_cuts_of_a_shared_writer_count_once_each(tmp_path: Path) -> None:
    for run in range(2):
        with ReplayBuffer(20, path=tmp_path / "b", access="shared", commit_interval=1e9) as buffer:
            for step in range(3):
                buffer.push([5.0 * step], 0, 0.0, [1.0], False)
                buffer.flush()
                assert buffer.stats()["cuts"] == 2 * run + step

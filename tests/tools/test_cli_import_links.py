"""The episodes of what is imported: those of an export, or those that follow from the rows."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run
from exported import FORMS, arrow, npz, read, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import replica_of

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

N_STEP, LENGTH = 4, 7


def played(path: Path, kind: Any = ReplayBuffer, *, capacity: int = 80, n: int = 130) -> Path:
    """Two envs in turns and a stream without env=; some episodes are done, some truncated."""
    rng = np.random.default_rng(5)
    now = {env: 10_000 * i for i, env in enumerate((0, 1, None))}
    with kind(capacity, path=path) as buffer:
        for number in range(n):
            env: Any = (0, 1, None)[rng.integers(3)]
            state, ends = now[env], rng.random() < 0.2
            is_done = ends and rng.random() < 0.5
            now[env] += 1 + 100 * ends
            buffer.push(
                [float(state)], 0, float(number), [state + 1.0], is_done,
                truncated=ends and not is_done, env=env,
            )  # fmt: skip
    return path


def links_in(path: Path) -> np.ndarray:
    with diskreplay.open(path, access="read") as buffer:
        replica = replica_of(buffer)
        return replica.links.of(np.arange(buffer.first, buffer.count), replica.live)


def by_start(batch: Any, starts: Any, shift: int) -> dict[str, Any]:
    """The arrays of a batch in the order of its first write ids, which are shifted."""
    order = np.argsort(starts)
    found = {name: np.asarray(column)[order] for name, column in batch._asdict().items()}
    ids = found.pop("indices", batch.indices[order])
    return {**found, "indices": np.where(ids >= 0, ids - shift, ids)}


def drawn(path: Path) -> list[dict[str, Any]]:
    """All n-step returns, sequences and whole episodes of a uniform store."""
    with diskreplay.open(path) as buffer:
        n, first = len(buffer), buffer.first
        batch = buffer.sample(n, n_step=N_STEP, gamma=0.9)
        found = [by_start(batch, batch.indices, first)]
        for across in (False, True):
            sequences = buffer.sample_sequences(n, LENGTH, across=across)
            found.append(by_start(sequences, sequences.indices[:, 0], first))
        for number, episode in enumerate(buffer.episodes()):
            found.append({"episode": number, **episode._asdict()})
    return found


@pytest.mark.parametrize("options", [(), ("--episodes",)])
@pytest.mark.parametrize("form", FORMS)
def test_an_export_keeps_its_episodes(tmp_path: Path, form: str, options: Any) -> None:
    if form == "parquet":
        arrow()
    path, file = played(tmp_path / "b"), tmp_path / f"x.{form}"
    run("export", path, file, *options)
    assert run("import", file, tmp_path / "new").stderr == ""
    before, after = drawn(path), drawn(tmp_path / "new")
    assert len(before) > 8
    assert len(before) == len(after)
    assert (before[0]["discounts"] < 0.9).any()  # of more than one reward
    for wanted, found in zip(before, after, strict=True):
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values)
    assert diskreplay.verify(tmp_path / "new") == []


def test_an_episode_goes_on_where_some_agents_are_done(tmp_path: Path) -> None:
    states = np.arange(13.0)[:, None]
    dones = np.zeros((12, 2))
    dones[1::4, 0] = dones[3::4] = 1.0
    with ReplayBuffer(12, path=tmp_path / "b", schema={"done": ("float32", (2,))}) as buffer:
        buffer.extend(states[:-1], [0] * 12, [0.0] * 12, states[1:], dones)
    run("export", tmp_path / "b", tmp_path / "x.npz")
    run("import", tmp_path / "x.npz", tmp_path / "new")
    assert links_in(tmp_path / "new").tolist() == links_in(tmp_path / "b").tolist()
    with diskreplay.open(tmp_path / "new", access="read") as buffer:
        assert [len(episode.dones) for episode in buffer.episodes()] == [4, 4, 4]


def test_a_row_that_was_made_done_ends_its_episode(tmp_path: Path) -> None:
    states = np.arange(7.0)[:, None]
    with ReplayBuffer(6, path=tmp_path / "b") as buffer:
        buffer.extend(states[:-1], [0] * 6, [0.0] * 6, states[1:], [False] * 5 + [True])
    run("export", tmp_path / "b", tmp_path / "x.npz")
    changed = read(tmp_path / "x.npz")
    del changed["diskreplay.json"]
    changed["done"][2] = 1.0
    np.savez(tmp_path / "y.npz", **changed)
    run("import", tmp_path / "y.npz", tmp_path / "new")
    assert np.sign(links_in(tmp_path / "new")).tolist() == [0, 1, 1, -1, 1, 1]
    assert diskreplay.verify(tmp_path / "new") == []


@pytest.mark.parametrize("capacity", [300, 40])
def test_links_lead_to_the_rows_that_are_there(
    tmp_path: Path, capacity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diskreplay_tools.files import columns as file_columns

    monkeypatch.setattr(file_columns, "CHUNK_BYTES", 500)  # several chunks
    path, file = played(tmp_path / "b", capacity=300, n=200), tmp_path / "x.npz"
    run("export", path, file, "--where", "reward!=90", "--where", "reward!=91", "--range", "20:")
    run("import", file, tmp_path / "new", "--capacity", capacity)
    table = read(file)
    ids = table["write_id"][-capacity:].tolist()
    place = {write_id: at for at, write_id in enumerate(ids)}
    wanted = []
    for at, (write_id, link) in enumerate(
        zip(ids, table["link"][-capacity:].tolist(), strict=True)
    ):
        before = place.get(write_id - abs(link), -1)
        wanted.append(int(np.sign(link)) * (at - before))
    assert links_in(tmp_path / "new").tolist() == wanted
    assert any(place.get(i - abs(x), -1) < 0 < x for i, x in zip(ids, wanted, strict=True))
    assert diskreplay.verify(tmp_path / "new") == []


def test_prioritized_with_more_rows_than_a_block(tmp_path: Path) -> None:
    path = played(tmp_path / "b", PrioritizedReplayBuffer, capacity=2500, n=3100)
    run("export", path, tmp_path / "x.npz")
    run("import", tmp_path / "x.npz", tmp_path / "new")
    wanted = links_in(path)
    found = links_in(tmp_path / "new")
    is_there = np.arange(wanted.size) >= abs(wanted)
    np.testing.assert_array_equal(found[is_there], wanted[is_there])
    assert (found[~is_there] == np.sign(wanted)[~is_there] * (np.flatnonzero(~is_there) + 1)).all()
    assert diskreplay.verify(tmp_path / "new") == []


# Files of others


def stream(n: int, **more: Any) -> dict[str, Any]:
    """One stream of rows in episodes of 7; each second one ends without done."""
    numbers = np.arange(n)
    states = (numbers + 100 * (numbers // 7)).astype(np.float32)[:, None]
    return {
        "state": states, "action": numbers, "reward": numbers / 4, "next_state": states + 1,
        "done": numbers % 14 == 13, **more,
    }  # fmt: skip


def extended(values: dict[str, Any], capacity: int, **more: Any) -> list[int]:
    """The links of the same rows in a buffer."""
    names = ("state", "action", "reward", "next_state", "done")
    with ReplayBuffer(capacity) as buffer:
        for begin in (0, 20):
            rows = slice(begin, 20 if begin == 0 else None)
            extra = {name: column[rows] for name, column in more.items()}
            buffer.extend(*(values[name][rows] for name in names), **extra)
        replica = replica_of(buffer)
        ids = np.arange(buffer.first, buffer.count)
        return list(replica.links.of(ids, replica.live).tolist())


@pytest.mark.filterwarnings("ignore::diskreplay.EpisodeWarning")
@pytest.mark.parametrize("capacity", [200, 70, 68, 64, 63, 1])
@pytest.mark.parametrize("has_truncated", [False, True])
def test_rows_of_others_are_one_stream(
    tmp_path: Path, capacity: int, has_truncated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diskreplay_tools.files import columns as file_columns

    monkeypatch.setattr(file_columns, "CHUNK_BYTES", 2000)
    values = stream(100)
    ends = np.arange(100) % 14 == 6
    file = npz(tmp_path / "x.npz", {**values, "timeouts": ends} if has_truncated else values)
    options = ["--field", "truncated=timeouts"] if has_truncated else []
    said = run("import", file, tmp_path / "new", "--capacity", capacity, *options).stderr
    more = {"truncateds": ends} if has_truncated else {}
    assert links_in(tmp_path / "new").tolist() == extended(values, capacity, **more)
    if has_truncated:
        assert "cut" not in said
    elif capacity == 200:
        assert "cut 7 open episodes, where the next row has another state; --field trunc" in said


def test_parts_of_states_are_compared(tmp_path: Path) -> None:
    values = stream(30)
    parts = {}
    for name in ("state", "next_state"):
        column = values.pop(name)
        parts |= {f"{name}.a": column.copy(), f"{name}.b": column.copy()}
    parts["next_state.b"][3] += 1
    file = npz(tmp_path / "x.npz", {**values, **parts})
    run("import", file, tmp_path / "new")
    links = links_in(tmp_path / "new")
    assert np.flatnonzero(links <= 0).tolist() == [0, 4, 7, 14, 21, 28]


# Exports that somebody changed


def rewritten(file: Path, out: Path, **changes: Any) -> Path:
    """An export with other columns, None for those that are left out."""
    table = {**read(file), **changes}
    says = table.pop("diskreplay.json")
    np.savez(out, **{name: column for name, column in table.items() if column is not None})
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("diskreplay.json", says)
    return out


def test_an_export_without_its_links_is_one_stream(tmp_path: Path) -> None:
    with ReplayBuffer(100, path=tmp_path / "b") as buffer:
        for at in range(30):  # each one an episode
            buffer.push(*(column[at] for column in stream(30).values()), env=at)
    run("export", tmp_path / "b", tmp_path / "x.npz")
    run("import", tmp_path / "x.npz", tmp_path / "same")
    assert not links_in(tmp_path / "same").any()
    wanted = [0] + [1 if at % 7 else -1 for at in range(1, 30)]
    run("import", tmp_path / "x.npz", tmp_path / "new", "--drop", "link")
    assert links_in(tmp_path / "new").tolist() == wanted
    lost = rewritten(tmp_path / "x.npz", tmp_path / "y.npz", link=None)
    run("import", lost, tmp_path / "lost")
    assert links_in(tmp_path / "lost").tolist() == wanted


def test_links_stay_in_a_file_that_another_program_wrote_again(tmp_path: Path) -> None:
    run("export", played(tmp_path / "b"), tmp_path / "x.npz")
    table = read(tmp_path / "x.npz")
    del table["diskreplay.json"]
    np.savez(tmp_path / "y.npz", **table)
    run("import", tmp_path / "y.npz", tmp_path / "new")
    run("import", tmp_path / "x.npz", tmp_path / "same")
    np.testing.assert_array_equal(links_in(tmp_path / "new"), links_in(tmp_path / "same"))
    with diskreplay.open(tmp_path / "new") as buffer:
        assert buffer.schema is not None
        assert buffer.schema.extra_names == ("truncated",)


def test_a_column_of_that_name_may_be_a_field(tmp_path: Path) -> None:
    values = stream(30)
    with ReplayBuffer(100, path=tmp_path / "b") as buffer:
        for at in range(30):
            buffer.push(*(column[at] for column in values.values()), env=at, link=2.5)
    said = "left out the links of transitions: their column 'link' has the name of a field"
    assert run("export", tmp_path / "b", tmp_path / "x.npz").stderr.startswith(said)
    own = npz(tmp_path / "y.npz", {**values, "link": np.full(30, 2.5), "write_id": np.arange(30)})
    wanted = [0] + [1 if at % 7 else -1 for at in range(1, 30)]
    for file in (tmp_path / "x.npz", own):
        run("import", file, tmp_path / "new", "--force")
        assert links_in(tmp_path / "new").tolist() == wanted
        with diskreplay.open(tmp_path / "new") as buffer:
            assert set(buffer.get(range(30)).link) == {2.5}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "order": ({"write_id": np.arange(80)[::-1]}, "rows 0 to 79: expected write ids that ascend"),
    "twice": ({"write_id": np.arange(80) // 2}, "expected write ids that ascend"),
    "negative": ({"write_id": np.arange(80) - 1}, "expected write ids that ascend"),
    "type": ({"link": np.ones(80)}, "column 'link': expected int32, as export writes it (found fl"),
    "shape": ({"link": np.ones((80, 1), np.int32)}, "expected int32, as export writes it (found i"),
    "ids": ({"write_id": np.arange(80.0)}, "column 'write_id': expected int64, as export writes"),
    "single": ({"link": np.int32(1)}, "(it is a single value: expected one for each row): --drop"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_links_name_the_way_out(tmp_path: Path, name: str) -> None:
    changes, told = WRONG[name]
    run("export", played(tmp_path / "b"), tmp_path / "x.npz")
    file = rewritten(tmp_path / "x.npz", tmp_path / "y.npz", **changes)
    said = refused(tmp_path / "new", file)
    assert told in said
    assert said.endswith("--drop link makes links anew, from the states")
    run("import", file, tmp_path / "new", "--drop", "link")


LINKS = st.integers(-(2**31), 2**31 - 1)


@settings(max_examples=50)
@given(st.lists(LINKS | st.integers(-9, 9), min_size=12, max_size=12), st.integers(0, 2**63 - 200))
def test_any_links_make_a_sound_store(exported: Path, links: list[int], first: int) -> None:
    place = exported.parent
    ids = first + np.arange(12) * 11
    table = {"link": np.array(links, np.int32), "write_id": ids}
    run("import", rewritten(exported, place / "y.npz", **table), place / "new", "--force")
    assert diskreplay.verify(place / "new") == []
    assert (abs(links_in(place / "new")) <= np.arange(12) + 1).all()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exported")
    run("export", played(place / "b", n=12), place / "x.npz")
    return place / "x.npz"

"""Datasets of Minari, in and out, array by array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("minari")
pytest.importorskip("h5py")

import minari
from common import contents, run_python
from gymnasium import spaces
from limited import group
from minari.data_collector import EpisodeBuffer

import diskreplay
from diskreplay import ReplayBuffer
from diskreplay.adapters.minari import from_minari, to_minari

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")
SPACES: dict[str, tuple[Any, Any]] = {
    "box": (spaces.Box(-1, 1, (3,)), spaces.Discrete(4)),
    "double": (spaces.Box(-1, 1, (2, 2), np.float64), spaces.Box(-1, 1, (2,))),
    "image": (spaces.Box(0, 255, (32, 40, 3), np.uint8), spaces.MultiDiscrete([3, 4])),
    "nested": (
        spaces.Dict(
            camera=spaces.Box(0, 255, (4, 4), np.uint8),
            arm=spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Discrete(3))),
            goal=spaces.Text(12),
        ),
        spaces.Dict(move=spaces.Box(-1, 1, (2,)), grip=spaces.MultiBinary(2)),
    ),
}
# Of each episode its length, and whether it is terminated, truncated, both or neither.
EPISODES = (
    (5, True, False),
    (1, False, True),
    (7, False, False),
    (3, True, True),
    (4, False, True),
)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def columns_of(space: Any, n: int) -> Any:
    """Return n samples of a space, as Minari takes them."""
    if isinstance(space, spaces.Dict):
        return {key: columns_of(part, n) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(columns_of(part, n) for part in space.spaces)
    samples = [space.sample() for _ in range(n)]
    return samples if isinstance(space, spaces.Text) else np.stack(samples)


def make(kind: str, dataset_id: str, *, infos: bool = False) -> Any:
    observations, actions = SPACES[kind]
    observations.seed(0)
    actions.seed(0)
    rng = np.random.default_rng(0)
    buffers = [
        EpisodeBuffer(
            observations=columns_of(observations, n + 1),
            actions=columns_of(actions, n),
            rewards=rng.standard_normal(n),
            terminations=(np.arange(n) == n - 1) & is_terminated,
            truncations=(np.arange(n) == n - 1) & is_truncated,
            infos={
                "success": rng.random(n + 1) < 0.5,
                "sim": {"qpos": rng.standard_normal((n + 1, 3)), "cost": rng.random(n)},
            }
            if infos
            else {},
        )
        for n, is_terminated, is_truncated in EPISODES
    ]
    return minari.create_dataset_from_buffers(
        dataset_id, buffers, observation_space=observations, action_space=actions,
        jpeg_encoding=False,
    )  # fmt: skip


def assert_same(found: Any, expected: Any, name: str = "") -> None:
    assert type(found) is type(expected), name
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), name
        for key, part in expected.items():
            assert_same(found[key], part, f"{name}.{key}")
    elif isinstance(expected, tuple):
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{name}[{place}]")
    elif isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
        np.testing.assert_array_equal(found, expected, err_msg=name)
    else:
        assert found == expected, name


@pytest.mark.parametrize("is_info", [False, True])
def test_a_next_state_that_does_not_follow_is_told(is_info: bool, tmp_path: Path) -> None:
    spaces_ = {"observation_space": spaces.Box(-9, 9, (1,)), "action_space": spaces.Discrete(1)}
    states = np.arange(6, dtype=np.float32)[:, None]
    after = states + 1
    (infos := states.copy())[3] = 7
    after[2] = 2.5 if not is_info else 3
    extra = {"info": {"x": infos}, "next_info": {"x": states + 1}} if is_info else {}
    with ReplayBuffer(10, path=tmp_path / "s") as buffer:
        # env= is trusted, so the episode is not cut.
        buffer.extend(states, [0] * 6, [0.0] * 6, after, np.arange(6) == 5, env=0, **extra)
        name = "info.x" if is_info else "state"
        with pytest.raises(diskreplay.ArgumentError, match=f"the next_{name} of write id 2 is not"):
            to_minari(buffer, "walk/cut-v0", **spaces_)
    assert "walk/cut-v0" not in minari.list_local_datasets()


@pytest.mark.parametrize("observations", ["record", "log"])
@pytest.mark.parametrize("infos", [False, True])
@pytest.mark.parametrize("kind", SPACES)
def test_in_and_out_array_by_array(
    kind: str, infos: bool, observations: str, tmp_path: Path
) -> None:
    dataset = make(kind, "walk/first-v0", infos=infos)
    n = from_minari("walk/first-v0", tmp_path / "s", observations=observations)
    assert n == dataset.total_steps == sum(length for length, *_ in EPISODES)
    assert diskreplay.verify(tmp_path / "s") == []
    assert to_minari(
        tmp_path / "s", "walk/second-v0",
        observation_space=dataset.observation_space, action_space=dataset.action_space,
    ) == n  # fmt: skip
    again = minari.load_dataset("walk/second-v0")
    assert again.total_episodes == len(EPISODES)
    for found, expected in zip(again, dataset, strict=True):
        assert_same(found.observations, expected.observations)
        assert_same(found.actions, expected.actions)
        assert_same(found.rewards, expected.rewards)
        assert_same(found.terminations, expected.terminations)
        assert_same(found.infos or {}, expected.infos or {})
        truncations = expected.truncations.copy()
        truncations[-1] |= not expected.terminations[-1]  # what ends an episode without an end
        assert_same(found.truncations, truncations)


def test_transitions_and_episodes(tmp_path: Path) -> None:
    dataset = make("box", "walk-v0", infos=True)
    from_minari(dataset, tmp_path / "s", kind="prioritized", capacity=50, infos=False)
    with diskreplay.open(tmp_path / "s") as buffer:
        assert isinstance(buffer, diskreplay.PrioritizedReplayBuffer)
        assert (buffer.capacity, buffer.schema.extra_names) == (50, ("truncated",))
        for found, expected in zip(buffer.episodes(), dataset, strict=True):
            np.testing.assert_array_equal(found.states, expected.observations[:-1])
            np.testing.assert_array_equal(found.next_states, expected.observations[1:])
            np.testing.assert_array_equal(found.dones, expected.terminations)
        assert buffer.stats()["cuts"] == 0
    # Of a ring that went round, the whole episodes are written.
    from_minari(dataset, tmp_path / "few", capacity=9)
    with diskreplay.open(tmp_path / "few") as buffer:
        assert len(buffer) == 9
        settings: Any = {name: getattr(dataset, name) for name in
                         ("observation_space", "action_space")}  # fmt: skip
        assert to_minari(buffer, "few-v0", **settings) == 7
    assert [len(episode) for episode in minari.load_dataset("few-v0")] == [3, 4]


def test_other_extra_fields_become_infos(tmp_path: Path) -> None:
    with ReplayBuffer(10) as buffer:
        for i in range(3):
            buffer.push([float(i)], i, 0.0, [i + 1.0], i == 2, log_prob=i / 2, note=f"step {i}")
        box = spaces.Box(0, 9, (1,))
        to_minari(buffer, "a-v0", observation_space=box, action_space=spaces.Discrete(3))
    infos = minari.load_dataset("a-v0")[0].infos
    assert infos["log_prob"].tolist() == [0.0, 0.5, 1.0, 0.0]
    assert infos["note"].tolist() == [b"step 0", b"step 1", b"step 2", b""]


def test_what_fails_leaves_nothing(tmp_path: Path, root: Path) -> None:
    dataset = make("box", "walk-v0")
    settings: Any = {name: getattr(dataset, name) for name in
                     ("observation_space", "action_space")}  # fmt: skip
    with ReplayBuffer(10, path=tmp_path / "s") as buffer:
        buffer.push([0.0], 0, 0.0, [1.0], False)
    before = contents(tmp_path)
    with pytest.raises(diskreplay.ArgumentError, match=r"is at .* already"):
        to_minari(tmp_path / "s", "walk-v0", **settings)
    with pytest.raises(diskreplay.ArgumentError, match="no whole episode"):
        to_minari(tmp_path / "s", "new-v0", **settings)
    with ReplayBuffer(10) as buffer:
        buffer.push([0.0], 0, 0.0, [1.0], True)
        with pytest.raises(ValueError, match="observation space and action space"):
            to_minari(buffer, "new-v0")
    with pytest.raises(diskreplay.StorageError, match="s exists"):
        from_minari(dataset, tmp_path / "s")
    with pytest.raises(diskreplay.ArgumentError, match="holds no steps"):
        from_minari(dataset.filter_episodes(lambda episode: False), tmp_path / "t")
    dataset.update_dataset_from_buffer(
        [EpisodeBuffer(observations=np.zeros((3, 4)), actions=np.zeros(2, int), rewards=[0, 0],
                       terminations=[False, True], truncations=[False, False])]
    )  # fmt: skip
    before |= contents(root.parent)
    with pytest.raises(diskreplay.SchemaError, match="state"):
        from_minari(dataset, tmp_path / "t")
    assert contents(tmp_path) == before
    assert sorted(place.name for place in tmp_path.iterdir()) == ["minari", "s"]
    assert [place.name for place in root.iterdir()] == ["walk-v0"]


IMPORT = """
import sys, warnings
from limited import anonymous_bytes
warnings.simplefilter("ignore")
import minari
from diskreplay.adapters.minari import from_minari, to_minari

before = anonymous_bytes()
dataset = minari.load_dataset("large-v0")
n = from_minari(dataset, sys.argv[1])
spaces = {name: getattr(dataset, name) for name in ("observation_space", "action_space")}
print(n, to_minari(sys.argv[1], "again-v0", **spaces), anonymous_bytes() - before)
"""


def test_a_dataset_of_four_times_the_memory(
    disk_path: Path, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not long:
        pytest.skip("takes two minutes: --long")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(disk_path / "minari"))
    limit, n, width = 160 << 20, 100, 5000
    episodes = 4 * limit // (n * width * 4) + 1
    rng = np.random.default_rng(0)
    dataset: Any = None
    for _ in range(episodes):
        parts = [
            EpisodeBuffer(
                observations=rng.standard_normal((n + 1, width)).astype(np.float32),
                actions=np.arange(n), rewards=np.arange(n) * 1.0,
                terminations=np.zeros(n, bool), truncations=np.arange(n) == n - 1,
            )
        ]  # fmt: skip
        if dataset is None:
            dataset = minari.create_dataset_from_buffers(
                "large-v0", parts, observation_space=spaces.Box(-9, 9, (width,)),
                action_space=spaces.Discrete(n),
            )  # fmt: skip
        else:
            dataset.update_dataset_from_buffer(parts)
    with group(limit) as limited:
        if limited is None:
            out = run_python(IMPORT, disk_path / "s").stdout
        else:
            found = limited.run(IMPORT, disk_path / "s")
            assert (found.status, found.kills) == (0, 0), found
            out = found.out
    imported, exported, more = map(int, out.split())
    assert imported == exported == n * episodes
    assert more <= limit // 2
    for one, other in zip(minari.load_dataset("again-v0"), dataset, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)

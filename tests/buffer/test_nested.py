"""Observations, actions and extra fields that are dictionaries and tuples."""

# ruff: noqa: S301  what is unpickled is what was pickled before

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_values import fact, put_fact
from common import run_python
from nested_rows import NAMES, assert_same, columns, each, numbers_of, row

import diskreplay
from diskreplay import (
    ArgumentError,
    DamageError,
    MismatchError,
    PrioritizedReplayBuffer,
    ReplayBuffer,
    Schema,
    SchemaError,
)

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]
EXTRA = {"info": {"lives": 3, "box": (0.5, [1.0, 2.0])}}
EXTRAS = each(EXTRA, lambda value: np.repeat(np.asarray(value)[None], 20, 0))


def filled(kind: Any = ReplayBuffer, n: int = 20, **arguments: Any) -> Any:
    buffer = kind(capacity=30, seed=0, **arguments)
    buffer.extend(**columns(0, n))
    return buffer


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_pushed_nested_comes_back_nested(kind: Any, tmp_path: Path) -> None:
    with kind(capacity=30, path=tmp_path / "b") as buffer:
        assert [buffer.push(**row(number)) for number in range(10)] == list(range(10))
        assert buffer.extend(**columns(10, 10)).tolist() == list(range(10, 20))
        assert buffer.schema.names == NAMES
        assert buffer.schema.extra_names == ()
    with diskreplay.open(tmp_path / "b", window_bytes=0) as buffer:
        assert numbers_of(buffer.get(range(20))).tolist() == list(range(20))
        buffer.push(**row(20))  # beside rows on disk, those in memory
        batch = buffer.sample(21)
        assert numbers_of(batch).tolist() == batch.indices.tolist()
        assert [*batch.states] == ["camera", "robot", "goal"]
        assert batch.states["camera"].dtype == np.uint8
        assert batch.states["goal"][0].shape == (21, 2)
        assert type(batch) is (
            diskreplay.Batch if kind is ReplayBuffer else diskreplay.PrioritizedBatch
        )
        for number, experience in enumerate(buffer):
            assert_same(tuple(experience), tuple(row(number).values()))
        wide = buffer.get([[0, 1, 2], [3, 4, 5]])
        assert wide.states["robot"]["arm"].shape == (2, 3, 3)
        assert_same(wide.states["goal"][1], [[0, 5, 10], [15, 20, 25]])
        buffer.check()
    assert diskreplay.verify(tmp_path / "b") == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_extra_field_may_be_nested(kind: Any, tmp_path: Path) -> None:
    with kind(capacity=30, path=tmp_path / "b") as buffer:
        buffer.push(**row(0), mask=[1, 0], **EXTRA)
        buffer.extend(**columns(1, 20), mask=np.ones((20, 2), int), **EXTRAS)
        assert buffer.schema.names[14:] == ("mask", "info.lives", "info.box[0]", "info.box[1]")
        batch = buffer.sample(8)
        assert batch._fields[-2:] == ("mask", "info")
        assert batch.info is batch[-1]
        assert_same(batch.info, each(EXTRAS, lambda column: column[:8])["info"])
        assert_same(next(iter(buffer)).info, EXTRA["info"])
        for message, extra in [
            (r"\(missing: info; new: none\)", {"mask": [1, 0]}),
            (r"\(missing: info.lives; new: none\)", {"mask": [1, 0], "info": {"box": (0, [1, 2])}}),
        ]:
            with pytest.raises(SchemaError, match=message):
                buffer.push(**row(1), **extra)


def test_parts_are_read_by_their_names() -> None:
    buffer = filled()
    ids, whole = [7, 3, 3], buffer.get([7, 3, 3])
    names = ["state.camera", "state", "state.robot", "state.goal[1]", "reward", "next_state.goal"]
    found = buffer.get(ids, fields=names)
    assert list(found) == names
    assert_same(found["state"], whole.states)
    assert_same(found["state.camera"], whole.states["camera"])
    assert_same(found["state.robot"], whole.states["robot"])
    assert_same(found["state.goal[1]"], whole.states["goal"][1])
    assert_same(found["next_state.goal"], whole.next_states["goal"])
    for name in ("state.wheel", "state.camera.left", "state.goal[2]", "states", "state."):
        with pytest.raises(
            SchemaError, match=r"has no field .*: expected some of state.camera, st"
        ):
            buffer.get(ids, fields=[name])


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"state": {"camera": row(1)["state"]["camera"]}},
        r"missing: state.robot.arm, state.robot.gri",
    ),
    ({"state": {**row(1)["state"], "wheel": 1}}, r"\(missing: none; new: state.wheel\)"),
    (
        {"next_state": {**row(1)["state"], "goal": (0,)}},
        r"\(missing: next_state.goal\[1\]; new: none\)",
    ),
    (
        {"state": row(1)["state"]["camera"]},
        "'state': expected a dictionary with camera, robot, goal",
    ),
    ({"action": 3}, "'action': expected a dictionary with turn, push"),
    ({"reward": {"a": 1.0}}, "'reward' is a dictionary"),
    ({"state": {**row(1)["state"], "camera": np.zeros((3, 5))}}, "'state.camera': expected shape"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_a_refused_call_changes_nothing(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with filled(path=tmp_path / "b") as buffer:
        with pytest.raises(SchemaError, match=message):
            buffer.push(**{**row(20), **change})
        many = {
            f"{name}s": each(value, lambda part: np.asarray(part)[None])
            for name, value in change.items()
        }
        with pytest.raises(SchemaError, match=message.replace("shape", r"shape \(1, ")):
            buffer.extend(**{**columns(20, 1), **many})
        assert (len(buffer), buffer.count) == (20, 20)
        buffer.push(**row(20))
        assert numbers_of(buffer.get(range(21))).tolist() == list(range(21))


def test_a_first_push_that_is_refused_fixes_no_schema() -> None:
    buffer = ReplayBuffer(capacity=10)
    for state in ({"a.b": 1}, {"a": {}}, {1: 2}):
        with pytest.raises(SchemaError, match="field 'state"):
            buffer.push(state, 0, 0.0, state, False)
    with pytest.raises(SchemaError, match=r"\(missing: next_state.b; new: next_state.c\)"):
        buffer.push({"a": 1, "b": 2}, 0, 0.0, {"a": 1, "c": 2}, False)
    assert buffer.schema is None
    buffer.push([1.0], 0, 0.0, [2.0], False)
    assert buffer.schema.is_flat


@pytest.mark.parametrize("n", [0, 1, 2])
def test_the_first_extend_may_have_any_number_of_rows(n: int) -> None:
    buffer = ReplayBuffer(capacity=10)
    assert buffer.extend(**columns(0, n)).tolist() == list(range(n))
    assert (buffer.schema is None) == (n == 0)
    buffer.extend(**columns(n, 3))
    assert numbers_of(buffer.get(range(n + 3))).tolist() == list(range(n + 3))


def test_lists_of_nested_values_are_refused_however_many_there_are() -> None:
    buffer = filled()
    for n in (1, 2):
        rows = [row(number) for number in range(20, 20 + n)]
        many = {f"{name}s": [one[name] for one in rows] for name in rows[0]}
        with pytest.raises(
            SchemaError, match="'state': expected a dictionary with camera, robot, g"
        ):
            buffer.extend(**many)
    assert len(buffer) == 20


WAYS: list[dict[str, Any]] = [
    {"prefetch": 2},
    {"reuse": True},
    {"prefetch": 2, "reuse": True},
    {"prefetch": 2, "readers": 1},
    {"prefetch": 2, "readers": 1, "reuse": True},
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_the_same_in_all_ways(kind: Any, way: dict[str, Any], tmp_path: Path) -> None:
    with filled(kind, path=tmp_path / "b") as buffer:
        buffer.save(tmp_path / "twin")
    with (
        diskreplay.open(tmp_path / "b", window_bytes=0) as buffer,
        diskreplay.open(tmp_path / "twin") as twin,
        buffer.batches(6, **way) as batches,
    ):
        for _ in range(6):
            found, expected = next(batches), twin.sample(6)
            assert type(found) is type(expected)
            assert found.indices.tolist() == expected.indices.tolist() == numbers_of(found).tolist()
            assert_same(tuple(found), tuple(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_the_arrays_of_a_batch_are_used_again(kind: Any, tmp_path: Path) -> None:
    filled(kind, path=tmp_path / "b").close()
    with diskreplay.open(tmp_path / "b") as buffer:
        batch = buffer.sample(5)
        camera, goal = batch.states["camera"], batch.next_states["goal"][1]
        found = buffer.sample(5, out=batch)
        assert found is batch
        assert found.states["camera"] is camera
        assert found.next_states["goal"][1] is goal
        assert numbers_of(found).tolist() == found.indices.tolist()
        draws = buffer.stats()["count"]
        read_only = camera.copy()
        read_only.flags.writeable = False
        for states, message in [
            ({**batch.states, "camera": camera[:, 1:]}, r"out.states.camera must .* uint8 \(5, 3"),
            ({**batch.states, "camera": read_only}, r"out.states.camera .* \(it is read-only\)"),
            ({**batch.states, "goal": (1, 2)}, r"out.states.goal\[0\] must .* \(it is a int\)"),
            ({**batch.states, "goal": (goal,)}, r"nested alike: .*missing: state.goal\[1\]"),
            ({**batch.states, "wheel": goal}, r"nested alike: .*new: state.wheel"),
            ({**batch.states, "goal": (batch.states["goal"][0], goal)},
             r"out.next_states.goal\[1\] must have memory of its own .* with out.states.goal\[1\]"),
            (camera, "nested alike: field 'state': expected a dictionary"),
        ]:  # fmt: skip
            with pytest.raises(ArgumentError, match=message):
                buffer.sample(5, out=batch._replace(states=states))
        assert buffer.stats()["count"] == draws


@pytest.mark.parametrize("kind", KINDS)
def test_batches_and_transitions_are_pickled_copied_and_replaced(kind: Any) -> None:
    buffer = kind(capacity=30, seed=0)
    buffer.extend(**columns(0, 20), **EXTRAS)
    batch = buffer.sample(4)
    for found in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch), copy.copy(batch)):
        assert type(found) is type(batch)
        assert_same(tuple(found), tuple(batch))
        assert found.indices.tolist() == batch.indices.tolist()
    changed = batch._replace(states=batch.states["camera"])
    assert changed.states is batch.states["camera"]
    assert changed.indices.tolist() == batch.indices.tolist()
    experience = next(iter(buffer))
    assert_same(tuple(pickle.loads(pickle.dumps(experience))), tuple(experience))


def test_a_schema_may_be_given_and_must_be_that_of_the_store(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "state": {"camera": ("uint8", (3, 4)), "robot": {"arm": ("float64", (3,))}},
        "action": {"turn": "int8"},
    }
    path = tmp_path / "b"
    with ReplayBuffer(30, path=path, schema=given) as buffer:
        buffer.push(**row(0))
        assert buffer.schema.names == NAMES
        kinds = [buffer.schema[name].dtype for name in ("state.robot.arm", "next_state.robot.arm")]
        assert kinds == ["f8", "f8"]
        assert buffer.sample(1).actions["turn"].dtype == np.int8
        schema = buffer.schema
    for same in (given, schema, {"state.camera": ("uint8", (3, 4))}, None):
        with ReplayBuffer(30, path=path, schema=same) as buffer:
            buffer.push(**row(1))
    for other, message in [
        (
            {"state": {"camera": ("uint8", (3, 5))}},
            r"'state.camera' is uint8\[3, 4\] in .* \(expect",
        ),
        (
            {"state": {"lidar": "float32"}},
            "'state.lidar' is no such field in .* \\(expected float32",
        ),
        ({"state": ("uint8", (3, 4))}, "'state' is no such field in "),
        (Schema([*schema.fields, diskreplay.Field("x")]), "'x' is no such field in "),
    ]:
        with pytest.raises(MismatchError, match=message):
            ReplayBuffer(30, path=path, schema=other)
    with pytest.raises(SchemaError, match="contradict each other: 'state' is a value"):
        ReplayBuffer(30, schema={"state": "f4", "state.camera": "f4"})


def test_a_whole_schema_is_stored_before_the_first_push(tmp_path: Path) -> None:
    schema = filled().schema
    fields = {field.name: (field.dtype, field.shape) for field in schema.fields}
    ReplayBuffer(30, path=tmp_path / "b", schema=fields).close()
    assert fact(tmp_path / "b", "layout")["features"] == ["nested-fields"]
    with diskreplay.open(tmp_path / "b") as buffer:
        assert buffer.schema == schema
        assert buffer.stats()["schema"][0] == ["state.camera", "|u1", [3, 4]]
    assert diskreplay.estimate(fields, 1000) == diskreplay.estimate(schema, 1000)
    with pytest.raises(SchemaError, match=r"estimate\(\) needs .*: next_state missing in"):
        diskreplay.estimate({n: f for n, f in fields.items() if n[:4] != "next"}, 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_stores_are_made_of_others(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "b"
    with filled(kind, path=path) as buffer:
        buffer.save(tmp_path / "saved")
    loaded = kind(capacity=10)
    loaded.load(path)
    assert numbers_of(loaded.get(loaded.count - 1 - np.arange(10))).tolist() == list(
        range(19, 9, -1)
    )
    diskreplay.compact(path)
    diskreplay.resize(path, 15)
    diskreplay.repair(path, tmp_path / "repaired")
    assert diskreplay.merge([path, tmp_path / "saved"], tmp_path / "both") == 35
    for name, n in (("b", 15), ("saved", 20), ("repaired", 15), ("both", 35)):
        assert diskreplay.verify(tmp_path / name) == []
        assert fact(tmp_path / name, "layout")["features"] == ["nested-fields", "links"]
        with diskreplay.open(tmp_path / name) as found:
            assert found.schema.names == NAMES
            assert len(numbers_of(found.get(np.arange(found.first, found.count)))) == n
            found.push(**row(3))


def test_the_first_key_order_is_kept_and_any_other_is_taken(tmp_path: Path) -> None:
    def backwards(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: backwards(part) for key, part in reversed(value.items())}
        return value

    with ReplayBuffer(30, path=tmp_path / "b") as buffer:
        buffer.push(**row(0))
        buffer.push(**backwards(row(1)))
        buffer.extend(**{name: backwards(value) for name, value in columns(2, 3).items()})
        assert numbers_of(buffer.get(range(5))).tolist() == list(range(5))


def test_several_processes_share_a_nested_store(tmp_path: Path) -> None:
    code = """
        import sys
        from nested_rows import columns, row
        from diskreplay import ReplayBuffer
        with ReplayBuffer(30, path=sys.argv[1], access="shared") as buffer:
            buffer.push(**row(1))
            buffer.extend(**columns(2, 3))
    """
    with ReplayBuffer(30, path=tmp_path / "b", access="shared", seed=0) as buffer:
        buffer.push(**row(0))
        run_python(code, tmp_path / "b")
        buffer.flush()
        assert sorted(numbers_of(buffer.get(range(5))).tolist()) == list(range(5))
        assert_same(buffer.get([2], fields=["state"])["state"], buffer.get([2]).states)


def test_gymnasium_s_vector_environments_give_what_extend_takes() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    spaces = gymnasium.spaces

    class World(gymnasium.Env):  # type: ignore[misc]
        observation_space = spaces.Dict(
            camera=spaces.Box(0, 255, (3, 4), np.uint8),
            goal=spaces.Tuple([spaces.Discrete(5), spaces.Box(-1, 1, (2,), np.float32)]),
        )
        action_space = spaces.Discrete(2)

        def reset(self, **options: Any) -> Any:
            super().reset(**options)
            return self.observation_space.sample(), {}

        def step(self, action: Any) -> Any:
            return self.observation_space.sample(), 0.0, False, False, {}

    envs = gymnasium.vector.SyncVectorEnv([World] * 3)
    schema = {"state": World.observation_space, "action": World.action_space}
    buffer = ReplayBuffer(capacity=100, schema=schema)
    observations, _ = envs.reset(seed=0)
    for _ in range(4):
        actions = envs.action_space.sample()
        after, rewards, ended, _, _ = envs.step(actions)
        buffer.extend(observations, actions, rewards, after, ended)
        newest = buffer.get(range(buffer.count - 3, buffer.count))
        assert_same(newest.next_states["camera"], after["camera"])
        observations = after
    assert buffer.schema.names[:3] == ("state.camera", "state.goal[0]", "state.goal[1]")
    assert len(buffer) == 12


CONTRADICTIONS = [
    (["state.camera", "state"], "'state' is a value, and has parts"),
    (["state", "state.a"], "'state' is a value, and 'state.a' a part of it"),
    (["state[0]", "state.a"], "'state' has both keys and places"),
    (["state[1]"], "is there without"),
    (["x" + ".y" * 40, "state"], "'x' is nested too deeply"),
    (["state."], "a part of a field is named as in state.camera"),
]


@pytest.mark.parametrize(("names", "message"), CONTRADICTIONS)
def test_a_store_whose_names_contradict_each_other_is_damaged(
    names: list[str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    with ReplayBuffer(10, path=path) as buffer:
        buffer.push([1.0], 0, 0.0, [1.0], False)
    others = [field for field in fact(path, "schema") if field[0] != "state"]
    put_fact(path, "schema", [*others, *([name, "<f4", [1]] for name in names)])
    for call in (diskreplay.open, lambda path: ReplayBuffer(10, path=path), diskreplay.compact):
        with pytest.raises(DamageError, match=f"the schema of .* is damaged: not a sch.*{message}"):
            call(path)
    assert message in " ".join(diskreplay.verify(path))


@pytest.mark.parametrize("is_first", [True, False])
def test_a_tuple_of_columns_for_one_array_is_refused(is_first: bool, tmp_path: Path) -> None:
    """With as many transitions as the array is long, it could be taken for its rows."""
    with diskreplay.ReplayBuffer(10, path=tmp_path / "b") as buffer:
        if not is_first:
            buffer.push({"goal": (1.0, 2.0)}, 0, 0.0, {"goal": (3.0, 4.0)}, False)
        states = {"goal": (np.array([10.0, 11.0]), np.array([20.0, 21.0]))}
        with pytest.raises(diskreplay.SchemaError, match=r"goal' is one array, float32\[2\]: give"):
            buffer.extend(states, [0, 0], [0.0, 0.0], states, [False, False])
        assert len(buffer) == (0 if is_first else 1)
        whole = {"goal": np.array([[10.0, 20.0], [11.0, 21.0]])}
        buffer.extend(whole, [0, 0], [0.0, 0.0], whole, [False, False])
        np.testing.assert_array_equal(buffer.get([buffer.count - 1]).states["goal"], [[11, 21]])


def test_a_field_in_a_nested_schema_may_have_the_name_of_its_key() -> None:
    parts = {"camera": diskreplay.Field("camera", "uint8", (4, 8, 8), frame_axis=0)}
    with diskreplay.ReplayBuffer(10, schema={"state": parts}) as buffer:
        image = np.zeros((4, 8, 8), np.uint8)
        buffer.push({"camera": image}, 0, 0.0, {"camera": image}, False)
        assert buffer.schema is not None
        assert buffer.schema["state.camera"].frames == 4
        assert "state.camera: uint8[4, 8, 8] (in the log, frame axis 0)" in repr(buffer.schema)
        with pytest.raises(diskreplay.SchemaError, match=r"found list.*give one dictionary"):
            buffer.extend([{"camera": image}] * 2, [0] * 2, [0.0] * 2, [{"camera": image}] * 2,
                          [False] * 2)  # fmt: skip

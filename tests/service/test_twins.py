"""What a client gets is what the served buffer gives, bit for bit, whatever the fields are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

from common import columns, row, run_python
from served import served
from test_messages import assert_same

import diskreplay
from diskreplay import PrioritizedReplayBuffer

SCHEMA = {
    "state": {"camera": ("uint8", (4, 6, 6)), "robot": ("float64", (3,))},
    "next_state": {"camera": ("uint8", (4, 6, 6)), "robot": ("float64", (3,))},
    "action": ("float32", (2,)),
    "prompt": str,
    "raw": bytes,
    "tokens": ("int32", (None,)),
    "points": ("float32", (None, 3)),
    "env": "int64",
    "truncated": "bool",
}


def rows(buffer: Any, n: int = 60) -> None:
    """Push rows of numbers, one by one and several at once, in two envs."""
    rng = np.random.default_rng(7)
    for i in range(n):
        observation = {"camera": rng.integers(0, 256, (4, 6, 6), np.uint8), "robot": rng.random(3)}
        buffer.push(
            state=observation, action=rng.random(2, np.float32), reward=i / 8, done=i % 20 == 19,
            next_state=observation, priority=float(i % 5), env=i % 2, truncated=i % 7 == 6,
            prompt="é" * (i % 4), raw=bytes(i % 3), tokens=np.arange(i % 5),
            points=rng.random((i % 3, 3), np.float32),
        )  # fmt: skip


CALLS: dict[str, Callable[[Any], Any]] = {
    "sample": lambda replay: replay.sample(16),
    "padded": lambda replay: replay.sample(16, pad=True),
    "n-step": lambda replay: replay.sample(16, n_step=3, gamma=0.9),
    "out": lambda replay: replay.sample(16, out=replay.sample(16)),
    "n-step out": lambda replay: replay.sample(16, n_step=2, out=replay.sample(16, n_step=2)),
    "beta": lambda replay: replay.sample(16, beta=0.5),
    "draw": lambda replay: replay.draw(16),
    "sequences": lambda replay: replay.sample_sequences(8, 5),
    "get": lambda replay: replay.get([[5, 6], [7, 8]]),
    "some": lambda replay: replay.get([5, 9], fields=["prompt", "state", "tokens"], pad=True),
    "rows": list,
    "episodes": lambda replay: list(replay.episodes(newest_first=True)),
    "priorities": lambda replay: replay.priorities(range(60)),
    "runs": lambda replay: replay.runs_of([0, 59]),
    "whole": lambda replay: (len(replay), replay.first, replay.total_mass, replay.max_priority),
}  # fmt: skip


@pytest.fixture
def twins(tmp_path: Path) -> Any:
    made = [
        PrioritizedReplayBuffer(100, path=tmp_path / name, seed=4, schema=SCHEMA)
        for name in ("a", "b")
    ]
    with served(made[0]) as replay, made[1] as twin:
        for one in (replay, twin):
            rows(one)
            one.flush()
        yield replay, twin


def test_each_call_answers_as_the_buffer(twins: tuple[Any, Any]) -> None:
    replay, twin = twins
    for name, call in CALLS.items():
        found, wanted = call(replay), call(twin)
        if name not in ("sequences",):
            assert_same(found, wanted)
        else:
            assert_same(tuple(found), tuple(wanted))
        for attribute in ("indices", "largest_weight"):
            if hasattr(wanted, attribute) and not isinstance(wanted, list | dict):
                assert_same(getattr(found, attribute), getattr(wanted, attribute))


def test_the_indices_of_an_earlier_batch_are_filled_again(tmp_path: Path) -> None:
    with served(diskreplay.ReplayBuffer(100, path=tmp_path / "b", seed=1)) as replay:
        replay.extend(**columns(0, 50))
        replay.flush()
        batch = replay.sample(16)
        indices, before = batch.indices, batch.indices.tolist()
        assert replay.sample(16, out=batch) is batch
        assert batch.indices is indices
        assert indices.tolist() != before


def test_a_clear_and_a_flush_come_after_what_was_pushed_and_changed(tmp_path: Path) -> None:
    buffer = PrioritizedReplayBuffer(100, path=tmp_path / "b", commit_interval=1e9)
    with served(buffer) as replay:
        replay.push(**row(0))
        replay.push(**row(1))
        replay.clear()
        replay.flush()
        assert (len(replay), replay.count) == (0, 2)
        replay.push(**row(2))
        replay.flush()
        replay.update_priorities([2], [7.0])
        replay.flush()
        code = """
            import sys, diskreplay
            with diskreplay.open(sys.argv[1], access="read") as reader:
                print(reader.priorities([2]).tolist())
        """
        assert run_python(code, tmp_path / "b").stdout == "[7.0]\n"


def test_rows_with_and_without_an_env_and_a_priority_may_take_turns(tmp_path: Path) -> None:
    made = [PrioritizedReplayBuffer(200, path=tmp_path / name) for name in ("a", "b")]
    with served(made[0]) as replay, made[1] as twin:
        for one in (replay, twin):
            for i in range(100):
                given: dict[str, Any] = {}
                if i % 3:
                    given["env"] = i % 2
                if i % 5 < 3:
                    given["priority"] = float(i)
                one.push([float(i)], i, 1.0, [0.0], i % 10 > 7, **given)
            one.flush()
        assert_same(replay.get(range(100)), twin.get(range(100)))
        assert_same(replay.priorities(range(100)), twin.priorities(range(100)))
        assert_same([*replay.episodes()], [*twin.episodes()])


def test_marks_and_rewinds_are_those_of_the_buffer(tmp_path: Path) -> None:
    buffer = diskreplay.ReplayBuffer(100, path=tmp_path / "b", seed=1, keep_rows=50)
    with served(buffer) as replay:
        for i in range(30):
            replay.push([float(i)], 0, 1.0, [i + 1.0], False)
        replay.mark("step", data={"network": "a.pt"})
        wanted = replay.sample(8)
        replay.push([0.5], 0, 1.0, [1.5], False)
        [mark] = replay.marks()
        assert (mark.name, mark.count, mark.data) == ("step", 30, {"network": "a.pt"})
        assert replay.rewind("step") == 0
        assert replay.count == 30
        assert_same(replay.sample(8), wanted)
        replay.push([0.5], 0, 1.0, [1.5], False)
        replay.flush()
        assert replay.count == 31
        replay.delete_mark("step")
        assert replay.marks() == []


def test_rows_that_a_rewind_took_back_are_stored_when_they_come_again(tmp_path: Path) -> None:
    buffer = diskreplay.ReplayBuffer(100, path=tmp_path / "b", keep_rows=50)
    with served(buffer) as replay:
        call = replay._connection.call
        one_row = ["push", [[0.0], 0, 1.0, [1.0], False], {}]
        call("push_first", "0" * 32, 1, *one_row)
        replay.mark("step")
        call("push_first", "0" * 32, 2, *one_row)
        replay.rewind("step")
        assert replay.count == 1
        # As of a client that was not told of the commit before.
        for _ in range(2):
            assert call("push_first", "0" * 32, 2, *one_row) == (1, 1)
        assert replay.count == 2


def test_an_iteration_ends_after_a_rewind_behind_its_place(tmp_path: Path) -> None:
    buffer = diskreplay.ReplayBuffer(1000, path=tmp_path / "b", keep_rows=1000)
    with served(buffer) as replay:
        replay.extend(**columns(0, 10))
        replay.mark("step")
        replay.extend(**columns(10, 900))
        replay.flush()
        iteration = iter(replay)
        next(iteration)
        replay.rewind("step")
        assert 9 <= len(list(iteration)) < 900  # those that had come already


class Evicting(diskreplay.ReplayBuffer):
    """A buffer whose older rows are evicted before they are read, once."""

    new_rows: Any = None

    def get(self, *arguments: Any, **options: Any) -> Any:
        """Push rows, and return others."""
        if self.new_rows is not None:
            rows, self.new_rows = self.new_rows, None
            self.extend(**rows)
        return super().get(*arguments, **options)


def test_rows_that_are_evicted_while_they_are_read_are_left_out(tmp_path: Path) -> None:
    buffer = Evicting(100, path=tmp_path / "b")
    with served(buffer) as replay:
        replay.extend(**columns(0, 100))
        replay.flush()
        buffer.new_rows = columns(100, 30)
        assert [round(one.reward * 8) for one in replay] == [*range(30, 100)]


def test_a_step_of_an_iteration_has_few_bytes(tmp_path: Path) -> None:
    with served(diskreplay.ReplayBuffer(100, path=tmp_path / "b")) as replay:
        image = np.zeros(2**18, np.uint8)
        for number in range(5):
            replay.push(image, number, 0.0, image, False)
        replay.flush()
        end, batch = replay._connection.call("rows", 0, None)
        assert (end, len(batch.actions)) == (5, 1)
        assert [one.action for one in replay] == [*range(5)]


def test_no_store_is_saved_within_another_one(tmp_path: Path) -> None:
    with served(diskreplay.ReplayBuffer(100, path=tmp_path / "b")) as replay:
        replay.extend(**columns(0, 10))
        with pytest.raises(diskreplay.StorageError, match="is inside the store"):
            replay.save(tmp_path / "b" / "copy")


def test_rows_that_the_server_refuses_are_counted(tmp_path: Path) -> None:
    buffer = diskreplay.ReplayBuffer(100, path=tmp_path / "b")
    with served(buffer) as replay:
        replay.push([0.0], 0, 1.0, [1.0], False)
        replay.flush()
        # As of a client that knew the fields of a store that another one has replaced since.
        fields: Any = dict.fromkeys(("action", "reward", "done"), "float32")
        fields = {"state": "int8", "next_state": ("float32", (2,)), **fields}
        replay._schema = diskreplay.Schema(fields)
        for _ in range(3):
            replay.push(0, 0, 1.0, [0.0, 0.0], False)
        with pytest.raises(
            diskreplay.SchemaError,
            match=r"the server refused 3 transitions, pushed .* not stored: field",
        ):
            replay.flush()
        replay.flush()
        assert replay.count == 1
        replay.push(0, 0, 1.0, [0.0, 0.0], False)
        while replay._outbox.rows:
            pass
        with pytest.raises(diskreplay.SchemaError, match="the server refused 1 transition"):
            replay.push(0, 0, 1.0, [0.0, 0.0], False)
        replay.flush()
        assert replay.count == 1


def test_rows_for_a_reader_are_refused(tmp_path: Path) -> None:
    with diskreplay.ReplayBuffer(100, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 10))
    with served(diskreplay.open(tmp_path / "b", access="read")) as replay:
        replay.push(**row(0))
        with pytest.raises(diskreplay.ReadOnlyError, match="the server refused 1 transition"):
            replay.flush()
        assert replay.count == 10


def test_rows_of_other_fields_than_the_store_has_are_refused(tmp_path: Path) -> None:
    with served(diskreplay.ReplayBuffer(100, path=tmp_path / "b")) as replay:
        replay.push([0.0], 0, 1.0, [1.0], False, log_prob=0.5)
        replay.flush()
        # As of a client of a store that another one has replaced since, of as many fields.
        plain = [[name.replace("log_prob", "value"), *of] for name, *of in replay.schema.to_plain()]
        replay._schema = diskreplay.Schema.from_plain(plain)
        replay.push([0.0], 0, 1.0, [1.0], False, value=0.5)
        with pytest.raises(
            diskreplay.MismatchError,
            match=r"refused 1 transition, .*, log_prob \(found .*, value\)",
        ):
            replay.flush()
        assert replay.count == 1


def test_a_missing_pyarrow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("diskreplay.service.client")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "diskreplay.service.connection", raising=False)
    monkeypatch.delitem(sys.modules, "diskreplay.service.messages", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "diskreplay\[service\]"'):
        diskreplay.connect("grpc://127.0.0.1:1")


def test_no_rows_fix_no_schema(tmp_path: Path) -> None:
    with served(diskreplay.ReplayBuffer(100, path=tmp_path / "b")) as replay:
        none = np.zeros((0, 2))
        assert replay.extend(none, [], [], none, []).tolist() == []
        assert replay.schema is None
        replay.extend([[0.0, 1.0]], [0], [1.0], [[1.0, 2.0]], [False])
        replay.flush()
        assert replay.count == 1

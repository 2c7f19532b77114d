"""A replay over a connection: the same calls, batches and errors."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

from common import columns, row
from service_process import PATIENCE

import diskreplay
from diskreplay import ArgumentError, Field, ReplayBuffer, Schema, ServiceError
from diskreplay.service import Limits
from diskreplay.service.server import ReplayServer


def test_rows_go_to_the_server_and_batches_come_back(tmp_path: Path) -> None:
    with (
        diskreplay.PrioritizedReplayBuffer(100, path=tmp_path / "b", seed=1) as buffer,
        ReplayServer({"main": buffer}) as server,
        diskreplay.connect(server.url) as replay,
    ):
        assert replay.push(**row(0)) == -1
        assert replay.extend(**columns(1, 40)).tolist() == [-1] * 40
        replay.flush()
        assert (len(replay), replay.count) == (41, 41)
        stats = replay.stats()
        assert [client["name"] for client in stats.pop("clients")] == ["anyone"]
        assert stats == buffer.stats()
        with diskreplay.PrioritizedReplayBuffer(100, path=tmp_path / "twin", seed=1) as twin:
            twin.extend(**columns(0, 41))
            for _ in range(3):
                found, wanted = replay.sample(8), twin.sample(8)
                assert type(found) is type(wanted)
                for one, other in zip(found, wanted, strict=True):
                    assert one.dtype == other.dtype
                    assert one.tobytes() == other.tobytes()
                    assert one.flags.writeable
                    assert one.flags.aligned
        assert replay.update_priorities(found.indices, np.ones(8)) == 8
        with pytest.raises(diskreplay.SampleError, match=r"cannot draw 42 .* holds 41"):
            replay.sample(42)
        with pytest.raises(diskreplay.SchemaError, match=r"field 'state': expected shape \(3,\)"):
            replay.push(**{**row(1), "state": [0.0] * 4})
        with pickle.loads(pickle.dumps(replay)) as other:  # noqa: S301
            assert len(other) == 41


def test_a_server_that_is_closed_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with ReplayBuffer(capacity=10) as buffer, ReplayServer({"a": buffer}):
        made = set(threading.enumerate()) - before
        [thread] = [one for one in made if one.name == "diskreplay connections"]
    thread.join(PATIENCE)
    assert not thread.is_alive()


class Failing(ReplayBuffer):
    """A buffer with a fault."""

    @property
    def total_mass(self) -> float:
        """Raise an error of no class of ours."""
        raise KeyError("/secret")


def test_an_error_that_nobody_foresaw_is_told_in_a_sentence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        Failing(capacity=10) as buffer,
        ReplayServer({"a": buffer}) as server,
        diskreplay.connect(server.url) as replay,
    ):
        with pytest.raises(ServiceError, match=r"^the server failed to answer total_mass\(\)"):
            _ = replay.total_mass
        assert len(replay) == 0
    [failed] = [record for record in caplog.records if record.getMessage() == "failed"]
    assert failed.exc_info is not None
    assert str(failed.exc_info[1]) == "'/secret'"


def test_small_values_that_vary_in_size_count_with_their_description(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("diskreplay.service.outbox._LARGEST_GROUP_BYTES", 2**20)
    n = 1500
    numbers = np.zeros(n)
    words = [np.zeros(place % 3, np.int32) for place in range(n)]
    fields = [Field("state"), Field("action"), Field("reward"), Field("next_state"), Field("done")]
    schema = Schema([*fields, Field("words", np.int32, (None,), log=True)])
    limits = Limits(message_bytes=3 << 19)  # less than the description of all rows counts as
    with (
        ReplayBuffer(capacity=n, schema=schema) as buffer,
        ReplayServer({"a": buffer}, limits=limits) as server,
        diskreplay.connect(server.url) as replay,
    ):
        replay.extend(*[numbers] * 5, words=words)
        replay.flush()
        assert len(replay) == n
        assert replay.get([n - 2]).words[0].tolist() == [0, 0][: (n - 2) % 3]
        assert server.served("").groups.stored == 2


def test_a_batch_of_too_many_bytes_is_refused() -> None:
    with (
        ReplayBuffer(capacity=10) as buffer,
        ReplayServer({"a": buffer}, limits=Limits(message_bytes=100_000)) as server,
        diskreplay.connect(server.url) as replay,
    ):
        buffer.push(np.zeros(10_000, np.uint8), 0, 0.0, np.zeros(10_000, np.uint8), False)
        assert len(replay.get([0] * 4).states) == 4
        with pytest.raises(ArgumentError, match=r"at most 100 kB \(found 1.*--max-message-bytes"):
            replay.get([0] * 5)


def test_rows_are_sent_in_groups_that_the_server_takes() -> None:
    with (
        ReplayBuffer(capacity=100) as buffer,
        ReplayServer({"a": buffer}, limits=Limits(rows=7)) as server,
        diskreplay.connect(server.url) as replay,
    ):
        for number in range(60):
            replay.push(**row(number))
        replay.flush()
        assert replay.count == 60


@pytest.mark.parametrize(
    ("served", "sentence"),
    [
        (lambda buffer: buffer, "by their names"),
        (lambda buffer: {}, "by their names"),
        (lambda buffer: {"a": "runs/a"}, "'a' is no buffer"),
        (lambda buffer: {"a b": buffer}, "a name has 1 to 64"),
        (lambda buffer: {"a": buffer, "b": buffer}, "under two names"),
    ],
)
def test_a_server_takes_buffers_by_their_names(
    served: Callable[[ReplayBuffer], Any], sentence: str
) -> None:
    with ReplayBuffer(capacity=10) as buffer:
        with pytest.raises(ArgumentError, match=sentence):
            ReplayServer(served(buffer))
        buffer.push(**row(0))

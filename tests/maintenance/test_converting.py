"""convert: a store of the other kind, with the same transitions, write ids and random stream."""

from __future__ import annotations

import inspect
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from commands import run
from common import columns, contents, numbers_of
from others import Other
from stores import kept, told

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer

OTHER = {"uniform": "prioritized", "prioritized": "uniform"}
SETTINGS = ("alpha", "beta_start", "beta_end", "beta_frames", "epsilon")


def kind_of(path: Path) -> str:
    with diskreplay.open(path, access="read") as buffer:
        return str(buffer.stats()["kind"])


@pytest.mark.parametrize("make", [*stores.MAKERS, stores.empty])
def test_a_store_becomes_the_other_kind_and_goes_on(make: Any, tmp_path: Path) -> None:
    path = make(tmp_path / "s")
    before, first = kept(path), kind_of(path)
    for kind in (OTHER[first], first, OTHER[first]):
        done = diskreplay.convert(path, kind)
        assert (done.size, done.dropped) == (before[1]["size"], 0)
        assert kept(path) == before
        assert kind_of(path) == kind
        assert diskreplay.verify(path) == []
        if kind == "prioritized":
            with diskreplay.open(path, access="read") as buffer:
                ids = np.arange(buffer.first, buffer.count)
                assert set(buffer.priorities(ids).tolist()) <= {1.0}
                assert (buffer.frame, buffer.beta, buffer.max_priority) == (0, 0.4, 1.0)
    assert [entry.name for entry in path.parent.iterdir()] == ["s"]
    with diskreplay.open(path) as buffer:
        buffer.check()
        if before[1]["size"]:
            row = next(iter(buffer))
            buffer.push(*row[:5], **dict(zip(row._fields[5:], row[5:], strict=True)))
            buffer.sample(2)
        buffer.check()


@pytest.mark.parametrize("n", [0, 7, 60, 150, 2500])
def test_it_is_as_if_the_same_had_been_pushed_to_the_other_kind(n: int, tmp_path: Path) -> None:
    """Priorities and random stream too: the converted store draws what its twin draws."""
    twins = []
    for kind in (ReplayBuffer, PrioritizedReplayBuffer):
        path = tmp_path / kind.__name__
        with kind(2000, seed=5, path=path, commit_interval=1e9) as buffer:
            for first in range(0, n, 50):
                buffer.extend(**columns(first, min(50, n - first)))
        twins.append(path)
    diskreplay.convert(twins[0], "prioritized")
    results = []
    for path in twins:
        with diskreplay.open(path) as buffer:
            assert isinstance(buffer, PrioritizedReplayBuffer)
            ids = np.arange(buffer.first, buffer.count)
            drawn: list[Any] = [buffer.priorities(ids).tolist(), buffer.max_priority]
            for step in range(10 if n else 0):
                batch = buffer.sample(5)
                buffer.update_priorities(batch.indices, batch.rewards)
                buffer.push(*(column[0] for column in columns(n + step, 1).values()))
                drawn += [batch.indices.tolist(), batch.weights.tolist(), buffer.total_mass]
            buffer.check()
            stats = buffer.stats()
            results.append([drawn, [stats[name] for name in (*SETTINGS, "beta", "frame")]])
    assert results[0] == results[1]


def test_settings_are_those_of_the_constructor(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    diskreplay.convert(path, "prioritized")
    parameters = inspect.signature(PrioritizedReplayBuffer).parameters
    with diskreplay.open(path) as buffer:
        for name in SETTINGS:
            assert buffer.stats()[name] == parameters[name].default
    diskreplay.convert(path, "uniform")
    given: dict[str, Any] = {
        "alpha": 0.25, "beta_start": 0.5, "beta_end": 0.75, "beta_frames": 9, "epsilon": 0.125
    }  # fmt: skip
    diskreplay.convert(path, "prioritized", **given)
    with diskreplay.open(path) as buffer:
        assert isinstance(buffer, PrioritizedReplayBuffer)
        assert {name: buffer.stats()[name] for name in SETTINGS} == given
        assert buffer.total_mass == pytest.approx(300 * 1.125**0.25, rel=1e-12)


def test_what_is_wrong_is_refused_and_changes_nothing(tmp_path: Path, other: Other) -> None:
    path = stores.uniform(tmp_path / "b")
    before = contents(path)
    refused: list[tuple[type[Exception], str, str, dict[str, Any]]] = [
        (diskreplay.ArgumentError, "one of uniform, prioritized .*'both'", "both", {}),
        (diskreplay.MismatchError, "is uniform already", "uniform", {}),
        (diskreplay.ArgumentError, "'alpha' is no setting of a uniform", "uniform", {"alpha": 1}),
        (diskreplay.ArgumentError, "'gamma' is no setting.* alpha", "prioritized", {"gamma": 1}),
        (diskreplay.ArgumentError, "alpha must be a number", "prioritized", {"alpha": 7}),
        (diskreplay.ArgumentError, "epsilon must be", "prioritized", {"epsilon": 0}),
    ]
    for error, message, kind, settings in refused:
        with pytest.raises(error, match=message):
            diskreplay.convert(path, kind, **settings)
        assert contents(path) == before
    with (
        diskreplay.open(path, access="read"),
        pytest.raises(diskreplay.LockedError, match="in this process"),
    ):
        diskreplay.convert(path, "prioritized")
    with pytest.raises(diskreplay.NotAStoreError):
        diskreplay.convert(tmp_path / "nothing", "prioritized")
    diskreplay.convert(path, "prioritized")
    other.open(300)
    with pytest.raises(diskreplay.LockedError, match=f"held by pid {other.process.pid}"):
        diskreplay.convert(path, "uniform")


def test_the_errors_name_the_call_and_the_command_that_help(tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "b")
    twin = shutil.copytree(path, tmp_path / "c")

    def opened(**arguments: Any) -> PrioritizedReplayBuffer:
        return PrioritizedReplayBuffer(300, **arguments)

    def loaded() -> PrioritizedReplayBuffer:
        buffer = opened()
        buffer.load(path)
        return buffer

    for call in (partial(opened, path=path), loaded):
        with pytest.raises(diskreplay.MismatchError) as refused:
            call()
        sentence = str(refused.value)
        assert f"with diskreplay.convert({str(path)!r}, 'prioritized')" in sentence
        assert f'"diskreplay convert {path} --to prioritized"' in sentence
        assert call is loaded or "load()" not in sentence
    diskreplay.convert(path, "prioritized")
    for call in (partial(opened, path=path), loaded):
        with call() as buffer:
            assert len(buffer) == 300
    run("convert", twin, "--to", "prioritized")
    assert told(twin)[1:] == told(path)[1:]


# The command


def test_the_command(tmp_path: Path) -> None:
    path, empty = stores.uniform(tmp_path / "s"), stores.empty(tmp_path / "empty")
    convert = partial(run, "convert")
    done = convert(path, "--to", "prioritized", "--alpha", 0.7, "--beta-frames", 50)
    assert done.stdout.startswith(f"{path}: prioritized; 300 transitions\ndata file: ")
    with diskreplay.open(path) as buffer:
        stats = buffer.stats()
        assert (stats["alpha"], stats["beta_frames"], stats["epsilon"]) == (0.7, 50, 1e-6)
    done = convert(path, "--to", "uniform", input="n\n", status=1)
    assert "Drop the priorities of 300 transitions" in done.output
    assert kind_of(path) == "prioritized"
    convert(path, "--to", "uniform", "--yes")
    assert kind_of(path) == "uniform"
    for arguments, said, status in [
        (("--to", "uniform"), "is uniform already", 1),
        (("--to", "uniform", "--alpha", 1), "'alpha' is no setting of a uniform store", 1),
        (("--to", "both"), "'both' is not one of", 2),
        ((), "Missing option '--to'", 2),
    ]:
        assert said in convert(path, *arguments, status=status).stderr
    for kind in ("prioritized", "uniform"):  # nothing to ask about
        convert(empty, "--to", kind)
    with diskreplay.open(empty) as buffer:
        buffer.extend(**columns(0, 5))
        assert numbers_of(buffer.get(range(5))).tolist() == list(range(5))

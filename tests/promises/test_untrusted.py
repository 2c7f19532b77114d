"""A store from a stranger gives an error of ours or a sound buffer: no crash, no bomb, no hang."""

from __future__ import annotations

import contextlib
import io
import resource
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from changed_values import Mutation
from children import in_child
from common import columns
from diskreplay_tools.cli import main
from untrusted import BYTES, VALUES

import diskreplay
from diskreplay import DiskReplayError, PrioritizedReplayBuffer, ReplayBuffer

MIB = 300
SECONDS = 10
CAPACITY = 60
LZ4 = "lz4" if find_spec("lz4") is not None else None


def originals(place: Path) -> list[Path]:
    """A store of each kind, one with records of several pages, and three with a log."""
    with ReplayBuffer(capacity=CAPACITY, path=place / "uniform", seed=1) as buffer:
        buffer.extend(*columns(0, 100).values())
    with PrioritizedReplayBuffer(capacity=CAPACITY, path=place / "prioritized", seed=1) as buffer:
        for first in range(0, 100, 20):
            buffer.extend(*columns(first, 20).values(), priorities=np.arange(20))
            buffer.sample(4)
            buffer.flush()
    with ReplayBuffer(capacity=CAPACITY, path=place / "large", seed=1) as buffer:
        states = np.zeros((70, 1500), np.float32)
        buffer.extend(states, np.zeros(70), np.zeros(70), states, np.zeros(70))
    for name, codec in (("logged", None), ("compressed", LZ4)):
        with ReplayBuffer(
            CAPACITY, path=place / name, seed=1, observations="log", codec=codec
        ) as buffer:
            for first in range(0, 140, 20):
                buffer.extend(*columns(first, 20).values())
                buffer.flush()
    state = diskreplay.Field("state", "float32", (None,), codec=LZ4)
    with ReplayBuffer(CAPACITY, path=place / "varying", seed=1, schema={"state": state}) as buffer:
        for first in range(0, 140, 20):
            buffer.extend(*columns(first, 20).values())
            buffer.flush()
    with PrioritizedReplayBuffer(
        CAPACITY, path=place / "marked", seed=1, observations="log", keep_rows=30
    ) as buffer:
        for name in "abcd":
            buffer.extend(*columns(buffer.count, 25).values(), priorities=np.arange(25))
            buffer.set_note(name, {"count": buffer.count})
            buffer.mark(name, {"network": name})
            buffer.update_priorities([buffer.first], [3.0])
        buffer.rewind("c")
        buffer.extend(*columns(buffer.count, 30).values())
    names = ("uniform", "prioritized", "large", "logged", "compressed", "varying", "marked")
    return [place / name for name in names]


def attempt(step: Callable[[], Any], found: list[str]) -> Any:
    """Return what a step returns; where it raises, note the name of the error."""
    try:
        return step()
    except DiskReplayError as error:
        # No argument of ours is out of its range: what is stored is. There may be little memory.
        is_blamed = isinstance(error, diskreplay.ArgumentError) and "of memory" not in str(error)
        is_wrong = is_blamed or not str(error).isprintable()
        found.append(f"WRONG {error!r}" if is_wrong else type(error).__name__)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in last if "/diskreplay" in frame.filename][-1]
        where = f"{Path(ours.filename).name}:{ours.name}"
        found.append(f"WRONG {type(error).__name__} {where}: {error!s:.200}")
    return None


def use(opened: Callable[[], Any]) -> list[str]:
    """Use a buffer in every way; return the names of the errors that it gave."""
    found: list[str] = []
    buffer = attempt(opened, found)
    if buffer is not None:
        steps: list[Callable[[], Any]] = [
            lambda: len(buffer),
            lambda: repr(buffer) + str(buffer.stats()),
            lambda: buffer.sample(8),
            lambda: [None for _, _ in zip(range(200), buffer, strict=False)],
            buffer.check,
            lambda: buffer.get(np.arange(max(0, buffer.count - 3), buffer.count)),
            lambda: buffer.push([0.0] * 3, 0, 0.0, [0.0] * 3, False),
            lambda: buffer.sample(8),
            lambda: [str(mark) for mark in buffer.marks()],
            lambda: buffer.mark("new"),
            lambda: [buffer.rewind(mark.name, "drop") for mark in buffer.marks()[:-1]],
            lambda: buffer.sample(8),
            lambda: [buffer.delete_mark(mark.name) for mark in buffer.marks()],
            lambda: [buffer.delete_note(name) for name in buffer.notes()],
            lambda: buffer.set_note("new", 1),
            buffer.flush,
            buffer.close,
        ]
        for step in steps:
            attempt(step, found)
        with contextlib.suppress(Exception):
            if not buffer._guard.closed:
                buffer._guard._close_store(sync=False)
    return found


def opening(path: Path, original: Path) -> str:
    """Open a store in all ways, each in its turn; return what came of it."""
    faults = diskreplay.verify(path)
    said: list[str] = []
    victim = path.parent / "victim"
    before = victim.read_bytes() if victim.exists() else b""
    ways: list[Callable[[], Any]] = [
        lambda: diskreplay.open(path, access="read"),
        lambda: ReplayBuffer(CAPACITY, path=path),
        lambda: PrioritizedReplayBuffer(CAPACITY, path=path),
        lambda: diskreplay.open(path, access="shared"),
        lambda: diskreplay.open(path),
    ]
    for way in ways:
        said += use(way)
    if not faults and "DamageError" in said:
        said.append("WRONG verify found nothing")
    try:
        diskreplay.repair(path, path.parent / "repaired")
        left = diskreplay.verify(path.parent / "repaired")
        said += [f"WRONG {fault}" for fault in left]
    except DiskReplayError as error:
        said.append(type(error).__name__)
    if victim.exists() and victim.read_bytes() != before:
        said.append("WRONG a file elsewhere was changed")
    return "; ".join(said)


def elsewhere(path: Path, original: Path) -> str:
    """Hand a store to all that takes one; return what came of it."""
    out = path.parent
    kind = PrioritizedReplayBuffer if original.name == "prioritized" else ReplayBuffer

    def load() -> None:
        with kind(CAPACITY) as buffer:
            buffer.load(path)

    steps: list[Callable[[], Any]] = [
        load,
        lambda: diskreplay.merge([original, path], out / "merged"),
        lambda: diskreplay.merge([path, original], out / "mixed", order="interleaved"),
        lambda: command("inspect", path),
        lambda: command("inspect", path, "--json"),
        lambda: command("inspect", path, "--at", "95"),
        lambda: command("schema", path),
        lambda: command("verify", path, "--deep"),
        lambda: command("export", path, out / "exported.jsonl"),
        lambda: command("report", path, "-o", out / "report.html"),
        lambda: command("copy", path, out / "copy"),
        lambda: diskreplay.resize(path, CAPACITY // 2),
        lambda: diskreplay.compact(path),
    ]
    said: list[str] = []
    for step in steps:
        attempt(step, said)
    for made in ("merged", "mixed"):
        if (out / made).exists():
            said += [f"WRONG {fault}" for fault in diskreplay.verify(out / made)]
    return "; ".join(said)


def command(*words: object) -> None:
    """Run a command, and look whether it says anything that would command the terminal."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main(list(map(str, words)), standalone_mode=False)
        except click.ClickException as error:
            out.write(error.message)
        except click.exceptions.Exit:
            pass
    raw = [line for line in out.getvalue().split("\n") if not line.isprintable()]
    if raw:
        raise ValueError(f"raw: {raw[:3]}")


Trial = Callable[[Path, Path], str]


@pytest.fixture(autouse=True)
def any_capacity() -> Iterator[None]:
    """A store may say that it will be larger than the disk."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", diskreplay.DiskSpaceWarning)
        yield


def measured(trial: Trial, path: Path, original: Path) -> tuple[str, float, float]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.monotonic()
    said = trial(path, original)
    seconds = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return said, (after - before) / 1024, seconds


def mutate(original: Path, place: Path, mutation: Mutation, seed: int) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    store = place / "store"
    shutil.copytree(original, store)
    mutation[1](store, np.random.default_rng(seed))
    return store


def run(
    mutations: list[Mutation], rounds: int, tmp_path: Path, trial: Trial = opening
) -> list[str]:
    """Try mutations in turn; return a line for each that went wrong."""
    stores = originals(tmp_path)
    wrong = []
    for seed in range(rounds):
        mutation = mutations[seed % len(mutations)]
        original = stores[(seed + seed // len(mutations)) % len(stores)]  # each meets all in turn
        store = mutate(original, tmp_path / "mutated", mutation, seed)
        outcome = in_child(partial(measured, trial, store, original), seconds=3 * SECONDS)
        what = f"{mutation[0]}, seed {seed}, {original.name}"
        if outcome.failure or "WRONG" in outcome.value[0]:
            wrong.append(f"{what}: {outcome.failure or outcome.value[0]}")
        elif outcome.value[1] > MIB or outcome.value[2] > SECONDS:
            wrong.append(f"{what}: {outcome.value}")
    return wrong


@pytest.mark.parametrize("mutations", [BYTES, VALUES], ids=["bytes", "values"])
def test_a_mutated_store_is_refused_or_sound(
    mutations: list[Mutation], tmp_path: Path, long: bool
) -> None:
    assert run(mutations, 5000 if long else 4 * len(mutations), tmp_path) == []


def test_a_store_from_a_stranger_can_be_handed_to_all_that_takes_one(
    tmp_path: Path, long: bool
) -> None:
    assert run(VALUES, 3000 if long else len(VALUES), tmp_path, elsewhere) == []

"""The protocol is what both buffers can do; that their types fit, mypy says in static.py."""

from __future__ import annotations

import importlib.util
import inspect
import os
from typing import Any

import pytest

from diskreplay import Mixture, PrioritizedReplayBuffer, RateLimited, ReplayBuffer
from diskreplay.protocols import Replay

# What is not for every Replay: path, runs, marks and notes of a store, and to replace what others
# work with.
OWN = {
    "path", "runs_of", "load", "mark", "marks", "delete_mark", "rewind", "set_note", "notes",
    "delete_note",
}  # fmt: skip


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_the_protocol_is_what_both_buffers_can_do() -> None:
    assert public(Replay) == (public(ReplayBuffer) & public(PrioritizedReplayBuffer)) - OWN


KINDS: dict[type, set[str]] = {
    ReplayBuffer: public(Replay),
    PrioritizedReplayBuffer: public(Replay),
    RateLimited: public(Replay),
    # It draws from others, and its write ids are those of several.
    Mixture: public(Replay) & public(Mixture),
}

if all(map(importlib.util.find_spec, ("pyarrow", "prometheus_client"))):
    from diskreplay.service.client import RemotePrioritizedReplayBuffer, RemoteReplayBuffer

    KINDS[RemoteReplayBuffer] = KINDS[RemotePrioritizedReplayBuffer] = public(Replay)

if os.environ.get("DISKREPLAY_TEST_RAY") and importlib.util.find_spec("ray"):
    from diskreplay.adapters.ray_shards import PrioritizedShardedReplay, ShardedReplay

    KINDS[ShardedReplay] = KINDS[PrioritizedShardedReplay] = public(Replay)


def test_a_mixture_can_do_what_needs_no_write_ids() -> None:
    assert KINDS[Mixture] >= {
        "sample", "sample_sequences", "batches", "draw", "is_ready", "schema", "stats", "check",
        "refresh", "flush", "close",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=f"{kind.__name__}-{name}")
        for kind, names in KINDS.items()
        for name in sorted(names)
    ],
)
def test_a_kind_takes_what_the_protocol_says(kind: Any, name: str) -> None:
    wanted, found = getattr(Replay, name), getattr(kind, name)
    assert isinstance(found, property) == isinstance(wanted, property)
    assert inspect.getdoc(found)
    if not isinstance(wanted, property):
        asked = inspect.signature(wanted).parameters
        given = inspect.signature(found).parameters
        by_name = {n for n, parameter in asked.items() if parameter.kind is parameter.KEYWORD_ONLY}
        names = [n for n in asked if n not in {"extra", *by_name}]
        assert list(given)[: len(names)] == names
        assert by_name <= given.keys()

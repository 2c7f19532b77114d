"""Damaged blocks of slot tables: each error names the block, the fault, the store, a way out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from changed_values import number_key, put, values
from common import columns

import diskreplay
from diskreplay import DamageError, PrioritizedReplayBuffer, samplers
from diskreplay.records.seals import seal

TABLES = {"priorities": "priority block", "links": "link block"}
DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "flipped": (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "is damaged: its bytes are not"),
    "short": (lambda _: seal(0, b"123"), r"has 3 bytes \(expected 4,000\)"),
    "no bytes": (lambda _: seal(0, 7), "holds no bytes"),
}
WAY_OUT = (
    r"restore the store from a copy, or copy what can be read of it with diskreplay.repair\(\)"
)


def other() -> Any:
    return PrioritizedReplayBuffer(1000)


CALLS: dict[str, Callable[[Path, Path], Any]] = {
    "open": lambda path, _: diskreplay.open(path),
    "open shared": lambda path, _: diskreplay.open(path, access="shared"),
    "load": lambda path, _: other().load(path),
    "resize": lambda path, _: diskreplay.resize(path, 1400),
    "merge": lambda path, out: diskreplay.merge([path], out),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "s"
    with PrioritizedReplayBuffer(2000, path=path, sampler=samplers.AtMost(2)) as buffer:
        buffer.extend(**columns(0, 1500))
        buffer.sample(4)
    return path


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("table", TABLES)
def test_the_error_names_the_way_out(
    sound: Path, table: str, damage: str, call: str, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    shutil.copytree(sound, path)
    spoil, told = DAMAGE[damage]
    put(path, table, {number_key(0): spoil(values(path, table)[number_key(0)])})
    message = f"^{TABLES[table]} 0 {told}.*, in {re.escape(str(path))}: {WAY_OUT}$"
    with pytest.raises(DamageError, match=message):
        CALLS[call](path, tmp_path / "out")


@pytest.mark.parametrize("damage", DAMAGE)
def test_draw_counts_begin_anew_without_their_sampler(
    sound: Path, damage: str, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    shutil.copytree(sound, path)
    spoil, told = DAMAGE[damage]
    put(path, "draw_counts", {number_key(0): spoil(values(path, "draw_counts")[number_key(0)])})
    way_out = "open the store without this sampler, and draw once: counting then begins anew"
    message = f"^block of draw counts 0 {told}.*, in {re.escape(str(path))}: {way_out}$"
    with pytest.raises(DamageError, match=message):
        diskreplay.open(path, sampler=samplers.AtMost(2))
    with diskreplay.open(path) as buffer:
        buffer.sample(1)
    with diskreplay.open(path, sampler=samplers.AtMost(2)) as buffer:
        assert buffer.total_mass == 1500
        buffer.sample(4)
    assert diskreplay.verify(path) == []

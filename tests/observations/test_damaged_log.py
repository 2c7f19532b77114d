"""Damaged and hostile logs: an error that names the transition, never another observation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from logs import flip, ids_in, log_of, set_id
from stores import change, logged, stored

import diskreplay
from diskreplay import DamageError
from diskreplay.records import entries_in, entry_of, pack


@pytest.mark.parametrize("observation_id", [-1, -(2**63), 2**63 - 1, 10**6, 0])
@pytest.mark.parametrize("window_bytes", [0, 1 << 20])
def test_an_id_that_is_not_in_the_log_is_damage(
    observation_id: int, window_bytes: int, tmp_path: Path
) -> None:
    path = logged(tmp_path / "s")
    set_id(path, 950, observation_id)
    words = rf"write id 950 in slot 150 is damaged: .*observation {observation_id} is damaged"
    with diskreplay.open(path, access="read", window_bytes=window_bytes) as buffer:
        for ids in ([950], range(940, 960)):
            with pytest.raises(DamageError, match=words):
                buffer.get(ids)
        with pytest.raises(DamageError, match=f"observation {observation_id} is damaged"):
            buffer.check()
    [fault] = diskreplay.verify(path)
    assert fault.startswith(f"the record of write id 950 refers to observation {observation_id}, ")


def test_an_entry_of_another_size_is_damage(tmp_path: Path) -> None:
    path = logged(tmp_path / "s")
    [state, _] = ids_in(path, 950)
    key, n = divmod(state, log_of(path)[2])
    entries = [bytes(entry) for entry in entries_in(stored(path, "observations", key))]
    for content in (b"", bytes(11), bytes(13)):
        entries[n] = entry_of(state, content)
        change(path, "observations", key, pack(entries))
        words = rf"the entry of observation {state} is damaged: it has {len(content)} bytes"
        with (
            diskreplay.open(path, access="read") as buffer,
            pytest.raises(DamageError, match=rf"write id 950 .*: {words} \(expected 12\)"),
        ):
            buffer.get([950])
        assert diskreplay.verify(path) == [f"{words} (expected 12)"]


def test_damaged_rows_are_left_out_of_batches_where_that_is_asked(tmp_path: Path) -> None:
    path = logged(tmp_path / "s")
    for write_id in range(900, 1000):
        flip(path, ids_in(path, write_id)[0])
    with diskreplay.open(path, on_damage="skip", window_bytes=0) as buffer:
        drawn = np.concatenate([buffer.sample(32).indices for _ in range(20)])
        assert set(drawn.tolist()) <= set(range(800, 900))
        assert buffer.stats()["damaged"] > 50


def test_a_log_without_a_sound_record_is_checked(tmp_path: Path) -> None:
    path = logged(tmp_path / "s")
    for key in range(20):
        value = stored(path, "transitions", key)
        change(path, "transitions", key, bytes(len(value)))
    words = "write id 800 in slot 0 is damaged: it is missing"
    with (
        diskreplay.open(path, access="read") as buffer,
        pytest.raises(DamageError, match=words),
    ):
        buffer.check()

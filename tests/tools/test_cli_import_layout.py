"""The command `import`: observations stay in the log, or go where the options say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from commands import run
from exported import refused

import diskreplay
from diskreplay import ReplayBuffer


def test_a_log_stays_a_log_and_options_choose_another_place(tmp_path: Path) -> None:
    frames = np.arange(7 * 4 * 4, dtype=np.uint8).reshape(7, 4, 4)
    stacks = np.stack([frames[at : at + 3] for at in range(5)])
    with ReplayBuffer(10, path=tmp_path / "a", frame_axis=0) as buffer:
        buffer.extend(stacks[:-1], np.zeros(4), np.ones(4), stacks[1:], np.zeros(4, bool))
        logged = buffer.schema
    run("export", tmp_path / "a", tmp_path / "a.npz")
    run("import", tmp_path / "a.npz", tmp_path / "same")
    run("import", tmp_path / "a.npz", tmp_path / "whole", "--observations", "record")
    run("import", tmp_path / "a.npz", tmp_path / "one", "--observations", "log")
    found = {}
    for name in ("same", "whole", "one"):
        with diskreplay.open(tmp_path / name, access="read") as buffer:
            found[name] = buffer.schema
            assert np.array_equal(buffer.get(range(4)).next_states, stacks[1:])
    assert found["same"] == logged
    assert found["whole"]["state"] == diskreplay.Field("state", "uint8", (3, 4, 4))
    assert found["one"]["state"] == diskreplay.Field("state", "uint8", (3, 4, 4), log=True)


def test_states_of_any_file_go_to_a_log_where_asked(tmp_path: Path) -> None:
    file, states = tmp_path / "x.npz", np.arange(48, dtype=np.float32).reshape(6, 2, 4)
    columns = {"state": states, "action": range(6), "reward": range(6)}
    np.savez(file, **columns, next_state=states + 1, done=np.zeros(6, bool))
    run("import", file, tmp_path / "new", "--frame-axis", 0)
    with diskreplay.open(tmp_path / "new") as buffer:
        assert buffer.schema["next_state"].frame_axis == 0
        assert np.array_equal(buffer.get(range(6)).states, states)
    told = refused(tmp_path / "b", file, "--frame-axis", 0, "--observations=record")
    assert "for observations in the log" in told

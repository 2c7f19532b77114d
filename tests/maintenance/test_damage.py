"""Damaged records met while sampling: reported, or left out; and what is checked on opening."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import columns, numbers_of, run_python
from others import Other
from stores import change, spoil

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.store import known_note
from diskreplay.store.known_note import is_known

KINDS = [ReplayBuffer, PrioritizedReplayBuffer]


@pytest.mark.parametrize("access", ["exclusive", "shared", "read"])
@pytest.mark.parametrize("kind", KINDS)
def test_skip_draws_all_but_the_damaged(kind: Any, access: str, tmp_path: Path) -> None:
    with kind(50, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 80))
    bad = [3, 30, 31, 49]  # write ids 53, 30, 31 and 49
    spoil(tmp_path / "b", bad)
    sound = set(range(30, 80)) - {53, 30, 31, 49}
    with diskreplay.open(tmp_path / "b", access=access, window_bytes=0, seed=1) as buffer:

        def until_refused(buffer: Any = buffer) -> None:
            for _ in range(50):
                buffer.sample(20)

        with pytest.raises(diskreplay.DamageError, match=r"write id \d+ in slot \d+ is damaged"):
            until_refused()
        assert buffer.stats()["damaged"] == 0
    with diskreplay.open(
        tmp_path / "b", access=access, window_bytes=0, seed=1, on_damage="skip"
    ) as buffer:
        drawn: set[int] = set()
        for _ in range(200):
            numbers = numbers_of(buffer.sample(20)).tolist()
            drawn |= set(numbers)
            if kind is ReplayBuffer:
                assert len(set(numbers)) == 20
        assert drawn == sound
        assert buffer.stats()["damaged"] == 4
        with pytest.raises(diskreplay.DamageError, match="write id 53 in slot 3"):
            buffer.get([53])
        with pytest.raises(diskreplay.DamageError):
            list(buffer)
        if isinstance(buffer, PrioritizedReplayBuffer) and access != "read":
            buffer.update_priorities([53, 54], [1000.0, 1.0])
            assert set(numbers_of(buffer.sample(20)).tolist()) <= sound
            buffer._table.check(buffer._live)
        if kind is ReplayBuffer:
            assert set(numbers_of(buffer.sample(46)).tolist()) == sound
            with pytest.raises(diskreplay.SampleError, match=r"47 .* of 50, of which damaged: 4"):
                buffer.sample(47)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_that_is_written_over_is_drawn_again(kind: Any, tmp_path: Path) -> None:
    with kind(10, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 10))
    spoil(tmp_path / "b", [0, 4])
    with kind(10, path=tmp_path / "b", window_bytes=0, on_damage="skip") as buffer:
        for _ in range(20):
            numbers_of(buffer.sample(8))
        buffer.extend(**columns(10, 3))
        drawn = {n for _ in range(100) for n in numbers_of(buffer.sample(8)).tolist()}
        assert drawn == set(range(3, 13)) - {4}
        buffer.extend(**columns(13, 7))
        buffer.flush()
        buffer.check()


def test_when_all_are_damaged_there_is_nothing_to_draw(tmp_path: Path) -> None:
    for kind in KINDS:
        path = tmp_path / kind.__name__
        with kind(10, path=path) as buffer:
            buffer.extend(**columns(0, 5))
        spoil(path, list(range(5)))
        buffer = kind(10, path=path, window_bytes=0, on_damage="skip")
        with pytest.raises(diskreplay.SampleError):
            buffer.sample(1)
        buffer.close()


def test_a_file_with_damaged_pages_is_refused_before_the_engine_dies_of_it(tmp_path: Path) -> None:
    with ReplayBuffer(1000, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 1000))
    file = tmp_path / "b" / "data.mdb"
    sound = file.read_bytes()
    refused = 0
    for page in range(2, len(sound) // 4096):
        spoilt = bytearray(sound)
        spoilt[page * 4096 : (page + 1) * 4096] = bytes(4096)
        file.write_bytes(spoilt)
        try:
            diskreplay.open(tmp_path / "b").close()
        except diskreplay.DamageError as error:
            message = str(error)
            refused += f"page {page}" in message and "diskreplay.repair(" in message
    assert refused > 20  # the others are free
    file.write_bytes(sound)
    with diskreplay.open(tmp_path / "b") as buffer:
        assert len(buffer) == 1000


def test_a_store_is_walked_only_when_it_was_changed_by_others(tmp_path: Path) -> None:
    code = """
        import sys, diskreplay, diskreplay.store.trust
        from common import columns
        walk = diskreplay.store.trust.structural_faults
        walks = []
        def counted(data, meta):
            walks.append(data)
            return walk(data, meta)
        diskreplay.store.trust.structural_faults = counted
        buffer = diskreplay.open(sys.argv[1])
        assert len(buffer) == 1000
        buffer.extend(**columns(1000, 10))
        buffer.flush()
        print(len(walks), flush=True)
        import os
        if sys.argv[2] == "kill":
            os._exit(9)
        if sys.argv[2] == "kill in a commit":
            buffer.extend(**columns(1010, 10))
            with buffer._guard.replica.store.transaction():
                os.utime(buffer.path / "data.mdb")  # it has been changed, and more was to come
                os._exit(9)
    """
    with ReplayBuffer(1000, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 1000))

    def walks(path: Path, how: str = "") -> int:
        return int(run_python(code, path, how, check=False).stdout)

    assert walks(tmp_path / "b") == 0
    assert walks(tmp_path / "b", "kill") == 0
    assert walks(tmp_path / "b") == 0
    assert walks(tmp_path / "b", "kill in a commit") == 0
    marked = (tmp_path / "b" / "data.known").read_bytes()
    shutil.copytree(tmp_path / "b", tmp_path / "killed")
    assert walks(tmp_path / "killed") == 1
    assert walks(tmp_path / "b") == 0
    boot = marked.split()[0]
    (tmp_path / "b" / "data.known").write_bytes(marked.replace(boot, boot[::-1]))
    assert walks(tmp_path / "b") == 1  # what a power failure left
    shutil.copytree(tmp_path / "b", tmp_path / "copy")
    assert walks(tmp_path / "copy") == 1
    assert walks(tmp_path / "copy") == 0
    os.utime(tmp_path / "copy" / "data.mdb")
    assert walks(tmp_path / "copy") == 1
    with diskreplay.open(tmp_path / "b") as buffer:
        buffer.save(tmp_path / "saved")
        buffer.extend(**columns(0, 20))
        os.utime(tmp_path / "b" / "data.mdb")
        reader = """
            import sys, diskreplay
            from diskreplay.store import trust
            walk, walks = trust.structural_faults, []
            trust.structural_faults = lambda *what: walks.append(what) or walk(*what)
            diskreplay.open(sys.argv[1], access="read").sample(10)
            print(len(walks))
        """
        assert int(run_python(reader, tmp_path / "b").stdout) == 1  # company is no reason to trust
    assert walks(tmp_path / "saved") == 0


def test_a_missing_record_is_damage_at_once(tmp_path: Path) -> None:
    with ReplayBuffer(100, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 60))
    change(tmp_path / "b", "transitions", 5, None)
    with pytest.raises(diskreplay.DamageError, match=r"has 5 groups .*\(expected 6 or more"):
        diskreplay.open(tmp_path / "b")


def test_priorities_of_the_damaged_count_again_after_reopening(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 10), priorities=np.arange(10) + 1.0)
    spoil(tmp_path / "b", [9])
    with PrioritizedReplayBuffer(
        10, path=tmp_path / "b", window_bytes=0, on_damage="skip"
    ) as buffer:
        for _ in range(10):
            buffer.sample(4)
        assert buffer.stats()["damaged"] == 1
        assert buffer._table.tree.masses([9]) == [0.0]
    with diskreplay.open(tmp_path / "b") as buffer:
        assert isinstance(buffer, PrioritizedReplayBuffer)
        assert buffer.stats()["priority_max"] == 10.0


@pytest.mark.parametrize("access", ["shared", "read"])
def test_one_that_follows_draws_what_others_put_over_a_damaged_record(
    access: str, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    with PrioritizedReplayBuffer(10, path=path) as buffer:
        buffer.extend(**columns(0, 10))
    spoil(path, [4])
    with diskreplay.open(path, access=access, window_bytes=0, on_damage="skip") as buffer:
        for _ in range(10):
            buffer.sample(9)
        assert buffer.stats()["damaged"] == 1
        with Other(path) as other:
            other.open(10, access="shared" if access == "shared" else "exclusive")
            other.extend(10, 5)
            other.flush()
            drawn = {n for _ in range(20) for n in numbers_of(buffer.sample(9)).tolist()}
        assert drawn == set(range(5, 15))
        buffer.check()


def test_a_change_by_others_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "b"
    buffer = ReplayBuffer(100, path=path)
    buffer.extend(**columns(0, 50))
    buffer.flush()
    assert is_known(path)
    os.utime(path / "data.mdb")  # somebody was at it
    buffer.extend(**columns(50, 10))
    buffer.close()
    assert not is_known(path)
    ReplayBuffer(100, path=path).close()  # walked
    assert is_known(path)


def test_with_durability_process_a_file_is_known_until_the_machine_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for durability, lasts in (("process", False), ("system", True), ("full", True)):
        path = tmp_path / durability
        with ReplayBuffer(100, path=path, durability=durability) as buffer:
            buffer.extend(**columns(0, 50))
        assert is_known(path)
        with monkeypatch.context() as patch:
            patch.setattr(known_note, "_boot", lambda: b"another")
            assert is_known(path) is lasts

"""Large rows, which are read field by field: damage among them, and what the window holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pixels
import pytest
from drawn import KINDS
from inside import replica_of
from pixels import ALONE, CAPACITY, COUNT, GROUPED, SMALL, WIDTHS
from stores import change, spoil, stored

import diskreplay
from diskreplay import DamageError, PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.buffer.window_layout import MIN_ROWS

LIVE = np.arange(COUNT - CAPACITY, COUNT)
KEYS = {"bytes": 10, "missing": 20, "short": 25, "empty": 5}  # of the values that are damaged


def damaged(kind: Any, path: Path, width: int) -> dict[int, str]:
    """Make a store, damage some records in different ways, and return why, by write id."""
    with pixels.filled(kind, path, width) as buffer:
        size, per_value = pixels.record_bytes(buffer), pixels.records_per_value(buffer)
    slots = {name: key * per_value for name, key in KEYS.items()}
    spoil(path, [slots["bytes"]], size)
    change(path, "transitions", KEYS["missing"], b"")
    whole = stored(path, "transitions", KEYS["short"])
    change(path, "transitions", KEYS["short"], whole[:-1])
    empty = bytearray(stored(path, "transitions", KEYS["empty"]))
    empty[:size] = bytes(size)  # a slot that was never written
    change(path, "transitions", KEYS["empty"], bytes(empty))
    reasons = {slots["bytes"]: "its checksum does not match its bytes"}
    reasons[slots["empty"]] = "it is missing"
    reasons.update((slots["missing"] + i, "it is missing") for i in range(per_value))
    short = slots["short"] + per_value - 1
    reasons[short] = f"it has {size - 1:,} bytes (expected {size:,})"
    write_id_in = dict(zip((LIVE % CAPACITY).tolist(), LIVE.tolist(), strict=True))
    return {write_id_in[slot]: reason for slot, reason in reasons.items()}


@pytest.mark.parametrize("width", WIDTHS)
def test_each_kind_of_damage_is_reported_wherever_rows_are_read(width: int, tmp_path: Path) -> None:
    path = tmp_path / "b"
    reasons = damaged(ReplayBuffer, path, width)
    with diskreplay.open(path, window_bytes=0) as buffer:
        for write_id, reason in reasons.items():
            slot = write_id % CAPACITY
            message = f"the record of write id {write_id} in slot {slot} is damaged: {reason}, in "
            match = f"^{re.escape(message + str(path))}: on_damage='skip' draws batches without it"
            near = [int(LIVE[-1]), write_id, int(LIVE[0])]
            for fields in (None, ["reward"], ["next_state", "mask"]):
                with pytest.raises(DamageError, match=match):
                    buffer.get(near, fields)
        out = pixels.first_sound(buffer, 4)
        met = set()
        for _ in range(300):
            met.update(re.findall(r"write id (\d+)", tried(buffer, out)))
        assert met <= set(map(str, reasons))
        assert len(met) > 3
        sound = np.setdiff1d(LIVE, [*reasons])
        pixels.check(buffer.get(sound))
        with pytest.raises(DamageError, match="write id"):
            list(buffer)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("access", ["exclusive", "shared", "read"])
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_rows_are_left_out_also_with_out(
    kind: Any, access: str, width: int, tmp_path: Path
) -> None:
    for name in ("b", "twin"):
        reasons = damaged(kind, tmp_path / name, width)
    arguments: dict[str, Any] = {"access": access, "window_bytes": 0, "seed": 1}
    with (
        diskreplay.open(tmp_path / "b", on_damage="skip", **arguments) as buffer,
        diskreplay.open(tmp_path / "twin", on_damage="skip", **arguments) as twin,
    ):
        seen: set[int] = set()
        out = buffer.sample(30)
        twin.sample(30)
        sound = set(LIVE.tolist()) - reasons.keys()
        for _ in range(500):
            assert buffer.sample(30, out=out) is out
            expected = twin.sample(30)
            for name in (*out._fields, "indices"):
                assert getattr(out, name).tobytes() == getattr(expected, name).tobytes()
            pixels.check(out)
            seen.update(out.indices.tolist())
            if seen == sound and replica_of(buffer).damaged == reasons.keys():
                break
        assert seen == sound
        assert buffer.stats()["damaged"] == len(reasons)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_that_meets_damage_counts_and_out_may_be_used_again(
    kind: Any, tmp_path: Path
) -> None:
    for name in ("b", "twin"):
        damaged(kind, tmp_path / name, GROUPED)
    with (
        diskreplay.open(tmp_path / "b", window_bytes=0) as buffer,
        diskreplay.open(tmp_path / "twin", window_bytes=0) as twin,
    ):
        out = pixels.first_sound(buffer, 4)
        pixels.first_sound(twin, 4)
        outcomes = []
        for _ in range(40):
            found = tried(buffer, out)
            assert found == tried(twin, None)
            outcomes.append(found)
            assert replica_of(buffer).draws == replica_of(twin).draws
        assert {outcome.startswith("the record") for outcome in outcomes} == {True, False}


def tried(buffer: Any, out: Any) -> str:
    """Return the write ids of a sound batch, or else the damage that was met."""
    try:
        batch = buffer.sample(4, out=out)
    except DamageError as error:
        return str(error).partition(", in ")[0]
    pixels.check(batch)
    return str(batch.indices.tolist())


# What the window holds


@pytest.mark.parametrize("access", ["exclusive", "read"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_read_stay_if_they_are_small_or_all_have_room(
    kind: Any, access: str, tmp_path: Path
) -> None:
    for width in WIDTHS:
        for window_bytes in (0, CAPACITY * (4 * width + 200)):
            path = tmp_path / f"{width} {window_bytes}"
            pixels.filled(kind, path, width).close()
            settings: dict[str, Any] = {"access": access, "window_bytes": window_bytes}
            with diskreplay.open(path, **settings) as buffer:
                window = replica_of(buffer).rows.window
                assert window.rows == (CAPACITY if window_bytes else MIN_ROWS)
                assert not window.holds(LIVE).any()
                buffer.get(LIVE[:40], fields=["reward"])
                assert not window.holds(LIVE).any()  # they were not read whole
                pixels.check(buffer.get(LIVE[10:40]))
                out = buffer.sample(40)
                buffer.sample(40, out=out)
                for i in range(len(LIVE) // 10):  # of these each has a place of its own
                    pixels.check(buffer.get(LIVE[10 * i : 10 * i + 10]))
                wanted = 0
                if window_bytes or width == SMALL:
                    wanted = window.rows
                assert window.holds(LIVE).sum() == wanted
                pixels.check(buffer.get(LIVE))
                if access == "exclusive":
                    new = buffer.extend(**pixels.columns(width, COUNT, 20))
                    assert window.holds(new).all()  # what is not committed is in the window alone
                    for i in range(2, len(LIVE) // 10):
                        pixels.check(buffer.get([*LIVE[10 * i : 10 * i + 10], *new]))
                    assert window.holds(new).all()


def test_reading_large_rows_leaves_room_for_those_that_were_pushed(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(CAPACITY, path=tmp_path / "b", window_bytes=0) as buffer:
        for first in range(0, CAPACITY, 50):  # at once they would go past the window
            buffer.extend(**pixels.columns(ALONE, first, 50))
            buffer.flush()
        window = replica_of(buffer).rows.window
        newest = np.arange(CAPACITY)[-MIN_ROWS:]
        for _ in range(10):
            pixels.check(buffer.sample(30))
        assert window.holds(newest).all()

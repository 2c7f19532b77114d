"""`diskreplay inspect` of what is damaged or held by others, and `diskreplay schema`."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from commands import facts, refused, run, shown, strict_json
from common import columns, row, run_python

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Write ids 1000 to 1349 are live, with the priorities 0, 1/3, 2/3, ..."""
    return stores.prioritized(tmp_path / "b")


# What is damaged, or in the way


def damage(path: Path, write_id: int, value: bytes) -> None:
    """Spoil every copy of the record that has these bytes in it."""
    data = (path / "data.mdb").read_bytes()
    assert value in data
    (path / "data.mdb").write_bytes(data.replace(value, value[:-1] + b"\xff"))


def test_damaged_records_are_left_out_and_told(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(100, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 100), priorities=np.arange(100))
    for number in (40, 98):
        damage(tmp_path / "b", number, columns(number, 1)["states"].tobytes())
    found = facts(tmp_path / "b")
    assert found["damaged"] == 2
    assert found["histograms"]["reward"]["of"] == 98
    assert sum(found["histograms"]["reward"]["counts"]) == 98
    assert found["histograms"]["priority"]["of"] == 100
    text = shown(tmp_path / "b")
    assert "2 of 100 records read are damaged: diskreplay verify" in text

    top = facts(tmp_path / "b", "--top", 3)["transitions"]
    assert [(t["write_id"], t["damaged"]) for t in top] == [(99, False), (98, True), (97, False)]
    assert top[1]["fields"] is None
    assert "write id 98, priority 98, age 1\n  damaged" in shown(tmp_path / "b", "--top", 3)
    message = refused("inspect", tmp_path / "b", "--at", 40)
    assert "the record of write id 40" in message
    assert "is damaged" in message


def test_damage_to_what_all_depends_on_is_one_sentence(store: Path) -> None:
    raw = stores.stored(store, "meta", "state")
    stores.change(store, "meta", "state", raw[:-1] + bytes([raw[-1] ^ 1]))
    for command in ("inspect", "schema"):
        message = refused(command, store)
        assert message.startswith("Error: ")
        assert "repair" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_store_that_may_not_be_opened(tmp_path: Path) -> None:
    stores.uniform(tmp_path / "b")
    for place in (tmp_path, *tmp_path.parents):
        if place.stat().st_uid == 0 and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o055)
    code = """
        import os, sys
        from diskreplay_tools.cli import main
        # What is imported late may be where another user may not look.
        main(["inspect", sys.argv[1], "--json"], standalone_mode=False)
        os.setgid(65534); os.setuid(65534)
        main(["inspect", sys.argv[1]], prog_name="diskreplay")
    """
    result = run_python(code, tmp_path / "b", check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert "Permission denied" in result.stderr


def test_a_store_that_is_held_alone(store: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from diskreplay.store.openers import ALONE
        from diskreplay.store.store import Store
        store = Store(Path(sys.argv[1]), access=ALONE)
        print("held", flush=True)
        sys.stdin.read()
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines()), store],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        message = refused("inspect", store)
        assert f"pid {holder.pid}" in message
        assert "wait until that is done" in message
    finally:
        holder.communicate()
    shown(store)


# The schema


@pytest.mark.parametrize("make", [stores.prioritized, stores.large, stores.packed])
def test_a_schema_can_be_pasted(make: Any, tmp_path: Path) -> None:
    path = make(tmp_path / "b")
    with diskreplay.open(path, access="read") as buffer:
        schema = buffer.schema
        assert schema is not None
    result = run("schema", path)
    assert result.exit_code == 0
    assert diskreplay.Schema(ast.literal_eval(result.stdout)) == schema
    record_bytes = diskreplay.estimate(schema, 10).record_bytes
    assert f"{schema.payload_bytes:,} bytes a transition, {record_bytes:,} as" in result.stdout

    found = strict_json(run("schema", path, "--json").stdout)
    assert [each["name"] for each in found["fields"]] == list(schema.names)
    fields = {each["name"]: (each["dtype"], tuple(each["shape"])) for each in found["fields"]}
    assert diskreplay.Schema(fields) == schema
    assert sum(each["bytes"] for each in found["fields"]) == found["payload_bytes"]
    assert found["record_bytes"] == record_bytes


def test_a_schema_of_all_types_can_be_pasted(tmp_path: Path) -> None:
    types = ("bool", "uint8", "uint64", "int16", "float16", "float64", "complex64", "complex128")
    given: dict[str, Any] = dict.fromkeys(row(0), "float32")
    given |= {f"x_{name}": name for name in types}
    given |= {f"y_{name}": (name, (2, 3)) for name in types} | {"z": ("int8", (5,))}
    ReplayBuffer(10, path=tmp_path / "b", schema=given).close()
    result = run("schema", tmp_path / "b")
    assert diskreplay.Schema(ast.literal_eval(result.stdout)) == diskreplay.Schema(given)

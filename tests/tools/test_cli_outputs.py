"""What must not be overwritten, and what a stranger's words must not do."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from common import columns, contents
from diskreplay_tools.cli import main
from runner import runner

import diskreplay


def refused(*arguments: object, status: int = 1) -> str:
    done = runner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == status, (done.output, done.exception)
    return done.stderr


def test_a_file_never_goes_into_another_store(tmp_path: Path) -> None:
    a, b = stores.uniform(tmp_path / "a"), stores.uniform(tmp_path / "b")
    before = contents(tmp_path)
    for out in (b / "data.mdb", b / "diskreplay.json", b / "x.npz"):
        given = ["export", a, out, "--format", "npz", "--force"]
        assert "is inside the store" in refused(*given)
    assert contents(tmp_path) == before


def test_a_store_with_other_files_beside_it_is_not_overwritten(tmp_path: Path) -> None:
    a, b = stores.uniform(tmp_path / "a"), stores.uniform(tmp_path / "b")
    (b / "model.pt").write_text("weights")
    before = contents(tmp_path)
    assert "holds model.pt beside the store" in refused("copy", a, b, "--force")
    np.savez(b / "x.npz", state=np.zeros(3))
    assert "is inside of" in refused("import", b / "x.npz", b, "--force", status=2)
    (b / "x.npz").unlink()
    assert contents(tmp_path) == before


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    a = stores.uniform(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    given = ["export", a, tmp_path / "pipe", "--format", "jsonl", "--force"]
    assert "is no regular file" in refused(*given)
    assert (tmp_path / "pipe").is_fifo()
    assert "give the name of a file" in refused("export", a, "-", "--format", "jsonl")


def test_words_of_strangers_do_not_command_the_terminal(tmp_path: Path) -> None:
    names = {"state": 1.0, "action": 1, "reward": 1.0, "next_state": 1.0, "done": False}
    values = {name: np.array([value] * 3) for name, value in names.items()}
    np.savez(tmp_path / "x.npz", **values, **{"\x1b]0;gone\x07": np.zeros(3)})  # type: ignore[arg-type]
    said = refused("import", tmp_path / "x.npz", tmp_path / "b")
    assert "\x1b" not in said
    assert r"\x1b]0;gone\x07" in said


@pytest.mark.parametrize(
    "facts",
    [
        {"pid": "1\x1b[2J", "host": "h", "since": 0.0, "access": "read"},
        {"pid": 1, "host": "h", "since": 0.0, "access": "\x1b]0;gone\x07"},
        {"pid": 1, "host": "h\x1b[2J", "since": 0.0, "access": "read"},
    ],
)
def test_an_opener_that_lies(facts: dict[str, Any], tmp_path: Path) -> None:
    path = stores.uniform(tmp_path / "s")
    with (path / "openers" / "1-aa").open("w") as file:
        file.write(json.dumps(facts))
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        done = runner().invoke(main, ["inspect", str(path)], color=True)
    assert done.exit_code == 0
    assert "\x1b[2J" not in done.output
    assert "\x1b]" not in done.output


def test_whole_numbers_that_no_float_tells_apart(tmp_path: Path) -> None:
    rows = columns(0, 20)
    rows["rewards"] = 2**60 + np.arange(20)
    schema = {"reward": "int64"}
    more = {"id": np.arange(20).astype(np.uint64) + np.uint64(2**63)}
    with diskreplay.ReplayBuffer(20, path=tmp_path / "s", schema=schema) as buffer:
        buffer.extend(**rows, **more)
    done = runner().invoke(main, ["inspect", str(tmp_path / "s")])
    assert done.exit_code == 0, done.exception
    assert "1.15" in done.output
    for condition, n in (
        (f"id=={2**63 + 1}", 1), (f"id>{2**63 + 1}", 18), (f"reward<{2**60 + 3}", 3),
        (f"id<{10**30}", 20), (f"reward>-{10**30}", 20), ("reward==1_0", None),
    ):  # fmt: skip
        out = str(tmp_path / "out.jsonl")
        given = ["export", str(tmp_path / "s"), out, "--force", "--where", condition]
        done = runner().invoke(main, given)
        if n is None:
            assert done.exit_code == 2
        else:
            assert f": {n} transition" in done.stdout, condition


def test_a_field_whose_shape_numpy_has_no_room_for() -> None:
    for shape in ((0, 2**30, 2**30), (2**30, 2**30, 0), (2**30, 2)):
        with pytest.raises(diskreplay.SchemaError, match="store large values elsewhere"):
            diskreplay.Field("x", "uint8", shape)
    assert diskreplay.Field("x", "uint8", (0, 5)).payload_bytes == 0

"""The command `import` on files of strangers, when it is killed, and on a large file."""

from __future__ import annotations

import io
import json
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stores
from commands import KILLER, run
from common import run_python
from diskreplay_tools.cli import main
from exported import FORMS, NAMES, arrow, many, npz, plain, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import replica_of
from runner import runner

import diskreplay
from diskreplay import PrioritizedReplayBuffer

# Files of strangers


def test_pickles_are_not_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    file = tmp_path / "x.npz"
    np.savez(file, **{**plain(), "reward": np.array([Trap()] * 6)})
    assert "only pickle can read" in refused(tmp_path / "new", file)
    assert not (tmp_path / "sprung").exists()


def header(shape: Any, descr: str = "<f4") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return out.getvalue()


@pytest.mark.parametrize(
    "reward",
    [
        header((10**15,)),
        header((6, 10**12)),
        header((-6,)),
        header((6,)) + bytes(20),
        header((6,)) + bytes(28),
        b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16,
        b"\x93NUMPY\x01\x00\x10\x00{'descr':'<f4'}  ",
        b"\x93NUMPY\x09\x00",
        b"nothing",
        b"",
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_claims_what_it_does_not_hold(
    tmp_path: Path, reward: bytes, method: int
) -> None:
    file = npz(tmp_path / "x.npz", {n: v for n, v in plain().items() if n != "reward"})
    with zipfile.ZipFile(file, "a", method) as archive:
        archive.writestr("reward.npy", reward)
    said = refused(tmp_path / "new", file)
    assert "is damaged" in said or "column 'reward'" in said


def test_a_small_file_does_not_take_much_memory(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in NAMES:
            shape = (1, 100, 2**20) if name in ("state", "next_state") else (1,)
            with archive.open(f"{name}.npy", "w") as member:
                member.write(header(shape, "|u1"))
                for _ in range(shape[1] if len(shape) > 1 else 0):
                    member.write(bytes(2**20))
                member.write(b"\0" if len(shape) == 1 else b"")
    assert file.stat().st_size < 500_000
    assert "a row takes 210 MB (expected at most 67.1 MB)" in refused(tmp_path / "new", file)


def metadata(tmp_path: Path, **changes: Any) -> Path:
    """An export whose metadata says something else."""
    run("export", stores.prioritized(tmp_path / "b"), tmp_path / "x.npz")
    file = tmp_path / "y.npz"
    with zipfile.ZipFile(tmp_path / "x.npz") as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "diskreplay.json":
                says = {**json.loads(content), **changes}
                content = json.dumps(says).encode() if "raw" not in says else says["raw"].encode()
            new.writestr(name, content)
    return file


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": 2}, "has format 2 (this diskreplay reads format 1): install a version"),
        ({"kind": "worse"}, "is damaged: it has no usable kind"),
        ({"capacity": 0}, "is damaged: it has no usable kind and capacity"),
        ({"capacity": 2**50}, "capacity must be a whole number of at most"),
        ({"settings": []}, "is damaged: it has no usable settings"),
        ({"settings": {"alpha": 9}}, "alpha must be a number in [0, 1] (found 9)"),
        ({"settings": {"durability": "none"}}, "durability must be one of"),
        ({"raw": "[" * 100_000}, "is damaged: what it says of its store is no object"),
        ({"raw": "5"}, "is damaged: what it says of its store is no object"),
    ],
)
def test_metadata_of_strangers(tmp_path: Path, changes: Any, told: str) -> None:
    assert told in refused(tmp_path / "new", metadata(tmp_path, **changes))


def test_metadata_cannot_set_what_is_no_setting(tmp_path: Path) -> None:
    file = metadata(
        tmp_path, settings={"path": str(tmp_path / "evil"), "alpha": 0.5}, max_priority="NaN"
    )
    run("import", file, tmp_path / "new")
    assert not (tmp_path / "evil").exists()
    with diskreplay.open(tmp_path / "new") as buffer:
        assert isinstance(buffer, PrioritizedReplayBuffer)
        assert replica_of(buffer).settings["alpha"] == 0.5


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    arrow()
    place = tmp_path_factory.mktemp("sound")
    many(place / "b")
    found = {}
    for form in FORMS:
        run("export", place / "b", place / f"x.{form}")
        found[form] = (place / f"x.{form}").read_bytes()
    return found


@settings(max_examples=60)
@given(st.sampled_from(FORMS), st.randoms(use_true_random=False), st.booleans())
def test_a_spoilt_file_is_a_sentence_or_a_store(
    sound: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, form: str,
    rng: random.Random, is_cut: bool,
) -> None:  # fmt: skip
    place = tmp_path_factory.mktemp("spoilt")
    content = bytearray(sound[form])
    if is_cut:
        del content[rng.randrange(len(content)) :]
    else:
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    (place / "x").write_bytes(content)
    result = runner().invoke(main, ["import", str(place / "x"), str(place / "new")])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    if result.exit_code:
        assert result.stderr.startswith("Error: ")
        assert [p.name for p in place.iterdir()] == ["x"]
    else:
        assert diskreplay.verify(place / "new") == []


# Kills and memory


WHOLE = """
import diskreplay
def is_whole(out):
    return diskreplay.verify(out) == [] and len(diskreplay.open(out, access="read")) == 30000
kill_often(Path(sys.argv[3]), 15, None, is_whole)
"""


def test_a_kill_leaves_nothing_or_a_whole_store(tmp_path: Path) -> None:
    file = npz(tmp_path / "x.npz", plain(30_000))
    (tmp_path / "out").mkdir()
    assert int(run_python(KILLER + WHOLE, "import", file, tmp_path / "out" / "b").stdout) >= 1


def test_memory_is_bounded_whatever_the_file_holds(tmp_path: Path) -> None:
    rows = 6000
    wide = np.zeros((rows, 4096), np.float32)
    values = {"state": wide, "next_state": wide, **{n: np.zeros(rows) for n in NAMES[1:3]}}
    file = npz(tmp_path / "x.npz", {**values, "done": np.zeros(rows)})
    code = """
        import sys
        from diskreplay_tools.files import readers
        from watched import peak_mib
        print(peak_mib(readers.NpzFile, "tables", ["import", *sys.argv[1:]]))
    """
    assert int(run_python(code, file, tmp_path / "b").stdout.split()[-1]) < 90  # MiB, of 190

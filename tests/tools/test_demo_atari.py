"""The demo with an Atari game: the kill, what is stored, and the table of sizes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from commands import process

import diskreplay

needs_atari = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("ale_py", "cv2", "lz4"))),
    reason="the extra atari is not installed",
)
STEPS = 2000
FRAME = 84 * 84


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f"no {pattern!r} in:\n{text}"
    return int(found[1].replace(",", ""))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory and the report of a short demo with its kill."""
    path = tmp_path_factory.mktemp("demo") / "new" / "pong"
    result = process("demo", "--atari", "--steps", STEPS, "--path", path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return path, result.stdout


@needs_atari
def test_the_player_is_killed_and_another_process_goes_on(killed: tuple[Path, str]) -> None:
    path, report = killed
    assert f"Pong, 2,000 steps of random play, seed 0, in {path}\n" in report
    first = number(r"process (\d+) plays", report)
    assert number(r"process (\d+) was killed half-way, with signal 9", report) == first
    assert number(r"process (\d+) opened the store", report) != first
    written = number(r"written before the kill +([\d,]+)", report)
    found = number(r"found again +([\d,]+)", report)
    assert written >= STEPS // 2
    assert number(r"lost, pushed after the last commit +([\d,]+)", report) == written - found


@needs_atari
def test_each_transition_is_whole_and_follows_the_one_before(killed: tuple[Path, str]) -> None:
    path, report = killed
    found = number(r"found again +([\d,]+)", report)
    assert f"diskreplay.open({str(path / 'replay')!r})" in report
    assert [entry.name for entry in path.iterdir()] == ["replay"]
    with diskreplay.open(path / "replay", access="read") as buffer:
        stats = buffer.stats()
        batch = buffer.get(np.arange(STEPS))
    assert stats["size"] == stats["count"] == STEPS
    assert len(stats["runs"]) == 2
    assert batch.states.shape == (STEPS, 4, 84, 84)
    np.testing.assert_array_equal(batch.next_states[:, :3], batch.states[:, 1:])
    breaks = np.any(batch.states[1:] != batch.next_states[:-1], axis=(1, 2, 3))
    ended = batch.dones[:-1] == 1.0
    ended[found - 1] = True
    np.testing.assert_array_equal(breaks, ended)
    starts = np.flatnonzero(breaks) + 1
    np.testing.assert_array_equal(batch.states[starts][:, :3], batch.states[starts][:, 1:])


@needs_atari
def test_the_table_compares_layouts(killed: tuple[Path, str]) -> None:
    _, report = killed
    assert "bytes a transition on disk, of the last 2,000, and how many fit into the " in report
    sizes = {
        name: (int(each.replace(",", "")), int(many.replace(",", "")))
        for name, each, many in re.findall(r"^  (as .*?) +([\d,]+) +([\d,]+)$", report, re.M)
    }
    names = ["as pairs of stacks", "as frames, each once", "as frames, with lz4"]
    if importlib.util.find_spec("zstandard"):
        names.append("as frames, with zstd")
    else:
        assert re.search("as frames, with zstd +zstandard is not installed", report)
    assert list(sizes) == names
    pairs, frames, *compressed = (sizes[name][0] for name in names)
    assert pairs > 8 * FRAME
    assert FRAME < frames < 1.2 * FRAME
    assert all(each < 1200 for each in compressed)
    room = [each * many for each, many in sizes.values()]
    assert max(room) < 1.01 * min(room)


@needs_atari
def test_without_the_kill_one_process_plays(tmp_path: Path) -> None:
    result = process("demo", "--atari", "--game", "Breakout", "--no-kill", "--steps", STEPS,
                     TMPDIR=str(tmp_path))  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Breakout, ")
    assert "signal" not in result.stdout
    (path,) = tmp_path.iterdir()  # it is kept
    with diskreplay.open(path / "replay", access="read") as buffer:
        assert len(buffer.stats()["runs"]) == 1


# What can go wrong


@needs_atari
def test_an_unknown_game_is_refused_with_known_ones(tmp_path: Path) -> None:
    result = process("demo", "--atari", "--game", "Pung", "--path", tmp_path / "new")
    assert result.returncode == 2
    assert re.search(r"there is no game 'Pung': expected one of \d+, such as Pong", result.stderr)
    assert not (tmp_path / "new").exists()


def test_a_game_without_atari_is_refused() -> None:
    result = process("demo", "--game", "Pong")
    assert result.returncode == 2
    assert "--game chooses an Atari game: give --atari, too" in result.stderr


@pytest.mark.parametrize("missing", ["ale_py", "cv2"])
def test_without_a_package_the_error_says_how_to_install_it(missing: str, tmp_path: Path) -> None:
    for module in ("ale_py", "cv2"):
        body = f"raise ImportError({module!r})" if module == missing else ""
        (tmp_path / f"{module}.py").write_text(body)
    result = process("demo", "--atari", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == (
        f"Error: demo --atari needs {missing}, which is not installed: "
        "pip install 'diskreplay[atari]'\n"
    )


def test_an_old_gymnasium_is_told(tmp_path: Path) -> None:
    for module in ("ale_py", "cv2"):
        (tmp_path / f"{module}.py").touch()
    (tmp_path / "gymnasium").mkdir()
    (tmp_path / "gymnasium" / "__init__.py").write_text("__version__ = '0.29.1'\n")
    (tmp_path / "gymnasium" / "wrappers.py").touch()
    result = process("demo", "--atari", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == (
        "Error: demo --atari needs gymnasium 1.0 or later (found 0.29.1): "
        "pip install 'diskreplay[atari]'\n"
    )

"""`diskreplay demo --atari`: a process plays a game, is killed, and another one goes on.

This is the parent; the player is atari.py. At the end the same transitions are stored in several
ways, to compare what they take on the disk.
"""

import difflib
import importlib.util
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

import diskreplay
from diskreplay.wording import count_of, human
from diskreplay_tools.commands.demo_process import Run, show_cost, watch
from diskreplay_tools.extras import needed

GAME = "Pong"
MEASURED = 5000  # transitions: as pairs they take 280 MB for a moment
COPIED = 500  # transitions at once
FRAMES: dict[str, Any] = {"observations": "log", "frame_axis": 0}
LAYOUTS: dict[str, dict[str, Any]] = {
    "as pairs of stacks": {},
    "as frames, each once": FRAMES,
    "as frames, with lz4": {**FRAMES, "codec": "lz4"},
    "as frames, with zstd": {**FRAMES, "codec": "zstd"},
}
PACKAGES = {"lz4": "lz4", "zstd": "zstandard"}


def check(game: str) -> None:
    """Raise ClickException where something is not installed, or there is no such game."""
    for module in ("ale_py", "cv2"):
        needed(module, "atari", "demo --atari")
    gymnasium: Any = needed("gymnasium", "atari", "demo --atari")
    wrappers = needed("gymnasium.wrappers", "atari", "demo --atari")
    if not hasattr(wrappers, "FrameStackObservation"):
        raise click.ClickException(
            f"demo --atari needs gymnasium 1.0 or later (found {gymnasium.__version__}): "
            "pip install 'diskreplay[atari]'"
        )
    known = games(gymnasium)
    if game not in known:
        near = difflib.get_close_matches(game, known) or known[:3]
        raise click.BadParameter(
            f"there is no game {game!r}: expected one of {len(known)}, such as {', '.join(near)}",
            param_hint="'--game'",
        )


def games(gymnasium: Any) -> list[str]:
    """Return the names of the games that Gymnasium knows once ale_py is loaded."""
    names = [name for name in gymnasium.registry if name.startswith("ALE/")]
    return sorted({name.partition("/")[2].rpartition("-")[0] for name in names})


def demo(directory: Path, game: str, seed: int, steps: int, kill: bool) -> None:
    """Play in a process, kill it half-way where that is asked, and report."""
    command = [sys.executable, "-m", "diskreplay_tools.commands.atari", str(directory)]
    command += ["--game", game, "--seed", str(seed), "--steps", str(steps)]
    click.echo(f"{game}, {count_of(steps, 'step')} of random play, seed {seed}, in {directory}")
    if kill:
        before = watch(
            command, "first half", steps // 2, role="player", kill=True, when_open=show_start
        )
        click.echo(f"process {before.pid} was killed half-way, with signal {signal.SIGKILL:d}")
        watch(
            command, "second half", steps, role="player", kill=False,
            when_open=lambda run: show_cost(before, run),
        )  # fmt: skip
    else:
        watch(command, "playing", steps, role="player", kill=False, when_open=show_start)
    store = directory / "replay"
    show_sizes(store)
    click.echo(f"the store is kept: diskreplay.open({str(store)!r})")


def show_start(run: Run) -> None:
    """Print which process plays."""
    click.echo(f"process {run.pid} plays")


def show_sizes(store: Path) -> None:
    """Print what a transition takes in each layout, and how many fit on the disk."""
    free = shutil.disk_usage(store).free
    with diskreplay.open(store, access="read", window_bytes=0) as played:
        first = max(played.first, played.count - MEASURED)
        click.echo(
            f"bytes a transition on disk, of the last {played.count - first:,}, and how many fit "
            f"into the {human(free)} that are free here"
        )
        for name, how in LAYOUTS.items():
            package = PACKAGES.get(how.get("codec", ""))
            if package and importlib.util.find_spec(package) is None:
                click.echo(f"  {name:<36}{package + ' is not installed':>24}")
                continue
            with tempfile.TemporaryDirectory(prefix=".measured-", dir=store.parent) as place:
                each = bytes_each(played, first, Path(place) / "store", how)
            click.echo(f"  {name:<36}{each:>10,.0f}{free / each:>14,.0f}")


def bytes_each(played: Any, first: int, path: Path, how: dict[str, Any]) -> float:
    """Store the transitions from `first` on in a way of their own, and return the bytes of each."""
    with diskreplay.ReplayBuffer(
        played.count - first, path=path, durability="process", window_bytes=0, **how
    ) as copy:
        for start in range(first, played.count, COPIED):
            batch = played.get(np.arange(start, min(start + COPIED, played.count)))
            copy.extend(*batch[:5], env=0)  # as one stream: episodes do not matter here
        copy.flush()
        stats = copy.stats()
        return float(stats["disk_bytes"] / stats["size"])

"""The command that measures how long a GPU waits for batches of pixels.

It runs from a checkout, without the peers and with PyTorch, in `PYTHONPATH=.:tools`.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

import diskreplay
from bench.gpu_stores import LOGS, fill_log, filled
from bench.machine import facts, load
from bench.options import shared, tell

if TYPE_CHECKING:
    from bench.gpu_feeds import Open, Setting
    from bench.gpu_learner import Learner

ROUNDS = 2  # of each feed, in turns
STEPS = 10  # which are timed together: the GPU may lag behind by one
HEADS = ("fed by", "a step, ms", "x alone", "wait for the batch, ms", "give back, ms")
PIECE_SECONDS = 0.3


@click.command()
@click.option("--rows", type=click.IntRange(1), default=20_000, show_default=True, help="Stored.")
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1),
    multiple=True,
    default=(256, 32),
    show_default=True,
    help="Rows of a batch; can be given more than once.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=1.2,
    show_default=True,
    help="Of each feed in each of two rounds.",
)
@click.option("--device", help="cuda or cpu; by default what there is.")
@click.option(
    "--step-ms",
    type=click.FloatRange(0, min_open=True),
    default=3.3,
    show_default=True,
    help="How long a step takes on the CPU, where a wait stands for the network.",
)
@shared("place", "out")
def gpu(
    rows: int,
    batches: tuple[int, ...],
    seconds: float,
    device: str | None,
    step_ms: float,
    place: Path | None,
    out: Path | None,
) -> None:
    """Train Nature DQN on stored pixels, fed in several ways, and print a table.

    Transitions are pairs of 84x84x4 bytes in a prioritized buffer, in the page cache; in the rows
    of a log, stacks of frames that are kept once. The first row is the network alone, on one batch;
    in all rows the TD errors come back. On a CPU a wait stands for the network. The exit status is
    1 when a feed failed. Example: python -m bench gpu
    """  # fmt: skip
    try:
        import torch
    except ImportError as error:
        raise click.ClickException(f"this needs PyTorch: {error}") from error
    from bench.gpu_feeds import Setting, copied_bytes
    from bench.gpu_learner import Network, Wait
    from bench.gpu_pieces import pieces

    began, load_before = time.monotonic(), load()
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    learner = Network(on) if on.type == "cuda" else Wait(step_ms)
    tables: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="diskreplay-bench-", dir=place) as stores:
        path = f"{stores}/pixels"
        columns = filled(path, rows)
        logs = {name: f"{stores}/{name}" for name in LOGS}
        for name, codec in LOGS.items():
            fill_log(logs[name], rows, codec)
        tell(f"{rows:,} transitions are stored, after {time.monotonic() - began:.0f} s")
        for batch in batches:
            setting = Setting(path, columns, batch, on, logs)
            tables.append({"batch": batch, "feeds": measured(setting, learner, seconds)})
            tell(f"batch {batch}, after {time.monotonic() - began:.0f} s")
            try:
                tables[-1]["bytes"] = copied_bytes(setting)
                tables[-1]["pieces"] = pieces(setting, learner, min(seconds, PIECE_SECONDS))
            except Exception as error:
                tables[-1] = {"bytes": {}, "pieces": {}, **tables[-1], "missing": told(error)}
    about = {
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "seconds": time.monotonic() - began,
        "machine": facts(),
        "load_before": load_before,
        "rows": rows,
        "learner": "Nature DQN" if on.type == "cuda" else f"a wait of {step_ms} ms",
        "card": torch.cuda.get_device_name(on) if on.type == "cuda" else "none",
        "versions": {
            "diskreplay": diskreplay.__version__, "numpy": np.__version__,
            "torch": torch.__version__, "CUDA": torch.version.cuda or "none",
        },
    }  # fmt: skip
    click.echo("\n".join(page(tables, about)))
    if out is not None:
        out.write_text(json.dumps({**about, "tables": tables}) + "\n")
    failed = [one["missing"] for table in tables for one in table["feeds"].values()]
    failed += [table.get("missing") for table in tables]
    if any(failed):
        raise click.ClickException("; ".join(sorted({one for one in failed if one})))


def measured(setting: Setting, learner: Learner, seconds: float) -> dict[str, dict[str, Any]]:
    """Run all feeds in turns, and return the milliseconds of each; or why there are none."""
    from bench.gpu_feeds import FEEDS

    found: dict[str, dict[str, Any]] = {
        name: {"missing": "", "step": [], "wait": [], "give back": []} for name in FEEDS
    }
    for _ in range(ROUNDS):
        for name, feed in FEEDS.items():
            one = found[name]
            if not one["missing"]:
                try:
                    train(feed, setting, learner, seconds, one)
                except Exception as error:  # so that the other feeds are measured
                    one["missing"] = told(error)
            tell(f"  batch {setting.batch}, {name}: {one['missing'] or spread(one['step'])}")
    return found


def told(error: Exception) -> str:
    """Return an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def train(
    feed: Open, setting: Setting, learner: Learner, seconds: float, found: dict[str, list[float]]
) -> None:
    """Train with one feed, and append the means of each few steps."""
    clock = time.perf_counter
    with feed(setting) as (take, give_back):

        def step() -> tuple[float, float]:
            start = clock()
            batch = take()
            taken = clock()
            errors = learner(batch)
            learnt = clock()
            give_back(batch, errors)
            return taken - start, clock() - learnt

        for _ in range(2 * STEPS):  # more than are drawn ahead at first
            step()
        end = clock() + seconds
        while clock() < end:
            start = clock()
            parts = [step() for _ in range(STEPS)]
            found["step"].append((clock() - start) / STEPS * 1e3)
            for name, values in zip(("wait", "give back"), zip(*parts, strict=True), strict=True):
                found[name].append(sum(values) / STEPS * 1e3)


def page(tables: list[dict[str, Any]], about: dict[str, Any]) -> list[str]:
    """Return the tables as Markdown, and where they were measured."""
    from bench.gpu_feeds import ALONE

    machine = about["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['learner']}; card: {about['card']}; {machine['cores']} cores of {machine['cpu']}, "
        f"Python {machine['python']}, {versions}; {about['rows']:,} transitions; "
        f"{about['seconds']:.0f} s, by `{about['command']}`."
    ]
    for table in tables:
        lines += ["", f"Batch {table['batch']}:", "", f"| {' | '.join(HEADS)} |"]
        lines.append("|" + " --- |" * len(HEADS))
        base = np.median(table["feeds"][ALONE]["step"] or [np.nan])
        for name, one in table["feeds"].items():
            cells = [one["missing"], "", "", ""]
            if not one["missing"]:
                ratio = np.median(one["step"]) / base
                parts = [f"{np.median(one[part]):.2f}" for part in ("wait", "give back")]
                cells = [spread(one["step"]), f"{ratio:.2f}", *parts]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
        for name, nbytes in table["bytes"].items():
            ratio = nbytes / table["bytes"]["pairs"]
            lines.append(
                f"- copied to the device, {name}: {nbytes:,.0f} bytes a batch, {ratio:.3f} x"
            )
        lines += [f"- {name}: {spread(values)} ms" for name, values in table["pieces"].items()]
    return lines


def spread(values: list[float]) -> str:
    """Return the median and the quartiles."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{median:.2f} ({low:.2f} to {high:.2f})"

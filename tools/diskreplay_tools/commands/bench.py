"""The command `bench`: what a buffer will do on this disk, before a long run relies on it."""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

import diskreplay
from diskreplay.schema import STANDARD_FIELDS, LogOptions, root_of
from diskreplay_tools.commands.arguments import json_option, log_options
from diskreplay_tools.terminal import progress

DEFAULTS = {
    "state": ("float32", (60,)),
    "action": ("int64", ()),
    "reward": ("float32", ()),
    "done": ("float32", ()),
}
ROWS = 1000  # that are pushed again and again


class FieldType(click.ParamType):  # type: ignore[type-arg]
    """NAME=DTYPE or NAME=DTYPE:SHAPE, with x between the dimensions."""

    name = "field"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, tuple[str, tuple[int, ...]]]:
        """Return a field's name, dtype and shape."""
        name, _, given = str(value).partition("=")
        dtype, _, shape = given.partition(":")
        try:
            if not (name and dtype):
                raise ValueError
            lengths = tuple(map(int, shape.split("x"))) if shape else ()
        except ValueError:
            self.fail(f"{value!r}: expected NAME=DTYPE:SHAPE, as state=uint8:84x84x4", param, ctx)
        try:
            diskreplay.Field(name, dtype, lengths)  # so that the error is of the field given
        except diskreplay.SchemaError as error:
            self.fail(str(error), param, ctx)
        return name, (dtype, lengths)


@click.command()
@click.argument("place", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option(
    "--like",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A store whose schema, kind and capacity to take.",
)
@click.option(
    "--field",
    "fields",
    type=FieldType(),
    multiple=True,
    metavar="NAME=DTYPE:SHAPE",
    help="A field, as state=uint8:84x84x4; may be given several times. Without it: states of 60 "
    "float32, int64 actions, float32 rewards.",
)
@click.option("--capacity", type=click.IntRange(1), help="Of the buffer to be.  [default: 1000000]")
@click.option("--uniform", is_flag=True, help="For a ReplayBuffer, without priorities.")
@click.option(
    "--durability",
    type=click.Choice(["system", "full", "process"]),
    default="system",
    show_default=True,
    help="What a commit withstands.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Of samples."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 600),
    default=3.0,
    show_default=True,
    help="For each of the rates.",
)
@log_options
@click.option(
    "--ratio",
    type=click.FloatRange(0, 1),
    default=1.0,
    help="The bytes that the codec leaves of a byte of your states, for the estimate.  [default: "
    "1.0]",
)
@click.option("--estimate", is_flag=True, help="Write nothing; print disk and memory.")
@json_option
def bench(
    place: Path,
    like: Path | None,
    fields: tuple[tuple[str, Any], ...],
    capacity: int | None,
    uniform: bool,
    durability: str,
    batch_size: int,
    seconds: float,
    observations: str | None,
    frame_axis: int | None,
    codec: str | None,
    ratio: float,
    estimate: bool,
    as_json: bool,
) -> None:
    """Measure pushes, samples and reopening on the disk of PLACE.

    A store is made in PLACE (by default, here) for the time of it, filled with random transitions
    for some seconds, and removed. First comes what a full buffer will take, which is all with
    --estimate. Random states neither repeat nor compress: with a log your own are pushed faster.

    Example: diskreplay bench runs --field state=uint8:84x84x4
    """
    if math.isnan(seconds):
        raise click.BadParameter("it must be a number (found nan)", param_hint="'--seconds'")
    if like is not None and fields:
        raise click.UsageError("--like takes the fields of a store: leave out --field")
    if like is not None:
        with diskreplay.open(like, access="read", window_bytes=0) as buffer:
            if buffer.schema is None:
                raise click.ClickException(f"{like} is empty: it has no schema yet")
            schema: Any = buffer.schema
            capacity = capacity or buffer.capacity
            uniform = uniform or isinstance(buffer, diskreplay.ReplayBuffer)
    else:
        schema = schema_of(dict(fields))
    schema = LogOptions.checked(observations, frame_axis, codec).placed(schema)
    capacity = capacity or 1_000_000
    found = diskreplay.estimate(schema, capacity, prioritized=not uniform, ratio=ratio)
    if not as_json:
        lines = str(found).splitlines()
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
            lines = [click.wrap_text(line, width, "", " " * 8) for line in lines]
        click.echo("\n".join(lines))
    rates: dict[str, float] = {}
    if not estimate:
        make = diskreplay.ReplayBuffer if uniform else diskreplay.PrioritizedReplayBuffer
        with tempfile.TemporaryDirectory(prefix=".diskreplay-bench-", dir=place) as directory:
            path = Path(directory) / "store"
            with progress("bench", "of 5") as show:
                rates = measured(
                    lambda: make(capacity, path=path, schema=schema, durability=durability),
                    schema, batch_size, seconds, show,
                )  # fmt: skip
        if not as_json:
            for line in result_lines(rates, batch_size, uniform=uniform):
                click.echo(line)
    if as_json:
        figures = {"disk_bytes": found.disk_bytes, "memory_bytes": found.memory_bytes}
        click.echo(json.dumps(asdict(found) | figures | rates))


def measured(
    make: Callable[[], Any],
    schema: diskreplay.Schema,
    batch_size: int,
    seconds: float,
    show: Callable[[int, int], None],
) -> dict[str, float]:
    """Return rates, each over some seconds, of a buffer that `make` opens."""
    rng = np.random.default_rng(0)
    names = (*STANDARD_FIELDS, *schema.extra_names)
    columns = [random_column(field, rng) for field in schema.fields]
    rows = [
        dict(zip(names, schema.nested([column[i] for column in columns]), strict=True))
        for i in range(ROWS)
    ]
    plural = [f"{name}s" for name in STANDARD_FIELDS]
    whole = dict(zip((*plural, *schema.extra_names), schema.nested(columns), strict=True))
    found: dict[str, float] = {}

    def repeat(what: Callable[[int], object]) -> float:
        """Return how often it can be done in a second."""
        n, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            what(n)
            n += 1
        buffer.flush()
        show(len(found) + 1, 5)
        return n / (time.perf_counter() - began)

    with make() as buffer:
        found["pushes_per_second"] = repeat(lambda n: buffer.push(**rows[n % ROWS], env=0))
        with warnings.catch_warnings():  # the rows are random, and do not follow each other
            warnings.simplefilter("ignore", diskreplay.EpisodeWarning)
            extended = repeat(lambda n: buffer.extend(**whole, env=0))
        found["extended_rows_per_second"] = ROWS * extended
        batch_size = min(batch_size, len(buffer))

        def step(_: int) -> None:
            batch = buffer.sample(batch_size)
            if isinstance(batch, diskreplay.PrioritizedBatch):
                buffer.update_priorities(batch.indices, rng.random(batch_size))

        found["steps_per_second"] = repeat(step)
        found["transitions"] = len(buffer)
    began = time.perf_counter()
    with make() as buffer:
        buffer.sample(batch_size)
        found["reopen_seconds"] = time.perf_counter() - began
        show(4, 5)
    show(5, 5)
    return found


def schema_of(given: dict[str, Any]) -> diskreplay.Schema:
    """Return the schema of given fields, and of the usual ones where none is given."""
    roots = set(map(root_of, given))
    fields = given | {name: kind for name, kind in DEFAULTS.items() if name not in roots}
    if "next_state" not in roots:
        states = {name: kind for name, kind in fields.items() if root_of(name) == "state"}
        fields |= {f"next_{name}": kind for name, kind in states.items()}
    return diskreplay.Schema(fields)


def random_column(field: diskreplay.Field, rng: np.random.Generator) -> np.ndarray:
    """Return values of a field, one for each of some rows."""
    shape = (ROWS, *field.shape)
    if field.name == "done" or field.dtype.kind == "b":
        return (rng.random(shape) < 0.01).astype(field.dtype)
    if field.dtype.kind in "iu":
        return rng.integers(0, 100, shape).astype(field.dtype)
    return rng.standard_normal(shape).astype(field.dtype)


def result_lines(rates: dict[str, float], batch_size: int, *, uniform: bool) -> list[str]:
    """Return the measured rates as lines."""
    n = rates["transitions"]
    update = "" if uniform else ", and the update of its priorities"
    return [
        f"push     {rates['pushes_per_second']:>12,.0f} a second, one by one, commits included",
        f"extend   {rates['extended_rows_per_second']:>12,.0f} a second, by the thousand",
        f"step     {rates['steps_per_second']:>12,.0f} a second: a batch of {batch_size}{update}",
        f"reopen   {rates['reopen_seconds']:>12.3f} seconds until the first batch of {n:,} "
        "transitions",
    ]

"""The command that draws what `curve` measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

LABELS = {"rows": "rows in the store, batches of 256", "batch": "batch, out of a million rows"}


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--into",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path(__file__).parents[2] / "docs" / "performance.svg",
    show_default="docs/performance.svg",
    help="The picture.",
)
def plot(file: Path, into: Path) -> None:
    """Draw the sample times of a FILE that `curve` wrote, as SVG.

    This needs matplotlib. Example: python -m bench plot curve.json
    """
    try:
        draw(json.loads(file.read_text())["curves"], into)
    except ImportError as error:
        raise click.ClickException(
            f"{error}: pip install -r {Path(__file__).parent / 'requirements-plot.txt'}"
        ) from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise click.ClickException(f"{file} is not what `curve` writes") from error


def draw(curves: dict[str, Any], into: Path) -> None:
    """Draw both curves of all systems: medians as lines, quartiles as areas around them."""
    import matplotlib
    from matplotlib.figure import Figure

    # Dates and random ids would make each picture a different file.
    matplotlib.rcParams.update({"svg.hashsalt": "diskreplay", "svg.fonttype": "none"})
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, 2, sharey=True), LABELS.items(), strict=True):
        for system, found in curves.items():
            legs = {int(leg): one["figures"].get("sample") for leg, one in found[name].items()}
            legs = {number: values for number, values in legs.items() if values}
            if legs:
                low, middle, high = np.quantile(list(legs.values()), [0.25, 0.5, 0.75], axis=1)
                axes.plot(list(legs), middle / 1e3, marker="o", label=system)
                axes.fill_between(list(legs), low / 1e3, high / 1e3, alpha=0.2)
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.grid(alpha=0.3)
    axes.legend()
    figure.axes[0].set_ylabel("one prioritized sample, us")
    figure.savefig(into, metadata={"Date": None})

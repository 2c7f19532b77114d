"""Describe a measurement: the machine, the versions, the command."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click

from bench.driver import Pythons, WorkerError


def facts() -> dict[str, str | int]:
    """Return what a reader of figures has to know about this machine."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 0,
        "memory_bytes": pages,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def cpu_model() -> str:
    """Return the name of the processor, or of its kind where the system does not tell it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def load() -> float:
    """Return how many processes want to run, and warn when it is not one that measures."""
    found = os.getloadavg()[0]
    if found > 0.5:
        click.echo(
            f"other programs are busy here (load {found:.1f}): figures will be off", err=True
        )
    return found


def about(pythons: Pythons, systems: list[str], began: float, load_before: float) -> dict[str, Any]:
    """Return what has to be known to judge figures, and to measure them again."""
    return {
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "minutes": (time.monotonic() - began) / 60,
        "machine": facts(),
        "load_before": load_before,
        "versions": {name: versions_of(name, pythons) for name in systems if pythons.has(name)},
    }


def versions_of(system: str, pythons: Pythons) -> dict[str, str]:
    """Return the versions of a system and of what it needs, or why there are none."""
    try:
        return pythons.versions(system)
    except (WorkerError, OSError) as error:
        return {"unknown:": str(error)}

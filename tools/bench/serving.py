"""Answer the driver in a worker: JSON lines on stdin and stdout.

`{"do": "start", "bench": name, "task": {...}}` prepares, `{"do": "round"}` measures once; the
answer is `{"figures": {...}}`, or `{"error": "..."}` in one sentence. A worker ends with its stdin.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import sys
import traceback
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from bench.kernel import die_with_parent
from bench.rows import Task
from bench.timing import Bench, Figures, Rounds


def serve(benches: Mapping[str, Bench], distributions: tuple[str, ...]) -> None:
    """Answer requests until stdin ends; `distributions` tell their versions, if installed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the driver, which ends workers
    die_with_parent()
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    rounds: Rounds | None = None

    def answer(request: dict[str, object]) -> dict[str, object]:
        nonlocal rounds
        if request["do"] == "versions":
            versions = {"python": platform.python_version()}
            for name in ("numpy", *distributions):
                with contextlib.suppress(PackageNotFoundError):
                    versions[name] = version(name)
            return {"versions": versions}
        if request["do"] == "start":
            task = Task(**request["task"])  # type: ignore[arg-type]
            rounds = benches[str(request["bench"])](task)
        if rounds is None:
            raise RuntimeError("no benchmark was started")
        figures: Figures = next(rounds)
        return {"figures": {name: float(value) for name, value in figures.items()}}

    for line in sys.stdin:
        try:
            result = answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            result = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        answers.write(json.dumps(result) + "\n")
        answers.flush()
    if rounds is not None:
        rounds.close()

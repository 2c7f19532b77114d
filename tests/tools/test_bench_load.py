"""The benchmark of a service: a tiny run, as a user starts it."""

from __future__ import annotations

from pathlib import Path

import pytest
from injectors import run

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")


def test_the_load_of_few_clients_is_measured(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "bench", "load", "--most", 2, "--seconds", 0.05)
    assert done.status == 0, done.said
    _, *rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["1", "2"]
    assert all(float(figure.replace(",", "")) > 0 for row in rows for figure in row)
    assert done.stderr.count("\n") == 1  # the server's line that it serves

"""A store, a server of it with small limits, and its log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_process import ServiceProcess, make_store, serving


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "a")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def service(store: Path, log: Path) -> Iterator[ServiceProcess]:
    limits = ("--max-rows", 10_000, "--max-message-bytes", 1 << 20, "--max-calls", 50)
    with serving(store, "--listen", "grpc://127.0.0.1:0", *limits, log=log) as running:
        yield running

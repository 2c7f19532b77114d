"""The benchmark of a service over loopback: tiny runs, as a user starts them, without Reverb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from injectors import run

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

ROWS = {
    "sample": {"sample(256)": 3, "batches(256, prefetch=4)": 3},
    "push": {"pushes and a flush, 1 client": 2, "pushes and a flush, 2 clients": 2},
    "pixels": {"sample(256) of pixels": 1, "batches(256, prefetch=4) of pixels": 1},
}


@pytest.mark.parametrize("group", ROWS)
def test_a_group_is_measured_and_told(tmp_path: Path, group: str) -> None:
    stores, out = tmp_path / "stores", tmp_path / "out.json"
    stores.mkdir()
    sizes = ("--tiny", "--rounds", 1, "--only", group)
    done = run(
        tmp_path, "-m", "bench", "service", *sizes,
        "--peers", tmp_path, "--place", stores, "--out", out,
    )  # fmt: skip
    assert done.status == 0, done.said

    table = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    works = [line[0].removeprefix("| ") for line in table[2:]]
    assert {work: works.count(work) for work in works} == ROWS[group]
    for line in table[2:]:
        assert line[3] == "not installed" if line[2].startswith("reverb") else float(line[4]) > 0

    found = json.loads(out.read_text())
    assert list(found["groups"]) == [group]
    for leg in found["groups"][group].values():
        if leg["system"] == "reverb":
            assert leg["missing"] == "not installed"
        else:
            assert not leg["missing"]
            assert all(values[0] > 0 for values in leg["figures"].values())
    assert found["versions"]["service"].keys() >= {"diskreplay", "numpy", "pyarrow"}
    assert not list(stores.iterdir())

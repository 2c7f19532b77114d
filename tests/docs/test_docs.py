"""The documentation is true: its examples run and print what it says, and it leaves out nothing."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import lmdb
import numpy as np
import pytest
from pages import ROOT, Block, blocks_of
from xxhash import xxh3_64_intdigest

import diskreplay
from diskreplay import Field, PrioritizedReplayBuffer, ReplayBuffer, Schema
from diskreplay.store.tables import TABLES

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")),
]
# How many blocks of Python run at least, so that a test cannot pass by finding none.
LEAST_BLOCKS = {
    "README.md": 2,
    "docs/format.md": 10,
    "docs/guide.md": 7,
    "docs/how-to/frames.md": 3,
    "docs/how-to/sequences.md": 2,
    "docs/what-can-be-lost.md": 4,
    "docs/quick-reference.md": 22,
}
TORCH_BLOCKS = {
    "docs/how-to/cleanrl.md": 1,
    "docs/how-to/pytorch.md": 3,
    "docs/how-to/torch-datasets.md": 4,
    "docs/quick-reference.md": 1,
}
# Of pages for a framework: the kind of their blocks, the module that they need, how many they are.
FRAMEWORK_BLOCKS = {
    "docs/how-to/jax.md": ("python jax", "jax", 1),
    "docs/how-to/stable-baselines3.md": ("python sb3", "stable_baselines3", 5),
    "docs/how-to/torchrl.md": ("python torchrl", "torchrl._torchrl", 4),
    "docs/how-to/datasets.md": ("python minari", "minari", 2),
    "docs/how-to/service.md": ("python service", "diskreplay.service.server", 4),
    "docs/quick-reference.md": ("python service", "diskreplay.service.server", 1),
}
LOGGING_PAGE = "docs/how-to/logging.md"
LOGGERS = ("tensorboard", "wandb")  # each has one block
LEAST_DOCTESTS = 30
# Of adapters that do not have the name of their framework.
FRAMEWORKS = {
    "cleanrl": "torch", "vector_steps": "gymnasium", "hdf5": "h5py", "dataset_stores": "numpy",
    "lerobot": "pyarrow",
}  # fmt: skip
# A block of sh is one of these, and the README begins with all of them.
COMMANDS = (
    "python3 -m venv .venv && .venv/bin/pip install -e '.[demo]' && .venv/bin/diskreplay demo\n",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest\n",
)
# Directives of the site, by page. Other pages are plain Markdown.
DIRECTIVES = {
    "docs/api.md": "{eval-rst}",
    "docs/examples.md": "{literalinclude}",
    "docs/index.md": "{toctree}",
}
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


def python_blocks(page: str, *kinds: str) -> list[Block]:
    return [block for block in blocks_of(page) if block.kind in kinds]


RUNNER = """
import contextlib, io, json, sys
page, blocks = json.load(sys.stdin)
names, printed = {"__name__": "__main__"}, []
for line, source in blocks:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile("\\n" * line + source, page, "exec"), names)
    printed.append(out.getvalue())
json.dump(printed, sys.stdout)
"""


def run_blocks(page: str, blocks: list[Block], place: Path) -> None:
    """Run blocks in one namespace, in a new process in `place`; warnings are errors there too."""
    result = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps([str(ROOT / page), [(block.line, block.source) for block in blocks]]),
        capture_output=True,
        text=True,
        cwd=place,
        # Rows of examples often do not continue each other.
        env={**os.environ, "PYTHONWARNINGS": "error,ignore:a transition does not continue"},
        timeout=600,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    for block, printed in zip(blocks, json.loads(result.stdout), strict=True):
        assert printed == block.output, f"{page}:{block.line} prints something else"


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs_and_prints_what_the_page_says(page: str, tmp_path: Path) -> None:
    blocks = python_blocks(page, "python")
    assert len(blocks) >= LEAST_BLOCKS.get(page, 0)
    run_blocks(page, blocks, tmp_path)


@needs_torch
@pytest.mark.parametrize("page", TORCH_BLOCKS)
def test_the_torch_examples_run_among_the_others(page: str, tmp_path: Path) -> None:
    assert len(python_blocks(page, "python torch")) == TORCH_BLOCKS[page]
    run_blocks(page, python_blocks(page, "python", "python torch"), tmp_path)


@pytest.mark.parametrize("page", FRAMEWORK_BLOCKS)
def test_the_examples_for_a_framework_run(page: str, tmp_path: Path) -> None:
    kind, module, number = FRAMEWORK_BLOCKS[page]
    try:
        importlib.import_module(module)
    except ImportError as error:  # the compiled part of TorchRL is for one version of PyTorch
        pytest.skip(f"{module} cannot be imported: {error}")
    assert len(python_blocks(page, kind)) == number
    run_blocks(page, python_blocks(page, kind), tmp_path)


@pytest.mark.parametrize("logger", LOGGERS)
def test_the_examples_of_loggers_run(
    logger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(logger)
    if logger == "tensorboard":
        pytest.importorskip("torch")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert len(python_blocks(LOGGING_PAGE, f"python {logger}")) == 1
    run_blocks(LOGGING_PAGE, python_blocks(LOGGING_PAGE, "python", f"python {logger}"), tmp_path)
    place = "logs/a/events.out.*" if logger == "tensorboard" else "wandb/offline-run-*/*.wandb"
    [written] = tmp_path.glob(place)
    assert b"replay/free_bytes" in written.read_bytes()


@pytest.mark.parametrize("page", PAGES)
def test_no_block_of_a_page_escapes(page: str) -> None:
    for block in blocks_of(page):
        where = f"{page}:{block.line}"
        if block.kind == "json":
            json.loads(block.source)
        elif block.kind == "sh":
            assert block.source in COMMANDS, where
        elif block.kind == "python torch":
            assert page in TORCH_BLOCKS, where
        elif block.kind in [f"python {logger}" for logger in LOGGERS]:
            assert page == LOGGING_PAGE, where
        elif block.kind.startswith("python "):
            assert block.kind == FRAMEWORK_BLOCKS[page][0], where
        elif block.kind == "diff":
            assert page == "docs/how-to/cleanrl.md", where
        elif block.kind == "console":
            assert page in ("README.md", "docs/commands.md"), where
        elif block.kind.startswith("{"):
            assert block.kind.split()[0] == DIRECTIVES.get(page), where
        else:
            assert block.kind in ("python", "text"), where


def test_every_page_is_there() -> None:
    assert set(LEAST_BLOCKS) <= set(PAGES)


def test_the_readme_begins_with_the_two_commands() -> None:
    first = blocks_of("README.md")[:2]
    assert [(block.kind, block.source) for block in first] == [("sh", c) for c in COMMANDS]


def anchors(page: str) -> set[str]:
    """What a link into a page may name, made of its headings as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)]*)\)", (ROOT / page).read_text()):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = (ROOT / page).parent / name if name else ROOT / page
            assert target.exists(), f"{page}: {link}"
            if anchor:
                assert anchor in anchors(str(target.resolve().relative_to(ROOT))), f"{page}: {link}"


def test_the_index_leads_to_each_how_to() -> None:
    index = (ROOT / "docs/index.md").read_text()
    pages = [page.name for page in (ROOT / "docs/how-to").glob("*.md")]
    assert len(pages) > 10
    assert not [name for name in pages if f"](how-to/{name})" not in index]


def public_modules() -> list[str]:
    """All modules, without the adapters of frameworks that are not installed."""
    found = pkgutil.walk_packages(diskreplay.__path__, "diskreplay.")
    names = [m.name for m in found if not m.name.rpartition(".")[2].startswith("_")]
    adapters = [name for name in names if name.startswith("diskreplay.adapters.")]
    needed = {name: FRAMEWORKS.get(name.split(".")[2], name.split(".")[2]) for name in adapters}
    missing = {name for name in adapters if not importlib.util.find_spec(needed[name])}
    if not all(map(importlib.util.find_spec, ("prometheus_client", "pyarrow"))):
        missing |= {name for name in names if name.startswith("diskreplay.service.")}
    return ["diskreplay", *(name for name in names if name not in missing)]


def doctests_of(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(name)
    public = {name: getattr(diskreplay, name) for name in diskreplay.__all__}
    names = {**vars(module), **public, "np": np}
    return [test for test in doctest.DocTestFinder().find(module, globs=names) if test.examples]


@pytest.mark.parametrize("name", public_modules())
def test_the_examples_in_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, test in enumerate(doctests_of(name)):
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.chdir(place)
        report: list[str] = []
        doctest.DocTestRunner(verbose=False).run(test, out=report.append)
        assert not report, "".join(report)


def test_there_are_examples_in_docstrings() -> None:
    tests = [test for name in public_modules() for test in doctests_of(name)]
    assert sum(len(test.examples) for test in tests) >= LEAST_DOCTESTS


def public_objects() -> Iterator[tuple[str, Any]]:
    """Public classes and functions, and the public methods and properties of the classes."""
    for name in diskreplay.__all__:
        thing = getattr(diskreplay, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            yield name, thing
        for owner in thing.__mro__ if inspect.isclass(thing) else ():
            if owner.__module__.startswith("diskreplay"):
                for member, value in vars(owner).items():
                    if not member.startswith("_") and (callable(value) or is_property(value)):
                        yield f"{name}.{member}", value


def is_property(value: Any) -> bool:
    return isinstance(value, property | classmethod | staticmethod) or hasattr(value, "attrname")


def test_every_public_name_has_a_docstring() -> None:
    objects = dict(public_objects())
    assert {"open", "SumTree.find", "ReplayBuffer.push", "Schema.payload_bytes"} <= objects.keys()
    # The fields of a named tuple have docstrings that collections makes.
    missing = [name for name, thing in objects.items() if not (thing.__doc__ or "").strip()]
    assert not missing


def test_the_package_and_its_modules_have_docstrings() -> None:
    modules: list[ModuleType] = [importlib.import_module(name) for name in public_modules()]
    assert not [module.__name__ for module in modules if not module.__doc__]


@pytest.mark.parametrize("kind", [ReplayBuffer, PrioritizedReplayBuffer])
def test_the_quick_reference_uses_every_method(kind: type) -> None:
    code = "".join(block.source for block in python_blocks("docs/quick-reference.md", "python"))
    methods = {name for name in dir(kind) if not name.startswith("_")}
    assert {"push", "sample", "stats", "check", "schema"} <= methods
    assert not {name for name in methods if not re.search(rf"\.{name}\b", code)}
    for function in (kind, kind.sample, kind.batches):
        for parameter in inspect.signature(function).parameters.keys() - {"self", "batch_size"}:
            assert re.search(rf"\b{parameter}=", code), parameter


def test_the_quick_reference_names_all_that_is_public() -> None:
    text = (ROOT / "docs/quick-reference.md").read_text()
    assert not {name for name in diskreplay.__all__ if not re.search(rf"\b{name}\b", text)}


def test_the_site_has_the_docstring_of_each_public_name() -> None:
    text = (ROOT / "docs/api.md").read_text()
    described = re.findall(r"^\.\. auto(?:class|function|exception):: (\w+)$", text, re.M)
    assert sorted(described) == sorted(set(diskreplay.__all__) - {"__version__"})
    described = re.findall(r"^\.\. autoclass:: diskreplay\.samplers\.(\w+)$", text, re.M)
    assert sorted(described) == sorted(diskreplay.samplers.__all__)


def test_the_errors_in_the_quick_reference_are_the_builtins_it_says() -> None:
    text = (ROOT / "docs/quick-reference.md").read_text()
    said = dict(re.findall(r"^\| `(\w+Error)` \| `(\w+)` \|", text, re.M))
    errors = {
        error.__name__: error.__bases__[1].__name__
        for error in map(vars(diskreplay).get, diskreplay.__all__)
        if inspect.isclass(error)
        and issubclass(error, diskreplay.DiskReplayError)
        and error is not diskreplay.DiskReplayError
    }
    assert said == errors


def test_the_headers_in_the_description_of_the_format_are_those_of_records(tmp_path: Path) -> None:
    text = (ROOT / "docs/format.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([0-9a-f ]+)`[^|]*\| (\d+) \|$", text, re.M)
    assert len(rows) == 14
    bins = {255: "c4 ff", 256: "c5 01 00", 65535: "c5 ff ff", 65536: "c6 00 01 00 00"}
    fields = [Field(name) for name in ("state", "action", "reward", "next_state", "done")]
    fields += [Field(f"{name}_number", np.dtype(name)) for name, _, _ in rows]
    fields += [Field(f"bytes_{length}", np.dtype("u1"), (length,)) for length in bins]
    with ReplayBuffer(capacity=1, path=tmp_path / "store", schema=Schema(fields)) as buffer:
        buffer.push(**{field.name: np.zeros(field.shape, field.dtype) for field in fields})
    with lmdb.open(str(tmp_path / "store"), readonly=True, max_dbs=1) as env:
        transitions = env.open_db(b"transitions", create=False)
        with env.begin() as txn:
            record = txn.get(bytes(8), db=transitions)

    expected = b"\xdc" + (2 + len(fields)).to_bytes(2, "big")
    expected += record[3:12] + b"\xd3" + bytes(8)  # a checksum and write id 0
    expected += 5 * (b"\xca" + bytes(4))
    expected += b"".join(bytes.fromhex(header) + bytes(int(size)) for _, header, size in rows)
    expected += b"".join(bytes.fromhex(header) + bytes(length) for length, header in bins.items())
    assert record == expected
    assert record[3:12] == b"\xcf" + xxh3_64_intdigest(record[12:]).to_bytes(8, "big")


def test_the_databases_in_the_description_of_the_format_are_those_of_the_table() -> None:
    text = (ROOT / "docs/format.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| (.*) \| (.*) \|$", text, re.M)
    plain = [[re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", cell) for cell in row] for row in rows]
    expected = [
        [table.name, "yes" if table.has_numbers else "no", table.key, table.value]
        for table in TABLES
    ]
    assert [[*row[:3], row[3].removeprefix("sealed ")] for row in plain] == expected

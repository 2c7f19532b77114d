"""The house: who imports whom, what is public, what must never be there."""

from __future__ import annotations

import ast
import pkgutil
import sys
from pathlib import Path

import pytest
from common import run_python

import diskreplay
from diskreplay import tables

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(diskreplay.__file__).parent
MAY_IMPORT = {
    "version": set(),
    "wording": set(),
    "bell": set(),
    "forks": {"bell"},
    "errors": set(),
    "refusals": {"errors", "store_directory"},
    "arguments": {"errors"},
    "generator": {"errors"},
    "committer": {"bell", "refusals"},
    "priorities": {"arguments", "errors"},
    "sum_tree": {"arguments", "errors"},
    "sight": set(),
    "schema": {"arguments", "errors", "sight"},
    "packing": set(),
    "tables": set(),
    "seals": {"errors"},
    "features": {"errors"},
    "codec": {"errors", "schema"},
    "layout": {"codec", "errors", "features", "packing", "priorities", "schema"},
    "batch": {"schema"},
    "store_directory": {"errors"},
    "locks": {"errors", "forks", "refusals", "store_directory"},
    "directory": {"errors", "features", "refusals", "store_directory"},
    "waiting": {"errors", "locks", "refusals"},
    "pinned_pages": {"engine", "environment", "errors", "locks"},
    "notes": {"errors", "pages", "store_directory", "waiting"},
    "opened_files": {"errors", "forks", "pages", "refusals", "store_directory", "waiting"},
    "creation": {"directory", "errors", "notes", "refusals", "store_directory"},
    "soundness": {"errors", "notes", "pages", "reading", "refusals", "store_directory", "walk"},
    "admission": {"directory", "errors", "layout", "pages", "seals", "store_directory", "walk"},
    "engine": {"errors", "packing", "refusals", "tables"},
    "warming": {"bell", "engine"},
    "environment": {"engine", "errors", "forks", "opened_files", "warming"},
    "store": {
        "admission", "creation", "directory", "engine", "environment", "errors", "locks", "notes",
        "opened_files", "packing", "pinned_pages", "refusals", "seals", "soundness",
        "store_directory", "tables",
    },
    "uniform": {"errors", "priorities"},
    "samplers": {"arguments", "errors", "priorities", "sum_tree", "uniform"},
    "window": {"errors", "schema"},
    "outbox": {"priorities", "schema", "window"},
    "estimation": {
        "arguments", "errors", "layout", "outbox", "packing", "priorities", "ring", "samplers",
        "schema", "window",
    },
    "ring": {
        "arguments", "codec", "errors", "facts", "layout", "packing", "schema", "store", "version",
        "window",
    },
    "ahead": {"bell"},
    "batches": {"ahead", "errors", "forks", "refusals"},
    "contents": {"ahead", "arguments", "errors", "generator", "ring", "samplers", "store"},
    "exclusive": {
        "ahead", "contents", "errors", "facts", "generator", "priorities", "ring", "samplers",
        "schema", "store",
    },
    "shared": {"ahead", "contents", "layout", "outbox", "priorities", "ring", "schema", "store"},
    "session": {
        "arguments", "committer", "contents", "errors", "estimation", "exclusive", "forkable",
        "forks", "generator", "layout", "pinned_pages", "refusals", "replacing", "ring", "schema",
        "shared", "store", "wording",
    },
    "forkable": {"errors", "store"},
    "replacing": {"creation", "directory", "errors", "locks", "refusals", "store_directory"},
    "pickling": {"errors", "session"},
    "runs": set(),
    "reader": {
        "arguments", "batch", "batches", "contents", "errors", "ring", "schema", "session", "store",
    },
    "base": {
        "arguments", "batches", "contents", "errors", "exclusive", "facts", "locks", "packing",
        "pickling", "reader", "refusals", "runs", "schema", "session", "shared", "sight", "store",
        "tables",
    },
    "buffer": {
        "arguments", "base", "batch", "errors", "facts", "generator", "priorities", "refusals",
        "samplers",
        "schema", "session", "store", "window",
    },
    "pages": set(),
    "walk": {"errors", "pages"},
    "facts": {
        "arguments", "errors", "generator", "priorities", "runs", "samplers", "schema", "store",
    },
    "reading": {
        "admission", "directory", "engine", "errors", "locks", "pages", "refusals",
        "store_directory", "walk",
    },
    "verification": {
        "arguments", "codec", "errors", "facts", "layout", "packing", "pages", "priorities",
        "reading", "refusals", "schema", "seals", "store_directory", "tables", "walk",
    },
    "salvage": {"arguments", "codec", "errors", "facts", "pages", "priorities", "seals", "walk"},
    "rescue": {
        "arguments", "buffer", "creation", "directory", "errors", "exclusive", "generator",
        "reading", "refusals", "salvage", "verification", "walk",
    },
    "rewriting": {
        "arguments", "codec", "creation", "directory", "errors", "estimation", "facts", "layout",
        "locks", "notes", "packing", "priorities", "refusals", "samplers", "schema", "store",
        "store_directory", "verification",
    },
    "merging": {
        "arguments", "buffer", "creation", "directory", "errors", "facts", "refusals", "schema",
        "session", "store", "verification",
    },
    "__init__": {
        "batch", "batches", "buffer", "errors", "estimation", "merging", "pinned_pages",
        "priorities", "rescue", "rewriting", "schema", "sum_tree", "verification", "version",
        "waiting",
    },
}  # fmt: skip
EXTERNAL = {
    "sum_tree": {"numpy"},
    "samplers": {"numpy"},
    "schema": {"numpy"},
    "codec": {"numpy", "xxhash"},
    "notes": {"xxhash"},
    "engine": {"lmdb", "numpy"},
    "warming": {"lmdb", "numpy"},
    "seals": {"msgpack", "xxhash"},
    "environment": {"lmdb"},
    "ring": {"lmdb", "numpy"},
    "salvage": {"msgpack", "numpy"},
}
STANDARD = set(__import__("sys").stdlib_module_names)


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def modules() -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob("*.py"))


def test_every_module_has_a_place_in_the_graph() -> None:
    assert modules() == sorted(MAY_IMPORT)


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_a_module_imports_only_what_it_may(name: str) -> None:
    found = imports(PACKAGE / f"{name}.py")
    own = {
        module.removeprefix("diskreplay.") for module in found if module.startswith("diskreplay")
    }
    assert own - {"wording"} <= MAY_IMPORT[name]  # numbers of things are in messages of all
    roots = {module.split(".")[0] for module in found} - STANDARD - {"diskreplay", "__future__"}
    assert roots - {"typing_extensions"} <= EXTERNAL.get(name, {"numpy"})


def test_the_graph_has_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        ready = {name for name, needs in MAY_IMPORT.items() if needs <= done} - done
        assert ready, f"a cycle among {set(MAY_IMPORT) - done}"
        done |= ready


def test_all_is_what_is_visible() -> None:
    submodules = {module.name for module in pkgutil.iter_modules([str(PACKAGE)])}
    visible = {name for name in vars(diskreplay) if not name.startswith("_")} - submodules
    # `open` hides no module, and the version is the one dunder that is public.
    assert visible | {"__version__"} == set(diskreplay.__all__)
    assert diskreplay.__all__ == sorted(diskreplay.__all__)


def test_every_error_is_public_and_a_builtin_too() -> None:
    classes = [c for c in vars(diskreplay.errors).values() if isinstance(c, type)]
    assert {c.__name__ for c in classes} <= set(diskreplay.__all__)
    for error in classes:
        assert issubclass(error, diskreplay.DiskReplayError)
        if error is not diskreplay.DiskReplayError:
            assert issubclass(error, ValueError | IndexError | OSError | RuntimeError)
            assert error.__name__ in (diskreplay.errors.__doc__ or "")


def test_importing_loads_no_framework() -> None:
    code = """
        import sys
        before = {name.split(".")[0] for name in sys.modules}
        import diskreplay
        loaded = {name.split(".")[0] for name in sys.modules} - before - sys.stdlib_module_names
        print(*sorted(loaded))
    """
    loaded = set(run_python(code).stdout.split())
    private = {name for name in loaded if name.startswith(("_", "cython"))}
    assert loaded - private == {"diskreplay", "numpy", "lmdb", "msgpack", "xxhash"}


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_no_module_pickles_or_asserts_or_touches_the_global_random_state(name: str) -> None:
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    forbidden = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "random"}
    assert not forbidden & imports(PACKAGE / f"{name}.py")
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            is_random = node.value.attr == "random" and ast.unparse(node.value.value) == "np"
            assert not is_random or node.attr in {"Generator", "PCG64"}


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_no_module_waits_for_what_an_interrupt_can_leave_locked(name: str) -> None:
    # Written in Python, these have moments in which an interrupt leaves their lock taken: use Bell.
    breakable = {"Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "Queue"}
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
        assert not isinstance(node, ast.Attribute) or node.attr not in breakable
        assert not isinstance(node, ast.Name) or node.id not in breakable


def test_what_is_tested_as_the_lowest_is_what_is_declared() -> None:
    root = PACKAGE.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # The oldest matplotlib warns beside the newest of what it needs itself.
    names = [name for extra in ("demo", "parquet", "test") for name in extras[extra]]
    declared = {name.partition(";")[0] for name in [*project["dependencies"], *names]}
    lines = (root / ".ci" / "lowest.txt").read_text().splitlines()
    tested = {line.replace("==", ">=") for line in lines if not line.startswith("#")}
    assert declared == tested


def test_files_stay_small() -> None:
    root = PACKAGE.parent
    files = [f for d in ("diskreplay", "tools", "tests") for f in (root / d).rglob("*.py")]
    assert not {str(f.relative_to(root)) for f in files if len(f.read_text().splitlines()) > 460}


def test_no_other_file_lists_the_databases() -> None:
    names = {table.name for table in tables.TABLES}
    root = PACKAGE.parent
    files = [f for d in ("diskreplay", "tools") for f in (root / d).rglob("*.py")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            listed = ast.unparse(node) if isinstance(node, ast.Tuple | ast.List | ast.Set) else ""
            found = {name for name in names if f"'{name}'" in listed}
            assert len(found) < 2 or file.name == "tables.py", f"{file}: {listed}"

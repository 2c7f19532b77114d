"""The house: who imports whom, what is public, what must never be there."""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from common import run_python

import diskreplay
from diskreplay.store import TABLES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(diskreplay.__file__).parent
TOOLS = PACKAGE.parent / "tools"
# The rooms of the house, each with those that it may import from; the ground is open to all.
GROUND = {
    "aliases", "bell", "errors", "forks", "live_range", "protocols", "samplers", "validation",
    "version", "wording",
}  # fmt: skip
MAY_IMPORT: dict[str, set[str]] = {
    "schema": set(),
    "lmdbfile": set(),
    "records": {"schema"},
    "sampling": set(),
    "store": {"lmdbfile", "records", "sampling", "schema"},
    "observations": {"records", "schema", "store"},
    "episodes": {"sampling", "schema"},
    "buffer": {"episodes", "observations", "records", "sampling", "schema", "store"},
    "maintenance": {
        "episodes",
        "lmdbfile",
        "observations",
        "records",
        "sampling",
        "schema",
        "store",
    },
    "limiting": set(),
    "mixture": {"buffer", "sampling", "schema"},
    "service": {"buffer", "episodes", "limiting", "observations", "sampling", "schema", "store"},
    "adapters": set(),
}
GROUND_MAY_IMPORT = {
    "errors": set(),
    "version": set(),
    "wording": set(),
    "aliases": set(),
    "bell": set(),
    "forks": {"bell"},
    "validation": {"aliases", "errors", "wording"},
    "live_range": {"aliases"},
    "protocols": {"aliases"},
    "samplers": {"sampling"},  # public names for users alone
}
# Who beside numpy is imported from which files.
EXTERNAL = {
    "gymnasium": {
        "adapters/cleanrl",
        *(f"adapters/gymnasium/{name}" for name in ("columns", "recording", "single", "vector")),
        "adapters/vector_steps",
        "adapters/stable_baselines3/her",
        "adapters/stable_baselines3/replay_buffers",
    },
    "jax": {"adapters/jax"},
    "h5py": {f"adapters/hdf5/{name}" for name in ("columns", "reading", "writing")},
    "minari": {"adapters/minari"},
    "prometheus_client": {"service/metrics"},
    "pyarrow": {
        "adapters/lerobot",
        "service/connection",
        "service/gate",
        "service/messages",
        "service/server",
        "service/watch",
    },
    "ray": {
        f"adapters/ray_shards/{name}"
        for name in ("__init__", "placing", "shard", "shard_calls", "opening")
    },
    "lmdb": {"store/engine", "store/environment", "store/read_ahead"},
    "numba": {"sampling/compiled_tree"},
    "msgpack": {"records/seals", "maintenance/salvage", "service/messages"},
    "xxhash": {
        "observations/observation_ids",
        "records/codec",
        "records/log_entries",
        "records/seals",
        "store/known_note",
    },
    "stable_baselines3": {
        f"adapters/stable_baselines3/{name}"
        for name in ("her", "prioritized_dqn", "replay_buffers")
    },
    "tensordict": {"adapters/torchrl/storage"},
    "torchrl": {"adapters/torchrl/storage"},
    "torch": {
        "adapters/cleanrl",
        "adapters/stable_baselines3/her",
        "adapters/stable_baselines3/prioritized_dqn",
        "adapters/stable_baselines3/replay_buffers",
        "adapters/torchrl/storage",
        *(
            f"adapters/torch/{name}"
            for name in ("datasets", "packed_batch", "tensor_batches", "tensors", "uploads")
        ),
    },
}
# What the tools take from a room; all else is the public names.
TOOLS_TAKE = {
    "adapters.ray_shards", "adapters.torch", "aliases", "errors", "live_range", "protocols",
    "service", "validation", "wording",
    "buffer", "episodes", "lmdbfile", "maintenance", "records", "sampling", "schema", "store",
}  # fmt: skip
# The rooms of the command line and the files beside them, each with those that it may import.
COMMAND_LINE = TOOLS / "diskreplay_tools"
COMMAND_LINE_MAY_IMPORT: dict[str, set[str]] = {
    "extras": set(),
    "plain": set(),
    "stores": {"extras"},
    "episodes": {"stores"},
    "terminal": {"episodes", "plain", "rates", "stores"},
    "files": {"extras", "plain", "stores"},
    "rates": set(),
    "report": {"episodes", "extras", "stores", "terminal"},
    "ui": {"episodes", "extras", "plain", "rates", "report", "stores", "terminal"},
    "commands": {"episodes", "extras", "files", "plain", "report", "stores", "terminal", "ui"},
    "cli": {"commands", "terminal"},
    "__main__": {"cli"},
    "__init__": set(),
}
TOOL_ROOMS = sorted(file.parent.name for file in COMMAND_LINE.glob("*/__init__.py"))
STANDARD = set(__import__("sys").stdlib_module_names)


@functools.cache
def nodes_of(file: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(file.read_text())))


def imports(file: Path) -> set[str]:
    found = set()
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


FILES = sorted(str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*.py"))


def room_of(name: str) -> str:
    """Return the package of a file; a file of the ground is its own."""
    return name.partition("/")[0]


def own_imports(file: Path) -> set[str]:
    return {
        module.removeprefix("diskreplay.")
        for module in imports(file)
        if module.startswith("diskreplay.")
    }


def test_every_file_has_a_room() -> None:
    rooms = {room_of(name) for name in FILES}
    assert rooms == {*MAY_IMPORT, *GROUND, "__init__"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_only_what_its_room_may(name: str) -> None:
    room = room_of(name)
    for module in own_imports(PACKAGE / f"{name}.py"):
        other, _, inner = module.partition(".")
        if name == "__init__" or (other == room and room in MAY_IMPORT):
            continue
        if room in GROUND:
            assert other in GROUND_MAY_IMPORT[room]
            continue
        assert other in MAY_IMPORT[room] | GROUND
        assert not inner, f"take what is exported by diskreplay.{other}"
    roots = {module.split(".")[0] for module in imports(PACKAGE / f"{name}.py")}
    for root in roots - STANDARD - {"diskreplay", "__future__", "numpy", "typing_extensions"}:
        assert name in EXTERNAL[root]


@pytest.mark.parametrize("name", [name for name in FILES if room_of(name) == "adapters"])
def test_an_adapter_takes_public_names_only(name: str) -> None:
    file = PACKAGE / f"{name}.py"
    others = {module for module in own_imports(file) if not module.startswith("adapters.")}
    assert not others, "use `import diskreplay`"
    for node in nodes_of(file):
        assert not isinstance(node, ast.ImportFrom) or node.module != "diskreplay"
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "diskreplay":
            assert node.attr in diskreplay.__all__


@pytest.mark.parametrize(
    "graph", [{**MAY_IMPORT, **GROUND_MAY_IMPORT}, {**COMMAND_LINE_MAY_IMPORT}]
)
def test_the_rooms_have_no_cycle(graph: dict[str, set[str]]) -> None:
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {name for name, needs in graph.items() if needs <= done} - done
        assert ready, f"a cycle among {set(graph) - done}"
        done |= ready


def taken_of(package: str, room: Path) -> set[str]:
    """Return the names that files outside of a room import from it."""
    return {
        alias.name
        for file in (*PACKAGE.rglob("*.py"), *TOOLS.rglob("*.py"))
        if file.parent != room
        for node in nodes_of(file)
        if isinstance(node, ast.ImportFrom) and node.module == f"{package}.{room.name}"
        for alias in node.names
    }


@pytest.mark.parametrize(
    ("package", "room"),
    [("diskreplay", PACKAGE / room) for room in sorted(MAY_IMPORT)]
    + [(COMMAND_LINE.name, COMMAND_LINE / room) for room in TOOL_ROOMS],
)
def test_a_room_exports_what_others_take_of_it(package: str, room: Path) -> None:
    exported = importlib.import_module(f"{package}.{room.name}").__all__
    assert taken_of(package, room) == set(exported)


@pytest.mark.parametrize(
    "file", sorted(COMMAND_LINE.rglob("*.py")), ids=lambda file: f"{file.parent.name}/{file.stem}"
)
def test_a_file_of_the_command_line_imports_only_what_its_room_may(file: Path) -> None:
    room = file.parent.name if file.parent != COMMAND_LINE else file.stem
    for module in imports(file):
        top, *parts = module.split(".")
        if top == COMMAND_LINE.name and parts[0] != room:
            assert parts[0] in COMMAND_LINE_MAY_IMPORT[room]
            assert len(parts) == 1, f"take what is exported by {top}.{parts[0]}"


def test_the_tools_take_what_is_exported() -> None:
    for file in TOOLS.rglob("*.py"):
        for module in own_imports(file):
            assert module in TOOLS_TAKE, f"{file} imports diskreplay.{module}"


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
        if issubclass(error, Warning):
            continue
        assert issubclass(error, diskreplay.DiskReplayError)
        if error is not diskreplay.DiskReplayError:
            assert issubclass(error, ValueError | IndexError | OSError | RuntimeError | ImportError)
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


@pytest.mark.parametrize("name", FILES)
def test_no_module_pickles_or_asserts_or_touches_the_global_random_state(name: str) -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "random"}
    assert not forbidden & imports(PACKAGE / f"{name}.py")
    for node in nodes_of(PACKAGE / f"{name}.py"):
        assert not isinstance(node, ast.Assert)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            is_random = node.value.attr == "random" and ast.unparse(node.value.value) == "np"
            assert not is_random or node.attr in {"Generator", "Philox", "SeedSequence"}


@pytest.mark.parametrize("name", FILES)
def test_no_module_waits_for_what_an_interrupt_can_leave_locked(name: str) -> None:
    # Written in Python, these have moments in which an interrupt leaves their lock taken: use Bell.
    breakable = {"Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "Queue"}
    for node in nodes_of(PACKAGE / f"{name}.py"):
        if isinstance(node, ast.Attribute) and ast.unparse(node) != "torch.cuda.Event":  # no lock
            assert node.attr not in breakable
        assert not isinstance(node, ast.Name) or node.id not in breakable


def test_what_is_tested_as_the_lowest_is_what_is_declared() -> None:
    root = PACKAGE.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # The oldest matplotlib warns beside the newest of what it needs itself, and Atari games need a
    # newer gymnasium than the demo without them.
    chosen = ("demo", "fast", "hdf5", "lz4", "parquet", "test", "zstd")
    names = [name for extra in chosen for name in extras[extra]]
    declared = {name.partition(";")[0] for name in [*project["dependencies"], *names]}
    lines = (root / ".ci" / "lowest.txt").read_text().splitlines()
    tested = {line.replace("==", ">=") for line in lines if not line.startswith("#")}
    assert declared == tested
    [gymnasium] = extras["gymnasium"]
    assert gymnasium.replace(">=", "==") in (root / ".ci" / "run").read_text()


def test_files_stay_small() -> None:
    root = PACKAGE.parent
    files = [f for d in ("diskreplay", "tools", "tests") for f in (root / d).rglob("*.py")]
    assert not {str(f.relative_to(root)) for f in files if len(f.read_text().splitlines()) > 460}


def test_no_other_file_lists_the_databases() -> None:
    names = {table.name for table in TABLES}
    root = PACKAGE.parent
    files = [f for d in ("diskreplay", "tools") for f in (root / d).rglob("*.py")]
    for file in files:
        for node in nodes_of(file):
            listed = ast.unparse(node) if isinstance(node, ast.Tuple | ast.List | ast.Set) else ""
            found = {name for name in names if f"'{name}'" in listed}
            assert len(found) < 2 or file.name == "tables.py", f"{file}: {listed}"


def test_the_tests_that_a_check_names_are_there() -> None:
    words = re.findall(r"tests/[^\s\\]+", (PACKAGE.parent / ".ci" / "run").read_text())
    assert len(words) > 10
    for word in words:
        names = subprocess.run(
            ["bash", "-O", "failglob", "-c", f"ls -d {word}"],
            cwd=PACKAGE.parent, capture_output=True, text=True,
        )  # fmt: skip
        assert names.returncode == 0, names.stderr

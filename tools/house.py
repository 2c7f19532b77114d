"""Draw the rooms of the house from its imports: `python tools/house.py [--write | --arrows]`.

Without an option it prints the picture that stands in CONTRIBUTING.md. `--write` renews the
picture there, and `--arrows` counts files, imports and floors by room. It reads the syntax trees
alone, and imports nothing of the house. `--calls` is in house_calls.py.
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (ROOT / "diskreplay", ROOT / "tools" / "diskreplay_tools")
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- the picture: written by tools/house.py -->\n", "<!-- end of the picture -->\n"
GROUND = "the ground"
INDENT = " " * 9


class House:
    """The modules of packages, and which of them import which."""

    def __init__(self, *packages: Path) -> None:
        self._trees: dict[str, ast.Module] = {}
        self._doors: set[str] = set()  # the __init__ of each package, which hands names on
        for package in packages:
            for file in sorted(package.rglob("*.py")):
                path = file.parent if file.stem == "__init__" else file.with_suffix("")
                module = ".".join(path.relative_to(package.parent).parts)
                self._trees[module] = ast.parse(file.read_text())
                self._doors |= {module} if file.stem == "__init__" else set()

    @cached_property
    def arrows(self) -> dict[str, set[str]]:
        """Which modules each module imports; a name that a door hands on counts for its file."""
        return {
            module: {self._defined_in(*found) for found in self._imports(module)} - {module}
            for module in self._trees
        }

    def _imports(self, module: str) -> Iterable[tuple[str, str]]:
        """Module and name of each import of the house, the name empty for a whole module."""
        for node in ast.walk(self._trees[module]):
            if isinstance(node, ast.ImportFrom) and node.module in self._trees:
                yield from ((node.module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((alias.name, "") for alias in node.names if alias.name in self._trees)

    def _defined_in(self, module: str, name: str) -> str:
        if f"{module}.{name}" in self._trees:
            return f"{module}.{name}"
        for node in self._trees[module].body if module in self._doors else ():
            if isinstance(node, ast.ImportFrom) and node.module in self._trees:
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return self._defined_in(node.module, alias.name)
        return module

    def _package_of(self, module: str) -> str | None:
        """Return the sub-package that a module is in."""
        package = ".".join(module.split(".")[:2])
        return package if package in self._doors and "." in package else None

    def room_of(self, module: str) -> str:
        """Return the room of a module: its sub-package, or what is beside the sub-packages.

        A file beside them is of the ground, or of the package as a whole if it imports one of them,
        itself or by way of other files beside them.
        """
        package, top = self._package_of(module), module.partition(".")[0]
        if package:
            return package
        used = {self.room_of(name) for name in self.arrows[module] if name.startswith(f"{top}.")}
        return top if module == top or used - {f"{top}: {GROUND}"} else f"{top}: {GROUND}"

    @cached_property
    def rooms(self) -> dict[str, list[str]]:
        """The modules of each room, without the doors of rooms, which only hand names on."""
        rooms: dict[str, list[str]] = {}
        for module in self._trees:
            if module not in self._doors or "." not in module:
                rooms.setdefault(self.room_of(module), []).append(module)
        return rooms

    @cached_property
    def room_arrows(self) -> dict[str, set[str]]:
        """Which rooms each room imports."""
        return {
            room: {self.room_of(name) for module in modules for name in self.arrows[module]}
            - {room}
            for room, modules in self.rooms.items()
        }

    def purpose(self, room: str) -> str:
        """Return the first line of the docstring of a room."""
        if room.endswith(GROUND):
            names = (module.rpartition(".")[2] for module in self.rooms[room])
            return f"Files beside the rooms: {', '.join(names)}."
        return (ast.get_docstring(self._trees[room]) or "").partition("\n")[0]


def floors(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    """Return the floor of each node: the length of its longest chain of imports."""
    found: dict[str, int] = {}
    while len(found) < len(arrows):
        waiting = {name: needs for name, needs in arrows.items() if name not in found}
        ready = [name for name, needs in waiting.items() if needs <= found.keys()]
        if not ready:
            raise SystemExit(f"a circle of imports among {sorted(waiting)}")
        found |= {n: 1 + max((found[need] for need in arrows[n]), default=0) for n in ready}
    return found


def short(room: str) -> str:
    """Return the name of a room as the picture shows it."""
    return (
        room.removeprefix("diskreplay.").removeprefix("diskreplay: ").replace("_tools.", "_tools/")
    )


def picture(house: House) -> str:
    """Draw the rooms, the highest floor first, each above all that it imports."""
    level = floors(house.room_arrows)
    lines = []
    for room in sorted(level, key=lambda room: (-level[room], room)):
        below = sorted(house.room_arrows[room], key=lambda name: (-level[name], name))
        named = [short(name) for name in below if not name.endswith(GROUND)]
        lines.append(f"floor {level[room]:<2} {short(room)}")
        lines += textwrap.wrap(
            house.purpose(room), 100, initial_indent=INDENT, subsequent_indent=INDENT
        )
        lines += [f"{INDENT}--> {', '.join(named)}"] if named else []
    return "\n".join(lines) + "\n"


def table(house: House) -> str:
    """Count files, imports and floors of all, and of each room within."""
    modules = [module for inside in house.rooms.values() for module in inside]
    rows = [("room", "files", "arrows", "floors")]
    for room, inside in [("all", modules), *house.rooms.items()]:
        within = {module: house.arrows[module] & set(inside) for module in inside}
        arrows = sum(len(house.arrows[module]) for module in inside)
        rows.append((short(room), str(len(inside)), str(arrows), str(max(floors(within).values()))))
    return "".join(f"{a:<26} | {b:>5} | {c:>6} | {d:>6}\n" for a, b, c, d in rows)


def block() -> str:
    """Return the picture as it stands in CONTRIBUTING.md."""
    return f"{BEGIN}```text\n{picture(House(*PACKAGES))}```\n{END}"


def main() -> None:
    """Draw or count, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew the picture in CONTRIBUTING.md")
    parser.add_argument("--arrows", action="store_true", help="count files, imports and floors")
    parser.add_argument("--calls", action="store_true", help="count the files that calls enter")
    options = parser.parse_args()
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + block() + rest.partition(END)[2])
    elif options.arrows:
        print(table(House(PACKAGES[0])), end="")
    elif options.calls:
        import house_calls

        print(house_calls.table(), end="")
    else:
        print(block(), end="")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tools"))
    main()

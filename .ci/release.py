"""Check what is in a built wheel and a source distribution, and write the README's program.

Called by `.ci/run` in a checkout: `python .ci/release.py DIST PLACE`. `PLACE/readme.py` gets the
blocks of Python of the README, to be run where only the wheel is installed.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests/support"), str(ROOT / "diskreplay")]

from pages import blocks_of  # noqa: E402
from version import __version__  # noqa: E402  (without the package, which needs numpy)

INFO = f"diskreplay-{__version__}.dist-info"
PACKAGES = {"diskreplay": ROOT, "diskreplay_tools": ROOT / "tools"}
METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}


def modules() -> set[str]:
    """Return the files that a wheel must have of the packages, and no others."""
    files = [(f, root) for name, root in PACKAGES.items() for f in (root / name).rglob("*.py")]
    return {str(file.relative_to(root)) for file, root in files} | {"diskreplay/py.typed"}


def check_wheel(path: Path) -> None:
    """Compare the names in the wheel with those that belong there."""
    with zipfile.ZipFile(path) as wheel:
        found = set(wheel.namelist())
        metadata = message_from_bytes(wheel.read(f"{INFO}/METADATA"))
    expected = modules() | {f"{INFO}/{name}" for name in METADATA}
    assert found == expected, f"{path.name}: {sorted(found ^ expected)}"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "MIT"
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(needed) == 5, needed


def check_source(path: Path) -> None:
    """Look for the files that a packager needs, and for those that do not belong there."""
    with tarfile.open(path) as source:
        found = {name.partition("/")[2] for name in source.getnames()}
    packages = {f"tools/{name}" if "_tools/" in name else name for name in modules()}
    expected = packages | {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"}
    expected |= {"CONTRIBUTING.md", "docs/index.md", "docs/report.png"}  # to which the README leads
    assert expected <= found, f"{path.name} is without {sorted(expected - found)}"
    assert not [name for name in found if name.startswith((".", "tests", "build"))]


def main(dist: Path, place: Path) -> None:
    """Check the two files in `dist`, and write the README's program."""
    assert len(list(dist.iterdir())) == 2, list(dist.iterdir())
    check_wheel(dist / f"diskreplay-{__version__}-py3-none-any.whl")
    check_source(dist / f"diskreplay-{__version__}.tar.gz")
    assert f"## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    blocks = [block.source for block in blocks_of("README.md") if block.kind == "python"]
    (place / "readme.py").write_text("".join(blocks))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

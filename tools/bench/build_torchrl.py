"""Build the compiled part of TorchRL for the torch that is installed beside it.

The one in its wheel loads only with the version of torch that it was built with. The sources are in
the wheel. This runs in the environment of TorchRL, and needs a C++ compiler.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from torch.utils.cpp_extension import load


def main() -> None:
    """Build it, and put it in the place of the one that came with the wheel."""
    found = importlib.util.find_spec("torchrl")
    if found is None or found.origin is None:
        sys.exit("torchrl is not installed here")
    package = Path(found.origin).parent
    old = next(package.glob("_torchrl.*.so"))
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # ninja is there
    with tempfile.TemporaryDirectory() as place:
        sources = [str(package / "csrc" / name) for name in ("pybind.cpp", "utils.cpp")]
        load("_torchrl", sources, build_directory=place, extra_cflags=["-O3", "-DNDEBUG"])
        shutil.copyfile(Path(place) / "_torchrl.so", old)


if __name__ == "__main__":
    main()

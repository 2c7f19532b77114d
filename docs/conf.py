"""The site of these pages: `sphinx-build -W -b html docs OUT`, with the extra `docs`."""

import importlib.util
import re
from pathlib import Path
from typing import Any

from diskreplay.version import __version__

project = "diskreplay"
copyright = "The diskreplay authors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"diskreplay {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
smartquotes = False
myst_heading_anchors = 4  # as on other sites that render Markdown

maximum_signature_line_length = 90
autodoc_preserve_defaults = True
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autodoc_typehints_format = "short"
# Adapters are described without their frameworks, too.
autodoc_mock_imports = [
    name
    for name in (
        "gymnasium",
        "h5py",
        "jax",
        "minari",
        "prometheus_client",
        "pyarrow",
        "ray",
        "stable_baselines3",
        "tensordict",
        "torch",
        "torchrl",
    )
    if importlib.util.find_spec(name) is None
]

# Pages whose text is a file beside `docs`.
BESIDE = {"changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
# A line of a docstring that describes arguments: names, a colon, and the text after two spaces.
ARGUMENTS = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*):(?:  +(\S.*))?$")


def marked_up(text: str) -> str:
    """Return plain text with `names` as reStructuredText, in which nothing else is special."""
    parts = re.split(r"`([^`]*)`", text)
    parts[::2] = [re.sub(r"([*|\\]|_\b)", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"``{part}``" for part in parts[1::2]]
    return "".join(parts)


def docstring_marked_up(text: str) -> str:
    """Return a docstring as reStructuredText; described arguments become a definition list."""
    found = []
    for paragraph in re.split(r"\n{2,}", text):
        if paragraph.startswith(">>>"):
            found.append(paragraph)
            continue
        lines: list[str] = []
        described = False
        for line in marked_up(paragraph).split("\n"):
            names = ARGUMENTS.match(line)
            if names:
                described = True
                lines.append(", ".join(f"``{name}``" for name in names[1].split(", ")))
                lines += [f"    {names[2]}"] if names[2] else []
            elif described and line.startswith(" "):
                lines.append(f"    {line.strip()}")
            else:  # as a line of its own behind arguments: "Returns ..."
                lines += ["", line] if described else [line]
                described = False
        found.append("\n".join(lines))
    return "\n\n".join(found)


def process_docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: Any) -> None:
    """Mark up the docstrings of this project, and leave those of Python and of frameworks."""
    if name.startswith("diskreplay"):
        lines[:] = docstring_marked_up("\n".join(lines)).split("\n")


def process_signature(
    app: Any, what: str, name: str, thing: Any, options: Any, arguments: Any, returned: Any
) -> tuple[str, str] | None:
    """Leave out the arguments of errors."""
    return ("", "") if what == "exception" and arguments else None


def read_source(app: Any, page: str, source: list[str]) -> None:
    """Fill the pages of files beside `docs`, and lead links to these files to the pages."""
    if page in BESIDE:
        source[0] = (Path(app.srcdir).parent / BESIDE[page]).read_text().replace("](docs/", "](")
    for target, file in {**BESIDE, "index": "README.md"}.items():
        source[0] = re.sub(rf"\]\((\.\./)*{file}", f"](/{target}.md", source[0])


def setup(app: Any) -> None:
    """Connect to Sphinx."""
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("source-read", read_source)

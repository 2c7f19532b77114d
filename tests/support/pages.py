"""The pages of the documentation, as fenced blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Block:
    """A fenced block: what its fence says, where it stands, and what a block of text after it is.

    `output` is the `text` block that follows with only blank lines between, which is what a block
    of Python must print.
    """

    kind: str
    line: int
    source: str
    output: str = ""


def blocks_of(page: str) -> list[Block]:
    """All blocks of a page; code that is fenced in another way, or indented, is refused."""
    found: list[Block] = []
    inside: Block | None = None
    ended: Block | None = None  # the block that ended with nothing but blank lines since
    blank = True
    for number, line in enumerate((ROOT / page).read_text().splitlines(keepends=True), 1):
        if inside is None:
            if line.startswith("```"):
                inside = Block(line[3:].strip(), number, "")
            elif line.strip():
                assert not line.lstrip().startswith(("```", "~~~")), f"{page}:{number}: {line}"
                assert not (blank and line.startswith(("    ", "\t"))), f"{page}:{number}: {line}"
                ended = None
            blank = not line.strip()
        elif line == "```\n":
            if inside.kind == "text" and ended is not None and ended.kind.startswith("python"):
                ended.output = inside.source
            found.append(inside)
            inside, ended = None, inside
        else:
            inside.source += line
    assert inside is None, f"{page}:{inside.line}: the block does not end" if inside else ""
    return found

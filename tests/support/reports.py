"""What tests of `diskreplay report` share: stores to report, and the parts of a page."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from diskreplay_tools.cli import main
from runner import runner
from stores import change, stored

from diskreplay import PrioritizedReplayBuffer
from diskreplay.records.seals import seal, unseal

SIDE = 16
HOSTILE = (
    "\x07</title></td><script>document.title='hacked'</script><img src=x onerror=alert(1)>\"'&"
)
VOID = {"meta", "img", "br", "source"}


class Page(HTMLParser):
    """The tags of a page with their attributes, its visible text, and whether tags are closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.words += [" "] * (tag != "span")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self.words += [" "] * (tag != "span")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """What is read, with single spaces."""
        return " ".join("".join(self.words).split())

    def of(self, *names: str) -> list[dict[str, str]]:
        """The attributes of all tags of some names."""
        return [attributes for tag, attributes in self.tags if tag in names]

    def plots(self) -> list[tuple[str, str]]:
        """The figures, for light and for dark."""
        pictures = [a for a in self.of("source", "img") if not is_png(a)]
        lights = [a["src"] for a in pictures[1::2]]
        darks = [a["srcset"] for a in pictures[::2]]
        return list(zip(lights, darks, strict=True))

    def frames(self) -> list[dict[str, str]]:
        """The images of the contact sheet."""
        return [a for a in self.of("img") if is_png(a)]


def is_png(attributes: dict[str, str]) -> bool:
    return attributes.get("src", "").startswith("data:image/png")


def content_of(uri: str) -> bytes:
    return base64.b64decode(uri.partition("base64,")[2], validate=True)


def report(path: Path, out: Path, *options: str) -> Page:
    """Make a page of a store, by the command."""
    result = runner().invoke(main, ["report", str(path), "-o", str(out), *options])
    assert result.exit_code == 0, result.output
    return Page(out.read_text(encoding="utf-8"))


def image(number: int) -> np.ndarray[Any, Any]:
    """A frame that no other number has."""
    frame = np.full((SIDE, SIDE), 40, np.uint8)
    frame[number % SIDE, number // SIDE % SIDE] = 200
    return frame


def pixels(path: Path, n: int = 60, **settings: Any) -> Path:
    """Three stacked frames and one more, episodes of ten transitions, priorities that vary."""
    with PrioritizedReplayBuffer(50, path=path, seed=1, **settings) as buffer:
        for i in range(n):
            stacks = (np.stack([image(j + k) for k in range(4)]) for j in (i, i + 1))
            state, next_state = stacks
            buffer.push(state, i % 3, i % 4 / 2, next_state, i % 10 == 9, priority=1 + i * 7 % 50)
    return path


def hostile(parent: Path) -> Path:
    """A store whose every text is an attempt to be taken for HTML."""
    path = pixels(parent / HOSTILE.replace("/", "").replace("\x07", ""))
    run = unseal(stored(path, "runs", 0), 0, "run")
    run |= {"host": HOSTILE * 20, "versions": {HOSTILE: HOSTILE * 20, "lmdb": ["x"] * 500}}
    change(path, "runs", 0, seal(0, run))
    return path

"""The page of a report: HTML that holds all it shows, and runs and loads nothing.

What is `Html` is escaped. Every function takes plain text, whoever wrote it, and escapes it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NewType

from diskreplay_tools.report.figures import Picture

Html = NewType("Html", str)
NO_BREAK = "\N{NO-BREAK SPACE}"
_NUMBER = re.compile(r"(?<!\d)(\d[\d,.:-]{0,28}\d)(?![\d,.:-]*\d)", re.ASCII)
# Should a text ever slip through unescaped: no script may run and nothing may be loaded.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f8fa; --text: #1f2328; --quiet: #57606a; --line: #d8dee4;
  --link: #0b57c4; --alarm: #cf222e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0d1117; --card: #161b22; --text: #e6edf3; --quiet: #9da7b3; --line: #30363d;
    --link: #7ab4ff; --alarm: #ff7b72;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: anywhere;
}
header, nav, main, footer { max-width: 1120px; margin: 0 auto; padding: 0 16px; }
header { padding-top: 24px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.25rem; margin: 40px 0 4px; padding-top: 16px; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 8px; }
p { margin: 4px 0 12px; max-width: 76ch; }
a { color: var(--link); }
code { font: 0.9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.warning { border-left: 4px solid var(--alarm); background: var(--card); padding: 10px 14px; }
.quiet, figcaption, footer { color: var(--quiet); font-size: 0.9rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 2px 16px; list-style: none; margin: 0; padding: 0; }
nav a { display: inline-block; padding: 6px 0; }
.tiles {
  display: grid; gap: 10px; margin: 20px 0 12px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr));
}
.tiles div { background: var(--card); border-radius: 8px; padding: 10px 14px; }
.tiles dt { color: var(--quiet); font-size: 0.85rem; }
.tiles dd { margin: 0; font-size: 1.3rem; font-weight: 600; line-height: 1.3; }
.tiles dd small { display: block; font-size: 0.8rem; font-weight: 400; color: var(--quiet); }
.columns {
  display: grid; gap: 16px 24px; margin: 12px 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr));
}
.columns > * { min-width: 0; }
.stack > * + * { margin-top: 24px; }
figure { margin: 0; }
.plot { background: var(--card); border-radius: 8px; padding: 14px; }
.plot img { display: block; width: 100%; height: auto; }
.plot figcaption { margin-top: 8px; }
main { display: grid; grid-template-columns: minmax(0, 1fr); column-gap: 24px; }
@media (min-width: 900px) {
  main { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  section { grid-column: 1 / -1; }
  section.half { grid-column: auto; }
  section:not(.half) .alone .plot {
    display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); column-gap: 24px;
    align-items: center;
  }
}
table { border-collapse: collapse; width: 100%; font-size: 0.95rem; }
th, td { text-align: left; vertical-align: top; padding: 6px 12px 6px 0; }
tr { border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 500; font-size: 0.85rem; }
tbody th { font-weight: 400; color: var(--quiet); width: 11em; }
td { font-variant-numeric: tabular-nums; }
.n { white-space: nowrap; }
.sheet {
  display: grid; gap: 12px 10px; margin: 8px 0 20px; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(104px, 1fr));
}
@media (min-width: 900px) {
  .sheet { grid-template-columns: repeat(6, 1fr); }
  thead th { white-space: nowrap; }
}
.sheet img {
  display: block; width: 100%; height: auto; border-radius: 4px; image-rendering: pixelated;
  border: 1px solid var(--line);
}
.sheet figcaption { font-size: 0.8rem; line-height: 1.35; margin-top: 4px; }
.sheet b { color: var(--text); font-weight: 600; }
footer { padding-top: 24px; padding-bottom: 32px; }
@media (max-width: 640px) {
  h1 { font-size: 1.35rem; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .plot { padding: 10px 8px; }
  tbody th { width: 7.5em; }
}
@media (max-width: 899px) {
  .wide thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; }
  .wide tr { display: block; padding: 8px 0; }
  .wide td { display: block; padding: 2px 0 2px 7.5em; }
  .wide td::before {
    content: attr(data-label); color: var(--quiet); float: left; margin-left: -7.5em;
  }
}
"""


@dataclass
class Section:
    """A part of the page, with a heading that the navigation leads to."""

    title: str
    parts: list[Html] = field(default_factory=list)
    half: bool = False  # of the width, on a desk


def text(value: object) -> str:
    """Return text with all that HTML gives a meaning escaped, and no control characters."""
    plain = "".join(
        c if c.isprintable() or c == NO_BREAK else "\N{REPLACEMENT CHARACTER}" for c in str(value)
    )
    return html.escape(plain)


def words_of(value: object) -> str:
    """Return text for the body of the page, in which no number is broken at the end of a line.

    A number that is longer than any of ours is broken, since it might be wider than the screen.
    """
    parts = _NUMBER.split(str(value))  # every other one is a number
    return "".join(
        f'<span class="n">{part}</span>' if i % 2 else text(part) for i, part in enumerate(parts)
    )


def paragraph(words: str, *, quiet: bool = False) -> Html:
    """Return a paragraph."""
    return Html(f"<p{' class=quiet' * quiet}>{words_of(words)}</p>")


def warning(words: str) -> Html:
    """Return a paragraph that is not overlooked."""
    return Html(f'<p class="warning"><strong>Attention:</strong> {words_of(words)}</p>')


def tiles(facts: Sequence[tuple[str, str, str]]) -> Html:
    """Return the most telling facts, large: what, how much, and a remark."""
    return Html(
        '<dl class="tiles">'
        + "".join(
            f"<div><dt>{text(name)}</dt>"
            f"<dd>{words_of(value)}<small>{words_of(more)}</small></dd></div>"
            for name, value, more in facts
        )
        + "</dl>"
    )


def facts_table(caption: str, facts: Sequence[tuple[str, str]]) -> Html:
    """Return a table of names and values under a small heading."""
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{words_of(value)}</td></tr>'
        for name, value in facts
    )
    return Html(f"<div><h3>{words_of(caption)}</h3><table><tbody>{rows}</tbody></table></div>")


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """Return a table with a head; on a narrow screen each row becomes a list of its own."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td data-label="{text(name)}">{words_of(cell)}</td>'
            for name, cell in zip(names, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return Html(f'<table class="wide"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def plot(picture: Picture, alt: str, caption: str) -> Html:
    """Return a figure, in the colours that the reader prefers."""
    return Html(
        '<figure class="plot"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{picture.dark}">'
        f'<img src="{picture.light}" alt="{text(alt)}"></picture>'
        f"<figcaption>{words_of(caption)}</figcaption></figure>"
    )


def stack(parts: Sequence[Html]) -> Html:
    """Return parts that stand below one another in any case."""
    return Html(f'<div class="stack">{"".join(parts)}</div>')


def columns(parts: Sequence[Html]) -> Html:
    """Return parts side by side where there is room, below one another on a phone."""
    alone = " alone" * (len(parts) == 1)
    return Html(f'<div class="columns{alone}">{"".join(parts)}</div>')


def sheet(heading: str, frames: Sequence[tuple[str, str, str, str]]) -> Html:
    """Return frames in a grid: a data: URI, its alternative text, and two lines below it."""
    items = "".join(
        f'<li><figure><img src="{uri}" alt="{text(alt)}">'
        f"<figcaption><b>{words_of(first)}</b><br>{words_of(second)}</figcaption></figure></li>"
        for uri, alt, first, second in frames
    )
    return Html(f'<h3>{text(heading)}</h3><ul class="sheet">{items}</ul>')


def page(
    title: str, place: str, head: Sequence[Html], sections: Sequence[Section], foot: str
) -> str:
    """Return the whole page."""
    links = "".join(f'<li><a href="#{anchor(s)}">{text(s.title)}</a></li>' for s in sections)
    body = "\n".join(
        f'<section id="{anchor(s)}"{" class=half" * s.half}><h2>{text(s.title)}</h2>\n'
        + "\n".join(s.parts)
        + "</section>"
        for s in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{text(title)}</h1>
<p class="quiet"><code>{text(place)}</code></p>
{"".join(head)}
</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
{body}
</main>
<footer><p>{words_of(foot)}</p></footer>
</body>
</html>
"""


def anchor(section: Section) -> str:
    """Return the id of a section."""
    return "".join(c if c.isalnum() else "-" for c in section.title.lower())

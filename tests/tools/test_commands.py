"""Every command has help, an example and a section; the documented outputs are what it prints."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from diskreplay_tools.cli import main
from pages import ROOT, Block, blocks_of
from runner import runner

PAGE = "docs/commands.md"
COMMANDS = list(main.commands)
WITHOUT_OUTPUT = ("demo", "serve", "ui")  # on the page: one takes long, two do not end
CHANGING = ("bench", "report")  # whose figures are others each time, or with each version
# What is another on each machine, or at each time, and what stands for it on the page.
VOLATILE = [
    (re.escape(socket.gethostname()), "host"),
    (r"pid [\d,]+", "pid 4711"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?( [+-]\d{4})?", "2026-01-01 12:00:00"),
    (r"(?<! )  \d\d:\d\d:\d\d$", "  12:00:00"),
    (r"committed \d+ \w+ ago", "committed 9 s ago"),
    (r"(diskreplay|python|numpy|lmdb) \d+\.\d+\.\d+\w*", r"\1 1.2.3"),
    (r"(?m)^[\w-]{43}$", "0hEjRVWhqcnCyIrePykSHTHtgpMBwFbhOrSlOZWuQdQ"),  # a token
]


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does(name: str) -> None:
    found = command(name)
    text = inspect.cleandoc(found.help or "")
    first = text.splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= 62, "the list of commands would cut it off"
    assert re.search(rf"^Example: (\S+=\S+ )?diskreplay {name}\b", text.replace("\b", ""), re.M)
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_is_understood(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = command(name)
    examples = re.findall(rf"diskreplay {name}\b(.*)", inspect.cleandoc(found.help or ""))
    assert examples
    for example in examples:
        arguments = shlex.split(example)
        for word in arguments:
            if not word.startswith("-") and "=" not in word and not Path(word).exists():
                Path(word).parent.mkdir(parents=True, exist_ok=True)
                Path(word).touch() if Path(word).suffix else Path(word).mkdir()
        parent = click.Context(main, **main.context_settings)
        found.make_context(name, arguments, parent)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [80, 120])
def test_the_help_fits_the_terminal(name: str, columns: int) -> None:
    done = runner().invoke(main, [name, "--help"], terminal_width=columns)
    assert done.exit_code == 0
    assert max(map(len, done.output.splitlines())) <= columns
    again = runner().invoke(main, [name, "-h"], terminal_width=columns)
    assert again.output == done.output


def test_the_list_of_commands_is_whole() -> None:
    done = runner().invoke(main, ["--help"], terminal_width=78)  # of 80 columns
    listed = re.findall(r"^  (\w+)  +\S.*[^.]\.$", done.output, re.M)
    assert listed == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_section(name: str) -> None:
    text = (ROOT / PAGE).read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert len(sections[name].split()) > 20
    for parameter in command(name).params:
        is_told_above = parameter.name in ("force", "as_json")
        if isinstance(parameter, click.Option) and not is_told_above:
            long = max(parameter.opts, key=len)
            short = parameter.opts[0]
            assert long in sections[name] or f"`{short}" in sections[name], long
    if name not in WITHOUT_OUTPUT:
        assert f"$ diskreplay {name} " in sections[name]


def steady(text: str) -> str:
    for pattern, instead in VOLATILE:
        text = re.sub(pattern, instead, text, flags=re.M)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def printed(block: Block) -> str:
    """Run the commands of a block where this process is, and return it as it should stand."""
    out = ""
    for line in block.source.splitlines():
        if not line.startswith("$ "):
            continue
        program, *arguments = shlex.split(line[2:])
        assert program == "diskreplay"
        done = runner().invoke(main, arguments, "", {"COLUMNS": "80"}, prog_name="diskreplay")
        assert done.exit_code == 0, (line, done.stderr)
        out += f"{line}\n{done.stdout}{done.stderr}"
    return steady(out)


@pytest.mark.parametrize(
    ("page", "blocks"), [(PAGE, len(COMMANDS) - len(WITHOUT_OUTPUT)), ("README.md", 1)]
)
def test_the_outputs_on_a_page_are_what_the_commands_print(
    page: str,
    blocks: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With --write the page gets what they print."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text()
    wrong: list[Any] = []
    for block in blocks_of(page):
        if block.kind == "python":
            subprocess.run([sys.executable, "-c", block.source], cwd=tmp_path, check=True)
        elif block.kind == "console":
            blocks -= 1
            if "report" in block.source and importlib.util.find_spec("matplotlib") is None:
                continue
            found = printed(block)
            if request.config.getoption("--write"):
                text = text.replace(f"```console\n{block.source}```", f"```console\n{found}```")
            elif any(f"$ diskreplay {name} " in block.source for name in CHANGING):
                number = re.compile(r" *\d[\d.,]* *")
                assert number.sub("0", found) == number.sub("0", block.source)
            elif found != block.source:
                wrong.append((block.line, found, block.source))
    assert not wrong
    assert blocks <= 0, "a command has no output on the page"
    if request.config.getoption("--write"):
        (ROOT / page).write_text(text)


def test_shells_complete_commands() -> None:
    given = {"_DISKREPLAY_COMPLETE": "bash_complete", "COMP_WORDS": "diskreplay re"}
    done = subprocess.run(
        [sys.executable, "-m", "diskreplay_tools"],
        capture_output=True,
        text=True,
        env={**os.environ, **given, "COMP_CWORD": "1"},
    )
    found = [line.split(",")[1] for line in done.stdout.splitlines()]
    assert found == [name for name in COMMANDS if name.startswith("re")]

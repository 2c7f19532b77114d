from __future__ import annotations

import io
import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import COMMAND, refused
from common import columns
from numpy.typing import NDArray
from reports import HOSTILE, SIDE, Page, content_of, hostile, image, pixels, report
from stores import change

import diskreplay
from diskreplay import PrioritizedReplayBuffer, ReplayBuffer
from diskreplay.records.seals import seal

matplotlib_image = pytest.importorskip("matplotlib.image")


@pytest.fixture(scope="module")
def pixel_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    place = tmp_path_factory.mktemp("pixels")
    return report(pixels(place / "b"), place / "report.html")


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    place = tmp_path_factory.mktemp("hostile")
    return report(hostile(place), place / "report.html")


def lines(text: str) -> str:
    """Text with spaces that may break."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


# What the page says


def test_the_facts_are_those_of_the_store(pixel_page: Page, tmp_path: Path) -> None:
    text = lines(pixel_page.text)
    for fact in (
        "Live transitions 50 of 50, 100 % full",
        "Ever written 60 1.2 times the capacity",
        "kind prioritized",
        "capacity 50",
        f"state uint8[4, {SIDE}, {SIDE}], 1.02 kB",
        "action int64, 8 bytes",
        "durability system",
        "alpha 0.6",
        "largest priority 50",
        "Live are the write ids 10 to 59. Run 0 wrote them",
        "10 older transitions are gone",
        f"diskreplay {diskreplay.__version__}",
    ):
        assert fact in text, fact


def test_the_numbers_are_those_of_the_transitions(pixel_page: Page) -> None:
    text = lines(pixel_page.text)
    priorities = np.array([1 + i * 7 % 50 for i in range(10, 60)], np.float64)
    assert sorted(priorities) == list(range(1, 51))
    masses = np.sort(priorities) ** 0.6
    share = 100 * masses[-5:].sum() / masses.sum()
    assert "All 50 transitions: from 1 to 50, mean 25.5, median 25.5" in text
    assert f"The highest tenth gets {share:.0f} % of the draws, with alpha 0.6" in text
    counts = [sum(i % 3 == action for i in range(10, 60)) for action in range(3)]
    assert ", ".join(f"{a}: {2 * n} %" for a, n in enumerate(counts)) in text
    mean = sum(i % 4 / 2 for i in range(10, 60)) / 50
    assert f"All 50 transitions: from 0 to 1.5, mean {mean}, median 1" in text
    returns = [sum(i % 4 / 2 for i in range(b, b + 10)) for b in range(10, 60, 10)]
    assert f"Return of 5 whole episodes: from {min(returns)} to {max(returns)}" in text
    assert "Length of 5 whole episodes: every one is 10." in text


def test_the_sections_have_headings_in_order_and_are_linked(pixel_page: Page) -> None:
    titles = ["Priorities", "Observations", "Episodes", "Rewards", "Actions", "Age and runs"]
    found = re.findall(r"<h2>(.*?)</h2>", pixel_page.source)
    assert found == [*titles, "Facts"]
    assert len(pixel_page.of("h1")) == 1
    levels = [int(tag[1]) for tag, _ in pixel_page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for attributes in pixel_page.of("section")]
    assert [attributes["href"] for attributes in pixel_page.of("a")] == [f"#{i}" for i in ids]


def test_the_sheet_shows_the_highest_and_the_lowest_priorities(pixel_page: Page) -> None:
    frames = pixel_page.frames()
    by_priority = sorted(range(10, 60), key=lambda i: i * 7 % 50)
    expected = by_priority[::-1][:12] + by_priority[:12]
    assert [frame["alt"] for frame in frames] == [
        f"State of write id {i}, priority {1 + i * 7 % 50}" for i in expected
    ]
    for frame, i in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(pixels_of(frame["src"])[:, :, 0], image(i + 3))
    assert "of 4 stacked frames the last is shown" in pixel_page.text


def pixels_of(uri: str) -> NDArray[np.uint8]:
    found = matplotlib_image.imread(io.BytesIO(content_of(uri)), format="png")
    return np.rint(found * 255).astype(np.uint8)


def test_a_uniform_buffer_shows_the_newest_and_the_oldest(tmp_path: Path) -> None:
    with ReplayBuffer(20, path=tmp_path / "b") as buffer:
        for i in range(30):
            buffer.push(image(i) // 20, [0.5, float(i)], 1.0, image(i + 1) // 20, False)
    page = report(tmp_path / "b", tmp_path / "report.html")
    shown = [int(frame["alt"].split()[-1]) for frame in page.frames()]
    assert shown == [*range(29, 17, -1), *range(10, 22)]
    assert "Newest" in page.text
    assert "Priorities" not in page.text
    assert "They are dark, and shown 25 times as bright." in page.text
    assert pixels_of(page.frames()[0]["src"])[:, :, 0].max() == 250
    assert "There is no whole episode in all 20 transitions." in page.text
    assert "2 components, from 0.5 to 29" in page.text


# What the page is


def test_the_page_loads_and_runs_nothing(pixel_page: Page, hostile_page: Page) -> None:
    for page in (pixel_page, hostile_page):
        names = {tag for tag, _ in page.tags}
        assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "svg"}
        for tag, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
            for name in ("src", "srcset", "href", "action", "data", "poster"):
                if name in attributes:
                    wanted = "#" if tag == "a" else "data:image/"
                    assert attributes[name].startswith(wanted)
        assert "@import" not in page.source
        assert "url(" not in page.source
        policy = [a["content"] for a in page.of("meta") if "http-equiv" in a]
        assert policy[0].startswith("default-src 'none'; img-src data:;")


def test_each_figure_is_there_for_light_and_for_dark(pixel_page: Page) -> None:
    plots = pixel_page.plots()
    assert len(plots) == 7  # two of priorities, two of episodes, rewards, actions, runs
    for light, dark in plots:
        assert light != dark
        for uri in (light, dark):
            root = ElementTree.fromstring(content_of(uri))
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            for element in root.iter():
                assert not element.tag.endswith("}script")
                for name, value in element.attrib.items():
                    assert not name.endswith("href") or value.startswith(("#", "data:image/png"))
    for source in pixel_page.of("source"):
        assert source["media"] == "(prefers-color-scheme: dark)"
    assert all(attributes["alt"] for attributes in pixel_page.of("img"))
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in (
        pixel_page.of("meta")
    )


def test_figures_are_those_of_the_data(tmp_path: Path) -> None:
    pages = []
    for scale in (1, 2):
        path = tmp_path / str(scale)
        with PrioritizedReplayBuffer(30, path=path) as buffer:
            buffer.extend(**columns(0, 30), priorities=1 + np.arange(30) % 7 * scale)
        pages.append(report(path, tmp_path / "report.html", "--force").plots())
    *differ, _ = (one != other for one, other in zip(*pages, strict=True))  # the last has the time
    assert differ[:2] == [True, True]
    assert not any(differ[2:])


def test_what_a_stranger_wrote_is_text(hostile_page: Page, pixel_page: Page) -> None:
    assert "<script" not in hostile_page.source
    assert "onerror=alert" in hostile_page.text  # as what it is
    assert "\x07" not in hostile_page.source
    assert HOSTILE[1:60] in hostile_page.text
    names, others = (
        [tag for tag, _ in page.tags if tag != "span"] for page in (hostile_page, pixel_page)
    )
    assert names == others


def test_odd_runs_of_a_stranger_are_told(tmp_path: Path) -> None:
    path = pixels(tmp_path / "b", 20)
    odd: list[Any] = [
        {"started": 1e300, "first": -5, "end": 2**63, "rows": None, "host": None, "versions": 7},
        {"started": "x", "first": 0, "end": 20, "rows": 3, "pid": [1], "versions": {}},
        ["no", "run"],
        {},
    ]
    for number, run in enumerate(odd, 1):
        change(path, "runs", number, seal(number, run))
    text = report(path, tmp_path / "report.html").text
    assert text.count("at a time unknown") >= 3
    assert "Length of 2 whole episodes: every one is 10." in text


# Values of all kinds

KINDS = {
    "extremes": {
        "state": np.array([[np.nan, 1.0, np.inf]] * 4 + [[1e308, -1e308, 0.0]] * 4),
        "action": np.array([0, 2**64 - 1] * 4, np.uint64),
        "reward": np.array([1e308, -1e308] * 4),
    },
    "nothing to draw": {
        "state": np.full((8, 2), np.nan, np.float32),
        "action": np.ones((8, 2), np.complex64),
        "reward": np.zeros((8, 2), np.float32),
    },
    "many components": {
        "state": np.random.default_rng(0).normal(size=(8, 200)).astype(np.float32),
        "action": np.random.default_rng(0).normal(size=(8, 20)).astype(np.float32),
        "reward": np.full(8, 0.1, np.float32),
    },
    "odd shapes": {
        "state": np.zeros((8, 0), np.float32),
        "action": np.arange(16).reshape(8, 2) % 5,
        "reward": np.array([[-1e-30], [1e30]] * 4, np.float32),
    },
    "bools": {
        "state": np.arange(8, dtype=np.float16)[:, None],
        "action": np.array([True, False] * 4),
        "reward": np.array([1] * 7 + [-(2**62)], np.int64),
    },
}
SAID = {
    "extremes": ["33 % are NaN or infinite, and not drawn", "from -1e+308 to 1e+308"],
    "nothing to draw": ["no state is a finite number", "action is not drawn: it is complex",
                        "reward or done is not one value"],
    "many components": ["50 of 200 components", "20 components", "every one is 0.1"],
    "odd shapes": ["state is not drawn: it has no elements", "2 components"],
    "bools": ["0: 50 %, 1: 50 %"],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_all_kinds_are_drawn_or_it_is_said_why_not(tmp_path: Path, kind: str) -> None:
    values = KINDS[kind]
    fields: Any = {name: (v.dtype, v.shape[1:]) for name, v in values.items()}
    fields |= {"next_state": fields["state"], "done": "float32"}
    with PrioritizedReplayBuffer(8, path=tmp_path / "b", schema=fields) as buffer:
        state, action, reward = values.values()
        priorities = [0.0, 0.0, 1e-30, 3e38, 1.0, 2.0, 3.0, 4.0]
        buffer.extend(state, action, reward, state, [False, True] * 4, priorities)
    text = lines(report(tmp_path / "b", tmp_path / "report.html").text)
    for words in [*SAID[kind], "25 % of the priorities are 0"]:
        assert words in text, words


@pytest.mark.parametrize("cleared", [0, 3])
def test_an_empty_buffer_has_a_page_that_says_so(tmp_path: Path, cleared: int) -> None:
    with ReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, cleared))
        buffer.clear()
    page = report(tmp_path / "b", tmp_path / "report.html")
    why = "the 3 transitions written were cleared" if cleared else "no transition was written"
    assert f"The buffer is empty: {why}" in page.text
    assert ("none yet" in page.text) is (cleared == 0)
    assert page.plots() == []


def test_one_transition_has_a_page(tmp_path: Path) -> None:
    with PrioritizedReplayBuffer(10, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(4, 1), priorities=[0.0])
    text = lines(report(tmp_path / "b", tmp_path / "report.html").text)
    assert "The only transition: it is 0." in text
    assert "Return of 1 whole episode: it is 0.5." in text


# The command


def test_the_end_tells_the_page_and_its_size(tmp_path: Path) -> None:
    path, out = pixels(tmp_path / "b", 5), tmp_path / "new" / "page.html"
    result = subprocess.run(
        [*COMMAND, "report", path, "-o", out],
        capture_output=True,
        text=True,
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PATH": ""},
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    size = diskreplay.wording.human(out.stat().st_size)
    assert result.stdout == f"{out}: {size}\n"
    assert [file.name for file in out.parent.iterdir()] == ["page.html"]


def test_a_refusal_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    path = pixels(tmp_path / "b", 5)
    change(path, "meta", "state", b"nothing")
    assert "diskreplay.repair()" in refused("report", path, "-o", tmp_path / "report.html")
    assert [place.name for place in tmp_path.iterdir()] == ["b"]

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import BINARIES, BINARY, Browser
from reports import hostile, pixels, report
from stores import change, stored

from diskreplay.records.seals import seal, unseal

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.skipif(
    BINARY is None, reason=f"there is no browser: none of {', '.join(BINARIES)} is installed"
)
WIDTHS = (390, 1280)
OUTSIDE = """
[...document.querySelectorAll("body *")]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)
    .map(e => e.tagName + " " + e.textContent.slice(0, 40))
"""


# Numbers that stand on more than one line; a path, with numbers in its names, may take several.
BROKEN = """
(() => {
    const found = [], range = document.createRange();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const numbers = /(?<![\\w\\/-])\\d[\\d,.:-]*\\d(?!\\w)/g;
        for (const match of texts.currentNode.data.matchAll(numbers)) {
            range.setStart(texts.currentNode, match.index);
            range.setEnd(texts.currentNode, match.index + match[0].length);
            const lines = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
            if (lines.size > 1) found.push(match[0]);
        }
    }
    return found;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a store whose texts are long, and pretend to be HTML."""
    place = tmp_path_factory.mktemp("report")
    report(hostile(place), place / "report.html")
    return place / "report.html"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(browser: Browser, page: Path, width: int) -> None:
    browser.show(page, width=width)
    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(OUTSIDE) == []


@pytest.fixture(scope="module")
def runs_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a store that runs wrote in turn, with numbers as long as they get."""
    place = tmp_path_factory.mktemp("runs")
    path = pixels(place / "b", 20)
    first = unseal(stored(path, "runs", 0), 0, "run")
    for number, rows in enumerate((0, 80_480_123, 143_062_456)):
        run = {**first, "first": 0, "end": 306_284_999, "rows": rows, "host": "trainer-17"}
        change(path, "runs", number, seal(number, run))
    assert "80,480,123" in report(path, place / "report.html").text
    return place / "report.html"


@pytest.mark.parametrize("width", [320, 390, 641, 720, 899, 900, 1024, 1280])
def test_no_number_is_broken(browser: Browser, runs_page: Path, width: int) -> None:
    browser.show(runs_page, width=width)
    assert browser.value("document.querySelectorAll('.wide td').length") == 21
    assert browser.value(BROKEN) == []
    if width >= 900:  # else each row is a list of its own
        heads = "[...document.querySelectorAll('thead th')].map(e => e.getClientRects()[0].height)"
        assert max(browser.value(heads)) < 40  # one line
    assert browser.value(OUTSIDE) == []


def test_all_images_are_drawn(browser: Browser, page: Path) -> None:
    browser.show(page, width=390)
    sizes = browser.value("[...document.images].map(i => [i.naturalWidth, i.width, i.height])")
    assert len(sizes) > 30
    assert all(min(size) > 0 for size in sizes)
    # A plot takes the width of a phone, but for margins, and a letter of it is readable there.
    plots = browser.value("[...document.querySelectorAll('.plot img')].map(i => i.width)")
    assert min(plots) > 320


def test_the_page_asks_for_nothing_and_runs_nothing(browser: Browser, page: Path) -> None:
    browser.show(page, width=1280)
    assert browser.requests == [page.as_uri()]
    assert browser.value("document.scripts.length") == 0
    assert browser.value("document.title").startswith("Replay buffer <title>")
    assert browser.value("document.querySelectorAll('[onerror], [onload], [onclick]').length") == 0


def test_a_request_would_have_been_seen(browser: Browser, page: Path) -> None:
    other = page.with_name("other.html")
    other.write_text("<!DOCTYPE html><img src='http://127.0.0.1:9/a.png'><p style='width:900px'>x")
    browser.show(other, width=390)
    assert browser.requests == [other.as_uri(), "http://127.0.0.1:9/a.png"]
    assert browser.value("document.documentElement.scrollWidth") > 390


def test_the_policy_of_the_page_stops_what_would_be_loaded_or_run(
    browser: Browser, page: Path
) -> None:
    other = page.with_name("slipped.html")
    slipped = "<img src='http://127.0.0.1:9/a.png'><script>document.title = 'hacked'</script>"
    other.write_text(page.read_text().replace("<main>", f"<main>{slipped}"))
    browser.show(other, width=390)
    assert browser.value("document.scripts.length") == 1
    assert browser.value("document.title") != "hacked"
    assert browser.value("document.images[0].naturalWidth") == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_dark_where_that_is_preferred(browser: Browser, page: Path, width: int) -> None:
    shots, backgrounds, sources = [], [], []
    for dark in (False, True):
        browser.show(page, width=width, dark=dark)
        shots.append(browser.screenshot())
        backgrounds.append(browser.value("getComputedStyle(document.body).backgroundColor"))
        sources.append(
            browser.value("[...document.querySelectorAll('.plot img')].map(i => i.currentSrc)")
        )
    assert shots[0] != shots[1]
    assert backgrounds == ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]
    assert all(light != dark for light, dark in zip(*sources, strict=True))


def test_links_lead_to_their_sections(browser: Browser, page: Path) -> None:
    browser.show(page, width=390)
    browser.value("document.querySelector('nav a[href=\"#actions\"]').click()")
    top = browser.value("document.getElementById('actions').getBoundingClientRect().top")
    assert abs(top) < 5

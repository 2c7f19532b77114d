"""The page of `diskreplay ui`: a real server, and a browser that clicks through it."""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import BINARIES, BINARY, Browser
from common import columns
from others import Other
from reports import HOSTILE, hostile, pixels
from stores import spoil
from ui_process import serving

import diskreplay

pytest.importorskip("nicegui")
pytestmark = pytest.mark.skipif(
    BINARY is None, reason=f"there is no browser: none of {', '.join(BINARIES)} is installed"
)
ROWS = "document.querySelectorAll('.transitions tbody tr')"
LIVE = "document.querySelector('.state.live')"
DETAIL = "document.querySelector('.detail')"


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for each test: a page at an address has a process of its own, which stays."""
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


def open_page(browser: Browser, address: str, width: int = 1280, *, dark: bool = False) -> None:
    browser.show(address, width=width, dark=dark)
    browser.until(f"{LIVE} && document.body.innerText.includes('Live transitions')")


def click(browser: Browser, where: str, text: str) -> None:
    """Click on the first element of a selector that has a text."""
    found = f"[...document.querySelectorAll('{where}')].find(e => e.textContent.includes('{text}'))"
    browser.until(found)
    browser.value(f"{found}.click()")


def show_transitions(browser: Browser, n: int) -> None:
    click(browser, ".q-tab", "Transitions")
    browser.until(f"{ROWS}.length === {n}")


def words(browser: Browser) -> str:
    return str(browser.value("document.body.innerText"))


def test_one_clicks_through_the_transitions_beside_a_writer(
    browser: Browser, tmp_path: Path
) -> None:
    with Other(tmp_path / "b") as writer:
        writer.open(1000)
        for first in range(0, 100, 5):  # the states of an episode follow each other
            writer.extend_given(
                states=np.arange(first, first + 5.0)[:, None], actions=np.zeros(5, int),
                rewards=np.ones(5), next_states=np.arange(first + 1.0, first + 6)[:, None],
                dones=np.arange(5) == 4, priorities=np.arange(first, first + 5.0),
            )  # fmt: skip
        writer.flush()
        with serving(tmp_path / "b") as address:
            open_page(browser, address)
            browser.until("document.body.innerText.includes('100 in all')")
            browser.until("document.body.innerText.includes('20 whole among the newest 100')")
            show_transitions(browser, 20)
            first = browser.value(f"{ROWS}[0].innerText")
            assert re.split(r"\s+", first)[:5] == ["99", "99", "0", "1", "99"]
            click(browser, "button", "Older")
            browser.until(f"{ROWS}[0].innerText.startsWith('79')")

            click(browser, ".filters label", "end")
            click(browser, ".q-item", "done")
            click(browser, ".filters button", "Show")
            browser.until(f"{ROWS}[1].innerText.startsWith('94')")
            assert "20 transitions, newest first; 96 looked at" in words(browser)

            browser.value(f"{ROWS}[1].click()")  # to the transition, and to its neighbours
            browser.until(f"{DETAIL}?.innerText.includes('Write id 94')")
            assert "the episode ends here: done" in browser.value(f"{DETAIL}.innerText")
            browser.value("document.querySelector('[aria-label=\"One older\"]').click()")
            browser.until(f"{DETAIL}.innerText.includes('Write id 93')")
            click(browser, ".detail button", "Episode")
            browser.until(f"{DETAIL}.innerText.includes('Episode: 5 live transitions')")
            steps = "document.querySelectorAll('.detail tbody tr')"
            assert browser.value(f"{steps}.length") == 5
            browser.value(f"{steps}[0].click()")
            browser.until(f"{DETAIL}.innerText.includes('Write id 90')")
            browser.value("document.querySelector('.detail [aria-label=Close]').click()")
            browser.until("!document.querySelector('.q-dialog__inner')")

            click(browser, ".filters label", "end")
            click(browser, ".q-item", "any")
            click(browser, ".q-toggle", "Follow")
            writer.extend_given(
                states=[[5.0]], actions=[1], rewards=[2.0], next_states=[[6.0]], dones=[True]
            )
            writer.flush()
            browser.until(f"{ROWS}[0].innerText.startsWith('100')")
            click(browser, ".q-tab", "Store")
            browser.until("document.body.innerText.includes('exclusive')")
            assert f"pid {writer.process.pid} on" in words(browser)
            assert "this page" in words(browser)


def test_it_changes_nothing_and_leaves_nothing(browser: Browser, tmp_path: Path) -> None:
    path = pixels(tmp_path / "b")

    def content() -> dict[str, str]:
        return {
            str(file.relative_to(tmp_path)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in tmp_path.rglob("*")
            if file.is_file() and file.name != "lock.mdb"  # where readers have their slots
        }

    before = content()
    with serving(path) as address:
        open_page(browser, address)
        show_transitions(browser, 20)
    assert content() == before
    with serving(path, ends=[signal.SIGTERM]):
        pass
    assert content() == before


def test_images_are_drawn_and_texts_of_a_store_are_no_html(
    browser: Browser, tmp_path: Path
) -> None:
    path = hostile(tmp_path)
    with diskreplay.open(path, access="exclusive") as buffer:
        buffer.mark("mark <b>bold</b>", {"note": HOSTILE})
    with serving(path) as address:
        open_page(browser, address)
        assert browser.value("document.title") == "diskreplay"
        show_transitions(browser, 20)
        browser.value(f"{ROWS}[0].click()")
        browser.until(f"{DETAIL}?.innerText.includes('Write id')")
        browser.until("document.querySelectorAll('.detail .frames img').length >= 8")
        drawn = "[...document.querySelectorAll('.frames img, .thumb')].map(i => i.naturalWidth)"
        assert min(browser.value(drawn)) >= 16
        browser.value("document.querySelector('.detail [aria-label=Close]').click()")
        click(browser, ".q-tab", "Store")
        browser.until("document.body.innerText.includes('mark <b>bold</b>')")
        shown = words(browser)
        assert "<script>document.title=" in shown  # of the host, the versions and the mark
        assert browser.value("document.title") == "diskreplay"
        assert browser.value("document.querySelectorAll('[onerror], b').length") == 0
        assert {urlsplit(url).netloc for url in browser.requests} == {urlsplit(address).netloc}


def test_texts_of_transitions_are_no_html(browser: Browser, tmp_path: Path) -> None:
    evil = HOSTILE + "{{constructor.constructor('document.title=1')()}}"
    with diskreplay.ReplayBuffer(50, path=tmp_path / "b") as buffer:
        for i in range(6):
            state = {"words": evil, "numbers": np.arange(3.0) + i}
            next_state = {"words": evil, "numbers": np.arange(3.0) + i + 1}
            buffer.push(state, i, 1.0, next_state, i == 5, prompt=evil)
    with serving(tmp_path / "b") as address:
        open_page(browser, address)
        show_transitions(browser, 6)
        browser.value(f"{ROWS}[0].click()")
        browser.until(f"{DETAIL}?.innerText.includes('Write id 5')")
        found = browser.value(f"{DETAIL}.innerText")
        assert "<img src=x onerror=alert(1)>" in found
        assert "{{constructor" in found
        assert "prompt" in found
        assert browser.value("document.title") == "diskreplay"
        assert browser.value("document.querySelectorAll('[onerror]').length") == 0


def test_a_store_without_a_schema_is_empty_until_the_first_push(
    browser: Browser, tmp_path: Path
) -> None:
    with Other(tmp_path / "b") as writer:
        writer.open(1000)
        with serving(tmp_path / "b") as address:
            open_page(browser, address)
            browser.until("document.body.innerText.includes('of 1,000, 0.0 % full')")
            click(browser, ".q-tab", "Transitions")
            browser.until("document.body.innerText.includes('no transition there')")
            click(browser, ".q-tab", "Store")
            browser.until("document.body.innerText.includes('none yet')")
            writer.extend(0, 10)
            writer.flush()
            browser.until("document.body.innerText.includes('next_state')")
            click(browser, ".q-tab", "Transitions")
            click(browser, "button", "Newest")
            browser.until(f"{ROWS}.length === 10")


def test_a_store_may_be_cleared_removed_and_made_anew(browser: Browser, tmp_path: Path) -> None:
    with Other(tmp_path / "b") as writer:
        writer.open(1000)
        writer.extend(0, 30)
        writer.flush()
        with serving(tmp_path / "b") as address:
            open_page(browser, address)
            show_transitions(browser, 20)
            writer.clear()
            writer.flush()
            browser.value(f"{ROWS}[0].click()")
            browser.until(f"{DETAIL}?.innerText.includes('is not live')")
            browser.value("document.querySelector('.detail [aria-label=Close]').click()")
            click(browser, "button", "Newest")
            browser.until("document.body.innerText.includes('no transition there')")
            writer.close()
            shutil.rmtree(tmp_path / "b")
            browser.until("document.body.innerText.includes('Not read at the moment')")
            with diskreplay.ReplayBuffer(77, path=tmp_path / "b") as buffer:
                buffer.extend(**columns(0, 7))
            browser.until(LIVE)
            click(browser, ".q-tab", "Overview")
            browser.until("document.body.innerText.includes('of 77, 9.1 % full')")


def test_a_damaged_record_is_told_of(browser: Browser, tmp_path: Path) -> None:
    with diskreplay.ReplayBuffer(300, path=tmp_path / "b") as buffer:
        buffer.extend(**columns(0, 50))
    spoil(tmp_path / "b", [45])
    with serving(tmp_path / "b") as address:
        open_page(browser, address)
        show_transitions(browser, 20)
        damaged = "[...document.querySelectorAll('.transitions tr')].filter("
        damaged += "e => e.innerText.includes('damaged')).map(e => e.innerText.slice(0, 2))"
        assert browser.value(damaged) == ["45"]
        click(browser, ".q-tab", "Overview")
        browser.until(
            "document.body.innerText.includes('a sample of 49 of 50')"
        )  # rewards of the others
        assert browser.value("document.querySelector('.problem').offsetHeight") == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, tmp_path: Path, width: int) -> None:
    with serving(hostile(tmp_path)) as address:
        backgrounds = []
        for dark in (False, True):
            open_page(browser, address, width, dark=dark)
            for tab in ("Overview", "Transitions", "Store"):
                click(browser, ".q-tab", tab)
                browser.until(f"document.querySelector('.q-tab--active').innerText == '{tab}'")
                if tab == "Transitions":
                    browser.until(f"{ROWS}.length === 20")
                assert browser.value("document.documentElement.scrollWidth") <= width
            backgrounds.append(browser.value("getComputedStyle(document.body).backgroundColor"))
        assert backgrounds == ["rgb(246, 248, 250)", "rgb(13, 17, 23)"]


def test_other_sites_get_nothing(tmp_path: Path) -> None:
    with serving(pixels(tmp_path / "b")) as address:
        place = urlsplit(address).netloc

        def status(**headers: str) -> int:
            connection = http.client.HTTPConnection(place, timeout=60)
            connection.request("GET", "/", headers=headers)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status

        assert status() == 200
        assert status(Host="evil.example") == 403
        assert status(Origin="http://evil.example") == 403

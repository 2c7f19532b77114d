"""What stands in a store's directory: no link is followed, and nothing large is read whole."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from common import run_python

import diskreplay
from diskreplay.store.openers import openers


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory with files of somebody, some of them with names like ours."""
    place = tmp_path / "victim"
    place.mkdir()
    for name in ("a", "12-0123abcd", "data.mdb"):
        (place / name).write_text("precious")
    return place


def content(place: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in place.iterdir()}


def link(place: Path, target: Path) -> None:
    """Put a link in the place of a file or directory, of which nothing is left."""
    if place.exists():
        place.rename(place.with_name(f"{place.name}.old"))
    place.symlink_to(target)


def test_a_link_in_place_of_the_openers_is_not_followed(store: Path, victim: Path) -> None:
    before = content(victim)
    with diskreplay.open(store) as buffer:
        link(store / "openers", victim)
        assert buffer.stats()["openers"] == []
        assert openers(store) == []
    assert content(victim) == before
    for call in (diskreplay.open, diskreplay.compact):
        with pytest.raises(diskreplay.DamageError, match="openers is not a directory"):
            call(store)
    assert any("openers is not a directory" in fault for fault in diskreplay.verify(store))
    assert content(victim) == before


def test_only_entries_of_our_naming_are_removed(store: Path) -> None:
    entries = store / "openers"
    for name in ("keep", "12-0123abcd", "12-0123abcde", "x-0123abcd", "12-0123abcd "):
        (entries / name).write_text("")
    (entries / "13-0123abcd").mkdir()
    (entries / "14-0123abcd").symlink_to(store / "data.mdb")
    assert openers(store) == []
    assert sorted(entry.name for entry in entries.iterdir()) == [
        "12-0123abcd ", "12-0123abcde", "13-0123abcd", "14-0123abcd", "keep", "x-0123abcd",
    ]  # fmt: skip


def test_what_a_killed_rewriting_left_is_removed_and_nothing_behind_a_link(
    store: Path, victim: Path
) -> None:
    before = content(victim)
    link(store / ".diskreplay-rewritten-link", victim)
    left = store / ".diskreplay-rewritten-left"
    (left / "store").mkdir(parents=True)
    (left / "store" / "link").symlink_to(victim)
    (store / ".diskreplay-rewritten-file").write_text("")
    diskreplay.compact(store)
    assert content(victim) == before
    assert not left.exists()


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb", "openers.lock"])
def test_a_file_of_an_open_store_that_becomes_a_link_is_not_followed(
    name: str, store: Path, victim: Path
) -> None:
    before = content(victim)
    with diskreplay.open(store, access="read") as reader:
        link(store / name, victim / "data.mdb")
        with pytest.raises(diskreplay.StorageError, match=f"{name} is another file now"):
            len(reader)
    for call in (
        diskreplay.open,
        diskreplay.compact,
        lambda path: diskreplay.repair(path, path / "x"),
    ):
        with pytest.raises(diskreplay.DamageError, match=f"{name} is not a file"):
            call(store)
    assert content(victim) == before


SPARSE = """
    import resource, sys
    import diskreplay
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # that of who started this, too
    try:
        with diskreplay.open(sys.argv[1], access="read") as buffer:
            print(len(buffer))
    except diskreplay.DiskReplayError as error:
        print(type(error).__name__, error)
    print(diskreplay.verify(sys.argv[1]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("diskreplay.json", "DamageError .*diskreplay.json has more than 65536 bytes"),
        ("lock.mdb", r"DamageError .*lock.mdb has 42949672960 bytes \(expected 16777216 at most"),
        ("data.known", "^2000\n"),
        ("writer.lock", "^2000\n"),
        ("openers/1-01234567", "^2000\n"),
    ],
)
def test_a_file_that_should_be_small_is_not_read_whole(
    name: str, message: str, store: Path
) -> None:
    with (store / name).open("ab") as file:
        file.truncate(40 << 30)
    assert re.search(message, run_python(SPARSE, store).stdout)


def test_very_many_names_among_the_openers_are_passed_over(store: Path) -> None:
    for number in range(20_000):
        os.mknod(store / "openers" / f"{number}")
    with diskreplay.open(store) as buffer:
        assert [opener["pid"] for opener in buffer.stats()["openers"]] == [os.getpid()]
    assert len(list((store / "openers").iterdir())) == 20_000

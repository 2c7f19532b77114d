"""Histograms, bars and pictures: they are right, and they fit."""

from __future__ import annotations

import itertools
from typing import Any

import click
import numpy as np
import pytest
from diskreplay_tools.terminal.bars import bar, gauge, histogram, sparkline, table
from diskreplay_tools.terminal.histograms import MOST_BINS, Bins, bins_of
from diskreplay_tools.terminal.numbers import number, percent
from diskreplay_tools.terminal.pictures import picture
from diskreplay_tools.terminal.text import Screen, entry, item, say
from numpy.typing import NDArray
from runner import runner

BLOCKS, ASCII = Screen(80, blocks=True), Screen(80, blocks=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (np.uint64(2**64 - 1), "18,446,744,073,709,551,615"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (2.0, "2"),
        (0.123456, "0.1235"),
        (-12345.678, "-12,346"),
        (1e38, "1e+38"),
        (1.5e-7, "1.5e-07"),
        (9999.99, "10,000"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (True, "true"),
        (np.bool_(False), "false"),
        (1.5 - 2j, "1.5-2j"),
        (np.complex64(3j), "0+3j"),
    ],
)
def test_numbers(value: object, text: str) -> None:
    assert number(value) == text


def test_a_share_is_nothing_or_all_only_where_that_is_true() -> None:
    assert percent(0, 10) == "0.0 %"
    assert percent(10, 10) == "100.0 %"
    assert percent(1, 1_000_000) == "<0.1 %"
    assert percent(999_999, 1_000_000) == ">99.9 %"
    assert percent(1, 3) == "33.3 %"
    assert percent(0, 0) == "0.0 %"


# Bins


def count_by_hand(values: NDArray[Any], bins: Bins) -> list[int]:
    if bins.values is not None:
        return [int(np.count_nonzero(values == value)) for value in bins.values]
    assert bins.edges is not None
    counts = []
    with np.errstate(over="ignore"):
        edges = np.array(bins.edges).astype(values.dtype)
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        last = i == len(edges) - 2
        inside = (values >= low) & ((values <= high) if last else (values < high))
        counts.append(int(np.count_nonzero(inside)))
    return counts


@pytest.mark.parametrize("may_grow", [False, True])
@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e-3, 1.0, 12345.0, 1e18, 1e307])
def test_every_value_is_in_the_bin_that_its_label_says(scale: float, may_grow: bool) -> None:
    rng = np.random.default_rng(int(np.log10(scale)) + 1000)
    for offset in (0.0, scale, -3 * scale, 1e9 * scale if scale < 1e200 else 0.0):
        values = np.round(rng.normal(size=500), 3) * scale + offset
        if may_grow:
            values = np.abs(values)
        bins = bins_of(values, may_grow=may_grow)
        assert bins.counts == count_by_hand(values, bins)
        assert sum(bins.counts) == values.size
        assert 1 < len(bins.counts) <= MOST_BINS + 3
        edges = bins.edges
        assert edges == sorted(set(edges or []))
        assert len(set(bins.labels())) == len(bins.counts)


def test_even_bins_have_round_edges() -> None:
    bins = bins_of(np.linspace(-1, 1, 1001))
    assert bins.edges == [-1.0, -0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert bins.labels()[:2] == ["-1.0 to -0.8", "-0.8 to -0.6"]
    assert bins.labels()[-1] == " 0.8 to  1.0"
    assert bins_of(np.arange(25_000)).labels()[1] == " 5,000 to 10,000"
    assert bins_of(np.arange(25_000)).counts == [5000] * 5


def test_priorities_of_different_sizes_get_bins_that_grow() -> None:
    values = np.float32(10) ** np.linspace(-2, 0.5, 100, dtype=np.float32)
    bins = bins_of(values, may_grow=True)
    assert float(values[0]) < 0.01  # as float32 is just below it
    assert bins.edges == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
    assert bins.counts == count_by_hand(values, bins)

    wide = np.append(np.float32(10) ** np.linspace(-45, 38, 300), [0.0, 0.0]).astype(np.float32)
    bins = bins_of(wide, may_grow=True)
    assert bins.edges is not None
    assert bins.edges[0] == 0.0
    assert len(bins.counts) <= MOST_BINS + 2
    assert bins.counts == count_by_hand(wide, bins)
    assert (
        bins_of(np.linspace(1, 50, 100), may_grow=True).edges
        == bins_of(np.linspace(1, 50, 100)).edges
    )  # near each other


def test_a_few_values_are_counted_one_by_one() -> None:
    bins = bins_of(np.array([0.1, 0.1, -2, 1e38], np.float32))
    assert bins == Bins([1, 2, 1], values=[-2.0, 0.1, 1e38])
    assert [label.strip() for label in bins.labels()] == ["-2", "0.1", "1e+38"]
    assert bins_of(np.ones(5, np.int64)) == Bins([5], values=[1.0])
    assert bins_of(np.array([True, False, True])) == Bins([1, 2], values=[0.0, 1.0])
    near = Bins([1, 1], values=[1.0000000001, 1.0000000002])
    assert near.labels() == ["1.0000000001", "1.0000000002"]
    late = np.append(np.zeros(5000), np.arange(20))
    assert bins_of(late).values is None  # the first thousand are all the same


def test_bins_as_plain_numbers() -> None:
    assert Bins([2], values=[1.0]).to_plain() == {"values": [1.0], "counts": [2]}
    assert Bins([2], edges=[0.0, 1.0]).to_plain() == {"edges": [0.0, 1.0], "counts": [2]}


# Bars


@pytest.mark.parametrize("on", [BLOCKS, ASCII])
def test_a_bar_is_as_long_as_its_share_and_seen_when_it_is_not_zero(on: Screen) -> None:
    assert bar(0.0, 20, on) == ""
    assert len(bar(1.0, 20, on)) == 20
    assert len(bar(0.5, 20, on)) == 10
    assert len(bar(1e-9, 20, on)) == 1
    assert len(gauge(0.3, 20, on)) == 20
    assert "".join(set(bar(1.0, 20, ASCII) + bar(1e-9, 20, ASCII) + gauge(0.5, 4, ASCII))).isascii()


def test_blocks_show_eighths() -> None:
    assert bar(0.5 + 1 / 80, 10, BLOCKS) == "█████▏"
    assert bar(0.5 + 7 / 80, 10, BLOCKS) == "█████▉"


@pytest.mark.parametrize("width", [30, 40, 80, 120])
@pytest.mark.parametrize("blocks", [True, False])
def test_a_histogram_fits_the_terminal_and_is_aligned(width: int, blocks: bool) -> None:
    bins = bins_of(np.random.default_rng(0).normal(size=100_000) * 1e4)
    lines = histogram(bins, Screen(width, blocks))
    assert len(lines) == len(bins.counts)
    assert max(map(len, lines)) <= width
    assert max(map(len, lines)) >= width - 1  # the longest bar takes what there is
    for line, count in zip(lines, bins.counts, strict=True):
        if width >= 40:
            assert f"{count:,}" in line
    assert len({line.index(" to ") for line in lines}) == 1
    assert all(line.isascii() for line in lines) is not blocks


def test_a_column_that_does_not_fit_is_left_out() -> None:
    lines = table(["a", "bb"], [["1", "22"], ["x" * 60, "y"]], [1, 2], Screen(40, blocks=False))
    assert lines == ["   a   1  ###############", "  bb  22  " + "#" * 30]


def test_sparklines() -> None:
    assert sparkline([0, 1, 2], BLOCKS) == "▁▅█"
    assert sparkline([0, 0], ASCII) == "__"
    assert sparkline([], ASCII) == ""


# Text


def test_labelled_text_goes_on_under_itself() -> None:
    on = Screen(30, blocks=True)
    assert entry("label", "one two three four five", on).split("\n") == [
        "  label        one two three", "               four five",
    ]  # fmt: skip
    assert item("one two", "three four five six seven eight", on).split("\n") == [
        "  one two", "    three four five six seven", "    eight",
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_the_output_cannot_say_is_escaped(encoding: str) -> None:
    @click.command()
    def command() -> None:
        say("a█é\udcff")

    result = runner(charset=encoding).invoke(command, catch_exceptions=False)
    expected = {
        "ascii": b"a\\u2588\\xe9\\udcff\n",
        "latin-1": b"a\\u2588\xe9\\udcff\n",
        "utf-8": "a█é\\udcff\n".encode(),
    }
    assert result.stdout_bytes == expected[encoding]


# Pictures


@pytest.mark.parametrize("on", [BLOCKS, ASCII])
def test_a_picture_goes_from_dark_to_light(on: Screen) -> None:
    pixels = np.tile(np.arange(84, dtype=np.uint8), (84, 1))
    lines = picture(pixels, 38, on)
    assert [len(line) for line in lines] == [38] * 19  # characters are twice as high as wide
    shades = " ░▒▓█" if on.blocks else " .:-=+*#%@"
    levels = [shades.index(character) for character in lines[0]]
    assert levels == sorted(levels)
    assert (levels[0], levels[-1]) == (0, len(shades) - 1)
    assert len(set(lines)) == 1
    turned = picture(pixels.T, 38, on)
    assert all(len(set(line)) == 1 for line in turned)


def test_pictures_of_any_shape_fit() -> None:
    for shape in ((8, 8), (8, 1000), (1000, 8), (210, 160), (9, 200), (300, 300)):
        for width in (10, 24, 38, 100):
            lines = picture(np.zeros(shape, np.uint8), width, BLOCKS)
            assert 1 <= len(lines) <= 24
            assert 1 <= max(map(len, lines)) <= min(width, 38)
    assert picture(np.zeros((8, 8), np.uint8), 38, BLOCKS)[0] == " " * 16
    assert picture(np.full((8, 8), 255, np.uint8), 38, BLOCKS)[0] == "█" * 16


def test_a_pixel_is_where_it_was() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2, 5] = 9
    lines = picture(pixels, 38, ASCII)
    found = [(y, x) for y, line in enumerate(lines) for x, c in enumerate(line) if c == "@"]
    assert found == [(2, 10), (2, 11)]

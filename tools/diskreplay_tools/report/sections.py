"""The sections of a report: what is drawn, and the words and numbers beside it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import diskreplay
from diskreplay.aliases import Array, Floats
from diskreplay.schema import root_of
from diskreplay.store import spans_of
from diskreplay.wording import count_of
from diskreplay_tools.report import figures as draw
from diskreplay_tools.report import frames, page
from diskreplay_tools.report.episodes import Episodes
from diskreplay_tools.report.figures import Figures, Paint
from diskreplay_tools.report.page import Html, Section
from diskreplay_tools.report.reading import SHEET_FRAMES, Reader
from diskreplay_tools.report.values import MAX_COMPONENTS, finite, limited
from diskreplay_tools.terminal import moment, number

MULTIPLES = 12  # components of a vector that get a histogram each
MOST_PARTS = 8  # of a nested field that are drawn
FEW_VALUES = 8  # whole numbers of which each is told
_DARK = 32  # of 255: below it frames would be black


class ReportData:
    """What the sections are made of: facts, and the transitions that were read."""

    def __init__(
        self,
        stats: dict[str, Any],
        schema: diskreplay.Schema,
        reader: Reader,
        figures: Figures,
    ) -> None:
        self.stats, self.schema, self.reader, self.figures = stats, schema, reader, figures
        self.size: int = stats["size"]
        self.actions, self.states = reader.parts("action"), reader.parts("state")
        drawn = (*self.actions[:MOST_PARTS], *self.states[:MOST_PARTS])
        self.spread = reader.spread(("reward", *drawn))
        self.priorities = reader.priorities()

    def plot(self, paint: Paint, alt: str, caption: str, height: float = draw.HEIGHT) -> Html:
        """Return a figure of the page."""
        return page.plot(self.figures.draw(paint, height), alt, caption)

    def which(self, n: int) -> str:
        """Return the words for the transitions that were read: n, spread evenly, or all."""
        if n >= self.size:
            return f"All {count_of(n, 'transition')}" if n > 1 else "The only transition"
        return f"{n:,} of {count_of(self.size, 'transition')}, spread evenly"


def priorities_of(data: ReportData) -> Section:
    """Show how priorities are distributed, what that does to the draws, and who is how old."""
    found, stats = data.priorities, data.stats
    if found is None or not found.values.size:
        return Section(
            "Priorities", [page.paragraph("All were overwritten before they were read.")]
        )
    values, ages = found.values, found.count - 1 - found.write_ids
    positive = values[values > 0]
    log = draw.is_wide(positive)
    words = [f"{data.which(values.size)}: {spread_in_words(values)}"]
    if zeros := values.size - positive.size:
        rest = "; they are not drawn on the log axis" if log else ""
        words.append(f"{percent(zeros, values.size)} of the priorities are 0{rest}.")
    masses = values ** stats["alpha"]
    if np.ptp(values) and masses.sum() > 0:
        tenth = np.sort(masses)[-max(1, values.size // 10) :].sum()
        words.append(
            f"The highest tenth gets {percent(tenth, masses.sum())} of the draws, with alpha "
            f"{number(stats['alpha'])} (epsilon left aside)."
        )
        drawn = values > 0 if log else np.full(values.size, True)
        paint = draw.shares(values[drawn], masses[drawn], of=values.size, log=log)
    else:
        paint = draw.histogram(values, "priority")
    parts = [data.plot(paint, "Distribution of the priorities and of the draws", " ".join(words))]
    seen = values > 0 if log else np.full(values.size, True)
    if seen.sum() > 1:
        paint = draw.priority_by_age(ages[seen], values[seen], log=log)
        words = [
            "By age, the newest at the left: the median, and where eight of ten are. A new "
            "transition has the largest priority so far, until that is updated."
        ]
        parts.append(data.plot(paint, "Priorities by the age of the transition", " ".join(words)))
    return Section("Priorities", [page.columns(parts)])


def rewards_of(data: ReportData) -> Section:
    """Show how rewards are distributed."""
    return Section("Rewards", [values_of(data, "reward")], half=True)


def actions_of(data: ReportData) -> Section:
    """Show how actions are distributed."""
    parts = [values_of(data, name) for name in data.actions[:MOST_PARTS]]
    return Section("Actions", parts + about_others(data.actions), half=True)


def about_others(names: Sequence[str]) -> list[Html]:
    """Return which parts of a value are not drawn, [] where all are."""
    if not (others := names[MOST_PARTS:]):
        return []
    told = count_of(len(others), "more part")
    return [page.paragraph(f"Not drawn: {told}, {short_text(', '.join(others))}.")]


def values_of(data: ReportData, name: str) -> Html:
    """Show the values of a field: (n, k), a number each or the components of an array."""
    values, field = data.spread[name], data.schema[name]
    k = 1 if field.varies else math.prod(field.shape)
    if not values.size or values.dtype.kind == "c":
        why = (
            "it is complex"
            if values.size
            else "it has no elements"
            if len(values)
            else ("all transitions were overwritten before they were read")
        )
        return page.paragraph(f"The field {name} is not drawn: {why}.")
    drawable = finite(values)
    words = [f"{data.which(len(values))}:"]
    if name != root_of(name):
        words.insert(0, f"{name}:")
    if field.varies:
        words.append("the lengths of its values,")
    if not drawable.size:
        return page.paragraph(f"{words[-1]} no {name} is a finite number.")
    if k > 1:
        parts = f"{values.shape[1]} of " * (values.shape[1] < k) + f"{k:,} components"
        words.append(f"{parts}{shape_in_words(field)},")
    if k == 1:
        words.append(few_in_words(values) or spread_in_words(drawable))
    else:
        words.append(f"from {number(drawable.min())} to {number(drawable.max())}.")
    height = draw.HEIGHT
    if k == 1:
        paint = draw.histogram(whole(values), name)
    elif k <= MULTIPLES:
        paint, height = draw.small_multiples(values)
        words.append("Each has an axis of its own.")
    elif k <= MAX_COMPONENTS:
        paint = draw.ranges(values)
    else:
        paint = draw.histogram(limited(drawable), name)
    if lost := values.size - drawable.size:
        words.append(f"{percent(lost, values.size)} are NaN or infinite, and not drawn.")
    plot = data.plot(paint, f"Distribution of the field {name}", " ".join(words), height)
    return page.columns([plot])


def whole(values: Array) -> Array:
    """Return numbers to draw, of an integer dtype where all of them are whole."""
    drawable = limited(finite(values))
    if np.abs(drawable).max() < 2**31 and np.array_equal(drawable, np.rint(drawable)):
        return drawable.astype(np.int64)
    return drawable


def few_in_words(values: Array) -> str:
    """Return the mean and the share of each value, '' where there are many or no whole numbers."""
    shown = whole(values)
    found, counts = np.unique(shown, return_counts=True)
    if shown.dtype.kind != "i" or not 1 < len(found) <= FEW_VALUES:
        return ""
    told = (
        f"{v}:{page.NO_BREAK}{percent(n, shown.size)}" for v, n in zip(found, counts, strict=True)
    )
    return f"mean {number(shown.mean())}; {', '.join(told)}."


def spread_in_words(values: Floats) -> str:
    """Return the range, the mean and the quantiles of numbers in words."""
    if values.min() == values.max():
        return f"{'every one is' if values.size > 1 else 'it is'} {number(values[0])}."
    low, middle, high = np.quantile(limited(values), [0.1, 0.5, 0.9])
    mean = (values / values.size).sum()  # the sum may be no number
    return (
        f"from {number(values.min())} to {number(values.max())}, mean {number(mean)}, "
        f"median {number(middle)}, eight of ten between {number(low)} and {number(high)}."
    )


def shape_in_words(field: diskreplay.Field) -> str:
    """Return the shape of an array of several dimensions in words."""
    return f" ({' x '.join(map(str, field.shape))})" if len(field.shape) > 1 else ""


def episodes_of(data: ReportData) -> Section:
    """Show the returns and the lengths of episodes, or why there are none."""
    why_not, parts = why_no_returns(data), []
    found = None if why_not else data.reader.linked_episodes()
    if found is None:
        why_not = why_not or why_no_stream(data)
    if not why_not:
        if found is None:
            spans = sorted(spans_of(data.stats["runs"]), key=lambda span: span.first)
            found = data.reader.episodes([span.first for span in spans])
        newest = f"the newest {found.rows:,} of {count_of(data.size, 'transition')}"
        read = newest if found.rows < data.size else f"all {count_of(found.rows, 'transition')}"
        if found.why_not:
            why_not = f"They cannot be told from {read}: {WHY_NOT[found.why_not]} {RULE}"
        elif not len(found.ends):
            why_not = f"There is no whole episode in {read}."
    if why_not or found is None:
        return Section("Episodes", [page.paragraph(why_not)])
    n, average = len(found.ends), draw.average_of(len(found.ends))
    for name, values in (("return", limited(found.returns)), ("length", limited(found.lengths))):
        words = f"{name.capitalize()} of {count_of(n, 'whole episode')}: {spread_in_words(values)}"
        if n > 20:
            words += f" The last 20 have a mean of {number(values[-20:].mean())}."
        words += f" The line is a moving average of {average}." if average > 1 else ""
        paint = draw.course(found.ends, values, name)
        parts.append(data.plot(paint, f"The {name} of each episode", words))
    how = page.paragraph(cutting_in_words(found, read), quiet=True)
    return Section("Episodes", [page.columns(parts), how])


def why_no_returns(data: ReportData) -> str:
    """Return why episodes have no returns, '' where they have."""
    reward, done = data.schema["reward"], data.schema["done"]
    if any(math.prod(field.shape) != 1 for field in (reward, done)):
        return "They are not drawn: reward or done is not one value."
    if "c" in (reward.dtype.kind, done.dtype.kind):
        return "They are not drawn: reward or done is complex."
    return ""


def why_no_stream(data: ReportData) -> str:
    """Return why states cannot tell episodes, '' where they may."""
    if {f"next_{name}" for name in data.states} != {*data.reader.parts("next_state")}:
        return "They cannot be told: state and next_state have different parts."
    spans = sorted(spans_of(data.stats["runs"]), key=lambda span: span.first)
    if any(later.first < before.end for before, later in itertools.pairwise(spans)):
        return (
            "They cannot be told: several runs wrote at the same time, or a merge interleaved "
            "them, so that the transitions of an episode do not stand one after the other."
        )
    return ""


RULE = (
    "Not all ends of episodes were declared by done or truncated, or an older version wrote the "
    "store. So episodes are shown where each transition begins with the next_state of the one "
    "before it, bit for bit, but after done, at the begin of a run, and where an episode was cut "
    "off, at one transition in twenty at most."
)
WHY_NOT = {
    "turns": (
        "transitions go on with those that stand further down, as where several environments were "
        "stepped in turn, a transition spans several steps, or an episode was cut off in a state "
        "that others begin with."
    ),
    "apart": "too many transitions do not begin with the next_state of the one before them.",
    "still": "states do not change, so that nothing shows which transition follows which.",
}


def cutting_in_words(found: Episodes, read: str) -> str:
    """Return the words for what was taken for an episode."""
    words = f"From {read}, in the order they were written. An episode ends where done is true, "
    if found.are_linked:
        return words + (
            f"or truncated: {count_of(found.cut_off, 'episode')} of {len(found.ends):,} without "
            "done. Those that began before, and those that are not at their end, are left out."
        )
    words += (
        "and is taken to have been cut off, as by a time limit, where a state is not the "
        f"next_state of the transition before it: {count_of(found.cut_off, 'episode')} of "
        f"{len(found.ends):,}. A run is taken to begin an episode; what it left unfinished is left "
        "out. "
    )
    return words + RULE


def observations_of(data: ReportData) -> Section:
    """Show images as a contact sheet, and other states as numbers."""
    parts: list[Html] = []
    for name in data.states[:MOST_PARTS]:
        field = data.schema[name]
        if not field.varies and frames.is_image(field.dtype, field.shape):
            parts += images_of(data, field)
        else:
            parts.append(values_of(data, name))
    return Section("Observations", parts + about_others(data.states))


def images_of(data: ReportData, field: diskreplay.Field) -> list[Html]:
    """Show a field of images as contact sheets."""
    first, count = data.reader.buffer.first, data.reader.buffer.count
    newest = np.arange(count - 1, max(first - 1, count - 1 - SHEET_FRAMES), -1)
    oldest = np.arange(first, min(count, first + SHEET_FRAMES))
    sheets = {"Newest": newest, "Oldest": oldest}
    found = data.priorities
    kind = "States of" if field.name == "state" else f"{field.name}:"
    pixels = " x ".join(map(str, field.shape))
    words = f"{kind} {pixels} pixels{frames.how_stacked(field.shape)}."
    if found is not None and found.values.size and np.ptp(found.values):
        sheets = {"Highest priorities": found.highest, "Lowest priorities": found.lowest}
    elif found is not None:
        words += " All priorities are the same."
    shown = {
        title: {i: frames.frame_of(s) for i, s in data.reader.frames(ids, field.name).items()}
        for title, ids in sheets.items()
    }
    brightest = max((int(f.max()) for some in shown.values() for f in some.values()), default=0)
    gain = 255 // brightest if 0 < brightest <= _DARK else 1
    if gain > 1:
        words += f" They are dark, and shown {gain} times as bright."
    parts = [page.paragraph(words, quiet=True)]
    for title, some in shown.items():
        cells = []
        for write_id, frame in some.items():
            priority = data.reader.priority(write_id)
            value = "" if priority is None else number(priority, 3)
            of = f"{field.name.capitalize()} of write id {write_id}"
            alt = f"{of}{', priority ' * bool(value)}{value}"
            uri = data.figures.png(frame * np.uint8(gain))
            cells.append((uri, alt, value or f"age {count - 1 - write_id:,}", f"id {write_id:,}"))
        parts.append(page.sheet(title, cells))
    return parts


def minute(seconds: Any) -> str:
    """Return a time in seconds since 1970 as a local time, to the minute."""
    return moment(seconds, "%Y-%m-%d %H:%M")


def percent(part: float, total: float) -> str:
    """Return a share, so that what is there is not 0 % and what is missing leaves no 100 %.

    >>> [share.replace("\N{NO-BREAK SPACE}", " ") for share in (percent(1, 3), percent(1, 10_000))]
    ['33 %', '< 1 %']
    """
    share = 100 * float(part) / float(total)
    if 0 < share < 1:
        return f"<{page.NO_BREAK}1{page.NO_BREAK}%"
    if 99 < share < 100:
        return f">{page.NO_BREAK}99{page.NO_BREAK}%"
    return f"{share:.0f}{page.NO_BREAK}%"


def short_text(value: Any) -> str:
    """Return text from a store, cut where it would fill the page."""
    whole_text = str(value)
    return whole_text if len(whole_text) <= 80 else f"{whole_text[:79]}…"

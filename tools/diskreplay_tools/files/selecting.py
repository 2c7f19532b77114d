"""Which transitions a command takes: `--where` over their numbers, `--range` over write ids."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from diskreplay_tools.files.columns import Column

Mask = NDArray[np.bool_]
_CONDITION = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*", re.ASCII)
_RANGE = re.compile(r"(-?\d{1,18})?:(-?\d{1,18})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_NUMBER = re.compile(r"[^_]+")
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
where_option = click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="Only where this holds, as 'reward>=1'; of several all must hold.",
)
range_option = click.option(
    "--range",
    "span",
    metavar="A:B",
    help="Only write ids from A up to B, B not included; negative ones count from the end.",
)


class Condition(NamedTuple):
    """A comparison of a column with a number."""

    name: str
    compare: Callable[[Any, Any], Any]
    number: int | float

    def holds(self, values: NDArray[Any]) -> Mask:
        """Return where it holds, the number being rounded to the precision of the column."""
        number: Any = self.number
        if values.dtype.kind in "iub":  # Python's whole numbers are compared exactly
            info = np.iinfo(values.dtype if values.dtype.kind != "b" else np.uint8)
            if isinstance(number, int) and not info.min <= number <= info.max:
                number = float("inf") if number > 0 else float("-inf")
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):  # beyond the largest is infinite
                number = values.dtype.type(number)
        return np.asarray(self.compare(values, number), np.bool_)


def conditions_of(
    texts: Sequence[str], columns: Sequence[Column], of_episodes: Sequence[str] = ()
) -> list[Condition]:
    """Return what `--where` was given, checked against the columns that there are.

    of_episodes:  the columns that there are with `--episodes`
    """
    scalars = [c.name for c in columns if not c.shape and c.dtype.kind != "c" and not c.varies]
    by_name = {c.name: c for c in columns}
    return [_condition(text, by_name, scalars, of_episodes) for text in texts]


def _condition(
    text: str, columns: Mapping[str, Column], scalars: Sequence[str], of_episodes: Sequence[str]
) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise click.BadParameter(
            f"{text!r} is no condition: expected a field, one of {' '.join(_COMPARISONS)}, and a "
            "number, as in 'reward>=1'",
            param_hint="--where",
        )
    name, sign, number = found.groups()
    there = f"the conditions are over single numbers: {', '.join(scalars)}"
    if name in of_episodes and name not in columns:
        there = f"with --episodes there is a column {name!r}; without, {there}"
    if name not in columns:
        raise click.BadParameter(f"there is no field {name!r}: {there}", param_hint="--where")
    if name not in scalars:
        raise click.BadParameter(f"{name!r} is {columns[name].type}: {there}", param_hint="--where")
    return Condition(name, _COMPARISONS[sign], _number(text, number))


def _number(text: str, number: str) -> int | float:
    if _WHOLE.fullmatch(number):
        return int(number)
    if number.lower() in ("true", "false"):
        return int(number.lower() == "true")
    try:
        value = float(number) if _NUMBER.fullmatch(number) else float("nan")
    except ValueError:
        value = float("nan")
    if np.isnan(value):
        raise click.BadParameter(
            f"{text!r} compares with {number!r}: expected a number", param_hint="--where"
        )
    return value


def selected(conditions: Sequence[Condition], values: Mapping[str, NDArray[Any]], n: int) -> Mask:
    """Return which of n rows all conditions hold for."""
    mask = np.ones(n, np.bool_)
    for condition in conditions:
        mask &= condition.holds(values[condition.name])
    return mask


def span_of(text: str | None, first: int, count: int) -> tuple[int, int]:
    """Return the ends of what `--range` takes of the live write ids [first, count)."""
    if text is None:
        return first, count
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(
            f"{text!r} is no range: expected A:B, write ids of which one may be left out, as in "
            "'1000:2000' or '-500:'",
            param_hint="--range",
        )
    low, high = (
        default if end is None else int(end) + (count if int(end) < 0 else 0)
        for end, default in zip(found.groups(), (first, count), strict=True)
    )
    begin = min(max(low, first), count)
    return begin, max(begin, min(high, count))

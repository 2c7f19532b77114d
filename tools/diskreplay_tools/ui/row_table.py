"""A table of transitions; a click opens one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from nicegui import ui

from diskreplay_tools.report import is_image
from diskreplay_tools.terminal import number
from diskreplay_tools.ui.transitions import Row
from diskreplay_tools.ui.values import frames_of, png, shown

_BRIEF = 44  # characters
_PICTURE = """
<q-td :props="props">
  <img v-if="props.value.picture" :src="props.value.picture" class="thumb" alt="" />
  <span class="brief">{{ props.value.text }}</span>
</q-td>
"""


class RowTable:
    """A table of transitions, one a line, with one state and one action in brief.

    Columns have keys of this file: a word of a store is never one.
    """

    def __init__(self, open_row: Callable[[int], Awaitable[None]], sums: bool = False) -> None:
        self._sums = sums
        names = {"id": "write id", "state": "state", "action": "action", "reward": "reward"}
        names |= {"sum": "sum"} if sums else {}
        names |= {"priority": "priority", "end": "end", "run": "run"}
        columns = [
            {
                "name": key,
                "label": name,
                "field": key,
                "align": "left" if key in ("state", "action", "end") else "right",
            }
            for key, name in names.items()
        ]
        self._table = ui.table(columns=columns, rows=[], row_key="id").classes("transitions")
        self._table.props("flat bordered dense hide-pagination :rows-per-page-options='[0]'")
        self._table.add_slot("body-cell-state", _PICTURE)
        self._table.add_slot("body-cell-action", _PICTURE)

        async def clicked(event: Any) -> None:
            await open_row(int(event.args[1]["key"]))

        self._table.on("rowClick", clicked, [[], ["key"], None])

    def set_visibility(self, visible: bool) -> None:
        """Show the table, or hide it."""
        self._table.set_visibility(visible)

    def show(self, rows: Sequence[Row], chosen: int | None = None) -> None:
        """Show transitions in the order given."""
        total, lines = 0.0, []
        for row in rows:
            fields = row.fields or {}
            reward = _one(fields.get("reward"))
            total += reward if isinstance(reward, float) else 0.0
            lines.append(
                {
                    "key": row.write_id,
                    "id": f"{'▸ ' * (row.write_id == chosen)}{row.write_id:,}",
                    "state": _brief(fields, "state", damaged=row.fields is None),
                    "action": _brief(fields, "action"),
                    "reward": number(reward) if isinstance(reward, float) else reward,
                    "sum": number(total),
                    "priority": "" if row.priority is None else number(row.priority),
                    "end": row.episode_end,
                    "run": "" if row.run is None else str(row.run),
                }
            )
        self._table.rows = lines
        self._table.update()


def _one(value: Any) -> float | str:
    if value is None:
        return ""
    array = np.asarray(value)
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "biuf" else "…"


def _brief(fields: dict[str, Any], root: str, *, damaged: bool = False) -> dict[str, str]:
    """Return a picture of the first part of a field that is an image, and the others as text."""
    if damaged:
        return {"picture": "", "text": "damaged: diskreplay repair copies the others"}
    picture, texts = "", []
    for name, value in fields.items():
        part = name.removeprefix(root)
        if name == part or part[:1] not in ("", "."):
            continue
        if isinstance(value, np.ndarray) and is_image(value.dtype, value.shape):
            picture = picture or png(frames_of(value)[-1])
        else:
            text = shown(value, _BRIEF, _BRIEF).text.replace("\n", " ")
            texts.append(f"{part[1:]} {text}".strip() if part else text)
    return {"picture": picture, "text": "; ".join(texts)[:200]}

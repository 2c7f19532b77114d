"""Which of the transitions in a row are whole episodes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from diskreplay.aliases import Array, Floats, Ints

MOST_CUT_OFF = 20  # one of so many transitions at most is the last of what was cut off


@dataclass
class Episodes:
    """Whole episodes among the newest transitions, oldest first; none where they cannot be told.

    why_not:     "turns", a state is the next_state of a transition further up, which another one
                 stands behind; "apart", too few are that of the one before; "still", states do not
                 change. Then there are no episodes
    are_linked:  whether links tell them, or else states
    """

    rows: int = 0
    ends: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    lengths: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    returns: Floats = field(default_factory=lambda: np.zeros(0))
    cut_off: int = 0  # of them, ended by a state that does not follow the one before
    why_not: str = ""
    are_linked: bool = False


def episodes_of(
    write_ids: Ints,
    rewards: Floats,
    dones: Array,
    states: Ints,
    next_states: Ints,
    starts: Ints,
) -> Episodes:
    """Cut transitions, in the order they were written, into those episodes that are whole.

    Only where they form one stream: a state is the next_state of the one before it, except after
    `done`, at the begin of a run, and where, in one of twenty at most, an episode was cut off.
    There nothing may go on later with what was cut off. Transitions whose state stays what it is
    tell nothing of that.

    An episode ends where `done` is true, or where it was cut off. A run begins one, too; but what
    the run before it left unfinished is no whole episode, nor is what stands before or after
    transitions that are missing.

    states, next_states:  a number for each, equal where they are
    starts:               write ids with which a run, or the buffer, began
    """
    gap = np.diff(write_ids) != 1
    new_run = np.isin(write_ids[1:], starts)
    ended = dones[:-1]
    inner = ~(gap | new_run | ended)
    follows = next_states[:-1] == states[1:]
    cut = inner & ~follows
    bounds = np.flatnonzero(np.concatenate([[True], gap | ended | new_run | cut]))
    stops = np.append(bounds[1:], len(write_ids))
    shown = np.count_nonzero(inner & follows & (states[:-1] != next_states[:-1]))
    why_not = ""
    lasts = stops - 1
    was_cut, is_new = np.append(cut, False)[lasts], np.insert(new_run, 0, False)[bounds]
    if _goes_on_later(states[bounds], next_states[lasts], was_cut, is_new):
        why_not = "turns"
    elif cut.sum() * MOST_CUT_OFF > shown + cut.sum():
        why_not = "apart"
    elif inner.any() and not shown:
        why_not = "still"
    if why_not:
        return Episodes(rows=len(write_ids), why_not=why_not)
    begins = np.concatenate([np.isin(write_ids[:1], starts), ~gap & (ended | new_run | cut)])
    ends = np.concatenate([ended | cut, dones[-1:]])  # whether one ends with this row
    whole = begins[bounds] & ends[lasts]
    with np.errstate(over="ignore"):
        returns = np.add.reduceat(rewards, bounds)
    return Episodes(
        rows=len(write_ids),
        ends=write_ids[lasts][whole],
        lengths=(stops - bounds)[whole],
        returns=returns[whole],
        cut_off=int((~dones[lasts] & whole).sum()),
    )


def _goes_on_later(firsts: Ints, lasts: Ints, was_cut: Array, is_new: Array) -> bool:
    """Return whether a stretch that was cut off ends with what a later one of its run begins with.

    firsts, lasts:  the state that each stretch begins with, and the next_state that it ends with
    is_new:         whether a stretch is the first of its run
    """
    seen: set[int] = set()
    columns = (column[::-1].tolist() for column in (firsts, lasts, was_cut, is_new))
    for first, last, cut, new in zip(*columns, strict=True):
        if cut and last in seen:
            return True
        seen.add(first)
        if new:
            seen.clear()
    return False

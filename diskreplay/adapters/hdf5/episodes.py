"""The layout of d3rlpy: datasets for each episode.

What d3rlpy has no place for is in a group of its own, which d3rlpy does not read::

    diskreplay/facts             JSON: names of the extra fields, and of fields of single numbers
    diskreplay/extra_K_N         of episode N, the extra field K; `truncated` is one
    diskreplay/rows_N            numbers of the rows whose next observation is not the following one
    diskreplay/observations_N    the next observations of these rows
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

import diskreplay
from diskreplay.adapters.dataset_stores import Buffer, Rows, leaves, other_rows
from diskreplay.adapters.hdf5.columns import EPISODIC, check_lengths, dataset_of

_VERSION = "2.1"  # of d3rlpy's files, since its version 2.1
_OWN = "diskreplay"


class _NextObservations:
    """The observations after the steps of an episode: the following ones, but after some rows.

    states:  the observations, of n rows or one more
    """

    def __init__(self, states: Any, n: int, rows: Any, values: Any) -> None:
        self._states, self._n, self._rows, self._values = states, n, rows, values
        self.dtype, self.shape = values.dtype, (n, *values.shape[1:])

    def __getitem__(self, chosen: slice) -> Any:
        begin, end = chosen.start, min(chosen.stop, self._n)
        found = np.empty((end - begin, *self.shape[1:]), self.dtype)
        after = self._states[begin + 1 : end + 1]
        found[: len(after)] = after
        is_here = (self._rows >= begin) & (self._rows < end)
        found[self._rows[is_here] - begin] = self._values[is_here]
        return found


# Reading


def rows_of_episodes(source: Any) -> int:
    """Return the number of rows of a file, also of those that are no transitions."""
    return sum(len(dataset_of(source, f"rewards_{i}")) for i in range(source["num_episodes"][()]))


def facts_in(source: Any) -> dict[str, Any]:
    """Return the facts about the fields that a file of `to_hdf5` has; none of other files."""
    if _OWN not in source:
        return {}
    found: dict[str, Any] = json.loads(dataset_of(source[_OWN], "facts")[()])
    return found


def episodes_in(source: Any, more: Mapping[str, str]) -> Iterator[Rows]:
    """Yield the datasets of each episode of a file of d3rlpy, by field."""
    if more:
        raise diskreplay.ArgumentError(
            f"a file of d3rlpy has no further fields (found {', '.join(more)}): leave fields= away"
        )
    facts = facts_in(source)
    for number in range(source["num_episodes"][()]):
        columns: Rows = {}
        for field in ("state", "action", "reward"):
            name = f"{EPISODIC[field]}_{number}"
            places = 0
            while f"{name}_{places}" in source:
                columns[f"{field}[{places}]"] = source[f"{name}_{places}"]
                places += 1
            if not places:
                columns[field] = dataset_of(source, name)
        n = len(columns["reward"])
        check_lengths(f"{source.filename}, episode {number}", columns, n)
        is_terminated = bool(dataset_of(source, f"terminated_{number}")[()])
        if facts:
            n -= not is_terminated
            columns |= _own_columns(source[_OWN], facts["fields"], number, n, columns)
        end = np.arange(n) == n - 1
        yield {**columns, "done": end & is_terminated, "end": end}


def _own_columns(own: Any, fields: list[str], number: int, n: int, columns: Rows) -> Rows:
    """Return what d3rlpy has no place for, of an episode of n transitions, by field."""
    found: Rows = {}
    for name, states in columns.items():
        if name.partition("[")[0] == "state":
            place = _suffix(number, name.removeprefix("state"))
            rows, values = np.empty(0, np.int64), np.empty((0, *states.shape[1:]), states.dtype)
            if f"rows{place}" in own:
                rows, values = own[f"rows{place}"][()], dataset_of(own, f"observations{place}")[()]
            if not np.isin(rows, np.arange(n)).all():
                raise diskreplay.ArgumentError(
                    f"{own.file.filename}, episode {number}: expected rows below {n} (found {rows})"
                )
            found[f"next_{name}"] = _NextObservations(states, n, rows, values)
    for at, name in enumerate(fields):
        found[name] = dataset_of(own, f"extra_{at}_{number}")
    check_lengths(
        f"{own.file.filename}, episode {number}", {name: found[name] for name in fields}, n
    )
    return found


# Writing


def write_episodes(buffer: Buffer, made: Any) -> int:
    """Write the whole episodes of a buffer, and return the number of transitions."""
    written = number = 0
    own = made.create_group(_OWN)
    schema: Any = buffer.schema
    of_schema = () if schema is None else schema.fields
    roots = () if schema is None else schema.extra_names
    fields = [field.name for field in of_schema if _root(field.name) in roots and not field.varies]
    for number, episode in enumerate(buffer.episodes(), 1):
        _write_episode(episode, number - 1, made)
        after = dict(leaves("", episode.next_states))
        for name, column in leaves("", episode.states):
            place = _suffix(number - 1, name)
            rows = other_rows(column, after[name])
            if rows.size:
                own[f"rows{place}"], own[f"observations{place}"] = rows, after[name][rows]
        extra = dict(part for root in roots for part in leaves(root, getattr(episode, root)))
        for at, name in enumerate(fields):
            own[f"extra_{at}_{number - 1}"] = extra[name]
        written += len(episode.rewards)
    single = [field.name for field in of_schema if not field.shape]
    own["facts"] = json.dumps({"fields": fields, "single": single})
    made["columns"] = [*EPISODIC.values()]
    made["num_episodes"] = number
    made["version"] = _VERSION
    return written


def _write_episode(episode: Any, number: int, made: Any) -> None:
    """Write the datasets of an episode that d3rlpy reads."""
    last = slice(-1, None)
    is_terminated = bool(np.any(episode.dones[-1]))
    actions, rewards = episode.actions, np.asarray(episode.rewards)
    if not is_terminated:
        # The last row of such an episode is no transition, and has the last observation.
        actions = np.concatenate([actions, np.zeros_like(actions[last])])
        rewards = np.concatenate([rewards, np.zeros_like(rewards[last])])
    after = dict(leaves("", episode.next_states))
    for name, column in leaves("", episode.states):
        states = column
        if not is_terminated:
            states = np.concatenate([column, after[name][last].astype(column.dtype)])
        made[f"observations{_suffix(number, name)}"] = states
    made[f"actions_{number}"] = actions if actions.ndim > 1 else actions[:, None]
    made[f"rewards_{number}"] = rewards.reshape(len(rewards), -1)
    made[f"terminated_{number}"] = is_terminated


def _suffix(number: int, place: str) -> str:
    """Return the end of a dataset's name: "_3" of an episode, "_3_0" of its state[0]."""
    return f"_{number}{place.replace('[', '_').replace(']', '')}"


def _root(name: str) -> str:
    return name.partition(".")[0].partition("[")[0]

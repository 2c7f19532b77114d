"""The keys of a tensordict, and the fields of a store that hold their values.

The standard fields hold the values that TorchRL's environments give, so that a store can be read
without TorchRL, too. The names of the fields are enough to find the keys again::

    ("observation",), ("next", "observation")      state.observation, next_state.observation
    ("action",)                                    action
    ("next", "reward")                             reward
    ("next", "terminated"), ("next", "truncated")  done, truncated
    any other                                      td.collector.traj_ids, td.next.done, ...

A standard field without a value has a type that the values of TorchRL never have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

import diskreplay

Key = tuple[str, ...]

_ENDS = ("done", "terminated", "truncated")
_NEXT_DONE = "td.next.done"
_ABSENT = {
    "state": diskreplay.Field("state", "bool", (0,)),
    "action": diskreplay.Field("action", "bool", (0,)),
    "reward": diskreplay.Field("reward", "uint8"),
    "next_state": diskreplay.Field("next_state", "bool", (0,)),
    "done": diskreplay.Field("done", "uint8"),
}
SINGLE = ("reward", "done", "truncated")  # numbers here, of shape (1,) in a tensordict


class Kind(NamedTuple):
    """The type and the shape of a value of one transition."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def schema_of(kinds: Mapping[Key, Kind]) -> diskreplay.Schema:
    """Return the schema of transitions with these keys."""
    names = names_of(kinds)
    fields = {
        name: diskreplay.Field(name, kinds[key].dtype, () if name in SINGLE else kinds[key].shape)
        for key, name in names.items()
    }
    roots = {name.split(".")[0] for name in fields}
    return diskreplay.Schema([*fields.values(), *(_ABSENT[r] for r in _ABSENT if r not in roots)])


def names_of(kinds: Mapping[Key, Kind]) -> dict[Key, str]:
    """Return the name of the field of each key."""
    flag = Kind(np.dtype(bool), (1,))
    found = {key: ".".join(("td", *key)) for key in kinds}
    for key in kinds:
        after = ("next", *key)
        if key[0] not in ("action", "reward", *_ENDS) and kinds.get(after) == kinds[key]:
            found[key] = ".".join(("state", *key))
            found[after] = ".".join(("next_state", *key))
        elif key[0] == "action":
            found[key] = ".".join(key)
    reward = kinds.get(("next", "reward"))
    if reward is not None and reward.dtype.kind == "f" and reward.shape == (1,):
        found["next", "reward"] = "reward"
    done, terminated, truncated = (("next", end) for end in _ENDS)
    if kinds.get(done) == flag:
        found[terminated if kinds.get(terminated) == flag else done] = "done"
        if kinds.get(truncated) == flag:
            found[truncated] = "truncated"
    return found


def keys_of(schema: diskreplay.Schema) -> dict[str, Key]:
    """Return the key of each field that has a value of a tensordict."""
    found: dict[str, Key] = {}
    for name in schema.names:
        root, *rest = name.split(".")
        if _ABSENT.get(name) == schema[name]:
            continue
        if root in ("state", "next_state"):
            found[name] = (
                *(("next",) if root == "next_state" else ()),
                *(rest or ("observation",)),
            )
        elif name == "done":
            found[name] = ("next", "terminated" if _NEXT_DONE in schema.names else "done")
        elif name in SINGLE:
            found[name] = ("next", name)
        else:
            found[name] = tuple(rest) if root == "td" else (root, *rest)
    return found


def nested(values: Iterable[tuple[Key, Any]]) -> dict[str, Any]:
    """Return values by key as dictionaries within dictionaries."""
    found: dict[str, Any] = {}
    for (*outer, last), value in values:
        group = found
        for step in outer:
            group = group.setdefault(step, {})
        group[last] = value
    return found

"""Episodes that links tell, against lists of transitions."""

from __future__ import annotations

from typing import Any

import numpy as np
from diskreplay_tools.episodes import numbered, whole_episodes
from hypothesis import given
from hypothesis import strategies as st

# Of each transition: its env, how it ends its episode, and whether it is missing.
transitions = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["", "", "", "done", "truncated", "cut"]),
              st.sampled_from([False] * 9 + [True])),
    min_size=1, max_size=60,
)  # fmt: skip


def linked(given: list[Any]) -> tuple[list[int], list[list[int]]]:
    """The links of transitions, and the episodes by their write ids, the unfinished ones too."""
    links: list[int] = []
    episodes: list[list[int]] = []
    newest: dict[int, list[int]] = {}
    last: dict[int, int] = {}
    for write_id, (env, end, _) in enumerate(given):
        if env in newest:
            links.append(write_id - last[env])
            newest[env].append(write_id)
        else:
            links.append(last[env] - write_id if env in last else 0)
            newest[env] = [write_id]
            episodes.append(newest[env])
        last[env] = write_id
        if end:
            del newest[env]
    return links, episodes


@given(transitions, st.integers(0, 40))
def test_whole_episodes_are_those_of_lists(given: list[Any], evicted: int) -> None:
    links, episodes = linked(given)
    there = [i for i in range(evicted, len(given)) if not given[i][2]]
    if not there:
        return
    rewards = np.arange(len(given), dtype=np.float64)
    dones, truncated = (
        np.array([end == word for _, end, _ in given]) for word in ("done", "truncated")
    )
    write_ids = np.array(there)
    found = whole_episodes(
        write_ids, np.array(links, np.int32)[there], rewards[there], dones[there], truncated[there]
    )
    wanted = []
    for episode in episodes:
        _, end, _ = given[episode[-1]]
        later = [i for i in there if i > episode[-1] and links[i] == episode[-1] - i]
        is_known = links[episode[0]] < 0 or len(episode) > 1
        has_ended = end in ("done", "truncated") or bool(later)
        if set(episode) <= set(there) and is_known and has_ended:
            wanted.append((episode[-1], len(episode), float(sum(episode)), end == "done"))
    wanted.sort()
    assert found.ends.tolist() == [end for end, _, _, _ in wanted]
    assert found.lengths.tolist() == [length for _, length, _, _ in wanted]
    assert found.returns.tolist() == [total for _, _, total, _ in wanted]
    assert found.cut_off == sum(not done for _, _, _, done in wanted)
    assert found.rows == len(there)


@given(transitions, st.integers(0, 40))
def test_transitions_are_numbered_from_the_first_that_is_there(
    given: list[Any], evicted: int
) -> None:
    links, episodes = linked(given)
    first, steps = numbered(np.array(links, np.int32)[evicted:])
    found = list(zip((first + evicted).tolist(), steps.tolist(), strict=True))
    wanted: dict[int, tuple[int, int]] = {}
    for episode in episodes:
        live = [i for i in episode if i >= evicted]
        wanted |= {i: (live[0], step) for step, i in enumerate(live)}
    assert found == [wanted[i] for i in range(evicted, len(given))]

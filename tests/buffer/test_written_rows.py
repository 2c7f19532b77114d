"""WrittenRows: the write ids of rows by their numbers, as commits note them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diskreplay.buffer.written_rows import WrittenRows

# Of each commit: its rows, and the rows of other processes that were written before them.
COMMITS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.booleans()), max_size=30)


@given(commits=COMMITS, kept=st.sets(st.integers(0, 100)))
def test_each_row_has_the_write_id_that_its_commit_gave(
    commits: list[tuple[int, int, bool]], kept: set[int]
) -> None:
    rows, write_ids, count = WrittenRows(), [], 0
    for n, n_others, is_repeated in commits:
        first = len(write_ids)
        count += n_others
        for _ in range(1 + is_repeated):
            rows.note(first, first + n, count)
        write_ids += range(count, count + n)
        count += n
    numbers = np.arange(len(write_ids) + 1)
    assert rows.write_ids(numbers).tolist() == [*write_ids, -1]
    there = np.array(sorted(kept & {*range(len(write_ids))}), np.int64)
    rows.keep(there)
    assert rows.write_ids(there).tolist() == [write_ids[number] for number in there.tolist()]


def test_memory_is_bounded_where_two_processes_write_in_turns() -> None:
    rows, most, n = WrittenRows(), 0, 10_000
    for number in range(n):
        rows.note(number, number + 1, 2 * number)
        if rows.is_large:
            rows.keep(np.array([3, number]))
            assert rows.write_ids(np.array([3, 4, number])).tolist() == [6, -1, 2 * number]
            most += 1
    assert most == 2
    assert rows.write_ids(np.array([3, n - 1, n])).tolist() == [6, 2 * n - 2, -1]

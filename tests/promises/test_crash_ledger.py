"""The ledger of the fault injectors: what it accepts, and that it sees each kind of loss."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from crash.ledger import Found, Ledger, Verdict
from crash.rows import numbers_from, pushed_priorities, updated_priorities


def told(ledger: Ledger, writer: int, *events: tuple[Any, ...]) -> None:
    """Record events, each (name, when, what ...)."""
    for event in events:
        ledger.record(writer, list(event))


def found(count: int, *numbers: Any, priorities: Any = None) -> Found:
    rows = np.concatenate([np.zeros(0, np.int64), *numbers])
    return Found(count, rows, priorities)


def outcome(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.transitions, verdict.lost, len(verdict.wrong)


@pytest.mark.parametrize("n", [10, 13, 20])
def test_what_was_announced_may_be_there_and_what_was_acknowledged_must(n: int) -> None:
    ledger = Ledger(100)
    told(ledger, 1, ("push", 1, 10), ("commit", 2), ("ack", 3, 10), ("push", 4, 20))
    assert outcome(ledger.judge(found(n, numbers_from(1, 0, n)))) == (10, 0, 0)
    told(ledger, 2, ("push", 5, 5), ("ack", 6, 5))  # the next writer starts from what was found
    both = numbers_from(1, 0, n), numbers_from(2, 0, 5)
    assert outcome(ledger.judge(found(n + 5, *both))) == (n + 5, 0, 0)


@pytest.mark.parametrize(
    ("count", "rows", "expected"),
    [
        (8, [range(8)], (8, 2, 0)),
        (0, [], (0, 10, 0)),
        (10, [range(5), range(6, 11)], (9, 1, 0)),
        (10, [range(5), [6, 5], range(7, 10)], (10, 0, 1)),
        (11, [range(5), [4], range(5, 10)], (10, 0, 1)),
        (21, [range(21)], (10, 0, 1)),
        (10, [range(3, 10)], (7, 0, 1)),
    ],
    ids=["end", "all", "hole", "order", "twice", "never pushed", "evicted too early"],
)
def test_a_difference_is_seen(count: int, rows: list[Any], expected: tuple[int, int, int]) -> None:
    ledger = Ledger(100)
    told(ledger, 1, ("push", 1, 10), ("ack", 2, 10), ("push", 3, 20))
    numbers = [numbers_from(1, 0, 30)[list(part)] for part in rows]
    assert outcome(ledger.judge(found(count, *numbers))) == expected


def test_transitions_of_nobody_are_seen_and_those_read_before_their_push() -> None:
    ledger = Ledger(100)
    told(ledger, 1, ("push", 1, 5), ("seen", 2, [[1, 4]]))
    assert not ledger.judge(found(5, numbers_from(1, 0, 5))).wrong
    told(ledger, 2, ("push", 3, 5), ("seen", 4, [[1, 5], [2, 4]]))
    assert "writer 1 was read before" in ledger.judge(found(5, numbers_from(1, 0, 5))).wrong[0]
    stranger = found(6, numbers_from(1, 0, 5), numbers_from(7, 0, 1))
    assert "writer: [7]" in ledger.judge(stranger).wrong[0]


def test_a_full_ring_has_evicted_as_many_as_were_written_over() -> None:
    def two_writers() -> Ledger:
        ledger = Ledger(10)
        told(ledger, 1, ("push", 1, 8), ("ack", 2, 8))
        told(ledger, 2, ("push", 1, 8), ("ack", 2, 8))
        return ledger

    rows = numbers_from(1, 4, 4), numbers_from(2, 2, 6)
    assert outcome(two_writers().judge(found(16, *rows))) == (10, 0, 0)
    fewer = numbers_from(1, 5, 3), numbers_from(2, 2, 6)
    verdict = two_writers().judge(found(15, *fewer))  # 7 are missing, and 6 evicted
    assert verdict.lost + len(verdict.wrong) > 0
    verdict = two_writers().judge(found(17, *rows))
    assert verdict.wrong == ["7 are evicted of 6 that could be"]


def test_a_clear_is_there_when_it_was_acknowledged_and_may_be_when_it_was_announced() -> None:
    def cleared(*more: tuple[Any, ...]) -> Ledger:
        ledger = Ledger(100)
        told(ledger, 1, ("push", 1, 10), ("ack", 2, 10), ("clear", 3), *more, ("push", 9, 20))
        return ledger

    before, after = found(10, numbers_from(1, 0, 10)), found(20, numbers_from(1, 10, 10))
    assert outcome(cleared().judge(before)) == (10, 0, 0)
    assert outcome(cleared().judge(after)) == (0, 0, 0)
    assert outcome(cleared(("ack", 4, 10)).judge(after)) == (0, 0, 0)
    assert cleared(("ack", 4, 10)).judge(before).wrong == ["write id 0 is the oldest, of 10 in all"]


def test_the_priority_is_the_last_acknowledged_one_or_a_later_one() -> None:
    numbers = numbers_from(1, 0, 4)

    def undone(writer: int | None, first: int) -> int:
        """Judge with the priority of number 2 being an update of this writer, or its first."""
        ledger = Ledger(100)
        told(ledger, 1, ("push", 1, 4), ("ack", 2, 4))
        told(ledger, 1, ("update", 3, 0, [numbers[2]]), ("update", 4, 1, [numbers[2]]))
        told(ledger, 1, ("ack", 5, 4), ("update", 6, 2, [numbers[2]]))
        told(ledger, 2, ("update", 4, 0, [numbers[2]]), ("ack", 6, 0))
        told(ledger, 3, ("update", 2, 0, [numbers[2]]), ("ack", 3, 0))
        found_priorities = pushed_priorities(numbers)
        if writer is not None:
            found_priorities[2] = updated_priorities(writer, first, 1)[0]
        verdict = ledger.judge(found(4, numbers, priorities=found_priorities))
        assert verdict.priorities == 4
        return verdict.undone

    assert undone(None, 0) == 1  # as pushed: an update was acknowledged
    assert undone(1, 0) == 1  # the same writer's next update was acknowledged with it
    assert undone(1, 1) == 0  # the last acknowledged one
    assert undone(1, 2) == 0  # a later one, which a commit of its own may have taken along
    assert undone(2, 0) == 0  # at the same time as that of writer 1
    assert undone(3, 0) == 1  # committed before writer 1 began
    assert undone(2, 1) == 1  # nobody's


def test_an_update_of_the_dead_is_not_the_last_for_ever() -> None:
    numbers = numbers_from(1, 0, 1)
    for when, expected in ((7, 0), (5, 1)):
        ledger = Ledger(100)
        told(ledger, 1, ("push", 1, 1), ("ack", 2, 1), ("update", 3, 0, numbers.tolist()))
        ledger.end(1, when)
        told(ledger, 2, ("update", 6, 0, numbers.tolist()), ("ack", 8, 0))
        there = found(1, numbers, priorities=updated_priorities(1, 0, 1))
        assert ledger.judge(there).undone == expected

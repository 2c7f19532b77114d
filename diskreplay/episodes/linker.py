"""Linker: the links of new rows, from what is known of the last row of each env.

Rows come with `env=`, which is trusted, or without it. Those without it are one stream, which is
checked: a row goes on with the episode only if its state is, bit for bit, the next_state of the row
before. Where the episode was open and is not, it is cut there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diskreplay.aliases import Array, Bools, Columns, Ints
from diskreplay.episodes.links import MAX_DISTANCE
from diskreplay.errors import ArgumentError, EpisodeWarning, warn_caller
from diskreplay.schema import Schema

MAX_ENVS = 1 << 16
_FEW_ROWS = 16
_FEW_NAMES = 5
_PART_BYTES = 1 << 20  # of the states that are compared in one step

# The last row of an env: its number, whether its episode is open, and where that is checked the
# bytes of its next_state. Not a class: a plain tuple costs a tenth of the time.
_Last: TypeAlias = tuple[int, bool, Any]
# What was known before the rows below a number: the number, the cuts, and the last rows of envs.
_Undo: TypeAlias = tuple[int, int, tuple[tuple[int | None, _Last | None], ...]]
_NOTHING: _Undo = (0, 0, ())


class Linker:
    """The last row of each env, as far as rows were pushed by this opening of a store.

    Rows have numbers that count up: write ids, or numbers of their own. A row is noted before it is
    there, and so is what was known before it. Each call says how many rows there are: if a push was
    refused or interrupted, what was known before is put back.
    """

    def __init__(self) -> None:
        self._last: dict[int | None, _Last] = {}
        self._cuts = 0
        self._undo = _NOTHING
        self._schema: Schema | None = None
        self._has_warned = self._has_warned_of_turns = False

    def cuts(self, count: int) -> int:
        """Return the number of episodes that were cut, where there are `count` rows."""
        return self._undo[1] if self._undo[0] > count else self._cuts

    def numbers(self, count: int) -> Ints:
        """Return the number of the last row of each env, where there are `count` rows."""
        self._settle(count)
        return np.array([number for number, _, _ in self._last.values()], np.int64)

    def push(
        self, number: int, schema: Schema, row: list[Any], truncated: bool, env: int | None
    ) -> int:
        """Return the link of the next row, which a schema accepted; see links.py.

        row:  may have the bytes of arrays in their place, of which those of next_state stay as
              they are
        """
        if self._undo[0] > number:
            self._settle(number)
        if schema is not self._schema:
            self._use(schema)
        last = self._last.get(env)
        self._undo = number + 1, self._cuts, ((env, last),)
        link = self._link(number, row, truncated, env, last)
        if last is None and len(self._last) > MAX_ENVS:
            self._cut_oldest()
        return link

    def _link(
        self, number: int, row: list[Any], truncated: bool, env: int | None, last: _Last | None
    ) -> int:
        """Return the link of a row, which is the last one of its env from now on."""
        done = row[self._done]
        if self._all_done is not None:
            done = self._all_done(done)
        is_open, after = not (truncated or done), None  # of an array: where all are true
        if is_open and env is None:
            after = self._next_state_of(row)
            if type(after) is np.ndarray:
                after = after.tobytes()
        if last is None:
            self._last[env] = number, is_open, after
            return 0
        before, goes_on, expected = last
        if goes_on and env is None:
            state = self._state_of(row)
            if state is not expected:
                if type(state) is np.ndarray:
                    state = state.tobytes()
                if state != expected:
                    self._cuts, goes_on = self._cut(1), False
        self._last[env] = number, is_open, after
        distance = number - before
        if distance > MAX_DISTANCE:
            return 0
        return distance if goes_on else -distance

    def extend(
        self,
        number: int,
        schema: Schema,
        columns: Columns,
        truncateds: Bools | None,
        env: int | Ints | None,
    ) -> NDArray[np.int32]:
        """Return the links of the next rows, which a schema accepted. Cost: O(n log n)."""
        self._settle(number)
        if schema is not self._schema:
            self._use(schema)
        n = len(columns[0])
        if type(env) is int and n > 1 and not self._has_warned_of_turns:
            self._check_turns(columns, truncateds, env, schema)
        if n <= _FEW_ROWS:
            return self._links_of_few(number, columns, truncateds, env)
        ends = self._ends(columns, truncateds)
        if isinstance(env, np.ndarray):
            order = np.argsort(env, kind="stable")
            sorted_envs = env[order]
            firsts = np.flatnonzero(np.diff(sorted_envs, prepend=-1))
            envs: list[int | None] = sorted_envs[firsts].tolist()
        else:
            order, firsts, envs = np.arange(ends.size), np.zeros(1, np.int64), [env]
        lasts = np.append(firsts[1:], ends.size) - 1
        # In this order each row but the first of an env comes after the one before it of that env.
        distances = np.diff(order, prepend=0)
        goes_on = np.append(False, ~ends[order[:-1]])
        known = [(of_env, self._last.get(of_env)) for of_env in envs]
        for place, (_, last) in zip(firsts.tolist(), known, strict=True):
            distances[place] = 0 if last is None else number + int(order[place]) - last[0]
            goes_on[place] = last is not None and last[1]
        cuts, after = self._cuts, None
        if env is None:
            last = known[0][1]
            starts_so = last is not None and last[2] == _kept(self._state_of(_row_of(columns, 0)))
            continues = np.append(starts_so, _continue(columns, schema))
            if cut := int(np.count_nonzero(goes_on & ~continues)):
                cuts, goes_on = self._cut(cut), goes_on & continues
            if not ends[-1]:
                after = _kept(self._next_state_of(_row_of(columns, -1)))
        distances[distances > MAX_DISTANCE] = 0
        links = np.empty(ends.size, np.int32)
        links[order] = np.where(goes_on, distances, -distances)
        self._undo = number + ends.size, self._cuts, tuple(known)
        self._cuts = cuts
        newest = order[lasts]
        for of_env, row, has_ended in zip(
            envs, newest.tolist(), ends[newest].tolist(), strict=True
        ):
            self._last[of_env] = number + row, not has_ended, after
        if len(self._last) > MAX_ENVS:
            self._cut_oldest()
        return links

    def _links_of_few(
        self, number: int, columns: Columns, truncateds: Bools | None, env: int | Ints | None
    ) -> NDArray[np.int32]:
        """Return the links of rows that are linked faster one by one."""
        n = len(columns[0])
        envs = env.tolist() if isinstance(env, np.ndarray) else [env] * n
        ends = [False] * n if truncateds is None else truncateds.tolist()
        self._undo = number + n, self._cuts, tuple([(each, self._last.get(each)) for each in envs])
        links = np.empty(n, np.int32)
        for row in range(n):
            values = [column[row] for column in columns]
            last = self._last.get(envs[row])
            links[row] = self._link(number + row, values, ends[row], envs[row], last)
        if len(self._last) > MAX_ENVS:
            self._cut_oldest()
        return links

    def end_episode(self, count: int, env: int | None) -> None:
        """End the episode of an env: its next row begins another one.

        Raises ArgumentError where there are rows of other envs alone.
        """
        self._settle(count)
        if (last := self._last.get(env)) is not None:
            self._last[env] = last[0], False, None
        elif 0 < len(self._last) <= MAX_ENVS // 2:  # of more, some may have been forgotten
            raise _without_rows(env, self._last)

    def forget(self, cuts: int = 0) -> None:
        """Forget all rows, so that each env begins an episode; set the number of cuts."""
        self._undo = _NOTHING
        self._last, self._cuts = {}, cuts

    def _settle(self, count: int) -> None:
        """Put back what was known before rows that are not there; safe to interrupt and repeat."""
        end, cuts, known = self._undo
        if end > count:
            self._cuts = cuts
            for env, last in known:
                if last is None:
                    self._last.pop(env, None)
                else:
                    self._last[env] = last
        self._undo = _NOTHING

    def _use(self, schema: Schema) -> None:
        self._done = schema.done_place
        field = schema.fields[self._done]
        self._all_done = partial(_all_true, dtype=field.dtype) if field.shape else None
        self._state_of = _bits_of(schema, schema.state_places)
        self._next_state_of = _bits_of(schema, schema.next_state_places)
        self._schema = schema

    def _ends(self, columns: Columns, truncateds: Bools | None) -> Bools:
        """Return which rows end their episode."""
        ends = all_done(columns[self._done])
        return ends if truncateds is None else ends | truncateds

    def _check_turns(
        self, columns: Columns, truncateds: Bools | None, env: int, schema: Schema
    ) -> None:
        """Warn once where rows of one env look like a step of several environments.

        That is where no state is the next_state of the row before, within episodes. Mostly the
        first two rows tell, so that few are compared.
        """
        if not schema.state_places:
            return
        after = self._next_state_of(_row_of(columns, 0))
        if _kept(after) == _kept(self._state_of(_row_of(columns, 1))):
            return
        goes_on = ~self._ends(columns, truncateds)[:-1]
        if not goes_on.any() or (goes_on & _continue(columns, schema)).any():
            return
        warn_caller(
            f"no transition of this extend with env={env} continues the one before it: no state is "
            "that one's next_state. They are one stream all the same, since env= is trusted. Give "
            "env=[0, 1, ...], a number for each, where they are of several environments, and "
            "truncateds= where their episodes end without done",
            EpisodeWarning,
        )
        self._has_warned_of_turns = True

    def _cut(self, n: int) -> int:
        """Return the number of cuts with n more; the first warns."""
        if not self._has_warned:
            warn_caller(
                "a transition does not continue the one before it, whose episode was open: its "
                "state is not that one's next_state. The episode is cut there, so that no n-step "
                "return and no sequence goes across. Give truncated=True with the last transition "
                "of an episode that ends without done, and env=0, 1, ... where transitions of "
                'several environments come in turns; stats()["cuts"] counts further cuts',
                EpisodeWarning,
            )
            self._has_warned = True
        return self._cuts + n

    def _cut_oldest(self) -> None:
        """Forget the envs without a row for the longest time: memory is bounded."""
        oldest = sorted(self._last, key=lambda env: self._last[env][0])
        dropped = oldest[: len(oldest) - MAX_ENVS + MAX_ENVS // 16]
        cuts = self._cuts + sum(self._last[env][1] for env in dropped)
        kept = {env: self._last[env] for env in oldest[len(dropped) :]}
        self._last, self._cuts = kept, cuts


def _without_rows(env: int | None, known: Iterable[int | None]) -> ArgumentError:
    """Return the error of the end of an episode where no row of its env is known."""
    called = "transitions without env=" if env is None else f"env={env}"
    others = ["no env=" if other is None else f"env={other}" for other in known]
    more = f" and {len(others) - _FEW_NAMES} more" * (len(others) > _FEW_NAMES)
    return ArgumentError(
        f"end_episode ends the episode of {called}, and none was pushed in this run (found pushes "
        f"with {', '.join(others[:_FEW_NAMES])}{more}): give the env= of the pushes"
    )


def _bits_of(schema: Schema, places: tuple[int, ...]) -> Callable[[list[Any]], Any]:
    """Return a function of a row: the bits of the values at some places.

    Those of a single array may be the array itself. It returns an object that is equal to no other
    where there are no places.
    """
    if not places:
        return lambda row: object()
    fields = [schema.fields[place] for place in places]
    if len(places) == 1 and fields[0].shape:
        return operator.itemgetter(*places)  # as below, in a fifth of the time
    dtypes = [field.dtype for field in fields]
    return lambda row: [*map(_bits, map(row.__getitem__, places), dtypes)]


def _bits(value: Any, dtype: np.dtype[Any]) -> bytes | bytearray:
    if type(value) is bytes or type(value) is bytearray:
        return value
    return np.asarray(value, dtype).tobytes()


def all_done(dones: Array) -> Bools:
    """Return which rows of a column are done: of several numbers, where all are true."""
    done: Bools = np.logical_and.reduce(dones, axis=tuple(range(1, dones.ndim)), dtype=np.bool_)
    return done


def _all_true(value: Any, dtype: np.dtype[Any]) -> bool:
    """Return whether all numbers of an array, or of its bytes, are true."""
    if not isinstance(value, np.ndarray):
        value = np.frombuffer(value, dtype)
    return bool(np.all(value))


def _kept(bits: Any) -> Any:
    """Return the bits that a function of `_bits_of` returned, in memory of their own."""
    return bits.tobytes() if type(bits) is np.ndarray else bits


def _row_of(columns: Columns, index: int) -> list[Any]:
    return [column[index] for column in columns]


def _continue(columns: Columns, schema: Schema) -> Bools:
    """Return for each row after the first whether its state is the next_state of the row before."""
    n = len(columns[0])
    same = np.full(n - 1, bool(schema.state_places))
    pairs = zip(schema.state_places, schema.next_state_places, strict=True)
    for state, next_state in pairs:
        states, next_states = _as_bits(columns[state]), _as_bits(columns[next_state])
        part = max(1, _PART_BYTES * n // max(1, states.nbytes))
        for begin in range(0, n - 1, part):
            end = min(begin + part, n - 1)
            equal = states[begin + 1 : end + 1] == next_states[begin:end]
            same[begin:end] &= equal.reshape(end - begin, -1).all(axis=1)
    return same


def _as_bits(column: Array) -> Array:
    """Return numbers as whole numbers with the same bits, and packed values as they are."""
    if column.dtype.kind == "O":
        return column
    if column.dtype.itemsize > 8:  # no whole number has so many bits
        return np.ascontiguousarray(column).reshape(len(column), -1).view("u8")
    return column.view(f"u{column.dtype.itemsize}")

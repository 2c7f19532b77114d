"""Transitions of the environments of Gymnasium, pushed into a buffer while they are stepped.

An episode ends with its true final observation, whatever resets the environment. Of a vector
environment the mode of its autoreset says where that is::

    NEXT_STEP   the next step resets: it is no transition, and is not stored
    SAME_STEP   the step returns the first observation of the next episode; the final one is in
                infos["final_obs"]
    DISABLED    the user resets, with reset(options={"reset_mask": ...})
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, overload
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

import diskreplay

try:
    from gymnasium import Env, Wrapper, spaces
    from gymnasium.error import ResetNeeded
    from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
except ImportError as error:
    if error.name not in ("gymnasium", "gymnasium.vector"):
        raise
    raise type(error)(
        "diskreplay.adapters.gymnasium needs gymnasium 1.1 or newer, which is not installed: "
        'pip install "diskreplay[gymnasium]"',
        name="gymnasium",
    ) from None

if TYPE_CHECKING:
    AnyVectorWrapper: TypeAlias = VectorWrapper[Any, Any, Any, Any, Any]
else:
    AnyVectorWrapper = VectorWrapper  # before Gymnasium 1.4 it takes no parameters

__all__ = ["RecordEnvTransitions", "RecordTransitions", "RecordVectorTransitions"]

Buffer: TypeAlias = "diskreplay.ReplayBuffer | diskreplay.PrioritizedReplayBuffer"
Extra: TypeAlias = Callable[[], Mapping[str, Any]]

# The arguments of push and extend that the wrappers give, or that are no fields.
_NO_EXTRA = frozenset(
    ("state", "action", "reward", "next_state", "done", "truncated", "env", "priority")
    + ("states", "actions", "rewards", "next_states", "dones", "truncateds", "priorities")
)
# Of each buffer, by the number of an environment: the wrapper that was the last to record it.
_recorders: WeakKeyDictionary[Buffer, dict[int, object]] = WeakKeyDictionary()


@overload
def RecordTransitions(
    env: Env[Any, Any], buffer: Buffer, *, first_env: int = 0, extra: Extra | None = None
) -> RecordEnvTransitions: ...


@overload
def RecordTransitions(
    env: VectorEnv[Any, Any, Any],
    buffer: Buffer,
    *,
    first_env: int = 0,
    extra: Extra | None = None,
) -> RecordVectorTransitions: ...


def RecordTransitions(
    env: Env[Any, Any] | VectorEnv[Any, Any, Any],
    buffer: Buffer,
    *,
    first_env: int = 0,
    extra: Extra | None = None,
) -> RecordEnvTransitions | RecordVectorTransitions:
    """Wrap an environment, or a vector environment, so that each step is pushed into a buffer.

    `done` is what the environment gives as terminated, and `truncated` a field. A reset within an
    episode ends it. What the environment returns is unchanged. Only steps and resets of the wrapper
    are recorded. After a step that failed, in the environment or in the buffer, the next call must
    be a reset, so that no episode misses a transition.

    Raises SchemaError where observations or actions are tuples and the buffer does not know it,
    since numpy makes one array of some: Schema.from_spaces has them; and ArgumentError for a vector
    environment that does not tell the mode of its autoreset.

    >>> import gymnasium
    >>> buffer = diskreplay.ReplayBuffer(capacity=1000)
    >>> env = RecordTransitions(gymnasium.make("CartPole-v1"), buffer)
    >>> observation, info = env.reset(seed=1)
    >>> step = env.step(1)
    >>> len(buffer), buffer.schema.extra_names
    (1, ('truncated',))

    first_env:  the number of the environment in the buffer, of a vector environment that of its
                first one. Give each wrapper of one buffer numbers of its own. A reset ends what
                another wrapper has recorded with these numbers, so wrappers may be used one after
                the other; where they take turns, each turn ends an episode, and EpisodeWarning
                tells of it once
    extra:      a function without arguments that returns a dictionary of the extra fields of the
                next transition, such as the recurrent state and the log-probability of the action.
                `step` calls it before it steps the environment. Of a vector environment the fields
                have a row for each environment, also for one that this step only resets
    """
    if isinstance(env, VectorEnv):
        return RecordVectorTransitions(env, buffer, first_env=first_env, extra=extra)
    return RecordEnvTransitions(env, buffer, first_env=first_env, extra=extra)


class RecordEnvTransitions(Wrapper[Any, Any, Any, Any]):
    """An environment whose steps are pushed into a buffer; see RecordTransitions."""

    def __init__(
        self,
        env: Env[Any, Any],
        buffer: Buffer,
        *,
        first_env: int = 0,
        extra: Extra | None = None,
    ) -> None:
        super().__init__(env)
        _check_tuples(buffer, env.observation_space, env.action_space)
        self._buffer, self._number = buffer, first_env
        self._episodes, self._extra = _OwnEpisodes(buffer, [first_env]), _checked_extra(extra)
        self._state: Any = None  # until a reset: before the first one, and after an episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, and end an episode that is open."""
        self._state = None
        observation, info = self.env.reset(seed=seed, options=options)
        self._episodes.begin([self._number])
        self._state = copy.deepcopy(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment, and push the transition."""
        if self._state is None:
            raise ResetNeeded(
                "expected reset() before this step: no episode has begun, or it has ended, or a "
                "step failed (gymnasium.wrappers.Autoreset belongs around RecordTransitions)"
            )
        self._episodes.keep_apart()
        fields = _extra_fields(self._extra)
        state, self._state = self._state, None
        observation, reward, terminated, truncated, info = self.env.step(action)
        next_state = copy.deepcopy(observation)  # the environment may change it at the next step
        row = (state, action, reward, next_state, terminated)
        self._buffer.push(*row, truncated=truncated, env=self._number, **fields)
        if not (terminated or truncated):
            self._state = next_state
        return observation, reward, terminated, truncated, info


class RecordVectorTransitions(AnyVectorWrapper):
    """A vector environment whose steps are pushed into a buffer; see RecordTransitions."""

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        buffer: Buffer,
        *,
        first_env: int = 0,
        extra: Extra | None = None,
    ) -> None:
        super().__init__(env)
        _check_tuples(buffer, env.single_observation_space, env.single_action_space)
        self._buffer, self._mode = buffer, _autoreset_mode(env)
        self._numbers = np.arange(first_env, first_env + env.num_envs)
        self._episodes = _OwnEpisodes(buffer, self._numbers.tolist())
        self._extra = _checked_extra(extra)
        self._states: Any = None  # until a reset of all environments
        self._is_over = np.zeros(env.num_envs, np.bool_)  # until the reset of each

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environments, or those of the reset mask, and end their open episodes."""
        chosen = None if options is None else options.get("reset_mask")
        if chosen is not None and self._states is None:
            raise ResetNeeded("expected a reset of all environments first (found a reset_mask)")
        self._states = None
        observations, infos = self.env.reset(seed=seed, options=options)
        rows = slice(None) if chosen is None else chosen
        self._episodes.begin(self._numbers[rows].tolist())
        self._is_over[rows] = False
        self._states = _columns(self.single_observation_space, observations)
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environments, and push their transitions in one call."""
        if self._mode is AutoresetMode.DISABLED and self._is_over.any():
            raise ResetNeeded(
                "expected a reset of the environments whose episodes have ended (found "
                f"{np.flatnonzero(self._is_over).tolist()}): without autoreset, call "
                'reset(options={"reset_mask": terminations | truncations})'
            )
        if self._states is None:
            raise ResetNeeded("expected reset() before this step: there was none, or a step failed")
        self._episodes.keep_apart()
        fields = _extra_fields(self._extra)
        for name, column in fields.items():
            _check_rows(name, column, self.num_envs)
        states, self._states = self._states, None
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        reached = _columns(self.single_observation_space, observations)
        dones, truncateds = np.asarray(terminations, np.bool_), np.asarray(truncations, np.bool_)
        ends = dones | truncateds
        next_states = reached
        if self._mode is AutoresetMode.SAME_STEP:
            next_states = _replaced(reached, self._final_observations(ends, infos))
        taken = ~self._is_over  # the others were only reset
        if taken.any():
            actions_taken = _columns(self.single_action_space, actions)
            rows = (states, actions_taken, np.asarray(rewards), next_states, dones, truncateds)
            *columns, truncateds = rows if taken.all() else (_rows(c, taken) for c in rows)
            fields = fields if taken.all() else _rows(fields, taken)
            self._buffer.extend(*columns, truncateds=truncateds, env=self._numbers[taken], **fields)
        if self._mode is not AutoresetMode.SAME_STEP:
            self._is_over = ends
        self._states = reached
        return observations, rewards, terminations, truncations, infos

    def _final_observations(self, ends: NDArray[np.bool_], infos: Any) -> dict[int, Any]:
        """Return the final observation of each environment whose episode ends."""
        found = infos.get("final_obs") if isinstance(infos, Mapping) else None
        finals = {i: None if found is None else found[i] for i in np.flatnonzero(ends).tolist()}
        for i, final in finals.items():
            if final is None:
                raise diskreplay.ArgumentError(
                    f'expected infos["final_obs"][{i}], since the episode has ended and the '
                    "autoreset is SAME_STEP (found none): put RecordTransitions nearer to the "
                    "vector environment than wrappers that change infos"
                )
        return finals


class _OwnEpisodes:
    """The open episodes of a wrapper in a buffer, apart from those of other wrappers."""

    def __init__(self, buffer: Buffer, numbers: list[int]) -> None:
        self._buffer, self._numbers = buffer, numbers
        self._recorders = _recorders.setdefault(buffer, {})
        self._own = object()  # not the wrapper, which would keep its buffer alive
        self._has_warned = False

    def begin(self, numbers: list[int]) -> None:
        """End the episodes of some environments, whoever has recorded them."""
        for number in numbers:
            # An error: transitions of other environments were pushed so far, and none of this one.
            with contextlib.suppress(diskreplay.ArgumentError):
                self._buffer.end_episode(number)
            self._recorders[number] = self._own

    def keep_apart(self) -> None:
        """End the episodes that another wrapper has recorded since this one's reset, and warn."""
        others = [n for n in self._numbers if self._recorders.get(n) is not self._own]
        if not others:
            return
        if not self._has_warned:
            warnings.warn(
                f"another RecordTransitions has recorded env={others[0]} of this buffer since the "
                "reset of this one, so the episode is cut there: give each wrapper numbers of its "
                "own with first_env=",
                diskreplay.EpisodeWarning,
                stacklevel=3,
            )
            self._has_warned = True
        self.begin(others)


def _checked_extra(extra: Extra | None) -> Extra | None:
    """Return the function of the extra fields, or raise ArgumentError."""
    if extra is not None and not callable(extra):
        raise diskreplay.ArgumentError(
            "extra must be a function without arguments that returns a dictionary of fields, or "
            f"None (found a {type(extra).__name__})"
        )
    return extra


def _extra_fields(extra: Extra | None) -> dict[str, Any]:
    """Return the extra fields of the next transition, or raise ArgumentError."""
    found = {} if extra is None else extra()
    if not isinstance(found, Mapping):
        raise diskreplay.ArgumentError(
            "the function extra= must return a dictionary of fields by name (found a "
            f"{type(found).__name__})"
        )
    for name in found:
        if not isinstance(name, str) or name in _NO_EXTRA:
            raise diskreplay.ArgumentError(
                f"the function extra= must return further fields by name (found {name!r}): "
                "RecordTransitions gives the others, and new priorities are the largest so far"
            )
    return dict(found)


def _check_rows(name: str, column: Any, n: int) -> None:
    """Raise ArgumentError unless each array of an extra field has n rows."""
    if isinstance(column, dict | tuple):
        for part in column.values() if isinstance(column, dict) else column:
            _check_rows(name, part, n)
        return
    try:
        found = f"{len(column)} rows"
    except TypeError:
        found = f"a {type(column).__name__}"
    if found != f"{n} rows":
        raise diskreplay.ArgumentError(
            f"extra field {name!r}: expected an array of {n} rows, one for each environment "
            f"(found {found})"
        )


def _autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """Return the mode of the autoreset of a vector environment."""
    # Before Gymnasium 1.4, the metadata are those of the environment's class: the vector
    # environment that was made last has set them for all of them.
    found = getattr(env.unwrapped, "autoreset_mode", env.metadata.get("autoreset_mode"))
    if not isinstance(found, AutoresetMode):
        raise diskreplay.ArgumentError(
            f'expected an AutoresetMode as metadata["autoreset_mode"] of {env} (found {found!r}): '
            "set the one that it has"
        )
    return found


def _check_tuples(
    buffer: Buffer, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> None:
    """Raise SchemaError unless tuples of the spaces are tuples in the schema of the buffer, too."""
    known = () if buffer.schema is None else buffer.schema.names
    for root, space in (("state", observation_space), ("action", action_space)):
        for name in _names(root, space):
            if "[" in name and name not in known:
                raise diskreplay.SchemaError(
                    f"field {root!r} has the part {name}, of a Tuple (found "
                    f"{', '.join(known) or 'a buffer without a schema'}): make the buffer with "
                    "schema=Schema.from_spaces(observation_space, action_space)"
                )


def _names(name: str, space: spaces.Space[Any]) -> Iterator[str]:
    """Yield the names of the fields of a space."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _names(f"{name}.{key}", part)
    elif isinstance(space, spaces.Tuple):
        for place, part in enumerate(space.spaces):
            yield from _names(f"{name}[{place}]", part)
    else:
        yield name


def _columns(space: spaces.Space[Any], values: Any) -> Any:
    """Return a copy of values of several environments, as columns of each part of a space.

    A column is an array, or a list where Gymnasium makes no array of values, as of texts.
    """
    if isinstance(space, spaces.Dict):
        return {key: _columns(part, values[key]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(map(_columns, space.spaces, values))
    return copy.deepcopy([*values]) if isinstance(values, tuple) else np.array(values)


def _rows(columns: Any, taken: NDArray[np.bool_]) -> Any:
    """Return the values of some environments."""
    if isinstance(columns, dict):
        return {key: _rows(part, taken) for key, part in columns.items()}
    if isinstance(columns, tuple):
        return tuple(_rows(part, taken) for part in columns)
    return [*itertools.compress(columns, taken)] if isinstance(columns, list) else columns[taken]


def _replaced(columns: Any, values: Mapping[int, Any]) -> Any:
    """Return columns with other values of some environments; the columns stay as they are."""
    if not values:
        return columns
    if isinstance(columns, dict | tuple):
        keys = columns if isinstance(columns, dict) else range(len(columns))
        parts = {
            key: _replaced(columns[key], {i: value[key] for i, value in values.items()})
            for key in keys
        }
        return parts if isinstance(columns, dict) else tuple(parts.values())
    replaced = columns.copy()
    for i, value in values.items():
        replaced[i] = value
    return replaced

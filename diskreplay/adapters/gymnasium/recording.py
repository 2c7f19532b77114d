"""RecordTransitions: wraps an environment, or a vector environment."""

from __future__ import annotations

from typing import Any, overload

from gymnasium import Env
from gymnasium.vector import VectorEnv

from diskreplay.adapters.gymnasium.extra_fields import Extra
from diskreplay.adapters.gymnasium.own_episodes import Buffer
from diskreplay.adapters.gymnasium.single import RecordEnvTransitions
from diskreplay.adapters.gymnasium.vector import RecordVectorTransitions


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

    >>> import diskreplay
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
                `step` calls it before it steps the environment, and copies its arrays. Of a vector
                environment the fields have a row for each environment, also for one that this step
                only resets
    """
    if isinstance(env, VectorEnv):
        return RecordVectorTransitions(env, buffer, first_env=first_env, extra=extra)
    return RecordEnvTransitions(env, buffer, first_env=first_env, extra=extra)

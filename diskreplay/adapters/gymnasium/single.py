"""RecordEnvTransitions: the wrapper of a single environment."""

from __future__ import annotations

import copy
from typing import Any

from gymnasium import Env, Wrapper
from gymnasium.error import ResetNeeded

from diskreplay.adapters.gymnasium.columns import check_tuples, copied
from diskreplay.adapters.gymnasium.extra_fields import Extra, checked_extra, extra_fields
from diskreplay.adapters.gymnasium.own_episodes import Buffer, OwnEpisodes


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
        check_tuples(buffer, env.observation_space, env.action_space)
        self._buffer, self._number = buffer, first_env
        self._episodes, self._extra = OwnEpisodes(buffer, [first_env]), checked_extra(extra)
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
        fields = extra_fields(self._extra)
        state, self._state = self._state, None
        taken = copied(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        next_state = copy.deepcopy(observation)  # the environment may change it at the next step
        row = (state, taken, reward, next_state, terminated)
        self._buffer.push(*row, truncated=truncated, env=self._number, **fields)
        if not (terminated or truncated):
            self._state = next_state
        return observation, reward, terminated, truncated, info

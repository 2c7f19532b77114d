"""RecordVectorTransitions: the wrapper of a vector environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from numpy.typing import NDArray

import diskreplay
from diskreplay.adapters.gymnasium.columns import (
    check_tuples,
    columns_of,
    copied,
    rows_of,
    with_values,
)
from diskreplay.adapters.gymnasium.extra_fields import (
    Extra,
    check_rows,
    checked_extra,
    extra_fields,
)
from diskreplay.adapters.gymnasium.own_episodes import Buffer, OwnEpisodes

if TYPE_CHECKING:
    AnyVectorWrapper: TypeAlias = VectorWrapper[Any, Any, Any, Any, Any]
else:
    AnyVectorWrapper = VectorWrapper  # before Gymnasium 1.4 it takes no parameters


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
        check_tuples(buffer, env.single_observation_space, env.single_action_space)
        self._buffer, self._mode = buffer, _autoreset_mode(env)
        self._numbers = np.arange(first_env, first_env + env.num_envs)
        self._episodes = OwnEpisodes(buffer, self._numbers.tolist())
        self._extra = checked_extra(extra)
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
        self._states = columns_of(self.single_observation_space, observations)
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
        fields = extra_fields(self._extra)
        for name, column in fields.items():
            check_rows(name, column, self.num_envs)
        states, self._states = self._states, None
        given = copied(actions)
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        reached = columns_of(self.single_observation_space, observations)
        dones, truncateds = np.asarray(terminations, np.bool_), np.asarray(truncations, np.bool_)
        ends = dones | truncateds
        next_states = reached
        if self._mode is AutoresetMode.SAME_STEP:
            next_states = with_values(reached, self._final_observations(ends, infos))
        taken = ~self._is_over  # the others were only reset
        if taken.any():
            actions_taken = columns_of(self.single_action_space, given)
            rows = (states, actions_taken, np.asarray(rewards), next_states, dones, truncateds)
            *columns, truncateds = rows if taken.all() else (rows_of(c, taken) for c in rows)
            fields = fields if taken.all() else rows_of(fields, taken)
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

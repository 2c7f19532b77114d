"""VectorSteps: steps of a vector environment in a buffer, in the shapes of SB3 and CleanRL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

import diskreplay


class Samples(NamedTuple):
    """A batch of n as arrays: single numbers as observations are (n, 1), actions (n, k)."""

    observations: Any
    actions: Any
    next_observations: Any
    dones: Any  # (n, 1), as the three below, whether it ended for another reason than a time limit
    rewards: Any
    discounts: Any  # None without n-step returns
    weights: Any  # None of a uniform buffer
    indices: Any  # (n,), write ids


class VectorSteps:
    """A buffer whose transitions are those of n_envs environments in turns.

    The transition of a step and of an environment has the write id `step * n_envs + env`.

    is_open:    whether an episode of each environment goes on
    has_begun:  whether the newest step of each environment began one
    """

    def __init__(
        self,
        kind: Any,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        n_envs: int,
        options: dict[str, Any],
    ) -> None:
        self._n_envs = n_envs
        self._arguments = (kind, buffer_size, observation_space, action_space, n_envs)
        self._envs = np.arange(n_envs)
        self.is_open = [False] * n_envs
        self.has_begun = [True] * n_envs
        self._expected: list[bytes] = []  # the observations that it would go on with
        capacity = steps_kept(buffer_size, n_envs) * n_envs
        schema = schema_of(observation_space, action_space)
        self._states = _form_of(observation_space, n_envs)
        self._actions = _form_of(action_space, n_envs)
        self.buffer: Any = kind(capacity, schema=schema, **options)

    def is_open_as(self, *arguments: Any) -> bool:
        """Return whether the buffer is open, and was opened with the same arguments."""
        try:
            len(self.buffer)
        except diskreplay.ClosedError:
            return False
        return self._arguments == arguments

    def add(
        self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, timeouts: Any
    ) -> None:
        """Add a step of all environments.

        An observation other than the next observation of the step before begins an episode.

        done:      (n_envs,), whether the episode ends
        timeouts:  (n_envs,), whether it ends because of a time limit
        """
        states = _observed(self._states, obs)
        next_states = _observed(self._states, next_obs)
        if True in self.is_open:
            for env, found in enumerate(self._as_bytes(states)):
                if self.is_open[env] and found != self._expected[env]:
                    self._end_episode(env)
        has_begun = [not is_open for is_open in self.is_open]
        dtype, shape = self._actions
        actions = np.asarray(action, dtype).reshape(shape)
        rewards = np.asarray(reward).reshape(-1)
        truncateds = (np.asarray(timeouts) != 0).reshape(-1)
        ends = (np.asarray(done) != 0).reshape(-1) | truncateds
        dones = ends & ~truncateds
        if self._n_envs == 1:  # takes a fifth of the time that columns take
            row = (states, actions, rewards, next_states, dones, truncateds)
            *standard, truncated = (_at(value, 0) for value in row)
            self.buffer.push(*standard, truncated=truncated, env=0)
        else:
            columns = (states, actions, rewards, next_states, dones)
            self.buffer.extend(*columns, truncateds=truncateds, env=self._envs)
        self.has_begun = has_begun
        self.is_open = [not end for end in ends.tolist()]
        self._expected = self._as_bytes(next_states)

    def end_episodes(self) -> None:
        """End the open episodes, as where all environments are reset."""
        for env, is_open in enumerate(self.is_open):
            if is_open:
                self._end_episode(env)

    def clear(self) -> None:
        """Remove all transitions."""
        self.buffer.clear()
        self.is_open = [False] * self._n_envs

    def sample(
        self,
        batch_size: int,
        n_step: int = 1,
        gamma: float = 0.99,
        scale: Callable[[Any], Any] | None = None,
    ) -> Samples:
        """Draw a batch as the buffer does.

        scale:  a function of the rewards, which is applied before they are summed
        """
        if scale is None or n_step == 1:
            draw = partial(self.buffer.sample, n_step=n_step, gamma=gamma)
        else:
            draw = partial(self._summed, n_step=n_step, gamma=gamma, scale=scale)
        found = self.drawn(draw, batch_size)
        if scale is not None and n_step == 1:
            found = found._replace(rewards=scale(found.rewards))
        return found

    def drawn(self, draw: Callable[[int], Any], batch_size: int) -> Samples:
        """Return the batch of a draw.

        A buffer draws no more transitions at once than it holds. The agents do that in the
        beginning, and then it takes several draws.
        """
        most = len(self.buffer) or batch_size
        parts = [
            self.samples(draw(min(most, batch_size - at))) for at in range(0, batch_size, most)
        ]
        found = parts[0] if len(parts) == 1 else Samples(*map(_joined, zip(*parts, strict=True)))
        if found.weights is not None:
            found.weights[...] /= found.weights.max()
        return found

    def _summed(self, n: int, *, n_step: int, gamma: float, scale: Callable[[Any], Any]) -> Any:
        """Draw n-step returns of scaled rewards, which takes the whole transitions between."""
        batch = self.buffer.sample_sequences(n, n_step)
        lengths = batch.mask.sum(axis=1)
        last = np.arange(n), lengths - 1
        rewards = scale(batch.rewards) * batch.mask * gamma ** np.arange(n_step)
        return SimpleNamespace(
            states=_at(batch.states, (slice(None), 0)),
            actions=batch.actions[:, 0],
            next_states=_at(batch.next_states, last),
            dones=batch.dones[last],
            rewards=rewards.sum(axis=1).astype(np.float32),
            discounts=(gamma**lengths).astype(np.float32),
            weights=getattr(batch, "weights", None),
            largest_weight=getattr(batch, "largest_weight", None),
            indices=batch.indices[:, 0],
        )

    def samples(self, batch: Any) -> Samples:
        """Return a batch of the buffer as Samples, the weights before the division by a largest."""
        weights = getattr(batch, "weights", None)
        discounts = getattr(batch, "discounts", None)
        return Samples(
            _with_columns(batch.states),
            batch.actions.reshape(len(batch.indices), -1),
            _with_columns(batch.next_states),
            batch.dones.reshape(-1, 1),
            batch.rewards.reshape(-1, 1),
            None if discounts is None else discounts.reshape(-1, 1),
            None if weights is None else weights.reshape(-1, 1) * batch.largest_weight,
            batch.indices,
        )

    def _end_episode(self, env: int) -> None:
        self.buffer.end_episode(env)
        self.is_open[env] = False

    def _as_bytes(self, value: Any) -> list[bytes]:
        """Return the bytes of the values of each environment; NaN is equal to itself there."""
        if isinstance(value, dict):
            parts = map(self._as_bytes, value.values())
            return [b"".join(of_env) for of_env in zip(*parts, strict=True)]
        return [of_env.tobytes() for of_env in value]


def steps_kept(buffer_size: int, n_envs: int) -> int:
    """Return the number of steps that a buffer of n_envs environments keeps."""
    return max(buffer_size // n_envs, 1)


def timeouts_in(infos: Any, n_envs: int, are_handled: bool) -> list[bool]:
    """Return whether a time limit ended the episode of each environment, from its info.

    are_handled:  whether that is asked for; without it none is
    """
    if not are_handled:
        return [False] * n_envs
    if isinstance(infos, Mapping):
        raise diskreplay.ArgumentError(
            "handle_timeout_termination=True needs a list of infos, one for each environment, "
            "which say TimeLimit.truncated (found a dictionary, as vector environments of "
            "Gymnasium return it): set it to False, and add their terminations as `done`"
        )
    return [bool(info.get("TimeLimit.truncated", False)) for info in infos]


def schema_of(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> Any:
    """Return the schema of the spaces, with actions of float64 as float32, as in SB3."""
    is_double = action_space.dtype == np.float64
    other = {"action": (np.float32, action_space.shape)} if is_double else {}
    return diskreplay.Schema.from_spaces(observation_space, action_space, **other)


def _form_of(space: spaces.Space[Any], n_envs: int) -> Any:
    """Return the type and the shape of the values of all environments, or those of each part."""
    if isinstance(space, spaces.Dict):
        return {key: _form_of(part, n_envs) for key, part in space.spaces.items()}
    return space.dtype, (n_envs, *(space.shape or ()))


def _observed(form: Any, value: Any) -> Any:
    """Return the observations of all environments as the buffer has them, or raise ArgumentError.

    They may have or lack dimensions of 1, as numbers of a Discrete space do.
    """
    if type(form) is dict:
        return {key: _observed(part, value[key]) for key, part in form.items()}
    dtype, shape = form
    found = np.asarray(value, dtype)
    if found.shape == shape:
        return found
    if [n for n in found.shape if n != 1] != [n for n in shape if n != 1]:
        raise diskreplay.ArgumentError(
            f"expected observations of shape {shape}, the first dimension for the environments "
            f"(found {found.shape}): images with channels last need the space that they have, or "
            "VecTransposeImage"
        )
    return found.reshape(shape)


def _with_columns(value: Any) -> Any:
    """Return observations with at least two dimensions."""
    if isinstance(value, dict):
        return {key: _with_columns(part) for key, part in value.items()}
    return value.reshape(-1, 1) if value.ndim == 1 else value


def _at(value: Any, places: Any) -> Any:
    """Return the values of an array at some places, or those of each array of observations."""
    if isinstance(value, dict):
        return {key: _at(part, places) for key, part in value.items()}
    return value[places]


def _joined(parts: Any) -> Any:
    """Return the arrays of several batches as one, and None if they have none."""
    if parts[0] is None:
        return None
    if isinstance(parts[0], dict):
        return {key: _joined([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)

"""The replay buffers of Stable-Baselines3 on disk."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples

import diskreplay
from diskreplay.adapters.stable_baselines3.open_stores import check_there, opened
from diskreplay.adapters.stable_baselines3.stored_columns import StoredColumn, StoredDones
from diskreplay.adapters.vector_steps import Samples, VectorSteps, steps_kept, timeouts_in


class PrioritizedSamples(NamedTuple):
    """ReplayBufferSamples or DictReplayBufferSamples, with weights and write ids.

    weights:  float32 (n, 1), the importance weights divided by the largest
    indices:  int64 (n,), an array of numpy, for `update_priorities`
    """

    observations: Any
    actions: torch.Tensor
    next_observations: Any
    dones: torch.Tensor
    rewards: torch.Tensor
    discounts: torch.Tensor | None
    weights: torch.Tensor
    indices: Any


class DiskReplayBuffer(ReplayBuffer):  # type: ignore[misc]
    """The ReplayBuffer of Stable-Baselines3 in a store, for any observations that SB3 knows.

    Its pickle, which `save_replay_buffer` writes, holds the path of the store and no transitions:
    `load_replay_buffer` opens the store again, as of its last commit. A store that another process
    writes to is opened with the first use, which raises LockedError if it is not free by then: so
    a model can be loaded for a look at it while it learns.

    The arrays of SB3 (`observations`, `rewards`, `dones`, ...) are read from the store where they
    are indexed. `buffer` is the diskreplay.ReplayBuffer.

    >>> from stable_baselines3 import DQN
    >>> model = DQN("MlpPolicy", "CartPole-v1", replay_buffer_class=DiskReplayBuffer,
    ...             replay_buffer_kwargs={"path": "runs/cartpole"})

    buffer_size, observation_space, action_space, device, n_envs:
                            as of ReplayBuffer: n_envs is the number of environments, each of which
                            has the same share of buffer_size
    optimize_memory_usage:  whether each observation is kept once, in the observation log; also
                            together with handle_timeout_termination
    handle_timeout_termination:
                            whether an episode that a time limit ends is not done in a batch
    path:                   directory of the store; None makes a temporary one
    n_steps, gamma:         n-step returns, as of NStepReplayBuffer
    options:                all others of diskreplay.ReplayBuffer but schema and if_exists; `seed`
                            is by default that of torch, which a model with a seed sets. With
                            access="shared" all writers must have as many environments
    """

    _kind: Any = diskreplay.ReplayBuffer

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        path: Any = None,
        n_steps: int = 1,
        gamma: float = 0.99,
        **options: Any,
    ) -> None:
        # Not that of ReplayBuffer, which makes arrays of the whole size.
        super(ReplayBuffer, self).__init__(
            buffer_size, observation_space, action_space, device, n_envs=n_envs
        )
        if "if_exists" in options:
            raise diskreplay.ArgumentError(
                "a replay buffer of Stable-Baselines3 goes on with the store that is there "
                "(found if_exists=): model.load() makes it anew with the same arguments; take "
                "another path, or remove the store before"
            )
        self.buffer_size = steps_kept(buffer_size, n_envs)
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.n_steps, self.gamma = n_steps, gamma
        self._options = {"seed": torch.initial_seed(), "path": path, **options}
        if optimize_memory_usage:
            self._options.setdefault("observations", "log")
        self._steps_there: VectorSteps | None = None
        with contextlib.suppress(diskreplay.LockedError):
            self._open()

    @property
    def buffer(self) -> Any:
        """The buffer in which the transitions are: its stats(), mark() and the like."""
        return self._steps.buffer

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: Any) -> None:
        """Add a step of all environments; an info says `TimeLimit.truncated`."""
        timeouts = timeouts_in(infos, self.n_envs, self.handle_timeout_termination)
        self._steps.add(obs, next_obs, action, reward, done, timeouts)

    def sample(self, batch_size: int, env: Any = None) -> Any:
        """Draw a batch: ReplayBufferSamples, or of dictionaries DictReplayBufferSamples.

        Uniform draws take a transition twice only where there are fewer than batch_size.

        env:  a VecNormalize, which normalizes the observations and each reward
        """
        scale = None if env is None else partial(self._normalize_reward, env=env)
        return self._finished(self._steps.sample(batch_size, self.n_steps, self.gamma, scale), env)

    def size(self) -> int:
        """Return the number of steps, each of n_envs transitions."""
        size: int = len(self.buffer) // self.n_envs
        return size

    def reset(self) -> None:
        """Remove all transitions."""
        self._steps.clear()

    def close(self) -> None:
        """Commit and close the store."""
        self.buffer.close()

    @property
    def pos(self) -> int:
        """The position of the next step in the ring, also after steps of another process."""
        position: int = self.buffer.count // self.n_envs % self.buffer_size
        return position

    @pos.setter
    def pos(self, position: int) -> None:
        """Ignore the position that a constructor of Stable-Baselines3 sets."""

    @property
    def full(self) -> bool:
        """Whether the ring is full."""
        return self.size() == self.buffer_size

    @full.setter
    def full(self, is_full: bool) -> None:
        """Ignore what a constructor of Stable-Baselines3 sets."""

    # The arrays of ReplayBuffer

    @property
    def observations(self) -> Any:
        """The observations, to be indexed as an array (buffer_size, n_envs, ...)."""
        return self._columns("state", self.observation_space, self.obs_shape)

    @property
    def next_observations(self) -> Any:
        """The observations after each step."""
        return self._columns("next_state", self.observation_space, self.obs_shape)

    @property
    def actions(self) -> Any:
        """The actions, (buffer_size, n_envs, k)."""
        dtype = self._maybe_cast_dtype(self.action_space.dtype)
        return self._column("action", dtype, (self.action_dim,))

    @property
    def rewards(self) -> Any:
        """The rewards, (buffer_size, n_envs)."""
        return self._column("reward", np.float32)

    @property
    def timeouts(self) -> Any:
        """Whether a time limit ended the episode, (buffer_size, n_envs)."""
        return self._column("truncated", np.float32)

    @property
    def dones(self) -> Any:
        """Whether the episode ended, (buffer_size, n_envs), also because of a time limit."""
        shape = (self.buffer_size, self.n_envs)

        def read(write_ids: Any) -> Any:
            found = self.buffer.get(write_ids, fields=["done", "truncated"])
            return np.maximum(found["done"], found["truncated"])

        return StoredDones(self._steps, shape, np.float32, read)

    # Inside

    def __reduce__(self) -> tuple[Any, ...]:
        if self._steps_there is not None:
            self.buffer.flush()
        return reopened, (type(self), self._arguments())

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments that open the same store again."""
        there = self._steps_there
        path = self._options["path"] if there is None else there.buffer.path
        return {
            "buffer_size": self.buffer_size * self.n_envs,
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "device": self.device,
            "n_envs": self.n_envs,
            "optimize_memory_usage": self.optimize_memory_usage,
            "handle_timeout_termination": self.handle_timeout_termination,
            "n_steps": self.n_steps,
            "gamma": self.gamma,
            **self._options,
            "path": str(path),
        }

    @property
    def _steps(self) -> VectorSteps:
        return self._open() if self._steps_there is None else self._steps_there

    def _open(self) -> VectorSteps:
        spaces_ = self.observation_space, self.action_space
        capacity = self.buffer_size * self.n_envs
        self._steps_there = opened(self._kind, capacity, spaces_, self.n_envs, self._options)
        return self._steps_there

    def _finished(self, found: Samples, env: Any) -> Any:
        """Return a batch with normalized observations, as tensors."""
        found = found._replace(
            observations=self._normalize_obs(found.observations, env),
            next_observations=self._normalize_obs(found.next_observations, env),
        )
        return self._as_samples(Samples(*map(self._tensors, found)))

    def _as_samples(self, found: Samples) -> Any:
        kind: Any = ReplayBufferSamples
        if isinstance(self.observation_space, spaces.Dict):
            kind = DictReplayBufferSamples
        return kind(*found[: len(kind._fields)])

    def _tensors(self, value: Any) -> Any:
        """Return arrays as tensors on the device; they are fresh, so no copy is needed."""
        if isinstance(value, dict):
            return {key: self._tensors(part) for key, part in value.items()}
        return None if value is None else self.to_torch(value, copy=False)

    def _columns(self, name: str, space: spaces.Space[Any], shape: Any) -> Any:
        if isinstance(space, spaces.Dict):
            parts = space.spaces.items()
            return {key: self._columns(f"{name}.{key}", part, shape[key]) for key, part in parts}
        return self._column(name, space.dtype, shape)

    def _column(self, name: str, dtype: Any, shape: tuple[int, ...] = ()) -> StoredColumn:
        whole = (self.buffer_size, self.n_envs, *shape)
        return StoredColumn(
            self._steps, whole, dtype, lambda ids: self.buffer.get(ids, fields=[name])[name]
        )


class DictDiskReplayBuffer(DiskReplayBuffer, DictReplayBuffer):  # type: ignore[misc]
    """DiskReplayBuffer of dictionaries of observations; it is a DictReplayBuffer, too."""

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *arguments: Any,
        **options: Any,
    ) -> None:
        if not isinstance(observation_space, spaces.Dict):
            raise diskreplay.ArgumentError(
                "DictDiskReplayBuffer is for observations that are dictionaries (found "
                f"{observation_space}): use DiskReplayBuffer"
            )
        super().__init__(buffer_size, observation_space, action_space, *arguments, **options)


class PrioritizedDiskReplayBuffer(DiskReplayBuffer):
    """DiskReplayBuffer that draws by priority, for PrioritizedDQN.

    `sample` returns PrioritizedSamples. The options are also those of
    diskreplay.PrioritizedReplayBuffer: alpha, beta_start, beta_end, beta_frames, epsilon. An agent
    that calls no `update_priorities`, such as SAC, draws uniformly from it.
    """

    _kind = diskreplay.PrioritizedReplayBuffer

    def update_priorities(self, indices: Any, priorities: Any) -> int:
        """Set priorities by write id, and return how many were applied.

        indices:     (n,), those of PrioritizedSamples
        priorities:  (n,) or (n, 1), the absolute TD errors, an array or a tensor
        """
        applied: int = self.buffer.update_priorities(indices, priorities.reshape(-1))
        return applied

    def _as_samples(self, found: Samples) -> PrioritizedSamples:
        return PrioritizedSamples(*found)._replace(indices=found.indices.cpu().numpy())


def reopened(kind: type[DiskReplayBuffer], arguments: dict[str, Any]) -> DiskReplayBuffer:
    """Return a buffer that was pickled."""
    check_there(arguments["path"])
    return kind(**arguments)

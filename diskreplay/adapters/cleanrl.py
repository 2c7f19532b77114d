"""The ReplayBuffer of CleanRL's scripts in a store, with torch and gymnasium alone.

-from cleanrl_utils.buffers import ReplayBuffer
+from diskreplay.adapters.cleanrl import ReplayBuffer
"""

from __future__ import annotations

from typing import Any, NamedTuple

try:
    import torch
    from gymnasium import spaces
except ModuleNotFoundError as error:
    if error.name not in ("gymnasium", "torch"):
        raise
    raise ModuleNotFoundError(
        f"diskreplay.adapters.cleanrl needs torch and gymnasium ({error.name} is not installed): "
        'pip install "diskreplay[torch]" gymnasium',
        name=error.name,
    ) from None

import diskreplay
from diskreplay.adapters.vector_steps import VectorSteps, steps_kept, timeouts_in

__all__ = ["ReplayBuffer", "ReplayBufferSamples"]


class ReplayBufferSamples(NamedTuple):
    """A batch of n as tensors: actions (n, k), dones and rewards (n, 1)."""

    observations: Any
    actions: torch.Tensor
    next_observations: Any
    dones: torch.Tensor
    rewards: torch.Tensor


class ReplayBuffer:
    """The replay buffer of CleanRL, whose transitions are in a store.

    A script that runs again on the same path goes on with the transitions that are there. An
    observation that is not the next one of the step before begins an episode, so the stored
    episodes end where a script hands in the final observation. `buffer` is the
    diskreplay.ReplayBuffer.

    >>> from diskreplay.adapters.cleanrl import ReplayBuffer
    >>> from gymnasium.spaces import Box, Discrete
    >>> rb = ReplayBuffer(1000, Box(-1, 1, (3,)), Discrete(2), path="runs/a")
    >>> obs, next_obs = np.zeros((1, 3)), np.ones((1, 3))
    >>> rb.add(obs, next_obs, np.array([1]), np.array([0.5]), np.array([False]), [{}])
    >>> data = rb.sample(4)
    >>> data.observations.shape, data.actions.tolist()
    (torch.Size([4, 3]), [[1], [1], [1], [1]])

    buffer_size:            number of transitions of all environments together
    observation_space, action_space:
                            those of a single environment
    device:                 of the tensors; "auto" is a GPU where there is one
    n_envs:                 number of environments
    optimize_memory_usage:  whether each observation is kept once, in the observation log
    handle_timeout_termination:
                            whether an episode whose info says `TimeLimit.truncated` is not done in
                            a batch; `infos` must be a list then, one for each environment
    path:                   directory of the store; None makes a temporary one
    options:                all others of diskreplay.ReplayBuffer but schema; `seed` is by default
                            that of torch
    """

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
        **options: Any,
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.n_envs = n_envs
        self.buffer_size = steps_kept(buffer_size, n_envs)
        self.handle_timeout_termination = handle_timeout_termination
        if optimize_memory_usage:
            options.setdefault("observations", "log")
        self._steps = VectorSteps(
            diskreplay.ReplayBuffer,
            buffer_size,
            observation_space,
            action_space,
            n_envs,
            {"seed": torch.initial_seed(), "path": path, **options},
        )

    @property
    def buffer(self) -> diskreplay.ReplayBuffer:
        """The buffer in which the transitions are: its stats(), mark() and the like."""
        found: diskreplay.ReplayBuffer = self._steps.buffer
        return found

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: Any) -> None:
        """Add a step of all environments."""
        timeouts = timeouts_in(infos, self.n_envs, self.handle_timeout_termination)
        self._steps.add(obs, next_obs, action, reward, done, timeouts)

    def sample(self, batch_size: int) -> ReplayBufferSamples:
        """Draw a batch of tensors.

        Transitions come twice only where the buffer has fewer than batch_size.
        """
        found = self._steps.sample(batch_size)
        elements = found[: len(ReplayBufferSamples._fields)]
        return ReplayBufferSamples(*map(self._tensors, elements))

    def size(self) -> int:
        """Return the number of steps, each of n_envs transitions."""
        return len(self.buffer) // self.n_envs

    def reset(self) -> None:
        """Remove all transitions."""
        self._steps.clear()

    def close(self) -> None:
        """Commit and close the store."""
        self.buffer.close()

    def _tensors(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._tensors(part) for key, part in value.items()}
        return torch.as_tensor(value, device=self.device)

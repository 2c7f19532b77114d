"""PrioritizedDQN: the DQN of Stable-Baselines3 with prioritized replay."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3 import DQN

import diskreplay
from diskreplay.adapters.stable_baselines3.replay_buffers import (
    PrioritizedDiskReplayBuffer,
    PrioritizedSamples,
)


class PrioritizedDQN(DQN):  # type: ignore[misc]
    """DQN with prioritized replay (Schaul et al. 2016): weighted losses, TD errors as priorities.

    All arguments are those of DQN; the replay buffer is a PrioritizedDiskReplayBuffer.

    >>> model = PrioritizedDQN("MlpPolicy", "CartPole-v1",
    ...                        replay_buffer_kwargs={"path": "runs/cartpole", "alpha": 0.6})
    """

    replay_buffer: Any

    def __init__(
        self,
        policy: Any,
        env: Any,
        *arguments: Any,
        replay_buffer_class: Any = PrioritizedDiskReplayBuffer,
        **options: Any,
    ) -> None:
        super().__init__(
            policy, env, *arguments, replay_buffer_class=replay_buffer_class, **options
        )

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Do a number of gradient steps, and give the transitions of each their new priorities."""
        if not isinstance(self.replay_buffer, PrioritizedDiskReplayBuffer):
            raise diskreplay.ArgumentError(
                "PrioritizedDQN needs a PrioritizedDiskReplayBuffer (found "
                f"{type(self.replay_buffer).__name__})"
            )
        self.policy.set_training_mode(True)
        optimizer = self.policy.optimizer
        self._update_learning_rate(optimizer)
        losses = []
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            values, targets = self._values(batch), self._targets(batch)
            errors = torch.nn.functional.smooth_l1_loss(values, targets, reduction="none")
            loss = (batch.weights * errors).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            optimizer.step()
            td_errors = (values.detach() - targets).abs()
            self.replay_buffer.update_priorities(batch.indices, td_errors)
            losses.append(loss.item())
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", sum(losses) / len(losses))

    def _values(self, batch: PrioritizedSamples) -> torch.Tensor:
        """Return the values of the actions, (n, 1)."""
        found: torch.Tensor = self.q_net(batch.observations)
        return found.gather(1, batch.actions.long())

    def _targets(self, batch: PrioritizedSamples) -> torch.Tensor:
        """Return the rewards and the discounted values of the states after them, (n, 1)."""
        discounts = self.gamma if batch.discounts is None else batch.discounts
        with torch.no_grad():
            best = self.q_net_target(batch.next_observations).max(dim=1, keepdim=True).values
            found: torch.Tensor = batch.rewards + discounts * (1 - batch.dones) * best
        return found

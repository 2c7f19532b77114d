"""What learns from batches: the network of Nature DQN, or without a GPU a wait that takes as long.

A learner is a function that takes a batch of tensors and returns the TD errors, on their device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

ACTIONS = 18
DISCOUNT = 0.99
Learner = Callable[[Any], Any]


def nature_dqn() -> Any:
    """Return the network of Mnih et al., 2015: three convolutions and a dense layer of 512."""
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, ACTIONS),
    )  # fmt: skip


class Network:
    """Q-learning with a target network, which stays as it is: to copy it is rare."""

    def __init__(self, device: Any) -> None:
        torch.manual_seed(1)
        self.online = nature_dqn().to(device)
        self.target = nature_dqn().to(device)
        self.target.load_state_dict(self.online.state_dict())
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=6.25e-5, eps=1.5e-4)

    def __call__(self, batch: Any) -> Any:
        """Take a step of gradient descent; return the absolute TD errors."""
        with torch.no_grad():
            best = self.target(as_input(batch.next_states)).amax(1)
            goals = batch.rewards + DISCOUNT * (1 - batch.dones) * best
        values = self.online(as_input(batch.states)).gather(1, batch.actions[:, None])[:, 0]
        losses = torch.nn.functional.huber_loss(values, goals, reduction="none")
        loss = (losses * batch.weights).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return (goals - values.detach()).abs()


def as_input(frames: Any) -> Any:
    """Return images of bytes, channels last, as numbers from 0 to 1, channels first."""
    return frames.permute(0, 3, 1, 2).float() / 255


class Wait:
    """A step of a given length without a GPU: many short calls of torch, as a GPU is given them.

    Like the launches of kernels, they take the interpreter's lock again and again.
    """

    def __init__(self, milliseconds: float) -> None:
        self.seconds = milliseconds / 1e3
        self.numbers = torch.ones(1000)

    def __call__(self, batch: Any) -> Any:
        """Wait; return the absolute rewards in place of TD errors."""
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            self.numbers.mul_(1.0)
        return batch.rewards.abs()

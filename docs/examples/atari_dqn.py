"""A deep Q-network learns Pong from frames that the store keeps once each, compressed.

It needs torch and the extra atari: pip install "diskreplay[atari,torch]". A state is a stack of
four frames of 84x84 bytes, and a batch has stacks, too. In the store each frame is there once, as
lz4 leaves it. TensorBatches draws ahead, and puts the stacks together on the device::

    python docs/examples/atari_dqn.py runs/pong

The network is saved now and then. A run that was killed goes on with it, and with the transitions
in its store.
"""

import argparse
from pathlib import Path

import ale_py
import gymnasium
import numpy as np
import torch
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation
from torch import nn

import diskreplay
from diskreplay.adapters.torch import TensorBatches

CAPACITY, BATCH_SIZE, LEARNING_RATE, DISCOUNT = 1_000_000, 32, 1e-4, 0.99
LEARN_EVERY, TARGET_EVERY = 4, 1000  # steps
EXPLORING, LEAST_EXPLORATION = 100_000, 0.02  # steps from random actions to the least share of them


class Network(nn.Module):
    """The network of Mnih et al., Human-level control through deep reinforcement learning, 2015."""

    def __init__(self, actions):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, 32, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 512),
            nn.ReLU(),
            nn.Linear(512, actions),
        )

    def forward(self, images):
        """Return the values of the actions; images are bytes up to here."""
        return self.layers(images / 255)


def learn(network, target, optimizer, batches):
    """Learn from the next batch, and set the priorities of its transitions."""
    batch = next(batches)
    with torch.no_grad():
        best = network(batch.next_states).argmax(dim=1, keepdim=True)  # double Q-learning
        future = target(batch.next_states).gather(1, best)[:, 0]
    wanted = batch.rewards + DISCOUNT * (1.0 - batch.dones) * future
    values = network(batch.states).gather(1, batch.actions[:, None])[:, 0]
    losses = nn.functional.smooth_l1_loss(values, wanted, reduction="none")
    optimizer.zero_grad()
    (batch.weights * losses).mean().backward()
    optimizer.step()
    batches.update_priorities(batch.indices, (wanted - values).abs())


def save(file, buffer, parts, step):
    """Commit the transitions, then put a new file in the place of the one before."""
    buffer.flush()
    saved = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**saved, "step": step}, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)  # the old one or the new, never half


def go_on(file, parts, device):
    """Load what was saved, and return its step."""
    saved = torch.load(file, map_location=device, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return saved["step"]


def main():
    """Play and learn; print the return of each episode, and the size of a transition at last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="holds the store and the network")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--learning-starts", type=int, default=10_000, help="transitions")
    parser.add_argument("--save-every", type=int, default=20_000, help="steps")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    directory, seed = arguments.directory, arguments.seed
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "network.pt"

    gymnasium.register_envs(ale_py)
    environment = gymnasium.make("ALE/Pong-v5", frameskip=1)  # the next one skips frames
    environment = FrameStackObservation(AtariPreprocessing(environment), 4)
    actions = int(environment.action_space.n)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    network, target = Network(actions).to(device), Network(actions).to(device)
    target.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    parts = {"network": network, "target": target, "optimizer": optimizer}
    first = 0
    if file.exists():
        first = go_on(file, parts, device)
        print(f"goes on from step {first}")
    rng = np.random.default_rng([seed, first])

    with (
        environment,
        diskreplay.PrioritizedReplayBuffer(
            CAPACITY,
            beta_frames=250_000,
            seed=seed,
            path=directory / "replay",
            observations="log",  # observations apart from the other fields,
            frame_axis=0,  # each frame of a stack once,
            codec="lz4",  # and compressed
        ) as buffer,
        TensorBatches(buffer, BATCH_SIZE, device=device) as batches,
    ):
        state, _ = environment.reset(seed=seed + first)
        total = 0.0
        for step in range(first, arguments.steps):
            if rng.random() < max(LEAST_EXPLORATION, 1.0 - step / EXPLORING):
                action = int(rng.integers(actions))
            else:
                with torch.no_grad():
                    values = network(torch.as_tensor(state[np.newaxis], device=device))
                action = int(values.argmax())
            next_state, reward, done, truncated, _ = environment.step(action)
            buffer.push(state, action, float(reward), next_state, done, truncated=truncated)
            state, total = next_state, total + float(reward)
            if done or truncated:
                print(f"step {step}: an episode ends with a return of {total:.0f}", flush=True)
                state, _ = environment.reset()
                total = 0.0
            if step % LEARN_EVERY == 0 and buffer.is_ready(arguments.learning_starts):
                learn(network, target, optimizer, batches)
            if step % TARGET_EVERY == 0:
                target.load_state_dict(network.state_dict())
            if (step + 1) % arguments.save_every == 0:
                save(file, buffer, parts, step + 1)
        buffer.flush()
        stats = buffer.stats()
    whole = stats["payload_bytes"] / stats["size"]
    kept = (stats["records_bytes"] + stats["observations_bytes"]) / stats["size"]
    print(f"{stats['count']:,} transitions of {kept:,.0f} bytes, instead of {whole:,.0f}")


if __name__ == "__main__":
    main()

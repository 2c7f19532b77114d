"""A deep Q-network in plain PyTorch learns CartPole; killed, it goes on as if it had not been.

It needs torch and gymnasium. Run it, end it with `kill -9`, and run the same command again::

    python docs/examples/torch_dqn.py runs/dqn

A checkpoint is a file with the networks, and a mark in the store that names the file. After a kill
the networks come from the file, and `rewind` takes the buffer back to the mark. So the second run
plays, draws and learns what the first one would have.
"""

import argparse
from pathlib import Path

import gymnasium
import numpy as np
import torch
from torch import nn

import diskreplay
from diskreplay.adapters.torch import to_torch

BATCH_SIZE, LEARNING_STARTS, DISCOUNT, TARGET_RATE = 64, 500, 0.99, 0.01
LEARNING_RATE, LEARNING_RATE_DECAY = 5e-4, 0.985  # from episode to episode
EXPLORATION_DECAY, LEAST_EXPLORATION = 0.97, 0.02


def new_network():
    """Return a network for the values of the two actions."""
    return nn.Sequential(
        nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
    )


def learn(network, target, optimizer, buffer):
    """Learn from a batch, and set the priorities of its transitions."""
    batch = to_torch(buffer.sample(BATCH_SIZE))
    with torch.no_grad():
        best = network(batch.next_states).argmax(dim=1, keepdim=True)  # double Q-learning
        future = target(batch.next_states).gather(1, best)[:, 0]
    wanted = batch.rewards + DISCOUNT * (1.0 - batch.dones) * future
    values = network(batch.states).gather(1, batch.actions[:, None])[:, 0]
    losses = nn.functional.smooth_l1_loss(values, wanted, reduction="none")
    optimizer.zero_grad()
    (batch.weights * losses).mean().backward()
    optimizer.step()
    buffer.update_priorities(batch.indices, (wanted - values).abs())
    for slow, fast in zip(target.parameters(), network.parameters(), strict=True):
        slow.data.lerp_(fast.data, TARGET_RATE)


def save(directory, buffer, parts, episode):
    """Save a checkpoint: first the file, then the mark, so that there is no mark without a file."""
    file = f"networks-{episode}.pt"
    torch.save({name: part.state_dict() for name, part in parts.items()}, directory / file)
    buffer.mark(f"episode {episode}", data={"file": file, "episode": episode})
    for mark in buffer.marks()[:-1]:  # the newest checkpoint is enough
        (directory / mark.data["file"]).unlink(missing_ok=True)
        buffer.delete_mark(mark.name)


def go_on(directory, buffer, parts):
    """Take the networks and the buffer back to the newest checkpoint, and return its episode."""
    mark = buffer.marks()[-1]
    buffer.rewind(mark.name)
    saved = torch.load(directory / mark.data["file"], weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return mark.data["episode"]


def main():
    """Learn, from the newest checkpoint on if there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="holds the store and the networks")
    parser.add_argument("--episodes", type=int, default=120)
    parser.add_argument("--save-every", type=int, default=30, help="episodes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    directory, seed = arguments.directory, arguments.seed
    directory.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)  # the fastest for networks of this size
    torch.manual_seed(seed)
    network, target = new_network(), new_network()
    target.load_state_dict(network.state_dict())
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    parts = {"network": network, "target": target, "optimizer": optimizer}
    returns = []
    with (
        gymnasium.make("CartPole-v1") as environment,
        diskreplay.PrioritizedReplayBuffer(
            50_000,
            beta_frames=30_000,
            seed=seed,
            path=directory / "replay",
            # A rewind needs what was overwritten since the mark: an episode has 500 steps at most.
            keep_rows=500 * arguments.save_every,
        ) as buffer,
    ):
        if buffer.marks():
            first = go_on(directory, buffer, parts)
            print(f"goes on from episode {first}", flush=True)
        else:
            first = 0
            save(directory, buffer, parts, first)  # for a kill before the next checkpoint
        for episode in range(first, arguments.episodes):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * LEARNING_RATE_DECAY**episode
            # A seed for each episode, so that a checkpoint needs no state of a random generator.
            rng = np.random.default_rng([seed, episode])
            exploration = max(LEAST_EXPLORATION, EXPLORATION_DECAY**episode)
            state, _ = environment.reset(seed=int(rng.integers(2**31)))
            total, ended = 0.0, False
            while not ended:
                if rng.random() < exploration:
                    action = int(rng.integers(2))
                else:
                    with torch.no_grad():
                        action = int(network(torch.from_numpy(state)).argmax())
                next_state, reward, terminated, truncated, _ = environment.step(action)
                # An episode that the time limit cuts off has not ended badly: it is not done.
                buffer.push(state, action, reward, next_state, terminated, truncated=truncated)
                state, total, ended = next_state, total + reward, terminated or truncated
                if buffer.is_ready(LEARNING_STARTS):
                    learn(network, target, optimizer, buffer)
            returns.append(total)
            if (episode + 1) % arguments.save_every == 0:
                save(directory, buffer, parts, episode + 1)
                mean = np.mean(returns[-arguments.save_every :])
                print(f"episodes up to {episode + 1}: mean return {mean:.0f}", flush=True)


if __name__ == "__main__":
    main()

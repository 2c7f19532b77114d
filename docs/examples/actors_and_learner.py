"""Two actors play CartPole-v1 and a learner learns from them, each in a process of its own.

    python docs/examples/actors_and_learner.py runs/together

All three open the same store with access="shared": no server is between them. The actors push, the
learner draws by priority and updates the priorities. The network goes the other way as a file that
is replaced in one step. It is the one of `diskreplay demo`.
"""

import argparse
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from diskreplay_tools.commands.dqn import Learner, q_values

import diskreplay

ACTORS, BATCH_SIZE, LEARNING_STARTS, PUBLISH_EVERY = 2, 64, 1000, 50
EXPLORATION = (0.05, 0.3)  # of each actor, as in Horgan et al., 2018


def open_buffer(directory: Path, updates: int) -> diskreplay.PrioritizedReplayBuffer:
    """Open the store; each process does it with the same settings, and the first makes it."""
    return diskreplay.PrioritizedReplayBuffer(
        50_000,
        beta_frames=updates,
        path=directory / "replay",
        access="shared",
        commit_interval=0.2,  # the others see what was pushed after this time
    )


def publish(directory: Path, theta: Any) -> None:
    """Put a new network in the place of the one that the actors read."""
    with open(directory / "network.new", "wb") as file:
        np.save(file, theta)
    os.replace(directory / "network.new", directory / "network.npy")


def act(directory: Path, number: int, updates: int, stop: Any) -> None:
    """Play with the newest network until the learner has finished."""
    rng = np.random.default_rng(number)
    with (
        gymnasium.make("CartPole-v1") as environment,
        open_buffer(directory, updates) as buffer,
    ):
        state, _ = environment.reset(seed=number)
        theta = np.load(directory / "network.npy")
        while not stop.is_set():
            if rng.random() < EXPLORATION[number]:
                action = int(rng.integers(2))
            else:
                action = int(np.argmax(q_values(theta, state[np.newaxis])))
            next_state, reward, done, truncated, _ = environment.step(action)
            buffer.push(
                state, action, float(reward), next_state, done, truncated=truncated, env=number
            )
            state = next_state
            if done or truncated:
                state, _ = environment.reset()
                theta = np.load(directory / "network.npy")


def mean_return(theta: Any, episodes: int = 20) -> float:
    """Return what the best action of a network gets on average."""
    total = 0.0
    with gymnasium.make("CartPole-v1") as environment:
        for episode in range(episodes):
            state, _ = environment.reset(seed=1000 + episode)
            ended = False
            while not ended:
                action = int(np.argmax(q_values(theta, state[np.newaxis])))
                state, reward, done, truncated, _ = environment.step(action)
                total += float(reward)
                ended = done or truncated
    return total / episodes


def main() -> None:
    """Start the actors, learn, stop them, and compare the networks before and after."""
    parser = argparse.ArgumentParser(description="Learn CartPole-v1 with actors and a learner.")
    parser.add_argument("directory", type=Path, help="holds the store and the network")
    parser.add_argument("--updates", type=int, default=4000, help="of the network")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    directory, updates = arguments.directory, arguments.updates
    directory.mkdir(parents=True, exist_ok=True)
    learner = Learner(arguments.seed)
    publish(directory, learner.theta)
    print(f"before: mean return {mean_return(learner.theta):.0f}")

    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    actors = [
        context.Process(target=act, args=(directory, number, updates, stop))
        for number in range(ACTORS)
    ]
    for actor in actors:
        actor.start()
    with open_buffer(directory, updates) as buffer:
        while not buffer.is_ready(LEARNING_STARTS):
            if not all(actor.is_alive() for actor in actors):
                raise SystemExit("an actor has ended")
            time.sleep(0.1)  # is_ready reads what the actors have committed meanwhile
        for update in range(updates):
            batch = buffer.sample(BATCH_SIZE)
            td_errors = learner.update(batch, 1e-3 * (1.0 - update / updates))
            buffer.update_priorities(batch.indices, td_errors + 0.01)
            if update % PUBLISH_EVERY == 0:
                publish(directory, learner.theta)
        stop.set()
        for actor in actors:
            actor.join()  # each commits at the end of its with block
        print(f"{ACTORS} actors pushed {buffer.count:,} transitions")
    print(f"after {updates:,} updates: mean return {mean_return(learner.theta):.0f}")


if __name__ == "__main__":
    main()

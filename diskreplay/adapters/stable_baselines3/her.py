"""HerDiskReplayBuffer: hindsight experience replay, with goals chosen when a batch is drawn."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.her import GoalSelectionStrategy, HerReplayBuffer

import diskreplay
from diskreplay.adapters.stable_baselines3.replay_buffers import DictDiskReplayBuffer
from diskreplay.adapters.vector_steps import VectorSteps

_STEPS_READ = 1024  # at once, where the episodes of a store are found


class HerDiskReplayBuffer(DictDiskReplayBuffer, HerReplayBuffer):  # type: ignore[misc]
    """HerReplayBuffer in a store, which keeps the transitions as they were.

    Of `n_sampled_goal + 1` transitions in a batch all but one get a goal that their episode reached
    later (Andrychowicz et al. 2017). Transitions of an episode that goes on are not drawn. Opening
    reads the store once to find its episodes, which take 16 bytes of memory a transition. It also
    opens a store of DictDiskReplayBuffer.

    >>> from stable_baselines3 import SAC
    >>> from stable_baselines3.common.envs import BitFlippingEnv
    >>> model = SAC("MultiInputPolicy", BitFlippingEnv(continuous=True),
    ...             replay_buffer_class=HerDiskReplayBuffer,
    ...             replay_buffer_kwargs={"path": "runs/her"})

    env, n_sampled_goal, goal_selection_strategy:
                     as of HerReplayBuffer
    copy_info_dict:  must be False: infos are not stored
    options:         all others of DictDiskReplayBuffer but n_steps; access="shared" is refused
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        env: Any,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        n_sampled_goal: int = 4,
        goal_selection_strategy: GoalSelectionStrategy | str = "future",
        copy_info_dict: bool = False,
        **options: Any,
    ) -> None:
        if copy_info_dict or options.get("n_steps", 1) != 1:
            raise diskreplay.ArgumentError(
                "HerDiskReplayBuffer stores no infos and sums no rewards, since those of other "
                "goals are computed when a batch is drawn (found copy_info_dict or n_steps): leave "
                "them out"
            )
        if options.get("access") == "shared":
            raise diskreplay.ArgumentError(
                "HerDiskReplayBuffer knows the episodes of the transitions that it adds, and not "
                "of those of other writers (found access='shared'): leave access= out, or use "
                "DictDiskReplayBuffer in the processes that add transitions, and here access='read'"
            )
        self.env = env
        self.copy_info_dict = False
        self.n_sampled_goal = n_sampled_goal
        self.her_ratio = 1 - 1 / (n_sampled_goal + 1)
        self.goal_selection_strategy = _strategy(goal_selection_strategy)
        super().__init__(
            buffer_size,
            observation_space,
            action_space,
            device,
            n_envs,
            optimize_memory_usage,
            handle_timeout_termination,
            **options,
        )

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: Any) -> None:
        """Add a step of all environments."""
        step = self.buffer.count // self.n_envs
        super().add(obs, next_obs, action, reward, done, infos)
        self._found_until = self.buffer.count
        steps = self._steps
        for env, has_begun in enumerate(steps.has_begun):
            if has_begun:
                self._end_episode(env, step)
        self.ep_length[step % self.buffer_size] = 0
        for env, is_open in enumerate(steps.is_open):
            if not is_open:
                self._end_episode(env, step + 1)

    def sample(self, batch_size: int, env: Any = None) -> Any:
        """Draw a batch, DictReplayBufferSamples, whose first transitions have other goals.

        Raises SampleError before the end of the first episode.

        env:  a VecNormalize, which normalizes the observations and rewards
        """
        write_ids = self._drawn(batch_size)
        n = int(self.her_ratio * batch_size)
        found = self._steps.samples(self.buffer.get(write_ids))
        if n:
            goals = self._goals(write_ids[:n], like=found.observations["desired_goal"])
            for observations in (found.observations, found.next_observations):
                observations["desired_goal"][:n] = goals
            reached = found.next_observations["achieved_goal"][:n]
            found.rewards[:n, 0] = self._rewards(reached, goals)
        found = found._replace(rewards=self._normalize_reward(found.rewards, env))
        return self._finished(found, env)

    def reset(self) -> None:
        """Remove all transitions."""
        super().reset()
        self._find_episodes()

    def truncate_last_trajectory(self) -> None:
        """End the episodes that go on, with a warning; what is stored stays as it is."""
        if any(self._steps.is_open):
            warnings.warn(
                "The last trajectory in the replay buffer will be truncated: where the same "
                "episode goes on, call load_replay_buffer(..., truncate_last_traj=False)",
                stacklevel=2,
            )
            self._steps.end_episodes()
            for env in range(self.n_envs):
                self._end_episode(env, self.buffer.count // self.n_envs)

    # Inside

    def _open(self) -> VectorSteps:
        steps = super()._open()
        self._find_episodes()
        return steps

    def _arguments(self) -> dict[str, Any]:
        found = super()._arguments()
        del found["n_steps"], found["gamma"]
        return {
            **found,
            "env": None,  # set_env gives another one
            "n_sampled_goal": self.n_sampled_goal,
            "goal_selection_strategy": self.goal_selection_strategy,
        }

    def _end_episode(self, env: int, end: int) -> None:
        """End the episode of an env before a step, and let the next one begin there."""
        start = int(self._current_ep_start[env])
        rows = np.arange(max(start, end - self.buffer_size), end) % self.buffer_size
        self.ep_start[rows, env] = start
        self.ep_length[rows, env] = end - start
        self._current_ep_start[env] = end

    def _find_episodes(self) -> None:
        """Find the episodes in the store: the step at which each begins, and its length.

        Both are arrays (buffer_size, n_envs), with length 0 in an episode that goes on.
        """
        n, first, count = self.n_envs, self.buffer.first, self.buffer.count
        self._found_until = count
        if first % n or count % n:
            raise diskreplay.MismatchError(
                f"{self.buffer.path} holds the transitions [{first}, {count}), which are no whole "
                f"steps of {n} environments: use as many environments as before"
            )
        shape = (self.buffer_size, n)
        self.ep_start, self.ep_length = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._current_ep_start = np.full(n, first // n)
        for at in range(first // n, count // n, _STEPS_READ):
            until = min(at + _STEPS_READ, count // n)
            for step, env in np.argwhere(self._ends(at, until)).tolist():
                self._end_episode(env, at + step + 1)

    def _ends(self, at: int, until: int) -> Any:
        """Return whether the episode of each env ends with each of some steps, bool (steps, n)."""
        n, count = self.n_envs, self.buffer.count
        ids = np.arange(at * n, until * n)
        found = self.buffer.get(ids, fields=["done", "truncated", "next_state"])
        has_next = ids + n < count
        ends = np.maximum(found["done"], found["truncated"]) != 0
        if has_next.any():
            after = self.buffer.get(ids[has_next] + n, fields=["state"])["state"]
            ends[has_next] |= ~_are_equal(found["next_state"], after)
        ends[~has_next] = ~np.asarray(self._steps.is_open)
        return ends.reshape(-1, n)

    def _drawn(self, batch_size: int) -> Any:
        """Return the write ids of transitions of whole episodes, drawn by the buffer."""
        found: list[Any] = []
        missing = batch_size
        while missing > 0:
            drawn = self.buffer.draw(min(missing, len(self.buffer) or missing)).indices
            if self.buffer.count != self._found_until:  # another process writes
                self._find_episodes()
            whole = drawn[self._at(self.ep_length, drawn) > 0]
            if not whole.size and not self.ep_length.any():
                raise diskreplay.SampleError(
                    f"{self.buffer.path} holds no whole episode yet: choose learning_starts larger "
                    "than the longest episode"
                )
            found.append(whole)
            missing -= whole.size
        return np.concatenate(found)

    def _goals(self, write_ids: Any, like: Any) -> Any:
        """Return goals that were reached in the episodes of transitions.

        The random choice follows from the write ids, so that a run that goes on makes the same one.
        """
        n = self.n_envs
        steps, envs = write_ids // n, write_ids % n
        starts = self._at(self.ep_start, write_ids)
        ends = starts + self._at(self.ep_length, write_ids)
        starts = np.maximum(starts, self.buffer.first // n)  # those before are evicted
        seed = np.random.SeedSequence(write_ids[:8].tolist())
        generator = np.random.Generator(np.random.Philox(seed))
        if self.goal_selection_strategy == GoalSelectionStrategy.FINAL:
            chosen = ends - 1
        elif self.goal_selection_strategy == GoalSelectionStrategy.FUTURE:
            chosen = generator.integers(steps, ends)
        else:
            chosen = generator.integers(starts, ends)
        name = "next_state.achieved_goal"
        found = self.buffer.get(chosen * n + envs, fields=[name])[name]
        return found.reshape(-1, *like.shape[1:]).astype(like.dtype)

    def _rewards(self, reached: Any, goals: Any) -> Any:
        """Return the rewards that the environment gives for other goals."""
        if self.env is None:
            raise diskreplay.ArgumentError(
                "HerDiskReplayBuffer needs the environment for rewards (found none): set_env(env)"
            )
        infos: list[dict[str, Any]] = [{} for _ in goals]
        [found] = self.env.env_method("compute_reward", reached, goals, infos, indices=[0])
        return np.asarray(found, np.float32)

    def _at(self, array: Any, write_ids: Any) -> Any:
        return array[write_ids // self.n_envs % self.buffer_size, write_ids % self.n_envs]


def _strategy(given: GoalSelectionStrategy | str) -> GoalSelectionStrategy:
    known = {one.name.lower(): one for one in GoalSelectionStrategy}
    if isinstance(given, str):
        given = known.get(given.lower(), given)
    if given not in known.values():
        raise diskreplay.ArgumentError(
            f"goal_selection_strategy must be one of {', '.join(known)} (found {given!r})"
        )
    return given


def _are_equal(some: Any, others: Any) -> Any:
    """Return which of the observations are followed by equal ones, bit for bit."""
    if isinstance(some, dict):
        parts = [_are_equal(some[key], others[key]) for key in some]
        return np.logical_and.reduce(parts)
    n = len(others)
    found, wanted = (
        np.ascontiguousarray(value[:n]).reshape(n, -1).view(np.uint8) for value in (some, others)
    )
    return (found == wanted).all(axis=1)

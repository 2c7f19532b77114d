"""Routes: the shard to which each row of a client goes."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Routes:
    """Which shard takes the next row of each env, and of the rows without.

    Rows of an env go to the shard `env % n_shards`; those without an env to the shard whose turn it
    is, which changes with each episode or each row. While that is away, they go to the next one
    that is there, until their episode ends.

    ended:  by shard, the envs whose open episodes in it have gone on elsewhere, or were ended; -1
            for the rows without
    """

    def __init__(self, n_shards: int, turn: int, *, at_episodes: bool) -> None:
        self._n, self._at_episodes = n_shards, at_episodes
        self._turn = turn
        self._elsewhere: dict[int, int] = {}  # the shards of episodes that are not at home
        self.ended: list[set[int]] = [set() for _ in range(n_shards)]

    def of_row(self, env: int, is_last: bool, away: Collection[int]) -> int:
        """Return the shard of a row; env is -1 for none, and is_last true where an episode ends."""
        if env < 0:
            shard = self._turn = self._present(env, self._turn, away)
            if is_last or not self._at_episodes:
                self._turn = (shard + 1) % self._n
            return shard
        home = env % self._n
        shard = self._present(env, self._elsewhere.get(env, home), away)
        if is_last or shard == home:
            self._elsewhere.pop(env, None)
        else:
            self._elsewhere[env] = shard
        return shard

    def of_rows(self, envs: Ints, are_last: NDArray[np.bool_], away: Collection[int]) -> Ints:
        """Return the shards of rows, either all with an env or all without."""
        if away or self._elsewhere:
            rows = zip(envs.tolist(), are_last.tolist(), strict=True)
            return np.array([self.of_row(*row, away) for row in rows], np.int64)
        if envs[0] >= 0:
            return envs % self._n
        begun = np.cumsum(are_last) - are_last if self._at_episodes else np.arange(len(envs))
        shards: Ints = (self._turn + begun) % self._n
        self._turn = (
            int(self._turn + (are_last.sum() if self._at_episodes else len(envs))) % self._n
        )
        return shards

    def end_episode(self, env: int) -> int:
        """End the open episode of an env, or of the rows without; return its shard."""
        shard = self._turn if env < 0 else self._elsewhere.pop(env, env % self._n)
        self.ended[shard].add(env)
        if env < 0 and self._at_episodes:
            self._turn = (shard + 1) % self._n
        return shard

    def take_ended(self, shard: int) -> tuple[int, ...]:
        """Return the envs whose episodes in a shard have ended, for the next group that it gets."""
        found, self.ended[shard] = tuple(self.ended[shard]), set()
        return found

    def _present(self, env: int, shard: int, away: Collection[int]) -> int:
        """Return the shard, or the next one that is there; itself, where none is."""
        if shard not in away or len(away) == self._n:
            return shard
        self.ended[shard].add(env)  # what it has of the episode is not continued
        while shard in away:
            shard = (shard + 1) % self._n
        return shard

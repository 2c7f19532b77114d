"""Contents: what an open buffer holds, as its access word has it.

`Contents` is that of access "read": it follows what is committed. `Exclusive` is ahead of its
store, `Shared` follows it and keeps apart what it has to say at its next commit. The methods that
write are the same in both, so that a buffer need not know which one it has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from diskreplay.buffer.prefetch import Ahead, Drawn, Lane
from diskreplay.buffer.ring import Columns, Ring
from diskreplay.errors import DamageError
from diskreplay.sampling import (
    PrioritizedSampler,
    UniformSampler,
    generator_from_plain,
    generator_to_plain,
)
from diskreplay.store import Snapshot, Store
from diskreplay.validation import MAX_COUNT

Ints = NDArray[np.int64]
SamplerT = TypeVar("SamplerT", UniformSampler, PrioritizedSampler)


class Contents(Generic[SamplerT]):
    """A ring, the sampler of its transitions and a random generator, as of some commit."""

    writes = False
    keeps_draws = False  # whether a draw changes what is committed

    def __init__(
        self,
        store: Store,
        ring: Ring,
        sampler: SamplerT,
        generator: np.random.Generator,
        settings: Mapping[str, Any],
    ) -> None:
        self.store = store
        self.ring = ring
        self.sampler: SamplerT = sampler
        self.generator = generator
        self.settings = settings
        self.damaged: set[int] = set()  # write ids of records that draws have left out
        self.stale = 0
        self.ahead = Ahead()
        self._seals: dict[int, bytes] = {}
        self._followed: tuple[int, int] | None = None  # start and commits, as taken over
        self.restore()

    @property
    def stale_updates(self) -> int:
        """How many updates of priorities came too late, over all runs."""
        return self.stale

    @property
    def nbytes(self) -> int:
        """The memory of what is held, in bytes, when full."""
        return self.ring.nbytes + self.sampler.nbytes

    @property
    def next_draw(self) -> Drawn | None:
        """The batch whose draw is the first that does not count yet; None where all count."""
        return None

    def restore(self) -> None:
        """Take over all that the store remembers, as of its last commit."""
        self._followed = None
        with self.store.snapshot() as snapshot:
            self._follow(snapshot)

    def view(self) -> contextlib.AbstractContextManager[Snapshot | None]:
        """Take over what is committed, and give the snapshot that it was read from."""
        return self._view()

    @contextlib.contextmanager
    def _view(self) -> Iterator[Snapshot | None]:
        self.store.check_place()
        with self.store.snapshot() as snapshot:
            self._follow(snapshot)
            yield snapshot

    def draw(
        self, n: int, view: Snapshot | None, *, skip_damaged: bool
    ) -> tuple[Ints, Any, Columns]:
        """Return n write ids, what the sampler says of them, and their columns."""
        first, count = self.ring.first, self.ring.count
        while True:
            write_ids, probabilities = self.sampler.draw(n, first, count, self.generator)
            try:
                return write_ids, probabilities, self.ring.fetch(write_ids, view)
            except DamageError:
                damaged = self.ring.damaged(write_ids, view)
                if not (skip_damaged and damaged.size):
                    raise
                self.sampler.leave_out(damaged, first, count)
                self.damaged.update(damaged.tolist())

    def advance(self) -> None:
        """Count a draw, where draws are kept."""

    def draw_ahead(self, lane: Lane, draw: Callable[[], Any]) -> None:
        """Draw a batch for later. When that fails the random stream is where it was."""
        before, annealing = generator_to_plain(self.generator), (0, 1.0)
        if isinstance(self.sampler, PrioritizedSampler):
            annealing = self.sampler.frame, self.sampler.beta
        try:
            batch = draw()
        except BaseException:
            self.generator = generator_from_plain(before)
            raise
        after = generator_to_plain(self.generator)
        lane.add(Drawn(self.ahead.number(), batch, before, after, *annealing))

    def take_back(self, lanes: Iterable[Lane] | None = None) -> None:
        """Drop what some lanes have ready, by default all; undo draws that no other came after.

        It may be interrupted, and done again.
        """
        drawn = self.ahead.ready(lanes)
        state = generator_to_plain(self.generator)
        back: list[Drawn] = []
        while drawn and drawn[-1].after == state:
            back.append(drawn.pop())
            state = back[-1].before
        if back:
            self._go_back(back[-1], len(back))
        self.ahead.drop(lanes)

    def _go_back(self, drawn: Drawn, draws: int) -> None:
        """Have the random stream as it was before the first of the last few draws."""
        self.generator = generator_from_plain(drawn.before)

    def _follow(self, snapshot: Snapshot) -> None:
        self.ring.refresh(snapshot)
        found = self.ring.start, self.ring.commits
        if self._followed != found:
            if self._followed is None or self._followed[0] != self.ring.start:
                self._forget()
            self._followed = None  # an interrupt on the way has all of it taken over again
            self._take_over(snapshot)
            self._followed = found

    def _forget(self) -> None:
        self._seals = {}
        self.sampler.clear(self.ring.first)

    def _take_over(self, snapshot: Snapshot) -> None:
        ring, path = self.ring, self.store.path
        stale = ring.state.get("stale_updates")
        if type(stale) is not int or not 0 <= stale <= MAX_COUNT:
            raise DamageError(f"the state of {path} has no count of stale updates")
        self.stale = stale
        seals = snapshot.seals()
        missing = set(self.sampler.live_blocks(ring.first, ring.count)) - set(seals)
        if missing:
            raise DamageError(f"priority block {min(missing)} of {path} is missing")
        changed = [number for number, seal in seals.items() if self._seals.get(number) != seal]
        found = snapshot.blocks_one_by_one(changed)
        self.sampler.load_blocks(found, ring.first, ring.count)
        self.sampler.restore(ring.fact("sampler"))
        self._seals = seals

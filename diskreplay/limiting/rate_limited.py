"""RateLimited: a replay whose inserts and samples wait for each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from numpy.typing import ArrayLike

from diskreplay.aliases import Floats, Ints, PathLike
from diskreplay.errors import ArgumentError
from diskreplay.limiting.forwarding import Forwarding
from diskreplay.limiting.rate import Counts, Rate
from diskreplay.limiting.waiting import Turns
from diskreplay.protocols import BatchIterator, Replay
from diskreplay.validation import as_whole, real_number

if TYPE_CHECKING:
    from typing_extensions import Self

BatchT = TypeVar("BatchT")
T = TypeVar("T")

_NOTE = "rate limiter"
_INSERT, _SAMPLE = "insert", "sample"


class RateLimited(Forwarding[BatchT]):
    """A replay whose pushes and draws wait, so that neither actors nor learners run ahead.

    It wraps a replay, and is one: everything else goes to that replay, which must not be written to
    past the wrapper. Draws wait until there are `min_size` transitions. With `samples_per_insert`
    the error of that ratio is kept within the tolerance:

        (inserts - min_size) * samples_per_insert - samples

    Pushes wait where they would raise it above `tolerance`, draws where they would lower it below
    -`tolerance`. A batch counts as its transitions, a sequence as its length. The words of Reverb
    are min_size_to_sample, samples_per_insert and error_buffer; the limit of how often a transition
    is sampled is `samplers.AtMost`.

    The counts are a note of the buffer, so they go on after a kill as the transitions do, and go
    back with `rewind`. They begin anew, at no error, where `min_size` or `samples_per_insert`
    changes. `stats()` has them as `rate_limiter`. Where several processes write, wrap the replay in
    one.

    A call that waits is woken by a call of another thread. A program of one thread asks
    `is_ready(n)`, which is False where a draw would wait, or sets a timeout: RateLimitError then
    says what is missing. `close()` ends calls that wait with ClosedError. A forked child can only
    read, and does so without limits. Raises ArgumentError for limits that could stop both sides for
    ever.

    >>> replay = RateLimited(
    ...     ReplayBuffer(capacity=1000), min_size=2, samples_per_insert=4, tolerance=8, timeout=0
    ... )
    >>> for _ in range(3):
    ...     _ = replay.push([0.0], 0, 1.0, [0.0], False)
    >>> replay.is_ready(3), replay.is_ready(30)
    (True, False)
    >>> replay.sample(3).rewards.size, replay.stats()["rate_limiter"]["error"]
    (3, 1.0)

    min_size:            transitions that there must be before any is sampled
    samples_per_insert:  how often a transition is sampled, on average; None sets no ratio
    tolerance:           by how many samples that may be wrong, at least half of those that the
                         largest insert allows and the largest batch takes, together
    timeout:             how long a call waits, in seconds; None for ever, 0 not at all
    """

    def __init__(
        self,
        replay: Replay[BatchT],
        *,
        min_size: int = 1,
        samples_per_insert: float | None = None,
        tolerance: float | None = None,
        timeout: float | None = None,
    ) -> None:
        self._rate = Rate.of(min_size, samples_per_insert, tolerance, replay.capacity)
        seconds = timeout
        if timeout is not None:
            seconds = real_number("timeout", timeout, low=0.0, high=1e9)
        super().__init__(replay)
        self._turns = Turns(seconds)
        self._largest = {_INSERT: 1, _SAMPLE: 0}
        self._load_counts()

    # Inserts

    def push(
        self,
        state: Any,
        action: Any,
        reward: Any,
        next_state: Any,
        done: Any,
        *arguments: Any,
        truncated: bool | None = None,
        env: int | None = None,
        **extra: Any,
    ) -> int:
        """Add one transition as soon as an insert is allowed."""
        turns = self._turns
        if not turns.lock._is_owned():  # type: ignore[attr-defined]
            with turns.lock:  # as `_insert` where nothing waits, which costs half as much
                is_allowed = self._rate.allows_insert(1, self._inserts, self._samples)
                if is_allowed and not turns.is_closed:
                    write_id = self._replay.push(
                        state, action, reward, next_state, done, *arguments,
                        truncated=truncated, env=env, **extra,
                    )  # fmt: skip
                    self._inserts += 1
                    turns.wake()
                    return write_id

        def push() -> int:
            return self._replay.push(
                state, action, reward, next_state, done, *arguments,
                truncated=truncated, env=env, **extra,
            )  # fmt: skip

        return self._insert(1, push)

    def extend(
        self,
        states: Any,
        actions: Any,
        rewards: ArrayLike,
        next_states: Any,
        dones: ArrayLike,
        *arguments: Any,
        truncateds: ArrayLike | None = None,
        env: int | ArrayLike | None = None,
        **extra: Any,
    ) -> Ints:
        """Add n transitions as soon as n inserts are allowed."""

        def extend() -> Ints:
            return self._replay.extend(
                states, actions, rewards, next_states, dones, *arguments,
                truncateds=truncateds, env=env, **extra,
            )  # fmt: skip

        return self._insert(_length(rewards), extend)

    # Samples

    def sample(
        self,
        batch_size: int,
        *,
        out: Any = None,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
        **options: Any,
    ) -> BatchT:
        """Draw a batch as soon as its samples are allowed."""

        def sample() -> BatchT:
            return self._replay.sample(
                batch_size, out=out, pad=pad, n_step=n_step, gamma=gamma, **options
            )

        return self._sample(batch_size, sample)

    def batches(
        self,
        batch_size: int,
        prefetch: int = 0,
        readers: int = 0,
        *,
        reuse: bool = False,
        prepare: Callable[[Any], Any] | None = None,
        frames: bool = False,
        pad: bool = False,
        n_step: int = 1,
        gamma: float = 0.99,
    ) -> BatchIterator[BatchT]:
        """Return an iterator that draws each batch as soon as its samples are allowed."""
        found = self._replay.batches(
            batch_size, prefetch, readers, reuse=reuse, prepare=prepare, frames=frames, pad=pad,
            n_step=n_step, gamma=gamma,
        )  # fmt: skip
        return _LimitedBatches(found, lambda: self._sample(batch_size, found.__next__))

    def sample_sequences(
        self, n: int, length: int, *, pad: bool = True, across: bool = False, **options: Any
    ) -> Any:
        """Draw sequences as soon as n * length samples are allowed."""

        def sample() -> Any:
            return self._replay.sample_sequences(n, length, pad=pad, across=across, **options)

        return self._sample((as_whole(n) or 0) * (as_whole(length) or 0), sample)

    def draw(self, n: int) -> tuple[Ints, Floats]:
        """Draw write ids as soon as n samples are allowed."""
        return self._sample(n, lambda: self._replay.draw(n))

    def is_ready(self, n: int) -> bool:
        """Return whether a batch of n transitions can be drawn, without waiting."""
        return self._replay.is_ready(n) and self._allows_sample(n)

    # What changes the counts, or may allow a call that waits

    def clear(self) -> None:
        """Remove all transitions; draws wait for `min_size` new ones."""
        self._shrink(self._replay.clear)

    def refresh(self) -> None:
        """Load the commits of other processes."""
        self._shrink(self._replay.refresh)

    def rewind(self, name: str, missing: str = "raise") -> int:
        """Go back to a mark, and to the counts as of the mark; see ReplayBuffer.rewind."""
        replay: Any = self._replay

        def rewind() -> int:
            found: int = replay.rewind(name, missing)
            self._load_counts()
            return found

        return self._turns.take(rewind)

    def load(self, path: PathLike, **options: Any) -> None:
        """Replace the contents by those of a store; the counts begin anew, at no error."""
        replay: Any = self._replay

        def load() -> None:
            replay.load(path, **options)
            self._use(Counts.of(None, self._rate, replay.count, len(replay)))

        self._turns.take(load)

    def stats(self) -> dict[str, Any]:
        """Return those of the replay, and of the limiter: limits, counts, error, waiting calls."""
        limits = {**self._rate.to_plain(), "inserts": self._inserts, "samples": self._samples}
        limits["error"] = self._rate.error(self._inserts, self._samples)
        for what in (_INSERT, _SAMPLE):
            limits[f"waiting_to_{what}"] = self._turns.waiting(what)
        return {**self._replay.stats(), "rate_limiter": limits}

    @property
    def insert_rows(self) -> int | None:
        """The most transitions of an `extend` that goes with batches as large as the tolerance.

        None where nothing limits it. A server has its clients send no larger groups of rows.
        """
        return self._rate.insert_rows

    def end_waits(self) -> None:
        """End the calls that wait with ClosedError, and any further ones."""
        self._turns.close()

    def close(self) -> None:
        """End the calls that wait with ClosedError, then commit and close the replay."""
        self.end_waits()
        self._replay.close()

    def __enter__(self) -> Self:
        self._replay.__enter__()
        return self

    def __reduce__(self) -> NoReturn:
        """Raise ArgumentError: another process would count for itself."""
        raise ArgumentError(
            "a RateLimited cannot be copied, or sent to another process, since it counts the calls "
            "of one: send the replay that it wraps, which opens for reading there"
        )

    # Inside

    def _shrink(self, call: Callable[[], None]) -> None:
        """Do a call after which there may be fewer transitions."""

        def shrink() -> None:
            self._is_filled = False
            call()

        self._turns.take(shrink)

    def _insert(self, n: int, insert: Callable[[], T]) -> T:
        if n > self._largest[_INSERT]:
            self._check_progress(_INSERT, n)

        def call() -> T:
            done = insert()
            self._inserts += n
            self._turns.wake()
            return done

        return self._turns.when(_INSERT, lambda: self._allows_insert(n), call, self._no_insert)

    def _sample(self, n: Any, sample: Callable[[], T]) -> T:
        if self._turns.is_inherited:
            return sample()
        size = max(0, as_whole(n) or 0)  # the replay says what is wrong with others
        if size > self._largest[_SAMPLE]:
            self._check_progress(_SAMPLE, size)

        def call() -> T:
            done = sample()
            self._samples += size
            self._keep_counts()
            self._turns.wake()
            return done

        return self._turns.when(_SAMPLE, lambda: self._allows_sample(size), call, self._no_sample)

    def _check_progress(self, what: str, n: int) -> None:
        largest = {**self._largest, what: n}
        self._rate.check_progress(largest[_INSERT], largest[_SAMPLE])
        self._largest = largest

    def _allows_insert(self, n: int) -> bool:
        if self._rate.allows_insert(n, self._inserts, self._samples):
            return True
        return len(self._replay) + n <= self._rate.min_size

    def _allows_sample(self, n: int) -> bool:
        if not self._is_filled:  # afterwards only `clear` and the like make it smaller
            self._is_filled = len(self._replay) >= self._rate.min_size
        allowed = self._rate.allows_sample(n, self._inserts, self._samples)
        return self._is_filled and allowed

    def _no_insert(self) -> str:
        return f"{self._said('less')}: sample in another thread, or give a longer timeout"

    def _no_sample(self) -> str:
        size, least = len(self._replay), self._rate.min_size
        way_out = "push in another thread, or give a longer timeout"
        if size < least:
            return f"the replay has {size:,} transitions (expected min_size={least:,}): {way_out}"
        return f"{self._said('more')}: {way_out}"

    def _said(self, word: str) -> str:
        """Return how far the samples are from the ratio."""
        ratio, tolerance = self._rate.samples_per_insert, self._rate.tolerance
        error = abs(self._rate.error(self._inserts, self._samples))
        return (
            f"the replay has {self._inserts:,} inserts and {self._samples:,} samples, {error:g} "
            f"samples {word} than samples_per_insert={ratio:g} asks for (tolerance {tolerance:g})"
        )

    # Counts

    def _load_counts(self) -> None:
        """Go on with the counts that the buffer keeps, as of its transitions."""
        replay: Any = self._replay
        note = replay.notes().get(_NOTE) if hasattr(replay, "notes") else None
        self._use(Counts.of(note, self._rate, replay.count, len(replay)))

    def _use(self, counts: Counts) -> None:
        self._before, self._samples = counts.before, counts.samples
        self._inserts = counts.before + self._replay.count
        self._is_filled = False
        self._keep_counts()

    def _keep_counts(self) -> None:
        """Keep the counts with the next commit; the buffer counts the inserts itself."""
        if hasattr(self._replay, "set_note"):
            counts = Counts(self._before, self._samples)
            self._replay.set_note(_NOTE, counts.to_plain(self._rate))


class _LimitedBatches(BatchIterator[BatchT]):
    """The iterator of a replay, whose batches are drawn when they are allowed."""

    def __init__(self, batches: BatchIterator[BatchT], following: Callable[[], BatchT]) -> None:
        self._batches, self._following = batches, following

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BatchT:
        return self._following()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop drawing ahead; the replay stays open."""
        self._batches.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


def _length(rewards: ArrayLike) -> int:
    """Return the number of transitions of an `extend`; 0 where the replay says what is wrong."""
    try:
        return len(rewards)  # type: ignore[arg-type]
    except TypeError:
        return 0

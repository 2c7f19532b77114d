"""ShardCalls: calls of the actors of the shards, their answers, and which shards are away.

Ray restarts an actor whose process has died. Its calls in flight fail, and so do later ones until
it is back. So a shard is away from the first failure until a call for its facts is answered.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

import ray

import diskreplay
from diskreplay.adapters.ray_shards.messages import Facts, ShardAwayError

ANSWER_SECONDS = 10.0  # after which a shard counts as away: the death of a node is told late
_PAUSE_SECONDS = 0.02  # between two calls of a shard that refuses them
# After which an absence is told of again: of a store that cannot be opened, and of any shard.
_SOON_SECONDS, _LONG_SECONDS = 2.0, 60.0

_REASONS = {
    "ActorDiedError": "its process has died",
    "ActorUnavailableError": "its process or its node does not answer",
    "GetTimeoutError": f"no answer within {ANSWER_SECONDS:.0f} seconds",
}


class ShardAwayWarning(UserWarning):
    """A shard is away: batches come from the others until it is back."""


class Call(NamedTuple):
    """A call that is under way."""

    ref: Any
    returns: int  # how often the shard had come back: a later failure tells of no new outage


class ShardCalls:
    """The actors of the shards, by number.

    facts:    of each shard, as of its last answer
    away:     the reasons of the shards that are away
    returns:  how often each has come back
    """

    def __init__(self, place: str, actors: list[Any]) -> None:
        self.place = place
        self.actors = actors
        self.facts: list[Facts] = []
        self.away: dict[int, str] = {}
        self.outages = 0
        self.returns = [0] * len(actors)
        self._probes: dict[int, Call] = {}  # the calls that tell that a shard is back
        self._since: dict[int, float] = {}  # when a shard went away
        self._told: set[int] = set()  # the shards that stay away, as a warning has told

    def load(self) -> None:
        """Load the facts of the shards; those that are away count as empty until they are back."""
        refs = {number: self.ask(number, "facts") for number in range(len(self.actors))}
        found = self.answers(refs)
        if not found:
            self._refuse(self.away)
        any_facts = next(iter(found.values()))
        empty = Facts(0, 0, 0, 0.0, None, 0, any_facts.seed)
        self.facts = [found.get(number, empty) for number in range(len(self.actors))]

    def ask(self, number: int, method: str, *arguments: Any, **named: Any) -> Call:
        """Call a method of a shard, and return at once."""
        ref = getattr(self.actors[number], method).remote(*arguments, **named)
        return Call(ref, self.returns[number])

    def answers(
        self, calls: Mapping[int, Call], seconds: float | None = ANSWER_SECONDS
    ) -> dict[int, Any]:
        """Return the answers by shard, without those of shards that are away now.

        Raises the error that a shard has raised.
        """
        with contextlib.suppress(ray.exceptions.RayError):
            found = ray.get([call.ref for call in calls.values()], timeout=seconds)
            return dict(zip(calls, found, strict=True))
        end = None if seconds is None else time.monotonic() + seconds
        answers: dict[int, Any] = {}
        failure: BaseException | None = None
        for number, call in calls.items():
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                answers[number] = self.answer(number, call, left)
            except ShardAwayError:
                pass
            except diskreplay.DiskReplayError as error:
                failure = error
        if failure is not None:
            raise failure
        return answers

    def answer(self, number: int, call: Call, seconds: float | None = ANSWER_SECONDS) -> Any:
        """Return the answer of a shard; raise its error, or ShardAwayError."""
        try:
            return ray.get(call.ref, timeout=seconds)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ShardAwayError):
                self.lose(number, call, str(cause))
            raise cause from None
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            reason = _REASONS.get(type(error).__name__, type(error).__name__)
            self.lose(number, call, reason)
            raise ShardAwayError(f"shard {number} of {self.place} is away: {reason}") from None

    def has_answer(self, call: Call) -> bool:
        """Return whether a call has an answer, or has failed."""
        return bool(ray.wait([call.ref], timeout=0)[0])

    def wait_for_answer(self, number: int, call: Call) -> None:
        """Wait for an answer; count the shard as away if none comes within 10 seconds."""
        if not ray.wait([call.ref], timeout=ANSWER_SECONDS)[0]:
            self.lose(number, call, _REASONS["GetTimeoutError"])

    def lose(self, number: int, call: Call, reason: str) -> None:
        """Count a shard as away, for the reason of a call."""
        if number not in self.away and call.returns == self.returns[number]:
            self.away[number] = reason
            self._since[number] = time.monotonic()
            self.outages += 1
            warnings.warn(
                f"shard {number} of {self.place} is away ({reason}): batches come from the others, "
                "and new episodes go to them, until Ray has restarted it",
                ShardAwayWarning,
                stacklevel=5,
            )

    def look_for_the_away(self) -> None:
        """Count shards in that are back, without waiting for the others."""
        for number in list(self.away):
            call = self._probes.pop(number, None) or self.ask(number, "facts")
            if not self.has_answer(call):
                self._probes[number] = call
                self._tell_if_long(number)
                continue
            try:
                self.load_facts({number: ray.get(call.ref)})
                self.returns[number] += 1
                self._told.discard(number)
                del self.away[number]
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, ShardAwayError):
                    self.away[number] = str(cause)
                self._tell_if_long(number, is_restarted=isinstance(cause, ShardAwayError))

    def _tell_if_long(self, number: int, is_restarted: bool = False) -> None:
        """Warn once of a shard that is away for long, or is there again without its store."""
        seconds = time.monotonic() - self._since[number]
        if number not in self._told and seconds > (
            _SOON_SECONDS if is_restarted else _LONG_SECONDS
        ):
            self._told.add(number)
            warnings.warn(
                f"shard {number} of {self.place} stays away, for {seconds:.0f} seconds now "
                f"({self.away[number]}): its {self.facts[number].size} transitions are not drawn, "
                "and rows that wait for it are not stored, until its store can be opened on the "
                "node that holds it",
                ShardAwayWarning,
                stacklevel=5,
            )

    def wait_for(self, numbers: Iterable[int], seconds: float) -> None:
        """Wait until shards are there; raise ShardAwayError after so many seconds."""
        wanted, end = set(numbers), time.monotonic() + seconds
        while missing := wanted & self.away.keys():
            self.look_for_the_away()
            if missing := wanted & self.away.keys():
                if time.monotonic() > end:
                    self._refuse(missing)
                probes = [self._probes[n].ref for n in missing if n in self._probes]
                if probes:
                    ray.wait(probes, timeout=0.1)
                else:  # it refuses at once
                    time.sleep(_PAUSE_SECONDS)

    def _refuse(self, numbers: Iterable[int]) -> NoReturn:
        reasons = ", ".join(f"shard {n} ({self.away[n]})" for n in sorted(numbers))
        raise ShardAwayError(
            f"{self.place}: {reasons} is away: call again once Ray has restarted it, on the node "
            "that holds its store"
        )

    @property
    def present(self) -> list[int]:
        """The numbers of the shards that are there."""
        return [number for number in range(len(self.actors)) if number not in self.away]

    def to_all(self, method: str, *arguments: Any, seconds: float | None = None) -> dict[int, Any]:
        """Call a method of all shards that are there, and return their answers."""
        self.look_for_the_away()
        return self.answers(
            {number: self.ask(number, method, *arguments) for number in self.present}, seconds
        )

    def to_each(self, method: str, *arguments: Any, seconds: float) -> dict[int, Any]:
        """Call a method of every shard, and return their answers; wait for those that are away."""
        numbers = set(range(len(self.actors)))
        found: dict[int, Any] = {}
        while missing := numbers - found.keys():
            self.wait_for(missing, seconds)
            refs = {number: self.ask(number, method, *arguments) for number in missing}
            found |= self.answers(refs, None)
        return {number: found[number] for number in sorted(found)}

    def load_facts(self, found: Mapping[int, tuple[Any, ...]]) -> None:
        """Take the facts of answers."""
        for number, facts in found.items():
            self.facts[number] = Facts(*facts)

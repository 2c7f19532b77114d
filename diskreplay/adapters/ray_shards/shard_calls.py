"""ShardCalls: calls of the actors of the shards, their answers, and which shards are away.

Ray restarts an actor whose process has died. Its calls in flight fail; later ones wait until it is
back. So a shard is away from the first failure until a call for its facts is answered.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

import ray

import diskreplay
from diskreplay.adapters.ray_shards.shard import Facts, ShardAwayError

_ANSWER_SECONDS = 10.0  # after which a shard counts as away: the death of a node is told late
_PAUSE_SECONDS = 0.02  # between two calls of a shard that refuses them


class ShardAwayWarning(UserWarning):
    """A shard is away: batches come from the others until it is back."""


class Call(NamedTuple):
    """A call that is under way."""

    ref: Any
    returns: int  # how often the shard had come back: a later failure tells of no new outage


class ShardCalls:
    """The actors of the shards, by number.

    facts:  of each shard, as of its last answer
    away:   the reasons of the shards that are away
    """

    def __init__(self, place: str, actors: list[Any]) -> None:
        self.place = place
        self.actors = actors
        self.facts: list[Facts] = []
        self.away: dict[int, str] = {}
        self.outages = 0
        self._returns = [0] * len(actors)
        self._probes: dict[int, Call] = {}  # the calls that tell that a shard is back

    def load(self) -> None:
        """Load the facts of all shards, which must be there."""
        refs = {number: self.ask(number, "facts") for number in range(len(self.actors))}
        found = self.answers(refs)
        if self.away:
            self._refuse(self.away)
        self.facts = [found[number] for number in sorted(found)]

    def ask(self, number: int, method: str, *arguments: Any, **named: Any) -> Call:
        """Call a method of a shard, and return at once."""
        ref = getattr(self.actors[number], method).remote(*arguments, **named)
        return Call(ref, self._returns[number])

    def answers(
        self, calls: Mapping[int, Call], seconds: float | None = _ANSWER_SECONDS
    ) -> dict[int, Any]:
        """Return the answers by shard, without those of shards that are away now.

        Raises the error that a shard has raised.
        """
        with contextlib.suppress(ray.exceptions.RayError):
            found = ray.get([call.ref for call in calls.values()], timeout=seconds)
            return dict(zip(calls, found, strict=True))
        answers: dict[int, Any] = {}
        failure: BaseException | None = None
        for number, call in calls.items():
            try:
                answers[number] = self.answer(number, call, seconds)
            except ShardAwayError:
                pass
            except diskreplay.DiskReplayError as error:
                failure = error
        if failure is not None:
            raise failure
        return answers

    def answer(self, number: int, call: Call, seconds: float | None = _ANSWER_SECONDS) -> Any:
        """Return the answer of a shard; raise its error, or ShardAwayError."""
        try:
            return ray.get(call.ref, timeout=seconds)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ShardAwayError):
                self._lose(number, call, str(cause))
            raise cause from None
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            kind = type(error).__name__
            self._lose(number, call, kind)
            raise ShardAwayError(f"shard {number} of {self.place} is away ({kind})") from None

    def _lose(self, number: int, call: Call, reason: str) -> None:
        if number not in self.away and call.returns == self._returns[number]:
            self.away[number] = reason
            self.outages += 1
            warnings.warn(
                f"shard {number} of {self.place} is away ({reason}): batches come from the others "
                "until Ray has restarted it; what is pushed to it waits",
                ShardAwayWarning,
                stacklevel=5,
            )

    def look_for_the_away(self) -> None:
        """Count shards in that are back, without waiting for the others."""
        for number in list(self.away):
            call = self._probes.pop(number, None) or self.ask(number, "facts")
            if not ray.wait([call.ref], timeout=0)[0]:
                self._probes[number] = call
                continue
            try:
                self.load_facts({number: ray.get(call.ref)})
                self._returns[number] += 1
                del self.away[number]
            except ray.exceptions.RayError as error:
                if isinstance(cause := getattr(error, "cause", None), ShardAwayError):
                    self.away[number] = str(cause)

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

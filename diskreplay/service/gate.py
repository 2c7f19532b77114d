"""Gate: the middleware of Arrow Flight that lets a stream in, or refuses it before it is read.

It also counts the requests that are being answered, so that a server can end between two of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyarrow import flight

from diskreplay.bell import Bell
from diskreplay.errors import DiskReplayError, NotAllowedError
from diskreplay.service.limits import Limits
from diskreplay.service.logs import log
from diskreplay.service.metrics import Metrics
from diskreplay.service.rights import ANYONE, Caller, Tokens

GATE = "gate"  # the name of the middleware
HEADER = "authorization"
_SCHEME = "Bearer "
_METHODS = (flight.FlightMethod.DO_EXCHANGE, flight.FlightMethod.DO_ACTION)


class StoppingError(Exception):
    """The server stops, and begins no more answers: the client asks the next one."""


class Gate(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Lets calls in that have a known token, as many at a time as the limits say.

    A call is a stream of requests here, or a single action.
    """

    def __init__(self, tokens: Tokens | None, limits: Limits, metrics: Metrics) -> None:
        super().__init__()
        self._tokens, self._limits, self.metrics = tokens, limits, metrics
        self._lock = threading.Lock()
        self._open = self._answering = 0
        self._is_stopping, self._is_idle = False, Bell()

    def start_call(self, info: Any, headers: dict[str, list[str]]) -> Admitted:
        """Return the middleware of a call that may come in; raise for any other."""
        try:
            caller = ANYONE if self._tokens is None else self._tokens.caller(_token_in(headers))
        except NotAllowedError as error:
            self._refuse("token", info)
            raise flight.FlightUnauthenticatedError(str(error), str(error).encode()) from None
        if info.method not in _METHODS:
            self._refuse("method", info)
            raise flight.FlightServerError("this service has exchanges and two actions alone")
        with self._lock:
            is_full = self._open >= self._limits.calls
            self._open += not is_full
        if is_full:
            self._refuse("calls", info)
            raise flight.FlightUnavailableError(
                f"this service has {self._limits.calls:,} open calls, which is its limit: close "
                "clients, or raise --max-calls"
            )
        self.metrics.calls.labels(caller.name).inc()
        return Admitted(self, caller)

    def leave(self, caller: Caller) -> None:
        """Note that a call has ended."""
        with self._lock:
            self._open -= 1
        self.metrics.calls.labels(caller.name).dec()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request that is answered in a block; raise StoppingError after `stop`."""
        with self._lock:
            if self._is_stopping:
                raise StoppingError
            self._answering += 1
        try:
            yield
        finally:
            with self._lock:
                self._answering -= 1
            if not self._answering:
                self._is_idle.ring()

    def note_error(self, caller: Caller, error: DiskReplayError) -> None:
        """Count an error that goes to a client, and log a right that is missing."""
        is_right = isinstance(error, NotAllowedError)
        self.metrics.refused.labels("right" if is_right else type(error).__name__).inc()
        if is_right:  # others may come at each step of a loop that waits for rows
            log("refused", logging.WARNING, client=caller.name, reason="right", error=str(error))

    def note_malformed(self, caller: Caller, error: Exception) -> None:
        """Count and log a stream that ends because of what its client sent."""
        self.metrics.refused.labels("malformed").inc()
        log("refused", logging.WARNING, client=caller.name, reason="malformed", error=str(error))

    def stop(self, seconds: float) -> int:
        """Begin no more answers, wait for those under way, and return how many are left."""
        with self._lock:
            self._is_stopping = True
        end = time.monotonic() + seconds
        # The bell may have been rung before, when the last of earlier requests was answered.
        while self._answering and (left := end - time.monotonic()) > 0:
            self._is_idle.wait(left)
        return self._answering

    def _refuse(self, reason: str, info: Any) -> None:
        self.metrics.refused.labels(reason).inc()
        log("refused", logging.WARNING, reason=reason, method=info.method.name)


class Admitted(flight.ServerMiddleware):  # type: ignore[misc]
    """The middleware of one call: its caller."""

    def __init__(self, gate: Gate, caller: Caller) -> None:
        super().__init__()
        self._gate, self.caller = gate, caller

    def call_completed(self, exception: Any) -> None:
        """Note that the call has ended."""
        self._gate.leave(self.caller)


def _token_in(headers: dict[str, list[str]]) -> str | None:
    """Return the token in the headers of a call."""
    values = headers.get(HEADER, [])
    if len(values) != 1 or not values[0].startswith(_SCHEME):
        return None
    return values[0].removeprefix(_SCHEME)


def caller_of(context: Any) -> Caller:
    """Return the caller of a call under way."""
    caller: Caller = context.get_middleware(GATE).caller
    return caller

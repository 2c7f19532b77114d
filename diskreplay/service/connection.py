"""Connection: the way from a client to a server, made again when it breaks."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import flight

from diskreplay.errors import ArgumentError, ClosedError, NotAllowedError, ServiceError
from diskreplay.forks import call_in_child, process
from diskreplay.service import messages
from diskreplay.service.addresses import Address
from diskreplay.service.answers import Answers
from diskreplay.service.crossing_errors import error_from_plain
from diskreplay.service.watch import Watch

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0  # seconds between attempts
# A connection that leads nowhere any more, as after a cut cable, is made anew by these.
_OPTIONS = [
    ("grpc.keepalive_time_ms", 330_000),  # servers refuse more than one in five minutes
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
]
_TOKEN = re.compile(r"[!-~]{1,4096}")
_BROKEN = (pa.ArrowException, OSError, StopIteration)
# Parts of the reasons why gRPC gets no connection, and the way out: these do not pass by waiting.
_LASTING = {
    "is not in peer certificate": "the certificate of the server does not name the host of this "
    "URL: connect to a name that stands in it as a subjectAltName, or make another certificate",
    "has expired": "the certificate of the server has expired: make another one",
    "certificate verify failed": "no authority that this client knows has signed the certificate "
    "of the server: give the file of the one that has, as diskreplay.connect(url, ca=FILE)",
    "wrong version number": "the server has no TLS: connect to grpc://",
}
_SILENT = "it keeps the connection, and answers nothing"

ResultT = TypeVar("ResultT")


class BrokenError(Exception):
    """The stream to the server broke; the request may have been answered or not."""


class Channel:
    """A stream of requests and their answers, in turns, for one thread.

    is_idle:  whether the last answer has come whole, so that the next one is of the next request
    """

    def __init__(self, client: Any, name: str, options: Any, watch: Watch) -> None:
        self._watch, self._is_broken_off = watch, False
        descriptor = flight.FlightDescriptor.for_command(name.encode())
        self._has_begun, self.is_idle, self._pid = False, True, os.getpid()
        self._answers: Answers | None = None
        try:
            self._writer, self._reader = client.do_exchange(descriptor, options)
        except _BROKEN as error:
            raise self._broken(error) from None
        _of_arrow.update((self._writer, self._reader))

    def send(self, name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Send a request."""
        self.is_idle = False
        try:
            self._watch.begin(self)
            if not self._has_begun:
                self._writer.begin(messages.SCHEMA)
                self._has_begun = True
            messages.send(self._writer, [name, list(arguments), options])
        except _BROKEN as error:
            raise self._broken(error) from None
        finally:
            self._watch.end(self)

    def receive(self) -> Any:
        """Return the next answer, or raise the error of the served replay."""
        try:
            self._watch.begin(self)
            match self._next_message():
                case [True, found]:
                    self.is_idle = True
                    return found
                case [False, plain]:
                    error = error_from_plain(plain)
                    self.is_idle = True
                case _:
                    raise messages.MalformedMessage("it is no answer")
        except _BROKEN as broken:
            raise self._broken(broken) from None
        except messages.MalformedMessage as malformed:
            raise ServiceError(
                f"the server sent a message that cannot be read, since it is of another version or "
                f"no diskreplay serve ({malformed})"
            ) from None
        finally:
            self._watch.end(self)
        raise error

    def _next_message(self) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return messages.receive(self._reader)
        if self._answers is None:
            self._answers = Answers(self._reader)
        return self._answers.next()

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Return the answer to a request, or raise the error of the served replay."""
        self.send(name, arguments, options)
        return self.receive()

    def break_off(self) -> None:
        """End the stream, in another thread, and the waiting of its own for the server."""
        self._is_broken_off = True
        self._reader.cancel()

    def _broken(self, error: BaseException) -> Exception:
        return BrokenError(_SILENT) if self._is_broken_off else _broken(error)

    def close(self) -> None:
        """End the stream, without waiting for a server that may not answer."""
        self._watch.end(self)
        self._reader.cancel()
        if self._answers is not None:
            self._answers.end()
        with contextlib.suppress(*_BROKEN):  # by the line above, or before
            self._writer.close()

    def __del__(self) -> None:
        """End the stream: its own destructor waits for the server, and all threads with it.

        A forked child leaves it to its parent; Python calls this there before any hook.
        """
        if hasattr(self, "_reader") and self._pid == os.getpid():
            self.close()


def _broken(error: BaseException) -> Exception:
    if isinstance(error, flight.FlightUnauthenticatedError):
        return NotAllowedError(error.extra_info.decode(errors="replace") or _reason(error))
    reason = _reason(error)
    if isinstance(error, flight.FlightServerError):
        return ServiceError(f"the server ended the stream: {reason}")
    for part, advice in _LASTING.items():
        if part in reason.lower():
            return ServiceError(f"{advice} ({reason})")
    return BrokenError(reason)


def _reason(error: BaseException) -> str:
    if isinstance(error, StopIteration):
        return "the server ended the stream"
    said = str(error).partition(". gRPC client debug context")[0].partition(". Client context")[0]
    return said.rpartition("with message: ")[2].rpartition("; last error: ")[2]


def _advice(reason: str) -> str:
    """Return what a user can look at where a server does not answer."""
    if "Socket closed" in reason:
        return (
            "if the server has TLS, connect to grpc+tls://, and if it asks clients for a "
            "certificate, give one as cert=(FILE, FILE)"
        )
    if reason == _SILENT:
        return "is its process stopped, or its machine gone?"
    return "is the server running, and is this its URL?"


def _listed(objects: weakref.WeakSet[ResultT]) -> list[ResultT]:
    while True:
        with contextlib.suppress(RuntimeError):  # another thread has made one meanwhile
            return list(objects)


_of_arrow: weakref.WeakSet[Any] = weakref.WeakSet()  # objects of gRPC
_kept: list[list[Any]] = []


def _keep_for_child() -> None:
    """Keep the objects of gRPC: in a forked child their end would wait for threads of the parent.

    Python ends what other threads have before it calls hooks in the child.
    """
    objects = _listed(_of_arrow)
    for one in objects:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))
    _kept.append(objects)


def _release_in_parent() -> None:
    while _kept:
        for one in _kept.pop():
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(one))


os.register_at_fork(before=_keep_for_child, after_in_parent=_release_in_parent)


class _Local(threading.local):
    channel: Channel | None = None


class Connection:
    """Calls of a replay on a server; each thread has a channel of its own.

    timeout:  the seconds for which a call waits for a server that does not answer
    """

    def __init__(self, url: str, token: str | None, timeout: float, tls: dict[str, bytes]) -> None:
        if token is not None and not _TOKEN.fullmatch(token):
            raise ArgumentError(
                "a token has 1 to 4,096 letters, digits and other signs of ASCII, without a space "
                "or a line break (found others, as at the end of a file that was read)"
            )
        self.url, self.timeout, self._tls = url, timeout, tls
        self._address = Address.of(url)
        self._headers = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
        self._options = flight.FlightCallOptions(headers=self._headers)
        self._local = _Local()
        self._process = process()
        self._client: Any = None
        self._watch: Watch | None = None
        self._channels: weakref.WeakSet[Channel] = weakref.WeakSet()
        self._making = threading.Lock()
        self.is_closed = False
        _connections.add(self)

    def call(
        self,
        name: str,
        *arguments: Any,
        is_repeatable: bool = True,
        timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Return the answer to a request; make it again where the connection breaks.

        timeout:        seconds, where they are not those of the connection
        is_repeatable:  whether it may be made twice; otherwise ServiceError says that it may or may
                        not have been done
        """

        def attempt() -> Any:
            # A channel comes back when it is idle. So an interrupted call leaves none whose answer
            # is still to come, and a signal handler that calls uses another one.
            channel, self._local.channel = self._local.channel or self.new_channel(), None
            was_sent = False
            try:
                channel.send(name, arguments, options)
                was_sent = True
                return channel.receive()
            except BrokenError as error:
                if was_sent and not is_repeatable:
                    raise ServiceError(
                        f"the connection to {self.url} broke in the middle of {name}(), which may "
                        f"or may not have been done: {error}"
                    ) from None
                raise
            finally:
                if channel.is_idle:
                    self._local.channel = channel
                else:
                    channel.close()

        return self.persist(attempt, self.timeout if timeout is None else timeout)

    def persist(self, attempt: Callable[[], ResultT], timeout: float) -> ResultT:
        """Return the result of attempts that are made until the connection does not break."""
        begin, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            self.check_open()
            try:
                return attempt()
            except BrokenError as error:
                if time.monotonic() + pause - begin > timeout:
                    raise ServiceError(
                        f"{self.url} did not answer for {timeout:g} second{'s' * (timeout != 1)} "
                        f"({error}): {_advice(str(error))}"
                    ) from None
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    @contextlib.contextmanager
    def channel(self) -> Iterator[Channel]:
        """Open a channel for requests that belong together; raise ServiceError if it breaks."""
        channel = self.persist(self.new_channel, self.timeout)
        try:
            yield channel
        except BrokenError as error:
            raise ServiceError(
                f"the connection to {self.url} broke, so this call has to be made again: {error}"
            ) from None
        finally:
            channel.close()

    def new_channel(self) -> Channel:
        """Return a channel of its own; raise BrokenError where the server cannot be reached."""
        self.check_open()
        with self._making:
            if self._client is None:
                self._client = flight.FlightClient(
                    self._address.location, generic_options=_OPTIONS, **self._tls
                )
                _of_arrow.add(self._client)
            if self._watch is None:
                self._watch = Watch(self._client, self.timeout, self._headers)
        if self._watch.is_silent:
            raise BrokenError(_SILENT)
        channel = Channel(self._client, self._address.name, self._options, self._watch)
        self._channels.add(channel)
        self.check_open()  # or the channel came too late to be ended
        return channel

    def check_open(self) -> None:
        """Raise ClosedError for a closed connection, and ServiceError in a forked child."""
        if self._process is not process():
            raise ServiceError(
                f"the connection to {self.url} belongs to the process that this one was forked "
                "from, and gRPC cannot be used after a fork: start processes with spawn, and give "
                "them the replay, which connects again"
            )
        if self.is_closed:
            raise ClosedError(
                f"the connection to {self.url} is closed: open it again with diskreplay.connect"
            )

    def close_channel(self) -> None:
        """Close the channel of this thread."""
        channel, self._local.channel = self._local.channel, None
        if channel is not None:
            channel.close()

    def end(self) -> None:
        """End the calls of other threads with an error, and make no more."""
        self.is_closed = True
        if self._watch is not None and self._process is process():
            self._watch.stop()
            for channel in _listed(self._channels):
                channel.break_off()

    def close(self) -> None:
        """Close the connection; calls of other threads end with an error."""
        self.end()
        client, self._client = self._client, None
        if client is not None and self._process is process():
            self.close_channel()
            client.close()


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
call_in_child(_connections.clear)


@atexit.register
def _end_all() -> None:
    """End all streams before their destructors do, which would wait for the server."""
    for connection in _listed(_connections):
        connection.end()
        connection.close_channel()

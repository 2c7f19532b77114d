"""ReplayServer: replays by name, for clients in other processes and on other machines."""

from __future__ import annotations

import ctypes
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

from diskreplay.errors import (
    ArgumentError,
    ClosedError,
    DiskReplayError,
    ServiceError,
    StorageError,
)
from diskreplay.limiting import RateLimited
from diskreplay.service import messages
from diskreplay.service.addresses import Address
from diskreplay.service.calls import answer, parsed
from diskreplay.service.clients import Clients, address_of
from diskreplay.service.connections import Connections
from diskreplay.service.crossing_errors import error_to_plain
from diskreplay.service.gate import GATE, Gate, StoppingError, caller_of
from diskreplay.service.groups import Groups
from diskreplay.service.limits import Limits
from diskreplay.service.logs import log
from diskreplay.service.metrics import Metrics
from diskreplay.service.rights import (
    Caller,
    Tokens,
    check_exposure,
    check_tls,
    checked_name,
)
from diskreplay.service.room import NoRoomError, Room, Share
from diskreplay.service.streams import Served, Stream
from diskreplay.service.tls import TLS
from diskreplay.service.unix_socket import listening_at
from diskreplay.wording import cut, shown

if TYPE_CHECKING:
    from typing_extensions import Self


class ReplayServer:
    """A server of replays by name; it serves from its construction on, in threads of its own.

    The replays stay those of the caller: `close` ends the server and leaves them open. No other
    code may push to them meanwhile.

    >>> from diskreplay import ReplayBuffer, connect
    >>> from diskreplay.service.server import ReplayServer
    >>> buffer = ReplayBuffer(capacity=100)
    >>> with ReplayServer({"main": buffer}) as server, connect(server.url) as replay:
    ...     write_id = replay.push([0.0], 0, 1.0, [1.0], False)
    ...     replay.flush()
    ...     len(replay)
    1

    replays:  buffers, by the names that clients give in a URL
    address:  a URL without a name; the port 0 takes a free one, which `url` tells
    tokens:   those that clients need; by default they need none
    tls:      the certificate for a grpc+tls:// address
    insecure: let other machines in without tokens or TLS, which is refused otherwise
    """

    def __init__(
        self,
        replays: Mapping[str, Any],
        address: str = "grpc://127.0.0.1:0",
        *,
        tokens: Tokens | None = None,
        tls: TLS | None = None,
        insecure: bool = False,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        location, name = Address.of(address)
        if name:
            raise ArgumentError(
                f"a server listens at an address without a name (found {shown(address)}): names "
                "are those of the replays"
            )
        self._limits, self._metrics = limits or Limits(), metrics or Metrics()
        self._served = {
            name: Served(name, one, Groups(one), Clients(), self._limits.group_rows(one))
            for name, one in _checked(replays).items()
        }
        self._metrics.watch(self._served.values())
        self.gate = Gate(tokens, self._limits, self._metrics)
        self._room = Room(self._limits.memory_bytes)
        check_tls(location, has_tls=tls is not None)
        check_exposure(
            location, has_tls=tls is not None, has_tokens=tokens is not None, insecure=insecure
        )
        security = {"middleware": {GATE: self.gate}, **(tls.arguments() if tls else {})}
        self._flight, self._remove_socket = listening_at(
            location, lambda at: _Flight(self, at, security)
        )
        host, _, _ = location.rpartition(":")
        self._url = f"{host}:{self._flight.port}" if self._flight.port > 0 else location
        self.connections = Connections(self._flight.port, self._limits.calls)
        self._closed = False

    @property
    def url(self) -> str:
        """The URL that clients connect to; with several replays they add a name."""
        return self._url

    def close(self) -> None:
        """Stop serving; the replays stay open. A second call does nothing.

        Connections that clients keep open end with their next call, which they make again: the
        next server at this address answers it.
        """
        if not self._closed:
            self._closed = True
            self.gate.stop(0)
            self._remove_socket()
            self.connections.close()
            threading.Thread(target=self._flight.shutdown, name="diskreplay", daemon=True).start()

    def drain(self, seconds: float) -> int:
        """Begin no more answers, wait for those under way, and return how many are left.

        Rows that are not acknowledged are sent again by their clients, to the next server.
        """
        for served in self._served.values():
            if isinstance(served.replay, RateLimited):
                served.replay.end_waits()
        left = self.gate.stop(seconds)
        self.close()
        return left

    def health(self) -> dict[str, Any]:
        """Return the sizes of the replays."""
        replays = {name: served.replay for name, served in self._served.items()}
        return {
            name: {"size": len(replay), "count": replay.count, "capacity": replay.capacity}
            for name, replay in replays.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def served(self, name: str) -> Served:
        """Return a replay by its name, or raise ArgumentError; "" is the only one."""
        if not name and len(self._served) == 1:
            [only] = self._served.values()
            return only
        if name not in self._served:
            known = ", ".join(sorted(self._served))
            raise ArgumentError(
                f"the server has no replay {shown(name)} (expected one of {known}): add it to the "
                f"URL, as {Address(self.url, 'NAME').url()}"
            )
        return self._served[name]

    def answer_stream(
        self, name: str, caller: Caller, address: str, reader: Any, writer: Any
    ) -> None:
        """Answer the requests of a stream in their order, until it ends."""
        stream = Stream(caller, address)
        has_begun = False
        try:
            while not self._closed:
                with self._room.share() as share:  # of a request and its answer
                    request, refusal = None, None
                    try:
                        request = self._received(reader, share)
                    except StopIteration:
                        return
                    except ArgumentError as error:
                        refusal = error
                    if not has_begun and reader.schema != messages.SCHEMA:
                        raise messages.MalformedMessage("its stream has no column of bytes")
                    with self.gate.answering():
                        try:
                            if refusal is not None:
                                raise refusal
                            found = [True, self._answer(name, caller, stream, request, share)]
                        except ClosedError:  # of a replay: another server may have it open
                            raise
                        except DiskReplayError as error:
                            self.gate.note_error(caller, error)
                            found = [False, error_to_plain(error)]
                        if not has_begun:
                            writer.begin(messages.SCHEMA)
                            has_begun = True
                        messages.send(writer, found, hold=share.send)
        finally:
            stream.close()

    def _received(self, reader: Any, share: Share) -> Any:
        """Return the next request of a stream."""
        most_bytes = self._limits.message_bytes
        try:
            return messages.receive(reader, kinds=False, most_bytes=most_bytes, hold=share.add)
        except (pa.ArrowException, OSError) as error:  # not even a record batch
            raise messages.MalformedMessage(cut(str(error))) from None

    def _answer(self, name: str, caller: Caller, stream: Stream, request: Any, share: Share) -> Any:
        """Return the answer to a request that its client may make."""
        asked = parsed(request)
        caller.require(asked.call.right)
        served = self.served(name)
        schema = served.replay.schema
        rows = asked.rows()
        nbytes = 0 if schema is None else rows * schema.payload_bytes
        self._limits.check(rows, nbytes)
        if asked.call.right == "read":
            share.expect(nbytes)
        stream.use(served)
        try:
            with self._metrics.timed(asked.name):
                found = answer(stream, asked)
        except (DiskReplayError, messages.MalformedMessage):
            raise
        except Exception:  # its text may tell of this machine, and is for its log alone
            log("failed", logging.ERROR, exc_info=True, client=caller.name, call=asked.name)
            raise ServiceError(
                f"the server failed to answer {asked.name}(): its log says why"
            ) from None
        self._metrics.count(served.name, asked.name, rows)
        return found


def _checked(replays: Mapping[str, Any]) -> dict[str, Any]:
    """Return replays by name, or raise ArgumentError."""
    if not isinstance(replays, Mapping) or not replays:
        raise ArgumentError(
            f"a server takes buffers by their names (found {shown(replays)}): give it "
            '{"main": buffer}'
        )
    for name, replay in replays.items():
        if not hasattr(replay, "set_note"):
            raise ArgumentError(
                f"{shown(name)} is no buffer of this process (found {shown(replay)}): open one "
                "with diskreplay.open"
            )
        checked_name(name)
    if len({id(replay) for replay in replays.values()}) < len(replays):
        raise ArgumentError(
            "a buffer is served under two names: clients of one would not see groups of the other"
        )
    return dict(replays)


class _Flight(flight.FlightServerBase):  # type: ignore[misc]
    """The server of Arrow Flight, which calls a ReplayServer."""

    def __init__(self, server: ReplayServer, location: str, security: dict[str, Any]) -> None:
        self._server = server
        try:
            super().__init__(location, **security)
            # Its destructor would wait for the streams of all clients, also at the end of the
            # program.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        except pa.ArrowException:
            raise StorageError(
                f"no server can listen at {location}: another one does, or it is no address of "
                "this machine; choose another address"
            ) from None

    def do_action(self, context: Any, action: Any) -> Any:
        """Answer `health` with the sizes of the replays, as JSON, and `alive` with nothing."""
        if action.type == "alive":
            return []
        if action.type != "health":
            raise flight.FlightServerError("the only actions are health and alive")
        with self._plain_errors(context):
            found = {"status": "serving", "replays": self._server.health()}
        return [flight.Result(json.dumps(found).encode())]

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Answer the requests of a stream."""
        name = (descriptor.command or b"").decode(errors="replace")
        peer = context.peer()
        with self._plain_errors(context), self._server.connections.call_of(peer):
            self._server.answer_stream(name, caller_of(context), address_of(peer), reader, writer)

    @contextmanager
    def _plain_errors(self, context: Any) -> Iterator[None]:
        """Tell a client in a sentence why its call ends; other errors would come as tracebacks."""
        gate = self._server.gate
        try:
            yield
        except messages.MalformedMessage as error:
            gate.note_malformed(caller_of(context), error)
            raise flight.FlightServerError(str(error)) from None
        except (NoRoomError, ClosedError) as error:
            raise flight.FlightUnavailableError(str(error)) from None
        except StoppingError:
            raise flight.FlightUnavailableError("the server stops") from None
        except flight.FlightError:  # of an answer that cannot be sent: the client is gone
            raise
        except Exception:
            log("failed", logging.ERROR, exc_info=True, client=caller_of(context).name)
            raise flight.FlightInternalError("the server failed: its log says why") from None

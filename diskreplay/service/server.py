"""ReplayServer: replays by name, for clients in other processes and on other machines."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyarrow import flight

from diskreplay.errors import ArgumentError, DiskReplayError
from diskreplay.service import messages
from diskreplay.service.addresses import Address
from diskreplay.service.calls import Served, answer
from diskreplay.service.crossing_errors import error_to_plain
from diskreplay.service.groups import Groups
from diskreplay.wording import shown

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST_MESSAGE_BYTES = 2**30


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
    """

    def __init__(self, replays: Mapping[str, Any], address: str = "grpc://127.0.0.1:0") -> None:
        location, name = Address.of(address)
        if name:
            raise ArgumentError(
                f"a server listens at an address without a name (found {shown(address)}): names "
                "are those of the replays"
            )
        self._served = {name: Served(one, Groups(one)) for name, one in replays.items()}
        self._calls = threading.Lock()
        self._flight = _Flight(self, location)
        host, _, _ = location.rpartition(":")
        self._url = f"{host}:{self._flight.port}" if self._flight.port else location
        self._closed = False

    @property
    def url(self) -> str:
        """The URL that clients connect to; with several replays they add a name."""
        return self._url

    def close(self) -> None:
        """Stop serving; the replays stay open. A second call does nothing.

        Connections that clients keep open end with their next call.
        """
        if not self._closed:
            self._closed = True
            threading.Thread(target=self._flight.shutdown, name="diskreplay", daemon=True).start()

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
                f"URL, as {self.url}/NAME"
            )
        return self._served[name]

    def answer_stream(self, name: str, reader: Any, writer: Any) -> None:
        """Answer the requests of a stream in their order, until it ends."""
        has_begun = False
        while not self._closed:
            try:
                request = messages.receive(reader, kinds=False, most_bytes=_MOST_MESSAGE_BYTES)
            except StopIteration:
                return
            if self._closed:
                return
            try:
                found = [True, answer(self.served(name), request)]
            except DiskReplayError as error:
                found = [False, error_to_plain(error)]
            if not has_begun:
                writer.begin(messages.SCHEMA)
                has_begun = True
            messages.send(writer, found)


class _Flight(flight.FlightServerBase):  # type: ignore[misc]
    """The server of Arrow Flight, which calls a ReplayServer."""

    def __init__(self, server: ReplayServer, location: str) -> None:
        self._server = server
        super().__init__(location)

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Answer the requests of a stream."""
        name = (descriptor.command or b"").decode(errors="replace")
        try:
            self._server.answer_stream(name, reader, writer)
        except messages.MalformedMessage as error:
            raise flight.FlightServerError(str(error)) from None

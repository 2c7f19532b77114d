"""Connections: the TCP connections of a server, and an end for idle ones beyond its limit.

The server of Arrow Flight in Python neither counts nor ends connections. But they are sockets of
this process, so they are found among its file descriptors.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from diskreplay.bell import Bell

_SECONDS = 1.0  # between two looks at all connections
_Peer = tuple[str, int]  # an address and a port


class Connections:
    """Ends the oldest connections without a call when there are more than `most` at a port."""

    def __init__(self, port: int, most: int) -> None:
        self._port, self._most = port, most
        self._lock = threading.Lock()
        self._calls: Counter[_Peer | None] = Counter()
        self._found: dict[_Peer, None] = {}  # oldest first
        self._end = Bell()
        if port > 0:  # not a Unix socket, which is its user's alone
            threading.Thread(target=self._run, name="diskreplay connections", daemon=True).start()

    @contextmanager
    def call_of(self, peer: str) -> Iterator[None]:
        """Keep a connection within a block, by the peer that gRPC tells."""
        key = _key(peer)
        with self._lock:
            self._calls[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls[key] -= 1
                if not self._calls[key]:
                    del self._calls[key]

    def close(self) -> None:
        """Look no more."""
        self._end.ring()

    def end_surplus(self) -> int:
        """End the oldest connections that are too many and have no call; return their number."""
        numbers = _file_descriptors()
        if len(numbers) <= self._most:
            self._found = {}
            return 0
        found = {peer: number for number in numbers if (peer := self._peer_at(number))}
        self._found = {
            **{peer: None for peer in self._found if peer in found},
            **dict.fromkeys(found),
        }
        with self._lock:
            idle = [peer for peer in self._found if peer not in self._calls]
        surplus = idle[: max(0, len(found) - self._most)]
        for peer in surplus:
            # The descriptor may be of another connection by now, which then is not ended.
            if self._peer_at(found[peer]) == peer:
                with _socket_at(found[peer]) as one, contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        return len(surplus)

    def _run(self) -> None:
        while not self._end.wait(_SECONDS):
            with contextlib.suppress(OSError):
                self.end_surplus()

    def _peer_at(self, number: int) -> _Peer | None:
        """Return the peer of a file descriptor, None if it is no connection to the port."""
        with contextlib.suppress(OSError), _socket_at(number) as one:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                if one.getsockname()[1] != self._port:
                    return None
                host, port = one.getpeername()[:2]
                return _address(host), port
        return None


@contextmanager
def _socket_at(number: int) -> Iterator[socket.socket]:
    """Return the socket that a file descriptor is, and leave it open; raise OSError for others."""
    one = socket.socket(fileno=number)
    try:
        yield one
    finally:
        one.detach()


def _file_descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # not Linux, or no descriptor is left to read the directory with
        return [*range(min(os.sysconf("SC_OPEN_MAX"), 2**16))]


def _key(peer: str) -> _Peer | None:
    """Return the peer in a text of gRPC, as ipv4:127.0.0.1:5000 or ipv6:%5B::1%5D:5000."""
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    try:
        return _address(host.strip("[]")), int(port)
    except ValueError:
        return None


def _address(host: str) -> str:
    """Return an address in one form: an IPv4 one that came by IPv6 is an IPv4 one."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)

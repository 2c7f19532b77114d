"""The bytes that a client sends over a connection: recorded by a proxy, changed, and sent again."""

from __future__ import annotations

import contextlib
import socket
import threading

import numpy as np


class Recorder:
    """A proxy before a server, which keeps what clients send: the bytes of each connection."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.sent: list[bytearray] = []
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [client, server]
                self.sent.append(bytearray())
                for pump in ((client, server, self.sent[-1]), (server, client, bytearray())):
                    self._threads.append(threading.Thread(target=self._pump, args=pump))
                    self._threads[-1].start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 16):
                kept += part
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End all connections."""
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()


def mutated(sent: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes with one change: flipped, overwritten, cut, removed, doubled or inserted."""
    content = np.frombuffer(sent, np.uint8).copy()
    at = int(rng.integers(len(content)))
    n = int(rng.integers(1, 33))
    before, some, after = np.split(content, [at, min(at + n, len(content))])
    noise = rng.integers(0, 256, n, np.uint8)
    kind = rng.integers(7)
    if kind == 0:
        some[0] ^= 1 << rng.integers(8)
    elif kind == 1:
        some[...] = noise[: len(some)]
    elif kind == 2:
        some[...] = rng.choice([0, 0xFF])
    parts = {
        3: [before],
        4: [before, after],
        5: [before, some, some, after],
        6: [before, noise, some, after],
    }.get(int(kind), [before, some, after])
    return np.concatenate(parts).tobytes()


def send_again(port: int, content: bytes, silence: float) -> int:
    """Send bytes over a new connection; return the bytes of the answers, up to a silence.

    silence:  seconds, within which a server has begun to answer
    """
    received = 0
    gone = contextlib.suppress(OSError)  # the server has ended it, or is silent
    with gone, socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(content)
        one.settimeout(silence)
        while part := one.recv(1 << 16):
            received += len(part)
    return received

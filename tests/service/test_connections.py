"""Connections beyond the limit end, those without a call first; the others go on."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from diskreplay.service.connections import Connections


def accepted(listener: socket.socket, stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Connect, and return the ends of the client and of the server."""
    client = stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
    return client, stack.enter_context(listener.accept()[0])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_oldest_connections_without_a_call_end(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server((host, 0), family=family))
        except OSError:
            pytest.skip("no IPv6 here")
        port = listener.getsockname()[1]
        connections = Connections(port, 5)
        connections.close()  # the test looks itself
        stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # another port
        clients, servers = [], []
        for _ in range(8):
            client, server = accepted(listener, stack)
            clients.append(client)
            servers.append(server)
            connections.end_surplus() if len(clients) < 6 else None  # they differ in age
        # As gRPC tells a peer.
        name = clients[0].getsockname()
        peer = f"ipv6:%5B::1%5D:{name[1]}" if ":" in host else f"ipv4:127.0.0.1:{name[1]}"
        with connections.call_of(peer):
            assert connections.end_surplus() == 3
        for place, client in enumerate(clients):
            client.setblocking(False)
            if place in (1, 2, 3):
                assert client.recv(1) == b""
            else:
                with pytest.raises(BlockingIOError):
                    client.recv(1)
        for ended in servers[1:4]:
            ended.close()
        accepted(listener, stack)
        assert connections.end_surplus() == 1  # the call has ended
        assert clients[0].recv(1) == b""

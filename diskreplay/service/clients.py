"""Clients: who is connected to a served replay, by the name of the token and the address."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from diskreplay.service.rights import RIGHTS, Caller


@dataclass
class _Open:
    since: float
    streams: int = 0


class Clients:
    """The streams that are open to a replay, counted by their caller and its address."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[Caller, str], _Open] = {}

    def enter(self, caller: Caller, address: str) -> None:
        """Note a stream that begins."""
        with self._lock:
            self._open.setdefault((caller, address), _Open(time.time())).streams += 1

    def leave(self, caller: Caller, address: str) -> None:
        """Note a stream that has ended."""
        with self._lock:
            found = self._open[caller, address]
            found.streams -= 1
            if not found.streams:
                del self._open[caller, address]

    def seen_by(self, caller: Caller, address: str) -> list[dict[str, Any]]:
        """Return the clients, the oldest first, as one of them may see them.

        Rights and addresses of others are for those with the right admin, and None for the rest.
        """
        with self._lock:
            clients = [(*key, found.since, found.streams) for key, found in self._open.items()]
        seen = []
        for each, at, since, streams in clients:
            is_own = (each, at) == (caller, address)
            is_shown = is_own or "admin" in caller.rights
            rights = [right for right in RIGHTS if right in each.rights]
            seen.append(
                {
                    "name": each.name,
                    "rights": rights if is_shown else None,
                    "address": at if is_shown else None,
                    "since": since,
                    "streams": streams,
                    "is_own": is_own,
                }
            )
        return seen


def address_of(peer: str) -> str:
    """Return the address of a peer as gRPC names it, in the form of a URL.

    >>> address_of("ipv4:10.0.0.7:40112"), address_of("ipv6:%5B::1%5D:40112"), address_of("unix:")
    ('10.0.0.7:40112', '[::1]:40112', 'unix')
    """
    kind, _, address = unquote(peer).partition(":")
    return address or kind

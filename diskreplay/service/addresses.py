"""Addresses: the URLs of servers, in one place for the server and its clients."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from diskreplay.errors import ArgumentError
from diskreplay.wording import shown

_FORMS = (
    "grpc://HOST:PORT/NAME, grpc+tls://HOST:PORT/NAME or grpc+unix:///PATH.sock?name=NAME, without "
    "NAME where a server has one buffer"
)


class Address(NamedTuple):
    """The address of a server, and the name of a replay on it.

    >>> Address.of("grpc://127.0.0.1:7777/actors")
    Address(location='grpc://127.0.0.1:7777', name='actors')
    >>> Address.of("grpc+unix:///run/replay.sock?name=actors")
    Address(location='grpc+unix:///run/replay.sock', name='actors')

    location:  the URL without the name, as Arrow Flight takes it
    name:      of the replay; "" for the only one
    """

    location: str
    name: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Return the address in a URL, or raise ArgumentError."""
        try:
            parts = urlsplit(url)
            port, query = parts.port, parse_qs(parts.query, strict_parsing=bool(parts.query))
        except (TypeError, ValueError, AttributeError):
            raise _wrong(url) from None
        if parts.fragment or query.keys() - {"name"}:
            raise _wrong(url)
        if parts.scheme == "grpc+unix":
            if parts.netloc or len(parts.path) < 2:
                raise _wrong(url)
            return cls(f"grpc+unix://{parts.path}", query.get("name", [""])[-1])
        if parts.scheme not in ("grpc", "grpc+tls") or not parts.hostname or port is None or query:
            raise _wrong(url)
        return cls(f"{parts.scheme}://{parts.netloc}", parts.path.strip("/"))

    def url(self) -> str:
        """Return the URL of the address."""
        if not self.name:
            return self.location
        is_unix = self.location.startswith("grpc+unix:")
        return f"{self.location}{'?name=' if is_unix else '/'}{self.name}"


def _wrong(url: object) -> ArgumentError:
    return ArgumentError(f"the URL of a server must be {_FORMS} (found {shown(url)})")

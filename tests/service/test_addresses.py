"""The URLs of servers, and what is none."""

from __future__ import annotations

import pytest

from diskreplay import ArgumentError
from diskreplay.service.addresses import Address


@pytest.mark.parametrize(
    ("url", "location", "name"),
    [
        ("grpc://a:1", "grpc://a:1", ""),
        ("grpc://a:1/b", "grpc://a:1", "b"),
        ("grpc+tls://[::1]:1/b", "grpc+tls://[::1]:1", "b"),
        ("grpc+unix:///run/a.sock", "grpc+unix:///run/a.sock", ""),
        ("grpc+unix:///run/a.sock?name=b", "grpc+unix:///run/a.sock", "b"),
    ],
)
def test_a_url_is_a_location_and_a_name(url: str, location: str, name: str) -> None:
    assert Address.of(url) == (location, name)
    assert Address.of(url).url() == url


@pytest.mark.parametrize(
    "url",
    [
        None, 7, b"grpc://a:1", "", "runs/a", "a:1", "http://a:1", "grpc://", "grpc://a", "grpc://:1",
        "grpc://a:b", "grpc://a:65536", "grpc://a:1/b#c", "grpc://a:1/?name=b", "grpc+tls://a:1?b",
        "grpc+unix://", "grpc+unix:///", "grpc+unix://run/a.sock", "grpc+unix:///run/a.sock?b=c",
        "grpc+unix:///run/a.sock?b", "grpc+unix:///run/a.sock?name=b#c",
    ],
)  # fmt: skip
def test_a_url_of_another_form_is_refused(url: object) -> None:
    with pytest.raises(ArgumentError, match=r"the URL of a server must be grpc://HOST:PORT"):
        Address.of(url)  # type: ignore[arg-type]

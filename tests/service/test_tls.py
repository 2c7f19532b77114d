"""TLS and mutual TLS from files, and whom they keep out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from common import row

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

import certificates
from certificates import Certificates

import diskreplay
from diskreplay import ArgumentError, NotAllowedError, ReplayBuffer, ServiceError, StorageError
from diskreplay.service.rights import Tokens, add_token
from diskreplay.service.server import ReplayServer
from diskreplay.service.tls import TLS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@contextmanager
def serving(
    tls: TLS | None, tokens: Tokens | None = None, host: str = "127.0.0.1"
) -> Iterator[ReplayServer]:
    address = f"grpc{'' if tls is None else '+tls'}://{host}:0"
    with (
        ReplayBuffer(capacity=10) as buffer,
        ReplayServer({"a": buffer}, address, tls=tls, tokens=tokens) as server,
    ):
        buffer.push(**row(0))
        yield server


def size(url: str, **given: Any) -> int:
    """Connect, and return the size of the replay."""
    with diskreplay.connect(url, timeout=2, **given) as replay:
        return len(replay)


def test_a_client_that_knows_the_authority_comes_in(made: Certificates, tmp_path: Path) -> None:
    token = add_token(tmp_path / "tokens", "eyes", ["read"])
    with serving(TLS.read(*made.pair("server")), Tokens.read(tmp_path / "tokens")) as server:
        assert size(server.url, token=token, ca=made.authority) == 1
        with pytest.raises(NotAllowedError, match="needs a token"):
            size(server.url, ca=made.authority)
        with pytest.raises(ServiceError, match="certificate verify failed"):
            size(server.url, token=token)


def test_an_expired_certificate_is_refused(made: Certificates) -> None:
    with (
        serving(TLS.read(*made.pair("expired"))) as server,
        pytest.raises(ServiceError, match="certificate has expired"),
    ):
        size(server.url, ca=made.authority)


def test_a_certificate_of_another_host_is_refused(made: Certificates) -> None:
    # It names localhost and 127.0.0.1, but no other address of this machine.
    with serving(TLS.read(*made.pair("server"))) as server:
        assert size(server.url.replace("127.0.0.1", "localhost"), ca=made.authority) == 1
    with (
        serving(TLS.read(*made.pair("server")), host="127.0.0.2") as server,
        pytest.raises(ServiceError, match=r"127\.0\.0\.2"),
    ):
        size(server.url, ca=made.authority)


def test_a_plain_client_of_a_tls_port_is_refused_and_others_go_on(made: Certificates) -> None:
    with (
        serving(TLS.read(*made.pair("server"))) as server,
        diskreplay.connect(server.url, ca=made.authority) as replay,
    ):
        with pytest.raises(ServiceError):
            size(server.url.replace("grpc+tls", "grpc"))
        assert len(replay) == 1


def test_a_tls_client_of_a_plain_port_is_refused(made: Certificates) -> None:
    with serving(None) as server:
        with pytest.raises(ServiceError):
            size(server.url.replace("grpc:", "grpc+tls:"), ca=made.authority)
        assert size(server.url) == 1


def test_a_certificate_that_does_not_fit_is_told_at_once_with_the_way_out(
    made: Certificates, tmp_path: Path
) -> None:
    other = certificates.make(tmp_path, names="DNS:elsewhere").pair("server")
    for pair, given, expected in (
        (made.pair("server"), {}, r"no authority that this client knows .* ca=FILE"),
        (other, {"ca": tmp_path / "authority.pem"}, "does not name the host of this URL"),
        (made.pair("expired"), {"ca": made.authority}, "has expired: make another"),
    ):
        with serving(TLS.read(*pair)) as server, pytest.raises(ServiceError, match=expected):
            diskreplay.connect(server.url, timeout=20, **given)
    with serving(None) as server:
        url = server.url.replace("grpc:", "grpc+tls:")
        with pytest.raises(ServiceError, match="the server has no TLS: connect to grpc://"):
            diskreplay.connect(url, timeout=20, ca=made.authority)


def test_files_of_a_client_are_checked_before_it_connects(made: Certificates) -> None:
    nobody, nobody_by_tls = "grpc://127.0.0.1:9", "grpc+tls://127.0.0.1:9"
    key = made.pair("client")[1]
    with pytest.raises(ArgumentError, match=f"{key} has no certificate in PEM"):
        size(nobody_by_tls, ca=key)
    with pytest.raises(ArgumentError, match="ca= and cert= are for TLS"):
        size(nobody, ca=made.authority)
    with pytest.raises(ArgumentError, match="ca= and cert= are for TLS"):
        size(nobody, cert=made.pair("client"))


@pytest.mark.parametrize("name", [None, "stranger", "expired"])
def test_mutual_tls_keeps_clients_of_others_out(made: Certificates, name: str | None) -> None:
    with serving(TLS.read(*made.pair("server"), made.authority)) as server:
        assert size(server.url, ca=made.authority, cert=made.pair("client")) == 1
        given = {} if name is None else {"cert": made.pair(name)}
        with pytest.raises(ServiceError):
            size(server.url, ca=made.authority, **given)
        assert size(server.url, ca=made.authority, cert=made.pair("client")) == 1


def test_files_that_are_no_certificate_and_key_are_named(
    made: Certificates, tmp_path: Path
) -> None:
    certificate, key = made.pair("server")
    empty = tmp_path / "empty.pem"
    empty.touch()
    for pair in ((certificate, made.pair("client")[1]), (empty, key), (certificate, empty)):
        with pytest.raises(ArgumentError, match=f"{pair[0]} and {pair[1]} are not a certificate"):
            TLS.read(*pair)
    with pytest.raises(ArgumentError, match=f"{empty} has no certificate in PEM"):
        TLS.read(certificate, key, empty)
    with pytest.raises(StorageError, match="none cannot be read: No such file"):
        TLS.read(certificate, tmp_path / "none")


def test_an_address_fits_what_is_given_for_tls(made: Certificates) -> None:
    tls = TLS.read(*made.pair("server"))
    with ReplayBuffer(capacity=10) as buffer:
        with pytest.raises(ArgumentError, match=r"grpc\+tls://\S+ needs .*--tls-cert"):
            ReplayServer({"a": buffer}, "grpc+tls://127.0.0.1:0")
        with pytest.raises(ArgumentError, match=r"is without TLS .*listen on grpc\+tls://"):
            ReplayServer({"a": buffer}, "grpc://127.0.0.1:0", tls=tls)


@pytest.mark.parametrize("has_tls", [False, True])
def test_other_machines_are_let_in_as_the_user_says(
    made: Certificates, has_tls: bool, tmp_path: Path
) -> None:
    add_token(tmp_path / "tokens", "eyes", ["read"])
    tokens = Tokens.read(tmp_path / "tokens")
    tls = TLS.read(*made.pair("server")) if has_tls else None
    address = f"{'grpc+tls' if has_tls else 'grpc'}://0.0.0.0:0"
    with ReplayBuffer(capacity=10) as buffer:
        with pytest.raises(ArgumentError, match="other machines"):
            ReplayServer({"a": buffer}, address, tls=tls, tokens=None if has_tls else tokens)
        ReplayServer({"a": buffer}, address, tls=tls, insecure=True).close()
        if has_tls:
            ReplayServer({"a": buffer}, address, tls=tls, tokens=tokens).close()

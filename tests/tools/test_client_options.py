"""The options of `top` and `ui` for a service with a private authority, mutual TLS and tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import process, refused, run
from common import columns
from ui_process import serving

pytest.importorskip("pyarrow.flight")
pytest.importorskip("prometheus_client")

import certificates
from certificates import Certificates

import diskreplay
from diskreplay.service.rights import Tokens, add_token
from diskreplay.service.server import ReplayServer
from diskreplay.service.tls import TLS

ONCE = "--once", "--seconds", 0.1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A file with a token that may read."""
    file = tmp_path / "token"
    file.write_text(f"{add_token(tmp_path / 'tokens', 'eyes', ['read'])}\n")
    return file


@pytest.fixture
def url(made: Certificates, token: Path, tmp_path: Path) -> Iterator[str]:
    """A service that asks for a token and for a certificate of the same authority as its own."""
    tls = TLS.read(*made.pair("server"), made.authority)
    tokens = Tokens.read(tmp_path / "tokens")
    with (
        diskreplay.ReplayBuffer(capacity=50) as buffer,
        ReplayServer({"a": buffer}, "grpc+tls://127.0.0.1:0", tls=tls, tokens=tokens) as server,
    ):
        buffer.extend(**columns(0, 20))
        yield server.url


def files(made: Certificates, client: str = "client") -> list[object]:
    certificate, key = made.pair(client)
    return ["--ca", made.authority, "--cert", certificate, "--key", key]


def test_top_shows_a_service_with_all_of_them(url: str, made: Certificates, token: Path) -> None:
    shown = run("top", url, *ONCE, *files(made), "--token-file", token).stdout
    assert "20 of 50 transitions" in shown


def test_the_token_may_be_in_the_environment_and_a_file_goes_first(
    url: str, made: Certificates, token: Path, tmp_path: Path
) -> None:
    secret = token.read_text().strip()
    given = "top", url, *ONCE, *files(made)
    done = process(*given, DISKREPLAY_TOKEN=secret)
    assert (done.returncode, "20 of 50" in done.stdout) == (0, True), done.stderr
    done = process(*given, "--token-file", token, DISKREPLAY_TOKEN="another")
    assert (done.returncode, "20 of 50" in done.stdout) == (0, True), done.stderr
    done = process(*given, DISKREPLAY_TOKEN="another")
    assert done.returncode == 1
    assert "does not know the token" in done.stderr
    assert "another" not in done.stderr


def test_the_page_shows_such_a_service(url: str, made: Certificates, token: Path) -> None:
    pytest.importorskip("nicegui")
    with serving(url, *map(str, files(made)), "--token-file", token):
        pass  # it says its address after its first look


def test_what_is_missing_is_told(url: str, made: Certificates, token: Path) -> None:
    with_token = "--token-file", token
    assert "needs a token" in refused("top", url, *ONCE, *files(made))
    assert "certificate verify failed" in refused("top", url, *ONCE, *with_token)
    assert url in refused("top", url, *ONCE, "--ca", made.authority, *with_token)
    assert url in refused("top", url, *ONCE, *files(made, "stranger"), *with_token)


@pytest.mark.parametrize("text", ["", "one two\n", "one\ntwo\n"])
def test_a_token_file_has_one_word(text: str, url: str, token: Path) -> None:
    token.write_text(text)
    said = refused("top", url, *ONCE, "--token-file", token)
    assert re.search(rf"{token} must have a token and nothing else \(found [02] words\)", said)
    assert "one" not in said.replace(str(token), "")


@pytest.mark.parametrize("command", ["top", "ui"])
def test_options_that_do_not_fit_are_refused(
    command: str, made: Certificates, token: Path, tmp_path: Path
) -> None:
    diskreplay.ReplayBuffer(capacity=50, path=tmp_path / "b").close()
    certificate, key = made.pair("client")
    for option, file in {"--ca": made.authority, "--key": key, "--token-file": token}.items():
        said = refused(command, tmp_path / "b", option, file, status=2)
        assert f"{option} is for the URL of a service (found the path {tmp_path / 'b'})" in said
    for option, file in {"--cert": certificate, "--key": key}.items():
        said = refused(command, "grpc://127.0.0.1:1", option, file, status=2)
        assert "give both --cert and --key" in said

"""Rights: the tokens file, what its tokens allow, and where a service may listen without it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from diskreplay_tools.cli import main
from runner import runner

from diskreplay import ArgumentError, NotAllowedError, StorageError
from diskreplay.service.rights import RIGHTS, Tokens, add_token, check_exposure, is_loopback


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def write(file: Path, text: str, mode: int = 0o600) -> None:
    file.write_text(text)
    file.chmod(mode)


def line(name: str = "a", rights: str = "read", token: str = "secret") -> str:
    return f"{name} {rights} {hashlib.sha256(token.encode()).hexdigest()}\n"


def test_a_token_has_the_rights_of_its_line(file: Path) -> None:
    write(
        file, f"# who\n\n{line('eyes', 'read', 'one')}{line('hands', 'push,update', 'two')} # end"
    )
    tokens = Tokens.read(file)
    eyes, hands = tokens.caller("one"), tokens.caller("two")
    assert (eyes.name, hands.name) == ("eyes", "hands")
    eyes.require("read")
    hands.require("push")
    hands.require("update")
    with pytest.raises(
        NotAllowedError, match="needs the right 'push'; the token of 'eyes' has read"
    ):
        eyes.require("push")
    with pytest.raises(PermissionError, match="'admin'; the token of 'hands' has push, update"):
        hands.require("admin")


@pytest.mark.parametrize("token", ["", "secret ", "Secret", "secre", "\N{SNOWMAN}" * 10_000])
def test_another_token_is_refused_and_not_shown(file: Path, token: str) -> None:
    write(file, line())
    with pytest.raises(NotAllowedError, match="does not know the token") as caught:
        Tokens.read(file).caller(token)
    assert not token or token not in str(caught.value)
    with pytest.raises(NotAllowedError, match=r"needs a token: .*connect\(url, token="):
        Tokens.read(file).caller(None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_file_that_others_can_use_is_refused(file: Path, mode: int) -> None:
    write(file, line(), mode)
    with pytest.raises(ArgumentError, match=f"mode {mode:04o}.*chmod 600 {file}"):
        Tokens.read(file)


@pytest.mark.parametrize(
    "text",
    [
        "my-token\n",
        "a read my-token\n",
        f"{line()[:-10]}my-token\n",
        line(rights="read,my-token"),
        line(name="my-token!"),
        line().replace("\n", " my-token\n"),
        line(rights=","),
        f"{line()[:-11]}\n",
    ],
)
def test_a_line_of_another_form_is_named_and_not_shown(file: Path, text: str) -> None:
    write(file, f"\n{text}")
    with pytest.raises(ArgumentError, match=r"line 2 of the tokens file \S+ is not of") as caught:
        Tokens.read(file)
    assert "my-token" not in str(caught.value)


@pytest.mark.parametrize("again", [line("a", token="other"), line("b")])
def test_a_name_or_a_token_stands_once(file: Path, again: str) -> None:
    write(file, line() + again)
    with pytest.raises(ArgumentError, match=r"line 2 .* stands above"):
        Tokens.read(file)


def test_a_file_without_tokens_is_refused(file: Path, tmp_path: Path) -> None:
    write(file, "# none\n")
    with pytest.raises(ArgumentError, match="has no token: add a line NAME RIGHTS SHA256"):
        Tokens.read(file)
    with pytest.raises(StorageError, match="cannot be read: No such file"):
        Tokens.read(tmp_path / "none")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ArgumentError, match="is no text"):
        Tokens.read(file)


def test_a_new_token_is_printed_once_and_stored_as_its_digest(file: Path) -> None:
    made = {}
    for name, rights in (("eyes", "read"), ("all", ",".join(RIGHTS))):
        done = runner().invoke(main, ["token", name, "--rights", rights, "--tokens", str(file)])
        assert done.exit_code == 0, done.output
        made[name] = done.output.strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert made["eyes"] != made["all"]
    assert len(made["eyes"]) >= 43
    assert not any(token in file.read_text() for token in made.values())
    tokens = Tokens.read(file)
    assert tokens.caller(made["eyes"]).rights == {"read"}
    assert tokens.caller(made["all"]).rights == {*RIGHTS}
    before = file.read_text()
    for name, rights, message in (
        ("eyes", "read", "named 'eyes'"),
        ("x y", "read", "64 letters"),
        ("x", "write", "words of read, push"),
    ):
        with pytest.raises(ArgumentError, match=message):
            add_token(file, name, rights.split(","))
    assert file.read_text() == before


def test_a_token_is_not_added_to_a_file_that_others_can_use(file: Path) -> None:
    write(file, line(), 0o644)
    with pytest.raises(ArgumentError, match="mode 0644"):
        add_token(file, "b", ["read"])


def test_a_line_without_an_end_stays_whole(file: Path) -> None:
    write(file, line().strip())
    token = add_token(file, "b", ["push"])
    assert Tokens.read(file).caller("secret").name == "a"
    assert Tokens.read(file).caller(token).name == "b"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "box", "127.0.0.1.example")),
    ],
)
def test_only_loopback_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("has_tls", [False, True])
@pytest.mark.parametrize("has_tokens", [False, True])
def test_other_machines_come_in_with_tokens_and_tls_or_at_the_users_risk(
    has_tls: bool, has_tokens: bool
) -> None:
    given = {"has_tls": has_tls, "has_tokens": has_tokens}
    for local in ("grpc://127.0.0.1:7777", "grpc+tls://[::1]:7777", "grpc+unix:///run/a.sock"):
        check_exposure(local, insecure=False, **given)
    far = "grpc://10.0.0.1:7777"
    check_exposure(far, insecure=True, **given)
    if has_tls and has_tokens:
        check_exposure(far, insecure=False, **given)
        return
    missing = "--tokens FILE" if has_tls else "--tls-cert"
    with pytest.raises(ArgumentError, match=f"{far} can be reached .*{missing}.*--insecure"):
        check_exposure(far, insecure=False, **given)

"""Rights: the tokens of a service, what each of them allows, and where no token is needed."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from diskreplay.aliases import PathLike
from diskreplay.errors import ArgumentError, NotAllowedError, StorageError
from diskreplay.validation import checked_path
from diskreplay.wording import shown

RIGHTS = ("read", "push", "update", "admin")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FORM = "NAME RIGHTS SHA256, as `diskreplay token NAME --rights read,push --tokens FILE` writes it"


@dataclass(frozen=True)
class Caller:
    """A client that was let in: the name that its token has, and its rights."""

    name: str
    rights: frozenset[str]

    def require(self, right: str) -> None:
        """Raise NotAllowedError if the caller has not got a right; "" is that of every caller."""
        if right and right not in self.rights:
            has = ", ".join(name for name in RIGHTS if name in self.rights)
            raise NotAllowedError(
                f"this call needs the right {right!r}; the token of {self.name!r} has {has}: "
                "use another token, or add the right to its line in the tokens file of the service"
            )


# Of a service without tokens, which only listens where everyone may do everything.
ANYONE = Caller("anyone", frozenset(RIGHTS))


class Tokens:
    """The tokens that a service knows; it keeps their digests alone."""

    def __init__(self, callers: dict[bytes, Caller]) -> None:
        self._callers = callers

    @classmethod
    def read(cls, path: PathLike) -> Tokens:
        """Read a tokens file, a line `NAME RIGHTS SHA256` for each token.

        Raises ArgumentError when a line has another form, or when others than the owner of the
        file may read or write it.
        """
        path = checked_path(path)
        try:
            # Mode and text are those of one file, also where the path is replaced meanwhile.
            with path.open(encoding="utf-8") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                lines = file.read().splitlines()
        except OSError as error:
            raise StorageError(f"the tokens file {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ArgumentError(f"the tokens file {path} is no text: expected {_FORM}") from None
        if mode & 0o077:
            raise ArgumentError(
                f"the tokens file {path} has the mode {mode:04o}, so that others than its owner "
                f"can use it: chmod 600 {path}"
            )
        return cls._parsed(path, lines)

    @classmethod
    def _parsed(cls, path: Path, lines: list[str]) -> Tokens:
        callers: dict[bytes, Caller] = {}
        names: set[str] = set()
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            where = f"line {number} of the tokens file {path}"
            try:
                name, words_of_rights, digits = words
                rights = checked_rights(words_of_rights.split(","))
                checked_name(name)
                digest = bytes.fromhex(digits)
                if len(digest) != hashlib.sha256().digest_size:
                    raise ValueError
            except ValueError:  # a line of another form may have a token in it: do not show it
                raise ArgumentError(f"{where} is not of the form {_FORM}") from None
            if name in names or digest in callers:
                raise ArgumentError(f"{where} has a name or a token that stands above: remove one")
            names.add(name)
            callers[digest] = Caller(name, rights)
        if not callers:
            raise ArgumentError(f"the tokens file {path} has no token: add a line {_FORM}")
        return cls(callers)

    def check_free(self, name: str) -> None:
        """Raise ArgumentError if a token has this name already."""
        if name in {caller.name for caller in self._callers.values()}:
            raise ArgumentError(f"there is a token named {name!r}: choose another name")

    def caller(self, token: str | None) -> Caller:
        """Return the caller of a token, or raise NotAllowedError.

        The comparison takes the same time whichever token is right, and how much of it.
        """
        if token is None:
            raise NotAllowedError(
                "this service needs a token: give one, as diskreplay.connect(url, token=...)"
            )
        given = hashlib.sha256(token.encode()).digest()
        found = None
        for digest, caller in self._callers.items():
            if hmac.compare_digest(digest, given):
                found = caller
        if found is None:
            raise NotAllowedError(
                "this service does not know the token: ask the one who runs it for a line in its "
                "tokens file"
            )
        return found


def checked_name(name: str) -> str:
    """Return a name that a token or a served buffer can have, or raise ArgumentError."""
    if not _NAME.fullmatch(name):
        raise ArgumentError(
            f"a name has 1 to 64 letters, digits, dots, dashes and underscores (found "
            f"{shown(name)})"
        )
    return name


def checked_rights(names: Iterable[str]) -> frozenset[str]:
    """Return rights as a set, or raise ArgumentError."""
    rights = frozenset(names)
    if not rights or not rights <= {*RIGHTS}:
        raise ArgumentError(
            f"rights are words of {', '.join(RIGHTS)}, with commas between them (found "
            f"{shown(','.join(sorted(rights)))})"
        )
    return rights


def new_token(name: str, rights: Iterable[str]) -> tuple[str, str]:
    """Return a new random token, and its line for a tokens file.

    >>> token, line = new_token("actors", ["push"])
    >>> len(token), line.split()[:2]
    (43, ['actors', 'push'])
    """
    words = ",".join(word for word in RIGHTS if word in checked_rights(rights))
    token = secrets.token_urlsafe(32)
    return token, f"{checked_name(name)} {words} {hashlib.sha256(token.encode()).hexdigest()}"


def add_token(path: PathLike, name: str, rights: Iterable[str]) -> str:
    """Make a token, add its line to a tokens file, which may be a new one, and return the token."""
    path = checked_path(path)
    token, line = new_token(name, rights)
    if path.exists() and path.stat().st_size:
        Tokens.read(path).check_free(name)
    try:
        # Readable for nobody else from its first moment on.
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as file:
            file.write(f"\n{line}\n")  # the last line of a file may have no end
    except OSError as error:
        raise StorageError(f"the tokens file {path} cannot be written: {error.strerror}") from None
    return token


def is_loopback(host: str) -> bool:
    """Return whether only processes of this machine reach a host; other names may be anything.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("box")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_tls(location: str, *, has_tls: bool) -> None:
    """Raise ArgumentError if a certificate is missing for an address, or of no use there."""
    if location.startswith("grpc+tls://") and not has_tls:
        raise ArgumentError(f"{location} needs a certificate: give --tls-cert and --tls-key")
    if not location.startswith("grpc+tls://") and has_tls:
        raise ArgumentError(
            f"{location} is without TLS (found a certificate): listen on grpc+tls://"
        )


def check_exposure(location: str, *, has_tls: bool, has_tokens: bool, insecure: bool) -> None:
    """Raise ArgumentError if other machines could use a service without a token or TLS.

    The sockets of a service have the mode 0600, so that they are for its user alone.

    insecure:  whether the user takes that risk
    """
    host = urlsplit(location).hostname
    if insecure or host is None or is_loopback(host):
        return
    if not has_tls:
        raise ArgumentError(
            f"{location} can be reached from other machines, and without TLS they can read along: "
            "listen on grpc+tls:// with --tls-cert and --tls-key, or on 127.0.0.1, or take the "
            "risk with --insecure"
        )
    if not has_tokens:
        raise ArgumentError(
            f"{location} can be reached from other machines, and without tokens all of them may "
            "read and write: give --tokens FILE, or listen on 127.0.0.1, or take the risk with "
            "--insecure"
        )

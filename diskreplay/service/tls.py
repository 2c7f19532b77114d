"""TLS: the certificate and key that a server shows, and whose clients it takes, from files."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, NamedTuple

from diskreplay.aliases import PathLike
from diskreplay.errors import ArgumentError, StorageError
from diskreplay.service.addresses import Address
from diskreplay.validation import checked_path
from diskreplay.wording import shown


class TLS(NamedTuple):
    """PEM texts: a certificate chain, its private key, and the authority of clients, if any."""

    certificate: bytes
    key: bytes
    client_authority: bytes | None = None

    @classmethod
    def read(
        cls, certificate: PathLike, key: PathLike, client_authority: PathLike | None = None
    ) -> TLS:
        """Read the files; raise ArgumentError if they are not what they should be.

        client_authority:  the certificates of those who sign clients; without it clients need none
        """
        chain_path, key_path = checked_path(certificate), checked_path(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chain_text, key_text = _text(chain_path), _text(key_path)
        try:
            # With an empty password, a key that is encrypted does not ask for one at the terminal.
            context.load_cert_chain(chain_path, key_path, password="")
        except (ssl.SSLError, ValueError) as error:
            raise ArgumentError(
                f"{chain_path} and {key_path} are not a certificate and its private key, both in "
                f"PEM and the key without a password ({_reason(error)})"
            ) from None
        if client_authority is None:
            return cls(chain_text, key_text)
        return cls(chain_text, key_text, _authority(checked_path(client_authority)))

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a server of Arrow Flight."""
        mutual = {"verify_client": True, "root_certificates": self.client_authority}
        return {
            "tls_certificates": [(self.certificate, self.key)],
            **(mutual if self.client_authority is not None else {}),
        }


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from None


def _authority(path: Path) -> bytes:
    """Return the certificates of those who sign others."""
    text = _text(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (ssl.SSLError, ValueError) as error:
        raise ArgumentError(f"{path} has no certificate in PEM ({_reason(error)})") from None
    return text


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)


def client_arguments(
    url: str, authority: PathLike | None, certificate: tuple[PathLike, PathLike] | None
) -> dict[str, bytes]:
    """Return the arguments of a client of Arrow Flight, from files in PEM.

    url:          of the server; files are for a grpc+tls:// address alone
    authority:    of the server; by default those that gRPC knows
    certificate:  of the client, and its private key
    """
    has_files = authority is not None or certificate is not None
    if has_files and Address.of(url).location.partition(":")[0] != "grpc+tls":
        raise ArgumentError(
            f"ca= and cert= are for TLS, which {url} does not use: connect to grpc+tls://, or give "
            "neither"
        )
    found = {}
    if authority is not None:
        found["tls_root_certs"] = _authority(checked_path(authority))
    if certificate is not None:
        try:
            chain, key = certificate
        except (TypeError, ValueError):
            raise ArgumentError(
                f"cert must be the files of a certificate and its key (found {shown(certificate)})"
            ) from None
        own = TLS.read(chain, key)
        found |= {"cert_chain": own.certificate, "private_key": own.key}
    return found

"""Certificates for tests, made by the openssl command; one of them has expired."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files."""

    place: Path

    @property
    def authority(self) -> Path:
        """The certificate that the others are signed with."""
        return self.place / "authority.pem"

    def pair(self, name: str) -> tuple[Path, Path]:
        """The certificate and the key of `server`, `client`, `expired` or `stranger`."""
        return self.place / f"{name}.pem", self.place / f"{name}.key"


def make(place: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> Certificates:
    """Make certificates; skip the test where openssl is not installed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    _authority(place, "authority")
    _authority(place, "other")
    for name, authority, days in (
        ("server", "authority", 2),
        ("client", "authority", 2),
        ("expired", "authority", -1),
        ("stranger", "other", 2),
    ):
        _run(place, *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (place / "names").write_text(f"subjectAltName={names}")
        _run(
            place, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey",
            f"{authority}.key", "-CAcreateserial", "-days", str(days), "-extfile", "names", "-out",
            f"{name}.pem",
        )  # fmt: skip
    return Certificates(place)


_KEY = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _authority(place: Path, name: str) -> None:
    files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
    _run(place, *_KEY, "-x509", *files, "-subj", f"/CN={name}", "-days", "2")


def _run(place: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=place, check=True, capture_output=True)

"""Makes the lab's own certificate authorities, certificates and keys with openssl; nothing else writes private keys.

Everything is made once per lab and thrown away by `down`. Elliptic keys, because they are made in milliseconds.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.lab import run

_DAYS = "825"


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority in `folder`, made on first use."""

    folder: Path
    name: str

    @property
    def pair(self) -> Pair:
        """The authority's own certificate and key."""
        made = Pair(self.folder / f"{self.name}.crt", self.folder / f"{self.name}.key")
        if not made.certificate.exists():
            _private(self.folder)
            partial = self.folder / f".{self.name}.crt"
            extensions = ["-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]
            command = [
                "openssl",
                "req",
                "-x509",
                *_NEW_KEY,
                "-nodes",
                "-days",
                _DAYS,
                "-subj",
                f"/CN=perfpolicy-lab-{self.name}",
                *extensions,
            ]
            run([*command, "-keyout", made.key, "-out", partial])
            partial.rename(made.certificate)
        return made

    def issue(self, file: str, common_name: str, *, organizations: Sequence[str] = (), names: Sequence[str] = ()) -> Pair:
        """A certificate for client and server use. `names` are subject alternative names such as "DNS:x" or "IP:1.2.3.4"."""
        authority = self.pair
        made = Pair(self.folder / f"{file}.crt", self.folder / f"{file}.key")
        if not made.certificate.exists():
            partial = self.folder / f".{file}.crt"
            subject = "".join(f"/O={organization}" for organization in organizations) + f"/CN={common_name}"
            extensions = ["-addext", "extendedKeyUsage=clientAuth,serverAuth", "-addext", "basicConstraints=critical,CA:FALSE"]
            if names:
                extensions += ["-addext", f"subjectAltName={','.join(names)}"]
            command = ["openssl", "req", "-x509", *_NEW_KEY, "-nodes", "-days", _DAYS, "-subj", subject, *extensions]
            run([*command, "-CA", authority.certificate, "-CAkey", authority.key, "-keyout", made.key, "-out", partial])
            partial.rename(made.certificate)
        return made


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def signing_key(path: Path) -> Path:
    """The key service account tokens are signed with, made on first use."""
    if not path.exists():
        _private(path.parent)
        partial = path.with_name(f".{path.name}")
        run(["openssl", "genrsa", "-out", partial, "2048"])
        partial.rename(path)
    return path


def token(path: Path) -> str:
    """A random bearer token kept in `path`, made on first use."""
    if not path.exists():
        _private(path.parent)
        write_private(path, secrets.token_hex(24))
    return path.read_text()


def write_private(path: Path, text: str) -> Path:
    """Write a file only its owner can read, at once or not at all, and only when its content changes."""
    if path.exists() and path.read_text() == text:
        return path
    partial = path.with_name(f".{path.name}.partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
    partial.rename(path)
    return path


def _private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)

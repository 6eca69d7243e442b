"""The space's certificates, in `pki/`: its CA, the gateway's own certificate, client identities, the revocation list.

The CA and the ready client identity stay the same from run to run. The gateway's certificate is issued at each start,
for the names it has now. The revocation list is signed anew at each start and each revocation; its file is also the
memory of what was revoked.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from mtlskit.errors import Code, SandboxError
from mtlskit.pki.authority import Authority
from mtlskit.pki.certificates import load_certificates
from mtlskit.sandbox.folder import write_private
from mtlskit.sandbox.gateway import ALPN, ServerTls
from mtlskit.sandbox.scram import server_end_point

__all__ = ["ClientIdentity", "SpacePki"]

_RENEW_BEFORE: Final = timedelta(days=1)
_MAX_NAME: Final = 64  # of a common name, RFC 5280 appendix A.1


@dataclass(frozen=True)
class ClientIdentity:
    """A client's certificate and key on disk."""

    cert: Path
    key: Path
    serial: int


class SpacePki:
    """The files of one space's CA. All methods block on the disk for milliseconds."""

    def __init__(self, folder: Path, authority: Authority, revoked: frozenset[int]) -> None:
        self._folder = folder
        self._authority = authority
        self._revoked = revoked

    @classmethod
    def open(cls, folder: Path, *, server_names: Sequence[str], now: datetime) -> SpacePki:
        """Makes what is missing. Raises IdentityError or SandboxError for files that are damaged."""
        folder.mkdir(mode=0o700, exist_ok=True)
        ca, key = folder / "ca.crt", folder / "ca.key"
        if ca.exists() and key.exists():
            authority = Authority.load(ca.read_bytes(), key.read_bytes(), source=str(ca))
        else:
            authority = Authority.create("mtlskit sandbox CA", now=now)
            write_private(key, authority.key_pem.decode())
            write_private(ca, authority.cert_pem.decode())
        pki = cls(folder, authority, _revoked_in(folder / "revoked.crl"))
        pki._write_list(now)
        server = authority.issue_server(server_names, now=now)
        pki._write_pair("server", server.cert_pem, server.key_pem)
        if pki._client_is_due(now):
            client = authority.issue_client("sandbox-client", now=now)
            pki._write_pair("client", client.cert_pem, client.key_pem)
        return pki

    @property
    def ca(self) -> Path:
        """The CA's certificate: what clients trust."""
        return self._folder / "ca.crt"

    @property
    def client(self) -> ClientIdentity:
        """The identity that is handed out ready."""
        cert = self._folder / "client.crt"
        leaf = load_certificates(cert.read_bytes(), source=str(cert))[0]
        return ClientIdentity(cert, self._folder / "client.key", leaf.serial_number)

    def new_client(self, common_name: str, *, now: datetime) -> ClientIdentity:
        """Issues another client identity. Raises ValueError for a name that is empty or longer than 64 characters."""
        if not 1 <= len(common_name) <= _MAX_NAME:
            raise ValueError(f"a common name has 1 to {_MAX_NAME} characters")
        issued = self._authority.issue_client(common_name, now=now)
        # The serial keeps two identities of one name apart, and odd names from meeting.
        stem = f"{re.sub('[^A-Za-z0-9._-]', '_', common_name).lstrip('.')}-{issued.serial:x}"
        self._write_pair(stem, issued.cert_pem, issued.key_pem)
        return ClientIdentity(self._folder / f"{stem}.crt", self._folder / f"{stem}.key", issued.serial)

    def revoke(self, serial: int, *, now: datetime) -> None:
        """Puts a certificate on the revocation list; `server_tls` then gives a context that knows it."""
        self._revoked |= {serial}
        self._write_list(now)

    def server_tls(self) -> ServerTls:
        """A fresh context for the gateway: its certificate, the CA it trusts and the list of what it does not."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A resumed session would skip the certificate, and with it the revocation list.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_REQUIRED
        # Set and not added to, so that every Python checks the same (3.13 added a strict mode for some constructors).
        context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_CRL_CHECK_LEAF
        context.load_verify_locations(cafile=self.ca)
        context.load_verify_locations(cafile=self._folder / "revoked.crl")
        context.set_alpn_protocols([ALPN])
        context.load_cert_chain(self._folder / "server.crt", self._folder / "server.key")
        server = (self._folder / "server.crt").read_bytes()
        return ServerTls(context, server_end_point(load_certificates(server, source="server.crt")[0]))

    def _client_is_due(self, now: datetime) -> bool:
        cert, key = self._folder / "client.crt", self._folder / "client.key"
        if not cert.exists() or not key.exists():
            return True
        leaf = load_certificates(cert.read_bytes(), source=str(cert))[0]
        return leaf.not_valid_after_utc - _RENEW_BEFORE < now

    def _write_list(self, now: datetime) -> None:
        write_private(self._folder / "revoked.crl", self._authority.revocation_list(self._revoked, now=now).decode())

    def _write_pair(self, stem: str, cert_pem: bytes, key_pem: bytes) -> None:
        write_private(self._folder / f"{stem}.key", key_pem.decode())
        write_private(self._folder / f"{stem}.crt", cert_pem.decode())


def _revoked_in(path: Path) -> frozenset[int]:
    if not path.exists():
        return frozenset()
    try:
        return frozenset(entry.serial_number for entry in x509.load_pem_x509_crl(path.read_bytes()))
    except ValueError as exc:
        raise SandboxError(
            Code.SANDBOX_DIR,
            f"{path}: the revocation list is damaged",
            f"remove the folder and start anew: rm -r {path.parent.parent}",
        ) from exc

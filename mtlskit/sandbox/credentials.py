"""The space's certificates, in `pki/`: its CA, the gateway's own certificate, client identities.

The CA is one of `mtlskit ca`, in `pki/ca/`, and everybody may use it as such: an identity with `ca_dir = "…/pki/ca"`
gets certificates that the gateway takes, and what `mtlskit ca revoke` puts on its list is refused from the next
connection on. The CA and the ready client identity stay the same from run to run. The gateway's certificate is issued
at each start, for the names it has now, and the revocation list is signed anew.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.x509.oid import NameOID

from mtlskit.errors import Code, IdentityError, SandboxError
from mtlskit.pki.certificates import is_issued_by, load_certificates, serial_text
from mtlskit.pki.keys import PrivateKey, generate_key, private_key_pem
from mtlskit.pki.profiles import Profile
from mtlskit.pki.requests import Usage, Wishes, alternative_name, make_request
from mtlskit.sandbox.folder import write_private
from mtlskit.sandbox.gateway import ALPN, ServerTls
from mtlskit.store.authority_folder import AuthorityFolder, Signed
from mtlskit.wire.postgres.scram import server_end_point

__all__ = ["ClientIdentity", "SpacePki"]

_RENEW_BEFORE: Final = timedelta(days=1)
_MAX_NAME: Final = 64  # of a common name, RFC 5280 appendix A.1
_FOLDER: Final = "ca"
_GATEWAY: Final = "server"
_BROKERS: Final = "kafka"
"""The doors, by the name of their certificate's file."""
_BROKER_NAME: Final = "kafka.sandbox.example"

T = TypeVar("T")


@dataclass(frozen=True)
class ClientIdentity:
    """A client's certificate and key on disk."""

    cert: Path
    key: Path
    serial: int


class SpacePki:
    """The files of one space. All methods block on the disk for milliseconds."""

    def __init__(self, folder: Path, authority: AuthorityFolder) -> None:
        self._folder = folder
        self._authority = authority
        self._loaded: dict[str, tuple[int, ...]] = {}
        """The marks of the revocation list that the last context of each door knows."""

    @classmethod
    def open(cls, folder: Path, *, server_names: Sequence[str], now: datetime) -> SpacePki:
        """Makes what is missing. Raises IdentityError, StoreError or SandboxError for files that are damaged."""
        folder.mkdir(mode=0o700, exist_ok=True)
        pki = cls(folder, _authority(folder / _FOLDER, now))
        pki._check_list()
        pki._authority.write_list(now)
        pki._issue(_GATEWAY, "server", server_names, Profile.SERVER, now)
        if pki._client_is_due(now):
            pki._issue("client", "sandbox-client", (), Profile.CLIENT, now)
        return pki

    @property
    def authority(self) -> Path:
        """The CA's folder."""
        return self._folder / _FOLDER

    @property
    def ca(self) -> Path:
        """The CA's certificate: what clients trust."""
        return self.authority / "ca.crt"

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
        return self._issue("", common_name, (), Profile.CLIENT, now)

    def new_pair(self, common_name: str, *, now: datetime) -> tuple[str, str, str]:
        """Another client identity, that is kept by whoever asked: serial (hexadecimal), key and certificate in PEM."""
        key, signed = self._signed(common_name, (), Profile.CLIENT, now)
        return signed.serial, private_key_pem(key).decode(), signed.cert_pem.decode()

    def revoke(self, serial: str, *, now: datetime) -> None:
        """Puts a certificate on the revocation list; `server_tls` then gives a context that knows it.

        `serial` is hexadecimal. Raises IdentityError for one that this CA has not issued.
        """
        self._authority.revoke(serial, now=now)

    def newer_tls(self) -> ServerTls | None:
        """A context that knows the revocation list as it is now; None while the last one does."""
        return self._newer(_GATEWAY, self.server_tls)

    def server_tls(self) -> ServerTls:
        """A fresh context for the gateway: its certificate, the CA it trusts and the list of what it does not."""
        context = self._context(_GATEWAY)
        context.set_alpn_protocols([ALPN])
        server = (self._folder / "server.crt").read_bytes()
        return ServerTls(context, server_end_point(load_certificates(server, source="server.crt")[0]))

    def issue_broker(self, *, now: datetime) -> None:
        """The certificate of the Kafka brokers, for a name that none of them has: Heroku's are of that kind."""
        self._issue(_BROKERS, _BROKER_NAME, (_BROKER_NAME,), Profile.SERVER, now)

    def newer_broker_tls(self) -> ssl.SSLContext | None:
        """As `newer_tls`, for the Kafka brokers."""
        return self._newer(_BROKERS, self.broker_tls)

    def broker_tls(self) -> ssl.SSLContext:
        """As `server_tls`, for the Kafka brokers, once their certificate is there."""
        return self._context(_BROKERS)

    def _newer(self, door: str, fresh: Callable[[], T]) -> T | None:
        if self._marks() == self._loaded.get(door):
            return None
        # It was put there whole. One that somebody wrote in another way is looked at again with the next connection.
        with suppress(ssl.SSLError, OSError):
            return fresh()
        return None

    def _context(self, door: str) -> ssl.SSLContext:
        marks = self._marks()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A resumed session would skip the certificate, and with it the revocation list.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_REQUIRED
        # Set and not added to, so that every Python checks the same (3.13 added a strict mode for some constructors).
        context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_CRL_CHECK_LEAF
        context.load_verify_locations(cafile=self.ca)
        context.load_verify_locations(cafile=self._list)
        context.load_cert_chain(self._folder / f"{door}.crt", self._folder / f"{door}.key")
        self._loaded[door] = marks
        return context

    @property
    def _list(self) -> Path:
        return self.authority / "ca.crl"

    def _marks(self) -> tuple[int, ...]:
        try:
            found = self._list.stat()
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    def _check_list(self) -> None:
        """Raises SandboxError for a revocation list that is damaged: somebody has been here."""
        try:
            x509.load_pem_x509_crl(self._list.read_bytes())
        except FileNotFoundError:
            return
        except ValueError as exc:
            raise SandboxError(
                Code.SANDBOX_DIR,
                f"{self._list}: the revocation list is damaged",
                f"remove the folder and start anew: rm -r {self._folder.parent}",
            ) from exc

    def _client_is_due(self, now: datetime) -> bool:
        cert, key = self._folder / "client.crt", self._folder / "client.key"
        if not cert.exists() or not key.exists():
            return True
        leaf = load_certificates(cert.read_bytes(), source=str(cert))[0]
        strange = not is_issued_by(leaf, self._authority.certificate)
        return strange or leaf.not_valid_after_utc - _RENEW_BEFORE < now

    def _issue(
        self, stem: str, common_name: str, names: Sequence[str], profile: Profile, now: datetime
    ) -> ClientIdentity:
        key, signed = self._signed(common_name, names, profile, now)
        leaf = load_certificates(signed.cert_pem, source="a new certificate")[0]
        # The serial keeps two identities of one name apart, and odd names from meeting.
        stem = stem or f"{re.sub('[^A-Za-z0-9._-]', '_', common_name).lstrip('.')}-{serial_text(leaf)}"
        cert = self._folder / f"{stem}.crt"
        write_private(cert.with_suffix(".key"), private_key_pem(key).decode())
        write_private(cert, signed.cert_pem.decode())
        return ClientIdentity(cert, cert.with_suffix(".key"), leaf.serial_number)

    def _signed(
        self, common_name: str, names: Sequence[str], profile: Profile, now: datetime
    ) -> tuple[PrivateKey, Signed]:
        key = generate_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        wishes = Wishes(subject, tuple(_alternative(name) for name in names), (Usage(profile.value),))
        return key, self._authority.sign(make_request(key, wishes), profile, now=now)


def _authority(folder: Path, now: datetime) -> AuthorityFolder:
    if folder.exists():
        try:
            return AuthorityFolder.open(folder)
        except IdentityError as exc:
            if exc.code is not Code.CA_FOLDER_MISSING:
                raise
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mtlskit sandbox CA")])
    return AuthorityFolder.init(folder, subject, now=now)


def _alternative(name: str) -> x509.GeneralName:
    with suppress(ValueError):
        return alternative_name(f"IP:{name}")
    return alternative_name(f"DNS:{name}")

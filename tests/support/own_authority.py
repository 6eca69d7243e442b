"""A CA in a folder of ours, an identity in the store that it issued, and a server that trusts both."""

from __future__ import annotations

import shutil
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlskit.pki.keys import private_key_pem
from mtlskit.pki.profiles import Profile
from mtlskit.store.authority_folder import AuthorityFolder
from mtlskit.store.identities import Material, Store, VersionFacts
from tests.support.x509_builder import Made, make_certificate, make_request

__all__ = ["OwnAuthority"]

_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "our own CA")])


@dataclass(frozen=True)
class OwnAuthority:
    """`ca/`, `identities/` and `mtlskit.toml` below `folder`."""

    folder: Path
    authority: AuthorityFolder
    server_ca: Made

    @classmethod
    def make(cls, folder: Path) -> OwnAuthority:
        """The CA, and another for servers."""
        now = datetime.now(UTC)
        authority = AuthorityFolder.init(folder / "ca", _NAME, now=now)
        life: dict[str, Any] = {"begins": now - timedelta(days=1), "ends": now + timedelta(days=300)}
        server_ca = make_certificate("servers", ca=True, usages=None, digital_signature=False, **life)
        (folder / "servers.crt").write_bytes(server_ca.cert_pem)
        return cls(folder, authority, server_ca)

    @property
    def file(self) -> Path:
        """The configuration."""
        return self.folder / "mtlskit.toml"

    def configure(self, port: int) -> None:
        """One tunnel to a server on loopback."""
        self.file.write_text(
            '[identity.reporting]\nissuer = "ca"\nca_dir = "ca"\nca = "servers.crt"\n'
            '[tunnel.reporting]\nkind = "tcp"\nlisten = "127.0.0.1:16432"\n'
            f'upstream = "127.0.0.1:{port}"\nidentity = "reporting"\n'
        )

    def issue(self, name: str, now: datetime | None = None) -> None:
        """A certificate for the identity, in use."""
        now = now or datetime.now(UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        request = make_request(key).public_bytes(serialization.Encoding.PEM)
        signed = self.authority.sign(request, Profile.CLIENT, now=now)
        facts = VersionFacts("ca", signed.serial, f"CN={name}", "", "", "", now.isoformat(), made_here=True)
        stored = Store(self.folder / "identities").identity(name)
        stored.switch(stored.stage(Material(signed.cert_pem, private_key_pem(key)), facts))

    def revoke(self) -> None:
        """The only certificate that was issued."""
        (entry,) = self.authority.entries()
        self.authority.revoke(entry.serial, now=datetime.now(UTC))

    def lose_version(self) -> None:
        """Its folder goes, the link to it stays."""
        shutil.rmtree(self.folder / "identities" / "reporting" / "versions" / "0001")

    def server_context(self, begins: datetime | None = None) -> ssl.SSLContext:
        """Of a server on loopback that demands a certificate of the CA."""
        now = datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))])
        made = make_certificate(
            "localhost",
            issuer=self.server_ca,
            begins=begins or now - timedelta(days=1),
            ends=now + timedelta(days=200),
            usages=(ExtendedKeyUsageOID.SERVER_AUTH,),
            further=(names,),
        )
        path = self.folder / "server.pem"
        path.write_bytes(made.cert_pem + made.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        context.load_verify_locations(self.folder / "ca" / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        path.unlink()
        return context

"""Faults of configuration, files and rights, of keys, certificates and trust anchors, of revocation and the clock."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlskit.config.values import HerokuConfig
from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import Gathered, from_file, from_flags, heroku_door
from mtlskit.errors import Code
from tests.doctor.catalogue.base import Fault, Stage
from tests.services.pki import Pair, Pki
from tests.support.date_server import date_server
from tests.support.local_users import NOBODY
from tests.support.openssl import openssl
from tests.support.own_authority import OwnAuthority
from tests.support.tls_servers import echoing, listening
from tests.support.x509_builder import DAY, Made, make_certificate

Flags = Mapping[str, Any]
Build = Callable[[Stage], AbstractContextManager[Gathered]]

NOT_RUNNING = frozenset({Code.LOCAL_NOT_RUNNING})


def means(now: datetime | None = None, environ: Mapping[str, str] | None = None) -> Means:
    """With a clock that was set to `now` when the examination began."""
    began = datetime.now(UTC)
    ahead = timedelta() if now is None else now - began
    return Means(now=lambda: datetime.now(UTC) + ahead, environ=environ or {}, step=3, deadline=15)


@dataclass(frozen=True)
class Place:
    """A folder, and a PostgreSQL that would take the client of `pki`."""

    folder: Path
    pki: Pki
    port: int

    def flags(self, **other: object) -> dict[str, Any]:
        """A tunnel that works, but for `other`."""
        good = {"upstream": [f"localhost:{self.port}"], "cert": self.cert, "key": self.key, "ca": self.pki.server_ca}
        return {**good, **other}

    @property
    def cert(self) -> Path:
        return self._copied(self.pki.client.cert)

    @property
    def key(self) -> Path:
        return self._copied(self.pki.client.key)

    def _copied(self, path: Path) -> Path:
        target = self.folder / path.name
        if not target.exists():
            shutil.copy2(path, target)
        return target

    def write(self, name: str, content: bytes | str, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def pair(self, made: Made, name: str = "made", more: bytes = b"") -> Flags:
        """The files of a client that was made."""
        return {"cert": self.write(f"{name}.crt", made.cert_pem + more), "key": self.write(f"{name}.key", made.key_pem)}

    @property
    def client_ca(self) -> Made:
        """Who issues certificates for clients."""
        return Made(self.pki.clients.certificate, self.pki.clients.key)

    def client(self, **wish: Any) -> Made:
        """A client's certificate, good but for what is wished."""
        now = datetime.now(UTC)
        good: dict[str, Any] = {"common_name": "client", "issuer": self.client_ca, **_life(now)}
        return make_certificate(**good | wish)

    def table(self, name: str = "reporting", *, port: int = 16432, rest: str = "", **other: str) -> str:
        """A tunnel in TOML."""
        keys = {
            "kind": "postgres",
            "listen": f"127.0.0.1:{port}",
            "upstream": f"localhost:{self.port}",
            "cert": str(self.cert),
            "key": str(self.key),
            "ca": str(self.pki.server_ca),
        } | other
        lines = [f'{key} = "{value}"' for key, value in keys.items() if value]
        return "\n".join([f"[tunnel.{name}]", *lines, rest, ""])


def _life(now: datetime) -> dict[str, Any]:
    return {"begins": now - DAY, "ends": now + 60 * DAY}


@contextmanager
def _place(stage: Stage) -> Iterator[Place]:
    server = stage.fixture("postgres")
    yield Place(stage.folder, server.pki, server.port)


def by_flags(make: Callable[[Place], Flags], *, without: str = "") -> Build:
    """A tunnel by flags, in which `make` has broken something."""

    @contextmanager
    def build(stage: Stage) -> Iterator[Gathered]:
        with _place(stage) as place:
            flags = place.flags(**make(place))
            flags.pop(without, None)
            yield from_flags(flags, means())

    return build


def by_file(make: Callable[[Place], str]) -> Build:
    """A configuration file that `make` writes."""

    @contextmanager
    def build(stage: Stage) -> Iterator[Gathered]:
        with _place(stage) as place:
            path = place.write("mtlskit.toml", make(place))
            yield from_file(path, (), means())

    return build


# Files and rights.


@contextmanager
def _as_somebody_else(stage: Stage, unreadable: str) -> Iterator[Gathered]:
    """A user who may not read one of the files. Root may read everything, so that root has to become somebody."""
    with _place(stage) as place, tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        files = {"cert": place.pki.client.cert, "key": place.pki.client.key, "ca": place.pki.server_ca}
        copied = {}
        for role, path in files.items():
            copied[role] = Path(shutil.copy2(path, folder / path.name))
            if os.geteuid() == 0:
                os.chown(copied[role], NOBODY, NOBODY)
        copied[unreadable].chmod(0)
        flags = place.flags(**copied)
        if os.geteuid() == 0:
            os.chown(copied[unreadable], 0, 0)
            os.seteuid(NOBODY)
            stack.callback(os.seteuid, 0)
        yield from_flags(flags, means())


def _exposed(place: Place) -> Flags:
    return {"key": place.write("open.key", place.key.read_bytes(), 0o644)}


def _open_folder(place: Place) -> Flags:
    folder = place.folder / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    return {
        role: shutil.copy2(path, folder / path.name) for role, path in {"cert": place.cert, "key": place.key}.items()
    }


# What is in them.


def _another_key(place: Place) -> Flags:
    return {"key": place.pki.certuser.key}


def _several(place: Place) -> Flags:
    """Expired, and with the key of another."""
    return {"cert": place.pki.client_expired.cert, "key": place.pki.certuser.key}


def _later(place: Place) -> Flags:
    now = datetime.now(UTC)
    return place.pair(place.client(begins=now + 3 * DAY, ends=now + 90 * DAY))


def _locked(place: Place, passphrase: str | None = None, mode: int = 0o600) -> Flags:
    pair = place.pki.client_locked
    flags = {"cert": pair.cert, "key": pair.key}
    return flags if passphrase is None else {**flags, "passphrase_file": place.write("phrase", passphrase, mode)}


def _weak_key(place: Place) -> Flags:
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the fault
    return place.pair(place.client(key=key))


def _sha1(place: Place) -> Flags:
    """Signed by openssl: `cryptography` makes no such signature any more."""
    authority = place.pair(place.client_ca, "authority")
    key = place.write("sha1.key", openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"))
    request = place.write("sha1.csr", openssl("req", "-new", "-key", key, "-subj", "/CN=client"))
    cert = place.folder / "sha1.crt"
    made = (
        "x509",
        "-req",
        "-sha1",
        "-days",
        "60",
        "-in",
        request,
        "-CA",
        authority["cert"],
        "-CAkey",
        authority["key"],
    )
    openssl(*made, "-out", cert)
    authority["cert"].unlink()
    return {"cert": cert, "key": key}


def _damaged(place: Place) -> Flags:
    lines = place.cert.read_text().splitlines()
    return {"cert": place.write("damaged.crt", "\n".join(lines[:3] + lines[5:]))}


def _der(place: Place) -> Flags:
    certificate = x509.load_pem_x509_certificate(place.cert.read_bytes())
    return {"cert": place.write("client.der", certificate.public_bytes(serialization.Encoding.DER))}


def _request(place: Place) -> Flags:
    return {"cert": place.write("client.csr", openssl("req", "-new", "-key", place.key, "-subj", "/CN=client"))}


def _no_intermediate(place: Place) -> Flags:
    """The leaf alone, and what it lacks in a file beside it."""
    blocks = place.pki.client_chained.cert.read_text().split("-----END CERTIFICATE-----\n")
    leaf, intermediate = (f"{block}-----END CERTIFICATE-----\n" for block in blocks[:2])
    place.write("intermediate.pem", intermediate)
    key = place.write("leaf.key", place.pki.client_chained.key.read_bytes())
    return {"cert": place.write("leaf.crt", leaf), "key": key}


def _ends_soon(place: Place) -> Flags:
    now = datetime.now(UTC)
    return place.pair(place.client(begins=now - 80 * DAY, ends=now + 3 * DAY))


# Trust anchors.


def _expired_root(place: Place) -> Flags:
    now = datetime.now(UTC)
    root = make_certificate("old root", ca=True, usages=None, begins=now - 400 * DAY, ends=now - 2 * DAY)
    return {"ca": place.write("old-root.crt", root.cert_pem)}


def _intermediate_alone(place: Place) -> Flags:
    now = datetime.now(UTC)
    root = make_certificate("the root", ca=True, usages=None, **_life(now))
    middle = make_certificate("the intermediate", issuer=root, ca=True, usages=None, **_life(now))
    return {"ca": place.write("middle.crt", middle.cert_pem)}


# Revocation.


def _revoked(place: Place) -> Flags:
    """By a list that lies beside the certificate, and that the server reads as well."""
    pair: Pair = place.pki.client_revoked
    return {"cert": pair.cert, "key": pair.key}


@contextmanager
def _stored(stage: Stage, spoil: Callable[[OwnAuthority], None], issued: bool = True) -> Iterator[Gathered]:
    """An identity of the store, issued by a CA of our own, for a server that trusts it."""
    own = OwnAuthority.make(stage.folder)
    if issued:
        own.issue("reporting")
    spoil(own)
    with listening(echoing(own.server_context())) as port:
        own.configure(port)
        yield from_file(own.file, (), means())


def _nothing(own: OwnAuthority) -> None:
    """All is well."""


# The clock.


@contextmanager
def _by_api(stage: Stage, ahead: timedelta) -> Iterator[Gathered]:
    """Our clock is ahead of the API's by so much."""
    with _place(stage) as place, date_server() as url:
        environ = {"HEROKU_DATA_HOST": url, "HEROKU_HOST": url, "HEROKU_API_KEY": "a-token-of-tests"}
        bare = means(datetime.now(UTC) + ahead, environ)
        door = heroku_door(HerokuConfig(), environ)
        yield from_flags(place.flags(), Means(bare.now, bare.deadline, bare.step, environ, door))


@contextmanager
def _all_of_tomorrow(stage: Stage) -> Iterator[Gathered]:
    """Our certificate and the server's were made an hour from now, by our clock."""
    own = OwnAuthority.make(stage.folder)
    later = datetime.now(UTC) + timedelta(hours=1)
    own.issue("reporting", now=later)
    with listening(echoing(own.server_context(begins=later))) as port:
        own.configure(port)
        yield from_file(own.file, (), means())


@contextmanager
def _no_file(stage: Stage) -> Iterator[Gathered]:
    yield from_file(stage.folder / "mtlskit.toml", (), means())


FAULTS: tuple[Fault, ...] = (
    Fault(
        "cfg-no-file",
        "the configuration file is not there",
        Code.CONFIG_NOT_FOUND,
        _no_file,
        seen="there is no such file",
    ),
    Fault(
        "cfg-not-toml",
        "a text without quotes in the configuration",
        Code.CONFIG_SYNTAX,
        by_file(lambda place: "[tunnel.reporting]\nkind = postgres\n"),
        seen="mtlskit.toml:2:",
    ),
    Fault(
        "cfg-unknown-key",
        "a misspelled key in the configuration",
        Code.CONFIG_UNKNOWN_KEY,
        by_file(lambda place: place.table(upstrem="x:1")),
        seen='did you mean "upstream"',
    ),
    Fault(
        "cfg-missing-key",
        "a tunnel without an upstream",
        Code.CONFIG_MISSING_KEY,
        by_file(lambda place: place.table(upstream="")),
        seen="upstream is missing",
    ),
    Fault(
        "cfg-no-variable",
        "a variable that this shell does not have",
        Code.CONFIG_MISSING_VARIABLE,
        by_file(lambda place: place.table(upstream="${REPORTING_URL}")),
        seen="REPORTING_URL is not set",
    ),
    Fault(
        "cfg-no-ca",
        'verify = "ca" without a CA',
        Code.CONFIG_BAD_VALUE,
        by_file(lambda place: place.table(ca="", verify="ca")),
        seen="needs a CA file",
    ),
    Fault(
        "cfg-open-door",
        "a listener for the whole network that lets everybody in",
        Code.CONFIG_OPEN_DOOR,
        by_file(lambda place: place.table(listen="0.0.0.0:16432")),
        seen="allow_clients",
    ),
    Fault(
        "cfg-no-identity",
        "a tunnel names an identity that the file does not have",
        Code.CONFIG_UNKNOWN_NAME,
        by_file(lambda place: place.table(cert="", key="", identity="reportign")),
        seen="no identity of this name",
    ),
    Fault(
        "cfg-same-listener",
        "two tunnels listen on one port",
        Code.CONFIG_DUPLICATE_LISTENER,
        by_file(lambda place: place.table("one") + place.table("two")),
        seen="both listen on",
        also=NOT_RUNNING,
    ),
    Fault(
        "cfg-one-of-two",
        "one of two tunnels is described wrongly",
        Code.CONFIG_BAD_VALUE,
        by_file(lambda place: place.table("one") + place.table("two", port=16433, kind="postgrs")),
        seen="tunnel.two.kind",
        also=NOT_RUNNING,
    ),
    Fault(
        "file-no-certificate",
        "the certificate's file is not there",
        Code.FILE_MISSING,
        by_flags(lambda place: {"cert": place.folder / "none.crt"}),
        seen="the client certificate does not exist",
    ),
    Fault(
        "file-no-key",
        "the key's file is not there",
        Code.FILE_MISSING,
        by_flags(lambda place: {"key": place.folder / "none.key"}),
        seen="the private key does not exist",
    ),
    Fault(
        "file-no-ca",
        "the CA's file is not there",
        Code.FILE_MISSING,
        by_flags(lambda place: {"ca": place.folder / "none.crt"}),
        seen="the CA file does not exist",
    ),
    Fault(
        "file-folder",
        "a folder where the certificate's file is meant",
        Code.FILE_UNREADABLE,
        by_flags(lambda place: {"cert": place.folder}),
        seen="is a folder",
    ),
    Fault(
        "file-key-of-root",
        "a key that another user may read, and this one may not",
        Code.FILE_UNREADABLE,
        partial(_as_somebody_else, unreadable="key"),
        seen="the private key cannot be read: Permission denied",
    ),
    Fault(
        "file-key-open",
        "a key that every user of the host may read",
        Code.KEY_EXPOSED,
        by_flags(_exposed),
        seen="open.key: the private key is open",
    ),
    Fault(
        "file-folder-open",
        "a key in a folder that everybody may write to",
        Code.KEY_EXPOSED,
        by_flags(_open_folder),
        verdict=Verdict.WARN,
        seen="may replace the files",
    ),
    Fault(
        "file-passphrase-open",
        "a passphrase that every user of the host may read",
        Code.KEY_EXPOSED,
        by_flags(partial(_locked, passphrase="open sesame", mode=0o644)),
        seen="the passphrase is open",
    ),
    Fault(
        "identity-other-key",
        "the key belongs to another certificate",
        Code.KEY_MISMATCH,
        by_flags(_another_key),
        seen="does not belong to",
    ),
    Fault(
        "identity-two-faults",
        "an expired certificate, and the key of another",
        Code.KEY_MISMATCH,
        by_flags(_several),
        also=frozenset({Code.CERTIFICATE_EXPIRED}),
        seen="does not belong to",
    ),
    Fault(
        "identity-exchanged",
        "certificate and key are exchanged",
        Code.PEM_WRONG_KIND,
        by_flags(lambda place: {"cert": place.key, "key": place.cert}),
        seen="holds a",
    ),
    Fault(
        "identity-expired",
        "the certificate has expired",
        Code.CERTIFICATE_EXPIRED,
        by_flags(lambda place: {"cert": place.pki.client_expired.cert, "key": place.pki.client_expired.key}),
        seen="client-expired.crt: CN=client expired on",
    ),
    Fault(
        "identity-later",
        "the certificate begins in three days",
        Code.CERTIFICATE_NOT_YET_VALID,
        by_flags(_later),
        seen="is not valid before",
    ),
    Fault(
        "identity-of-server",
        "a server's certificate, which is not for clients",
        Code.CERTIFICATE_NOT_FOR_CLIENTS,
        by_flags(lambda place: place.pair(place.client(usages=(ExtendedKeyUsageOID.SERVER_AUTH,)))),
        seen="without clientAuth",
    ),
    Fault(
        "identity-locked",
        "an encrypted key, and no passphrase",
        Code.KEY_ENCRYPTED,
        by_flags(_locked),
        seen="is encrypted",
    ),
    Fault(
        "identity-wrong-passphrase",
        "an encrypted key, and another's passphrase",
        Code.KEY_PASSPHRASE_WRONG,
        by_flags(partial(_locked, passphrase="another")),
        seen="does not open",
    ),
    Fault("identity-weak-key", "an RSA key of 1024 bits", Code.KEY_WEAK, by_flags(_weak_key), seen="1024 bits"),
    Fault(
        "identity-sha1",
        "a certificate signed with SHA-1",
        Code.SIGNATURE_WEAK,
        by_flags(_sha1),
        seen="is signed with SHA-1",
    ),
    Fault(
        "identity-damaged",
        "a certificate file with two lines missing",
        Code.PEM_DAMAGED,
        by_flags(_damaged),
        seen="damaged.crt",
    ),
    Fault(
        "identity-der", "a DER file where PEM is read", Code.PEM_WRONG_KIND, by_flags(_der), seen="a DER certificate"
    ),
    Fault(
        "identity-request",
        "the request in the place of the certificate",
        Code.PEM_WRONG_KIND,
        by_flags(_request),
        seen="client.csr holds",
    ),
    Fault(
        "identity-no-intermediate",
        "the intermediate CA's certificate is not in the file",
        Code.CHAIN_INCOMPLETE,
        by_flags(_no_intermediate),
        also=frozenset({Code.TLS_CLIENT_CA_UNKNOWN, Code.TLS_OTHER_CA_ASKED}),
        seen="intermediate.pem",
    ),
    Fault(
        "identity-ends-soon",
        "the certificate ends in three days",
        Code.CERTIFICATE_ENDS_SOON,
        by_flags(_ends_soon),
        verdict=Verdict.WARN,
        seen="expires on",
    ),
    Fault(
        "anchors-leaf",
        "the server's own certificate as its CA",
        Code.PEM_WRONG_KIND,
        by_flags(lambda place: {"ca": place.pki.server.cert}),
        also=frozenset({Code.TLS_CHAIN_NOT_TRUSTED}),
        seen="is no CA certificate",
    ),
    Fault(
        "anchors-expired",
        "an expired root",
        Code.CERTIFICATE_EXPIRED,
        by_flags(_expired_root),
        seen="trust anchor CN=old root expired",
    ),
    Fault(
        "anchors-no-root",
        "an intermediate CA without its root",
        Code.CHAIN_INCOMPLETE,
        by_flags(_intermediate_alone),
        also=frozenset({Code.TLS_CHAIN_NOT_TRUSTED}),
        seen="there is no root in it",
    ),
    Fault(
        "anchors-key",
        "a key where the CA is meant",
        Code.PEM_WRONG_KIND,
        by_flags(lambda place: {"ca": place.key}),
        seen="not a certificate",
    ),
    Fault(
        "revoked-by-list",
        "a revoked certificate, by the list that the server reads",
        Code.CERTIFICATE_REVOKED,
        by_flags(_revoked),
        also=frozenset({Code.TLS_CLIENT_CERTIFICATE_REVOKED}),
        seen="client-ca.crl",
    ),
    Fault(
        "revoked-by-ledger",
        "a certificate that our own CA has revoked",
        Code.CERTIFICATE_REVOKED,
        partial(_stored, spoil=OwnAuthority.revoke),
        also=NOT_RUNNING,
        seen="ledger",
    ),
    Fault(
        "store-empty",
        "an identity of the store for which no certificate was issued yet",
        Code.NOTHING_STORED,
        partial(_stored, spoil=_nothing, issued=False),
        also=NOT_RUNNING,
        seen="no certificate has been issued yet",
    ),
    Fault(
        "store-dangling",
        "the link of the store leads to a version that is gone",
        Code.STORE_DAMAGED,
        partial(_stored, spoil=OwnAuthority.lose_version),
        also=NOT_RUNNING,
        seen="versions/0001",
    ),
    Fault(
        "clock-behind",
        "this host's clock is five days behind",
        Code.CLOCK_WRONG,
        partial(_by_api, ahead=-5 * DAY),
        seen="behind that of Heroku's data API",
        also=frozenset({Code.CERTIFICATE_NOT_YET_VALID, Code.TLS_SERVER_EXPIRED}),
    ),
    Fault(
        "clock-ahead",
        "this host's clock is 100 days ahead",
        Code.CLOCK_WRONG,
        partial(_by_api, ahead=100 * DAY),
        seen="ahead of that of Heroku's data API",
        also=frozenset({Code.CERTIFICATE_EXPIRED, Code.TLS_SERVER_EXPIRED}),
    ),
    Fault(
        "clock-drifts",
        "this host's clock is three minutes ahead",
        Code.CLOCK_DRIFTS,
        partial(_by_api, ahead=timedelta(minutes=3)),
        verdict=Verdict.WARN,
        seen="minutes ahead of",
    ),
    Fault(
        "clock-behind-certificates",
        "this host's clock is behind, and certificates alone show it",
        Code.CLOCK_WRONG,
        _all_of_tomorrow,
        seen="seems to be behind",
        also=frozenset({Code.TLS_SERVER_EXPIRED, Code.CERTIFICATE_NOT_YET_VALID}) | NOT_RUNNING,
    ),
)

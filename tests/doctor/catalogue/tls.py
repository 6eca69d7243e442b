"""Faults of TLS: the server's chain and names, versions and ciphers, and what the server makes of our certificate."""

from __future__ import annotations

import shutil
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import Gathered, from_flags
from mtlskit.errors import Code
from tests.doctor.catalogue.base import Fault, Stage
from tests.doctor.catalogue.tls_papers import (
    DAY,
    NOW,
    anchors,
    authority,
    server,
    sha1_server,
    small_rsa,
    written,
)
from tests.services.pki import Pair, Pki
from tests.services.settings import ServerOptions
from tests.support.s_server import serving_many
from tests.support.tls_servers import listening

WEAKLY = ("-cipher", "DEFAULT:@SECLEVEL=0")


def gathered(stage: Stage, port: int, kind: str = "tcp", host: str = "localhost", **flags: Any) -> Gathered:
    """By flags: the tests' client and the tests' CA of servers, unless told otherwise."""
    pki: Pki = stage.fixture("pki")
    usual: dict[str, Any] = {"cert": pki.client.cert, "key": pki.client.key, "ca": pki.server_ca}
    given = {"kind": kind, "upstream": [f"{host}:{port}"], **usual, **flags}
    return from_flags(given, Means(step=2, deadline=12))


@dataclass(frozen=True)
class Papers:
    """What a server presents, and what a client compares it with."""

    pair: Pair
    ca: Path


Make = Callable[[Path], Papers]


@contextmanager
def _postgres(
    stage: Stage, *, make: Make | None = None, options: ServerOptions | None = None, **flags: Any
) -> Iterator[Gathered]:
    """A PostgreSQL of one's own."""
    options = options or ServerOptions()
    if make is not None:
        papers = make(stage.folder)
        options = replace(options, certificate=papers.pair)
        flags = {"ca": papers.ca} | flags
    made = stage.fixture("make_postgres")(options)
    yield gathered(stage, made.port, "postgres", **flags)


@contextmanager
def _s_server(
    stage: Stage, options: Sequence[str] = (), *, make: Make | None = None, asks: bool = True, **flags: Any
) -> Iterator[Gathered]:
    """OpenSSL's server, which demands a client certificate."""
    pki: Pki = stage.fixture("pki")
    papers = Papers(pki.server, pki.server_ca) if make is None else make(stage.folder)
    asking = ("-CAfile", pki.client_ca, "-Verify", "2", "-verify_return_error") if asks else ()
    with serving_many(papers.pair, *asking, *options) as port:
        yield gathered(stage, port, **{"ca": papers.ca, **flags})


# What a server presents.


def _of_root(**wrong: Any) -> Make:
    def make(folder: Path) -> Papers:
        root = authority("our root")
        return Papers(written(folder, "server", server(root, **wrong)), anchors(folder, root))

    return make


def _self_signed(folder: Path) -> Papers:
    return Papers(written(folder, "server", server(None)), anchors(folder, authority("our root")))


def _expired_intermediate(folder: Path) -> Papers:
    root = authority("our root")
    middle = authority("our signer", root, ends=NOW - DAY)
    return Papers(written(folder, "server", server(middle), middle), anchors(folder, root))


def _expired_root(folder: Path) -> Papers:
    root = authority("our old root", ends=NOW - DAY)
    return Papers(written(folder, "server", server(root)), anchors(folder, root, authority("our new root")))


def _without_intermediate(folder: Path) -> Papers:
    root = authority("our root")
    middle = authority("our issuing CA", root)
    return Papers(written(folder, "server", server(middle)), anchors(folder, root))


def _renewed_root(folder: Path) -> Papers:
    return Papers(written(folder, "server", server(authority("our root"))), anchors(folder, authority("our root")))


def _weak_key(folder: Path) -> Papers:
    root = authority("our root")
    return Papers(written(folder, "server", server(root, key=small_rsa())), anchors(folder, root))


def _sha1(folder: Path) -> Papers:
    root = authority("our root")
    return Papers(sha1_server(folder, root), anchors(folder, root))


def _intermediate_ends_soon(folder: Path) -> Papers:
    root = authority("our root")
    middle = authority("our signer", root, ends=NOW + 5 * DAY)
    return Papers(written(folder, "server", server(middle), middle), anchors(folder, root))


# What becomes of our certificate.


@contextmanager
def _shared(stage: Stage, **flags: Any) -> Iterator[Gathered]:
    """The PostgreSQL that all tests share; flags that name a pair of the tests' PKI."""
    postgres = stage.fixture("postgres")
    who = flags.pop("who", None)
    if who is not None:
        pair = getattr(postgres.pki, who)
        flags |= {"cert": pair.cert, "key": pair.key}
    yield gathered(stage, postgres.port, "postgres", **flags)


def _other_ca(stage: Stage) -> AbstractContextManager[Gathered]:
    return _shared(stage, ca=stage.fixture("pki").stranger_ca)


def _stranger_1_2(stage: Stage) -> AbstractContextManager[Gathered]:
    stranger = stage.fixture("pki").client_stranger
    return _s_server(stage, ("-tls1_2",), cert=stranger.cert, key=stranger.key)


def _other_host(stage: Stage) -> AbstractContextManager[Gathered]:
    """It has a second certificate for db.example.com, and takes nobody who asks for a third name."""
    pair = stage.fixture("pki").server
    names = ("-servername", "db.example.com", "-servername_fatal")
    return _s_server(stage, (*names, "-cert2", str(pair.cert), "-key2", str(pair.key)))


@contextmanager
def _missing_intermediate_of_ours(stage: Stage) -> Iterator[Gathered]:
    pki: Pki = stage.fixture("pki")
    (stage.folder / "leaf.crt").write_bytes(
        x509.load_pem_x509_certificates(pki.client_chained.cert.read_bytes())[0].public_bytes(Encoding.PEM)
    )
    postgres = stage.fixture("postgres")
    ours = Pair(stage.folder / "leaf.crt", pki.client_chained.key)
    yield gathered(stage, postgres.port, "postgres", cert=ours.cert, key=ours.key)


@contextmanager
def _revoked(stage: Stage) -> Iterator[Gathered]:
    """The list is at the server alone."""
    pki: Pki = stage.fixture("pki")
    ours = Pair(stage.folder / "ours.crt", stage.folder / "ours.key")
    shutil.copy(pki.client_revoked.cert, ours.cert)
    shutil.copy(pki.client_revoked.key, ours.key)
    ca = Path(shutil.copy(pki.server_ca, stage.folder / "server-ca.crt"))
    yield gathered(stage, stage.fixture("postgres").port, "postgres", cert=ours.cert, key=ours.key, ca=ca)


@contextmanager
def _crl_expired(stage: Stage) -> Iterator[Gathered]:
    """The server's list of revoked certificates was to be replaced yesterday."""
    made = stage.fixture("make_postgres")()
    crl = made.folder / "tls" / "client-ca.crl"
    crl.write_bytes(made.pki.clients.crl([], (NOW - 9 * DAY, NOW - DAY)))
    made.restart()
    yield gathered(stage, made.port, "postgres")


@contextmanager
def _pin(stage: Stage) -> Iterator[Gathered]:
    postgres = stage.fixture("postgres")
    pins = ["sha256/" + b64encode(bytes(32)).decode("ascii")]
    yield gathered(stage, postgres.port, "postgres", pins=pins)


@contextmanager
def _asks_for_nothing(stage: Stage) -> Iterator[Gathered]:
    hba = ("local all all trust", "hostssl all all all scram-sha-256")
    options = ServerOptions(hba=hba, settings={"ssl_ca_file": "", "ssl_crl_file": ""})
    with _postgres(stage, options=options) as found:
        yield found


# What breaks on the way.


@contextmanager
def _after_the_hello(stage: Stage, *, cut: bool) -> Iterator[Gathered]:
    """A server that answers whoever asks first, and breaks off, or waits, in the middle of the handshake."""
    pki: Pki = stage.fixture("pki")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)

    def treat(connection: Any) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(connection.recv(65536))
        with suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        connection.sendall(outgoing.read()[:200])
        if not cut:
            while connection.recv(65536):
                pass

    with listening(treat) as port:
        yield gathered(stage, port)


def _fault(
    name: str, title: str, code: Code, build: Callable[[Stage], AbstractContextManager[Gathered]], **more: Any
) -> Fault:
    return Fault(f"tls-{name}", title, code, build, **more)


FAULTS: tuple[Fault, ...] = (
    _fault(
        "server-expired",
        "The server's certificate has expired",
        Code.TLS_SERVER_EXPIRED,
        partial(_postgres, make=_of_root(ends=NOW - DAY)),
    ),
    _fault(
        "server-not-yet-valid",
        "The server's certificate is not valid yet",
        Code.TLS_SERVER_EXPIRED,
        partial(_postgres, make=_of_root(begins=NOW + DAY)),
    ),
    _fault(
        "intermediate-expired",
        "An intermediate CA that the server presents has expired",
        Code.TLS_SERVER_EXPIRED,
        partial(_postgres, make=_expired_intermediate),
        seen="the CA CN=our signer has expired",
    ),
    _fault(
        "root-expired",
        "The root that issued the server's certificate has expired, beside a good one in the CA file",
        Code.TLS_SERVER_EXPIRED,
        partial(_postgres, make=_expired_root),
        seen="the CA CN=our old root has expired",
        warnings=frozenset({Code.CERTIFICATE_EXPIRED}),
    ),
    _fault(
        "self-signed",
        "The server's certificate is signed by itself",
        Code.TLS_CHAIN_NOT_TRUSTED,
        partial(_postgres, make=_self_signed),
        seen="self-signed",
    ),
    _fault(
        "other-ca",
        "The CA file belongs to another server",
        Code.TLS_CHAIN_NOT_TRUSTED,
        _other_ca,
        seen="stranger-ca.crt",
    ),
    _fault(
        "renewed-ca",
        "The server's CA was made anew under the same name",
        Code.TLS_CHAIN_NOT_TRUSTED,
        partial(_postgres, make=_renewed_root),
        seen="another key",
    ),
    _fault(
        "no-intermediate",
        "The server does not present the intermediate CA's certificate",
        Code.TLS_SERVER_CHAIN_INCOMPLETE,
        partial(_postgres, make=_without_intermediate),
        seen="CN=our issuing CA",
    ),
    _fault(
        "other-name",
        "The server's certificate stands for another name",
        Code.TLS_NAME_MISMATCH,
        partial(_postgres, make=_of_root(names=("db.example.com",))),
        seen="db.example.com",
    ),
    _fault(
        "by-address",
        "The server is named by its address, and its certificate stands for a name",
        Code.TLS_NAME_MISMATCH,
        partial(_postgres, make=_of_root(names=("localhost",)), host="127.0.0.1"),
        seen="another name than 127.0.0.1",
    ),
    _fault(
        "other-name-and-expired",
        "The server's certificate has expired and stands for another name",
        Code.TLS_SERVER_EXPIRED,
        partial(_postgres, make=_of_root(names=("db.example.com",), ends=NOW - DAY)),
        also=frozenset({Code.TLS_NAME_MISMATCH}),
    ),
    _fault(
        "not-for-servers",
        "The server presents a certificate whose extended key usage lacks serverAuth",
        Code.TLS_CHAIN_NOT_TRUSTED,
        partial(_postgres, make=_of_root(usage=ExtendedKeyUsageOID.CLIENT_AUTH)),
        seen="not for servers",
    ),
    _fault(
        "weak-key",
        "The server's certificate has an RSA key of 1024 bits",
        Code.TLS_SERVER_WEAK,
        partial(_s_server, options=("-tls1_3", *WEAKLY), make=_weak_key),
        seen="too weak",
    ),
    _fault(
        "sha1",
        "The server's certificate is signed with SHA-1",
        Code.TLS_SERVER_WEAK,
        partial(_s_server, options=("-tls1_3", *WEAKLY), make=_sha1),
        seen="too weak",
    ),
    _fault(
        "1.1-only",
        "The server speaks TLS 1.1 at most",
        Code.TLS_VERSION,
        partial(_s_server, options=("-tls1_1", *WEAKLY)),
        seen="TLS 1.1 only",
    ),
    _fault(
        "1.0-only",
        "The server speaks TLS 1.0 at most",
        Code.TLS_VERSION,
        partial(_s_server, options=("-tls1", *WEAKLY)),
        seen="TLS 1.0 only",
    ),
    _fault(
        "no-common-cipher",
        "The server offers ciphers that this client does not",
        Code.TLS_HANDSHAKE_FAILED,
        partial(_s_server, options=("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")),
        seen="no cipher in common",
    ),
    _fault(
        "unknown-sni",
        "The server serves other names than the one asked for, and refuses all else",
        Code.TLS_NAME_MISMATCH,
        _other_host,
        seen="does not know the host name",
    ),
    _fault("pin", "The server's key is not the pinned one", Code.TLS_PIN_MISMATCH, _pin, seen="not the pinned one"),
    _fault(
        "cut",
        "The connection is cut in the middle of the handshake",
        Code.UPSTREAM_CLOSED,
        partial(_after_the_hello, cut=True),
    ),
    _fault(
        "stalls",
        "The server stalls in the middle of the handshake",
        Code.TLS_TIMEOUT,
        partial(_after_the_hello, cut=False),
    ),
    _fault(
        "ends-soon",
        "The server's certificate ends within two weeks",
        Code.TLS_SERVER_ENDS_SOON,
        partial(_postgres, make=_of_root(ends=NOW + 5 * DAY)),
        verdict=Verdict.WARN,
    ),
    _fault(
        "intermediate-ends-soon",
        "An intermediate CA that the server presents ends within two weeks",
        Code.TLS_SERVER_ENDS_SOON,
        partial(_postgres, make=_intermediate_ends_soon),
        verdict=Verdict.WARN,
        seen="CN=our signer",
    ),
    _fault(
        "old-versions",
        "The server still offers TLS 1.0 and 1.1",
        Code.TLS_OLD_VERSIONS,
        partial(_s_server, options=WEAKLY),
        verdict=Verdict.WARN,
    ),
    _fault(
        "stranger",
        "The server takes client certificates of another CA than ours",
        Code.TLS_OTHER_CA_ASKED,
        partial(_shared, who="client_stranger"),
        seen="CN=mtlskit tests client CA",
    ),
    _fault(
        "stranger-1.2",
        "The server takes client certificates of another CA than ours, under TLS 1.2",
        Code.TLS_OTHER_CA_ASKED,
        _stranger_1_2,
        seen="CN=mtlskit tests client CA",
    ),
    _fault(
        "our-intermediate-missing",
        "Our certificate file lacks the intermediate CA's certificate",
        Code.TLS_OTHER_CA_ASKED,
        _missing_intermediate_of_ours,
    ),
    _fault(
        "revoked",
        "The server has our certificate on its revocation list",
        Code.TLS_CLIENT_CERTIFICATE_REVOKED,
        _revoked,
    ),
    _fault(
        "crl-expired",
        "The server's revocation list is out of date, so it takes nobody's certificate",
        Code.TLS_CLIENT_CERTIFICATE_EXPIRED,
        _crl_expired,
        seen="revocation list",
    ),
    _fault(
        "asks-for-nothing",
        "The server asks for no client certificate",
        Code.TLS_NO_CERTIFICATE_ASKED,
        _asks_for_nothing,
        verdict=Verdict.WARN,
    ),
)

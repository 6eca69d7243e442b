"""Our facts about a server's TLS against those of `openssl s_client`, from the same server at the same time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio
from cryptography import x509

from mtlskit.config.values import Endpoint, TunnelKind
from mtlskit.doctor.tls.contexts import looking
from mtlskit.doctor.tls.handshake import Target
from mtlskit.doctor.tls.looking import OFFERED, Contexts, Look, look
from mtlskit.net.names import Address
from mtlskit.pki.certificates import fingerprint_sha256
from tests.doctor.catalogue.tls_papers import authority, server, written
from tests.services.pki import Pair, Pki
from tests.services.postgres import PostgresServer
from tests.support.openssl import run_openssl
from tests.support.s_server import serving_many

FLAGS = {"TLSv1": "-tls1", "TLSv1.1": "-tls1_1", "TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}
WEAKLY = ("-cipher", "DEFAULT:@SECLEVEL=0")


def ours(port: int, kind: TunnelKind) -> Look:
    address: Address = (trio.socket.AF_INET, ("127.0.0.1", port))
    target = Target(Endpoint("localhost", port), address, kind, server_name="localhost")
    return trio.run(_look, target)


async def _look(target: Target) -> Look:
    return await look(target, Contexts(looking()), step=30)


def theirs(port: int, kind: TunnelKind, *options: str) -> str:
    start = ("-starttls", "postgres") if kind is TunnelKind.POSTGRES else ()
    arguments = ("s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-showcerts", *start)
    done = run_openssl(*arguments, *options)
    return done.stdout.decode("utf-8", "replace")


def agree(port: int, kind: TunnelKind, *, pair: Pair) -> None:
    """Version, cipher, chain, client CAs, and each version alone."""
    seen, said = ours(port, kind), theirs(port, kind)
    negotiated = re.search(r"^New, (\S+), Cipher is (\S+)", said, re.MULTILINE)
    assert negotiated is not None, said
    assert (seen.recorded.version, seen.recorded.cipher) == negotiated.groups()
    assert [fingerprint_sha256(each) for each in seen.chain] == [fingerprint_sha256(each) for each in _chain(said)]
    assert len(seen.chain) == len(x509.load_pem_x509_certificates(pair.cert.read_bytes()))
    assert list(seen.recorded.ca_names) == _asked(said)
    assert seen.recorded.asks is ("Acceptable client certificate CA names" in said or "Requested Signature" in said)
    for version, flag in FLAGS.items():
        alone = theirs(port, kind, flag, *WEAKLY)
        offered = re.search(r"Cipher is (?!\(NONE\))", alone) is not None
        assert (seen.versions[version] == OFFERED) is offered, (version, alone)


def _chain(said: str) -> list[x509.Certificate]:
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", said, re.DOTALL)
    shown = said.partition("Server certificate")[0]  # the leaf is printed once more behind this line
    return [x509.load_pem_x509_certificate(block.encode()) for block in blocks if block in shown]


def _asked(said: str) -> list[str]:
    """The names, from "CN = our root" as OpenSSL writes them."""
    _, found, rest = said.partition("Acceptable client certificate CA names\n")
    lines = re.split(r"^(?:Client Certificate Types|Requested Signature)", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return [line.replace(" = ", "=") for line in lines.splitlines() if line] if found else []


def test_a_postgres(each_postgres: PostgresServer) -> None:
    agree(each_postgres.port, TunnelKind.POSTGRES, pair=each_postgres.pki.server)


@pytest.mark.parametrize(
    "options",
    [("-tls1_3",), ("-tls1_2",), ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"), WEAKLY],
    ids=" ".join,
)
def test_an_openssl(pki: Pki, options: tuple[str, ...]) -> None:
    asking = ("-CAfile", pki.client_ca, "-verify", "2")
    with serving_many(pki.server, *asking, *options) as port:
        agree(port, TunnelKind.TCP, pair=pki.server)


def test_a_chain_of_three_and_nobody_asked(tmp_path: Path) -> None:
    root = authority("our root")
    middle = authority("our signer", root)
    pair = written(tmp_path, "server", server(middle), middle, root)
    above = written(tmp_path, "above", middle, root)
    with serving_many(pair, "-cert_chain", above.cert) as port:
        agree(port, TunnelKind.TCP, pair=pair)

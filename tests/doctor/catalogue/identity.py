"""Faults of files and rights, of keys, certificates and trust anchors; and those that lie around them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import Gathered, from_flags
from mtlskit.errors import Code
from tests.doctor.catalogue import configuration, revocation
from tests.doctor.catalogue.base import Fault, Stage
from tests.doctor.catalogue.places import Flags, Place, by_flags, life, means, placed
from tests.support.local_users import NOBODY
from tests.support.openssl import openssl
from tests.support.x509_builder import DAY, make_certificate

# Files and rights.


@contextmanager
def _as_somebody_else(stage: Stage, unreadable: str) -> Iterator[Gathered]:
    """A user who may not read one of the files. Root may read everything, so that root has to become somebody."""
    with placed(stage) as place, tempfile.TemporaryDirectory() as name, ExitStack() as stack:
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
    root = make_certificate("the root", ca=True, usages=None, **life(now))
    middle = make_certificate("the intermediate", issuer=root, ca=True, usages=None, **life(now))
    return {"ca": place.write("middle.crt", middle.cert_pem)}


_OF_IDENTITIES: tuple[Fault, ...] = (
    Fault(
        "file-no-certificate",
        "The certificate's file is not there",
        Code.FILE_MISSING,
        by_flags(lambda place: {"cert": place.folder / "none.crt"}),
        seen="the client certificate does not exist",
    ),
    Fault(
        "file-no-key",
        "The key's file is not there",
        Code.FILE_MISSING,
        by_flags(lambda place: {"key": place.folder / "none.key"}),
        seen="the private key does not exist",
    ),
    Fault(
        "file-no-ca",
        "The CA's file is not there",
        Code.FILE_MISSING,
        by_flags(lambda place: {"ca": place.folder / "none.crt"}),
        seen="the CA file does not exist",
    ),
    Fault(
        "file-folder",
        "A folder where the certificate's file is meant",
        Code.FILE_UNREADABLE,
        by_flags(lambda place: {"cert": place.folder}),
        seen="is a folder",
    ),
    Fault(
        "file-key-of-root",
        "A key that another user may read, and this one may not",
        Code.FILE_UNREADABLE,
        partial(_as_somebody_else, unreadable="key"),
        seen="the private key cannot be read: Permission denied",
    ),
    Fault(
        "file-key-open",
        "A key that every user of the host may read",
        Code.KEY_EXPOSED,
        by_flags(_exposed),
        seen="open.key: the private key is open",
    ),
    Fault(
        "file-folder-open",
        "A key in a folder that everybody may write to",
        Code.KEY_EXPOSED,
        by_flags(_open_folder),
        verdict=Verdict.WARN,
        seen="may replace the files",
    ),
    Fault(
        "file-passphrase-open",
        "A passphrase that every user of the host may read",
        Code.KEY_EXPOSED,
        by_flags(partial(_locked, passphrase="open sesame", mode=0o644)),
        seen="the passphrase is open",
    ),
    Fault(
        "identity-other-key",
        "The key belongs to another certificate",
        Code.KEY_MISMATCH,
        by_flags(_another_key),
        seen="does not belong to",
    ),
    Fault(
        "identity-two-faults",
        "An expired certificate, and the key of another",
        Code.KEY_MISMATCH,
        by_flags(_several),
        also=frozenset({Code.CERTIFICATE_EXPIRED}),
        seen="does not belong to",
    ),
    Fault(
        "identity-exchanged",
        "Certificate and key are exchanged",
        Code.PEM_WRONG_KIND,
        by_flags(lambda place: {"cert": place.key, "key": place.cert}),
        seen="holds a",
    ),
    Fault(
        "identity-expired",
        "The certificate has expired",
        Code.CERTIFICATE_EXPIRED,
        by_flags(lambda place: {"cert": place.pki.client_expired.cert, "key": place.pki.client_expired.key}),
        seen="client-expired.crt: CN=client expired on",
    ),
    Fault(
        "identity-later",
        "The certificate begins in three days",
        Code.CERTIFICATE_NOT_YET_VALID,
        by_flags(_later),
        seen="is not valid before",
    ),
    Fault(
        "identity-of-server",
        "A server's certificate, which is not for clients",
        Code.CERTIFICATE_NOT_FOR_CLIENTS,
        by_flags(lambda place: place.pair(place.client(usages=(ExtendedKeyUsageOID.SERVER_AUTH,)))),
        seen="without clientAuth",
    ),
    Fault(
        "identity-locked",
        "An encrypted key, and no passphrase",
        Code.KEY_ENCRYPTED,
        by_flags(_locked),
        seen="is encrypted",
    ),
    Fault(
        "identity-wrong-passphrase",
        "An encrypted key, and another's passphrase",
        Code.KEY_PASSPHRASE_WRONG,
        by_flags(partial(_locked, passphrase="another")),
        seen="does not open",
    ),
    Fault("identity-weak-key", "An RSA key of 1024 bits", Code.KEY_WEAK, by_flags(_weak_key), seen="1024 bits"),
    Fault(
        "identity-sha1",
        "A certificate signed with SHA-1",
        Code.SIGNATURE_WEAK,
        by_flags(_sha1),
        seen="is signed with SHA-1",
    ),
    Fault(
        "identity-damaged",
        "A certificate file with two lines missing",
        Code.PEM_DAMAGED,
        by_flags(_damaged),
        seen="damaged.crt",
    ),
    Fault(
        "identity-der", "A DER file where PEM is read", Code.PEM_WRONG_KIND, by_flags(_der), seen="a DER certificate"
    ),
    Fault(
        "identity-request",
        "The request in the place of the certificate",
        Code.PEM_WRONG_KIND,
        by_flags(_request),
        seen="client.csr holds",
    ),
    Fault(
        "identity-no-intermediate",
        "The intermediate CA's certificate is not in the file",
        Code.CHAIN_INCOMPLETE,
        by_flags(_no_intermediate),
        also=frozenset({Code.TLS_CLIENT_CA_UNKNOWN, Code.TLS_OTHER_CA_ASKED}),
        seen="intermediate.pem",
    ),
    Fault(
        "identity-ends-soon",
        "The certificate ends in three days",
        Code.CERTIFICATE_ENDS_SOON,
        by_flags(_ends_soon),
        verdict=Verdict.WARN,
        seen="expires on",
    ),
    Fault(
        "anchors-leaf",
        "The server's own certificate as its CA",
        Code.PEM_WRONG_KIND,
        by_flags(lambda place: {"ca": place.pki.server.cert}),
        also=frozenset({Code.TLS_CHAIN_NOT_TRUSTED}),
        seen="is no CA certificate",
    ),
    Fault(
        "anchors-expired",
        "An expired root",
        Code.CERTIFICATE_EXPIRED,
        by_flags(_expired_root),
        seen="trust anchor CN=old root expired",
    ),
    Fault(
        "anchors-no-root",
        "An intermediate CA without its root",
        Code.CHAIN_INCOMPLETE,
        by_flags(_intermediate_alone),
        also=frozenset({Code.TLS_CHAIN_NOT_TRUSTED}),
        seen="there is no root in it",
    ),
    Fault(
        "anchors-key",
        "A key where the CA is meant",
        Code.PEM_WRONG_KIND,
        by_flags(lambda place: {"ca": place.key}),
        seen="not a certificate",
    ),
)

FAULTS = (*configuration.FAULTS, *_OF_IDENTITIES, *revocation.FAULTS)

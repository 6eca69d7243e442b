"""Identity snapshots: the files of an identity, read once, checked, and turned into one `ssl.SSLContext`.

The bytes that were checked are the bytes that OpenSSL loads. `SSLContext.load_cert_chain` takes paths only, and
reading certificate and key a second time through a link that is being switched pairs an old certificate with a new
key. So what was checked is handed over in an anonymous memory file on Linux, and elsewhere in a private file, with the
key encrypted under a password that is thrown away.

A snapshot is immutable. A reload makes a new one, and swaps one reference when everything has been checked.
"""

from __future__ import annotations

import os
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from mtlskit.config.values import IdentityConfig, IssuerKind, Verify, VerifyMode
from mtlskit.errors import Code, IdentityError
from mtlskit.net.files import read_passphrase_file, read_private, read_public
from mtlskit.pki.certificates import certificates_pem, subject_text
from mtlskit.pki.identity import CheckedPair, anchor_warnings, check_anchors, check_pair
from mtlskit.pki.keys import private_key_pem
from mtlskit.store.identities import resolve_current

__all__ = [
    "IdentitySnapshot",
    "Trust",
    "load_snapshot",
    "pair_of",
    "resolved",
    "show_pair",
    "trust_of",
    "verifying_context",
]

_STABLE_ATTEMPTS = 5
"""How often to read files that are being replaced. They are replaced once; the check of the pair has the last word."""

_ANCHORS_TOLD = 3
"""Subjects of trust anchors that an error names; a trust store holds hundreds."""

_CA_HINT = (
    "this is the file given as ca (--ca): there belong the certificates of the CAs that the server is checked against"
    " (-----BEGIN CERTIFICATE-----), such as root.crt"
)


@dataclass(frozen=True)
class IdentitySnapshot:
    """A checked client identity with the context that uses it."""

    name: str
    pair: CheckedPair
    context: ssl.SSLContext
    verify: Verify
    warnings: tuple[str, ...]
    trust: str = "the system's roots, because no ca is set"
    """What the server's chain is compared with, for sentences."""

    @property
    def serial(self) -> str:
        """The leaf's serial number, hexadecimal."""
        return self.pair.serial

    @property
    def not_after(self) -> datetime:
        """When the leaf ends, UTC."""
        return self.pair.not_after


@dataclass(frozen=True)
class Trust:
    """What the server's chain is compared with."""

    anchors_pem: str | None
    """None: the system's roots."""
    told: str
    """For sentences."""
    warnings: tuple[str, ...] = ()


def pair_of(config: IdentityConfig, *, now: datetime) -> CheckedPair:
    """The identity's certificate and key, read once and checked at `now`. Raises IdentityError, naming the file."""
    return _pair(config, resolved(config), now)


def trust_of(config: IdentityConfig, *, now: datetime) -> Trust:
    """The identity's trust anchors, read once and checked at `now`. Raises IdentityError, naming the file."""
    return _trust(config, resolved(config), now)


def load_snapshot(
    config: IdentityConfig,
    *,
    verify: Verify,
    alpn: tuple[str, ...] = (),
    now: datetime | None = None,
    show: bool = True,
) -> IdentitySnapshot:
    """Read the identity's files once, check them, and make the context. Blocks on the disk for milliseconds.

    Without `show`, the context shows no certificate: what a server makes of a stranger is to be seen.
    Raises IdentityError, naming the file.
    """
    now = now or datetime.now(UTC)
    files = resolved(config)
    pair = _pair(config, files, now)
    trust = _trust(config, files, now)
    context = verifying_context(trust.anchors_pem, verify, alpn, source=config.cert)
    if show:
        show_pair(context, pair, source=config.cert)
    return IdentitySnapshot(config.name, pair, context, verify, pair.warnings + trust.warnings, trust.told)


def _pair(config: IdentityConfig, files: IdentityConfig, now: datetime) -> CheckedPair:
    """From `files`, which is `config` with its links followed; `config` is what errors name."""
    cert_pem, key_pem = _read_pair(files.cert, files.key)
    passphrase = None
    if files.passphrase_file is not None:
        passphrase = read_passphrase_file(files.passphrase_file)
    return check_pair(
        cert_pem, key_pem, now=now, cert_source=str(config.cert), key_source=str(config.key), passphrase=passphrase
    )


def _trust(config: IdentityConfig, files: IdentityConfig, now: datetime) -> Trust:
    if files.ca is None:
        return Trust(None, IdentitySnapshot.trust)
    source = str(config.ca)
    anchors = _anchors(files.ca, now=now, source=source)
    warnings = anchor_warnings(anchors, now=now, source=source)
    return Trust(certificates_pem(anchors).decode("ascii"), _told_anchors(source, anchors), warnings)


def _anchors(path: Path, *, now: datetime, source: str) -> tuple[x509.Certificate, ...]:
    """`check_anchors`, and where the file holds something else: which of the three files is meant."""
    content = read_public(path, "CA file")
    try:
        return check_anchors(content, now=now, source=source)
    except IdentityError as exc:
        if exc.code is not Code.PEM_WRONG_KIND:
            raise
        # The reader's own hint may be the command that converts the file; for a key, it asks about `cert` and `key`.
        hint = _CA_HINT if b"PRIVATE KEY-----" in content else f"{exc.hint}; {_CA_HINT}"
        raise IdentityError(exc.code, exc.sentence, hint) from exc


def _told_anchors(source: str, anchors: tuple[x509.Certificate, ...]) -> str:
    names = [subject_text(anchor) for anchor in anchors[:_ANCHORS_TOLD]]
    if len(anchors) > _ANCHORS_TOLD:
        names.append(f"{len(anchors) - _ANCHORS_TOLD} more")
    return f"{source} ({'; '.join(names)})"


def resolved(config: IdentityConfig) -> IdentityConfig:
    """The same files, with the links of the certificate's folder followed once for all that are said to lie in it.

    Otherwise a `current` that is switched while we read would give files of two versions. Raises IdentityError
    (NOTHING_STORED) for an identity of the store that has none yet, STORE_DAMAGED where the one in use is gone.
    """
    folder = config.cert.parent
    try:
        target = resolve_current(folder)
    except (OSError, RuntimeError, ValueError) as exc:  # RuntimeError: a loop of links, before Python 3.13
        if isinstance(exc, FileNotFoundError) and config.issuer.kind is not IssuerKind.FILES:
            if folder.is_symlink():
                raise IdentityError(
                    Code.STORE_DAMAGED,
                    f"{config.name}: {folder} leads to {folder.readlink()}, which is not there",
                    f"restore it from a backup, or have a new one issued: mtlskit certs rotate {config.name}",
                ) from exc
            raise IdentityError(
                Code.NOTHING_STORED,
                f"{config.name}: no certificate has been issued yet: there is no {folder}",
                f"mtlskit certs issue {config.name}",
            ) from exc
        return config  # the read that follows says what is wrong, with the path that the user wrote
    if target == folder.absolute():
        return config

    def moved(path: Path | None) -> Path | None:
        return target / path.name if path is not None and path.parent == folder else path

    return replace(
        config,
        cert=target / config.cert.name,
        key=moved(config.key) or config.key,
        ca=moved(config.ca),
        passphrase_file=moved(config.passphrase_file),
    )


def _read_pair(cert: Path, key: Path) -> tuple[bytes, bytes]:
    """Certificate and key, as they stood at one moment.

    Where each file is a link of its own (a Kubernetes secret, certbot's `live`), both can change between two reads.
    The key in between two equal readings of the certificate belongs to it.
    """
    cert_pem = read_public(cert, "client certificate")
    for _ in range(_STABLE_ATTEMPTS):
        key_pem = read_private(key, "private key")
        again = read_public(cert, "client certificate")
        if again == cert_pem:
            break
        cert_pem = again
    return cert_pem, key_pem


def verifying_context(
    anchors_pem: str | None, verify: Verify, alpn: tuple[str, ...] = (), *, source: Path
) -> ssl.SSLContext:
    """A context that verifies servers and shows no certificate. Raises IdentityError; `source` is what it names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Set and not inherited: Python 3.13 changed the defaults of some constructors, and its strict mode refuses
    # roots without keyUsage, which every database server accepts.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST
    context.check_hostname = verify.mode is not VerifyMode.CA
    context.verify_mode = ssl.CERT_REQUIRED
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if anchors_pem is not None:
        _load_anchors(context, anchors_pem, source)
    elif verify.mode is VerifyMode.FULL:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        raise IdentityError(
            Code.FILE_MISSING,
            f'{source}: verify = "{verify}" needs a CA file of its own',
            'name it with `ca = "…"` (or --ca); with the system\'s roots any public certificate would pass',
        )
    return context


def show_pair(context: ssl.SSLContext, pair: CheckedPair, *, source: Path) -> None:
    """Let the context show the certificate to servers that ask for one. Raises IdentityError."""
    try:
        with _key_material(pair) as (path, password):
            context.load_cert_chain(path, password=password)
    except ssl.SSLError as exc:
        raise IdentityError(
            Code.OPENSSL_REFUSED,
            f"{source}: OpenSSL refuses this certificate and key: {exc.reason or exc}",
            "EE_KEY_TOO_SMALL or CA_MD_TOO_WEAK: this system's security level wants a stronger key or signature",
        ) from exc
    except OSError as exc:
        # Out of descriptors, no room in the temporary folder: a reload must survive it.
        raise IdentityError(
            Code.OPENSSL_REFUSED,
            f"{source}: the key cannot be handed to OpenSSL: {exc.strerror or exc}",
            "look at the limits of this process (`ulimit -n`) and at the room in the temporary folder",
        ) from exc


def _load_anchors(context: ssl.SSLContext, anchors_pem: str, source: Path) -> None:
    try:
        context.load_verify_locations(cadata=anchors_pem)
    except ssl.SSLError as exc:
        raise IdentityError(
            Code.OPENSSL_REFUSED,
            f"{source}: OpenSSL refuses the CA certificates that go with it: {exc.reason or exc}",
            "look at each of them: `openssl storeutl -noout -text -certs CA-FILE`",
        ) from exc


@contextmanager
def _key_material(pair: CheckedPair) -> Iterator[tuple[str, bytes | None]]:
    """A path that OpenSSL can load the pair from, and the password for it."""
    chain = certificates_pem(pair.chain)
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create("mtlskit-identity", os.MFD_CLOEXEC)
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(chain + private_key_pem(pair.key))
            yield f"/proc/self/fd/{descriptor}", None
        return
    password = secrets.token_hex(32).encode("ascii")
    # mkdtemp makes the folder 0700.
    with tempfile.TemporaryDirectory(prefix="mtlskit-") as folder:
        path = Path(folder) / "identity.pem"
        path.write_bytes(chain + private_key_pem(pair.key, password))
        yield str(path), password

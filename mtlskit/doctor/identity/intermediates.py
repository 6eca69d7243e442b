"""Whether the client's certificate file lacks the certificate of an intermediate CA.

The file alone does not show it: its last certificate may have been issued by a root, which every server has for itself.
Three things prove that it was not: the issuer's own certificate, if it lies beside the file or among the trust anchors;
and an authority key identifier that names the issuer's issuer (RFC 5280, section 4.2.1.1), which for a root would be
the root itself.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cryptography import x509

from mtlskit.config.values import IdentityConfig, IssuerKind
from mtlskit.errors import Code, IdentityError
from mtlskit.net.files import read_public
from mtlskit.pki.certificates import bounded_text, extension, is_issued_by, issuer_text, load_certificates, subject_text
from mtlskit.pki.chains import is_self_signed

__all__ = ["Missing", "missing_intermediate", "neighbours"]

_SUFFIXES = frozenset({".crt", ".pem", ".cer"})
_MOST_NEIGHBOURS = 40
"""Files that are looked into. A folder with more is nobody's folder of one identity."""
_MOST_ENTRIES = 1000


@dataclass(frozen=True)
class Missing:
    """What is not in the file, and how to get a file that has it."""

    error: IdentityError
    commands: tuple[str, ...]
    issuer: str


def missing_intermediate(
    chain: Sequence[x509.Certificate],
    path: Path,
    config: IdentityConfig,
    anchors: tuple[Path, Sequence[x509.Certificate]] | None,
) -> Missing | None:
    """Of the chain in `path`: the identity's `cert`, links followed. `anchors` are those of the server's CA file.

    Blocks on the disk.
    """
    last = next((each for each in chain if not any(is_issued_by(each, other) for other in chain)), None)
    if last is None:
        return None
    issuer = issuer_text(last)
    what = f"the certificate of the intermediate CA {issuer} is missing, which issued {subject_text(last)}"
    sentence = f"{config.cert}: {what}"
    why = "servers that know the root alone refuse such a certificate"
    if config.issuer.kind is not IssuerKind.FILES:  # nobody but mtlskit writes into the store
        why += ": whoever issues it has to deliver the intermediate's behind it"
    found, has_both = _found(chain, last, path, anchors)
    if found is not None:
        sentence += f"; it lies in {found}"
        if config.issuer.kind is not IssuerKind.FILES:
            return Missing(IdentityError(Code.CHAIN_INCOMPLETE, sentence, why), (), issuer)
        both = found if has_both else _free_name(config.cert)
        first = "that file has both: " if has_both else "write both into a new file, and "
        hint = f"{why}: {first}point to it with `cert = {json.dumps(str(both))}` (flag: --cert)"
        commands = () if has_both else (_join_command(path, config.cert, found, both),)
        return Missing(IdentityError(Code.CHAIN_INCOMPLETE, sentence, hint), commands, issuer)
    if above := _named_above(last):
        hint = f"{why}; its CA has it: put it behind the client's own"
        error = IdentityError(Code.CHAIN_INCOMPLETE, f"{sentence} (its own issuer is {above})", hint)
        return Missing(error, (), issuer)
    return None


def _free_name(cert: Path) -> Path:
    """`client-chain.crt` beside `client.crt`, or one with a number: nothing that is there is written over."""
    for number in range(1, _MOST_ENTRIES):
        more = "" if number == 1 else f"-{number}"
        name = cert.with_name(f"{cert.stem}-chain{more}{cert.suffix}")
        if not os.path.lexists(name):
            break
    return name


def _join_command(path: Path, cert: Path, found: Path, both: Path) -> str:
    """Writes a new file: the old one stays as it is, for whoever else uses it, and for the way back."""
    data = b""
    with suppress(IdentityError):
        data = read_public(path, "certificate file")
    first, second, target = (shlex.quote(str(each)) for each in (cert, found, both))
    # Without the line's end the first certificate's last line and the second's first would be one.
    joined = f"cat {first} {second}" if data.endswith(b"\n") else f"{{ cat {first}; echo; cat {second}; }}"
    if b"PRIVATE KEY" in data:  # a file with both: the new one is for nobody else, either
        return f"(umask 077; {joined} > {target})"
    return f"{joined} > {target}"


def _found(
    chain: Sequence[x509.Certificate],
    last: x509.Certificate,
    path: Path,
    anchors: tuple[Path, Sequence[x509.Certificate]] | None,
) -> tuple[Path | None, bool]:
    """The file with the issuer of `last`, which is no root; and whether it has all of the chain as well.

    One that has is the file that was made for this, and that nothing points to yet.
    """
    places = [] if anchors is None else [anchors]
    found, has_both = None, False
    for place, certificates in (*places, *neighbours(path)):
        for certificate in certificates:
            if not is_issued_by(last, certificate):
                continue
            if is_self_signed(certificate):
                return None, False  # a root; another form of it that is cross-signed is nothing that servers lack
            whole = all(each in certificates for each in chain)
            if found is None or (whole and not has_both):
                found, has_both = place, whole
    return found, has_both


def neighbours(path: Path) -> Iterator[tuple[Path, Sequence[x509.Certificate]]]:
    """The certificates in other files of the folder. Blocks on the disk; what cannot be read is left out."""
    try:
        entries = sorted(islice(path.parent.iterdir(), _MOST_ENTRIES))
    except (OSError, ValueError):
        return
    candidates = [each for each in entries if each.suffix.lower() in _SUFFIXES and each.name != path.name]
    for candidate in candidates[:_MOST_NEIGHBOURS]:
        with suppress(IdentityError):
            yield candidate, load_certificates(read_public(candidate, "certificate"), source=str(candidate))


def _named_above(last: x509.Certificate) -> str | None:
    with suppress(IdentityError):
        identifier = extension(last, x509.AuthorityKeyIdentifier, source="")
        for name in (identifier.authority_cert_issuer or ()) if identifier is not None else ():
            if isinstance(name, x509.DirectoryName) and name.value != last.issuer:
                return bounded_text(name.value.rfc4514_string())
    return None

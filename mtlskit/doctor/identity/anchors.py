"""The trust anchors that the server is checked against: whether a server can pass at all. Layer IDENTITY."""

from __future__ import annotations

import os
import shlex
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from mtlskit.config.values import IdentityConfig, IssuerConfig
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.doctor.identity.files import CA, IdentityFiles
from mtlskit.errors import Code, IdentityError
from mtlskit.net.identity import Trust, trust_of
from mtlskit.pki.certificates import issuer_text, load_certificates, subject_text
from mtlskit.pki.chains import is_ca
from mtlskit.pki.identity import MAX_ANCHORS, anchor_remarks, ends_soon

__all__ = ["anchors_in", "look_at_anchors"]

_ANCHORS = "identity.anchors"
_TOLD = 3
_DATES = (Code.CERTIFICATE_EXPIRED, Code.CERTIFICATE_NOT_YET_VALID)


def anchors_in(files: IdentityFiles, source: str) -> tuple[x509.Certificate, ...]:
    """The certificates of the CA file; none where there are none to be had."""
    if files.ca is not None:
        with suppress(IdentityError):
            return load_certificates(files.ca, source=source, limit=MAX_ANCHORS)
    return ()


def look_at_anchors(
    config: IdentityConfig, files: IdentityFiles, *, now: datetime
) -> tuple[Trust | None, tuple[Finding, ...]]:
    """What the server is compared with, where it can be used, and what is to be said of it. Blocks on the disk."""
    source = str(config.ca)
    if config.ca is not None and files.ca is None:
        return None, (skipped(Layer.IDENTITY, _ANCHORS, CA, about=source),)
    show = (f"mtlskit certs show {shlex.quote(source)}",)
    try:
        # Whether the store has a certificate is said elsewhere: the server can be looked at without one.
        trust = trust_of(replace(config, issuer=IssuerConfig()), now=now)
    except IdentityError as exc:
        facts = _dates(anchors_in(files, source)) if exc.code in _DATES else {}
        return None, (failed(Layer.IDENTITY, _ANCHORS, exc, about=source, commands=show, **facts),)
    if config.ca is None:
        return trust, (_system_roots(),)
    anchors = anchors_in(files, source)
    usable = [each for each in anchors if _usable(each, now)]
    if not usable:
        return trust, (failed(Layer.IDENTITY, _ANCHORS, _useless(anchors, source, now), about=source, commands=show),)
    return trust, (_of_usable(anchors, usable, source, now),)


def _dates(anchors: Sequence[x509.Certificate]) -> dict[str, Any]:
    """Of the one that is most nearly usable, which the error is about."""
    latest = max(anchors, key=lambda each: each.not_valid_after_utc)
    return {
        "not_before": latest.not_valid_before_utc.isoformat(),
        "not_after": latest.not_valid_after_utc.isoformat(),
    }


def _usable(anchor: x509.Certificate, now: datetime) -> bool:
    """Without X509_V_FLAG_PARTIAL_CHAIN, OpenSSL ends a chain at what has issued itself, and nowhere else."""
    within = anchor.not_valid_before_utc <= now <= anchor.not_valid_after_utc
    return within and anchor.issuer == anchor.subject


def _useless(anchors: Sequence[x509.Certificate], source: str, now: datetime) -> IdentityError:
    """Why no server will pass: no CA in it, no valid root, or an intermediate CA without its root."""
    middle = next((each for each in anchors if is_ca(each) and each.issuer != each.subject), None)
    remark = next(iter(anchor_remarks(anchors, now=now, source=source)), None)
    if remark is not None and (middle is None or remark.code is not Code.PEM_WRONG_KIND):
        return remark
    told = "" if middle is None else f": {subject_text(middle)} is an intermediate CA, issued by {issuer_text(middle)}"
    return IdentityError(
        Code.CHAIN_INCOMPLETE,
        f"{source}: there is no root in it{told}",
        "put the certificate of the root CA into the file, beside the intermediate's",
    )


def _of_usable(
    anchors: Sequence[x509.Certificate], usable: Sequence[x509.Certificate], source: str, now: datetime
) -> Finding:
    longest = max(usable, key=lambda each: each.not_valid_after_utc)
    facts: dict[str, Any] = {
        "anchors": [subject_text(each) for each in anchors[:_TOLD]],
        "count": len(anchors),
        "usable": len(usable),
        "not_after": longest.not_valid_after_utc.isoformat(),
        "days_left": round((longest.not_valid_after_utc - now).total_seconds() / 86400, 2),
    }
    # Of several, those that end are on their way out, and the others take over.
    if soon := ends_soon(longest, now=now, source=source, role="the trust anchor "):
        command = f"mtlskit certs show {shlex.quote(source)}"
        return warned(Layer.IDENTITY, _ANCHORS, soon, about=source, commands=(command,), **facts)
    names = "; ".join(subject_text(each) for each in usable[:_TOLD])
    more = f" and {len(usable) - _TOLD} more" if len(usable) > _TOLD else ""
    others = f" ({len(anchors) - len(usable)} others in the file are no roots or outside their dates)"
    seen = (
        f"{source}: servers are checked against {names}{more}, until {longest.not_valid_after_utc:%Y-%m-%d}"
        f"{others if len(anchors) > len(usable) else ''}"
    )
    return passed(Layer.IDENTITY, _ANCHORS, seen, about=source, **facts)


def _system_roots() -> Finding:
    """Slim containers come without any."""
    paths = ssl.get_default_verify_paths()
    found = paths.cafile or (paths.capath if paths.capath and _has_entries(Path(paths.capath)) else None)
    if found is None and os.name == "posix":
        error = IdentityError(
            Code.FILE_MISSING,
            f"no ca is set, and this system has no roots of its own: neither {paths.openssl_cafile} nor anything in"
            f" {paths.openssl_capath}",
            "name the server's CA with `ca` (--ca), or install the system's roots (the package ca-certificates)",
        )
        return failed(Layer.IDENTITY, _ANCHORS, error, commands=(f"ls -l {shlex.quote(paths.openssl_capath)}",))
    where = f" ({found})" if found else ""
    return passed(Layer.IDENTITY, _ANCHORS, f"no ca is set: servers are checked against the system's roots{where}")


def _has_entries(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False

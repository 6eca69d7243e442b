"""Certificate and key of the client: whose, from when to when, what for, how strong. Layer IDENTITY.

What the proxy refuses is a FAIL, with the proxy's own sentence; what it warns of is a WARN. Each is looked at for
itself, so that of several things that are wrong all are told.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from mtlskit.config.values import IdentityConfig
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.doctor.identity.files import CERTIFICATE, KEY, PASSPHRASE, IdentityFiles
from mtlskit.doctor.identity.intermediates import missing_intermediate
from mtlskit.errors import Code, IdentityError
from mtlskit.pki.certificates import load_certificates, subject_text
from mtlskit.pki.chains import Chain, assemble, follow, is_self_signed
from mtlskit.pki.facts import CertificateFacts, certificate_facts
from mtlskit.pki.identity import (
    chain_remarks,
    check_dates,
    check_usage,
    ends_soon,
    find_leaf,
    leaf_remarks,
    weak_signature,
)
from mtlskit.pki.keys import PrivateKey, load_private_key
from mtlskit.pki.requests import public_key_text

__all__ = ["DATES", "look_at_pair"]

_CERTIFICATE, _KEY, _MATCH = "identity.certificate", "identity.key", "identity.match"
_CHAIN, _USAGE, _STRENGTH = "identity.chain", "identity.usage", "identity.strength"
DATES = "identity.dates"

Anchors = tuple[Path, Sequence[x509.Certificate]] | None


def look_at_pair(
    config: IdentityConfig, path: Path, files: IdentityFiles, anchors: Anchors, *, now: datetime, renew: str
) -> tuple[Finding, ...]:
    """All about the pair. `path` is the certificate's file with its links followed, `anchors` the server's.

    `renew`: the command that has a new certificate issued; empty where there is none.
    """
    look = _Look(config, now, renew)
    key = look.key(files)
    certificates = look.certificates(files)
    if not certificates:
        look.findings += [skipped(Layer.IDENTITY, each, _CERTIFICATE) for each in (_MATCH, DATES, _USAGE, _CHAIN)]
        return tuple(look.findings)
    leaf = look.leaf(certificates, key)
    chain = follow(leaf, certificates)
    facts = certificate_facts(leaf, now)
    look.dates(leaf, facts)
    look.usage(leaf, facts)
    look.strength(chain.certificates, facts)
    look.chain(chain, path, anchors)
    return tuple(look.findings)


class _Look:
    """One after the other, noting what is found."""

    def __init__(self, config: IdentityConfig, now: datetime, renew: str) -> None:
        self._config = config
        self._now = now
        self._renew = renew
        self._source = str(config.cert)
        self.findings: list[Finding] = []

    def key(self, files: IdentityFiles) -> PrivateKey | None:
        """Whether it opens."""
        source = str(self._config.key)
        if files.key is None or files.failed(PASSPHRASE):
            because = KEY if files.key is None else PASSPHRASE
            self.findings.append(skipped(Layer.IDENTITY, _KEY, because, about=source))
            return None
        try:
            key = load_private_key(files.key, source=source, passphrase=files.passphrase)
        except IdentityError as exc:
            self._fail(_KEY, exc, about=source)
            return None
        kind = public_key_text(key.public_key())
        encrypted = b"ENCRYPTED" in files.key
        told = ", which the passphrase opens" if encrypted else ", without a passphrase"
        self._pass(_KEY, f"{source}: a private key, {kind}{told}", about=source, key=kind, encrypted=encrypted)
        return key

    def certificates(self, files: IdentityFiles) -> tuple[x509.Certificate, ...]:
        """Those in the file; none where it cannot be read."""
        if files.certificate is None:
            self.findings.append(skipped(Layer.IDENTITY, _CERTIFICATE, CERTIFICATE, about=self._source))
            return ()
        try:
            return load_certificates(files.certificate, source=self._source)
        except IdentityError as exc:
            self._fail(_CERTIFICATE, exc)
            return ()

    def leaf(self, certificates: Sequence[x509.Certificate], key: PrivateKey | None) -> x509.Certificate:
        """The client's own, told; without a key that fits, the one that looks like it."""
        found = assemble(certificates).leaf
        if key is None:
            match = skipped(Layer.IDENTITY, _MATCH, _KEY, about=self._source)
        else:
            try:
                found = find_leaf(
                    certificates, key, now=self._now, cert_source=self._source, key_source=str(self._config.key)
                )
                seen = f"the key in {self._config.key} belongs to {self._source}"
                match = passed(Layer.IDENTITY, _MATCH, seen, about=self._source)
            except IdentityError as exc:
                match = failed(Layer.IDENTITY, _MATCH, exc, about=self._source, commands=self._compare())
        facts = certificate_facts(found, self._now)
        seen = f"{self._source}: {subject_text(found)}, issued by {facts.issuer}, serial {facts.serial}"
        self._pass(
            _CERTIFICATE,
            seen,
            subject=facts.subject,
            issuer=facts.issuer,
            serial=facts.serial,
            names=list(facts.names),
            fingerprint_sha256=facts.fingerprint_sha256,
            certificates=len(certificates),
        )
        self.findings.append(match)
        return found

    def dates(self, leaf: x509.Certificate, facts: CertificateFacts) -> None:
        """Of the client's own."""
        told: dict[str, Any] = {
            "not_before": facts.not_before.isoformat(),
            "not_after": facts.not_after.isoformat(),
            "days_left": round((facts.not_after - self._now).total_seconds() / 86400, 2),
        }
        if exc := _raised(lambda: check_dates(leaf, now=self._now, source=self._source)):
            again = self._renewal(exc) if exc.code is Code.CERTIFICATE_EXPIRED else ("date -u", "timedatectl status")
            self._fail(DATES, exc, commands=again, **told)
        elif exc := ends_soon(leaf, now=self._now, source=self._source, wish=self._config.renew_before):
            self._warn(DATES, exc, commands=self._renewal(exc), **told)
        else:
            left = f"{facts.days_left} days left" if facts.days_left > 1 else "less than two days left"
            seen = f"{subject_text(leaf)} is valid until {facts.not_after:%Y-%m-%d %H:%M} UTC, {left}"
            self._pass(DATES, seen, **told)

    def usage(self, leaf: x509.Certificate, facts: CertificateFacts) -> None:
        """Whether servers let it be a client's."""
        told: dict[str, Any] = {
            "purposes": list(facts.purposes),
            "key_usages": list(facts.key_usages),
            "is_ca": facts.is_ca,
        }
        if exc := _raised(lambda: check_usage(leaf, source=self._source)):
            self._fail(_USAGE, exc, commands=self._renewal(exc), **told)
            return
        remarks: list[IdentityError] = []
        if exc := _raised(lambda: remarks.extend(leaf_remarks(leaf, now=self._now, source=self._source))):
            self._fail(_USAGE, exc)
            return
        remarks = [remark for remark in remarks if remark.code is Code.CERTIFICATE_NOT_FOR_CLIENTS]
        for remark in remarks:
            self._warn(_USAGE, remark, commands=self._renewal(remark), **told)
        if not remarks:
            purposes = ", ".join(facts.purposes) or "any purpose"
            self._pass(_USAGE, f"{subject_text(leaf)} may be used by clients: {purposes}", **told)

    def strength(self, chain: Sequence[x509.Certificate], facts: CertificateFacts) -> None:
        """Signatures of all that is sent, but of roots, whose signature nobody looks at."""
        told: dict[str, Any] = {"key": facts.key, "signature": facts.signature}
        looked_at = [each for each in chain if each is chain[0] or not is_self_signed(each)]
        weak = [remark for each in looked_at if (remark := weak_signature(each, source=self._source))]
        for remark in weak:
            self._warn(_STRENGTH, remark, commands=self._renewal(remark), **told)
        if not weak:
            self._pass(_STRENGTH, f"{facts.key}, signed with {facts.signature}", **told)

    def chain(self, chain: Chain, path: Path, anchors: Anchors) -> None:
        """What goes along with the client's own, and what should."""
        subjects = [subject_text(each) for each in chain.certificates]
        told: dict[str, Any] = {"chain": subjects, "open_end": chain.open_end}
        troubles = len(self.findings)
        for remark in chain_remarks(chain.certificates, now=self._now, source=self._source):
            self._warn(_CHAIN, remark, commands=self._renewal(remark), **told)
        for issuer in chain.certificates[1:]:
            soon = ends_soon(issuer, now=self._now, source=self._source, wish=self._config.renew_before)
            if soon and self._now <= issuer.not_valid_after_utc:
                self._warn(_CHAIN, soon, commands=self._renewal(soon), **told)
        for gap in chain.gaps:
            error = IdentityError(
                Code.CHAIN_INCOMPLETE, f"{self._source}: {gap}", "append the certificate of that issuer to the file"
            )
            self._warn(_CHAIN, error, **told)
        missing = None if chain.gaps else missing_intermediate(chain.certificates, path, self._config, anchors)
        if missing is not None:
            self._warn(_CHAIN, missing.error, commands=missing.commands, missing=missing.issuer, **told)
        if len(self.findings) == troubles:
            order = "; mtlskit sends them in order, the file has them in another" if chain.reordered else ""
            end = "" if not chain.open_end else f"; the server has to know {chain.open_end}"
            self._pass(_CHAIN, f"{' ← '.join(subjects)}{end}{order}", **told)

    def _renewal(self, exc: IdentityError) -> tuple[str, ...]:
        return (self._renew,) if self._renew else (f"mtlskit certs show {shlex.quote(self._source)}",)

    def _compare(self) -> tuple[str, ...]:
        cert, key = (shlex.quote(str(path)) for path in (self._config.cert, self._config.key))
        return (f"mtlskit certs show {cert} --key {key}",)

    def _fail(
        self, check: str, exc: IdentityError, *, about: str = "", commands: tuple[str, ...] = (), **facts: Any
    ) -> None:
        self.findings.append(
            failed(Layer.IDENTITY, check, exc, about=about or self._source, commands=commands, **facts)
        )

    def _warn(self, check: str, exc: IdentityError, *, commands: tuple[str, ...] = (), **facts: Any) -> None:
        self.findings.append(warned(Layer.IDENTITY, check, exc, about=self._source, commands=commands, **facts))

    def _pass(self, check: str, seen: str, *, about: str = "", **facts: Any) -> None:
        self.findings.append(passed(Layer.IDENTITY, check, seen, about=about or self._source, **facts))


def _raised(check: Callable[[], None]) -> IdentityError | None:
    try:
        check()
    except IdentityError as exc:
        return exc
    return None

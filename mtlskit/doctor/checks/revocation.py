"""Whether our certificate, or the server's, is known to be revoked.

What lies on this host is looked at: the ledger of our own CA, revocation lists beside the files of the identity, and
what the audit log of the store says. Lists that a CA publishes are named and not fetched: its web server is no part of
the connection, and would learn who asks.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import trio
from cryptography import x509

from mtlskit.config.values import IssuerKind
from mtlskit.doctor.case import Case, Identified
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.doctor.identity.files import rotate_command
from mtlskit.doctor.identity.intermediates import neighbours
from mtlskit.doctor.identity.revocation_lists import List, Listed, lists_in, look_up, published_at
from mtlskit.errors import Code, IdentityError, MtlskitError, UpstreamUntrusted
from mtlskit.net.files import read_public
from mtlskit.net.identity import resolved
from mtlskit.pki.certificates import bounded_text, is_issued_by, load_certificates, serial_text, subject_text
from mtlskit.pki.identity import MAX_ANCHORS
from mtlskit.store.audit import read_audit
from mtlskit.store.authority_folder import LEDGER, AuthorityFolder

__all__ = ["look_for_revocation", "revoked_server"]

_CLIENT, _SERVER = "revocation.client", "revocation.server"


async def look_for_revocation(
    case: Case, identified: Identified, presented: Mapping[str, Sequence[x509.Certificate]]
) -> tuple[Finding, ...]:
    """Layer REVOCATION. `presented` are the chains of the servers, by where they were seen; the same leaf is told of
    once."""
    look = partial(_look, case, identified, presented)
    return await trio.to_thread.run_sync(look, abandon_on_cancel=True)


async def revoked_server(case: Case, chain: Sequence[x509.Certificate]) -> Finding | None:
    """What is to be said of a server that this host knows to be revoked; None of any other. Asks the disk alone."""
    return await trio.to_thread.run_sync(partial(_revoked_server, case, chain), abandon_on_cancel=True)


def _revoked_server(case: Case, chain: Sequence[x509.Certificate]) -> Finding | None:
    finding = _of_server(chain, _Here.gather(case), "") if chain else None
    return finding if finding is not None and finding.code is not None else None


def _look(
    case: Case, identified: Identified, presented: Mapping[str, Sequence[x509.Certificate]]
) -> tuple[Finding, ...]:
    here = _Here.gather(case)
    pair = identified.pair
    if case.identity is None:
        ours = skipped(Layer.REVOCATION, _CLIENT, "no certificate given")
    elif pair is None:
        ours = skipped(Layer.REVOCATION, _CLIENT, "identity")
    else:
        ours = _of_client(case, pair.chain, here)
    servers: dict[x509.Certificate, tuple[str, Sequence[x509.Certificate]]] = {}
    for where, chain in presented.items():
        if chain:
            servers.setdefault(chain[0], (where, chain))
    if not servers:
        return ours, skipped(Layer.REVOCATION, _SERVER, "tls.handshake")
    several = len(servers) > 1
    return ours, *(_of_server(chain, here, where if several else "") for where, chain in servers.values())


@dataclass(frozen=True)
class _Here:
    """What this host has that may tell."""

    lists: tuple[List, ...]
    authorities: tuple[x509.Certificate, ...]
    """CAs whose certificates lie near."""
    folders: tuple[AuthorityFolder, ...]
    """Our own CAs, with their ledgers."""

    @classmethod
    def gather(cls, case: Case) -> _Here:
        """Blocks on the disk."""
        config = case.tunnel.identity
        cert = config.cert
        with suppress(IdentityError):
            cert = resolved(config).cert
        near = [cert.parent] if case.identity is not None else []
        near += [each for each in (config.issuer.ca_dir, config.ca and config.ca.parent) if each is not None]
        folders = []
        for folder in dict.fromkeys(near):
            with suppress(MtlskitError, OSError):
                if (folder / LEDGER).is_file():
                    folders.append(AuthorityFolder.open(folder))
        authorities = [folder.certificate for folder in folders]
        if config.ca is not None:
            with suppress(IdentityError):
                content = read_public(config.ca, "CA file")
                authorities += load_certificates(content, source=str(config.ca), limit=MAX_ANCHORS)
        if case.identity is not None:
            authorities += [certificate for _, found in neighbours(cert) for certificate in found]
        return cls(lists_in(near), tuple(authorities), tuple(folders))


def _of_client(case: Case, chain: Sequence[x509.Certificate], here: _Here) -> Finding:
    leaf = chain[0]
    told = _in_audit(case, leaf) or _in_ledger(leaf, here.folders)
    if told is not None:
        return _revoked(case, leaf, *told)
    listed = look_up(leaf, here.lists, (*chain[1:], *here.authorities))
    for each in listed:
        if each.revoked_at is not None:
            return _revoked(case, leaf, _words(each), each.revoked_at, signed=each.signed)
    about = str(case.tunnel.identity.cert)
    for folder in here.folders:
        if is_issued_by(leaf, folder.certificate):
            seen = f"{subject_text(leaf)} is not revoked, says the ledger of {folder.folder}"
            return passed(Layer.REVOCATION, _CLIENT, seen, about=about, source=str(folder.folder))
    return _not_on(_CLIENT, leaf, listed, about)


def _of_server(chain: Sequence[x509.Certificate], here: _Here, about: str) -> Finding:
    leaf = chain[0]
    listed = look_up(leaf, here.lists, (*chain[1:], *here.authorities))
    told = _in_ledger(leaf, here.folders)
    for each in listed:
        if each.revoked_at is not None and told is None:
            told = _words(each), each.revoked_at
    if told is None:
        return _not_on(_SERVER, leaf, listed, about)
    words, at = told
    error = UpstreamUntrusted(
        Code.TLS_SERVER_CERTIFICATE_REVOKED,
        f"the server's certificate {subject_text(leaf)} was revoked on {at:%Y-%m-%d %H:%M} UTC, says {words}",
        "send no password there before whoever runs the server has replaced it: clients of TLS do not look at such"
        " lists by themselves, mtlskit neither",
    )
    return warned(Layer.REVOCATION, _SERVER, error, about=about, serial=serial_text(leaf), revoked_at=at.isoformat())


def _revoked(case: Case, leaf: x509.Certificate, words: str, at: datetime, *, signed: bool = True) -> Finding:
    config = case.tunnel.identity
    stored = config.issuer.kind is not IssuerKind.FILES
    error = IdentityError(
        Code.CERTIFICATE_REVOKED,
        f"{config.cert}: {subject_text(leaf)} was revoked on {at:%Y-%m-%d %H:%M} UTC, says {words}",
        "have a new certificate issued, and put it and its key in place of the old ones",
    )
    show = f"mtlskit certs show {shlex.quote(str(config.cert))}"
    commands = (rotate_command(config, case.config),) if stored else (show,)
    facts: dict[str, Any] = {"serial": serial_text(leaf), "revoked_at": at.isoformat(), "signature_checked": signed}
    # Anybody could have put a list there that nobody has signed.
    tell = failed if signed else warned
    return tell(Layer.REVOCATION, _CLIENT, error, about=str(config.cert), commands=commands, **facts)


def _not_on(check: str, leaf: x509.Certificate, listed: Sequence[Listed], about: str) -> Finding:
    """On none of the lists, or there is none. What was not asked is named."""
    urls = published_at(leaf)
    elsewhere = f"; what its CA publishes at {' and '.join(urls)} was not fetched" if urls else ""
    if not listed:
        seen = f"no revocation list of {bounded_text(leaf.issuer.rfc4514_string())} lies beside the files{elsewhere}"
        return skipped(Layer.REVOCATION, check, "no list at hand", about=about, seen=seen)
    newest = max(listed, key=lambda each: each.next_update.timestamp() if each.next_update else 0)
    until = f", good until {newest.next_update:%Y-%m-%d %H:%M} UTC" if newest.next_update else ""
    seen = f"{subject_text(leaf)} is not among the {newest.entries} on the list in {newest.path}{until}{elsewhere}"
    return passed(
        Layer.REVOCATION,
        check,
        seen,
        about=about,
        source=str(newest.path),
        entries=newest.entries,
        next_update=newest.next_update.isoformat() if newest.next_update else None,
        not_fetched=list(urls),
    )


def _words(listed: Listed) -> str:
    reason = f" ({listed.reason})" if listed.reason else ""
    unchecked = "" if listed.signed else ", whose signature could not be checked: the CA's certificate is not at hand"
    return f"the list in {listed.path}{reason}{unchecked}"


def _in_ledger(leaf: x509.Certificate, folders: Sequence[AuthorityFolder]) -> tuple[str, datetime] | None:
    for folder in folders:
        if not is_issued_by(leaf, folder.certificate):
            continue
        with suppress(MtlskitError, OSError):
            entry = folder.find(serial_text(leaf))
            if entry.revoked_at is not None:
                reason = f" ({entry.reason})" if entry.reason else ""
                return f"the ledger of the CA in {folder.folder}{reason}", entry.revoked_at
    return None


def _in_audit(case: Case, leaf: x509.Certificate) -> tuple[str, datetime] | None:
    """What was revoked by `mtlskit certs revoke`, or after a rotation."""
    config, store = case.tunnel.identity, case.config.store
    if config.issuer.kind is IssuerKind.FILES or store is None:
        return None
    with suppress(MtlskitError, OSError, ValueError):
        for record in reversed(read_audit(store)):
            same = (record.get("action"), record.get("serial")) == ("revoked", serial_text(leaf))
            if same and record.get("identity") == config.name:
                return f"the audit log of {store}", datetime.fromisoformat(str(record["time"]))
    return None

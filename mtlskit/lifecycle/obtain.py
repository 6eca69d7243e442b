"""The first half of a rotation: from nothing to a new version in the store, which nobody uses yet.

key      our key and request, among the pending files        (where the issuer does not make the key)
survey   what is there at the issuer's, before anything is asked for
request  ask for the certificate, or find the one that was asked for
stage    fetch it, check it, and add it to the store
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from mtlskit.config.values import IdentityConfig
from mtlskit.errors import Code, ConfigError, IdentityError
from mtlskit.issuers.base import Delivery, Withdrawn
from mtlskit.lifecycle.taking_back import current_of, origin_of
from mtlskit.lifecycle.work import REQUEST, Done, UselessRotation, Work
from mtlskit.net.files import read_passphrase_file, read_private, read_public
from mtlskit.pki.certificates import load_certificates, spki_sha256, subject_text
from mtlskit.pki.identity import CheckedPair, check_pair
from mtlskit.pki.keys import KeyType, generate_key, load_private_key, private_key_pem, spki_sha256_of_key
from mtlskit.pki.requests import Wishes, alternative_name, make_request, subject_name
from mtlskit.store.files import PUBLIC, write_file
from mtlskit.store.identities import KEY, Material, VersionFacts

__all__ = ["make_key", "passphrase_of", "request", "stage", "survey"]


async def make_key(work: Work) -> Done:
    """Our own key, and a request for it; what a killed run has made of them is kept."""
    if work.tools.issuer.makes_key or work.wanted.material is not None:
        return Done()
    identity = work.target.identity
    wishes = _wishes(identity)
    passphrase = passphrase_of(identity)
    folder = work.target.stored.make_pending(work.rotation.id)
    path = folder / KEY
    if not path.exists():
        made = generate_key(KeyType(identity.issuer.key_type))
        write_file(path, private_key_pem(made, passphrase))
    key = load_private_key(read_private(path, "private key"), source=str(path), passphrase=passphrase)
    write_file(folder / REQUEST, make_request(key, wishes), mode=PUBLIC, replace=True)
    pin = spki_sha256_of_key(key).hex()
    return Done(f"made a key ({identity.issuer.key_type}) and a request for it", {"spki_sha256": pin})


async def survey(work: Work) -> Done:
    """What the issuer has already, so that a repeated request finds its own."""
    if work.wanted.material is not None:
        return Done()
    return Done(facts={"found": dict(await work.tools.issuer.survey(work.order()))})


async def request(work: Work) -> Done:
    """Ask."""
    if work.wanted.material is not None:
        return Done()
    issuer = work.tools.issuer
    try:
        receipt = await issuer.request(work.order(), work.rotation.facts("survey").get("found", {}))
    except Withdrawn as exc:
        raise UselessRotation(exc) from exc
    kind = work.target.identity.issuer.kind
    return Done(f"asked {kind} for a certificate", {"receipt": dict(receipt)})


async def stage(work: Work) -> Done:
    """Fetch, check, and add to the store."""
    target = work.target
    if (made := target.stored.version_of(work.rotation.id)) is None:
        delivery = await _delivery(work)
        passphrase = passphrase_of(target.identity)
        ours = read_private(work.pending / KEY, "private key") if delivery.key_pem is None else None
        try:
            checked = _checked(work, delivery, ours, passphrase)
        except IdentityError as exc:
            wrong = _wrong(target.identity, exc)
            if exc.code is Code.CERTIFICATE_EXPIRED and _just_asked(work, delivery):
                hint = "it was issued just now, so this host's clock seems to be ahead: set it (`date -u` shows it)"
                raise IdentityError(wrong.code, wrong.sentence, hint) from exc
            if exc.code in _OUR_FAULTS:
                raise wrong from exc  # time will mend it, or whoever looks after this host
            raise UselessRotation(wrong) from exc
        for note in (*delivery.notes, *checked.pair.warnings):
            work.note(note)
        facts = _facts(work, checked.pair, delivery)
        roots = delivery.root_pem or _roots_in_use(work)
        made = target.stored.stage(Material(checked.pair.chain_pem, checked.key_pem, roots), facts)
    facts = made.facts
    until = facts.not_after[:16].replace("T", " ")
    told = f"staged version {made.number}: {facts.subject}, serial {facts.serial}, valid until {until} UTC"
    return Done(told, {"version": made.number, "serial": facts.serial, "remote_id": facts.remote_id})


def _roots_in_use(work: Work) -> bytes | None:
    """The server's CAs that came with an earlier version: they stay until others come."""
    current = current_of(work.target)
    return None if current is None or current.root is None else read_public(current.root, "CA file")


_FIRST_PAUSE = 1.0
"""Seconds to the second look; each pause is twice as long as the one before, up to the issuer's own."""

_OUR_FAULTS = frozenset({Code.CERTIFICATE_NOT_YET_VALID, Code.KEY_PASSPHRASE_WRONG, Code.KEY_ENCRYPTED})
"""What says nothing against the certificate: this host's clock is behind, or the passphrase is another one now."""


@dataclass(frozen=True)
class _Checked:
    pair: CheckedPair
    key_pem: bytes = field(repr=False)
    """As it is to be stored."""


def _just_asked(work: Work, delivery: Delivery) -> bool:
    """Whether less time has passed since the request than the certificate lasts: our clock is ahead then."""
    asked = work.rotation.facts("request").get("time")
    if not asked:
        return False
    leaf = load_certificates(delivery.cert_pem, source="the certificate")[0]
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    return work.tools.clock() - datetime.fromisoformat(str(asked)) < life


async def _delivery(work: Work) -> Delivery:
    if (given := work.wanted.material) is not None:
        return Delivery(given.cert_pem, given.key_pem, given.root_pem, ours=False)
    issuer, receipt = work.tools.issuer, work.rotation.facts("request").get("receipt", {})
    pause = _FIRST_PAUSE
    try:
        while (delivery := await issuer.fetch(work.order(), receipt)) is None:
            await work.pause(min(pause, issuer.pause), issuer.waiting_for(work.order(), receipt))
            pause *= 2
    except Withdrawn as exc:
        raise UselessRotation(exc) from exc
    return delivery


def _checked(work: Work, delivery: Delivery, ours: bytes | None, passphrase: bytes | None) -> _Checked:
    """The pair, good from now on; `ours` is our own key, if we made it. Raises IdentityError if it is none."""
    kind = work.target.identity.issuer.kind
    key_pem = ours or delivery.key_pem or b""
    pair = check_pair(
        delivery.cert_pem,
        key_pem,
        now=work.tools.clock(),
        cert_source=f"the certificate from {kind}",
        key_source=str(work.pending / KEY) if ours else f"the key from {kind}",
        passphrase=passphrase,
        strict=True,
    )
    return _Checked(pair, key_pem if ours else private_key_pem(pair.key, passphrase))


def _facts(work: Work, pair: CheckedPair, delivery: Delivery) -> VersionFacts:
    leaf = pair.leaf
    return VersionFacts(
        issuer=str(work.target.identity.issuer.kind),
        serial=pair.serial,
        subject=subject_text(leaf),
        not_before=_iso(leaf.not_valid_before_utc),
        not_after=_iso(leaf.not_valid_after_utc),
        spki_sha256=spki_sha256(leaf).hex(),
        created_at=_iso(work.tools.clock()),
        rotation=work.rotation.id,
        remote_id=delivery.remote_id,
        made_here=delivery.ours,
        origin=origin_of(work.target.identity),
        followed=delivery.followed,
    )


def _wishes(identity: IdentityConfig) -> Wishes:
    issuer = identity.issuer
    try:
        subject = subject_name(issuer.subject or f"CN={identity.name}")
        return Wishes(subject, tuple(alternative_name(text) for text in issuer.san))
    except ValueError as exc:
        raise ConfigError(
            Code.CONFIG_BAD_VALUE,
            f"[identity.{identity.name}]: subject or san cannot be used: {exc}",
            'write subject = "CN=reporting" and san = ["DNS:bi.example.com"]',
        ) from exc


def passphrase_of(identity: IdentityConfig) -> bytes | None:
    """The passphrase under which the identity's key is kept, if it has one. Raises IdentityError for its file."""
    if identity.passphrase_file is None:
        return None
    passphrase = read_passphrase_file(identity.passphrase_file)
    if not passphrase:
        raise IdentityError(
            Code.KEY_PASSPHRASE_WRONG,
            f"{identity.passphrase_file}: the first line is empty, and keys are to be kept under it",
            f"write the passphrase there, or leave passphrase_file out of [identity.{identity.name}]",
        )
    return passphrase


def _wrong(identity: IdentityConfig, exc: IdentityError) -> IdentityError:
    # The code stays: it says what is wrong with the certificate.
    return IdentityError(
        exc.code,
        f"{identity.name}: what {identity.issuer.kind} handed out cannot be used: {exc.sentence}",
        exc.hint,
    )


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")

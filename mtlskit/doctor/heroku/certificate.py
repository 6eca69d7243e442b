"""Whether Heroku still has the certificate that we present.

Heroku's list of a Postgres add-on's certificates has ids and ends, and no serials. The store knows the id of what it
has got from there; of a certificate that came another way, its end is compared, and only what that leaves no doubt
about is said. A Kafka add-on has one certificate, in its app's config vars, and that one can be compared as it is.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from mtlskit.doctor.case import Case, Identified
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped
from mtlskit.doctor.heroku.asking import Told
from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.values import AddonKind
from mtlskit.lifecycle.remote import FarCertificate, holdings
from mtlskit.pki.certificates import bounded_text
from mtlskit.pki.identity import CheckedPair

__all__ = ["certificate"]

_CHECK: Final = "heroku.certificate"
_NEAR: Final = timedelta(seconds=5)
"""The API's `expires_at` is told with a fraction of a second, and is that of its record, not read from the leaf."""
_ENDED: Final = ("disabling", "disabled")


def certificate(case: Case, identified: Identified, told: Told) -> Finding | None:
    """The finding about our certificate at this add-on. None where Heroku's list is not known."""
    if told.certificates is None or told.addon is None:
        return None
    if told.addon.kind is AddonKind.POSTGRES and told.endpoint is None:
        return skipped(Layer.HEROKU, _CHECK, "heroku.endpoint", about=told.name)
    pair = identified.pair
    if pair is None:
        return skipped(Layer.HEROKU, _CHECK, "identity", about=told.name)
    if told.addon.kind is AddonKind.KAFKA:
        return _of_kafka(case, pair, told, told.certificates)
    ours, how = _by_store(case, pair, told.certificates), "by the id that the store has"
    if ours is None:
        ours, how = _by_end(pair, told.certificates), "by its end"
    return _judged(case, pair, told, ours, told.certificates, how)


def _by_store(case: Case, pair: CheckedPair, far: list[FarCertificate]) -> list[FarCertificate] | None:
    """What the store knows our certificate as; an empty list: it knows its id, and Heroku does not. None: unknown."""
    if case.identity is None:
        return None
    held, _ = holdings(case.config, (case.identity,))
    ids = {key for key, known in held.items() if key != pair.serial and any(one.serial == pair.serial for one in known)}
    return [each for each in far if each.id in ids] if ids else None


def _by_end(pair: CheckedPair, far: list[FarCertificate]) -> list[FarCertificate] | None:
    """Those that end when ours does; None where there are none, or some that ended and some that did not."""
    near = [each for each in far if each.expires_at is not None and abs(each.expires_at - pair.not_after) <= _NEAR]
    return near if len({_ended(each) for each in near}) == 1 else None


def _ended(each: FarCertificate) -> bool:
    return each.status.casefold() in _ENDED


def _judged(
    case: Case, pair: CheckedPair, told: Told, ours: list[FarCertificate] | None, far: list[FarCertificate], how: str
) -> Finding:
    name, serial = told.name, pair.serial
    facts: dict[str, Any] = {"serial": serial, "listed": len(far), "in_force": sum(not _ended(each) for each in far)}
    if ours is None and any(not _ended(each) for each in far):
        return skipped(
            Layer.HEROKU,
            _CHECK,
            "the list has no serials",
            about=name,
            seen=f"which of the {len(far)} certificates that Heroku lists is ours (serial {serial}) cannot be told",
        )
    if ours and not _ended(ours[0]):
        each = ours[0]
        seen = (
            f"Heroku has our certificate (serial {serial}, {how}): {bounded_text(each.id)}, {bounded_text(each.status)}"
        )
        return passed(
            Layer.HEROKU, _CHECK, seen, about=name, id=bounded_text(each.id), status=bounded_text(each.status), **facts
        )
    if ours:
        words = f"Heroku has our certificate (serial {serial}, {how}) as {bounded_text(ours[0].status)}"
    elif ours is None:
        words = f"Heroku has no certificate of {name} in force, so not ours either (serial {serial})"
    else:
        words = f"Heroku does not list our certificate (serial {serial}, {how}) any more"
    return _gone(case, name, words, facts)


def _gone(case: Case, name: str, words: str, facts: dict[str, Any]) -> Finding:
    hint, commands = _another(case, name)
    error = HerokuError(Code.API_CERTIFICATE_GONE, f"{words}: {name} refuses it", hint)
    return failed(Layer.HEROKU, _CHECK, error, about=name, commands=commands, **facts)


def _another(case: Case, name: str) -> tuple[str, tuple[str, ...]]:
    """How to get another certificate, with what is set up."""
    identity = case.identity
    if identity is not None and identity.issuer.addon == name:
        return "it cannot be brought back: get another one", (f"mtlskit certs rotate {identity.name}",)
    hint = f'it cannot be brought back: with issuer = "heroku" and addon = "{name}" in its table `mtlskit certs rotate`'
    return f"{hint} gets another one, or download one", (f"mtlskit heroku status {name}",)


def _of_kafka(case: Case, pair: CheckedPair, told: Told, far: list[FarCertificate]) -> Finding:
    """The one in the config vars. Another one there means a reset, and ours has ended or is about to."""
    name, serial = told.name, pair.serial
    held = [each.serial for each in far if each.serial]
    if serial in held:
        seen = f"our certificate (serial {serial}) is the one in the config vars of {name}"
        return passed(Layer.HEROKU, _CHECK, seen, about=name, serial=serial)
    error = HerokuError(
        Code.API_CERTIFICATE_GONE,
        f"{name} has another certificate by now (serial {', '.join(held)}) than ours (serial {serial})",
        "its credentials were reset, which ends the old ones: take what the config vars hold now",
    )
    _, commands = _another(case, name)
    return failed(Layer.HEROKU, _CHECK, error, about=name, commands=commands, serial=serial, in_config_vars=held)

"""From a pasted text to what it means: the tables in order of how much they say, and the alerts of TLS.

A text often holds several errors: a vague one in the end, and the reason in the middle. So the tables are asked from
the precise to the vague, and the first answers are given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mtlskit.doctor.explain.at_the_door import AT_THE_DOOR
from mtlskit.doctor.explain.kafka import HUNG_UP, KAFKA, NO_BROKER
from mtlskit.doctor.explain.known import Explanation, Known
from mtlskit.doctor.explain.network import NETWORK
from mtlskit.doctor.explain.pages import advice
from mtlskit.doctor.explain.postgres import POSTGRES
from mtlskit.doctor.explain.tls import TLS
from mtlskit.errors import Code, DoctorError
from mtlskit.wire.alerts import ALERT_NUMBERS, meaning_of

__all__ = ["MOST_TEXT", "explain"]

MOST_TEXT: Final = 200_000
"""Characters that are looked at: a log of some thousand lines. The end of a longer one counts, where errors stand."""

_MOST_ANSWERS: Final = 3

_SAID_BY_NOT_RUNNING: Final = (Code.TCP_REFUSED,)
"""Where nothing listens on this host, this says the same in other words."""

_OURS: Final = re.compile(r"\bMTLS-[A-Z]{2,4}-\d{3}\b", re.IGNORECASE)

_OWN_HINT: Final = "what stands beside the code (HINT, hint:) is about your very case; and so is what the doctor sees"
_OWN_COMMANDS: Final = ("mtlskit doctor",)

_ALERTS: Final = (
    re.compile(r"SSL alert number (?P<number>\d{1,3})", re.IGNORECASE),
    re.compile(r"received fatal alert: (?P<name>\w+)", re.IGNORECASE),
    re.compile(r"(?:sslv3|tlsv1[0-3]?|ssl/tls)[ _]alert[ _](?P<words>[a-z]+(?:[ _][a-z]+){0,3})", re.IGNORECASE),
    re.compile(r"remote error: tls: (?P<go>[a-z][a-z ]{2,60})", re.IGNORECASE),
)
"""As OpenSSL, Java and Go write the alert that a peer has sent."""

_GO: Final = {
    "unknown certificate authority": "unknown_ca",
    "revoked certificate": "certificate_revoked",
    "expired certificate": "certificate_expired",
    "unknown certificate": "certificate_unknown",
    "protocol version not supported": "protocol_version",
    "error decrypting message": "decrypt_error",
    "insufficient security level": "insufficient_security",
}
"""crypto/tls names some alerts in words of its own; the others are the RFC's with spaces."""


def explain(text: str) -> tuple[Explanation, ...]:
    """What an error text means, the most telling first; at most three. Raises DoctorError (DOCTOR_NOT_UNDERSTOOD)."""
    looked_at = " ".join(text[-MOST_TEXT:].split())  # a terminal may have broken the lines
    found: list[Explanation] = [*_own_codes(looked_at)]
    found += _of((*AT_THE_DOOR, *POSTGRES, *KAFKA), looked_at)
    found += _alerts(looked_at)
    found += _of((*TLS, *HUNG_UP, *NETWORK, *NO_BROKER), looked_at)
    if any(each.code is Code.LOCAL_NOT_RUNNING for each in found):
        found = [each for each in found if each.code not in _SAID_BY_NOT_RUNNING]
    if any(each.code is not Code.KAFKA_BROKER_UNREACHABLE for each in found):
        found = [each for each in found if each.code is not Code.KAFKA_BROKER_UNREACHABLE]
    distinct = list({each.code: each for each in reversed(found)}.values())[::-1]
    if not distinct:
        raise DoctorError(
            Code.DOCTOR_NOT_UNDERSTOOD,
            "this text is not known: no error of libpq, JDBC, Kafka's clients, OpenSSL or a TLS library is in it",
            "paste the whole message, the lines above the last one too; or let `mtlskit doctor` look for itself",
        )
    return tuple(distinct[:_MOST_ANSWERS])


def _of(table: Iterable[Known], text: str) -> list[Explanation]:
    return [explanation for known in table if (explanation := known.explain(text))]


def _own_codes(text: str) -> list[Explanation]:
    """Codes of ours that stand in it: their sections say more than any table."""
    found = []
    for code in dict.fromkeys(match[0].upper() for match in _OURS.finditer(text)):
        if code in Code.__members__.values():
            told = Explanation(Code(code), f"mtlskit: {Code(code).name}", advice(Code(code)), _OWN_HINT, _OWN_COMMANDS)
            found.append(told)
    return found


def _alerts(text: str) -> list[Explanation]:
    found = []
    for pattern in _ALERTS:
        for match in pattern.finditer(text):
            name = _alert_name(match)
            meaning = meaning_of(f"TLSV1_ALERT_{name}") if name else None
            if meaning is not None:
                says = f"TLS: the server sent the alert {meaning.alert}"
                found.append(Explanation(meaning.code, says, meaning.sentence_part, meaning.hint, ("mtlskit doctor",)))
    return found


def _alert_name(match: re.Match[str]) -> str | None:
    groups = match.groupdict()
    if number := groups.get("number"):
        return ALERT_NUMBERS.get(int(number))
    if name := groups.get("name"):
        return name.lower()
    if words := groups.get("go"):
        go = words.strip().lower()
        return next((alert for said, alert in _GO.items() if go.startswith(said)), None) or _known(go.replace(" ", "_"))
    return _known(groups["words"].lower().replace(" ", "_"))


def _known(name: str) -> str | None:
    """The alert with which `name` begins: what follows belongs to the sentence."""
    fitting = [alert for alert in ALERT_NUMBERS.values() if name.startswith(alert)]
    return max(fitting, key=len, default=None)

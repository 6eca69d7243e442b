"""The whole catalogue, and the documentation's table: ``python -m tests.doctor.catalogue.everything`` prints it."""

from __future__ import annotations

from mtlskit.doctor.finding import Verdict
from tests.doctor.catalogue import (
    heroku,
    identity,
    kafka,
    kafka_space,
    local,
    network,
    network_kafka,
    postgres,
    tls,
    unseen,
)
from tests.doctor.catalogue.base import Fault

PARTS: dict[str, tuple[Fault, ...]] = {
    "Configuration, files, certificates, clock": identity.FAULTS,
    "The network, and who answers": (*network.FAULTS, *network_kafka.FAULTS),
    "TLS and the client certificate": tls.FAULTS,
    "Postgres": postgres.FAULTS,
    "Kafka": (*kafka.FAULTS, *kafka_space.FAULTS),
    "Heroku and the allowlist": heroku.FAULTS,
    "The local side": local.FAULTS,
    "Made up by somebody who had not read the doctor": unseen.FAULTS,
}


def table() -> str:
    """The page's part that is made from the catalogue: a table for each part."""
    return "\n".join(_part(title, faults) for title, faults in PARTS.items())


def _part(title: str, faults: tuple[Fault, ...]) -> str:
    rows = [f"| {_cell(fault.title)} | {_says(fault)} |" for fault in faults]
    return "\n".join([f"### {title}\n", "| What is wrong | What the doctor says first |", "|---|---|", *rows, ""])


def _says(fault: Fault) -> str:
    code = f"[{fault.code}](errors.md#{fault.code.value.lower()}-{fault.code.name.lower()})"
    return f"{code}, as a warning" if fault.verdict is Verdict.WARN else code


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(table())

"""What Heroku tells of a tunnel's upstream, and when it cannot be asked. A password is in none of these."""

from __future__ import annotations

from dataclasses import dataclass

from mtlskit.proxy.events.bases import OfTunnel, TunnelFailure

__all__ = ["AddonChanged", "AddonFound", "AddonKept", "AddonRecovered"]


@dataclass(frozen=True, kw_only=True)
class AddonFound(OfTunnel):
    """Heroku has told a tunnel, at its start, where its add-on is.

    `credential` is which of a Postgres add-on's has said so, `prefix` what names of topics and groups on a shared Kafka
    begin with; each is empty where there is none. `upstream` is of a Kafka add-on several, parted by `, `.
    """

    addon: str
    credential: str
    upstream: str
    prefix: str = ""

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.addon} is at {self.upstream}{_more(self.credential, self.prefix)}"


@dataclass(frozen=True, kw_only=True)
class AddonChanged(OfTunnel):
    """Heroku tells something else of an add-on; new sessions use it, those in flight go on. Fields as above."""

    addon: str
    credential: str
    changed: tuple[str, ...]
    """Of a Postgres add-on: which of host, port, database, user and password. Of a Kafka: of brokers and prefix."""
    upstream: str
    prefix: str = ""

    def sentence(self) -> str:
        changed = " and ".join(self.changed)
        return (
            f"{self.tunnel}: {changed} of {self.addon} changed; new sessions go to"
            f" {self.upstream}{_more(self.credential, self.prefix)}"
        )


def _more(credential: str, prefix: str) -> str:
    facts = (
        f"credential {credential}" if credential else "",
        f"names of topics and groups begin with {prefix}" if prefix else "",
    )
    told = ", ".join(fact for fact in facts if fact)
    return f" ({told})" if told else ""


@dataclass(frozen=True, kw_only=True)
class AddonKept(TunnelFailure):
    """Heroku cannot be asked, and what is known stays in use. Told once, until an answer comes again."""

    addon: str

    def sentence(self) -> str:
        return self._told(f"{self.addon} cannot be looked up, what is known of it stays in use: ")


@dataclass(frozen=True, kw_only=True)
class AddonRecovered(OfTunnel):
    """Heroku has answered again, after an `AddonKept`."""

    addon: str

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.addon} can be looked up again"

"""What Heroku tells of a tunnel's upstream, and when it cannot be asked. A password is in none of these."""

from __future__ import annotations

from dataclasses import dataclass

from mtlskit.proxy.events.bases import OfTunnel, TunnelFailure

__all__ = ["AddonChanged", "AddonFound", "AddonKept", "AddonRecovered"]


@dataclass(frozen=True, kw_only=True)
class AddonFound(OfTunnel):
    """An add-on's credential has told a tunnel, at its start, where to connect."""

    addon: str
    credential: str
    upstream: str

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.addon} is at {self.upstream} (credential {self.credential})"


@dataclass(frozen=True, kw_only=True)
class AddonChanged(OfTunnel):
    """An add-on's credential is another one now; new sessions use it, those in flight go on."""

    addon: str
    credential: str
    changed: tuple[str, ...]
    """Which of host, port, database, user and password."""
    upstream: str

    def sentence(self) -> str:
        changed = " and ".join(self.changed)
        return (
            f"{self.tunnel}: {changed} of {self.addon} (credential {self.credential}) changed; new sessions go to"
            f" {self.upstream}"
        )


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

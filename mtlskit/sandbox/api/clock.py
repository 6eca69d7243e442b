"""How long things take, and how times are written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["CERTIFICATE_LIFETIME", "Durations", "odd_time", "rfc3339", "utc_now"]

CERTIFICATE_LIFETIME = timedelta(days=365)


@dataclass(frozen=True)
class Durations:
    """What takes time, at Heroku's own pace."""

    endpoint: timedelta = timedelta(minutes=5)
    certificate: timedelta = timedelta(minutes=2)
    disable: timedelta = timedelta(minutes=1)
    """Of the endpoint, and of a certificate."""
    rule: timedelta = timedelta(minutes=10)
    recreate: timedelta = timedelta(minutes=2)
    """For how long a CIDR that was just deleted cannot be added again."""

    def sped_up(self, factor: float) -> Durations:
        """All of them, `factor` times as short. Raises ValueError for a factor that is not positive."""
        if not 0 < factor < float("inf"):
            raise ValueError(f"{factor} does not speed up anything: it must be a positive number")
        return Durations(
            self.endpoint / factor,
            self.certificate / factor,
            self.disable / factor,
            self.rule / factor,
            self.recreate / factor,
        )


def utc_now() -> datetime:
    """The clock of a running space."""
    return datetime.now(UTC)


def rfc3339(time: datetime) -> str:
    """The one form in which the API writes times."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def odd_time(time: datetime) -> str:
    """The other one."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S +0000")

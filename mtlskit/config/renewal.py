"""When a certificate is to be renewed, and how long one is to last: "30d", "12h", or "33%" of its life."""

from __future__ import annotations

import re

from mtlskit.config.durations import parse_duration
from mtlskit.config.values import RenewBefore
from mtlskit.errors import Code, ConfigError

__all__ = ["parse_lifetime", "parse_renew_before"]

_SHARE = re.compile(r"([0-9]{1,3})[ ]?%")
_RENEW_HINT = (
    'write how long before the end, such as "30d" or "12h", or how much of the life is left then, such as "33%"'
)
_LIFETIME_HINT = 'write a duration, such as "90d" or "12h"'


def parse_renew_before(value: str | float) -> RenewBefore:
    """Turn a duration or a share of the life (1 % to 99 %) into a `RenewBefore`.

    Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    if isinstance(value, str) and (share := _SHARE.fullmatch(value.strip())):
        percent = int(share[1])
        if not 1 <= percent <= 99:
            raise ConfigError(Code.CONFIG_BAD_VALUE, "a share of the life is from 1% to 99%", _RENEW_HINT)
        return RenewBefore(share=percent / 100)
    return RenewBefore(seconds=_with_unit(value, _RENEW_HINT))


def parse_lifetime(value: str | float) -> float:
    """Turn the life that a certificate is to have into seconds. Raises `ConfigError` (CONFIG_BAD_VALUE)."""
    return _with_unit(value, _LIFETIME_HINT)


def _with_unit(value: str | float, hint: str) -> float:
    """Seconds. Unlike a deadline, `30` alone is refused: days are meant, and seconds would never be renewed in time."""
    if not isinstance(value, str) or value.strip().replace(".", "", 1).isdigit():
        raise ConfigError(Code.CONFIG_BAD_VALUE, "the unit is missing", hint)
    try:
        return parse_duration(value)
    except ConfigError as exc:
        raise ConfigError(exc.code, exc.sentence, hint) from exc

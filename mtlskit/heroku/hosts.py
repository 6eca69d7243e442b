"""Which hosts a Heroku token belongs to: one predicate, asked right before each request is sent."""

from __future__ import annotations

import re
from typing import Final

import httpx

from mtlskit.config.reach import leads_here

__all__ = ["is_loopback", "token_belongs"]

DOMAINS: Final = ("heroku.com", "herokai.com", "herokuspace.com", "herokudev.com")
"""Heroku's own (facts: what its published API schema attaches the token to)."""


def is_loopback(url: httpx.URL) -> bool:
    """This machine: `localhost`, 127.0.0.0/8, ::1. Other names are not resolved to find out."""
    return leads_here(url.host)


def token_belongs(url: httpx.URL) -> bool:
    """Whether a token may be sent there: to Heroku over https, or to this machine (the sandbox).

    A URL with a user or password in it is refused: that would be a second set of credentials.
    """
    if url.userinfo:
        return False
    if is_loopback(url):
        return url.scheme in ("http", "https")
    host = url.raw_host.decode("ascii")
    # Not a backslash in it, say, which readers of URLs disagree about; nor a label that no resolver takes (RFC 1035).
    if len(host) > 253 or not re.fullmatch(r"(?:[a-z0-9-]{1,63}\.)+[a-z]+", host):
        return False
    return url.scheme == "https" and any(host == domain or host.endswith(f".{domain}") for domain in DOMAINS)

"""What an issuer is asked for, made by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mtlskit.issuers.base import Order
from mtlskit.pki.keys import generate_key, private_key_pem
from mtlskit.pki.requests import Wishes, make_request, subject_name

__all__ = ["Wanted", "wanted"]


@dataclass(frozen=True)
class Wanted:
    """An order with our own request, and the key that belongs to it."""

    order: Order
    key_pem: bytes


def wanted(folder: Path, rotation: str = "20260101T000000Z-00000000", *, name: str = "client") -> Wanted:
    """`folder` becomes the order's private one, with the request in it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    key = generate_key()
    request = make_request(key, Wishes(subject_name(f"CN={name}"), ()))
    (folder / "client.csr").write_bytes(request)
    return Wanted(Order(rotation, "reporting", folder, datetime.now(UTC), request), private_key_pem(key))

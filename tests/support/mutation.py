"""Good files made bad, for the fuzz tests of the readers; and what a reader may do with them."""

from __future__ import annotations

import base64
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mtlskit.errors import IdentityError

__all__ = ["FUZZ", "PIECES", "mutated", "mutated_inside", "survives"]

PIECES = [
    *(b"-----BEGIN ", b"-----END ", b"CERTIFICATE", b"PRIVATE KEY", b"-----", b"\n"),
    *(b"MIIB", b"=", b"Proc-Type: 4,ENCRYPTED", b"\\n", b" ", b"\x00\xff"),
]
# No deadline: the machine may be busy, and a slow example is no wrong one.
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of the originals with a few bytes changed, cut out, put in, or its end cut off."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 4))
        data[start:end] = draw(st.binary(max_size=4))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def der_of(pem: bytes) -> tuple[bytes, bytes, bytes]:
    head, *body, tail = pem.splitlines()
    return head, base64.b64decode(b"".join(body)), tail


@st.composite
def mutated_inside(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Proper PEM around damaged DER: it gets past the base64 and into the ASN.1."""
    head, der, tail = der_of(draw(st.sampled_from(originals)))
    damaged = bytearray(der)
    for _ in range(draw(st.integers(1, 3))):
        damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.integers(0, 255))
    return b"\n".join([head, base64.b64encode(bytes(damaged)), tail, b""])


def survives(action: Callable[[], object]) -> None:
    refusal: IdentityError | None = None
    try:
        action()
    except IdentityError as error:
        refusal = error
    if refusal is not None:
        assert refusal.sentence.isprintable()
        assert refusal.hint

"""SCRAM, under the name that the sandbox knows it by: it lives in `mtlskit.wire.postgres.scram`."""

from __future__ import annotations

from mtlskit.wire.postgres.scram import (
    CHANNEL_BINDING,
    SCRAM,
    SCRAM_PLUS,
    ScramClient,
    ScramError,
    ScramKeys,
    ScramServer,
    check_client_first,
    new_nonce,
    prepare_password,
    server_end_point,
)

__all__ = [
    "CHANNEL_BINDING",
    "SCRAM",
    "SCRAM_PLUS",
    "ScramClient",
    "ScramError",
    "ScramKeys",
    "ScramServer",
    "check_client_first",
    "new_nonce",
    "prepare_password",
    "server_end_point",
]

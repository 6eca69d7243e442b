"""Issuer `command`: a program gets the request on its standard input and prints the certificate chain.

It covers step-ca, Vault, and whatever a company has. Its answer is kept in the order's folder before anything else
happens, so that a rotation killed afterwards does not ask twice; one killed in between does, and the program can know
that by MTLSKIT_ROTATION, which is the same then.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mtlskit.errors import Code, RotationError
from mtlskit.issuers.base import Delivery, Facts, Order
from mtlskit.issuers.programs import ProgramFailed, run_program
from mtlskit.net.files import read_public
from mtlskit.store.files import write_file

__all__ = ["CommandIssuer"]

_ANSWER = "answer.pem"


class CommandIssuer:
    """Asks the program `argv`; `timeout` in seconds."""

    makes_key = False
    pause = 1.0

    def __init__(self, argv: Sequence[str], timeout: float) -> None:
        self._argv = tuple(argv)
        self._timeout = timeout

    async def survey(self, order: Order) -> Facts:
        """Nothing: what the program does is not known here."""
        return {}

    async def request(self, order: Order, before: Facts) -> Facts:
        """Run the program, unless its answer is there already. Raises `RotationError` (ISSUER_FAILED)."""
        answer = order.pending / _ANSWER
        if not answer.exists():
            variables = {"MTLSKIT_IDENTITY": order.identity, "MTLSKIT_ROTATION": order.rotation}
            try:
                ran = await run_program(
                    self._argv, stdin=order.request_pem or b"", variables=variables, seconds=self._timeout
                )
            except ProgramFailed as exc:
                raise RotationError(
                    Code.ISSUER_FAILED,
                    f"{order.identity}: no certificate: {exc}",
                    "run the command by hand; it gets the request on its standard input and prints the certificate"
                    f" chain as PEM: {order.pending / 'client.csr'}",
                ) from exc
            if b"-----BEGIN" not in ran.stdout:
                said = f"; it said: {ran.said}" if ran.said else ""
                raise RotationError(
                    Code.ISSUER_FAILED,
                    f"{order.identity}: no certificate: {self._argv[0]} ended well and printed no PEM{said}",
                    "the program is to print the certificate, and its issuers, on its standard output",
                )
            write_file(answer, ran.stdout)  # private: some programs print a key as well
        return {"answer": _ANSWER}

    async def find(self, order: Order, before: Facts) -> Facts | None:
        """Nothing: what the program has got is known to the program's own side, by MTLSKIT_ROTATION."""
        return None

    async def fetch(self, order: Order, receipt: Facts) -> Delivery | None:
        """What the program has printed. Raises `IdentityError` if it cannot be read."""
        return Delivery(read_public(order.pending / _ANSWER, "certificate that the command printed"))

    def waiting_for(self, order: Order, receipt: Facts) -> str:
        """Nothing is waited for: the program has answered."""
        return f"{self._argv[0]} has answered"

    async def revoke(self, serial: str, remote_id: str | None, *, now: datetime) -> str:
        """Refused: there is no command for it. Raises `RotationError` (ROTATION_REFUSED)."""
        raise RotationError(
            Code.ROTATION_REFUSED,
            f'serial {serial}: issuer "command" cannot revoke',
            "revoke it at the CA, with the CA's own tools",
        )

"""A client and a server that talk through the cores over a fake wire, in pieces of every size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mtlskit.wire.postgres import messages
from mtlskit.wire.postgres.login import BackendKeyReceived, ChannelBinding, LoginFinished, ServerLogin
from mtlskit.wire.postgres.startup import CancelRequested, EncryptionRequested, StartupReader, StartupReceived

KEY = messages.frame(b"K", b"\0\0\0\x2a" + b"secret-of-32-bytes-for-protocol32")


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def answer_startup(reader: StartupReader, sent: bytes, size: int) -> tuple[bytes, StartupReceived | CancelRequested]:
    """The proxy's part with a client: what it answers, and the packet that ends the start-up."""
    answers = b""
    for piece in in_pieces(sent, size):
        reader.receive(piece)
        while event := reader.next_event():
            if not isinstance(event, EncryptionRequested):
                return answers, event
            answers += messages.REFUSE_ENCRYPTION
    raise AssertionError("the client never finished its start-up")


def through(logins: list[ServerLogin], data: bytes, size: int) -> tuple[bytes, list[object]]:
    """Send the server's bytes through a row of cores; returns what the client gets, and the last core's events."""
    got, events = b"", list[object]()
    for piece in in_pieces(data, size):
        for login in logins:
            piece, told = login.receive(piece)
        got += piece
        events += told
    return got, events


@pytest.mark.parametrize("size", range(1, 60))
def test_a_plain_client_reaches_a_server_behind_a_gateway_that_adds_channel_binding(size: int) -> None:
    sent = messages.GSSENC_REQUEST + messages.SSL_REQUEST + messages.startup_message({"user": "ada"}, (3, 2))
    answers, startup = answer_startup(StartupReader(), sent, size)
    assert answers == b"NN"
    assert isinstance(startup, StartupReceived)

    at_the_server = StartupReader()  # the StartupMessage is forwarded as it came, and reads the same
    assert answer_startup(at_the_server, startup.packet, size) == (b"", startup)

    gateway, proxy = ServerLogin(ChannelBinding.ADD), ServerLogin(ChannelBinding.STRIP)
    offer = messages.authentication_sasl(["SCRAM-SHA-256"])
    at_the_proxy, _ = through([gateway], offer, size)
    assert at_the_proxy == messages.authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])
    assert through([proxy], at_the_proxy, size)[0] == offer

    choice = bytearray(messages.frame(b"p", b"SCRAM-SHA-256\0\0\0\0\x03n,,"))
    taken = messages.take_client_message(choice)
    assert taken is not None
    assert messages.parse_sasl_initial_response(taken).mechanism == "SCRAM-SHA-256"

    rest = messages.authentication_ok() + KEY + messages.frame(b"Z", b"I") + b"rows"
    got, events = through([gateway, proxy], rest, size)
    assert got == rest
    assert LoginFinished(ready=True, error=None) in events
    (key,) = [event for event in events if isinstance(event, BackendKeyReceived)]

    cancel = messages.cancel_request(key.process_id, key.secret)
    _, cancelled = answer_startup(StartupReader(), messages.SSL_REQUEST + cancel, size)
    assert cancelled == CancelRequested(key.process_id, key.secret, cancel)

"""The server's side of a login: each message, every split, and what Postgres cannot have sent."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.errors import Code, UpstreamProtocolError
from mtlskit.wire.postgres.login import (
    MAX_HELD,
    AuthenticationAccepted,
    AuthenticationRequested,
    BackendKeyReceived,
    ChannelBinding,
    LoginEvent,
    LoginFinished,
    MechanismsOffered,
    ServerLogin,
    VersionNegotiated,
)
from mtlskit.wire.postgres.messages import (
    ErrorFields,
    authentication_ok,
    authentication_sasl,
    authentication_sasl_continue,
    authentication_sasl_final,
    error_response,
    frame,
)

PLUS, SCRAM, OAUTH = "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER"
READY = frame(b"Z", b"I")
KEY = frame(b"K", struct.pack("!I", 4711) + b"\1\2\3\4")
STATUS = frame(b"S", b"server_version\x0018.4\0")
NOTICE = frame(b"N", b"SNOTICE\0Mhello\0\0")
VERSION = frame(b"v", struct.pack("!II", 0x30000, 1) + b"_pq_.greased\0")
REST = b"Z is no header here: the session has begun"


def server_says(mechanisms: list[str]) -> bytes:
    """A whole login of PostgreSQL 18 with SCRAM, and what follows it in the same read."""
    return b"".join(
        [
            VERSION,
            authentication_sasl(mechanisms),
            authentication_sasl_continue(b"r=abc,s=def,i=4096"),
            authentication_sasl_final(b"v=signature"),
            authentication_ok(),
            STATUS,
            NOTICE,
            KEY,
            READY,
            REST,
        ]
    )


def scram_events(before: tuple[str, ...], after: tuple[str, ...]) -> list[LoginEvent]:
    return [
        VersionNegotiated(0, ("_pq_.greased",)),
        MechanismsOffered(before, after),
        AuthenticationRequested(11),
        AuthenticationRequested(12),
        AuthenticationAccepted(),
        BackendKeyReceived(4711, b"\1\2\3\4"),
        LoginFinished(ready=True, error=None),
    ]


def run(login: ServerLogin, *pieces: bytes) -> tuple[bytes, list[LoginEvent], Code | None]:
    """Feed the pieces one by one: all that goes to the client, all events, and the code of the error that ended it."""
    forwarded, events = b"", list[LoginEvent]()
    try:
        for piece in pieces:
            out, told = login.receive(piece)
            forwarded += out
            events += told
    except UpstreamProtocolError as error:
        return forwarded + login.before_fault, [], error.code
    return forwarded, events, None


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


OFFERS = [
    (ChannelBinding.STRIP, (PLUS, SCRAM), (SCRAM,)),
    (ChannelBinding.STRIP, (SCRAM, PLUS, OAUTH), (SCRAM, OAUTH)),
    (ChannelBinding.STRIP, (SCRAM,), (SCRAM,)),
    (ChannelBinding.STRIP, ("SCRAM-SHA-512-PLUS", OAUTH), (OAUTH,)),
    (ChannelBinding.ADD, (SCRAM,), (PLUS, SCRAM)),
    (ChannelBinding.ADD, (OAUTH, SCRAM), (OAUTH, PLUS, SCRAM)),
    (ChannelBinding.ADD, (PLUS, SCRAM), (PLUS, SCRAM)),
    (ChannelBinding.ADD, (OAUTH,), (OAUTH,)),
    (ChannelBinding.KEEP, (PLUS, SCRAM), (PLUS, SCRAM)),
    (ChannelBinding.KEEP, (PLUS,), (PLUS,)),
]


@pytest.mark.parametrize(("binding", "before", "after"), OFFERS)
def test_the_offer_is_rewritten_at_every_split(
    binding: ChannelBinding, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    sent = server_says(list(before))
    expected = (server_says(list(after)), scram_events(before, after), None)
    assert run(ServerLogin(binding), sent) == expected
    assert run(ServerLogin(binding), *one_by_one(sent)) == expected
    for at in range(len(sent)):
        assert run(ServerLogin(binding), sent[:at], sent[at:]) == expected


def test_stripping_is_the_default() -> None:
    out, _ = ServerLogin().receive(authentication_sasl([PLUS, SCRAM]))
    assert out == authentication_sasl([SCRAM])


@pytest.mark.parametrize("code", [2, 3, 5, 6, 7, 8, 9, 11, 12])
def test_other_authentication_requests_pass(code: int) -> None:
    asked = frame(b"R", struct.pack("!I", code) + b"salt")
    sent = asked + authentication_ok() + READY
    expected: list[LoginEvent] = [
        AuthenticationRequested(code),
        AuthenticationAccepted(),
        LoginFinished(ready=True, error=None),
    ]
    assert run(ServerLogin(), sent) == (sent, expected, None)
    assert run(ServerLogin(), *one_by_one(sent)) == (sent, expected, None)


@pytest.mark.parametrize("secret", [b"abcd", b"s" * 32, b"l" * 256])
def test_the_backend_key_of_both_protocols_is_noted(secret: bytes) -> None:
    sent = frame(b"K", struct.pack("!I", 0xFFFF_FFFF) + secret)
    assert run(ServerLogin(), *one_by_one(sent)) == (sent, [BackendKeyReceived(0xFFFF_FFFF, secret)], None)


@pytest.mark.parametrize("version", [2, 0x30002])
def test_the_version_is_read_as_documented_and_as_sent(version: int) -> None:
    sent = frame(b"v", struct.pack("!II", version, 0))
    assert run(ServerLogin(), sent) == (sent, [VersionNegotiated(2, ())], None)


def test_an_error_response_ends_the_login() -> None:
    refusal = error_response(sqlstate="28P01", message="password authentication failed", hint="h")
    error = ErrorFields("FATAL", "28P01", "password authentication failed", "", "h")
    expected = (refusal + REST, [LoginFinished(ready=False, error=error)], None)
    for at in range(len(refusal + REST)):
        login = ServerLogin()
        assert run(login, (refusal + REST)[:at], (refusal + REST)[at:]) == expected
        assert login.finished


@pytest.mark.parametrize("sent", [b"E" + struct.pack("!I", 30_001) + b"Mlong", b"Ecould not fork new process\n\0"])
def test_a_refusal_too_long_to_read_passes_at_once(sent: bytes) -> None:
    expected: list[LoginEvent] = [LoginFinished(ready=False, error=None)]
    assert run(ServerLogin(), sent) == (sent, expected, None)
    assert run(ServerLogin(), *one_by_one(sent)) == (sent, expected, None)


def test_the_longest_refusal_that_is_read() -> None:
    login = ServerLogin()
    refusal = frame(b"E", b"M" + b"x" * (30_000 - 4 - 3) + b"\0\0")
    assert login.receive(refusal[:-1]) == (b"", [])  # MAX_HELD bytes are kept back
    assert len(refusal) - 1 == MAX_HELD
    out, (event,) = login.receive(refusal[-1:])
    assert out == refusal
    assert isinstance(event, LoginFinished)
    assert event.error is not None
    assert len(event.error.message) == 29_993


def test_after_the_login_bytes_pass_unchanged() -> None:
    login = ServerLogin()
    out, events = login.receive(memoryview(authentication_ok() + READY + REST))
    assert out == authentication_ok() + READY + REST
    assert events == [AuthenticationAccepted(), LoginFinished(ready=True, error=None)]
    assert login.finished
    assert not login.at_boundary
    assert login.receive(memoryview(REST)) == (REST, [])
    assert login.receive(b"R\0\0\0\0") == (b"R\0\0\0\0", [])


def test_passed_messages_are_not_held() -> None:
    login = ServerLogin()
    assert login.at_boundary
    assert login.receive(NOTICE[:4]) == (b"", [])
    assert login.at_boundary
    assert login.receive(NOTICE[4:7]) == (NOTICE[:7], [])  # from the header on, each byte goes through at once
    assert not login.at_boundary
    assert login.receive(NOTICE[7:] + READY[:2]) == (NOTICE[7:], [])
    assert login.at_boundary


def test_a_long_notice_passes_without_being_kept() -> None:
    sent = b"N" + struct.pack("!I", 4 + 1_000_000) + b"x" * 1_000_000
    login = ServerLogin()
    for at in range(0, len(sent), 65_536):
        assert login.receive(sent[at : at + 65_536]) == (sent[at : at + 65_536], [])


def test_only_channel_binding_is_an_error_with_a_way_out() -> None:
    login = ServerLogin()
    with pytest.raises(UpstreamProtocolError, match="only SCRAM-SHA-256-PLUS") as caught:
        login.receive(STATUS + authentication_sasl([PLUS]))
    assert caught.value.code is Code.PG_ONLY_CHANNEL_BINDING
    assert "SCRAM-SHA-256 as well" in caught.value.hint
    assert login.before_fault == STATUS  # what was good is not lost
    assert login.at_boundary
    with pytest.raises(UpstreamProtocolError) as again:
        login.receive(READY)
    assert again.value.code is Code.PG_ONLY_CHANNEL_BINDING


def header(kind: bytes, length: int) -> bytes:
    return kind + struct.pack("!I", length)


RUBBISH = {
    "another protocol": b"HTTP/",
    "SSH": b"SSH-2",
    "a message of a running session": header(b"T", 30),
    "authentication too short": header(b"R", 7),
    "authentication too long": header(b"R", 65_544),
    "a long AuthenticationOk": header(b"R", 9) + bytes(4),
    "a long AuthenticationSASL": header(b"R", 2_001) + struct.pack("!I", 10),
    "AuthenticationSASL without a list": header(b"R", 8) + struct.pack("!I", 10),
    "an empty list": authentication_sasl([]),
    "a list without its end": frame(b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0"),
    "a name without its end": frame(b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256"),
    "something after the list": frame(b"R", struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0x\0"),
    "an empty name": frame(b"R", struct.pack("!I", 10) + b"\0SCRAM-SHA-256\0\0"),
    "a name that would break the line": authentication_sasl(["SCRAM\n"]),
    "a short key": header(b"K", 11),
    "a long key": header(b"K", 265),
    "ReadyForQuery too long": header(b"Z", 6),
    "ReadyForQuery too short": header(b"Z", 4),
    "an error without a body": header(b"E", 4),
    "a long parameter": header(b"S", 30_001),
    "a notice as long as text": header(b"N", 0x0100_0000),
    "a version too short": header(b"v", 11),
    "a version too long": header(b"v", 2_001),
    "fewer options than said": frame(b"v", struct.pack("!II", 0, 2) + b"_pq_.a\0"),
    "an option without its end": frame(b"v", struct.pack("!II", 0, 1) + b"_pq_.a\0_"),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_what_postgres_cannot_have_sent(name: str) -> None:
    sent = RUBBISH[name]
    expected: tuple[bytes, list[LoginEvent], Code] = (STATUS, [], Code.PG_SERVER_RUBBISH)
    assert run(ServerLogin(), STATUS + sent) == expected
    assert run(ServerLogin(), *one_by_one(STATUS + sent)) == expected
    assert run(ServerLogin(), STATUS + sent[:-1])[2] is None  # told with the very byte that settles it


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "it is an HTTP server (HTTP/1.1 400)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it is an SSH server (SSH-2.0-OpenSSH_9.2)"),
        (header(b"H", 30), 'a message of type "H", which has no place'),
        (header(b"\x16", 30), "a message of type 0x16, which has no place"),
        (header(b"Z", 6), 'a message of type "Z" with an impossible length of 6 bytes'),
    ],
)
def test_what_it_was_is_said_as_people_write_it(sent: bytes, said: str) -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        ServerLogin().receive(sent)
    assert said in caught.value.sentence


def test_order_is_not_judged() -> None:
    sent = KEY + STATUS + authentication_ok() + frame(b"A", struct.pack("!I", 1) + b"c\0p\0") + READY
    assert run(ServerLogin(), sent)[0] == sent


MESSAGES = st.sampled_from(
    [
        authentication_ok(),
        authentication_sasl([PLUS, SCRAM]),
        authentication_sasl([PLUS]),
        authentication_sasl_continue(b"r=abc"),
        STATUS,
        NOTICE,
        KEY,
        VERSION,
        READY,
        error_response(sqlstate="28000", message="no"),
    ]
)
STREAMS = st.lists(MESSAGES | MESSAGES | MESSAGES | st.binary(max_size=12), max_size=8).map(b"".join)


@given(STREAMS, st.sampled_from(ChannelBinding), st.data())
def test_splits_never_change_the_outcome(stream: bytes, binding: ChannelBinding, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert run(ServerLogin(binding), *pieces) == run(ServerLogin(binding), stream)


@given(STREAMS)
def test_keeping_forwards_every_byte_and_holds_little(stream: bytes) -> None:
    login = ServerLogin(ChannelBinding.KEEP)
    forwarded, _, code = run(login, *one_by_one(stream))
    assert stream.startswith(forwarded)
    assert code or len(stream) - len(forwarded) <= MAX_HELD


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_rubbish_raises_nothing_but_our_errors(pieces: list[bytes]) -> None:
    forwarded, _, code = run(ServerLogin(), *pieces)  # any other exception would come out of it
    assert len(forwarded) <= sum(map(len, pieces))
    assert code in (None, Code.PG_SERVER_RUBBISH, Code.PG_ONLY_CHANNEL_BINDING)

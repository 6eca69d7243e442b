"""A login that we make ourselves, against a server that is played by the test."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.errors import Code, UpstreamError
from mtlskit.wire.postgres.authenticator import Authenticator, Derive, Send, Step, startup_as
from mtlskit.wire.postgres.messages import (
    MAX_STARTUP_PACKET,
    Message,
    authentication_ok,
    authentication_sasl,
    authentication_sasl_continue,
    authentication_sasl_final,
    error_response,
    frame,
    parse_sasl_initial_response,
    startup_message,
    take_client_message,
)
from mtlskit.wire.postgres.scram import SCRAM, SCRAM_PLUS, ScramKeys, ScramServer
from mtlskit.wire.postgres.startup import StartupReader, StartupReceived

PASSWORD = "pencil"
KEYS = ScramKeys.derive(PASSWORD, b"salt" * 4, 1)
BINDING = b"\x01" * 32
NOTICE = frame(b"N", b"SWARNING\0Mhello\0\0")
NEGOTIATE = frame(b"v", struct.pack("!II", 0, 0))
READY = frame(b"Z", b"I")
PLAIN = authentication_sasl([SCRAM])
BOTH = authentication_sasl([SCRAM_PLUS, SCRAM])


def sent(step: Step) -> Message:
    assert isinstance(step, Send)
    message = take_client_message(bytearray(step.data))
    assert message is not None
    return message


def opened(
    authenticator: Authenticator, offer: bytes = PLAIN, *, binding: bytes | None = None
) -> tuple[ScramServer, bytes]:
    """The conversation up to the server's challenge, which is returned with the server."""
    [step] = authenticator.receive(offer)
    response = parse_sasl_initial_response(sent(step))
    server = ScramServer(KEYS, plus=response.mechanism == SCRAM_PLUS, binding=binding)
    return server, authentication_sasl_continue(server.first(response.data or b""))


def proven(authenticator: Authenticator, server: ScramServer, challenge: bytes) -> bytes:
    """The answer to the challenge, and what the server makes of it."""
    [step] = authenticator.receive(challenge)
    assert isinstance(step, Derive)
    assert (step.salt, step.iterations) == (KEYS.salt, KEYS.iterations)
    derived = ScramKeys.derive(PASSWORD, step.salt, step.iterations)
    return authentication_sasl_final(server.final(sent(Send(authenticator.prove(derived))).body))


@pytest.mark.parametrize(
    ("offer", "ours", "theirs", "mechanism", "flag"),
    [
        (BOTH, BINDING, BINDING, SCRAM_PLUS, b"p=tls-server-end-point,,"),
        (BOTH, None, BINDING, SCRAM, b"n,,"),  # a certificate that cannot be bound to
        (PLAIN, BINDING, None, SCRAM, b"y,,"),  # as libpq: we could have
        (PLAIN, None, None, SCRAM, b"n,,"),
    ],
)
def test_a_whole_login(offer: bytes, ours: bytes | None, theirs: bytes | None, mechanism: str, flag: bytes) -> None:
    watched = Authenticator(binding=ours)
    response = parse_sasl_initial_response(sent(watched.receive(offer)[0]))
    assert (response.mechanism, (response.data or b"").startswith(flag)) == (mechanism, True)

    authenticator = Authenticator(binding=ours)
    outcome = proven(authenticator, *opened(authenticator, offer, binding=theirs))
    assert authenticator.receive(outcome) == []
    assert (authenticator.passed, authenticator.finished) == (b"", False)
    assert authenticator.receive(authentication_ok() + READY) == []
    assert (authenticator.passed, authenticator.finished) == (authentication_ok() + READY, True)


def test_what_comes_before_the_welcome_is_the_clients_with_it() -> None:
    authenticator = Authenticator(binding=None)
    server, challenge = opened(authenticator, NEGOTIATE + PLAIN)
    outcome = proven(authenticator, server, NOTICE + challenge)
    assert authenticator.receive(NOTICE + outcome) == []
    assert authenticator.passed == b""
    assert authenticator.receive(authentication_ok()) == []
    assert authenticator.passed == NEGOTIATE + NOTICE + NOTICE + authentication_ok()


def test_a_server_that_asks_for_nothing() -> None:
    authenticator = Authenticator(binding=None)
    assert authenticator.receive(authentication_ok()) == []
    assert authenticator.passed == authentication_ok()


@pytest.mark.parametrize("when", range(3))
def test_a_refusal_is_the_clients_at_any_time(when: int) -> None:
    refusal = error_response(sqlstate="28P01", message="no")
    authenticator = Authenticator(binding=None)
    if when:
        server, challenge = opened(authenticator)
        if when == 2:
            proven(authenticator, server, challenge)
    assert authenticator.receive(refusal[:5]) == []
    assert (authenticator.finished, authenticator.passed) == (True, refusal[:5])


@given(st.data())
def test_how_the_bytes_are_split_changes_nothing(data: st.DataObject) -> None:
    authenticator = Authenticator(binding=None)

    def fed(stream: bytes) -> list[Step]:
        steps, passed = list[Step](), b""
        while stream:
            count = data.draw(st.integers(1, len(stream)))
            steps += authenticator.receive(stream[:count])
            passed += authenticator.passed
            stream = stream[count:]
            if authenticator.finished:
                break
        assert passed + stream == (expected if authenticator.finished else b"")
        return steps

    expected = b""
    [first] = fed(PLAIN)
    server = ScramServer(KEYS, plus=False, binding=None)
    [derive] = fed(authentication_sasl_continue(server.first(parse_sasl_initial_response(sent(first)).data or b"")))
    assert isinstance(derive, Derive)
    outcome = server.final(sent(Send(authenticator.prove(KEYS))).body)
    expected = authentication_ok() + READY
    assert fed(authentication_sasl_final(outcome) + expected) == []


def refused(authenticator: Authenticator, data: bytes) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        authenticator.receive(data)
    assert not authenticator.finished
    assert authenticator.passed == b""
    return caught.value


@pytest.mark.parametrize("code", [2, 3, 5, 6, 7, 9])
def test_other_methods_get_nothing(code: int) -> None:
    error = refused(Authenticator(binding=None), frame(b"R", struct.pack("!I", code) + b"salt"))
    assert error.code is Code.PG_LOGIN_METHOD


@pytest.mark.parametrize(
    ("offer", "shown"),
    [
        (authentication_sasl(["OAUTHBEARER"]), "OAUTHBEARER"),
        (authentication_sasl([SCRAM_PLUS]), SCRAM_PLUS),  # and our side has nothing to bind to
        (authentication_sasl([]), "no mechanism"),
        (frame(b"R", b"\0\0\0\x0aA\x1b[2J\n\xff\0\0"), "for A\\x1b[2J\\n\\xff, and"),
        (authentication_sasl(["x" * 4_000]), f"for {'x' * 200}, and"),
    ],
)
def test_other_mechanisms_get_nothing(offer: bytes, shown: str) -> None:
    error = refused(Authenticator(binding=None), offer)
    assert (error.code, shown in error.sentence) == (Code.PG_LOGIN_METHOD, True)


@pytest.mark.parametrize("late", [authentication_ok(), frame(b"R", struct.pack("!I", 3)), PLAIN])
@pytest.mark.parametrize("when", range(3))
def test_a_server_that_leaves_its_proof_out_is_refused(late: bytes, when: int) -> None:
    authenticator = Authenticator(binding=None)
    server, challenge = opened(authenticator)
    if when == 1:
        authenticator.receive(challenge)
    if when == 2:
        proven(authenticator, server, challenge)
    wanted = Code.PG_SERVER_UNPROVEN if late == authentication_ok() else Code.PG_LOGIN_METHOD
    assert refused(authenticator, late).code is wanted


@pytest.mark.parametrize("outcome", [b"v=AAAA", b"e=other-error", b"", b"v=%"])
def test_a_server_that_does_not_know_the_password_is_refused(outcome: bytes) -> None:
    authenticator = Authenticator(binding=None)
    proven(authenticator, *opened(authenticator))
    assert refused(authenticator, authentication_sasl_final(outcome)).code is Code.PG_SERVER_UNPROVEN


@pytest.mark.parametrize(
    "data",
    [
        frame(b"S", b"a\0b\0"),  # before AuthenticationOk
        frame(b"R", b""),
        b"R" + struct.pack("!I", 4_201),
        b"N" + struct.pack("!I", 30_001),
        b"N" + struct.pack("!I", 3),
        authentication_sasl_continue(b"r=x"),  # nothing was offered
        authentication_sasl_final(b"v="),
        frame(b"R", struct.pack("!I", 99)),
    ],
)
def test_rubbish_is_refused(data: bytes) -> None:
    assert refused(Authenticator(binding=None), data).code is Code.PG_SERVER_RUBBISH


@pytest.mark.parametrize("challenge", [b"", b"r=abc,s=AAAA,i=1", b"r=abcx,s=AAAA,i=1000001", b"e=unknown-user"])
def test_a_challenge_that_plays_false_is_refused(challenge: bytes) -> None:
    authenticator = Authenticator(binding=None, nonce="abc")
    authenticator.receive(PLAIN)
    error = refused(authenticator, authentication_sasl_continue(challenge))
    assert (error.code, error.sentence[-1] != ".") == (Code.PG_SERVER_RUBBISH, True)


def test_an_extension_that_must_be_understood_is_refused() -> None:
    authenticator = Authenticator(binding=None, nonce="abc")
    authenticator.receive(PLAIN)
    error = refused(authenticator, authentication_sasl_continue(b"r=abcx,s=AAAA,i=1,m=x"))
    assert error.sentence.startswith("the server sent a SCRAM message with an extension")


@pytest.mark.parametrize("early", [None, authentication_sasl_final(b"v=")])
def test_nothing_may_come_before_our_proof(early: bytes | None) -> None:
    authenticator = Authenticator(binding=None)
    _, challenge = opened(authenticator)
    authenticator.receive(challenge)
    assert refused(authenticator, early or challenge).code is Code.PG_SERVER_RUBBISH


def test_a_flood_of_notices_is_refused() -> None:
    authenticator = Authenticator(binding=None)
    notice = frame(b"N", bytes(29_990))
    assert authenticator.receive(notice * 2) == []
    assert refused(authenticator, notice).code is Code.PG_SERVER_RUBBISH


# The StartupMessage.


def opening(**parameters: str) -> StartupReceived:
    reader = StartupReader()
    reader.receive(startup_message(parameters, (3, 2)))
    event = reader.next_event()
    assert isinstance(event, StartupReceived)
    return event


@pytest.mark.parametrize(
    ("named", "database"),
    [
        ({"user": "ann"}, "d4f8"),
        ({"user": "ann", "database": "ann"}, "d4f8"),  # libpq's default
        ({"user": "ann", "database": ""}, "d4f8"),
        ({"user": "ann", "database": "sales"}, "sales"),
        ({"database": "sales"}, "sales"),
        ({"application_name": "bi"}, "d4f8"),
    ],
)
def test_whose_database_it_is(named: dict[str, str], database: str) -> None:
    chosen, packet = startup_as(opening(**named), user="u17", database="d4f8")
    reader = StartupReader()
    reader.receive(packet)
    event = reader.next_event()
    assert isinstance(event, StartupReceived)
    assert chosen == database
    assert event.version == (3, 2)
    assert event.parameters == named | {"user": "u17", "database": database}


def test_parameters_keep_their_bytes() -> None:
    odd = b"\xff\xfe".decode("utf-8", "surrogateescape")
    _, packet = startup_as(opening(user="a", application_name=odd), user="u17", database="d4f8")
    assert b"application_name\0\xff\xfe\0" in packet
    assert len(packet) < MAX_STARTUP_PACKET

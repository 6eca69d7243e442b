"""Texts that clients print, and what the doctor makes of each: the first answer is the one that counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.doctor.explain.pages import advice, place
from mtlskit.doctor.explain.recognise import MOST_TEXT, explain
from mtlskit.errors import Code, DoctorError

LIBPQ = (
    (
        'connection to server at "127.0.0.1", port 6432 failed: Connection refused\n'
        "\tIs the server running on that host and accepting TCP/IP connections?",
        Code.LOCAL_NOT_RUNNING,
    ),
    (
        'psql: error: connection to server at "localhost" (::1), port 6432 failed: Connection refused',
        Code.LOCAL_NOT_RUNNING,
    ),
    ('connection to server at "db.example.com" (203.0.113.9), port 5432 failed: Connection refused', Code.TCP_REFUSED),
    ('could not translate host name "db.exmaple.com" to address: Name or service not known', Code.DNS_FAILED),
    ('connection to server at "db.example.com" (203.0.113.9), port 5432 failed: timeout expired', Code.TCP_TIMEOUT),
    ("server does not support SSL, but SSL was required", Code.LOCAL_CLIENT_INSISTS),
    ("channel binding required, but SSL not in use", Code.LOCAL_CLIENT_INSISTS),
    (
        "channel binding is required, but server did not offer an authentication method that supports channel binding",
        Code.LOCAL_CLIENT_INSISTS,
    ),
    (
        "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection",
        Code.LOCAL_CLIENT_INSISTS,
    ),
    ('FATAL:  password authentication failed for user "tableau"', Code.PG_LOGIN_REFUSED),
    ("fe_sendauth: no password supplied", Code.PG_LOGIN_REFUSED),
    (
        'FATAL:  no pg_hba.conf entry for host "10.1.2.3", user "tableau", database "sales", SSL encryption',
        Code.PG_NOT_LET_IN,
    ),
    (
        'FATAL:  no pg_hba.conf entry for host "10.1.2.3", user "tableau", database "sales", no encryption',
        Code.PG_NOT_LET_IN,
    ),
    ('FATAL:  database "sales" does not exist', Code.PG_NO_DATABASE),
    ('FATAL:  permission denied for database "sales"', Code.PG_NO_DATABASE),
    ("FATAL:  sorry, too many clients already", Code.PG_FULL),
    (
        "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
        Code.PG_FULL,
    ),
    ('FATAL:  too many connections for role "tableau"', Code.PG_FULL),
    ("FATAL:  the database system is starting up", Code.PG_NOT_READY),
    ("FATAL:  connection requires a valid client certificate", Code.TLS_CLIENT_CERTIFICATE_REQUIRED),
    ('FATAL:  certificate authentication failed for user "tableau"', Code.PG_NOT_LET_IN),
    ("SSL error: tlsv1 alert unknown ca", Code.TLS_CLIENT_CA_UNKNOWN),
    ("SSL error: tlsv13 alert certificate required", Code.TLS_CLIENT_CERTIFICATE_REQUIRED),
    ("SSL error: ssl/tls alert certificate revoked", Code.TLS_CLIENT_CERTIFICATE_REVOKED),
    ("SSL error: sslv3 alert certificate expired", Code.TLS_CLIENT_CERTIFICATE_EXPIRED),
    ("SSL error: tlsv1 alert protocol version", Code.TLS_VERSION),
    ("SSL error: certificate verify failed", Code.TLS_CHAIN_NOT_TRUSTED),
    ('server certificate for "a.example.com" does not match host name "b.example.com"', Code.TLS_NAME_MISMATCH),
    ('root certificate file "/home/me/.postgresql/root.crt" does not exist', Code.FILE_MISSING),
    ('private key file "client.key" has group or world access; file must have permissions u=rw', Code.KEY_EXPOSED),
    ('could not load private key file "client.key": key values mismatch', Code.KEY_MISMATCH),
    ("received invalid response to SSL negotiation: H", Code.TLS_UNKNOWN_ANSWER),
    ("server closed the connection unexpectedly\n\tThis probably means the server terminated", Code.UPSTREAM_CLOSED),
    ("SSL SYSCALL error: Connection reset by peer", Code.TCP_RESET),
    ("SSL SYSCALL error: EOF detected", Code.UPSTREAM_CLOSED),
    (
        'connection to server on socket "/var/run/postgresql/.s.PGSQL.5432" failed: No such file or directory',
        Code.LOCAL_NOT_RUNNING,
    ),
)

JAVA = (
    ("org.postgresql.util.PSQLException: The server does not support SSL.", Code.LOCAL_CLIENT_INSISTS),
    (
        "org.postgresql.util.PSQLException: Connection to localhost:6432 refused. Check that the hostname and port are"
        " correct and that the postmaster is accepting TCP/IP connections.",
        Code.LOCAL_NOT_RUNNING,
    ),
    ("The connection attempt failed.\nCaused by: java.net.UnknownHostException: db.exmaple.com", Code.DNS_FAILED),
    ("The connection attempt failed. Caused by: java.net.SocketTimeoutException: Connect timed out", Code.TCP_TIMEOUT),
    (
        "SSL error: PKIX path building failed: sun.security.provider.certpath.SunCertPathBuilderException: unable to"
        " find valid certification path to requested target",
        Code.TLS_CHAIN_NOT_TRUSTED,
    ),
    (
        "The hostname db.example.com could not be verified by hostnameverifier PgjdbcHostnameVerifier.",
        Code.TLS_NAME_MISMATCH,
    ),
    (
        "javax.net.ssl.SSLHandshakeException: Received fatal alert: certificate_required",
        Code.TLS_CLIENT_CERTIFICATE_REQUIRED,
    ),
    ("javax.net.ssl.SSLHandshakeException: Received fatal alert: unknown_ca", Code.TLS_CLIENT_CA_UNKNOWN),
    (
        "java.security.cert.CertificateException: No subject alternative DNS name matching db.example.com found.",
        Code.TLS_NAME_MISMATCH,
    ),
    ("java.security.cert.CertificateExpiredException: NotAfter: Tue Nov 03 10:00:00 UTC 2026", Code.TLS_SERVER_EXPIRED),
    ("javax.net.ssl.SSLException: Unrecognized SSL message, plaintext connection?", Code.TLS_HANDSHAKE_FAILED),
    (
        "[Producer clientId=p] Connection to node -1 (localhost/127.0.0.1:9092) could not be established. Node may not"
        " be available.",
        Code.LOCAL_NOT_RUNNING,
    ),
    (
        "[AdminClient clientId=a] Connection to node 1 (b1.example.com/203.0.113.4:9096) terminated during"
        " authentication. This may happen due to any of the following reasons: (1) Firewall blocking Kafka TLS traffic"
        " (eg it may only allow HTTPS traffic), (2) Transient network issue.",
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
    ),
    (
        "org.apache.kafka.common.errors.TopicAuthorizationException: Not authorized to access topics: [orders]",
        Code.KAFKA_NOT_AUTHORIZED,
    ),
    ("GroupAuthorizationException: Not authorized to access group: g", Code.KAFKA_NOT_AUTHORIZED),
    (
        "java.util.concurrent.TimeoutException: Timed out waiting for a node assignment. Call: listTopics",
        Code.KAFKA_BROKER_UNREACHABLE,
    ),
    (
        "java.lang.OutOfMemoryError: Java heap space\n\tat java.nio.HeapByteBuffer.<init>\n\tat"
        " org.apache.kafka.common.network.NetworkReceive.readFrom",
        Code.KAFKA_SERVER_SPEAKS_TLS,
    ),
    ("InvalidReceiveException: Invalid receive (size = 352518912 larger than 104857600)", Code.KAFKA_SERVER_SPEAKS_TLS),
    ("TimeoutException: Topic orders not present in metadata after 60000 ms.", Code.KAFKA_NOT_AUTHORIZED),
    ("ConfigException: No resolvable bootstrap urls given in bootstrap.servers", Code.DNS_FAILED),
)

LIBRDKAFKA = (
    (
        "%3|1|FAIL|c#producer-1| [thrd:localhost:9092/bootstrap]: localhost:9092/bootstrap: Connect to"
        " ipv4#127.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)\n1/1 brokers are down",
        Code.LOCAL_NOT_RUNNING,
    ),
    (
        "ssl://b1.example.com:9096/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify"
        " failed: broker certificate could not be verified, verify that ssl.ca.location is correctly configured",
        Code.TLS_CHAIN_NOT_TRUSTED,
    ),
    (
        "ssl://b1.example.com:9096/bootstrap: SSL handshake failed: ssl/record/rec_layer_s3.c:908: error:0A000418:SSL"
        " routines:ssl3_read_bytes:tlsv1 alert unknown ca: SSL alert number 48",
        Code.TLS_CLIENT_CA_UNKNOWN,
    ),
    (
        "Disconnected: connection closed by peer: receive 0 after POLLIN: client SSL authentication might be required"
        " (see ssl.key.location and ssl.certificate.location)",
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
    ),
    (
        "localhost:9092/bootstrap: Disconnected while requesting ApiVersion: might be caused by incorrect"
        " security.protocol configuration (connecting to a SSL listener?)",
        Code.KAFKA_CLIENT_SPEAKS_TLS,
    ),
    ("Failed to resolve 'b1.exmaple.com:9096': Name or service not known", Code.DNS_FAILED),
    ('KafkaError{code=_ALL_BROKERS_DOWN,val=-187,str="1/1 brokers are down"}', Code.KAFKA_BROKER_UNREACHABLE),
    (
        'KafkaError{code=TOPIC_AUTHORIZATION_FAILED,val=29,str="Broker: Topic authorization failed"}',
        Code.KAFKA_NOT_AUTHORIZED,
    ),
    ("KafkaConnectionError: Unable to bootstrap from [('localhost', 9092)]", Code.KAFKA_BROKER_UNREACHABLE),
    ("kafka.errors.NoBrokersAvailable", Code.KAFKA_BROKER_UNREACHABLE),
)

LANGUAGES = (
    (
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate",
        Code.TLS_CHAIN_NOT_TRUSTED,
    ),
    (
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006)",
        Code.TLS_SERVER_EXPIRED,
    ),
    (
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname mismatch, certificate is not valid for"
        " 'x'.",
        Code.TLS_NAME_MISMATCH,
    ),
    (
        "ssl.SSLError: [SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2576)",
        Code.TLS_CLIENT_CERTIFICATE_REQUIRED,
    ),
    ("ssl.SSLError: [SSL: KEY_VALUES_MISMATCH] key values mismatch (_ssl.c:3895)", Code.KEY_MISMATCH),
    ("ssl.SSLError: [SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", Code.TLS_HANDSHAKE_FAILED),
    ("ssl.SSLEOFError: EOF occurred in violation of protocol (_ssl.c:1006)", Code.UPSTREAM_CLOSED),
    ("ConnectionRefusedError: [Errno 111] Connection refused", Code.TCP_REFUSED),
    ("socket.gaierror: [Errno -2] Name or service not known", Code.DNS_FAILED),
    ("verify error:num=20:unable to get local issuer certificate", Code.TLS_CHAIN_NOT_TRUSTED),
    ("error:0A00018E:SSL routines::ca md too weak", Code.SIGNATURE_WEAK),
    ("error:0A00018F:SSL routines::ee key too small", Code.KEY_WEAK),
    ("x509: certificate signed by unknown authority", Code.TLS_CHAIN_NOT_TRUSTED),
    ("x509: certificate is valid for a.example.com, not b.example.com", Code.TLS_NAME_MISMATCH),
    ("x509: certificate has expired or is not yet valid: current time 2026-11-23", Code.TLS_SERVER_EXPIRED),
    ("remote error: tls: unknown certificate authority", Code.TLS_CLIENT_CA_UNKNOWN),
    ("remote error: tls: bad certificate", Code.TLS_CLIENT_CERTIFICATE_REFUSED),
    ("remote error: tls: expired certificate", Code.TLS_CLIENT_CERTIFICATE_EXPIRED),
    ("remote error: tls: certificate required", Code.TLS_CLIENT_CERTIFICATE_REQUIRED),
    ("pq: SSL is not enabled on the server", Code.LOCAL_CLIENT_INSISTS),
    ("dial tcp 127.0.0.1:6432: connect: connection refused", Code.LOCAL_NOT_RUNNING),
    ("dial tcp: lookup db.exmaple.com: no such host", Code.DNS_FAILED),
    ("tls: first record does not look like a TLS handshake", Code.TLS_HANDSHAKE_FAILED),
    ("Error: connect ECONNREFUSED 127.0.0.1:6432", Code.LOCAL_NOT_RUNNING),
    (
        "Error: self-signed certificate in certificate chain { code: 'SELF_SIGNED_CERT_IN_CHAIN' }",
        Code.TLS_CHAIN_NOT_TRUSTED,
    ),
    ("Error: The server does not support SSL connections", Code.LOCAL_CLIENT_INSISTS),
    ("Npgsql.NpgsqlException: No password has been provided but the backend requires one", Code.PG_LOGIN_REFUSED),
    (
        "The remote certificate is invalid according to the validation procedure: RemoteCertificateNameMismatch",
        Code.TLS_NAME_MISMATCH,
    ),
    (
        "A connection attempt failed because the connected party did not properly respond after a period of time",
        Code.TCP_TIMEOUT,
    ),
)

TEXTS = LIBPQ + JAVA + LIBRDKAFKA + LANGUAGES


@pytest.mark.parametrize(("text", "code"), TEXTS, ids=[text[:50] for text, _ in TEXTS])
def test_the_first_answer_names_the_cause(text: str, code: Code) -> None:
    first = explain(text)[0]
    assert first.code is code, explain(text)
    assert first.meaning
    assert first.hint


@pytest.mark.parametrize(("text", "code"), TEXTS, ids=[text[:50] for text, _ in TEXTS])
def test_a_text_that_a_terminal_has_broken_into_lines_is_known_too(text: str, code: Code) -> None:
    assert explain(text.replace(" ", "\n  "))[0].code is code


def test_a_reason_in_the_middle_goes_before_the_vague_words_in_the_end() -> None:
    log = (
        "%3|FAIL| ssl://b1:9096/bootstrap: SSL handshake failed: tlsv1 alert unknown ca: SSL alert number 48\n"
        "%3|ERROR| 1/1 brokers are down\nDisconnected while requesting ApiVersion\n"
    )
    assert [each.code for each in explain(log)] == [
        Code.TLS_CLIENT_CA_UNKNOWN,
        Code.KAFKA_CLIENT_SPEAKS_TLS,
    ]


def test_what_openssl_prints_of_a_healthy_server_is_no_error() -> None:
    dates = "v:NotBefore: Nov 23 02:07:48 2026 GMT; NotAfter: Nov 23 02:07:48 2027 GMT"
    with pytest.raises(DoctorError):
        explain(f"CONNECTED(00000003) {dates} Verification: OK Verify return code: 0 (ok)")


@pytest.mark.parametrize("code", list(Code))
def test_a_code_of_ours_is_explained_by_its_section(code: Code) -> None:
    (found,) = explain(f"error: something happened [{code}]")
    assert found.code is code
    assert found.meaning == advice(code)
    assert len(found.meaning.split()) >= 5
    assert code.value.lower() in place(code)


def test_a_code_that_we_do_not_have_is_no_answer() -> None:
    with pytest.raises(DoctorError) as raised:
        explain("MTLS-TLS-999")
    assert raised.value.code is Code.DOCTOR_NOT_UNDERSTOOD


@pytest.mark.parametrize("text", ["", " \n", "it does not work", "\x1b[2J", "0" * 3 * MOST_TEXT])
def test_what_nobody_has_said_is_refused_with_what_to_do(text: str) -> None:
    with pytest.raises(DoctorError) as raised:
        explain(text)
    assert raised.value.code is Code.DOCTOR_NOT_UNDERSTOOD
    assert "mtlskit doctor" in raised.value.hint


def test_names_are_repeated_harmlessly_and_shortly() -> None:
    (found,) = explain(f'password authentication failed for user "\x1b[31m{"x" * 500}"')
    assert "\x1b" not in found.says
    assert len(found.says) < 200


def test_nothing_else_of_the_text_is_repeated() -> None:
    text = 'postgres://u:s3cret@db/x FATAL: password authentication failed for user "u"; Password=s3cret'
    assert all("s3cret" not in repr(each) for each in explain(text))


@given(st.text(max_size=300))
def test_any_text_is_either_explained_or_refused(text: str) -> None:
    try:
        found = len(explain(text))
    except DoctorError as exc:
        found = 1 if exc.code is Code.DOCTOR_NOT_UNDERSTOOD else 0
    assert 1 <= found <= 3


@pytest.mark.parametrize("piece", ["Connection to node 1 (", "Connection to node 1 (127.0.0.1", 'server at "localhost'])
def test_a_log_that_repeats_itself_is_read_in_time(piece: str) -> None:
    """What takes the square of its length would take minutes here."""
    with pytest.raises(DoctorError):
        explain(piece * (MOST_TEXT // len(piece)))

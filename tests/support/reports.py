"""Reports made by hand: every verdict, long names, and strangers who would drive the reader's terminal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from mtlskit.doctor.diagnosis import Diagnosis, Report
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.errors import Code, IdentityError, UpstreamError

AT = datetime(2026, 3, 1, 15, 2, 11, tzinfo=UTC)

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----"
PLANTED = (
    "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
    "hunter2",
    "s3cr3t@x",
    "HRKU-AAdeadbeef-0123",
    "eyJhbGciOiJIUzI1NiJ9",
)
"""Secrets that `hostile` holds; no report may show them."""

LONG_COMMAND = "mtlskit certs rotate reporting --config /etc/mtlskit/a-rather-long-folder/of-somebody/mtlskit.toml"

SEEN_BY_A_STRANGER = f"\x1b[2J\x1b]0;gone\x07\u202e<script>alert(1)</script> {PEM} postgres://ann:s3cr3t@x@db:5432/app"


def report(*diagnoses: Diagnosis, seconds: float = 2.14) -> Report:
    """Of these tunnels."""
    return Report(diagnoses=diagnoses, at=AT, version="0.1.0", source="/etc/mtlskit/mtlskit.toml", seconds=seconds)


def diagnosis(name: str, *findings: Finding, complete: bool = True) -> Diagnosis:
    """Of a Postgres."""
    upstream = "db.example.com:5432"
    return Diagnosis(name, "postgres", upstream, findings=findings, seconds=1.5, complete=complete)


def tcp(seconds: float = 0.012) -> Finding:
    """TCP as it should be."""
    return passed(
        Layer.TCP,
        "tcp.connect",
        f"203.0.113.9:5432 answers in {seconds * 1000:.0f} ms",
        about="db.example.com:5432",
        seconds=seconds,
        family="ipv4",
    )


def no_tcp(code: Code = Code.TCP_REFUSED) -> Finding:
    """TCP that is refused, or worse."""
    error = UpstreamError(
        code,
        "203.0.113.9:5432 refuses the connection",
        "check the port, and that the server runs; the door of a Private Space is port 5433, not the database's own",
    )
    return failed(
        Layer.TCP,
        "tcp.connect",
        error,
        about="db.example.com:5432",
        commands=("getent ahosts db.example.com", "mtlskit heroku status postgresql-curved-12345"),
    )


def behind(check: str, *layers: Layer) -> tuple[Finding, ...]:
    """What was skipped because of `check`."""
    return tuple(skipped(layer, f"{layer}.skipped", check, about="db.example.com:5432") for layer in layers)


def files() -> tuple[Finding, ...]:
    """The first layers as they should be."""
    return (
        passed(Layer.CONFIGURATION, "configuration.read", "/etc/mtlskit/mtlskit.toml: postgres, verify full"),
        passed(Layer.FILES, "files.certificate", "client.crt: readable, mode 0644", about="client.crt", mode="0644"),
        passed(Layer.FILES, "files.key", "client.key: readable by its owner alone, mode 0600", about="client.key"),
        passed(
            Layer.IDENTITY,
            "identity.match",
            "the key fits the certificate CN=reporting, which ends in 43 days",
            days=43,
        ),
    )


def healthy(name: str = "events") -> Diagnosis:
    """Nothing is wrong."""
    return diagnosis(
        name,
        *files(),
        passed(Layer.DNS, "dns.resolve", "db.example.com has 1 address: 203.0.113.9", about="db.example.com:5432"),
        tcp(),
        passed(
            Layer.TLS,
            "tls.handshake",
            "TLSv1.3 with TLS_AES_256_GCM_SHA384",
            about="db.example.com:5432",
            seconds=0.0431,
            version="TLSv1.3",
            names=["db.example.com", "*.db.example.com"],
            modes={"full": True, "ca": True},
        ),
        passed(Layer.POSTGRES, "postgres.login", "ann is let into app by SCRAM-SHA-256"),
    )


def without_login(name: str = "reporting") -> Diagnosis:
    """All is well, as far as it goes without a password."""
    *before, _ = healthy(name).findings
    return replace(healthy(name), findings=(*before, skipped(Layer.POSTGRES, "postgres.login", "no password")))


def refused(name: str = "reporting") -> Diagnosis:
    """TCP fails, a certificate ends soon, and what comes after was not looked at."""
    ending = IdentityError(
        Code.CERTIFICATE_ENDS_SOON,
        "client.crt: the certificate CN=reporting ends in 6 days, on 2026-03-07",
        "get a new one before that day: a server refuses the old one from then on, and every session with it",
    )
    return diagnosis(
        name,
        *files(),
        warned(
            Layer.IDENTITY,
            "identity.dates",
            ending,
            about="client.crt",
            commands=(
                "mtlskit certs rotate reporting --config /etc/mtlskit/a-rather-long-folder/of-somebody/mtlskit.toml",
            ),
            days=6,
        ),
        passed(Layer.DNS, "dns.resolve", "db.example.com has 1 address: 203.0.113.9", about="db.example.com:5432"),
        no_tcp(),
        *behind("tcp.connect", Layer.NEGOTIATION, Layer.TLS, Layer.CLIENT_CERTIFICATE),
        *behind("client-certificate.accepted", Layer.POSTGRES),
        skipped(Layer.HEROKU, "heroku.token", "no token"),
        skipped(Layer.ALLOWLIST, "allowlist.rules", "no token"),
    )


def hostile(name: str = "warehouse-of-a-tunnel-with-a-very-long-name-that-somebody-has-made-up") -> Diagnosis:
    """A server whose words hold escape codes, markup and secrets."""
    error = UpstreamError(
        Code.TLS_NAME_MISMATCH,
        f"the server said: {SEEN_BY_A_STRANGER} {'x' * 150} 数据库服务器",
        'say which name is meant; password=hunter2, or {"token": "HRKU-AAdeadbeef-0123"}',
    )
    return diagnosis(
        name,
        *files(),
        tcp(),
        failed(
            Layer.TLS,
            "tls.names",
            error,
            about="db.example.com:5432",
            commands=("curl -H 'Authorization: Bearer eyJhbGciOiJIUzI1NiJ9' https://ann:hunter2@db.example.com/<b>",),
            said=SEEN_BY_A_STRANGER,
            deep={"password": "password=hunter2", "list": [PEM, float("nan"), AT, {1}]},
        ),
        *behind("tls.names", Layer.CLIENT_CERTIFICATE),
    )

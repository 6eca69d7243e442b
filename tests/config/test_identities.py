"""Identities that issuers make, and what stands around them in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.cli import keys
from mtlskit.config.identities import KEY_TYPES, MOST_NAMES, STORED_CERT, STORED_KEY, STORED_ROOT
from mtlskit.config.loading import parse_config, select
from mtlskit.config.values import (
    ExpiringSessions,
    Hooks,
    IdentityConfig,
    IssuerConfig,
    IssuerKind,
    ProxyConfig,
    RenewBefore,
)
from mtlskit.errors import Code, ConfigError
from mtlskit.pki.keys import KeyType
from mtlskit.pki.requests import MAX_ALTERNATIVES
from mtlskit.store import identities

SOURCE = Path("/etc/mtlskit/mtlskit.toml")
BASE = SOURCE.absolute().parent
STORE = BASE / "identities"

TUNNEL = '[tunnel.t]\nkind = "postgres"\nlisten = "127.0.0.1:1"\nupstream = "db"\n'
CA = '[identity.x]\nissuer = "ca"\nca_dir = "ca"\n'
CSR = '[identity.x]\nissuer = "csr"\n'
COMMAND = '[identity.x]\nissuer = "command"\ncommand = ["sign"]\n'
HEROKU = '[identity.x]\nissuer = "heroku"\naddon = "postgresql-curved-12345"\n'
FILES = '[identity.x]\ncert = "c"\nkey = "k"\n'


def parse(text: str, *, platform: str = "linux", **environ: str) -> ProxyConfig:
    return parse_config(text, source=SOURCE, environ={"HOME": "/home/ann"} | environ, platform=platform)


def only(text: str) -> IdentityConfig:
    (identity,) = parse(text).identities
    return identity


def stored(name: str, issuer: IssuerConfig) -> IdentityConfig:
    current = STORE / name / "current"
    return IdentityConfig(name, current / "client.crt", current / "client.key", issuer=issuer)


def test_the_smallest_of_each_issuer() -> None:
    assert only(CA) == stored("x", IssuerConfig(IssuerKind.CA, ca_dir=BASE / "ca"))
    assert only(CSR) == stored("x", IssuerConfig(IssuerKind.CSR))
    assert only(COMMAND) == stored("x", IssuerConfig(IssuerKind.COMMAND, command=("sign",)))
    assert only(FILES) == IdentityConfig("x", BASE / "c", BASE / "k")
    heroku = only(HEROKU)
    assert heroku.issuer == IssuerConfig(IssuerKind.HEROKU, addon="postgresql-curved-12345")
    assert heroku.ca == STORE / "x" / "current" / "root.crt"
    assert only(HEROKU + 'ca = "mine"').ca == BASE / "mine"


def test_every_key() -> None:
    config = parse(
        """\
        store = "~/store"
        control = "run"
        [hooks]
        before_switch = ["./check.sh", "", "${WORD}"]
        after_switch = ["~/bin/tell"]
        failed = ["mail", "ann"]
        timeout = "5s"
        [identity.a]
        issuer = "ca"
        ca_dir = "/ca"
        ca = "root.pem"
        passphrase_file = "p"
        subject = " CN=a,O=Example "
        san = ["DNS:a.example", "ip:192.0.2.1", "URI:spiffe://a", "email:a@example.com"]
        key_type = "rsa-3072"
        lifetime = "2w"
        renew_before = "12h"
        revoke_old = true
        [identity.b]
        issuer = "command"
        command = ["bin/sign", "x y"]
        command_timeout = 5
        renew_before = "33 %"
        [tunnel.t]
        kind = "postgres"
        listen = "127.0.0.1:1"
        upstream = "db"
        identity = "a"
        expiring_sessions = "drain"
        """,
        WORD="~",
    )
    store = Path("/home/ann/store")
    a = IdentityConfig(
        "a",
        store / "a/current/client.crt",
        store / "a/current/client.key",
        ca=BASE / "root.pem",
        passphrase_file=BASE / "p",
        issuer=IssuerConfig(
            IssuerKind.CA,
            subject="CN=a,O=Example",
            san=("DNS:a.example", "ip:192.0.2.1", "URI:spiffe://a", "email:a@example.com"),
            key_type="rsa-3072",
            ca_dir=Path("/ca"),
            lifetime=14 * 86_400.0,
        ),
        renew_before=RenewBefore(seconds=43_200.0),
        revoke_old=True,
    )
    b = IdentityConfig(
        "b",
        store / "b/current/client.crt",
        store / "b/current/client.key",
        issuer=IssuerConfig(IssuerKind.COMMAND, command=(str(BASE / "bin/sign"), "x y"), command_timeout=5.0),
        renew_before=RenewBefore(share=0.33),
    )
    assert config.identities == (a, b)
    assert (config.store, config.control) == (store, BASE / "run")
    assert config.hooks == Hooks((str(BASE / "check.sh"), "", "~"), ("/home/ann/bin/tell",), ("mail", "ann"), 5.0)
    assert config.tunnels[0].identity == a
    assert config.tunnels[0].expiring_sessions is ExpiringSessions.DRAIN


def test_identities_alone_are_a_file_and_no_proxy() -> None:
    config = parse(CSR)
    assert config.tunnels == ()
    with pytest.raises(ConfigError) as caught:
        select(config, [])
    assert caught.value.sentence == f"{SOURCE}: there is no tunnel"
    assert caught.value.code is Code.CONFIG_MISSING_KEY
    with pytest.raises(ConfigError, match="there is no tunnel"):
        select(config, ["x"])


def test_identities_that_tunnels_hold_follow_those_of_the_file() -> None:
    second = TUNNEL.replace("tunnel.t", "tunnel.u").replace(":1", ":2") + 'identity = "x"\nca = "other"\n'
    config = parse(TUNNEL + 'cert = "c"\nkey = "k"\n' + second + CA)
    assert [identity.name for identity in config.identities] == ["x", "t"]
    assert config.identities[0].ca is None
    assert config.tunnels[1].identity.ca == BASE / "other"


def test_a_program_below_a_folder_starts_at_the_files() -> None:
    assert parse(COMMAND.replace("sign", "my bin/sign")).identities[0].issuer.command == (str(BASE / "my bin/sign"),)
    windows = COMMAND.replace('"sign"', "'bin\\sign'")
    assert parse(windows, platform="win32").identities[0].issuer.command == (str(BASE / "bin\\sign"),)
    assert parse(windows).identities[0].issuer.command == ("bin\\sign",)


MANY = "san = [" + "'DNS:a'," * (MOST_NAMES + 1) + "]"

BAD = [
    # Whose keys they are.
    (CA + 'cert = "c"', "BAD_VALUE", ':4: identity.x.cert: issuer "ca" makes certificate and key, and the store'),
    (HEROKU + 'key = "c"', "BAD_VALUE", ':4: identity.x.key: issuer "heroku" makes'),
    (CSR + 'ca_dir = "c"', "BAD_VALUE", ':3: identity.x.ca_dir: ca_dir belongs to issuer "ca", and the issuer'),
    (FILES + 'command = ["a"]', "BAD_VALUE", 'belongs to issuer "command", and the issuer here is not'),
    (HEROKU + 'subject = "CN=a"', "BAD_VALUE", 'subject belongs to issuer "ca", "csr" or "command", and the'),
    (FILES + "san = []", "BAD_VALUE", "identity.x.san: san belongs to"),
    (COMMAND + "lifetime = '1d'", "BAD_VALUE", 'lifetime belongs to issuer "ca"'),
    ('[identity.x]\nissuer = "ca"', "MISSING_KEY", ':1: identity.x: issuer "ca" needs ca_dir'),
    ('[identity.x]\nissuer = "command"', "MISSING_KEY", 'issuer "command" needs command'),
    ('[identity.x]\nissuer = "heroku"', "MISSING_KEY", 'issuer "heroku" needs addon'),
    ("[identity.x]", "MISSING_KEY", "a client certificate and its key are missing"),
    ('[identity.x]\nissuer = "herouk"', "BAD_VALUE", '"herouk": unknown issuer; did you mean "heroku"?'),
    (FILES + "revoke_old = true", "BAD_VALUE", ':4: identity.x.revoke_old: issuer "files" has no way to revoke'),
    (CSR + "revoke_old = true", "BAD_VALUE", 'issuer "csr" has no way to revoke'),
    # Values.
    (CSR + 'subject = ""', "BAD_VALUE", ':3: identity.x.subject: "": the subject is empty'),
    (CSR + 'subject = "reporting"', "BAD_VALUE", '"reporting": not the subject of a certificate'),
    (CSR + 'subject = "/CN=reporting"', "BAD_VALUE", "not the subject of a certificate"),
    (CSR + 'subject = "CN=a\\u0000b"', "BAD_VALUE", "the subject holds a control character"),
    (CSR + f'subject = "CN={"a" * 1000}"', "BAD_VALUE", "the subject is longer than 1000 characters"),
    (CSR + 'san = ["DNS:a", "b"]', "BAD_VALUE", 'identity.x.san[1]: "b": not another name'),
    (CSR + 'san = ["DNS:"]', "BAD_VALUE", "not another name"),
    (CSR + 'san = ["DNS:a\\n"]', "BAD_VALUE", "the name holds a control character"),
    (CSR + 'san = "DNS:a"', "BAD_VALUE", "san: must be a list"),
    (CSR + MANY, "BAD_VALUE", "san: more than 100 names"),
    (CSR + 'key_type = "rsa"', "BAD_VALUE", '"rsa": not a type of key'),
    (CSR + 'key_type = ""', "BAD_VALUE", '"": not a type of key'),
    (CA + 'lifetime = "90"', "BAD_VALUE", 'lifetime: "90": the unit is missing'),
    (CA + "lifetime = 90", "BAD_VALUE", "lifetime: 90: the unit is missing"),
    (CA + "lifetime = '3000w'", "BAD_VALUE", "longer than ten years"),
    (CA + 'lifetime = "30d"\nrenew_before = "30d"', "BAD_VALUE", ":5: identity.x.renew_before: no shorter than"),
    (CSR + "renew_before = 30", "BAD_VALUE", "renew_before: 30: the unit is missing"),
    (CSR + 'renew_before = "0%"', "BAD_VALUE", "a share of the life is from 1% to 99%"),
    (CSR + 'renew_before = "100%"', "BAD_VALUE", "a share of the life is from 1% to 99%"),
    (CSR + 'renew_before = "1.5%"', "BAD_VALUE", "not a duration"),
    (CSR + "renew_before = true", "BAD_VALUE", "renew_before: must be a duration"),
    (CA + 'revoke_old = "yes"', "BAD_VALUE", "revoke_old: must be true or false"),
    (HEROKU.replace("postgresql-", "postgresql "), "BAD_VALUE", '"postgresql curved-12345": not the name of an add-on'),
    (COMMAND.replace('["sign"]', "[]"), "BAD_VALUE", "command: the list is empty, and names no program"),
    (COMMAND.replace('"sign"', '" "'), "BAD_VALUE", 'command[0]: " ": the name of the program is empty'),
    (COMMAND.replace("sign", "step ca sign"), "BAD_VALUE", "a program and its arguments in one text"),
    (COMMAND.replace('"sign"', '"sign", "a\\u0000"'), "BAD_VALUE", "command[1]: no argument of a program can"),
    (COMMAND.replace('["sign"]', '"sign"'), "BAD_VALUE", "command: must be a list"),
    (COMMAND + "command_timeout = '0s'", "BAD_VALUE", "a duration must be longer than nothing"),
    ('store = ""\n' + CSR, "BAD_VALUE", ':1: store: "": the path is empty'),
    ("control = 5\n" + CSR, "BAD_VALUE", ":1: control: must be a text in quotes"),
    ("hooks = 5\n" + CSR, "BAD_VALUE", ":1: hooks: must be a table"),
    ("[hooks]\nfailed = []\n" + CSR, "BAD_VALUE", ":2: hooks.failed: the list is empty"),
    ("[hooks]\ntimeout = 'x'\n" + CSR, "BAD_VALUE", 'hooks.timeout: "x": not a duration'),
    # Names.
    ("[hooks]\nafter_swich = ['x']\n" + CSR, "UNKNOWN_KEY", ':2: hooks.after_swich: unknown key; did you mean "after'),
    ("cert = 'x'\n" + CSR, "UNKNOWN_KEY", ":1: cert: unknown key"),
    (CSR + CSR.replace("x", "X"), "BAD_VALUE", ":3: identity.X: the name differs from x in case only"),
    ("[identity]\naddon = 'a'", "BAD_VALUE", ":1: identity: the table has no name"),
    (TUNNEL.replace(".t", ".x") + "cert = 'c'\nkey = 'k'\n" + CSR, "BAD_VALUE", ":1: tunnel.x: the tunnel has a"),
    # Tunnels.
    (CSR + TUNNEL + 'identity = "x"\nexpiring_sessions = "end"', "BAD_VALUE", 'sessions: "end": not a way to treat'),
    (
        CSR + TUNNEL.replace("postgres", "tcp").replace("db", "db:1") + 'identity = "x"\nexpiring_sessions = "keep"',
        "BAD_VALUE",
        ":8: tunnel.t.expiring_sessions: only a postgres tunnel ends",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "part"), BAD, ids=range(len(BAD)))
def test_bad_input(text: str, code: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert part in caught.value.sentence
    assert caught.value.sentence.startswith(str(SOURCE))
    assert caught.value.code is Code[f"CONFIG_{code}"]
    assert "\n" not in caught.value.sentence + caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (CA + 'cert = "c"', 'leave cert out, or write issuer = "files"'),
        (FILES + 'command = ["a"]', 'leave command out, or write issuer = "command"'),
        ('[identity.x]\nissuer = "ca"', 'add ca_dir = "ca"'),
        ('[identity.x]\nissuer = "heroku"', "add addon = "),
        ("cert = 'x'\n" + CSR, "cert belongs below a line [tunnel.NAME]"),
        ("addon = 'x'\n" + CSR, "addon belongs below a line [identity.NAME]"),
        ("failed = ['x']\n" + CSR, "failed belongs below a line [hooks]"),
        ("hooks = 5\n" + CSR, "begin it with [hooks] on a line of its own"),
        (COMMAND.replace("sign", "a b"), 'write command = ["sign-request", "--profile", "client"]'),
        ("[hooks]\nx = 1\n" + CSR, "the keys here are before_switch, after_switch, failed, timeout"),
        (CSR + "revoke_old = 1", "write revoke_old = true"),
        (CSR + "renew_before = 30", '"30d"'),
    ],
)
def test_hints_say_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert hint in caught.value.hint


def test_files_in_both_spellings_of_a_name_are_no_folders_of_the_store() -> None:
    assert len(parse(FILES + FILES.replace(".x", ".X") + CSR.replace(".x", ".y")).identities) == 3


def test_what_is_written_down_twice_is_the_same() -> None:
    here = [STORED_CERT, STORED_KEY, STORED_ROOT]
    assert here == [Path(identities.CURRENT, name) for name in (identities.CERT, identities.KEY, identities.ROOT)]
    assert KEY_TYPES == keys._KINDS == tuple(KeyType)
    assert MOST_NAMES == MAX_ALTERNATIVES


KEYS = ["issuer", "cert", "ca_dir", "ca_passphrase_file", "subject", "san", "key_type", "lifetime", "command",
        "command_timeout", "addon", "renew_before", "revoke_old"]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["'ca'", "'csr'", "'command'", "'heroku'", "'33%'", "'30d'", "['a']", "[]", "[1]", "true", "nan",
                     "['DNS:a']", "'CN=a'", "'ed25519'", "{}", "'\\u0000'"]),
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="'$"), max_size=12).map(
        lambda text: f"'{text}'"
    ),
    st.integers().map(str),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_values_parse_or_are_refused(values: dict[str, str]) -> None:
    sentence = ""
    try:
        identity = only("[identity.x]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()))
    except ConfigError as exc:
        sentence = exc.sentence + exc.hint
    assert "\n" not in sentence
    assert sentence or (identity.issuer.kind is IssuerKind.FILES) == (STORE not in identity.cert.parents)

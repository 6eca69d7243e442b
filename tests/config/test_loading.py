"""From a file to `ProxyConfig`."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.config.loading import LARGEST_FILE, load_config, parse_config, select
from mtlskit.config.values import (
    Endpoint,
    IdentityConfig,
    Negotiation,
    ProxyConfig,
    TcpAddress,
    Timeouts,
    TunnelConfig,
    TunnelKind,
    UnixAddress,
    Verify,
    VerifyMode,
)
from mtlskit.errors import Code, ConfigError

SOURCE = Path("/etc/mtlskit/mtlskit.toml")
BASE = SOURCE.absolute().parent

SMALLEST = """\
[tunnel.a]
kind = "postgres"
listen = "127.0.0.1:6432"
upstream = "db"
cert = "c.pem"
key = "k.pem"
"""


def parse(text: str, *, platform: str = "linux", **environ: str) -> ProxyConfig:
    return parse_config(text, source=SOURCE, environ=environ, platform=platform)


def test_the_smallest_file() -> None:
    tunnel = TunnelConfig(
        name="a",
        kind=TunnelKind.POSTGRES,
        listen=TcpAddress("127.0.0.1", 6432),
        upstream=(Endpoint("db", 5432),),
        identity=IdentityConfig("a", BASE / "c.pem", BASE / "k.pem"),
        verify_by_default=True,
    )
    assert parse(SMALLEST) == ProxyConfig((tunnel,), SOURCE, identities=(tunnel.identity,), store=BASE / "identities")


def test_every_key() -> None:
    config = parse(
        """\
        [identity.shared]
        issuer = "files"
        cert = "~/c.pem"
        key = "/k.pem"
        ca = "ca.pem"
        passphrase_file = "p"
        [tunnel.a]
        kind = "postgres"
        listen = "10.0.0.1:6432"
        upstream = ["${URL}", "h2"]
        identity = "shared"
        verify = "name:db"
        negotiation = "direct"
        pins = ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]
        allow_clients = ["10.0.0.0/8", "::1"]
        max_connections = 7
        [tunnel.a.timeouts]
        startup = "1s"
        dial = 2
        login = 3.5
        linger = "4m"
        drain = "5"
        [tunnel.b]
        kind = "tcp"
        listen = "unix:b.sock"
        upstream = "h:1"
        identity = "shared"
        ca = "other.pem"
        allow_users = ["ann", 1001]
        timeouts = { dial = "9s" }
        """,
        HOME="/home/ann",
        URL="postgres://u:p@h1:1/d",
    )
    shared = IdentityConfig("shared", Path("/home/ann/c.pem"), Path("/k.pem"), BASE / "ca.pem", BASE / "p")
    a = TunnelConfig(
        name="a",
        kind=TunnelKind.POSTGRES,
        listen=TcpAddress("10.0.0.1", 6432),
        upstream=(Endpoint("h1", 1), Endpoint("h2", 5432)),
        identity=shared,
        verify=Verify(VerifyMode.NAME, "db"),
        negotiation=Negotiation.DIRECT,
        pins=(bytes(32),),
        allow_clients=(ip_network("10.0.0.0/8"), ip_network("::1")),
        max_connections=7,
        timeouts=Timeouts(startup=1.0, dial=2.0, login=3.5, linger=240.0, drain=5.0),
    )
    b = TunnelConfig(
        name="b",
        kind=TunnelKind.TCP,
        listen=UnixAddress(BASE / "b.sock"),
        upstream=(Endpoint("h", 1),),
        identity=IdentityConfig("shared", shared.cert, shared.key, BASE / "other.pem", shared.passphrase_file),
        verify_by_default=True,
        allow_users=("ann", "1001"),
        timeouts=Timeouts(dial=9.0),
    )
    assert config.tunnels == (a, b)


def replaced(old: str, new: str) -> str:
    assert old in SMALLEST
    return SMALLEST.replace(old, new)


SECOND = SMALLEST.replace("[tunnel.a]", "[tunnel.b]")
OPEN = 'listen = "127.0.0.1:6432"', 'listen = "0.0.0.0:6432"'

BAD = [
    # Keys.
    (SMALLEST + "lisen = 1", "UNKNOWN_KEY", ':7: tunnel.a.lisen: unknown key; did you mean "listen"?'),
    (SMALLEST + "zzz = 1", "UNKNOWN_KEY", ":7: tunnel.a.zzz: unknown key"),
    (SMALLEST + '"a\\nb" = 1', "UNKNOWN_KEY", ':7: tunnel.a."a\\nb": unknown key'),
    (SMALLEST + "xxx = 1\nyyy = 2", "UNKNOWN_KEY", ":7: tunnel.a.xxx: unknown key (and 1 more)"),
    (SMALLEST + 'timeouts = { dail = "1s" }', "UNKNOWN_KEY", 'timeouts.dail: unknown key; did you mean "dial"?'),
    ("[tunnels.a]", "UNKNOWN_KEY", ':1: tunnels: unknown key; did you mean "tunnel"?'),
    ('[identity.x]\ncert="c"\nkey="k"\nadd="a"', "UNKNOWN_KEY", ":4: identity.x.add: unknown key"),
    (replaced('listen = "127.0.0.1:6432"\n', ""), "MISSING_KEY", ":1: tunnel.a: listen is missing"),
    (replaced('cert = "c.pem"\n', ""), "MISSING_KEY", ":1: tunnel.a: cert is missing"),
    (replaced('key = "k.pem"\n', ""), "MISSING_KEY", ":1: tunnel.a: key is missing"),
    (
        replaced('cert = "c.pem"\nkey = "k.pem"\n', ""),
        "MISSING_KEY",
        ":1: tunnel.a: a client certificate and its key are missing",
    ),
    ("[identity.x]\ncert = 'c'", "MISSING_KEY", ":1: identity.x: key is missing"),
    ("", "MISSING_KEY", "mtlskit.toml: there is no tunnel"),
    ("[tunnel]", "MISSING_KEY", "there is no tunnel"),
    # Types.
    (replaced('"postgres"', "1"), "BAD_VALUE", ":2: tunnel.a.kind: must be a text in quotes"),
    (replaced('"db"', "1"), "BAD_VALUE", ":4: tunnel.a.upstream: must be a text in quotes or a list"),
    (replaced('"db"', "['h', 1]"), "BAD_VALUE", "upstream: must be a text in quotes or a list"),
    (SMALLEST + 'pins = "x"', "BAD_VALUE", ":7: tunnel.a.pins: must be a list"),
    (SMALLEST + "pins = [1]", "BAD_VALUE", ":7: tunnel.a.pins[0]: must be a text in quotes"),
    (SMALLEST + "allow_users = [true]", "BAD_VALUE", "allow_users: must be a list of names or numbers"),
    (SMALLEST + 'max_connections = "7"', "BAD_VALUE", "max_connections: must be a whole number"),
    (SMALLEST + "max_connections = true", "BAD_VALUE", "max_connections: must be a whole number"),
    (SMALLEST + "timeouts = 3", "BAD_VALUE", ":7: tunnel.a.timeouts: must be a table"),
    (SMALLEST + "timeouts = {dial=true}", "BAD_VALUE", "timeouts.dial: must be a duration"),
    ('[tunnel]\nkind = "tcp"', "BAD_VALUE", ":1: tunnel: the table has no name"),
    ("[tunnel]\nkind = 'tcp'\ntimeouts = { dial = '1s' }", "BAD_VALUE", ":1: tunnel: the table has no name"),
    ("[identity]\ncert = 'c'\nkey = 'k'", "BAD_VALUE", ":1: identity: the table has no name"),
    ("tunnel.x = 5", "BAD_VALUE", ":1: tunnel.x: must be a table"),
    ("[[tunnel]]\n", "BAD_VALUE", ":1: tunnel: must be a table of tables"),
    # Values.
    (replaced('"postgres"', '"postgers"'), "BAD_VALUE", '"postgers": not a kind of tunnel; did you'),
    (replaced(":6432", ":99999"), "BAD_VALUE", ':3: tunnel.a.listen: "127.0.0.1:99999": the port must be'),
    (replaced('"db"', '"db:0"'), "BAD_VALUE", ':4: tunnel.a.upstream: "db:0": the port must be'),
    (replaced('"db"', "['h', 'db:0']"), "BAD_VALUE", 'upstream[1]: "db:0": the port must be a number'),
    (replaced('"db"', "[]"), "BAD_VALUE", "upstream: the list of upstreams is empty"),
    (replaced('"c.pem"', '""'), "BAD_VALUE", ':5: tunnel.a.cert: "": the path is empty'),
    (replaced("tunnel.a", "tunnel.'a b'"), "BAD_VALUE", ':1: tunnel."a b": "a b" is not a usable name'),
    (SMALLEST + "max_connections = 0", "BAD_VALUE", "max_connections: 0: must be from 1 to 100000"),
    (SMALLEST + f"max_connections = 0x{'f' * 5000}", "BAD_VALUE", "a very large number: must be from 1"),
    (SMALLEST + "timeouts = {dial='0s'}", "BAD_VALUE", 'timeouts.dial: "0s": a duration must be longer'),
    (SMALLEST + "pins = ['md5/x']", "BAD_VALUE", ':7: tunnel.a.pins[0]: "md5/x": a pin begins with'),
    (SMALLEST + "verify = 'none'", "BAD_VALUE", '"none": not a way to verify the server'),
    (SMALLEST + "negotiation = 'x'", "BAD_VALUE", 'negotiation: "x": not a way to begin TLS'),
    (SMALLEST + "allow_clients = ['10.0.0.5/8']", "BAD_VALUE", 'allow_clients[0]: "10.0.0.5/8": the'),
    (SMALLEST + "allow_users = ['a b']", "BAD_VALUE", 'allow_users[0]: "a b": not the name'),
    # Rules that span keys.
    (SMALLEST + "verify = 'ca'", "BAD_VALUE", ':7: tunnel.a.verify: "ca": this needs a CA file'),
    (SMALLEST + "verify = 'name:x'", "BAD_VALUE", '"name:x": this needs a CA file'),
    (
        replaced('"postgres"', '"tcp"').replace('"db"', '"db:1"') + "negotiation = 'direct'",
        "BAD_VALUE",
        ":7: tunnel.a.negotiation: only a postgres tunnel negotiates",
    ),
    (SMALLEST + "identity = 'x'", "BAD_VALUE", ":5: tunnel.a.cert: identity and cert exclude each other"),
    (replaced(*OPEN), "OPEN_DOOR", ":3: tunnel.a.listen: 0.0.0.0:6432 is open to other machines"),
    (replaced(*OPEN) + "allow_clients = []", "OPEN_DOOR", "allow_clients does not say to which"),
    (replaced("127.0.0.1", "[::ffff:127.0.0.1]"), "OPEN_DOOR", "is open to other machines"),
    (replaced("127.0.0.1", "[::]"), "OPEN_DOOR", "[::]:6432 is open to other machines"),
    (
        replaced(*OPEN) + "allow_clients = ['10.0.0.0/8']\nallow_users = ['ann']",
        "BAD_VALUE",
        ":8: tunnel.a.allow_users: the kernel knows the users of local sockets only",
    ),
    (
        replaced("127.0.0.1:6432", "unix:/x") + "allow_clients = ['::1']",
        "BAD_VALUE",
        ":7: tunnel.a.allow_clients: the clients of a unix socket have no IP address",
    ),
    (replaced('"db"', '"127.0.0.1:6432"'), "BAD_VALUE", ":4: tunnel.a.upstream: 127.0.0.1:6432 is the"),
    (SMALLEST + SECOND, "DUPLICATE_LISTENER", ":9: tunnel.b.listen: tunnels a and b both listen on"),
    (
        SMALLEST + SECOND.replace("127.0.0.1", "0.0.0.0") + "allow_clients = ['10.0.0.0/8']",
        "DUPLICATE_LISTENER",
        ":9: tunnel.b.listen: 0.0.0.0:6432 of tunnel b clashes with 127.0.0.1:6432 of tunnel a",
    ),
    (SMALLEST + "verify = 'x'\n" + SECOND + "verify = 'y'", "BAD_VALUE", ':7: tunnel.a.verify: "x": not a way to'),
    (SMALLEST + "verify = 'x'\n" + SECOND + "verify = 'y'", "BAD_VALUE", "(and 1 more)"),
    # Names and variables.
    (
        "[identity.reporting]\ncert='c'\nkey='k'\n"
        + replaced('cert = "c.pem"\nkey = "k.pem"', 'identity = "reportin"'),
        "UNKNOWN_NAME",
        ':8: tunnel.a.identity: "reportin": there is no identity of this name; did you mean "reporting"?',
    ),
    (replaced('cert = "c.pem"\nkey = "k.pem"', 'identity = "x"'), "UNKNOWN_NAME", '"x": there is no identity'),
    (replaced('"db"', '"${DB}"'), "MISSING_VARIABLE", ":4: tunnel.a.upstream: the environment variable DB"),
    (replaced('"db"', '["${}"]'), "BAD_VALUE", "upstream[0]: after ${ comes the name of a variable"),
    (replaced("postgres", "kafka"), "BAD_VALUE", ':4: tunnel.a.upstream: "db": the port is missing'),
    ('[identity.x]\ncert="c"\nkey="k"\nissuer = "acme"', "BAD_VALUE", ':4: identity.x.issuer: "acme": unknown issuer'),
    (replaced('"db"', '"heroku:x y"'), "BAD_VALUE", '"heroku:x y": not the name of an add-on'),
    # The text itself.
    ("a = [", "SYNTAX", ":1:6: not TOML: Invalid value"),
    ("a = 1\nb = @\n", "SYNTAX", ":2:5: not TOML: Invalid value"),
    ("[tunnel.a]\n[tunnel.a]\n", "SYNTAX", ":2:10: not TOML: Cannot declare tunnel.a twice"),
    ('["it\'s".b]\n["it\'s".b]\n', "SYNTAX", '''not TOML: Cannot declare "it's".b twice'''),
    ("a = []\n[[a]]\n", "SYNTAX", "not TOML: Cannot mutate immutable namespace a"),
    ("a = " + "[" * 100_000, "SYNTAX", "nested too deeply"),
    ("a = " + "9" * 5_000, "SYNTAX", "a number has too many digits"),
    (".".join("a" * 3_000) + " = '${X'", "UNKNOWN_KEY", ":1: a: unknown key"),
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
        (replaced(*OPEN), 'add allow_clients = ["10.0.0.0/8"]'),
        (replaced("127.0.0.1", "[::]"), 'add allow_clients = ["fd00::/8"]'),
        (SMALLEST + "verify = 'ca'", 'add ca = "root.crt", or leave verify out'),
        ("[tunnel]\nkind = 'tcp'", "name the table: [tunnel.NAME]"),
        ("[[tunnel]]", "name the table: [tunnel.NAME], in single brackets"),
        (SMALLEST + "ca = 5", 'write ca = "root.crt"'),
        (SMALLEST + "allow_users = 'tester'", 'write allow_users = ["tableau", 1001]'),
        (SMALLEST + "allow_clients = [7]", 'write allow_clients = ["10.0.0.0/8"]'),
        (SMALLEST + "max_connections = '5'", "write max_connections = 1000"),
        (SMALLEST + "timeouts = { dial = true }", 'write dial = "10s"'),
        (replaced('"db"', '"$DATABASE_URL"'), 'did you mean "${DATABASE_URL}"?'),
        (replaced('"db"', '["db", "$B"]'), 'did you mean "${B}"?'),
        (SMALLEST + SMALLEST, "a table begins with [tunnel.NAME] or [identity.NAME], once for each NAME"),
        ("[tunnel.a b]", "a table begins with [tunnel.NAME]"),
        (SMALLEST + "ca = root.crt", 'texts stand in quotes: key = "value"'),
        (SMALLEST + "kind = 'tcp'", "each key stands once in its table"),
        (replaced('listen = "127.0.0.1:6432"\n', ""), 'add listen = "127.0.0.1:6432"'),
        ('listen = "127.0.0.1:6432"', "listen belongs below a line [tunnel.NAME]"),
        (SMALLEST + "lisen = 1", "the keys here are kind, listen, upstream"),
        ("[identity.x]\nissuer = 'acme'", 'use "files", "ca", "csr", "command" or "heroku"'),
        ("", "add a table [tunnel.NAME]"),
    ],
)
def test_hints_say_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "platform", "part"),
    [
        (SMALLEST + "allow_users = ['ann']", "darwin", "on this platform (darwin) the kernel does not tell"),
        (replaced("127.0.0.1:6432", "unix:x"), "win32", "unix sockets are not supported on Windows"),
    ],
)
def test_what_a_platform_lacks_is_refused_by_name(text: str, platform: str, part: str) -> None:
    parse(text)
    with pytest.raises(ConfigError) as caught:
        parse(text, platform=platform)
    assert part in caught.value.sentence
    assert caught.value.code is Code.CONFIG_NOT_SUPPORTED


@pytest.mark.parametrize(
    "text",
    [
        SMALLEST.replace(":6432", ":0") + SECOND.replace(":6432", ":0"),
        SMALLEST + SECOND.replace("127.0.0.1", "[::1]"),
        SMALLEST + SECOND.replace("6432", "6433"),
    ],
)
def test_listeners_that_do_not_clash(text: str) -> None:
    assert len(parse(text).tunnels) == 2


def test_an_identity_at_fault_is_complained_about_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("[identity.x]\ncert=''\nkey='k'\n" + replaced('cert = "c.pem"\nkey = "k.pem"', 'identity = "x"'))
    assert caught.value.sentence.endswith("the path is empty")


SECRET = "s3cret-Pa55"
KEYS = ["kind", "listen", "upstream", "cert", "ca", "verify", "negotiation", "identity", "passphrase_file"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("written", [f"postgres://u:{SECRET}/x@h", "${URL}"])
def test_a_password_in_the_wrong_place_is_in_no_error(key: str, written: str) -> None:
    kept = "".join(f"{line}\n" for line in SMALLEST.splitlines() if not line.startswith(f"{key} "))
    with pytest.raises(ConfigError) as caught:
        parse(f'{kept}{key} = "{written}"\nmax_connections = 0', URL=f"{SECRET}\x00")
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.hint}"


def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())
    config = load_config(path, environ={})
    assert config.source == path
    assert config.tunnels[0].identity.cert == tmp_path / "c.pem"


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file") as caught:
        load_config(tmp_path / "m.toml", environ={})
    assert caught.value.code is Code.CONFIG_NOT_FOUND
    assert "--config" not in caught.value.hint


def test_a_missing_file_by_a_relative_name_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_config(Path("nope.toml"), environ={})
    assert caught.value.sentence == f"nope.toml: there is no such file: looked for {tmp_path / 'nope.toml'}"


def test_a_variable_that_holds_a_dollar_is_not_taken_for_a_name() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(replaced('"db"', '"${URL}"'), URL="$" + SECRET.replace("-", "_"))
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_config(tmp_path, environ={})
    assert caught.value.code is Code.CONFIG_UNREADABLE
    assert caught.value.hint == f"check its kind and permissions: ls -ld {tmp_path}"


def test_a_path_with_a_nul_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(Path("a\0b"), environ={})


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(SMALLEST + "#" * (LARGEST_FILE - len(SMALLEST)))
    assert load_config(path, environ={}).tunnels
    path.write_text(SMALLEST + "#" * (LARGEST_FILE - len(SMALLEST) + 1))
    with pytest.raises(ConfigError, match="larger than 1048576 bytes") as caught:
        load_config(path, environ={})
    assert caught.value.code is Code.CONFIG_UNREADABLE


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_bytes(SMALLEST.encode() + b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"m.toml:7: not UTF-8 \(byte 0xe9\)") as caught:
        load_config(path, environ={})
    assert caught.value.code is Code.CONFIG_SYNTAX


def test_selecting_tunnels() -> None:
    config = parse(SMALLEST + SECOND.replace("6432", "6433"))
    assert select(config, []) is config
    assert [tunnel.name for tunnel in select(config, ["b"]).tunnels] == ["b"]
    assert [tunnel.name for tunnel in select(config, ["b", "a", "b"]).tunnels] == ["a", "b"]


def test_selecting_an_unknown_tunnel() -> None:
    config = parse(replaced("tunnel.a", "tunnel.reporting"))
    with pytest.raises(ConfigError, match='there is no tunnel reportin; did you mean "reporting"') as caught:
        select(config, ["reportin"])
    assert caught.value.code is Code.CONFIG_UNKNOWN_NAME
    assert caught.value.hint == "the tunnels are reporting"
    with pytest.raises(ConfigError, match=r'there is no tunnel "\\n"'):
        select(config, ["\n"])


def attempt(text: str) -> str:
    try:
        parse(text, X="${X}", HOME="/home/ann")
    except ConfigError as exc:
        return exc.sentence
    return ""


PIECES = st.sampled_from(
    ["[tunnel.a]", "[identity.b]", "[[tunnel]]", "[tunnel.a.timeouts]", "kind = ", "listen = ", "upstream = ",
     "cert = ", "key = ", "pins = ", "allow_users = ", "timeouts = ", "identity = ", "verify = ",
     "issuer = ", "tunnel.a = ",
     '"postgres"', '"127.0.0.1:1"', '"unix:x"', '"${X}"', '"~x"', '"b"', "[1, 'a']", "{ dial = nan }", "-inf", "0xff",
     "1979-05-27", "'''\n'''", "\n", "\n", "\n", "=", "[", "]", '"', "{", "}", ".", "#", "\x00"]
)  # fmt: skip


@given(st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=80)))
def test_any_text_parses_or_is_refused(text: str) -> None:
    assert "\n" not in attempt(text)


VALUES = st.recursive(
    st.one_of(
        st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="'"), max_size=12).map(
            lambda text: f"'{text}'"
        ),
        st.sampled_from(["'db:1'", "'127.0.0.1:0'", "'tcp'", "'postgres'", "'full'", "'10s'", "true", "1.5", "nan"]),
        st.integers().map(str),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        inner.map(lambda item: f"{{ dial = {item} }}"),
    ),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from([*KEYS, "key", "pins", "allow_clients", "allow_users", "timeouts"]), VALUES))
def test_any_values_parse_or_are_refused(values: dict[str, str]) -> None:
    defaults = dict(line.split(" = ") for line in SMALLEST.splitlines()[1:])
    assert "\n" not in attempt("[tunnel.a]\n" + "".join(f"{k} = {v}\n" for k, v in (defaults | values).items()))

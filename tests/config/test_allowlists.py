"""`[allowlist.NAME]`, `[heroku]`, `[my_ip]`, and what tunnels take from an add-on."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.allowlist.owner import is_owner_part
from mtlskit.config.allowlists import _OWNER
from mtlskit.config.flags import config_from_flags
from mtlskit.config.loading import parse_config, select
from mtlskit.config.values import (
    AllowlistConfig,
    AllowRule,
    HerokuConfig,
    Login,
    MyIpConfig,
    ProxyConfig,
    TunnelConfig,
)
from mtlskit.errors import Code, ConfigError

SOURCE = Path("/etc/mtlskit/mtlskit.toml")
BASE = SOURCE.absolute().parent

LIST = '[allowlist.a]\naddons = ["postgresql-a"]\n'
TUNNEL = '[tunnel.t]\nkind = "postgres"\nlisten = "127.0.0.1:1"\nupstream = "heroku:pg-1"\ncert = "c"\nkey = "k"\n'


def parse(text: str, *, platform: str = "linux", **environ: str) -> ProxyConfig:
    return parse_config(text, source=SOURCE, environ={"HOME": "/home/ann"} | environ, platform=platform)


def only(text: str) -> AllowlistConfig:
    (allowlist,) = parse(text).allowlists
    return allowlist


def tunnel(text: str, *, platform: str = "linux") -> TunnelConfig:
    (found,) = parse(text, platform=platform).tunnels
    return found


def test_the_smallest_of_each_kind() -> None:
    assert only(LIST + "my_ip = true") == AllowlistConfig("a", ("postgresql-a",), my_ip=True)
    assert only(LIST + "rules = ['203.0.113.7']").rules == (AllowRule(IPv4Network("203.0.113.7/32"), ""),)
    assert only(LIST + "rules_from = 'vendor.txt'").rules_from == (str(BASE / "vendor.txt"),)
    assert only(LIST + "from_space = 'x'").spaces == ("x",)


def test_every_key() -> None:
    found = only(
        """\
        [allowlist.a]
        addons = ["pg-1", "kafka-1", " pg-1"]
        my_ip = true
        rules_from = ["~/v.csv", "https://example.com/a?b=c#d", "http://127.0.0.1:1/x"]
        from_space = ["one", "two"]
        collapse = true
        owner = "web-1.example"
        [[allowlist.a.rules]]
        cidr = "203.0.113.7"
        description = " office, London "
        [[allowlist.a.rules]]
        cidr = "198.51.100.0/24"
        """
    )
    assert found == AllowlistConfig(
        name="a",
        addons=("pg-1", "kafka-1"),
        rules=(
            AllowRule(IPv4Network("203.0.113.7"), "office, London"),
            AllowRule(IPv4Network("198.51.100.0/24"), ""),
        ),
        my_ip=True,
        rules_from=("/home/ann/v.csv", "https://example.com/a?b=c#d", "http://127.0.0.1:1/x"),
        spaces=("one", "two"),
        collapse=True,
        owner_id="web-1.example",
    )
    assert all(getattr(found, field.name) != field.default for field in fields(found))


def test_variables_are_filled_in_within_rules() -> None:
    text = LIST + 'rules = ["${OFFICE}", { cidr = "${HOME_IP}/32", description = "${WHO}" }]'
    (found,) = parse(text, OFFICE="203.0.113.7", HOME_IP="203.0.113.8", WHO="ann").allowlists
    assert found.rules == (
        AllowRule(IPv4Network("203.0.113.7"), ""),
        AllowRule(IPv4Network("203.0.113.8"), "ann"),
    )


def test_an_allowlist_alone_is_a_file_and_no_proxy() -> None:
    with pytest.raises(ConfigError, match="there is no tunnel"):
        select(parse(LIST + "my_ip = true"), [])
    assert parse("[heroku]\ndata_host = ' api.data.heroku.com '").heroku == HerokuConfig(None, "api.data.heroku.com")
    services = "services = ['https://a.example', 'http://[::1]:5/x', 'https://a.example']"
    assert parse(f"[my_ip]\n{services}\nsource = '127.0.0.9'").my_ip == MyIpConfig(
        ("https://a.example", "http://[::1]:5/x"), "127.0.0.9"
    )
    with pytest.raises(ConfigError, match="there is no tunnel"):
        parse("store = 'x'")


def test_an_addon_as_upstream() -> None:
    found = tunnel(TUNNEL)
    assert (found.addon, found.credential, found.upstream, found.login) == ("pg-1", "default", (), Login.CLIENT)
    found = tunnel(TUNNEL.replace('"heroku:pg-1"', '[" heroku:app::DATABASE/analyst"]') + 'source = "2001:DB8::1"')
    assert (found.addon, found.credential, found.source) == ("app::DATABASE", "analyst", "2001:db8::1")
    assert tunnel(TUNNEL.replace("pg-1", "5432")).addon is None


def test_an_addon_as_upstream_by_flags() -> None:
    (found,) = config_from_flags(
        listen="127.0.0.1:1", upstream=["heroku:pg-1"], cert="c", key="k", base=BASE, environ={}
    ).tunnels
    assert found.addon == "pg-1"


@pytest.mark.parametrize(
    "text",
    [
        TUNNEL + "allow_users = ['tableau']",
        TUNNEL + "allow_clients = ['127.0.0.1']",
        TUNNEL.replace("127.0.0.1:1", "unix:/x/.s.PGSQL.1"),
        TUNNEL.replace("127.0.0.1:1", "0.0.0.0:1") + "allow_clients = ['192.0.2.0/24']",
    ],
)
def test_a_door_without_a_password_says_whom_it_is_for(text: str) -> None:
    assert tunnel(text + '\nlogin = "heroku"').login is Login.HEROKU


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_a_door_without_a_password_is_not_left_open(listen: str, platform: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tunnel(TUNNEL.replace("127.0.0.1:1", listen) + 'login = "heroku"', platform=platform)
    assert caught.value.code is Code.CONFIG_OPEN_DOOR
    assert caught.value.sentence.startswith(f"{SOURCE}:7: tunnel.t.login: with login")
    assert "allow_users" in caught.value.hint


RULES = """\
rules = [  # who, "and why" [
    "203.0.113.7", { cidr = "203.0.113.8", description = "a ], b" },
    # nobody: "10.0.0.1"
    { description = '''two
lines''', cidr = "198.51.100.1" },
    @,
]
"""

BAD = [
    # Where it stands.
    (LIST + RULES.replace("@", '"1.1.1.1"'), "CONFIG_BAD_VALUE", ":6: allowlist.a.rules[2].description: "),
    (LIST + RULES.replace("two\n", "").replace("'''", "'").replace("@", '"203.0.113.9/24"'), "ALLOW_BAD_CIDR",
     ":7: allowlist.a.rules[3]: 203.0.113.9/24 has bits"),
    (LIST + "rules = ['1.1.1.1', '::1']", "ALLOW_IPV6", ':3: allowlist.a.rules[1]: "::1" is IPv6'),
    (LIST + "[[allowlist.a.rules]]\ncidr='1.1.1.1'\n[[allowlist.a.rules]]\ncidr='10.0.0.1'", "ALLOW_PRIVATE",
     ":5: allowlist.a.rules[1]: 10.0.0.1/32 is private"),
    (LIST + "rules = ['0.0.0.0/0']", "ALLOW_TOO_WIDE", "0.0.0.0/0 would let everybody in"),
    # Values.
    (LIST + "rules = ['x']\ncollapse = 1", "CONFIG_BAD_VALUE", ":4: allowlist.a.collapse: must be true or false"),
    (LIST + "rules = 'x'", "CONFIG_BAD_VALUE", ":3: allowlist.a.rules: must be a list"),
    (LIST + "rules = [5]", "CONFIG_BAD_VALUE", "rules[0]: must be a text in quotes or a table"),
    (LIST + "rules = [{ cidr = 5 }]", "CONFIG_BAD_VALUE", "rules[0].cidr: must be a text in quotes"),
    (LIST + "rules = [{ description = 'x' }]", "CONFIG_MISSING_KEY", "rules[0]: cidr is missing"),
    (LIST + "rules = [{ cidr = '1.1.1.1', descripton = 'x' }]", "CONFIG_UNKNOWN_KEY", 'did you mean "description"?'),
    (LIST + 'rules = [{ cidr = "1.1.1.1", description = "a\\nb" }]', "CONFIG_BAD_VALUE",
     "the description holds a control character"),
    (LIST + f"rules = [{{ cidr = '1.1.1.1', description = '{'x' * 201}' }}]", "CONFIG_BAD_VALUE", "is longer than 200"),
    (LIST + "rules = [{ cidr = '1.1.1.1', description = 'x [mtlskit:a/b]' }]", "CONFIG_BAD_VALUE", "the owner's tag"),
    (LIST + "rules_from = [' ']", "CONFIG_BAD_VALUE", 'rules_from[0]: " ": the path is empty'),
    (LIST + "rules_from = 'http://example.com/x'", "CONFIG_BAD_VALUE", "over http, anybody on the way"),
    (LIST + "rules_from = 'ftp://example.com/x'", "CONFIG_BAD_VALUE", "not a URL of https"),
    (LIST + "rules_from = 'https://ann:s3cret@example.com'", "CONFIG_BAD_VALUE", "a user or a password has no place"),
    (LIST + "rules_from = 'https://example.com:x'", "CONFIG_BAD_VALUE", "not a URL"),
    (LIST + "rules_from = 5", "CONFIG_BAD_VALUE", "must be a text in quotes or a list of them"),
    (LIST + "from_space = ['a b']", "CONFIG_BAD_VALUE", '"a b": not the name of a Private Space'),
    (LIST + "my_ip = true\nowner = 'a/b'", "CONFIG_BAD_VALUE", ':4: allowlist.a.owner: "a/b": not an owner'),
    (LIST.replace("postgresql-", "a b") + "my_ip = true", "CONFIG_BAD_VALUE", "not the name of an add-on"),
    # Keys.
    (LIST, "CONFIG_MISSING_KEY", ":1: allowlist.a: nobody is to be let in: none of rules, my_ip, rules_from"),
    (LIST + "rules = []\nmy_ip = false", "CONFIG_MISSING_KEY", "nobody is to be let in"),
    ("[allowlist.a]\naddons = []\nmy_ip = true", "CONFIG_BAD_VALUE", "addons: the list names no add-on"),
    ("[allowlist.a]\nmy_ip = true", "CONFIG_MISSING_KEY", "allowlist.a: addons is missing"),
    ("[allowlist]\naddons = ['x']", "CONFIG_BAD_VALUE", ":1: allowlist: the table has no name"),
    ("[allowlist.'a b']\naddons = ['x']\nmy_ip = true", "CONFIG_BAD_VALUE", "is not a usable name"),
    (LIST + "adons = []", "CONFIG_UNKNOWN_KEY", ':3: allowlist.a.adons: unknown key; did you mean "addons"?'),
    ("[heroku]\nhost = 'x'", "CONFIG_UNKNOWN_KEY", ":2: heroku.host: unknown key"),
    ("heroku = 5", "CONFIG_BAD_VALUE", ":1: heroku: must be a table"),
    ("[heroku]\napi_host = ''", "CONFIG_BAD_VALUE", 'heroku.api_host: "": not a host or a URL'),
    ("[heroku]\napi_host = 'https://ann:s3cret@x'", "CONFIG_BAD_VALUE", "a user or a password has no place"),
    ("[my_ip]\nservices = ['example.com']", "CONFIG_BAD_VALUE", 'my_ip.services[0]: "example.com": not a URL of https'),
    ("[my_ip]\nservices = ['https://']", "CONFIG_BAD_VALUE", "my_ip.services[0]: the host is missing"),
    ("[my_ip]\nsource = '::1'", "CONFIG_BAD_VALUE", 'my_ip.source: "::1": an IPv6 address is of no use here'),
    ("[my_ip]\nsource = 'eth0'", "CONFIG_BAD_VALUE", '"eth0": not an IP address'),
    # Tunnels.
    (TUNNEL.replace("pg-1", "pg 1"), "CONFIG_BAD_VALUE", '"heroku:pg 1": not the name of an add-on'),
    (TUNNEL.replace("pg-1", ""), "CONFIG_BAD_VALUE", '"heroku:": not the name of an add-on'),
    (TUNNEL.replace("pg-1", "pg-1/"), "CONFIG_BAD_VALUE", "not the name of a credential"),
    (TUNNEL.replace("pg-1", "pg-1/a/b"), "CONFIG_BAD_VALUE", "not the name of a credential"),
    (TUNNEL.replace('"heroku:pg-1"', '["db", "heroku:pg-1"]'), "CONFIG_BAD_VALUE", "upstream[1]: an add-on as"),
    (TUNNEL.replace("postgres", "tcp"), "CONFIG_BAD_VALUE", "a tcp tunnel takes no add-on as upstream"),
    (TUNNEL + "login = 'me'", "CONFIG_BAD_VALUE", ':7: tunnel.t.login: "me": not a way to log in'),
    (TUNNEL.replace("heroku:pg-1", "db") + "login = 'heroku'", "CONFIG_BAD_VALUE", "only an add-on as upstream"),
    (TUNNEL + "source = '0.0.0.0'", "CONFIG_BAD_VALUE", "not an address that a connection can start from"),
    (TUNNEL + "source = 'fe80::1%eth0'", "CONFIG_BAD_VALUE", "not an address that a connection can start from"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "part"), BAD, ids=range(len(BAD)))
def test_bad_input(text: str, code: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert part in caught.value.sentence
    assert caught.value.sentence.startswith(str(SOURCE))
    assert caught.value.code is Code[code]
    assert "\n" not in caught.value.sentence + caught.value.hint
    assert "s3cret" not in caught.value.sentence + caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (LIST, "add rules = [{ cidr = "),
        (LIST + "rules = [5]", "write rules = [{ cidr = "),
        ("collapse = true", "collapse belongs below a line [allowlist.NAME]"),
        ("data_host = 'x'", "data_host belongs below a line [heroku]"),
        ("services = []", "services belongs below a line [my_ip]"),
        ("[my_ip]\nx = 1", "the keys here are services, source"),
        (LIST + "rules = [{ x = 1, cidr = '' }]", "the keys here are cidr, description"),
        (TUNNEL.replace("heroku:pg-1", "db") + "login = 'heroku'", 'write upstream = "heroku:ADDON"'),
    ],
)
def test_hints_say_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert hint in caught.value.hint


def test_what_can_be_an_owner_is_written_down_twice() -> None:
    for text in ("", "a", "_", "-a", ".a", "a.b-c_d", "a/b", "a]", "x" * 63, "x" * 64, "é", "a\n"):
        assert is_owner_part(text) == (_OWNER.fullmatch(text) is not None), text


def test_a_configuration_costs_no_client_and_no_cryptography() -> None:
    program = (
        "import sys, pathlib; from mtlskit.config.loading import parse_config;"
        f"parse_config({LIST + 'my_ip = true'!r}, source=pathlib.Path('x'), environ={{}});"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'httpx', 'cryptography', 'trio', 'ssl'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@given(
    st.dictionaries(
        st.sampled_from(["addons", "rules", "my_ip", "rules_from", "from_space", "collapse", "owner"]),
        st.sampled_from(
            ["true", "[]", "'x'", "['x']", "['1.1.1.1']", "[{}]", "[{ cidr = '1.1.1.1' }]", "5", "{}", "[[]]"]
        ),
    )
)
def test_any_values_parse_or_are_refused(values: dict[str, str]) -> None:
    text = "[allowlist.a]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
    sentence = ""
    try:
        (found,) = parse(text).allowlists
    except ConfigError as exc:
        sentence = exc.sentence
    assert sentence.startswith(str(SOURCE)) or found.rules or found.my_ip or found.rules_from or found.spaces

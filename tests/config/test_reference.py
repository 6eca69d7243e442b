"""The reference page of the configuration keeps up with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from mtlskit.config.allowlists import LONGEST_DESCRIPTION
from mtlskit.config.builder import DEFAULT_STORE, MOST_CONNECTIONS
from mtlskit.config.cidrs import WIDEST_PREFIX
from mtlskit.config.durations import parse_duration
from mtlskit.config.flags import FLAGS
from mtlskit.config.identities import KEY_TYPES, MOST_NAMES
from mtlskit.config.kafka import MOST_BROKERS
from mtlskit.config.loading import parse_config
from mtlskit.config.schema import (
    AllowlistTable,
    Document,
    HerokuTable,
    HooksTable,
    IdentityTable,
    MyIpTable,
    RuleTable,
    TimeoutsTable,
    TunnelTable,
)
from mtlskit.config.upstreams import MOST_UPSTREAMS
from mtlskit.config.values import (
    ExpiringSessions,
    Hooks,
    IssuerConfig,
    IssuerKind,
    KafkaDoors,
    Timeouts,
    TunnelConfig,
    Verify,
    VerifyMode,
)
from mtlskit.errors import ConfigError

PAGE = (Path(__file__).parents[2] / "docs/reference/configuration.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(# mtlskit.toml\n.*?)```", PAGE, re.DOTALL)


def section(title: str) -> str:
    """The text below the heading `title`, down to the next heading of its rank or above."""
    rank, _, _ = title.partition(" ")
    _, found, rest = PAGE.partition(f"\n{title}\n")
    assert found, f"no section {title}"
    return re.split(rf"\n#{{2,{len(rank)}}} ", rest)[0]


def rows(text: str) -> dict[str, str]:
    """The keys in the first column of the tables in `text`, each with the default in the second."""
    found = re.findall(r"^\| (`[^|]*) \| ([^|]*) \|", text, re.MULTILINE)
    return {key: default for keys, default in found for key in re.findall(r"`([^`]+)`", keys)}


@pytest.mark.parametrize(
    ("title", "table"),
    [
        ("## `[identity.NAME]`", IdentityTable),
        ("## `[tunnel.NAME]`", TunnelTable),
        ("### `timeouts`", TimeoutsTable),
        ("## `[allowlist.NAME]`", AllowlistTable),
        ("### `rules`", RuleTable),
        ("## `[heroku]`", HerokuTable),
        ("## `[my_ip]`", MyIpTable),
        ("## `[hooks]`", HooksTable),
    ],
)
def test_every_key_is_documented_and_no_other(title: str, table: type[BaseModel]) -> None:
    text = section(title)
    if title.startswith("## "):
        text = text.partition("\n### ")[0]
    assert set(rows(text)) == set(table.model_fields)


def test_every_table_is_documented() -> None:
    alone = set(rows(section("## Keys outside of tables")))
    for name in set(Document.model_fields) - alone:
        section(f"## `[{name}]`" if name in ("hooks", "heroku", "my_ip") else f"## `[{name}.NAME]`")
    assert alone <= set(Document.model_fields)


def test_every_issuer_and_type_of_key_is_documented() -> None:
    issuers = re.findall(r'^\| `"([a-z]+)"` \|', section("### `issuer`"), re.MULTILINE)
    assert set(issuers) == {kind.value for kind in IssuerKind}
    told = re.search(r"^\| `key_type` .*$", section("## `[identity.NAME]`"), re.MULTILINE)
    assert told is not None
    assert set(re.findall(r'`"([a-z0-9-]+)"`', told[0].partition("is made. ")[2])) == set(KEY_TYPES)


def test_the_defaults_are_those_of_the_code() -> None:
    timeouts = {key: parse_duration(text.strip('`"')) for key, text in rows(section("### `timeouts`")).items()}
    assert Timeouts(**timeouts) == Timeouts()
    tunnel = rows(section("## `[tunnel.NAME]`").partition("\n### ")[0])
    assert tunnel["max_connections"] == f"`{TunnelTable.model_fields['max_connections'].default}`"
    assert tunnel["verify"] == f'`"{Verify().mode}"`; `"{VerifyMode.CA}"` for a Kafka of Heroku\'s'
    assert tunnel["last_broker_port"] == f"`{KafkaDoors.last_port}`"
    assert f"{MOST_BROKERS} at most" in section("### Brokers of a Kafka")
    assert tunnel["expiring_sessions"] == f'`"{ExpiringSessions.KEEP}"`'
    identity = rows(section("## `[identity.NAME]`"))
    assert identity["issuer"] == f'`"{IssuerConfig.kind}"`'
    assert identity["key_type"] == f'`"{IssuerConfig.key_type}"`'
    assert parse_duration(identity["command_timeout"].strip('`"')) == IssuerConfig.command_timeout
    assert parse_duration(rows(section("## `[hooks]`"))["timeout"].strip('`"')) == Hooks.timeout
    assert rows(section("## Keys outside of tables"))["store"] == f'`"{DEFAULT_STORE}"`'
    assert tunnel["login"] == f'`"{TunnelConfig.login}"`'
    assert f"wider than `/{WIDEST_PREFIX}`" in PAGE
    assert f"at most {LONGEST_DESCRIPTION} characters" in PAGE
    assert f"1 to {MOST_CONNECTIONS}" in PAGE
    assert f"at most {MOST_NAMES}" in PAGE
    assert f"{MOST_UPSTREAMS} at most" in PAGE


def test_every_flag_is_documented() -> None:
    documented = set(re.findall(r"`(--[a-z-]+)`", section("## Flags")))
    assert documented == set(FLAGS.values())


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_valid(example: str) -> None:
    environ = {"DATABASE_URL": "postgres://ann:secret@db.example.com/app", "HOME": "/home/ann"}
    assert parse_config(example, source=Path("mtlskit.toml"), environ=environ, platform="linux").tunnels


def test_the_examples_use_every_key() -> None:
    used = set(re.findall(r"([a-z_]+) *= ", "".join(EXAMPLES)))
    tables = (
        IdentityTable, TunnelTable, TimeoutsTable, HooksTable, AllowlistTable, RuleTable, HerokuTable, MyIpTable,
    )  # fmt: skip
    assert used == {key for table in tables for key in table.model_fields} | {"store", "control"}


def test_the_error_on_the_page_is_the_one_that_is_raised() -> None:
    slip = EXAMPLES[0].replace("listen ", "lisen ")
    with pytest.raises(ConfigError) as caught:
        parse_config(slip, source=Path("mtlskit.toml"), environ={"DATABASE_URL": "db"}, platform="linux")
    assert f"```text\n{caught.value.sentence}\n```" in PAGE

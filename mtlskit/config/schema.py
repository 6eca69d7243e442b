"""The shape of `mtlskit.toml`: its keys and their TOML types. What the values mean is decided in `builder`.

pydantic stays at this edge. Its error messages repeat what was given, so only their kind and place are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from mtlskit.config.origins import Origin, ValuePath, problem, spelled_key
from mtlskit.errors import Code, ConfigError

__all__ = [
    "EXAMPLES",
    "AllowlistTable",
    "Document",
    "HerokuTable",
    "HooksTable",
    "IdentityTable",
    "MyIpTable",
    "RuleTable",
    "TimeoutsTable",
    "TunnelTable",
    "check_shape",
]


def _text_or_texts(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        return value
    raise PydanticCustomError("kind", 'must be a text in quotes or a list of them: "…" or ["…", "…"]')


def _names_or_numbers(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, str | int) and not isinstance(item, bool) for item in value):
        return value
    raise PydanticCustomError("kind", 'must be a list of names or numbers: ["tableau", 1001]')


def _text_or_number(value: Any) -> Any:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return value
    raise PydanticCustomError("kind", 'must be a duration: "10s", "1h30m", or a number of seconds')


def _table_of_ports(value: Any) -> Any:
    # What is in it is looked at in `config.kafka`, which can name the one entry that is wrong.
    if isinstance(value, dict):
        return value
    raise PydanticCustomError("kind", "must be a table of node ids, each with a port: { 1001 = 9101 }")


def _rule_of_text(value: Any) -> Any:
    return {"cidr": value} if isinstance(value, str) else value


Duration = Annotated[Any, AfterValidator(_text_or_number)]
Texts = Annotated[Any, AfterValidator(_text_or_texts)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, frozen=True)


class IdentityTable(_Table):
    """`[identity.NAME]`."""

    issuer: str = "files"
    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    passphrase_file: str | None = None
    subject: str | None = None
    san: list[str] | None = None
    key_type: str | None = None
    ca_dir: str | None = None
    ca_passphrase_file: str | None = None
    lifetime: Duration = None
    command: list[str] | None = None
    command_timeout: Duration = None
    addon: str | None = None
    renew_before: Duration = None
    revoke_old: bool = False


class HooksTable(_Table):
    """`[hooks]`."""

    before_switch: list[str] | None = None
    after_switch: list[str] | None = None
    failed: list[str] | None = None
    timeout: Duration = None


class TimeoutsTable(_Table):
    """`timeouts` of a tunnel; what is absent keeps the default of `Timeouts`."""

    startup: Duration = None
    dial: Duration = None
    login: Duration = None
    linger: Duration = None
    drain: Duration = None


class TunnelTable(_Table):
    """`[tunnel.NAME]`."""

    kind: str
    listen: str
    upstream: Texts
    identity: str | None = None
    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    passphrase_file: str | None = None
    verify: str | None = None
    negotiation: str | None = None
    pins: list[str] = Field(default_factory=list)
    allow_clients: list[str] = Field(default_factory=list)
    allow_users: Annotated[Any, AfterValidator(_names_or_numbers)] = Field(default_factory=list)
    max_connections: int = 1000
    warm: int = 0
    expiring_sessions: str | None = None
    login: str | None = None
    source: str | None = None
    advertised: str | None = None
    first_broker_port: int | None = None
    last_broker_port: int | None = None
    first_broker_address: str | None = None
    brokers: Annotated[Any, AfterValidator(_table_of_ports)] = None
    timeouts: TimeoutsTable = TimeoutsTable()


class RuleTable(_Table):
    """An entry of `rules`; a text alone is its `cidr`."""

    cidr: str
    description: str = ""


class AllowlistTable(_Table):
    """`[allowlist.NAME]`."""

    addons: Texts
    rules: list[Annotated[RuleTable, BeforeValidator(_rule_of_text)]] = Field(default_factory=list)
    my_ip: bool = False
    rules_from: Texts = Field(default_factory=list)
    from_space: Texts = Field(default_factory=list)
    collapse: bool = False
    owner: str | None = None


class HerokuTable(_Table):
    """`[heroku]`."""

    api_host: str | None = None
    data_host: str | None = None


class MyIpTable(_Table):
    """`[my_ip]`."""

    services: list[str] = Field(default_factory=list)
    source: str | None = None


class Document(_Table):
    """The whole file."""

    store: str | None = None
    control: str | None = None
    hooks: HooksTable = HooksTable()
    heroku: HerokuTable = HerokuTable()
    my_ip: MyIpTable = MyIpTable()
    identity: dict[str, IdentityTable] = Field(default_factory=dict)
    tunnel: dict[str, TunnelTable] = Field(default_factory=dict)
    allowlist: dict[str, AllowlistTable] = Field(default_factory=dict)


EXAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "kind": '"postgres"',
        "listen": '"127.0.0.1:6432"',
        "upstream": '"${DATABASE_URL}"',
        "cert": '"client.crt"',
        "key": '"client.key"',
        "ca": '"root.crt"',
        "passphrase_file": '"client.passphrase"',
        "identity": '"NAME"',
        "issuer": '"files"',
        "verify": '"full"',
        "negotiation": '"sslrequest"',
        "pins": '["sha256/BASE64"]',
        "allow_clients": '["10.0.0.0/8"]',
        "allow_users": '["tableau", 1001]',
        "max_connections": "1000",
        "warm": "10",
        "expiring_sessions": '"keep"',
        "subject": '"CN=reporting"',
        "san": '["DNS:bi.example.com"]',
        "key_type": '"ec-p256"',
        "ca_dir": '"ca"',
        "ca_passphrase_file": '"ca.passphrase"',
        "lifetime": '"90d"',
        "command": '["sign-request", "--profile", "client"]',
        "command_timeout": '"60s"',
        "addon": '"postgresql-curved-12345"',
        "renew_before": '"30d"',
        "revoke_old": "true",
        "store": '"identities"',
        "control": '"/run/mtlskit"',
        "before_switch": '["PROGRAM", "ARGUMENT"]',
        "after_switch": '["PROGRAM", "ARGUMENT"]',
        "failed": '["PROGRAM", "ARGUMENT"]',
        "timeout": '"60s"',
        "login": '"client"',
        "source": '"192.0.2.10"',
        "advertised": '"host.docker.internal"',
        "first_broker_port": "9093",
        "last_broker_port": "9200",
        "first_broker_address": '"127.0.1.0"',
        "brokers": "{ 1001 = 9101 }",
        "addons": '["postgresql-curved-12345"]',
        "rules": '[{ cidr = "203.0.113.7", description = "office" }]',
        "cidr": '"203.0.113.7"',
        "description": '"office"',
        "my_ip": "true",
        "rules_from": '"https://example.com/addresses.json"',
        "from_space": '"SPACE"',
        "collapse": "true",
        "owner": '"web-1"',
        "api_host": '"https://api.heroku.com"',
        "data_host": '"https://api.data.heroku.com"',
        "services": '["https://checkip.amazonaws.com"]',
    }
)
"""What to write for a key that is missing or of another type, in TOML. Deadlines: `_DURATION`."""

_DURATION = '"10s"'

_NAMED: Mapping[str, type[_Table]] = MappingProxyType(
    {"tunnel": TunnelTable, "identity": IdentityTable, "allowlist": AllowlistTable}
)
"""Tables that have names, `[tunnel.NAME]`."""

_SINGLE: Mapping[str, type[_Table]] = MappingProxyType({"hooks": HooksTable, "heroku": HerokuTable, "my_ip": MyIpTable})

_SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "string_type": "must be a text in quotes",
        "int_type": "must be a whole number",
        "bool_type": "must be true or false",
        "list_type": 'must be a list: ["…", "…"]',
    }
)


def check_shape(document: Mapping[str, object], origin: Origin) -> Document:
    """Check keys and types of `document`.

    Raises `ConfigError` for the problem that stands first: CONFIG_UNKNOWN_KEY, CONFIG_MISSING_KEY or CONFIG_BAD_VALUE.
    """
    _refuse_nameless(document, origin)
    try:
        return Document.model_validate(document)
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_context=False, include_input=False)
        # Only the one that is raised is put into words: a large file can hold a hundred thousand of them.
        # A key that is misspelled is unknown, and mostly missing too: the first says it better.
        found = [details for details in found if details["type"] == "extra_forbidden"] or found
        first = min(found, key=lambda details: origin.order(details["loc"]))
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        told = _tell(first, origin)
        raise ConfigError(told.code, f"{told.sentence}{more}", told.hint) from exc


def _refuse_nameless(document: Mapping[str, object], origin: Origin) -> None:
    """`[tunnel]` where `[tunnel.NAME]` is meant: each of its keys would be called a tunnel, and wrong."""
    for section, table in _NAMED.items():
        entries = document.get(section)
        if not isinstance(entries, dict):
            continue
        if any(key in table.model_fields and not isinstance(value, dict) for key, value in entries.items()):
            raise problem(origin, (section,), "the table has no name", f"name the table: [{section}.NAME]")


def _tell(details: ErrorDetails, origin: Origin) -> ConfigError:
    path: ValuePath = details["loc"]
    key = str(path[-1])
    match details["type"]:
        case "extra_forbidden":
            return _unknown_key(path, origin)
        case "missing":
            return problem(
                origin,
                path[:-1],
                f"{origin.name_of(key)} is missing",
                f"add {origin.spell(key, EXAMPLES[key])}",
                code=Code.CONFIG_MISSING_KEY,
            )
        case "kind":
            return problem(origin, path, details["msg"], _example(path, origin))
        case "model_type" if isinstance(path[-1], int):
            return problem(origin, path, "must be a text in quotes or a table", _example(path, origin))
        case "model_type" if len(path) == 1:
            return problem(origin, path, "must be a table", f"begin it with [{key}] on a line of its own")
        case "model_type" if len(path) == 2:
            return problem(origin, path, "must be a table", f"begin it with [{path[0]}.NAME] on a line of its own")
        case "model_type":
            return problem(origin, path, "must be a table", f'write {key} = {{ startup = "10s" }}')
        case "dict_type":
            return problem(
                origin, path, "must be a table of tables", f"name the table: [{key}.NAME], in single brackets"
            )
        case other:
            return problem(origin, path, _SENTENCES.get(other, "is not of the expected kind"), _example(path, origin))


def _example(path: ValuePath, origin: Origin) -> str:
    """How the value at `path` is written: the key's example, whatever entry of a list is meant."""
    key = next(part for part in reversed(path) if isinstance(part, str))
    return f"write {origin.spell(key, EXAMPLES.get(key, _DURATION))}"


def _unknown_key(path: ValuePath, origin: Origin) -> ConfigError:
    key = str(path[-1])[:64]
    allowed = _keys_around(path)
    near = get_close_matches(key, allowed, n=1)
    meant = f'; did you mean "{near[0]}"?' if near else ""
    hint = f"the keys here are {', '.join(allowed)}"
    if not near and len(path) == 1:
        # "failed" is near to nothing at the top, and all keys of hooks are found in one table only.
        named = {f"{section}.NAME": table for section, table in _NAMED.items()}
        for line, table in (named | dict(_SINGLE)).items():
            if key in table.model_fields:
                hint = f"{spelled_key(key)} belongs below a line [{line}]"
                break
    return problem(origin, path, f"unknown key{meant}", hint, code=Code.CONFIG_UNKNOWN_KEY)


def _keys_around(path: ValuePath) -> list[str]:
    match path:
        case (_,):
            return list(Document.model_fields)
        case (str(section), _) if section in _SINGLE:
            return list(_SINGLE[section].model_fields)
        case ("tunnel", _, "timeouts", _):
            return list(TimeoutsTable.model_fields)
        case ("allowlist", _, "rules", _, _):
            return list(RuleTable.model_fields)
        case _:
            return list(_NAMED[str(path[0])].model_fields)

"""`mtlskit proxy` in this process: what becomes of flags, variables and errors, up to where it would serve."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mtlskit.cli import proxy as command
from mtlskit.cli.main import app
from mtlskit.config.values import KafkaDoors, ProxyConfig, TcpAddress, TunnelKind, VerifyMode
from mtlskit.errors import Code, ConfigError, UpstreamLost

FLAGS = ("--listen", "127.0.0.1:0", "--upstream", "db.example.com", "--cert", "c.pem", "--key", "k.pem")
FILE = """
[tunnel.one]
kind = "postgres"
listen = "127.0.0.1:0"
upstream = "db.example.com"
cert = "c.pem"
key = "k.pem"
ca = "ca.pem"

[tunnel.two]
kind = "tcp"
listen = "127.0.0.1:0"
upstream = "db.example.com:1"
cert = "c.pem"
key = "k.pem"
ca = "ca.pem"
"""
FORGED = ConfigError(Code.USAGE, "no\nway\x1b[31m", "go\non")

Run = Callable[..., Result]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ProxyConfig, Path | None]]:
    """What would have been served."""
    calls: list[tuple[ProxyConfig, Path | None]] = []
    monkeypatch.setattr(command, "_run", lambda config, ready_file, emit: calls.append((config, ready_file)))
    return calls


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in an empty folder, with no variables but those given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    runner = CliRunner()

    def invoke(*arguments: str, **environment: str) -> Result:
        return runner.invoke(app, ["proxy", *arguments], env=environment)

    return invoke


Started = list[tuple[ProxyConfig, Path | None]]


def test_flags_describe_one_tunnel(run: Run, started: Started, tmp_path: Path) -> None:
    result = run(
        *FLAGS, "--ca", "ca.pem", "--verify", "ca", "--allow-user", "0", "--max-connections", "5", "--ready-file", "r"
    )
    assert result.exit_code == 0, result.output
    ((config, ready_file),) = started
    (tunnel,) = config.tunnels
    assert tunnel.listen == TcpAddress("127.0.0.1", 0)
    assert tunnel.identity.cert == tmp_path / "c.pem"
    assert (tunnel.verify.mode, tunnel.max_connections, tunnel.allow_users) == (VerifyMode.CA, 5, ("0",))
    assert ready_file == Path("r")


def test_flags_describe_a_kafka_tunnel(run: Run, started: Started) -> None:
    upstream = ("--upstream", "kafka+ssl://b1.example.com:9096,kafka+ssl://b2.example.com:9096", "--ca", "ca.pem")
    doors = ("--advertised", "host.docker.internal", "--first-broker-port", "9000")
    result = run("--kind", "kafka", *FLAGS[:2], *FLAGS[4:], *upstream, *doors)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    ((config, _),) = started
    (tunnel,) = config.tunnels
    assert (tunnel.kind, tunnel.verify.mode) == (TunnelKind.KAFKA, VerifyMode.CA)
    assert [str(endpoint) for endpoint in tunnel.upstream] == ["b1.example.com:9096", "b2.example.com:9096"]
    assert tunnel.kafka == KafkaDoors(advertised="host.docker.internal", first_port=9000)


def test_variables_stand_in_for_flags_and_flags_count_more(run: Run, started: Started) -> None:
    result = run(
        "--listen",
        "127.0.0.1:7000",
        MTLSKIT_LISTEN="127.0.0.1:6000",
        MTLSKIT_UPSTREAM="db1.example.com db2.example.com:1",
        MTLSKIT_CERT="c.pem",
        MTLSKIT_KEY="k.pem",
        MTLSKIT_KIND="postgres",
        MTLSKIT_READY_FILE="ready",
    )
    assert result.exit_code == 0, result.output
    ((config, ready_file),) = started
    assert config.tunnels[0].listen == TcpAddress("127.0.0.1", 7000)
    assert [str(endpoint) for endpoint in config.tunnels[0].upstream] == ["db1.example.com:5432", "db2.example.com:1"]
    assert ready_file == Path("ready")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [((), ["one", "two"]), (("two",), ["two"]), (("--config", "other.toml"), ["one", "two"])],
)
def test_the_file_describes_tunnels(
    run: Run, started: Started, tmp_path: Path, arguments: tuple[str, ...], names: list[str]
) -> None:
    for name in ("mtlskit.toml", "other.toml"):
        (tmp_path / name).write_text(FILE)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert [tunnel.name for tunnel in started[0][0].tunnels] == names


def test_a_variable_names_the_file(run: Run, started: Started, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.toml").write_text(FILE)
    assert run(MTLSKIT_CONFIG="elsewhere.toml").exit_code == 0
    assert started[0][0].source == Path("elsewhere.toml")


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "part"),
    [
        ((), {}, "MTLS-CFG-001", "there is no configuration file"),
        (("--config", "missing.toml"), {}, "MTLS-CFG-001", "missing.toml"),
        (("one", *FLAGS), {}, "MTLS-CFG-012", "TUNNEL one and --listen"),
        (("--config", "x.toml", *FLAGS), {}, "MTLS-CFG-012", "--config x.toml and --listen"),
        (("one", *FLAGS), {"MTLSKIT_CA": "x"}, "MTLS-CFG-012", "TUNNEL one and --listen exclude each other"),
        (("postgres://a:s3cret@h", *FLAGS), {}, "MTLS-CFG-012", "TUNNEL … and --listen exclude each other"),
        (FLAGS[2:], {}, "MTLS-CFG-006", "--listen"),
        ((*FLAGS, "--kind", "kafka"), {}, "MTLS-CFG-005", '--upstream: "db.example.com": the port is missing'),
        ((*FLAGS, "--advertised", "h"), {}, "MTLS-CFG-005", "--advertised: only a kafka tunnel"),
        (("--first-broker-port", "x", *FLAGS), {}, "MTLS-CFG-012", "--first-broker-port x: must be a whole number"),
        ((*FLAGS, "--pin", "md5/x"), {}, "MTLS-CFG-005", "--pin"),
        (("--listen", "0.0.0.0:6432", *FLAGS[2:]), {}, "MTLS-CFG-008", "--allow-client"),
        (("--warm", "x", *FLAGS), {}, "MTLS-CFG-012", "error: --warm x: must be a whole number"),
        (("--max-connections", "1" * 5000, *FLAGS), {}, "MTLS-CFG-012", "must be a whole number"),
        (("--log", "yaml"), {}, "MTLS-CFG-012", "error: --log yaml: not a format of the log"),
        ((), {"MTLSKIT_LOG": "yaml"}, "MTLS-CFG-012", "--log yaml"),
        (("--nosuch",), {}, "MTLS-CFG-012", "error: --nosuch: there is no such option"),
        (("--listn", "x"), {}, "MTLS-CFG-012", "did you mean --listen?"),
        (("--ca",), {}, "MTLS-CFG-012", "error: --ca lacks its value"),
        (("--quiet=1",), {}, "MTLS-CFG-012", "error: --quiet takes no value"),
        (("--ca", "a", "--ca", "b"), {}, "MTLS-CFG-012", "error: --ca is given more than once"),
        (("--ca=a", "--ca", "b"), {}, "MTLS-CFG-012", "error: --ca is given more than once"),
        (("-ca", "--config", "b"), {}, "MTLS-CFG-012", "error: --config is given more than once"),
    ],
)
def test_wrong_usage_is_one_line_and_a_hint_with_status_2(
    run: Run, started: Started, arguments: tuple[str, ...], environment: dict[str, str], code: str, part: str
) -> None:
    result = run(*arguments, **environment)
    assert (result.exit_code, result.stdout, started) == (2, "", [])
    error, hint = result.stderr.splitlines()
    assert re.fullmatch(rf"error: .+ \[{code}\]", error), error
    assert part in error
    assert re.fullmatch(r"hint:  .+", hint)


LEFT_OVER = [
    (
        (),
        {"MTLSKIT_UPSTREAM": "db"},
        "MTLSKIT_UPSTREAM is set, so the configuration file is not read: --listen is missing",
        "for the file: unset MTLSKIT_UPSTREAM; to do without one: add --listen 127.0.0.1:6432",
    ),
    (
        (),
        {"MTLSKIT_CERT": "c", "MTLSKIT_KEY": "k", "MTLSKIT_VERIFY": "x"},
        "MTLSKIT_CERT, MTLSKIT_KEY and MTLSKIT_VERIFY are set, so the configuration file is not read: --listen is",
        "for the file: unset MTLSKIT_CERT MTLSKIT_KEY MTLSKIT_VERIFY; ",
    ),
    (
        ("one",),
        {"MTLSKIT_UPSTREAM": "db"},
        "TUNNEL one and the environment exclude each other: MTLSKIT_UPSTREAM is set, for a tunnel without a file",
        "unset MTLSKIT_UPSTREAM",
    ),
    (
        ("--config", "mtlskit.toml"),
        {"MTLSKIT_CERT": "c", "MTLSKIT_KEY": "k"},
        "--config mtlskit.toml and the environment exclude each other: MTLSKIT_CERT and MTLSKIT_KEY are set, for",
        "unset MTLSKIT_CERT MTLSKIT_KEY",
    ),
]


@pytest.mark.parametrize(("arguments", "environment", "sentence", "hint"), LEFT_OVER)
def test_a_variable_that_keeps_the_file_from_being_read_is_named(
    run: Run,
    started: Started,
    tmp_path: Path,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    sentence: str,
    hint: str,
) -> None:
    (tmp_path / "mtlskit.toml").write_text(FILE)
    result = run(*arguments, **environment)
    assert (result.exit_code, started) == (2, [])
    error, advice = result.stderr.splitlines()
    assert error.startswith(f"error: {sentence}"), error
    assert advice.startswith(f"hint:  {hint}"), advice


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (FLAGS[2:], {"MTLSKIT_CA": "x"}),  # the flags say that no file is meant
        ((), {"MTLSKIT_LISTEN": "1", "MTLSKIT_UPSTREAM": "db", "MTLSKIT_CERT": "c", "MTLSKIT_KEY": "k"}),
    ],
)
def test_variables_are_not_blamed_where_they_are_meant(
    run: Run, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    result = run(*arguments, **environment)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --listen")
    assert "unset" not in result.stderr


@pytest.mark.parametrize(
    ("word", "there_is_a_file", "hint"),
    [
        ("t.toml", True, "--config t.toml"),
        ("T.TOML", False, "--config T.TOML"),
        ("my t.toml", False, "--config 'my t.toml'"),
        ("postgres://a:s3cret@h/x.toml", False, "--config FILE"),
        ("tunnels", False, "--config tunnels"),
        ("tunnels", True, "--config tunnels"),
    ],
)
def test_a_file_in_the_place_of_a_tunnel(
    run: Run, started: Started, tmp_path: Path, word: str, there_is_a_file: bool, hint: str
) -> None:
    (tmp_path / "tunnels").write_text(FILE)
    if there_is_a_file:
        (tmp_path / "mtlskit.toml").write_text(FILE)
    result = run("one", word) if there_is_a_file else run(word)
    assert (result.exit_code, started) == (2, [])
    assert "a file, where the name of a tunnel belongs [MTLS-CFG-012]" in result.stderr
    assert result.stderr.endswith(f"hint:  for a file: {hint}\n")
    assert "s3cret" not in result.stderr


def test_a_tunnel_that_is_called_like_a_file(run: Run, started: Started, tmp_path: Path) -> None:
    for name in ("mtlskit.toml", "one"):
        (tmp_path / name).write_text(FILE)
    assert run("one").exit_code == 0
    assert [tunnel.name for tunnel in started[0][0].tunnels] == ["one"]


@pytest.mark.parametrize("arguments", [("--no-such-flag",), ("--max-connections", "many", *FLAGS), ("--log", "xml")])
def test_an_option_that_does_not_exist_exits_with_status_2(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert arguments[0] in result.stderr


def test_what_looks_like_a_repeated_option_and_is_none(run: Run, started: Started) -> None:
    """A value that is spelled like an option, an option that repeats, words after the two dashes."""
    result = run(*FLAGS[:4], "--upstream", "db2", "--cert", "--ca", "--key", "k.pem", "--ca", "c")
    assert result.exit_code == 0, result.output
    assert started[0][0].tunnels[0].identity.cert.name == "--ca"
    assert run("--config", "x", "--", "--config", "--config").stderr.startswith("error: x: there is no such file")


PASSWORD = "postgres://ann:s3cret@db/app"


@pytest.mark.parametrize(
    ("arguments", "environment", "warned"),
    [
        (("--upstream", PASSWORD), {}, True),
        (("--upstream", "db", "--upstream", PASSWORD), {}, True),
        (("--upstream", "postgres://db/app?password=s3cret"), {}, True),
        (("--upstream", "postgres://ann@db/app"), {}, False),
        ((), {"MTLSKIT_UPSTREAM": PASSWORD}, False),
    ],
)
def test_a_password_on_the_command_line_is_warned_of(
    run: Run, started: Started, arguments: tuple[str, ...], environment: dict[str, str], warned: bool
) -> None:
    result = run(*FLAGS[:2], *FLAGS[4:], *arguments, **environment)
    assert (result.exit_code, len(started)) == (0, 1)
    text = (
        "warning: --upstream holds a password, which other users of this host can read in the process list;"
        " hand the URL over in MTLSKIT_UPSTREAM\n"
    )
    assert result.stderr == (text if warned else "")


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("--log", "json"), {}),
        (("--log=json", "--nosuch"), {}),
        (("--ca", "a", "--ca", "b"), {"MTLSKIT_LOG": "json"}),
    ],
)
def test_errors_are_json_where_the_log_is(run: Run, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    (line,) = run(*arguments, **environment).stderr.splitlines()
    told = json.loads(line)
    assert list(told) == ["time", "level", "event", "message", "code", "reason", "hint"]
    assert (told["level"], told["event"]) == ("error", "error")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("prxy",),
            "error: prxy: there is no such command; did you mean proxy? [MTLS-CFG-012]\nhint:  the commands are",
        ),
        (("postgres://a:s3cret@h",), "error: …: there is no such command [MTLS-CFG-012]\nhint:  the commands are"),
        (
            ("help",),
            "error: help: there is no such command [MTLS-CFG-012]\nhint:  the commands are demo, proxy, status, ",
        ),
        (("--nope",), "error: --nope: there is no such option [MTLS-CFG-012]\nhint:  see mtlskit --help\n"),
        (("sandbox",), "error: --dir is missing [MTLS-CFG-012]\nhint:  add --dir DIR, or set MTLSKIT_SANDBOX_DIR\n"),
        (("demo", "x"), "error: got unexpected extra argument"),
        (("demo", "postgres://a:s3cret@h"), "error: … [MTLS-CFG-012]\n"),
    ],
)
def test_wrong_usage_of_the_other_commands(arguments: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(told)


def test_completion_still_works() -> None:
    environment = {"_MTLSKIT_COMPLETE": "complete_bash", "COMP_WORDS": "mtlskit proxy --lo", "COMP_CWORD": "2"}
    result = CliRunner().invoke(app, [], env=environment, prog_name="mtlskit")
    assert (result.exit_code, result.stdout.split()) == (0, ["--log"])


def test_a_password_in_an_upstream_is_not_repeated(run: Run) -> None:
    result = run(*FLAGS[:2], "--upstream", "postgres://ann:s3cret@db:port/x", *FLAGS[4:])
    assert result.exit_code == 2
    assert "s3cret" not in result.output


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        (FORGED, 2, "error: no\\nway\\x1b[31m [MTLS-CFG-012]\nhint:  go\\non\n"),
        (UpstreamLost(Code.TCP_RESET, "gone"), 1, "error: gone [MTLS-NET-005]\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            ExceptionGroup("", [ConfigError(Code.USAGE, "a"), ExceptionGroup("", [UpstreamLost(Code.TCP_RESET, "b")])]),
            2,
            "error: a [MTLS-CFG-012]\nerror: b [MTLS-NET-005]\n",
        ),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 130, ""),
    ],
)
def test_what_ends_the_command_becomes_a_status(
    run: Run, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, told: str
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(command, "_run", fail)
    result = run(*FLAGS)
    assert (result.exit_code, result.stderr) == (status, told)


def test_a_fault_of_ours_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_run", lambda *_: 1 / 0)
    assert isinstance(run(*FLAGS).exception, ZeroDivisionError | ExceptionGroup)


@pytest.mark.parametrize(
    ("flags", "levels"),
    [((), ["info", "warning"]), (("--quiet",), ["warning"]), (("--verbose",), ["debug", "info", "warning"])],
)
def test_the_log_has_the_levels_that_were_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], levels: list[str]
) -> None:
    from mtlskit.proxy.events import ClientLeft, DrainFinished, IdentityWarned

    def tell(config: object, ready_file: object, emit: Callable[[object], None]) -> None:
        for event in (
            ClientLeft(tunnel="t", client="c"),
            DrainFinished(cut=0),
            IdentityWarned(tunnel="t", warning="w"),
        ):
            emit(event)

    monkeypatch.setattr(command, "_run", tell)
    lines = run(*FLAGS, "--log", "json", *flags).stderr.splitlines()
    assert [json.loads(line)["level"] for line in lines] == levels
    lines = run(*FLAGS, *flags).stderr.splitlines()
    assert [line.split()[1] for line in lines] == levels


def test_the_folder_of_the_control_socket(
    run: Run, started: list[tuple[ProxyConfig, Path | None]], tmp_path: Path
) -> None:
    """The flag counts more than its variable, and that more than the file."""
    (tmp_path / "mtlskit.toml").write_text('control = "of-the-file"\n' + FILE)
    run()
    run(MTLSKIT_CONTROL="~/of-the-variable")
    run("--control", "of-the-flag", MTLSKIT_CONTROL="of-the-variable")
    run(*FLAGS)
    run(*FLAGS, "--control", "of-the-flag")
    home = tmp_path / "home"
    assert [config.control for config, _ in started] == [
        *(tmp_path / "of-the-file", home / "of-the-variable", Path("of-the-flag"), None, Path("of-the-flag")),
    ]

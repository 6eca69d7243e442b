"""`mtlskit proxy`: run tunnels, from the configuration file or from flags."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtlskit.cli.options import LogOption, QuietOption, VerboseOption, log_sink, wants_json
from mtlskit.cli.render import reported, warn
from mtlskit.cli.usage import password_warning, typed, whole_number

if TYPE_CHECKING:
    from mtlskit.config.values import ProxyConfig
    from mtlskit.telemetry import Emit

__all__ = ["EPILOG", "proxy"]

# "\b" keeps the lines of a paragraph as they are.
EPILOG = """\b
Examples:
  mtlskit proxy                      every tunnel of ./mtlskit.toml
  mtlskit proxy reporting            one of them
  mtlskit proxy --listen 127.0.0.1:6432 --upstream db.example.com:5432 \\
      --cert client.crt --key client.key --ca root.crt

\b
Signals:
  SIGTERM, SIGINT   let the sessions finish; a second one ends them at once
  SIGHUP            load the certificates again, and retry what did not start"""


def _option(metavar: str, text: str, *names: str, envvar: str | None = None) -> Any:
    return typer.Option(*names, metavar=metavar, envvar=envvar, help=text)


def proxy(
    ctx: typer.Context,
    tunnels: Annotated[list[str] | None, typer.Argument(metavar="TUNNEL", hidden=True)] = None,
    config: Annotated[
        Path | None,
        _option(
            "FILE",
            "Default: $MTLSKIT_CONFIG, ./mtlskit.toml, then mtlskit.toml in your configuration folder"
            " (~/.config/mtlskit on Linux).",
            "--config",
            "-c",
        ),
    ] = None,
    listen: Annotated[
        str | None,
        _option(
            "ADDR",
            "Run one tunnel without a file, on HOST:PORT (port 0: any) or unix:PATH.",
            envvar="MTLSKIT_LISTEN",
        ),
    ] = None,
    upstream: Annotated[
        list[str] | None,
        _option(
            "ADDR",
            "HOST:PORT or a postgres:// URL; repeatable, tried in order. A URL with a password belongs in the"
            " variable.",
            envvar="MTLSKIT_UPSTREAM",
        ),
    ] = None,
    cert: Annotated[
        str | None, _option("FILE", "The client certificate with its chain, PEM.", envvar="MTLSKIT_CERT")
    ] = None,
    key: Annotated[str | None, _option("FILE", "Its private key, PEM.", envvar="MTLSKIT_KEY")] = None,
    ca: Annotated[
        str | None,
        _option("FILE", "The CAs that the server is checked against, PEM. Default: the system's.", envvar="MTLSKIT_CA"),
    ] = None,
    passphrase_file: Annotated[
        str | None, _option("FILE", "A file with the key's passphrase.", envvar="MTLSKIT_PASSPHRASE_FILE")
    ] = None,
    kind: Annotated[str | None, _option("KIND", "postgres or tcp. Default: postgres.", envvar="MTLSKIT_KIND")] = None,
    verify: Annotated[
        str | None,
        _option(
            "MODE",
            "full (chain and host name), or with --ca: ca (chain), name:HOST (chain, and this name). Default: full.",
            envvar="MTLSKIT_VERIFY",
        ),
    ] = None,
    negotiation: Annotated[
        str | None, _option("HOW", "sslrequest, or direct for PostgreSQL 17 and later. Default: sslrequest.")
    ] = None,
    pin: Annotated[list[str] | None, _option("PIN", "sha256/BASE64 of the server's public key; repeatable.")] = None,
    allow_client: Annotated[
        list[str] | None, _option("CIDR", "Addresses that may connect; repeatable. Default: this host.")
    ] = None,
    allow_user: Annotated[
        list[str] | None, _option("USER", "Local users who may connect; repeatable. Default: all.")
    ] = None,
    max_connections: Annotated[str | None, _option("N", "Clients at once. Default: 1000.")] = None,
    warm: Annotated[str | None, _option("N", "Connections to keep ready, at most. Default: 0.")] = None,
    ready_file: Annotated[
        Path | None,
        _option(
            "FILE",
            "Write the real addresses here, as JSON, when all listeners accept.",
            envvar="MTLSKIT_READY_FILE",
        ),
    ] = None,
    log: LogOption = "text",
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take plain connections and forward them over mutual TLS.

    Runs the named tunnels of the configuration file, or all of them; or one tunnel that the flags describe.
    """
    flags = {
        "listen": listen,
        "upstream": upstream,
        "cert": cert,
        "key": key,
        "ca": ca,
        "passphrase_file": passphrase_file,
        "kind": kind,
        "verify": verify,
        "negotiation": negotiation,
        "pins": pin,
        "allow_clients": allow_client,
        "allow_users": allow_user,
        "max_connections": max_connections,
        "warm": warm,
    }
    given = {name: value for name, value in flags.items() if value is not None and value != []}
    with reported(as_json=wants_json(log)):
        emit = log_sink(log, quiet=quiet, verbose=verbose)
        chosen = _from_flags(given, tunnels, config) if given else _from_file(config, tunnels or [])
        if upstream and typed(ctx, "upstream"):
            _warn_of_passwords(upstream, as_json=wants_json(log))
        _run(chosen, ready_file, emit)


def _warn_of_passwords(upstream: list[str], *, as_json: bool) -> None:
    from mtlskit.config.upstreams import holds_password

    if any(holds_password(text) for text in upstream):
        warn(password_warning("--upstream", "MTLSKIT_UPSTREAM"), as_json=as_json)


def _from_flags(given: dict[str, Any], tunnels: list[str] | None, config: Path | None) -> ProxyConfig:
    from mtlskit.config.flags import FLAGS, config_from_flags
    from mtlskit.errors import Code, ConfigError

    if tunnels or config is not None:
        what = f"TUNNEL {tunnels[0]}" if tunnels else f"--config {config}"
        raise ConfigError(
            Code.USAGE,
            f"{what} and {FLAGS[next(iter(given))]} (or its environment variable) exclude each other",
            "run the tunnels of a file, or describe one tunnel with flags",
        )
    for name in ("max_connections", "warm"):
        if name in given:
            given = given | {name: whole_number(FLAGS[name], given[name])}
    required: dict[str, Any] = {"listen": None, "upstream": (), "cert": None, "key": None}
    return config_from_flags(**(required | given), base=Path.cwd(), environ=os.environ)


def _from_file(config: Path | None, tunnels: list[str]) -> ProxyConfig:
    from mtlskit.config.loading import load_config, select
    from mtlskit.config.locate import locate_config

    path = locate_config(config, cwd=Path(), environ=os.environ)
    return select(load_config(path, environ=os.environ), tunnels)


def _run(config: ProxyConfig, ready_file: Path | None, emit: Emit) -> None:
    import trio

    from mtlskit.proxy.events import ProxyReady
    from mtlskit.proxy.run import Proxy, run_proxy

    def announce(proxy: Proxy) -> None:
        emit(ProxyReady(tunnels=len(proxy.serving), failed=len(proxy.tunnels) - len(proxy.serving)))

    async def serve() -> None:
        await run_proxy(config, emit=emit, ready_path=ready_file, handle_signals=True, on_ready=announce)

    trio.run(serve)

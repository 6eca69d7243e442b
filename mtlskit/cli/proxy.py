"""`mtlskit proxy`: run tunnels, from the configuration file or from flags."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mtlskit.cli.control import ControlOption
from mtlskit.cli.options import LogOption, QuietOption, VerboseOption, log_sink, wants_json
from mtlskit.cli.render import reported
from mtlskit.cli.tunnel_flags import (
    CaOption,
    CertOption,
    KeyOption,
    KindOption,
    NegotiationOption,
    PassphraseFileOption,
    PinOption,
    UpstreamOption,
    VerifyOption,
    listed_as_set,
    path_of,
    refuse_both,
    refuse_files,
    sources_of,
    variables_of,
    warn_of_passwords,
)
from mtlskit.cli.usage import whole_number

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
  mtlskit proxy --kind kafka --listen 127.0.0.1:9092 \\
      --upstream b1.example.com:9096,b2.example.com:9096 \\
      --cert client.crt --key client.key --ca root.crt

\b
Signals:
  SIGTERM, SIGINT   let the sessions finish; a second one ends them at once
  SIGHUP            load the certificates again, and retry what did not start;
                    because its terminal was closed: as SIGTERM

`mtlskit status`, `reload` and `stop` speak to the running proxy."""


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
    upstream: UpstreamOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    ca: CaOption = None,
    passphrase_file: PassphraseFileOption = None,
    kind: KindOption = None,
    verify: VerifyOption = None,
    advertised: Annotated[
        str | None, _option("HOST", "The host that Kafka's clients are told. Default: the address they have reached.")
    ] = None,
    first_broker_port: Annotated[
        str | None, _option("PORT", "Kafka's broker N is found on PORT + N. Default: the port after the listener's.")
    ] = None,
    negotiation: NegotiationOption = None,
    pin: PinOption = None,
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
    control: ControlOption = None,
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
        "advertised": advertised,
        "first_broker_port": first_broker_port,
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
        if given:
            chosen = _from_flags(given, sources_of(ctx, given), tunnels, config)
        else:
            chosen = _from_file(config, tunnels or [])
        warn_of_passwords(ctx, upstream, as_json=wants_json(log))
        if control is not None:
            chosen = replace(chosen, control=path_of(control))
        _run(chosen, ready_file, emit)


def _from_flags(
    given: dict[str, Any], sources: dict[str, str], tunnels: list[str] | None, config: Path | None
) -> ProxyConfig:
    from mtlskit.config.flags import FLAGS, config_from_flags
    from mtlskit.errors import ConfigError

    refuse_both(sources, tunnels, config, "run the tunnels of a file, or describe one tunnel with flags")
    variables = variables_of(sources)
    for name in ("first_broker_port", "max_connections", "warm"):
        if name in given:
            given = given | {name: whole_number(FLAGS[name], given[name])}
    required: dict[str, Any] = {"listen": None, "upstream": (), "cert": None, "key": None}
    try:
        return config_from_flags(**(required | given), base=Path.cwd(), environ=os.environ)
    except ConfigError as exc:
        if not variables or required.keys() <= given.keys():
            raise
        raise ConfigError(
            exc.code,
            f"{listed_as_set(variables)}, so the configuration file is not read: {exc.sentence}",
            f"for the file: unset {' '.join(variables)}; to do without one: {exc.hint}",
        ) from exc


def _from_file(config: Path | None, tunnels: list[str]) -> ProxyConfig:
    from mtlskit.config.loading import load_config, select
    from mtlskit.config.locate import locate_config
    from mtlskit.errors import ConfigError

    refuse_files([word for word in tunnels if word.lower().endswith(".toml")])  # no tunnel has a dot in its name
    files = [word for word in tunnels if os.path.isfile(word)]  # noqa: PTH113 (Path.is_file raises for a NUL)
    try:
        path = locate_config(config, cwd=Path(), environ=os.environ)
    except ConfigError:
        refuse_files(files)
        raise
    loaded = load_config(path, environ=os.environ)
    known = {tunnel.name for tunnel in loaded.tunnels}
    refuse_files([word for word in files if word not in known])
    return select(loaded, tunnels)


def _run(config: ProxyConfig, ready_file: Path | None, emit: Emit) -> None:
    import trio

    from mtlskit.cli.addon_lookup import lookup_for
    from mtlskit.control.places import control_place
    from mtlskit.proxy.events import ProxyReady
    from mtlskit.proxy.run import Proxy, run_proxy

    def announce(proxy: Proxy) -> None:
        emit(ProxyReady(tunnels=len(proxy.serving), failed=len(proxy.tunnels) - len(proxy.serving)))

    place = control_place(config.control, os.environ)
    lookup = lookup_for(config, emit)

    async def serve() -> None:
        await run_proxy(
            config,
            emit=emit,
            ready_path=ready_file,
            control=place,
            lookup=lookup,
            handle_signals=True,
            on_ready=announce,
        )

    trio.run(serve)

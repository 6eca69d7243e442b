"""`mtlskit sandbox`: the local Private Space, until it is stopped."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mtlskit.cli.options import LogOption, QuietOption, VerboseOption, log_sink, wants_json
from mtlskit.cli.render import reported, warn
from mtlskit.cli.stopping import run_until_stopped
from mtlskit.cli.usage import password_warning, typed, whole_number

__all__ = ["EPILOG", "sandbox"]

_URL_VARIABLE = "MTLSKIT_SANDBOX_POSTGRES"

# "\b" keeps the lines of a paragraph as they are.
EPILOG = """\b
Examples:
  mtlskit sandbox --dir ./space                       runs until Ctrl-C
  . ./space/sandbox.env && psql "$DATABASE_URL"       in another terminal
  . ./space/sandbox.env && mtlskit heroku status "$MTLSKIT_SANDBOX_ADDON"
  mtlskit sandbox --dir ./space --speed-up 1          as slow as Heroku itself
  mtlskit sandbox --dir ./space --kafka-topic orders:6 --kafka-topic payments
  mtlskit sandbox --dir ./space --fault 429,times=3 --fault reset

It is ready when DIR/sandbox.json exists, which holds its addresses and the paths of a client identity. sandbox.env
leads a shell, and mtlskit in it, to the database and to the API in place of Heroku's. SIGTERM and SIGINT stop it; the
data, the rules and the identity stay in DIR for the next start."""


_Directory = Annotated[
    Path,
    typer.Option(
        "--dir",
        metavar="DIR",
        envvar="MTLSKIT_SANDBOX_DIR",
        show_default=False,
        help="Its folder; made where missing.",
    ),
]
_Postgres = Annotated[
    str | None,
    typer.Option(
        "--postgres",
        metavar="URL",
        envvar=_URL_VARIABLE,
        help="Put the gateway before this Postgres instead of a new one. A URL with a password belongs in the"
        " variable.",
    ),
]
_Listen = Annotated[
    str,
    typer.Option(
        "--listen",
        metavar="ADDR",
        show_default=False,
        help="Where the gateway listens; port 0: any free one. Default: 127.0.0.1:0.",
    ),
]
_ApiListen = Annotated[
    str,
    typer.Option(
        "--api-listen",
        metavar="ADDR",
        show_default=False,
        help="Where Heroku's API is played, on this machine only. Default: 127.0.0.1:0.",
    ),
]
_SpeedUp = Annotated[
    str,
    typer.Option(
        "--speed-up",
        metavar="N",
        show_default=False,
        help="How much faster than at Heroku things become ready. Default: 300, so that a rule takes 2 s and not"
        " 10 minutes.",
    ),
]
_Latency = Annotated[
    str,
    typer.Option(
        "--latency", metavar="TIME", show_default=False, help="Each answer of the API comes so much later: 100ms."
    ),
]
_Fault = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="NAME[=VALUE]",
        show_default=False,
        help="Something that goes wrong: html, hang, 500, 429, lose-before, lose-after, slow-rules, reset and"
        " others; with ,times=N only so often. Repeatable.",
    ),
]
_Addons = Annotated[
    str,
    typer.Option(
        "--addons",
        metavar="N",
        show_default=False,
        help="How many Postgres add-ons the API tells of. Default: 1.",
    ),
]
_KafkaBrokers = Annotated[
    str | None,
    typer.Option(
        "--kafka-brokers",
        metavar="N",
        show_default=False,
        help="How many Kafka brokers there are; 0: none. Default: 3, where confluent-kafka is installed.",
    ),
]
_KafkaTopic = Annotated[
    list[str] | None,
    typer.Option(
        "--kafka-topic",
        metavar="NAME[:PARTITIONS]",
        show_default=False,
        help="A Kafka topic that there is from the start, with 3 partitions. Repeatable.",
    ),
]
_KafkaPrefix = Annotated[
    str,
    typer.Option(
        "--kafka-prefix",
        metavar="PREFIX",
        show_default=False,
        help="Tell of a KAFKA_PREFIX, as a plan on a shared cluster does. The brokers do not insist on it.",
    ),
]
_KafkaListen = Annotated[
    str | None,
    typer.Option(
        "--kafka-listen",
        metavar="ADDR",
        show_default=False,
        help="Where the first Kafka broker listens; the others have the ports after it. Default: 127.0.0.1:0, any free"
        " ports.",
    ),
]
_Bare = Annotated[
    bool,
    typer.Option("--bare", help="A new one is as Heroku hands a database out: mutual TLS off, and nobody let in."),
]


def sandbox(
    ctx: typer.Context,
    directory: _Directory,
    postgres: _Postgres = None,
    listen: _Listen = "127.0.0.1:0",
    api_listen: _ApiListen = "127.0.0.1:0",
    speed_up: _SpeedUp = "300",
    latency: _Latency = "0",
    fault: _Fault = None,
    addons: _Addons = "1",
    bare: _Bare = False,
    kafka_brokers: _KafkaBrokers = None,
    kafka_topic: _KafkaTopic = None,
    kafka_prefix: _KafkaPrefix = "",
    kafka_listen: _KafkaListen = None,
    log: LogOption = "text",
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run a small Private Space on this machine: a real PostgreSQL, and Kafka, behind gateways that demand mutual TLS.

    A Private Space is Heroku's private network; its databases admit only clients that show a certificate and come from
    an address with an IP rule. Heroku's API for both is played beside it.
    """
    with reported(as_json=wants_json(log)):
        emit = log_sink(log, quiet=quiet, verbose=verbose)
        from mtlskit.cli.sandbox_values import kafka_options, loopback_address, number, seconds, tcp_address
        from mtlskit.config.upstreams import holds_password
        from mtlskit.proxy.limits import raise_descriptor_limit
        from mtlskit.sandbox.api.options import ApiOptions
        from mtlskit.sandbox.space import SpaceOptions, run_space

        if postgres is not None and typed(ctx, "postgres") and holds_password(postgres):
            warn(password_warning("--postgres", _URL_VARIABLE), as_json=wants_json(log))
        source = "--postgres" if typed(ctx, "postgres") else _URL_VARIABLE
        options = SpaceOptions(
            directory,
            postgres_url=postgres,
            url_source=source,
            listen=tcp_address("--listen", listen),
            api=ApiOptions(
                listen=loopback_address("--api-listen", api_listen),
                speed_up=number("--speed-up", speed_up),
                latency=seconds("--latency", latency),
                faults=tuple(fault or ()),
                addons=whole_number("--addons", addons),
                bare=bare,
            ),
            kafka=kafka_options(kafka_brokers, kafka_topic or (), kafka_prefix, kafka_listen),
        )
        raise_descriptor_limit()
        run_until_stopped(partial(run_space, options, emit=emit))

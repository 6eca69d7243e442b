"""The demo: the whole story on this machine, step by step, with real programs on both ends.

A host that nobody knows becomes one that is connected: mutual TLS is enabled, its address let in, a certificate issued,
a tunnel opened; the certificate is replaced under load, a tunnel to Kafka is opened as well, and the office gets a new
address. Heroku is played by the sandbox, some hundred times as quick; everything else is what the commands use.

Each step does something and looks at the result; a result that is not what the step is there to show ends the demo
with an error. Nothing here prints: steps, facts and the summary are told as values.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from mtlskit.allowlist.events import AddressBelieved, RuleRemoved, RulesActing
from mtlskit.config.loading import parse_config
from mtlskit.config.values import Endpoint, IdentityConfig, ProxyConfig, TcpAddress
from mtlskit.control.places import Place
from mtlskit.proxy.run import Proxy, run_proxy
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.sandbox.demo_client import DemoClient, offered_by_gateway, offered_by_tunnel, require_psycopg, unexpected
from mtlskit.sandbox.demo_heroku import Operator
from mtlskit.sandbox.demo_kafka import send_and_read
from mtlskit.sandbox.demo_load import under_load
from mtlskit.sandbox.demo_told import DemoFinished, Narrator, Tell
from mtlskit.sandbox.kafka import SpaceKafka
from mtlskit.sandbox.kafka_options import KafkaOptions, Topic
from mtlskit.sandbox.naive import run_naive_bridge
from mtlskit.sandbox.space import Space, SpaceOptions, run_space
from mtlskit.store.identities import Version
from mtlskit.telemetry import Event

__all__ = ["run_demo"]

E = TypeVar("E", bound=Event)

_PATIENCE = 30.0
"""Seconds for what the watcher does: it takes about two."""

_ROWS = 10_000
_RECORDS = 1_000
_TOPIC = "orders"
_CLIENTS = 8
"""That connect, ask and leave again and again, while the certificate is replaced."""
_SPEED_UP = 900
"""A rule that takes Heroku ten minutes takes two thirds of a second."""
_NEW_ADDRESS = "127.0.0.77"

_CONFIGURATION = """\
control = "control"

[identity.reporting]
issuer = "heroku"
addon  = "{addon}"
revoke_old = true

[allowlist.reporting]
addons = ["{addon}"]
my_ip  = true

[tunnel.reporting]
kind     = "postgres"
listen   = "127.0.0.1:0"
upstream = "heroku:{addon}"
identity = "reporting"
"""

_KAFKA_TUNNEL = """\
[tunnel.events]
kind     = "kafka"
listen   = "127.0.0.1:0"
upstream = "heroku:{addon}"
cert     = "{cert}"
key      = "{key}"
ca       = "{ca}"
"""


async def run_demo(tell: Tell, *, keep: bool = False) -> None:
    """Run the demo in a temporary folder that goes when it ends; with `keep`, stay up until cancelled.

    Raises MtlskitError when something cannot start or a step shows something else than it should.
    """
    await trio.to_thread.run_sync(require_psycopg)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mtlskit-demo-") as folder:
        async with trio.open_nursery() as nursery:
            story = _Story(Narrator(tell), nursery, Path(folder))
            await story.tell_all()
            shown = tuple(story.narrator.shown)
            tell(DemoFinished(time.monotonic() - began, shown, story.space, story.tunnel))
            if keep:
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()


class _Story:
    def __init__(self, narrator: Narrator, nursery: trio.Nursery, folder: Path) -> None:
        self.narrator = narrator
        self.space: Space
        self.tunnel: TcpAddress
        self._folder = folder
        self._nursery = nursery
        self._operator: Operator
        self._identity: IdentityConfig
        self._version: Version

    async def tell_all(self) -> None:
        await self._start_space()
        await self._enable()
        await self._let_in()
        await self._issue()
        await self._open_tunnel()
        await self._query()
        await self._show_stripping()
        await self._cancel()
        await self._rotate()
        if self.space.kafka is not None:
            await self._kafka(self.space.kafka)
        await self._move()
        await self._revoke()

    def _client(self, address: TcpAddress, **settings: str) -> DemoClient:
        space = self.space
        return DemoClient(address, user=space.user, password=space.password, database=space.database, **settings)

    async def _start_space(self) -> None:
        say = self.narrator
        say.step("Start a Private Space on this machine: PostgreSQL, and Heroku's API in small")
        say.fact("(a Private Space is Heroku's private network: its databases admit only clients with certificates)")
        # PostgreSQL does not run as root, and the user that it runs as then must be able to get there.
        options = SpaceOptions(
            self._folder / "space",
            api=ApiOptions(speed_up=_SPEED_UP, bare=True),
            keep_data=False,
            kafka=KafkaOptions(topics=(Topic(_TOPIC, 3),)),
        )
        self.space = await self._nursery.start(partial(run_space, options))
        text = _CONFIGURATION.format(addon=self.space.addon)
        file = self._folder / "mtlskit.toml"
        file.write_text(text, encoding="utf-8")
        config = parse_config(text, source=file, environ={})
        self._operator = Operator(self.space, config, self._folder / "state", Place(self._folder / "control"))
        say.fact(f"its database {self.space.addon} is behind a gateway on {self.space.gateway_address}")
        say.fact("what is wanted is written down once, in mtlskit.toml:", text)

    async def _enable(self) -> None:
        say = self.narrator
        say.step("Enable mutual TLS for the database, and wait (mtlskit heroku enable --wait)")
        first, last = await self._operator.enable()
        say.fact(f"{first}, then {last}; at Heroku this takes minutes, here it is {_SPEED_UP} times as quick")

    async def _let_in(self) -> None:
        say = self.narrator
        say.step("Let this host in: its address goes on the allowlist (mtlskit allowlist apply)")
        gateway = self.space.gateway_address
        silence = await self._client(gateway, sslmode="require").refusal(patience=2)
        say.fact("before, a client hears nothing at all:", silence)
        plan = await self._operator.let_in()
        [rule] = plan.addons[0].add
        say.fact(f"added {rule.cidr}, and waited until the rule acts")
        bare = await self._client(gateway, sslmode="require").refusal()
        say.fact("now it is heard, and asked for a certificate that it does not have:", bare)
        say.has_shown("the allowlist decides who is heard at all")

    async def _issue(self) -> None:
        say = self.narrator
        say.step("Get a client certificate (mtlskit certs issue)")
        _, self._version = await self._operator.rotate("first certificate")
        version, facts = self._version, self._version.facts
        [identity] = self._operator.config.identities
        self._identity = replace(identity, ca=identity.ca or version.root)
        say.fact(f"serial {facts.serial}, valid until {facts.not_after[:10]}, tried at the database before it was kept")
        say.fact(f"key and certificate are in {identity.cert.parent}")

    async def _open_tunnel(self) -> None:
        self.narrator.step("Open the door on localhost (mtlskit proxy)")
        # Long enough for any handshake here; where the gateway is silent, a client should not wait for long.
        [tunnel] = self._operator.config.tunnels
        tunnel = replace(tunnel, timeouts=replace(tunnel.timeouts, dial=2.0))
        self.tunnel = await self._start_proxy(replace(self._operator.config, tunnels=(tunnel,)), control=True)
        self.narrator.fact(f"plain Postgres on {self.tunnel}, mutual TLS to {self.space.gateway_address}")

    async def _start_proxy(self, config: ProxyConfig, *, control: bool = False) -> TcpAddress:
        run = partial(
            run_proxy,
            config,
            control=self._operator.control if control else None,
            lookup=self._operator.lookup,
        )
        proxy: Proxy = await self._nursery.start(run)
        address = proxy.tunnels[0].addresses[0]
        if not isinstance(address, TcpAddress):
            raise unexpected("the tunnel opened another listener than it was told to", str(address))
        return address

    async def _query(self) -> None:
        say = self.narrator
        say.step("Run queries through it with a plain client (psycopg, which is libpq)")
        report = await self._client(self.tunnel).work(_ROWS)
        say.fact(f"{report.version}, logged in as {report.user}; the client's own leg has no TLS")
        say.fact(f"{_ROWS:,} rows written with COPY and read back in {report.seconds:.2f} s, sum {report.total:,}")
        say.has_shown("through the tunnel, a plain client works, with SCRAM")

    async def _show_stripping(self) -> None:
        say = self.narrator
        say.step("See why it works: what the server offers, and what the client is told")
        before = await offered_by_gateway(self.space, self._identity)
        after = await offered_by_tunnel(self.tunnel, self.space)
        say.fact(f"the gateway offers {', '.join(before)}")
        say.fact(f"through the tunnel the client sees {', '.join(after)}")
        if before == after or not after:
            raise unexpected("the offer came through the tunnel unchanged", ", ".join(after))
        async with self._naive_bridge() as address:
            naive = await self._client(address).refusal()
        say.fact("through a TLS tunnel that forwards bytes as they are, the client gives up:", naive)
        if "SCRAM-SHA-256-PLUS" not in naive:
            raise unexpected("the naive tunnel failed for another reason", naive)
        say.has_shown("stripping SCRAM-SHA-256-PLUS is what makes it work")

    @asynccontextmanager
    async def _naive_bridge(self) -> AsyncIterator[TcpAddress]:
        space, identity = self.space, self._identity
        gateway = Endpoint(space.gateway_address.host, space.gateway_address.port)
        bridge = partial(run_naive_bridge, gateway, ca=space.ca, cert=identity.cert, key=identity.key)
        async with trio.open_nursery() as nursery:
            yield await nursery.start(bridge)
            nursery.cancel_scope.cancel()

    async def _cancel(self) -> None:
        say = self.narrator
        say.step("Cancel a query that would run for a minute")
        seconds, quote = await self._client(self.tunnel).cancelled_query()
        say.fact(f"cancelled after {seconds:.1f} s, over its own mutual-TLS connection:", quote)
        say.has_shown("a cancel request reaches the server")

    async def _rotate(self) -> None:
        say = self.narrator
        say.step(f"Replace the certificate while {_CLIENTS} clients are at work (mtlskit certs rotate)")
        async with under_load(self._client(self.tunnel), _CLIENTS) as load:
            outcome, version = await self._operator.rotate("asked for")
        if load.failures or not load.served:
            raise unexpected("clients noticed the rotation", load.failures[0] if load.failures else "nobody was served")
        old = await self._operator.status_of(self._version)
        if not old.startswith("disabl"):
            raise unexpected("the old certificate was not revoked", old)
        say.fact(f"serial {outcome.old_serial} was replaced by {version.facts.serial}, and is {old} at Heroku")
        say.fact(f"meanwhile {load.served} connections were served, and none failed")
        say.has_shown("a certificate is replaced under load, and no client notices")

    async def _kafka(self, kafka: SpaceKafka) -> None:
        say = self.narrator
        say.step("Open a door to Kafka as well: one for the cluster, and one for each broker")
        await self._operator.let_in_at(self.space.kafka_addon)
        cert, key = self.space.kafka_pair
        text = _KAFKA_TUNNEL.format(addon=self.space.kafka_addon, cert=cert, key=key, ca=self.space.ca)
        config = parse_config(text, source=self._folder / "kafka.toml", environ={})
        address = await self._start_proxy(config)
        theirs = tuple(map(str, kafka.addresses.values()))
        say.fact(f"the cluster tells its clients to go to {', '.join(theirs)}, where a certificate is wanted")
        report = await send_and_read(address, _TOPIC, _RECORDS)
        say.fact(f"through {address} they are told {', '.join(report.brokers)}, which are the tunnel's")
        say.fact(
            f"{_RECORDS:,} records sent and read back by a plain client (confluent-kafka) in {report.seconds:.1f} s"
        )
        if len(report.brokers) != len(theirs) or set(report.brokers) & set(theirs):
            raise unexpected("clients were told where the brokers are", ", ".join(report.brokers))
        say.has_shown("a Kafka client reaches every broker through the tunnel, and hears of no other way")

    async def _move(self) -> None:
        say = self.narrator
        say.step("The office gets a new address (mtlskit allowlist watch)")
        self.space.move("127.0.0.1", _NEW_ADDRESS)
        locked_out = await self._client(self.tunnel).refusal()
        say.fact(f"it is {_NEW_ADDRESS} now, and the database is silent; the tunnel tells the client why:", locked_out)
        events = _Heard()
        async with self._operator.following(events):
            removed = await events.wait_for(RuleRemoved)
        seen, acting = events.first(AddressBelieved), events.first(RulesActing)
        if seen.address != _NEW_ADDRESS:
            raise unexpected("another address was believed", seen.address)
        say.fact(f"the watcher saw it, added {seen.address}/32, waited {acting.elapsed:.1f} s until it acted,")
        say.fact(f"and only then removed {removed.cidr}")
        await self._client(self.tunnel).greet()
        say.has_shown("a changing address is followed, and the way back is open")

    async def _revoke(self) -> None:
        say = self.narrator
        say.step("Revoke a certificate, and read what the client is told")
        other = await trio.to_thread.run_sync(self.space.new_client_identity, "revoked-in-the-demo")
        identity = IdentityConfig("revoked", other.cert, other.key, self.space.ca)
        [tunnel] = self._operator.config.tunnels
        address = await self._start_proxy(ProxyConfig((replace(tunnel, name="revoked", identity=identity),)))
        await self._client(address).greet()
        self.space.revoke(other.serial)
        quote = await self._client(address).refusal()
        say.fact("new connections with it are refused, and the client hears why:", quote)
        say.has_shown("a refusal says why, in the client itself")


class _Heard:
    """An `Emit` that lets a step wait for what must come."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._more = trio.Event()

    def __call__(self, event: Event) -> None:
        self._events.append(event)
        self._more.set()
        self._more = trio.Event()

    async def wait_for(self, kind: type[E]) -> E:
        """The first event of a kind. Raises SandboxError where it does not come."""
        with trio.move_on_after(_PATIENCE):
            while not any(isinstance(event, kind) for event in self._events):
                await self._more.wait()
            return self.first(kind)
        raise unexpected(f"no {kind.__name__} came", "; ".join(event.sentence() for event in self._events))

    def first(self, kind: type[E]) -> E:
        """The first event of a kind that has come already."""
        for event in self._events:
            if isinstance(event, kind):
                return event
        raise unexpected(f"no {kind.__name__} came", "; ".join(event.sentence() for event in self._events))

"""What is said of a tunnel's door when it opens: who may come in, and what deserves attention about that."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from mtlskit.config.reach import is_this_machine_only
from mtlskit.config.values import Login, Network, TcpAddress, TunnelConfig, TunnelKind, UnixAddress, VerifyMode

__all__ = ["door_notes", "door_warnings", "open_to"]

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"), ip_network("::ffff:127.0.0.0/104"))


def door_warnings(config: TunnelConfig) -> tuple[str, ...]:
    """What the operator should know; most often nothing."""
    found = (_nobody_admitted(config), _lets_everybody_in(config), _chain_alone(config), _nameless(config))
    return tuple(filter(None, found))


def door_notes(config: TunnelConfig) -> tuple[str, ...]:
    """What is as it should be, and worth knowing all the same."""
    if not _checks_chain_alone(config) or not config.verify_by_default:
        return ()
    return (
        'verify = "ca", the default for Heroku\'s Kafka, whose certificates carry no host names to hold them against:'
        " of a broker's certificate the chain is checked, up to a CA of `ca`, and not the name",
    )


def open_to(config: TunnelConfig) -> str:
    """Who may come in."""
    if isinstance(config.listen, UnixAddress) and not config.allow_users:
        return "its owner"  # the mode of the socket has the first word
    if config.allow_users:
        return f"{', '.join(config.allow_users)} of {_listed(config.allow_clients) or 'this host'}"
    here = _listed(network for network in config.allow_clients if network.is_loopback)
    elsewhere = _listed(network for network in config.allow_clients if not network.is_loopback)
    users = f"every user of {here or 'this host'}" if here or not elsewhere else ""
    return " and ".join(filter(None, (users, f"clients of {elsewhere}" if elsewhere else "")))


def _listed(networks: Iterable[Network]) -> str:
    return ", ".join(str(network) for network in networks)


def _nobody_admitted(config: TunnelConfig) -> str:
    """What is wrong where a listener on loopback has an `allow_clients` without loopback."""
    listen, admitted = config.listen, config.allow_clients
    if not admitted or isinstance(listen, UnixAddress) or not is_this_machine_only(listen):
        return ""
    if any(ours.overlaps(theirs) for ours in _LOOPBACK for theirs in admitted if ours.version == theirs.version):
        return ""
    return (
        f"allow_clients admits nobody: {_listed(admitted)} cannot reach {listen.host}, where only this host's own"
        ' clients are; listen on an address of this host\'s network, or add "127.0.0.0/8"'
    )


def _lets_everybody_in(config: TunnelConfig) -> str:
    """What has to be known of a door behind which the proxy logs in itself."""
    if config.login is not Login.HEROKU or config.allow_users:
        return ""
    if isinstance(config.listen, UnixAddress):
        return ""  # its mode admits its owner only
    return (
        f'login = "heroku": whoever may use this door ({open_to(config)}) is let into the database without a password;'
        " allow_users names who may"
    )


def _checks_chain_alone(config: TunnelConfig) -> bool:
    return config.kind is TunnelKind.KAFKA and config.verify.mode is VerifyMode.CA


def _chain_alone(config: TunnelConfig) -> str:
    """What is not checked of the brokers, where somebody has chosen that: their own addresses come from the cluster,
    not from the configuration."""
    if not _checks_chain_alone(config) or config.verify_by_default:
        return ""
    return (
        'verify = "ca": of a broker\'s certificate the chain alone is checked, not the name, so whoever has one of that'
        ' CA passes for any broker; Heroku\'s Kafka needs that, any other should have its name checked ("full")'
    )


def _nameless(config: TunnelConfig) -> str:
    """What clients elsewhere may be told of a listener on a wildcard address."""
    listen = config.listen
    if config.kind is not TunnelKind.KAFKA or config.kafka.advertised is not None:
        return ""
    if not isinstance(listen, TcpAddress) or listen.host not in ("0.0.0.0", "::"):
        return ""
    return (
        f"it listens on {listen.host} and has no `advertised`: clients are told the address at which they reach this"
        ' host, which behind a container\'s port mapping or NAT is one that they cannot use; write advertised = "HOST"'
        " (--advertised), the name by which they do"
    )

"""The values that keys of the configuration may have: types for its models, and what ``listen`` describes."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

_DATABASE: Final = re.compile(r"sqlite:///[^\0?#]*[^\0?#/]")
_LOOPBACK: Final = re.compile(
    r"unix:.+|tcp6?:(?:port=)?[0-9]{1,5}:(?:backlog=[0-9]+:)?interface="
    r"(?:127(?:\.[0-9]{1,3}){3}|(?:\\:){2}1)(?::backlog=[0-9]+)?",
    re.DOTALL,
)
_LISTENER_PORT: Final = re.compile(r"(?:tcp6?|ssl):(?:port=)?(-?[0-9]{1,9})(?::|$)")
BACKLOG: Final = 1024
"""Connections that may wait to be accepted. With Twisted's 50 the system drops honest ones in a flood, and their
clients ask again after a second or three."""


class Section(BaseModel):
    """A section of the configuration: what is in it has the type that it should have, and nothing else is."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not have a NUL character in it")
    return value


def _name(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be of printable characters, without a space at either end")
    # Names become parts of file names: those of started game servers' logs and keys.
    if "/" in value or value.startswith("."):
        raise ValueError("must have no '/' in it and no '.' at its start")
    return value


def _host(value: str) -> str:
    if not value.isprintable() or set(value) & set(" /[]"):
        raise ValueError("must be an IP address or a host name")
    if ":" in value and not isIPv6Address(value):
        raise ValueError("must be an IP address or a host name; the port is a key of its own")
    return value


def _listener(value: str) -> str:
    if value.startswith("haproxy:"):
        raise ValueError("would believe PROXY headers from anyone: [proxy_protocol] has such ports")
    port = _LISTENER_PORT.match(value)
    if port and not 0 <= int(port[1]) <= 65535:
        raise ValueError("must have a port from 0 to 65535")
    return value


def _clear_listener(value: str) -> str:
    if value.startswith(("ssl:", "tls:")):
        raise ValueError("must be an endpoint without TLS: that comes by itself")
    return value


def _network(value: str) -> str:
    _ = network(value)
    return value


def _database(value: str) -> str:
    if not _DATABASE.fullmatch(value) or value == "sqlite:///:memory:":
        raise ValueError("must be 'sqlite:///relative/path' or 'sqlite:////absolute/path'")
    return value


def _command(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not value[0]:
        raise ValueError("must name a program first")
    return value


def _no_look_alike(value: object) -> object:
    # Literals compare with ==, for which true and 1.0 are 1.
    if isinstance(value, bool | float):
        raise ValueError("must be an integer or 'varint'")
    return value


FROM_LIST: Final = Field(strict=False)
"""For a tuple in a strict model, which takes no list, though TOML has nothing else; the items stay strict."""

Text = Annotated[str, AfterValidator(_no_nul)]
FilledText = Annotated[str, Field(min_length=1), AfterValidator(_no_nul)]
Name = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_name)]
Host = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]
Rate = Annotated[float, Field(gt=0, le=1e15)]
Burst = Annotated[float, Field(ge=1, le=1e15)]
Factor = Annotated[float, Field(ge=1, le=1e6)]
Share = Annotated[float, Field(gt=0, le=1)]
Listener = Annotated[str, AfterValidator(_listener)]
Listeners = Annotated[tuple[Listener, ...], FROM_LIST]
ClearListeners = Annotated[
    tuple[Annotated[Listener, AfterValidator(_clear_listener)], ...], FROM_LIST
]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], FROM_LIST]
Command = Annotated[tuple[Text, ...], FROM_LIST, AfterValidator(_command)]
Database = Annotated[str, AfterValidator(_database)]
Relay = Literal["auto", "transport", "epoll", "sockmap"]
LengthBytes = Annotated[Literal[1, 2, 3, 4, 8, "varint"], BeforeValidator(_no_look_alike)]
LimitMode = Literal["off", "dry_run", "enforce"]


def network(value: str) -> IPv4Network | IPv6Network:
    """The addresses that an IP or a CIDR stands for.

    :raises ValueError: it is none, or has bits behind its prefix; nobody knows then what was meant.
    """
    try:
        found = ip_network(value)
    except ValueError as error:
        raise ValueError("must be an IP or a CIDR, with no bits set behind its prefix") from error
    if isinstance(found, IPv6Network) and found.network_address.ipv4_mapped is not None:
        raise ValueError("must be written as IPv4, without ::ffff:")
    return found


def is_loopback(description: str) -> bool:
    """Whether only programs on this machine can reach what listens there. What is not known to be so is not."""
    return bool(_LOOPBACK.fullmatch(description))


def _with_backlog(description: str) -> str:
    names_all = all("=" in one for one in re.split(r"(?<!\\):", description)[2:])
    if _LISTENER_PORT.match(description) and names_all and "backlog=" not in description:
        return f"{description}:backlog={BACKLOG}"
    return description


def listening_endpoint(reactor: object, description: str) -> IStreamServerEndpoint:
    """The endpoint that one of a ``listen`` describes; nothing listens yet. One of TCP that says nothing of its backlog
    has one of :data:`BACKLOG`.

    :param reactor: what will listen.
    :raises ValueError: Twisted knows no such endpoint, or a file that it needs cannot be read.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, _with_backlog(description))
    except OSError as error:
        raise ValueError(f"names a file that cannot be read: {error.strerror}") from error
    except Exception as error:
        # Parsers of endpoints are plugins, and each raises what it likes; Twisted's own TypeError, IndexError,
        # ValueError and OpenSSL's errors.
        raise ValueError(f"is no endpoint to listen on: {error}") from error
    return endpoint

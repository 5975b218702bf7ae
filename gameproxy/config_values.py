"""The values that keys of the configuration may have: types for its models, and what ``listen`` describes."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

NOT_OFFERED: Final = "this version does not offer it"
_DATABASE: Final = re.compile(r"sqlite:///[^\0?#]*[^\0?#/]")
_LISTENER_PORT: Final = re.compile(r"(?:tcp6?|ssl):(?:port=)?(-?[0-9]{1,9})(?::|$)")


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
        raise ValueError(f"PROXY protocol: {NOT_OFFERED}")
    port = _LISTENER_PORT.match(value)
    if port and not 0 <= int(port[1]) <= 65535:
        raise ValueError("must have a port from 0 to 65535")
    return value


def _database(value: str) -> str:
    if not _DATABASE.fullmatch(value) or value == "sqlite:///:memory:":
        raise ValueError("must be 'sqlite:///relative/path' or 'sqlite:////absolute/path'")
    return value


def _listeners(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must have an endpoint in it")
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


def _offered_mode(value: str) -> str:
    if value != "off":
        raise ValueError(f"{NOT_OFFERED}; use 'off'")
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
Share = Annotated[float, Field(gt=0, le=1)]
Listeners = Annotated[
    tuple[Annotated[str, AfterValidator(_listener)], ...], FROM_LIST, AfterValidator(_listeners)
]
Command = Annotated[tuple[Text, ...], FROM_LIST, AfterValidator(_command)]
Database = Annotated[str, AfterValidator(_database)]
Relay = Literal["auto", "transport", "epoll", "sockmap"]
LengthBytes = Annotated[Literal[1, 2, 3, 4, 8, "varint"], BeforeValidator(_no_look_alike)]
LimitMode = Annotated[Literal["off", "dry_run", "enforce"], AfterValidator(_offered_mode)]


def listening_endpoint(reactor: object, description: str) -> IStreamServerEndpoint:
    """The endpoint that one of ``proxy.listen`` describes; nothing listens yet.

    :param reactor: what will listen.
    :raises ValueError: Twisted knows no such endpoint, or a file that it needs cannot be read.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except OSError as error:
        raise ValueError(f"names a file that cannot be read: {error.strerror}") from error
    except Exception as error:
        # Parsers of endpoints are plugins, and each raises what it likes; Twisted's own TypeError, IndexError,
        # ValueError and OpenSSL's errors.
        raise ValueError(f"is no endpoint to listen on: {error}") from error
    return endpoint

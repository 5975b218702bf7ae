"""Where clients come in: what listens, and what stands between a port and a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger

from gameproxy.admission import Admission
from gameproxy.client_side import ClientFactory
from gameproxy.config import Config
from gameproxy.config_problems import ConfigError, Problem
from gameproxy.config_values import listening_endpoint
from gameproxy.interfaces import Peer
from gameproxy.listening import raise_now
from gameproxy.proxied import HeaderCounts, ProxiedFactory
from gameproxy.tls import Credentials
from gameproxy.wire import Wire

SECTIONS: Final = ("proxy", "tls", "proxy_protocol")
"""Those that have ports, in this order."""


@dataclass(eq=False, slots=True)
class _Door:
    """A port, or one that there is to be.

    :param description: of its endpoint; ``None``: it is a program's own.
    """

    section: str
    description: str | None
    port: IListeningPort | None = None


class Doors:
    """The ports of a proxy: of ``[proxy]``, of ``[tls]``, and of ``[proxy_protocol]``.

    :param sessions: bounds what waits for its header.
    :param has_room: whether another client can be taken at all.
    :param accept: called with each connection, and where its client comes from.
    :ivar headers: what has come to the ports of ``[proxy_protocol]``.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: IReactorTime,
        sessions: Admission,
        credentials: Credentials,
        has_room: Callable[[], bool],
        accept: Callable[[Wire, Peer], None],
    ) -> None:
        self.headers = HeaderCounts()
        self._config = config
        self._reactor = reactor
        self._doors: list[_Door] = []
        clear = ClientFactory(reactor, has_room, accept)
        secure = credentials.factory(clear)
        section = config.proxy_protocol
        self._behind: dict[bool, IProtocolFactory] = {False: clear, True: secure}
        self._proxied = ProxiedFactory(
            reactor,
            section.networks,
            section.timeout,
            sessions,
            self.headers,
            self._behind[section.tls],
        )
        self._factories: dict[str, IProtocolFactory] = {
            "proxy": clear,
            "tls": secure,
            "proxy_protocol": self._proxied,
        }

    @property
    def ports(self) -> list[IListeningPort]:
        """Those that listen, in the order of the sections."""
        return [door.port for door in self._doors if door.port is not None]

    def listen(
        self, instead: Sequence[IStreamServerEndpoint] | None = None
    ) -> Iterator[Deferred[None]]:
        """Listen, in the order of the sections.

        :param instead: endpoints in place of those of ``[proxy]``, whatever the configuration will be.
        :raises ValueError: there is no such endpoint; with its place. Then nothing listens.
        :raises CannotListenError: an address cannot be listened at.
        """
        endpoints: list[tuple[_Door, IStreamServerEndpoint]] = []
        for place, section, description in _described(self._config):
            if section != "proxy" or instead is None:
                door = _Door(section, description)
                endpoints.append((door, self._endpoint(place, description)))
        if instead is not None:
            endpoints = [(_Door("proxy", None), one) for one in instead] + endpoints
        self._doors = [door for door, _ in endpoints]
        for door, endpoint in endpoints:
            listening = endpoint.listen(self._factories[door.section])
            raise_now(listening)
            yield listening.addCallback(self._listens, door)

    def close(self) -> list[Deferred[None]]:
        """Listen no more; each fires when a port is closed."""
        doors, self._doors = self._doors, []
        return [self._close(door) for door in doors]

    # A changed configuration

    def prepare(self, config: Config) -> Callable[[], None]:
        """Has who connects from then on be taken as ``[proxy_protocol]`` says."""
        section = config.proxy_protocol
        networks, behind = section.networks, self._behind[section.tls]
        return lambda: self._proxied.reconfigure(networks, section.timeout, behind)

    async def open(self, config: Config) -> OpenedDoors:
        """Open the ports of a changed configuration that are not there yet. Nobody is taken in at them.

        :raises ConfigError: some cannot be opened, and none is; with their places.
        """
        left = list(self._doors)
        wanted = [door for door in left if door.description is None]
        own = bool(wanted)
        opening: list[tuple[str, _Door]] = []
        for place, section, description in _described(config):
            if section == "proxy" and own:
                continue
            door = next(
                (d for d in left if (d.section, d.description) == (section, description)), None
            )
            if door is None:
                door = _Door(section, description)
                opening.append((place, door))
            else:
                left.remove(door)
            wanted.append(door)
        opened = OpenedDoors(self, wanted, [door for _, door in opening])
        try:
            problems = [found for one in opening if (found := await self._open(*one)) is not None]
            if problems:
                raise ConfigError(problems)
        except BaseException:
            opened.give_up()
            raise
        return opened

    def replace(self, doors: list[_Door]) -> None:
        """Have these doors, and close those that are none of them."""
        before, self._doors = self._doors, doors
        for door in before:
            if door not in doors:
                self._close(door)

    async def _open(self, place: str, door: _Door) -> Problem | None:
        """Open a port; what is wrong if it cannot be."""
        assert door.description is not None
        if door.description.startswith("systemd:"):
            # The number of its descriptor may be a client's by now.
            return place, "systemd passes sockets on when it starts the proxy: restart it"
        try:
            endpoint = listening_endpoint(self._reactor, door.description)
            listening = endpoint.listen(self._factories[door.section])
            door.port = await listening.addCallback(_hold)
        except ValueError as error:
            return place, str(error)
        except CancelledError:
            raise
        except Exception as error:  # endpoints are plugins too
            return place, str(error)
        return None

    def _listens(self, port: IListeningPort, door: _Door) -> None:
        door.port = port

    def _endpoint(self, place: str, description: str) -> IStreamServerEndpoint:
        try:
            return listening_endpoint(self._reactor, description)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error

    def _close(self, door: _Door) -> Deferred[None]:
        port, door.port = door.port, None
        if port is None:
            return succeed(None)
        stop: Callable[[], Any] = port.stopListening
        closed: Deferred[None] = maybeDeferred(stop)
        return closed.addErrback(lambda failure: self._log.failure("closing a port", failure))


class OpenedDoors:
    """What :meth:`Doors.open` has opened.

    :param wanted: all doors that there are to be; ``new`` those of them that were opened.
    """

    def __init__(self, doors: Doors, wanted: list[_Door], new: list[_Door]) -> None:
        self._doors = doors
        self._wanted = wanted
        self._new = new

    def use(self) -> None:
        """Take clients in there, and close those that are no longer wanted."""
        self._doors.replace(self._wanted)
        for door in self._new:
            if isinstance(door.port, FileDescriptor):
                door.port.startReading()

    def give_up(self) -> None:
        """Close them again."""
        for door in self._new:
            self._doors._close(door)


def _described(config: Config) -> Iterator[tuple[str, str, str]]:
    """All of ``listen``: place, section, and description."""
    for section in SECTIONS:
        for index, description in enumerate(getattr(config, section).listen):
            yield f"{section}.listen[{index}]", section, description


def _hold(port: IListeningPort) -> IListeningPort:
    """Let who connects wait with the system."""
    if isinstance(port, FileDescriptor):
        port.stopReading()
    return port

"""Which relay moves a session's frames."""

from __future__ import annotations

from collections.abc import Callable

from gameproxy.config import ProxyConfig
from gameproxy.dialect import Dialect
from gameproxy.interfaces import Outcome, Reactor, Relay
from gameproxy.relay.epoll import EpollPlane, EpollRelay
from gameproxy.relay.transport import TransportRelay
from gameproxy.sites import Disturbs, never
from gameproxy.wire import Side


class PlaneUnavailable(Exception):
    """The plane that is named cannot work here; the text says what it needs."""


class Relays:
    """Makes the relays of a proxy.

    :param section: names the plane. By ``auto`` and ``epoll`` a session's frames move on the epoll plane if that takes
        both its connections, else by Twisted's transports.
    :raises PlaneUnavailable: the plane that is named takes no connection here at all.
    """

    def __init__(
        self,
        section: ProxyConfig,
        reactor: Reactor,
        dialect: Dialect,
        disturbs: Disturbs = never,
    ) -> None:
        self._dialect = dialect
        self._reactor = reactor
        self._stall_timeout = section.stall_timeout
        self._disturbs = disturbs
        self._plane = EpollPlane(reactor) if section.relay != "transport" else None
        if section.relay == "epoll" and not EpollPlane.works_with(reactor):
            raise PlaneUnavailable("'epoll' needs Linux and a reactor that watches descriptors")

    def between(self, client: Side, server: Side, on_end: Callable[[Outcome], None]) -> Relay:
        """Make the relay between a client and a game server.

        :param on_end: called once, when both connections are being ended.
        """
        around = self._dialect, self._reactor, self._stall_timeout, on_end, self._disturbs
        plane = self._plane
        if plane is not None and plane.takes(client.wire, server.wire):
            return EpollRelay(plane, client, server, *around)
        return TransportRelay(client, server, *around)

    def close(self) -> None:
        """All sessions are over."""
        if self._plane is not None:
            self._plane.close()

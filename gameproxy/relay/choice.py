"""Which relay moves a session's frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from twisted.logger import Logger

from gameproxy.config import ProxyConfig
from gameproxy.dialect import Dialect
from gameproxy.interfaces import Outcome, Reactor, Relay
from gameproxy.relay.epoll import EpollPlane, EpollRelay
from gameproxy.relay.kernel import KernelRelay
from gameproxy.relay.kernel_plane import KernelPlane
from gameproxy.relay.meter import NO_LIMITS, RelayLimits
from gameproxy.relay.sockmap import Unavailable, load
from gameproxy.relay.transport import Terms, TransportRelay
from gameproxy.sites import Disturbs, never
from gameproxy.wire import Side

ROOM_MOST: Final = 65_536
"""Most sessions that there is room for in the kernel: its memory is taken at the start. All others are on epoll."""


class PlaneUnavailable(Exception):
    """The plane that is named cannot work here; the text says what it needs."""


class Relays:
    """Makes the relays of a proxy.

    :param section: names the plane. By ``transport`` all sessions' frames are moved by Twisted's transports; else a
        session is on the epoll plane if that takes both its connections. By ``auto`` the kernel takes it from there
        when it has lived for a time, by ``sockmap`` at once.
    :param limits: what clients may send.
    :raises PlaneUnavailable: the plane that is named takes no connection here at all.
    """

    log = Logger()

    def __init__(
        self,
        section: ProxyConfig,
        reactor: Reactor,
        dialect: Dialect,
        disturbs: Disturbs = never,
        limits: RelayLimits = NO_LIMITS,
    ) -> None:
        self._section = section
        self._terms = Terms(dialect, reactor, section.stall_timeout, limits, disturbs)
        self._reactor = reactor
        self._plane = EpollPlane(reactor) if section.relay != "transport" else None
        self._kernel: KernelPlane | None = None
        self._trouble: str | None = "The program is not loaded yet."
        if section.relay in ("epoll", "sockmap") and not EpollPlane.works_with(reactor):
            raise PlaneUnavailable(
                f"{section.relay!r} needs Linux and a reactor that watches descriptors"
            )

    def state(self) -> dict[str, str]:
        """The plane that is named, and whether the kernel has sessions (``on``), or why it has none."""
        return {"configured": self._section.relay, "sockmap": self._trouble or "on"}

    def load(self) -> None:
        """Have the kernel ready, with room for as many sessions as there may be. That needs privileges, and nothing
        afterwards does.

        :raises PlaneUnavailable: ``sockmap`` is named, and cannot be loaded.
        """
        if self._section.relay in ("transport", "epoll"):
            self._trouble = f"The configuration names {self._section.relay!r}."
        elif self._plane is None or not EpollPlane.works_with(self._reactor):
            self._trouble = "The reactor watches no descriptors."
        elif self._kernel is None:
            try:
                program = load(min(self._section.max_sessions, ROOM_MOST))
            except Unavailable as why:
                if self._section.relay == "sockmap":
                    raise PlaneUnavailable(str(why)) from why
                self._trouble = str(why)
                self.log.info("Sessions are not handed to the kernel: {why}", why=self._trouble)
            else:
                self._kernel = KernelPlane(self._plane, self._reactor, program)
                self._trouble = None

    def reconfigure(self, section: ProxyConfig, limits: RelayLimits) -> None:
        """Sessions that begin to relay from now on do it so; ``relay`` is as it was."""
        self._section = section
        self._terms = replace(self._terms, stall_timeout=section.stall_timeout, limits=limits)

    def between(self, client: Side, server: Side, on_end: Callable[[Outcome], None]) -> Relay:
        """Make the relay between a client and a game server.

        :param on_end: called once, when both connections are being ended.
        """
        plane, section = self._plane, self._section
        if plane is None or not plane.takes(client.wire, server.wire):
            return TransportRelay(client, server, self._terms, on_end)
        if self._kernel is None:
            return EpollRelay(plane, client, server, self._terms, on_end)
        after = 0.0 if section.relay == "sockmap" else section.sockmap_after
        return KernelRelay(self._kernel, after, client, server, self._terms, on_end)

    def close(self) -> None:
        """All sessions are over."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        if self._plane is not None:
            self._plane.close()

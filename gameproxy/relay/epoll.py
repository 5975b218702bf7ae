"""The epoll plane: frames move between sockets of plain TCP, on Linux, past Twisted.

All sockets of a proxy that are read here share one epoll object, whose own descriptor is one reader in the reactor.
What is read goes straight to the peer's socket. Twisted's transports keep the sockets, and do all that is rare: what a
socket does not take at once waits in its transport, with the backpressure of the reference relay; and a side whose
stream ends or breaks is read by its transport again, so that it ends as it does there.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, cast

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from gameproxy.interfaces import Outcome
from gameproxy.relay.lane import Lane
from gameproxy.relay.transport import Terms, TransportRelay
from gameproxy.wire import Side, Wire

READ_MAX: Final = 192 * 1024
"""Most bytes that are read of a socket at once. With what a transport buffers before it says stop (64 KiB), no more
than 256 KiB wait for a side that is slow."""
ROUND_SOCKETS: Final = 32
"""Most sockets that are read before the system is asked again which can be."""
TURN_ROUNDS: Final = 8
"""How often it is asked in one turn of the reactor."""
TURN_BYTES: Final = 1024 * 1024
"""Bytes after which it is asked no more in this turn."""


class Watched(Protocol):
    """What is read on the plane."""

    descriptor: int

    def read(self, buffer: memoryview) -> int:
        """Read once.

        :return: how many bytes were read.
        """
        ...

    def hand_back(self) -> None:
        """It has ended, or is broken."""
        ...

    def abort(self) -> None:
        """Something was raised."""
        ...


@implementer(IReadDescriptor)
class EpollPlane:
    """The sockets that are read here.

    :param reactor: where it reads; if it reads no descriptors, or this is not Linux, the plane takes nothing.
    :ivar buffer: what is read at once, of any of them.
    """

    log = Logger()

    def __init__(self, reactor: object) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None
        self._ends: dict[int, Watched] = {}
        self.buffer = memoryview(bytearray(READ_MAX))

    @staticmethod
    def works_with(reactor: object) -> bool:
        """Whether the system has epoll, and a reactor can watch its descriptor."""
        return hasattr(select, "epoll") and bool(IReactorFDSet.providedBy(reactor))

    def takes(self, *wires: Wire) -> bool:
        """Whether it can read and write these: plain TCP connections of Twisted's, on sockets of the system's."""
        return self.works_with(self._reactor) and all(map(_is_plain, wires))

    def join(self, end: Watched) -> None:
        """Read a socket from now on, if that is not done yet.

        :raises OSError: the system has no room for that.
        """
        if self._ends.get(end.descriptor) is not end:
            # Level-triggered: a socket is not read until it is empty, and of what is left an edge would not tell.
            self._register(end, select.EPOLLIN)

    def await_end(self, end: Watched) -> None:
        """Read a socket no more, as the kernel does, and have it hand back when its stream ends or breaks.

        :raises OSError: the system has no room for that.
        """
        self.leave(end)
        # Edge-triggered: whatever comes would wake for a level.
        self._register(end, select.EPOLLRDHUP | select.EPOLLET)

    def _register(self, end: Watched, events: int) -> None:
        if self._epoll is None:  # not sooner: twistd may fork before
            self._epoll = select.epoll()
            cast(IReactorFDSet, self._reactor).addReader(self)
        self._epoll.register(end.descriptor, events)
        self._ends[end.descriptor] = end

    def leave(self, end: Watched) -> None:
        """Read a socket no more. It may be closed already, and its number another's."""
        if self._epoll is not None and self._ends.get(end.descriptor) is end:
            del self._ends[end.descriptor]
            with suppress(OSError):
                self._epoll.unregister(end.descriptor)

    def close(self) -> None:
        """Let go of what the plane itself needs; nothing is read any more."""
        if self._epoll is not None:
            cast(IReactorFDSet, self._reactor).removeReader(self)
            self._epoll.close()
            self._epoll = None

    # What the reactor calls

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "epoll"

    def doRead(self) -> None:
        assert self._epoll is not None
        poll, ends, buffer, readable = self._epoll.poll, self._ends, self.buffer, select.EPOLLIN
        size = 0
        for _ in range(TURN_ROUNDS):
            events = poll(0, ROUND_SOCKETS)
            for descriptor, event in events:
                end = ends.get(descriptor)
                if end is None:  # what came before it in this round has ended its session
                    continue
                try:
                    if event == readable:
                        size += end.read(buffer)
                    else:  # broken
                        end.hand_back()
                except Exception:
                    self.log.failure("While relaying")
                    end.abort()
            if not events or size >= TURN_BYTES:
                break

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
        self.close()


class Source(Protocol):
    """Where an end reads: a socket, or what stands before it."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read once.

        :return: how many bytes were read; 0 at the end of the stream.
        :raises BlockingIOError: there is nothing yet.
        :raises OSError: the connection is broken.
        """
        ...


class DirectEnd:
    """One end of a session: its socket is read on the plane and written at once to the other's.

    With many sessions most of what a frame costs here is memory that is in no cache. So it is touched as little as can
    be: methods are called on their objects, as kept bound ones are objects more, and what waits in the sink's transport
    is asked for only where something may wait.

    :param lane: what comes of the socket goes along it.
    """

    __slots__ = (
        "_lane",
        "_plane",
        "_scanner",
        "_scanning",
        "_sink",
        "_sink_may_wait",
        "_sink_socket",
        "_sink_transport",
        "_source",
        "_wire",
        "descriptor",
    )

    def __init__(self, plane: EpollPlane, wire: Wire, lane: Lane, sink: Wire) -> None:
        self._plane = plane
        self._wire = wire
        self._lane = lane
        self._sink = sink
        self._sink_transport = cast(Connection, sink.transport)
        handle = cast(Connection, wire.transport).socket
        self.descriptor = handle.fileno()
        self._source: Source = handle
        self._sink_socket = self._sink_transport.socket
        # Of what comes early; and after that only this end writes to the transport while it is read here.
        self._sink_may_wait = True
        self._scanner = lane.scanner
        self._scanning = lane.scanning

    @property
    def is_direct(self) -> bool:
        """Whether the plane reads it, or will when the other is no longer slow."""
        return self._lane.source is self

    def begin(self) -> None:
        """Read on the plane, and no more in the reactor."""
        self._wire.pause()
        self._lane.source = self
        self.resume()

    def pause(self) -> None:
        self._plane.leave(self)

    def resume(self) -> None:
        try:
            self._plane.join(self)
        except OSError:
            self.find_no_room()

    def find_no_room(self) -> None:
        """The system has no room to watch it on the plane."""
        self.hand_back()

    def hand_back(self) -> None:
        """Have Twisted's transport read again, and see by itself how the stream ends."""
        self._plane.leave(self)
        self._lane.source = self._wire
        self._wire.resume()

    def abort(self) -> None:
        """Break the connection, as Twisted does where something is raised."""
        self._plane.leave(self)
        cast(Connection, self._wire.transport).abortConnection()

    def read(self, buffer: memoryview) -> int:
        """Read once, and pass on what may pass.

        :return: how many bytes were read.
        """
        try:
            size = self._source.recv_into(buffer)
        except BlockingIOError:  # nothing is there any more
            return 0
        except OSError:  # broken
            size = 0
        if not size:
            self.hand_back()
            return 0
        data = self._scanning.scan(buffer[:size])
        if self._sink_may_wait:
            self._sink_may_wait = self._sink_waits()
        sent = 0
        if data and not self._sink_may_wait:
            try:
                sent = self._sink_socket.send(data)
            except OSError:
                sent = 0  # it is full; or broken, and its transport will see that
        if sent < len(data):
            self._sink_may_wait = True
            self._sink.write(bytes(data[sent:]))
        if self._scanner.stopped is not None:
            self._lane.scan_stopped()
        return size

    def _sink_waits(self) -> bool:
        """Whether something waits in the sink's transport, which goes first."""
        transport = self._sink_transport
        # Twisted has no public name for that.
        return bool(transport.dataBuffer or transport._tempDataBuffer)


class EpollRelay(TransportRelay):
    """Relays as the reference does, on a plane that takes both sides.

    :param on: reads both sockets.
    """

    def __init__(
        self,
        on: EpollPlane,
        client: Side,
        server: Side,
        terms: Terms,
        on_end: Callable[[Outcome], None],
    ) -> None:
        super().__init__(client, server, terms, on_end)
        self._ends = self._make_ends(on)

    def _make_ends(self, on: EpollPlane) -> tuple[DirectEnd, DirectEnd]:
        return (
            DirectEnd(on, self._client, self._from_client, self._server),
            DirectEnd(on, self._server, self._from_server, self._client),
        )

    @property
    def plane(self) -> str:
        return "epoll" if all(end.is_direct for end in self._ends) else "transport"

    def start(self) -> None:
        for end in self._ends:
            end.begin()
        super().start()

    def _finish(
        self, outcome: Outcome, to_client: bytes, to_server: bytes, over: Wire | None = None
    ) -> None:
        for end in self._ends:  # Twisted's transports end the connections
            end.pause()
        super()._finish(outcome, to_client, to_server, over)


def _is_plain(wire: Wire) -> bool:
    transport = wire.transport  # with TLS, that is what encrypts
    if not isinstance(transport, Connection) or not transport.connected:
        return False
    handle = transport.getHandle()
    return type(handle) is socket.socket and handle.family in (socket.AF_INET, socket.AF_INET6)

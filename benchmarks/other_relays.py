"""Relays in Python to compare with, which know nothing of frames: other_relays.py KIND PORT SERVER_PORT

portforward is Twisted's own proxy, as it is. uvloop is what one would write for asyncio with speed in mind: protocols,
not streams, and each side stops the other when its transport says so. bare is the least that a relay in Python can do:
a loop around epoll, recv and send, without a reactor.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from typing import cast

BACKLOG = 4096
READ_MAX = 192 * 1024  # bytes read of a socket at once, as gameproxy does
ROUND_SOCKETS = 32  # and sockets, before it is asked again which can be read
HOST = "127.0.0.1"


def run_portforward(port: int, server_port: int) -> None:
    from twisted.internet import reactor
    from twisted.internet.protocol import ServerFactory
    from twisted.protocols.portforward import ProxyFactory

    factory = cast(ServerFactory, ProxyFactory(HOST, server_port))
    reactor.listenTCP(port, factory, backlog=BACKLOG, interface=HOST)
    reactor.run()


class Side(asyncio.Protocol):
    """One side of a session; what comes is written to the other."""

    transport: asyncio.Transport
    other: Side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.other.transport.close()


class Newcomer(asyncio.Protocol):
    """A client whose game server is not connected yet: it keeps what comes, and then lets two sides take over."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connecting = asyncio.ensure_future(self._connect())

    def data_received(self, data: bytes) -> None:
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._connecting.cancel()

    async def _connect(self) -> None:
        client, server = Side(), Side()
        client.other, server.other = server, client
        client.transport = self._transport
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: server, HOST, self._server_port)
        except OSError:
            self._transport.close()
            return
        self._transport.set_protocol(client)
        client.data_received(bytes(self._early))


async def serve_asyncio(port: int, server_port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Newcomer(server_port), HOST, port, backlog=BACKLOG)
    await server.serve_forever()


class BareSide:
    """One side of a session; what comes is sent to the other, and is read no more while that does not take it."""

    other: BareSide

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self.descriptor = connection.fileno()
        self.waiting = b""  # to be sent to this side

    def read(self, poll: select.epoll, buffer: memoryview) -> bool:
        """Read once; returns whether the stream goes on."""
        size = self.connection.recv_into(buffer)
        other = self.other
        try:
            sent = other.connection.send(buffer[:size])
        except BlockingIOError:
            sent = 0
        if sent < size:
            other.waiting = bytes(buffer[sent:size])
            poll.modify(self.descriptor, 0)
            poll.modify(other.descriptor, select.EPOLLOUT | (0 if self.waiting else select.EPOLLIN))
        return size > 0

    def write(self, poll: select.epoll) -> None:
        """Send what waits; when all of it is gone, the other is read again."""
        self.waiting = self.waiting[self.connection.send(self.waiting) :]
        if not self.waiting:
            for side in (self, self.other):
                blocked = select.EPOLLOUT if side.waiting else 0
                poll.modify(
                    side.descriptor, blocked | (0 if side.other.waiting else select.EPOLLIN)
                )


def run_bare(port: int, server_port: int) -> None:
    listener = socket.create_server((HOST, port), backlog=BACKLOG)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    sides: dict[int, BareSide] = {}
    buffer = memoryview(bytearray(READ_MAX))
    while True:
        for descriptor, event in poll.poll(-1, ROUND_SOCKETS):
            side = sides.get(descriptor)
            if side is None:
                if descriptor == listener.fileno():
                    client = BareSide(listener.accept()[0])
                    server = BareSide(socket.create_connection((HOST, server_port)))
                    client.other, server.other = server, client
                    for one in (client, server):
                        sides[one.descriptor] = one
                        poll.register(one.descriptor, select.EPOLLIN)
                continue
            try:
                if event & select.EPOLLOUT:
                    side.write(poll)
                    goes_on = True
                else:
                    goes_on = side.read(poll, buffer)
            except OSError:
                goes_on = False
            if not goes_on:
                for one in (side, side.other):
                    del sides[one.descriptor]
                    one.connection.close()


def main() -> None:
    kind, port, server_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if kind == "portforward":
        run_portforward(port, server_port)
    elif kind == "bare":
        run_bare(port, server_port)
    else:
        import uvloop

        uvloop.run(serve_asyncio(port, server_port))


if __name__ == "__main__":
    main()

"""Relays in Python to compare with, which know nothing of frames: other_relays.py portforward|uvloop PORT SERVER_PORT

portforward is Twisted's own proxy, as it is. uvloop is what one would write for asyncio with speed in mind: protocols,
not streams, and each side stops the other when its transport says so.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

BACKLOG = 4096
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


def main() -> None:
    kind, port, server_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if kind == "portforward":
        run_portforward(port, server_port)
    else:
        import uvloop

        uvloop.run(serve_asyncio(port, server_port))


if __name__ == "__main__":
    main()

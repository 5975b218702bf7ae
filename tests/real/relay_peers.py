"""Two peers and a relay between them, on any plane, over real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache, partial, wraps
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
)
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from zope.interface import implementer

from gameproxy.dialect import Dialect
from gameproxy.framing import FORMATS, FrameFormat, FrameScanner
from gameproxy.interfaces import Outcome
from gameproxy.messages import FrameType, Notice
from gameproxy.reasons import CloseReason
from gameproxy.relay import (
    EpollPlane,
    EpollRelay,
    KernelPlane,
    KernelRelay,
    RelayLimits,
    Terms,
    TransportRelay,
)
from gameproxy.relay.meter import NO_LIMITS
from gameproxy.relay.sockmap import load, why_not
from gameproxy.wire import Side, Wire

PLANES = ("transport", "epoll", "sockmap")
"""All must behave alike."""
MakeRelay = Callable[[Side, Side, Terms, Callable[[Outcome], None]], TransportRelay]
INT32 = FORMATS["int32"]
LONGEST_WAIT = 100.0
WHY_NOT = cache(why_not)
SMALL = 65536
"""Bytes of the small kernel buffers."""
GAME = INT32.encode(b"\x10" + bytes(1000))
CHAT = INT32.encode(b"\x20hello")
CLOSE = INT32.encode(Notice("left", "").encode(FrameType.CLOSE))
BAD = b"\xff\xff\xff\xff"
BOTH = [("client", "server"), ("server", "client")]
ENDPOINTS = {
    "127.0.0.1": (TCP4ServerEndpoint, TCP4ClientEndpoint),
    "::1": (TCP6ServerEndpoint, TCP6ClientEndpoint),
}


@implementer(IHalfCloseableProtocol, IPushProducer)
class Peer(Protocol):
    """A client or a game server that a test plays.

    :ivar received: all that came, unless :attr:`digest` is set, which then takes it.
    :ivar sent: how many bytes were written.
    :ivar stream_ended: fires when the proxy has ended its stream, or the connection is lost.
    :ivar gone: fires when the connection exists no more.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.digest: Any = None
        self.size = 0
        self.sent = 0
        self.stream_ended: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._frames: Iterator[bytes] | None = None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # pieces must come as pieces

    def send(self, data: bytes) -> None:
        """Write at once."""
        self.sent += len(data)
        self.transport.write(data)

    def send_now(self, data: bytes) -> None:
        """Send past Twisted: it is in the system when this returns."""
        self.sent += len(data)
        assert self.transport.getHandle().send(data) == len(data)

    def send_all(self, frames: Iterator[bytes]) -> None:
        """Write frames as fast as they are taken."""
        self._frames = frames
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        frame = next(self._frames, None)
        if frame is None:
            self.transport.unregisterProducer()
        else:
            self.send(frame)

    def pauseProducing(self) -> None:
        raise AssertionError("a pull producer is not paused")

    def stopProducing(self) -> None:
        self._frames = iter(())

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        if self.digest is None:
            self.received += data
        else:
            self.digest.update(data)

    def readConnectionLost(self) -> None:
        self._ended()

    def writeConnectionLost(self) -> None:
        """Our own end of the stream is out."""

    def connectionLost(self, reason: object = None) -> None:
        self._ended()
        self.gone.callback(None)

    def _ended(self) -> None:
        if not self.stream_ended.called:
            self.stream_ended.callback(None)


@dataclass
class Session:
    """A relay between two real connections over loopback.

    :ivar outcome: fires with how the relay ended.
    :ivar gone: fires when both of the proxy's connections are gone.
    """

    client: Peer
    server: Peer
    wires: list[Wire]
    relay: TransportRelay
    outcome: Deferred[Outcome]
    gone: Deferred[list[None]]


def shrink(handle: socket.socket) -> None:
    """Give a socket small buffers in the kernel."""
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)


def need_kernel() -> None:
    """Skip, and say why, where the kernel cannot relay."""
    if (why := WHY_NOT()) is not None:
        pytest.skip(f"not on this machine: {why}")


@contextmanager
def on(
    plane: str, after: float = 0.0, clock: IReactorTime = reactor, room: int = 200
) -> Iterator[MakeRelay]:
    """What makes relays on a plane; when it is let go of, nothing of them may be left there.

    :param after: seconds after which the kernel gets a session, on a clock that tells when it does, and when again.
    :param room: for so many sessions at once.
    """
    if plane == "transport":
        yield TransportRelay
        return
    epoll = EpollPlane(reactor)
    if plane == "epoll":
        yield partial(EpollRelay, epoll)
    else:
        need_kernel()
        kernel = KernelPlane(epoll, clock, load(room))
        yield partial(KernelRelay, kernel, after)
        assert watched(epoll) <= 1  # the ring
        assert kernel.pairs == 0
        kernel.close()
    assert watched(epoll) == 0
    epoll.close()


def watched(plane: EpollPlane) -> int:
    """How many sockets the system watches for a plane (proc(5), ``/proc/pid/fdinfo``)."""
    if plane.fileno() == -1:
        return 0
    return Path(f"/proc/self/fdinfo/{plane.fileno()}").read_text().count("tfd:")


@asynccontextmanager
async def relaying(
    plane: str,
    stall_timeout: float = 8.0,
    clock: IReactorTime = reactor,
    small: bool = False,
    *,
    format: FrameFormat = INT32,
    dialect: str = "native",
    host: str = "127.0.0.1",
    early: bytes = b"",
    waiting: bytes = b"",
    limits: RelayLimits = NO_LIMITS,
    make: MakeRelay | None = None,
) -> AsyncIterator[Session]:
    """Two peers, each with a connection to a wire of the proxy's, and a relay between these.

    :param plane: what the relay must say that it is on.
    :param clock: what the proxy takes for the time.
    :param small: whether all kernel buffers are small.
    :param early: what both peers have sent and the proxy has read when the relay starts.
    :param waiting: what they have sent behind that, and the system holds then.
    :param limits: what the client may send.
    :param make: makes the relay, on a plane that others use too.
    """
    if plane == "sockmap":
        need_kernel()
    peers, wires = [], []
    for _ in range(2):
        peer, wire = await connection(clock, host, small)
        peers.append(peer)
        wires.append(wire)
    words = Dialect(dialect, format)
    sides = []
    for wire in wires:
        scanner = FrameScanner(format, words.server_verdicts)
        sides.append(Side(wire, scanner, scanner.scan(early)))
    outcome: Deferred[Outcome] = Deferred()
    gone = gatherResults([wire.gone for wire in wires])
    with ExitStack() as stack:
        if make is None:
            make = stack.enter_context(on(plane))
        relay = make(*sides, Terms(words, clock, stall_timeout, limits), outcome.callback)
        if waiting:
            for peer in peers:
                peer.send_now(waiting)
        relay.start()
        if plane == "sockmap" and not early and not waiting:
            assert relay.plane == plane
        elif plane != "sockmap":
            assert relay.plane == plane or outcome.called
        try:
            yield Session(*peers, wires, relay, outcome, gone)
        finally:
            relay.close(CloseReason.DRAINING, "")
            for wire, peer in zip(wires, peers, strict=True):
                if not wire.gone.called:
                    wire.abort()
                if not peer.gone.called:
                    peer.transport.abortConnection()
            await gone
            await turns()  # the relay is told after us


async def connection(clock: IReactorTime, host: str, small: bool) -> tuple[Peer, Wire]:
    """A connection over loopback: the peer, and the wire at the proxy's end."""
    accepted: Deferred[Wire] = Deferred()
    factory = Factory.forProtocol(lambda: Wire(clock, accepted.callback))
    listening, dialling = ENDPOINTS[host]
    port = await listening(reactor, 0, interface=host).listen(factory)
    if small:
        shrink(port.socket)
    peer = await dialling(reactor, host, port.getHost().port).connect(Factory.forProtocol(Peer))
    wire = await accepted
    await port.stopListening()
    if small:
        shrink(peer.transport.getHandle())
        shrink(wire.transport.getHandle())
    return peer, wire


def limited(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Deferred[None]]:
    """Run a test on the reactor; it has failed when it still waits after a time."""

    @wraps(test)
    async def run(**arguments: Any) -> None:
        await Deferred.fromCoroutine(test(**arguments)).addTimeout(LONGEST_WAIT, reactor)

    return pytest_twisted.ensureDeferred(run)


async def settled(value: Callable[[], int]) -> int:
    """What a number comes to when it has not changed for a third of a second."""
    last, same = value(), 0
    while same < 30:
        await deferLater(reactor, 0.01)
        now = value()
        last, same = now, same + 1 if now == last else 0
    return last


async def reaches(value: Callable[[], int], least: int) -> None:
    """Wait until a number is at least so much."""
    while value() < least:
        await deferLater(reactor, 0.001)


async def turns() -> None:
    """Let the reactor see what has just come."""
    for _ in range(3):
        await deferLater(reactor, 0)


def numbered(total: int, digest: Any) -> Iterator[bytes]:
    """Frames of many sizes, each different, of so many bytes at least; all goes into the digest."""
    done = number = 0
    while done < total:
        frame = INT32.encode(b"\x10" + number.to_bytes(4, "big") * (1 + number * 7919 % 15_000))
        digest.update(frame)
        done += len(frame)
        number += 1
        yield frame


async def flood(session: Session, size: int, rest: float = 0.002) -> None:
    """Send so many bytes both ways at once, to readers that stop again and again, and see that they arrive.

    :param rest: seconds for which they stop.
    """
    ways = [(session.client, session.server), (session.server, session.client)]
    sent = [sha256(), sha256()]
    for digest, (writer, reader) in zip(sent, ways, strict=True):
        reader.digest = sha256()
        writer.send_all(numbered(size, digest))
    least = [reader.size + size for _, reader in ways]
    while any(
        reader.size < max(enough, writer.sent)
        for enough, (writer, reader) in zip(least, ways, strict=True)
    ):
        for _, reader in ways:
            reader.transport.pauseProducing()
            await deferLater(reactor, rest)
            reader.transport.resumeProducing()
            await turns()
    assert [reader.digest.digest() for _, reader in ways] == [digest.digest() for digest in sent]
    traffic = session.relay.traffic
    assert (traffic.client_bytes, traffic.server_bytes) == (ways[0][0].sent, ways[1][0].sent)


async def come_and_go(plane: str, streaming: int, sessions: int, at_once: int = 1) -> None:
    """Begin and end so many sessions, in every way, so that descriptors are used again and again; as long as that
    takes, have others stream both ways."""
    over = False
    numbers = iter(range(sessions))

    async def stream(make: MakeRelay) -> None:
        async with relaying(plane, small=True, make=make) as session:
            while not over:
                await flood(session, 20_000, rest=0.05)

    async def come(make: MakeRelay) -> None:
        for number in numbers:
            async with relaying(plane, make=make) as session:
                session.client.send(CHAT * 3)
                await reaches(lambda session=session: session.server.size, 3 * len(CHAT))
                way, reason = ENDINGS[number % len(ENDINGS)]
                way(session)
                assert (await session.outcome).reason is reason
                assert bytes(session.server.received).startswith(CHAT * 3)

    with on(plane) as make:
        streams = [Deferred.fromCoroutine(stream(make)) for _ in range(streaming)]
        coming = [Deferred.fromCoroutine(come(make)) for _ in range(at_once)]
        try:
            await gatherResults(coming, consumeErrors=True)
            over = True
            await gatherResults(streams, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        finally:
            over = True


ENDINGS: list[tuple[Callable[[Session], object], CloseReason]] = [
    (lambda session: session.client.send(CLOSE + CHAT), CloseReason.LEFT),
    (lambda session: session.client.transport.loseConnection(), CloseReason.CLIENT_LOST),
    (lambda session: session.server.transport.loseConnection(), CloseReason.SERVER_LOST),
    (lambda session: session.client.transport.abortConnection(), CloseReason.CLIENT_LOST),
    (lambda session: session.server.transport.abortConnection(), CloseReason.SERVER_LOST),
    (lambda session: session.server.send(CHAT + BAD), CloseReason.PROTOCOL_ERROR),
    (lambda session: session.relay.close(CloseReason.IDLE, ""), CloseReason.IDLE),
]
"""How a session may end, and with what."""


def endless() -> Iterator[bytes]:
    """Frames without end."""
    while True:
        yield GAME * 16


def last_close(peer: Peer) -> tuple[int, str]:
    """How many game frames a peer has received, and the code of the CLOSE behind them, with nothing after it."""
    data = bytes(peer.received)
    count = 0
    while data.startswith(GAME, count * len(GAME)):
        count += 1
    rest = data[count * len(GAME) :]
    assert rest[4:5] == b"\x06" and len(rest) == 4 + int.from_bytes(rest[:4], "big"), rest[:80]
    return count, json.loads(rest[5:])["code"]

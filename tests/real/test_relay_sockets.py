"""The reference relay between real sockets: what no fake can show."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import KeyPair
from twisted.internet.task import Clock, deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from gameproxy.dialect import Dialect
from gameproxy.framing import FORMATS, FrameScanner
from gameproxy.interfaces import Outcome
from gameproxy.messages import FrameType, Notice
from gameproxy.reasons import CloseReason
from gameproxy.relay import TransportRelay
from gameproxy.wire import Side, Wire

INT32 = FORMATS["int32"]
LONGEST_WAIT = 20.0
SMALL = 65536
"""Bytes of the small kernel buffers."""
GAME = INT32.encode(b"\x10" + bytes(1000))
CLOSE = INT32.encode(Notice("left", "").encode(FrameType.CLOSE))
BAD = b"\xff\xff\xff\xff"
BOTH = [("client", "server"), ("server", "client")]


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

    def send(self, data: bytes) -> None:
        """Write at once."""
        self.sent += len(data)
        self.transport.write(data)

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
    relay: TransportRelay
    outcome: Deferred[Outcome]
    gone: Deferred[list[None]]


def shrink(handle: socket.socket) -> None:
    """Give a socket small buffers in the kernel."""
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)


@asynccontextmanager
async def relaying(
    stall_timeout: float = 8.0, clock: IReactorTime = reactor, small: bool = False
) -> AsyncIterator[Session]:
    """Two peers, each with a connection to a wire of the proxy's, and a relay between these.

    :param clock: what the proxy takes for the time.
    :param small: whether all kernel buffers are small.
    """
    peers, wires = [], []
    ports = []
    for _ in range(2):
        accepted: Deferred[Wire] = Deferred()
        factory = Factory.forProtocol(lambda made=accepted: Wire(clock, made.callback))
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        ports.append(port)
        if small:
            shrink(port.socket)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        peer = await endpoint.connect(Factory.forProtocol(Peer))
        wire = await accepted
        if small:
            shrink(peer.transport.getHandle())
            shrink(wire.transport.getHandle())
        peers.append(peer)
        wires.append(wire)
    dialect = Dialect("native", INT32)
    sides = [Side(wire, FrameScanner(INT32, None), b"") for wire in wires]
    outcome: Deferred[Outcome] = Deferred()
    relay = TransportRelay(*sides, dialect, clock, stall_timeout, outcome.callback)
    relay.start()
    try:
        yield Session(*peers, relay, outcome, gatherResults([wire.gone for wire in wires]))
    finally:
        for wire, peer in zip(wires, peers, strict=True):
            if not wire.gone.called:
                wire.abort()
            if not peer.gone.called:
                peer.transport.abortConnection()
        for port in ports:
            await port.stopListening()


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
        await deferLater(reactor, 0.005)


def numbered(total: int, digest: Any) -> Iterator[bytes]:
    """Frames of many sizes, each different, of so many bytes at least; all goes into the digest."""
    done = number = 0
    while done < total:
        frame = INT32.encode(b"\x10" + number.to_bytes(4, "big") * (1 + number * 7919 % 15_000))
        digest.update(frame)
        done += len(frame)
        number += 1
        yield frame


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


@pytest.mark.parametrize(("reader", "writer"), BOTH)
@limited
async def test_a_reader_that_stops(reader: str, writer: str) -> None:
    """A side that does not read stops the other: the relay holds no more than its buffers. When it reads on, nothing
    is missing."""
    async with relaying(small=True) as session:
        slow: Peer = getattr(session, reader)
        fast: Peer = getattr(session, writer)
        slow.transport.pauseProducing()
        sent, received = hashlib.sha256(), hashlib.sha256()
        slow.digest = received
        fast.send_all(numbered(8_000_000, sent))
        stopped_at = await settled(lambda: fast.sent)
        assert 200_000 < stopped_at < 2_000_000
        slow.transport.resumeProducing()
        await reaches(lambda: slow.size, 8_000_000)
        assert await settled(lambda: slow.size) == fast.sent
        assert received.digest() == sent.digest()


@limited
async def test_much_both_ways() -> None:
    """50 MB each way at the same time arrive complete and in order."""
    async with relaying() as session:
        sent = [hashlib.sha256(), hashlib.sha256()]
        pairs = [(session.client, session.server), (session.server, session.client)]
        for digest, (writer, reader) in zip(sent, pairs, strict=True):
            reader.digest = hashlib.sha256()
            writer.send_all(numbered(50_000_000, digest))
        for writer, reader in pairs:
            await reaches(lambda reader=reader: reader.size, 50_000_000)
            await reaches(lambda reader=reader, writer=writer: reader.size, writer.sent)
        assert session.server.digest.digest() == sent[0].digest()
        assert session.client.digest.digest() == sent[1].digest()
        traffic = session.relay.traffic
        assert (traffic.client_bytes, traffic.server_bytes) == (
            session.client.sent,
            session.server.sent,
        )


@pytest.mark.parametrize(("ender", "reader"), BOTH)
@limited
async def test_a_slow_reader_gets_all_before_an_orderly_end(ender: str, reader: str) -> None:
    """What came before one side closed reaches the other however late that reads, within the stall timeout, and
    however much it goes on sending itself."""
    clock = Clock()
    async with relaying(clock=clock, small=True) as session:
        slow: Peer = getattr(session, reader)
        gone: Peer = getattr(session, ender)
        slow.transport.pauseProducing()
        gone.send(GAME * 300)
        gone.transport.loseConnection()
        await session.outcome
        slow.send(GAME * 300)
        for _ in range(6):
            await deferLater(reactor, 0.02)
            clock.advance(1.0)
        slow.transport.resumeProducing()
        await slow.stream_ended
        code = "client_lost" if ender == "client" else "server_lost"
        assert last_close(slow) == (300, code)
        slow.transport.loseConnection()
        await session.gone


@limited
async def test_what_the_kernel_holds_is_not_thrown_away() -> None:
    """Also what the kernel has taken, but the peer's has not, is delivered before the connection is aborted."""
    clock = Clock()
    async with relaying(clock=clock) as session:
        shrink(session.client.transport.getHandle())
        session.client.transport.pauseProducing()
        session.server.send(GAME * 600 + CLOSE)
        await session.outcome
        await settled(lambda: 0)
        for _ in range(6):
            clock.advance(1.0)
        session.client.transport.resumeProducing()
        await session.client.stream_ended
        assert last_close(session.client) == (600, "left")


@pytest.mark.parametrize(("ender", "other"), BOTH)
@limited
async def test_a_reset(ender: str, other: str) -> None:
    """A side that resets its connection is lost; the other gets what came before, and is told."""
    async with relaying() as session:
        broken: Peer = getattr(session, ender)
        told: Peer = getattr(session, other)
        broken.send(GAME * 3)
        await reaches(lambda: told.size, 3 * len(GAME))
        broken.transport.abortConnection()
        reason = (await session.outcome).reason
        assert reason is CloseReason[f"{ender.upper()}_LOST"]
        if other == "server":
            await reaches(lambda: told.size, 3 * len(GAME) + 1)
        else:
            await told.stream_ended
        assert last_close(told) == (3, reason)
        told.transport.loseConnection()
        await session.gone


@pytest.mark.parametrize("side", ["client", "server"])
@limited
async def test_the_last_message_reaches_who_keeps_sending(side: str) -> None:
    """A peer that does not stop sending still gets CLOSE: no reset overtakes it. And it cannot keep its connection."""
    for _ in range(10):
        clock = Clock()
        async with relaying(clock=clock) as session:
            peer: Peer = getattr(session, side)
            peer.send_all(endless())
            await reaches(lambda peer=peer: peer.sent, 200_000)
            session.relay.close(CloseReason.DRAINING, "")
            await reaches(lambda peer=peer: peer.size, 1)
            await deferLater(reactor, 0.02)
            assert last_close(peer) == (0, "draining")
            assert not peer.gone.called
            while not session.gone.called and clock.seconds() < 6.0:
                clock.advance(0.25)
                await deferLater(reactor, 0.01)
            assert peer.gone.called and session.gone.called


@limited
async def test_a_bad_frame_in_a_flood() -> None:
    """Who sends a bad frame and goes on sending is told so."""
    for _ in range(10):
        async with relaying() as session:
            session.client.send_all(iter([GAME, BAD, *([bytes(100_000)] * 30)]))
            await session.client.stream_ended
            assert last_close(session.client) == (0, "protocol_error")
            assert (await session.outcome).reason is CloseReason.PROTOCOL_ERROR
            await reaches(lambda session=session: session.server.size, len(GAME) + 1)
            assert last_close(session.server) == (1, "protocol_error")


@pytest.mark.parametrize(("reader", "writer"), BOTH)
@limited
async def test_a_side_that_stalls(reader: str, writer: str) -> None:
    """A side that takes nothing of a full buffer for the stall timeout is lost, and the other is told."""
    async with relaying(stall_timeout=0.4, small=True) as session:
        stalled: Peer = getattr(session, reader)
        told: Peer = getattr(session, writer)
        stalled.transport.pauseProducing()
        told.send_all(endless())
        reason = (await session.outcome).reason
        assert reason is CloseReason[f"{reader.upper()}_LOST"]
        await reaches(lambda: told.size, 1)
        assert last_close(told) == (0, reason)
        await told.gone
        await session.gone


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Twisted's of OpenSSL's
@limited
async def test_tls() -> None:
    """Over TLS, too, the last words arrive, what was taken is measured, and a peer that does not close is let go."""
    clock = Clock()
    made: Deferred[Wire] = Deferred()
    key = KeyPair.generate(size=2048)
    certificate = key.selfSignedCert(1, CN="localhost")
    factory = TLSMemoryBIOFactory(
        certificate.options(), False, Factory.forProtocol(lambda: Wire(clock, made.callback))
    )
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    context = ssl.create_default_context(cadata=certificate.dumpPEM().decode())
    # Strict, as Python 3.13 is unless told otherwise, refuses Twisted's own certificates.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    client = context.wrap_bio(
        incoming := ssl.MemoryBIO(), outgoing := ssl.MemoryBIO(), False, "localhost"
    )
    raw = socket.create_connection(("127.0.0.1", port.getHost().port))
    raw.setblocking(False)

    async def until(step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                if outgoing.pending:
                    raw.send(outgoing.read())
                await deferLater(reactor, 0.005)
                with suppress(BlockingIOError):
                    incoming.write(raw.recv(65536))

    with closing(raw):
        await until(client.do_handshake)
        raw.send(outgoing.read())
        wire = await made
        assert wire.secure
        taken = wire.acknowledged()
        wire.write(GAME)
        wire.end(CLOSE, stall_timeout=30.0)
        received = b""
        while len(received) < len(GAME + CLOSE):
            received += await until(lambda: client.read(65536))
        assert received == GAME + CLOSE
        await reaches(wire.acknowledged, taken + len(received))
        while not wire.gone.called and clock.seconds() < 6.0:
            clock.advance(0.25)
            await deferLater(reactor, 0.01)
        assert wire.gone.called
    await port.stopListening()


@limited
async def test_a_slow_reader_that_goes_on() -> None:
    """A side that takes little, but something within every stall timeout, is not lost, and loses nothing."""
    async with relaying(stall_timeout=0.4, small=True) as session:
        handle = session.client.transport.getHandle()
        shrink(handle)
        session.client.transport.pauseProducing()
        sent = hashlib.sha256()
        session.server.send_all(numbered(3_000_000, sent))
        await reaches(lambda: session.server.sent, 300_000)
        for _ in range(30):  # three times the timeout
            session.client.dataReceived(handle.recv(16384))
            await deferLater(reactor, 0.04)
        assert not session.outcome.called
        assert session.server.sent < 2_000_000
        session.client.transport.resumeProducing()
        await reaches(lambda: session.client.size, 3_000_000)
        assert await settled(lambda: session.client.size) == session.server.sent
        assert hashlib.sha256(session.client.received).digest() == sent.digest()

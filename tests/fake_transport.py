"""A TCP transport for tests that keeps to what Twisted's own does, and moves nothing until the test says so.

What the proxy's side writes waits in :attr:`~FakeTransport.unsent` until the test lets the peer
:meth:`~FakeTransport.take` it; what the peer sends comes by :meth:`~FakeTransport.deliver`, and waits while reading is
paused.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

BUFFER = 65536
"""Unsent bytes above which a producer is paused, as in Twisted."""


@implementer(ITCPTransport, IConsumer, IPushProducer)
class FakeTransport:
    """One connection, seen from the proxy's side.

    :ivar taken: what the peer has received, ever.
    :ivar unsent: what was written and the peer has not taken yet.
    :ivar reading: whether the protocol wants to be given what comes.
    :ivar stream_ended: whether the peer has received the end of the stream.
    :ivar how: ``None`` while the connection stands; else ``done``, ``aborted`` or ``lost``.
    :ivar no_delay: what was set.
    """

    disconnecting = False

    def __init__(self, peer: IAddress | None = None, host: IAddress | None = None) -> None:
        self.taken = b""
        self.unsent = b""
        self.reading = True
        self.stream_ended = False
        self.how: str | None = None
        self.no_delay = False
        self.producer: IPushProducer | None = None
        self._producer_paused = False
        self._ends_stream = False
        self._waiting = b""
        self._peer_ended = False
        self._peer = peer or IPv4Address("TCP", "203.0.113.5", 40000)
        self._host = host or IPv4Address("TCP", "198.51.100.1", 7777)
        self._protocol: IProtocol | None = None

    @property
    def written(self) -> bytes:
        """All that was written, taken or not."""
        return self.taken + self.unsent

    # What the test does

    def connect(self, protocol: IProtocol) -> None:
        """Make the connection."""
        self._protocol = protocol
        protocol.makeConnection(self)

    def deliver(self, data: bytes = b"") -> None:
        """The peer sends; without data: whatever waits is read, if it may be."""
        self._waiting += data
        if self.how is None and self.reading and self._waiting:
            data, self._waiting = self._waiting, b""
            self._protocol.dataReceived(data)
        if self.how is None and self.reading and self._peer_ended and not self._waiting:
            self.reading = False
            half = IHalfCloseableProtocol(self._protocol, None)
            if half is None:
                self._lose("done", ConnectionDone())
            else:
                half.readConnectionLost()

    def end(self) -> None:
        """The peer ends its stream. It is noticed when all before it has been read."""
        self._peer_ended = True
        self.deliver()

    def reset(self) -> None:
        """The peer resets the connection."""
        self._lose("lost", ConnectionLost())

    def take(self, size: int | None = None) -> None:
        """The peer takes so many bytes, or all."""
        if self.how is not None:
            return
        size = len(self.unsent) if size is None else size
        self.taken += self.unsent[:size]
        self.unsent = self.unsent[size:]
        if self.unsent:
            return
        if self.producer is not None and self._producer_paused:
            self._producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self.stream_ended = True
            self._lose("done", ConnectionDone())
        elif self._ends_stream and not self.stream_ended:
            self.stream_ended = True
            half = IHalfCloseableProtocol(self._protocol, None)
            if half is not None:
                half.writeConnectionLost()

    def _lose(self, how: str, error: Exception) -> None:
        if self.how is not None:
            return
        self.how = how
        self.reading = False
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        self._protocol.connectionLost(Failure(error))

    # ITransport and ITCPTransport

    def write(self, data: bytes) -> None:
        if self.how is not None or self._ends_stream:
            return
        self.unsent += data
        if self.producer is not None and len(self.unsent) > BUFFER:
            self._producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.reading = False
        self.disconnecting = True

    def loseWriteConnection(self) -> None:
        self._ends_stream = True

    def abortConnection(self) -> None:
        self._lose("aborted", ConnectionAborted())

    def getPeer(self) -> IAddress:
        return self._peer

    def getHost(self) -> IAddress:
        return self._host

    def getTcpNoDelay(self) -> bool:
        return self.no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getTcpKeepAlive(self) -> bool:
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        raise NotImplementedError

    # IConsumer

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError("there is a producer already")
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    # IPushProducer

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if self.how is None and not self.disconnecting:
            self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

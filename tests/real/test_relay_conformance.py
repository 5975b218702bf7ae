"""What passes a relay between real sockets, on every plane: what no fake can show."""

from __future__ import annotations

import hashlib

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.real.relay_peers import (
    BOTH,
    PLANES,
    Peer,
    limited,
    numbered,
    reaches,
    relaying,
    settled,
    shrink,
)

pytestmark = pytest.mark.parametrize("plane", PLANES)


@pytest.mark.parametrize(("reader", "writer"), BOTH)
@limited
async def test_a_reader_that_stops(plane: str, reader: str, writer: str) -> None:
    """A side that does not read stops the other: the relay holds no more than its buffers. When it reads on, nothing
    is missing."""
    async with relaying(plane, small=True) as session:
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
async def test_much_both_ways(plane: str) -> None:
    """50 MB each way at the same time arrive complete and in order."""
    async with relaying(plane) as session:
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


@limited
async def test_a_slow_reader_that_goes_on(plane: str) -> None:
    """A side that takes little, but something within every stall timeout, is not lost, and loses nothing."""
    async with relaying(plane, stall_timeout=0.4, small=True) as session:
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

"""What passes a relay between real sockets, on every plane: what no fake can show."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from socket import socket

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from gameproxy.framing import FORMATS, FrameFormat
from gameproxy.interfaces import Traffic
from gameproxy.messages import FrameType, Notice, encode_settings
from gameproxy.reasons import CloseReason
from tests.real.relay_peers import (
    BOTH,
    CHAT,
    CLOSE,
    GAME,
    INT32,
    PLANES,
    Peer,
    flood,
    limited,
    numbered,
    on,
    reaches,
    relaying,
    settled,
    shrink,
    turns,
)

pytestmark = pytest.mark.parametrize("plane", PLANES)


@pytest.mark.parametrize(("reader", "writer"), BOTH)
@limited
async def test_no_backpressure_and_out_of_memory(plane: str, reader: str, writer: str) -> None:
    """No backpressure and out of memory: not here. A side that does not read stops the other, and the relay holds no
    more than its buffers. When it reads on, nothing is missing."""
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
    """What both send at the same time, as fast as they can, to readers that stop again and again, arrives complete and
    in order, and is counted."""
    async with relaying(plane, small=True) as session:
        await flood(session, 6_000_000)


def received_at_once(handle: socket, size: int) -> bytes:
    """What a socket has, and may be nothing yet."""
    with suppress(BlockingIOError):
        return handle.recv(size)
    return b""


@limited
async def test_a_slow_reader_that_goes_on(plane: str) -> None:
    """A side that takes little, but something within every stall timeout, is not lost, and loses nothing."""
    clock = Clock()
    async with relaying(plane, stall_timeout=0.4, clock=clock, small=True) as session:
        handle = session.client.transport.getHandle()
        shrink(handle)
        session.client.transport.pauseProducing()
        sent = hashlib.sha256()
        session.server.send_all(numbered(3_000_000, sent))
        await reaches(lambda: session.server.sent, 300_000)
        for _ in range(30):  # three times the timeout
            while not (data := received_at_once(handle, 16384)):
                await deferLater(reactor, 0.001)
            session.client.dataReceived(data)
            await turns()
            clock.advance(0.04)
        assert not session.outcome.called
        assert session.server.sent < 2_000_000
        session.client.transport.resumeProducing()
        while session.client.size < 3_000_000:
            await deferLater(reactor, 0.001)
            clock.advance(0.001)
        assert await settled(lambda: session.client.size) == session.server.sent
        assert hashlib.sha256(session.client.received).digest() == sent.digest()


def exchange(format: FrameFormat) -> bytes:
    """Three frames: one with a long header where there are any, an empty one, and one of a single byte."""
    bodies = (b"\x10" * 130, b"", b"\xff")
    return b"".join(map(format.encode, bodies))


@pytest.mark.parametrize("name", FORMATS)
@limited
async def test_split_anywhere(plane: str, name: str) -> None:
    """A stream that comes in two pieces, cut between any two bytes, passes as it came; its frames are counted once."""
    format = FORMATS[name]
    stream = exchange(format)
    async with relaying(plane, format=format) as session:
        peers = (session.client, session.server)
        for count, cut in enumerate(range(1, len(stream)), 1):
            for piece in (stream[:cut], stream[cut:]):
                for peer in peers:
                    peer.send_now(piece)
                await turns()
            for peer in peers:
                await reaches(lambda peer=peer: peer.size, count * len(stream))
                assert peer.received == stream
                peer.received.clear()
                peer.size = count * len(stream)
            size = count * len(stream)
            assert session.relay.traffic == Traffic(3 * count, size, 3 * count, size)


@pytest.mark.parametrize("name", FORMATS)
@limited
async def test_byte_by_byte(plane: str, name: str) -> None:
    """A stream that comes byte by byte passes: a byte waits only while its frame cannot be judged."""
    format = FORMATS[name]
    stream = exchange(format)
    async with relaying(plane, format=format) as session:
        for at in range(len(stream)):
            session.client.send_now(stream[at : at + 1])
            session.server.send_now(stream[at : at + 1])
            await turns()
            await reaches(lambda at=at: session.server.size, at + 1 - format.header_size)
        for peer in (session.client, session.server):
            await reaches(lambda peer=peer: peer.size, len(stream))
            assert peer.received == stream


@pytest.mark.parametrize("name", FORMATS)
@limited
async def test_largest_bodies(plane: str, name: str) -> None:
    """Bodies of no byte and of max_frame bytes pass; of one with a byte more nothing does, and it ends the session."""
    format = replace(FORMATS[name], max_frame=1000)
    wider = FORMATS[name]
    async with relaying(plane, format=format) as session:
        good = format.encode(b"") + format.encode(b"\x10" * 1000)
        session.client.send(good)
        session.server.send(good)
        await reaches(lambda: session.server.size, len(good))
        await reaches(lambda: session.client.size, len(good))
        session.client.send(wider.encode(b"\x10" * 1001))
        outcome = await session.outcome
        assert outcome.reason is CloseReason.PROTOCOL_ERROR
        assert outcome.message == "A frame of 1001 bytes, where 1000 are allowed."
        last = format.encode(Notice("protocol_error", outcome.message).encode(FrameType.CLOSE))
        for peer in (session.client, session.server):
            await reaches(lambda peer=peer: peer.size, len(good + last))
            assert peer.received == good + last
        assert session.relay.traffic == Traffic(2, len(good), 2, len(good))


@limited
async def test_the_largest_body_of_all(plane: str) -> None:
    """A body of max_frame bytes passes by default, too: it is far larger than what is read at once."""
    frame = INT32.encode(b"\x10" * INT32.max_frame)
    async with relaying(plane) as session:
        session.server.send(frame)
        await reaches(lambda: session.client.size, len(frame))
        assert session.client.received == frame


@pytest.mark.parametrize("name", ["int32", "varint"])
@limited
async def test_begun_anywhere(plane: str, name: str) -> None:
    """A relay goes on where the stream stands, between any two bytes: what was read before goes first, and what the
    system holds then follows."""
    format = FORMATS[name]
    stream = exchange(format)
    size = len(stream)
    with on(plane) as make:
        for cut in range(len(stream) + 1):
            parts = {"early": stream[:cut], "waiting": stream[cut:]}
            async with relaying(plane, format=format, make=make, **parts) as session:
                for peer in (session.client, session.server):
                    await reaches(lambda peer=peer: peer.size, len(stream))
                    assert peer.received == stream
                assert session.relay.traffic == Traffic(3, size, 3, size)


@limited
async def test_begun_behind_what_waits(plane: str) -> None:
    """What a relay finds written already, but not sent, goes before what it passes on."""
    async with relaying(plane, small=True, early=GAME * 300, waiting=CHAT * 10) as session:
        for peer in (session.client, session.server):
            await reaches(lambda peer=peer: peer.size, len(GAME * 300 + CHAT * 10))
            assert peer.received == GAME * 300 + CHAT * 10


@limited
async def test_settings_and_other_dialects(plane: str) -> None:
    """SETTINGS pass from the game server; where types are not looked at, all frames do."""
    settings = INT32.encode(encode_settings(b"fast"))
    async with relaying(plane) as session:
        session.server.send(GAME + settings)
        await reaches(lambda: session.client.size, len(GAME + settings))
        assert session.client.received == GAME + settings
    async with relaying(plane, dialect="plain") as session:
        session.client.send(CLOSE + settings)
        await reaches(lambda: session.server.size, len(CLOSE + settings))
        assert session.server.received == CLOSE + settings
        assert not session.outcome.called


@limited
async def test_ipv6(plane: str) -> None:
    """Over IPv6 it is the same."""
    async with relaying(plane, host="::1") as session:
        await flood(session, 500_000)
        session.client.transport.abortConnection()
        assert (await session.outcome).reason is CloseReason.CLIENT_LOST
        await session.server.stream_ended

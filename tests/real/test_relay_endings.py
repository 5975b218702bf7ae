"""How relays end between real sockets, on every plane: what no fake can show."""

from __future__ import annotations

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from gameproxy.reasons import CloseReason
from tests.real.relay_peers import (
    BAD,
    BOTH,
    CLOSE,
    GAME,
    PLANES,
    Peer,
    endless,
    last_close,
    limited,
    reaches,
    relaying,
    settled,
    shrink,
)

pytestmark = pytest.mark.parametrize("plane", PLANES)


@pytest.mark.parametrize(("ender", "reader"), BOTH)
@limited
async def test_a_slow_reader_gets_all_before_an_orderly_end(
    plane: str, ender: str, reader: str
) -> None:
    """What came before one side closed reaches the other however late that reads, within the stall timeout, and
    however much it goes on sending itself."""
    clock = Clock()
    async with relaying(plane, clock=clock, small=True) as session:
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
async def test_what_the_kernel_holds_is_not_thrown_away(plane: str) -> None:
    """Also what the kernel has taken, but the peer's has not, is delivered before the connection is aborted."""
    clock = Clock()
    async with relaying(plane, clock=clock) as session:
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
async def test_a_reset(plane: str, ender: str, other: str) -> None:
    """A side that resets its connection is lost; the other gets what came before, and is told."""
    async with relaying(plane) as session:
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
async def test_the_last_message_reaches_who_keeps_sending(plane: str, side: str) -> None:
    """A peer that does not stop sending still gets CLOSE: no reset overtakes it. And it cannot keep its connection."""
    for _ in range(10):
        clock = Clock()
        async with relaying(plane, clock=clock) as session:
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
async def test_a_bad_frame_in_a_flood(plane: str) -> None:
    """Who sends a bad frame and goes on sending is told so."""
    for _ in range(10):
        async with relaying(plane) as session:
            session.client.send_all(iter([GAME, BAD, *([bytes(100_000)] * 30)]))
            await session.client.stream_ended
            assert last_close(session.client) == (0, "protocol_error")
            assert (await session.outcome).reason is CloseReason.PROTOCOL_ERROR
            await reaches(lambda session=session: session.server.size, len(GAME) + 1)
            assert last_close(session.server) == (1, "protocol_error")


@pytest.mark.parametrize(("reader", "writer"), BOTH)
@limited
async def test_a_side_that_stalls(plane: str, reader: str, writer: str) -> None:
    """A side that takes nothing of a full buffer for the stall timeout is lost, and the other is told."""
    async with relaying(plane, stall_timeout=0.4, small=True) as session:
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

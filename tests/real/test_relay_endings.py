"""How relays end between real sockets, on every plane: what no fake can show."""

from __future__ import annotations

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from gameproxy.framing import FORMATS
from gameproxy.interfaces import Outcome
from gameproxy.messages import FrameType, Kick, Notice
from gameproxy.reasons import CloseReason
from tests.real.relay_peers import (
    BAD,
    BOTH,
    CLOSE,
    GAME,
    INT32,
    PLANES,
    Peer,
    come_and_go,
    endless,
    last_close,
    limited,
    reaches,
    relaying,
    settled,
    shrink,
    turns,
)


def _frame(body: bytes, format: str = "int32") -> bytes:
    return FORMATS[format].encode(body)


BAD_INPUT = [
    ("client", "int32", BAD, "A frame of 4294967295 bytes, where 2097151 are allowed."),
    ("server", "int32", BAD, "A frame of 4294967295 bytes, where 2097151 are allowed."),
    ("client", "int32", _frame(b"\x0b{}"), "A frame of type 0x0b, which may not come here."),
    ("client", "int32", _frame(b"\x03"), "A frame of type 0x03, which may not come here."),
    ("server", "int32", _frame(b"\x01{}"), "A frame of type 0x01, which may not come here."),
    ("server", "int32", _frame(b"\x00"), "A frame of type 0x00, which may not come here."),
    ("client", "int32", _frame(b"\x06{"), "Not JSON in UTF-8."),
    ("server", "int32", _frame(b"\x06[]"), "Not a JSON object."),
    ("server", "int32", _frame(b'\x0b{"code": 1}'), "'code' must be a string."),
    ("client", "int32", b"\0\0\x10\x01\x06", "A frame of 4097 bytes, where 4096 are allowed."),
    ("client", "varint", b"\xff\xff\xff", "A varint that is too long."),
    ("server", "int16-le-inclusive", b"\1\0", "A frame of negative length -1."),
    ("client", "vim-arcade", b"\0\0\xff\xff", "A frame of 65535 bytes, where 1020 are allowed."),
]
"""Which side sends what, in which format, and what is said of it."""

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
        while not slow.stream_ended.called:  # a game server has a moment to end it first
            await deferLater(reactor, 0.02)
            clock.advance(0.25)
        code = "client_lost" if ender == "client" else "server_lost"
        assert last_close(slow) == (300, code)
        slow.transport.loseConnection()
        while not session.gone.called:  # what it sent itself may keep the end from being orderly
            await deferLater(reactor, 0.02)
            clock.advance(0.25)


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


@pytest.mark.parametrize(("ender", "other"), BOTH)
@limited
async def test_a_reset_with_data_behind(plane: str, ender: str, other: str) -> None:
    """What the system holds of a side that has reset its connection since is passed on, too."""
    async with relaying(plane) as session:
        broken: Peer = getattr(session, ender)
        told: Peer = getattr(session, other)
        broken.send_now(GAME * 3)
        broken.transport.abortConnection()
        reason = (await session.outcome).reason
        assert reason is CloseReason[f"{ender.upper()}_LOST"]
        await reaches(lambda: told.size, 3 * len(GAME) + 1)
        assert last_close(told) == (3, reason)


@pytest.mark.parametrize("side", ["client", "server"])
@limited
async def test_the_last_message_reaches_who_keeps_sending(plane: str, side: str) -> None:
    """A peer that does not stop sending still gets CLOSE: no reset overtakes it. And it cannot keep its connection."""
    for _ in range(5):
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


@pytest.mark.parametrize(("reader", "writer"), BOTH)
@limited
async def test_a_side_that_stalls_before_one_that_is_silent(
    plane: str, reader: str, writer: str
) -> None:
    """So it is when the other has sent more than the buffers of two sockets hold, and then nothing more."""
    async with relaying(plane, stall_timeout=0.4, small=True) as session:
        stalled: Peer = getattr(session, reader)
        told: Peer = getattr(session, writer)
        stalled.transport.pauseProducing()
        told.send(GAME * 900)
        reason = (await session.outcome).reason
        assert reason is CloseReason[f"{reader.upper()}_LOST"]
        await reaches(lambda: told.size, 1)
        assert last_close(told) == (0, reason)


@pytest.mark.parametrize(("ender", "other"), BOTH)
@limited
async def test_an_end_within_a_frame(plane: str, ender: str, other: str) -> None:
    """A side that ends its stream with data still on the way, within a frame: the other gets all of it, and no CLOSE,
    which would be taken for the rest of the frame."""
    async with relaying(plane) as session:
        gone: Peer = getattr(session, ender)
        told: Peer = getattr(session, other)
        stream = GAME * 200 + GAME[:500]
        gone.send(stream)
        gone.transport.loseConnection()
        assert (await session.outcome).reason is CloseReason[f"{ender.upper()}_LOST"]
        await told.stream_ended
        assert told.received == stream
        told.transport.loseConnection()
        await session.gone


@pytest.mark.parametrize("slow", [False, True])
@limited
async def test_close_in_a_burst(plane: str, slow: bool) -> None:
    """CLOSE of the game server's is passed on behind what came before it, however slowly that is taken, and nothing
    that came after it."""
    async with relaying(plane, small=True) as session:
        if slow:
            session.client.transport.pauseProducing()
        session.server.send(GAME * 150 + CLOSE + GAME * 50)
        assert (await session.outcome).reason is CloseReason.LEFT
        session.client.transport.resumeProducing()
        await session.client.stream_ended
        assert last_close(session.client) == (150, "left")
        assert session.relay.traffic.server_frames == 150


@limited
async def test_kick_in_a_burst(plane: str) -> None:
    """KICK ends it for both, behind what came before it."""
    async with relaying(plane) as session:
        session.client.send(GAME * 20)
        await reaches(lambda: session.server.size, 20 * len(GAME))
        kick = INT32.encode(Kick("cheating", "Out.", 60.0).encode())
        session.server.send(GAME * 150 + kick + GAME * 50)
        outcome = await session.outcome
        assert outcome == Outcome(CloseReason.KICKED, "Out.", 60.0)
        await session.client.stream_ended
        assert last_close(session.client) == (150, "kicked")
        await reaches(lambda: session.server.size, 20 * len(GAME) + 1)
        assert last_close(session.server) == (20, "kicked")


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(("side", "format", "bad", "message"), BAD_INPUT)
@limited
async def test_bad_input(
    plane: str, side: str, format: str, bad: bytes, message: str, split: bool
) -> None:
    """What may not come ends the session with protocol_error, in the same words on every plane, in whatever pieces it
    comes; nothing of it, or after it, reaches the other side."""
    good = FORMATS[format].encode(b"\x10good")
    async with relaying(plane, format=FORMATS[format]) as session:
        sender: Peer = getattr(session, side)
        pieces = [bytes([byte]) for byte in good + bad] if split else [good + bad + good]
        for piece in pieces:
            sender.send_now(piece)
            await turns()
        outcome = await session.outcome
        assert outcome == Outcome(CloseReason.PROTOCOL_ERROR, message)
        last = FORMATS[format].encode(Notice("protocol_error", message).encode(FrameType.CLOSE))
        for peer in (session.client, session.server):
            before = b"" if peer is sender else good
            await reaches(lambda peer=peer, before=before: peer.size, len(before + last))
            assert peer.received == before + last


@limited
async def test_many_come_and_go(plane: str) -> None:
    """Sessions that begin and end in every way do not disturb those that stream meanwhile, and leave nothing."""
    await come_and_go(plane, streaming=4, sessions=42)

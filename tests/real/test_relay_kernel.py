"""Sessions that go to the kernel and come back: what is particular to that plane."""

from __future__ import annotations

import struct
from ctypes import addressof, create_string_buffer
from errno import ENOSPC
from functools import partial
from socket import MSG_MORE, SHUT_WR, SOL_SOCKET
from time import monotonic, process_time, sleep
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from gameproxy.config import LimitConfig, LimitsConfig, ProxyConfig
from gameproxy.dialect import Dialect
from gameproxy.framing import FORMATS
from gameproxy.interfaces import Traffic
from gameproxy.limit_counts import LimitCounts
from gameproxy.reasons import CloseReason
from gameproxy.relay import (
    EpollPlane,
    KernelPlane,
    KernelRelay,
    PlaneUnavailable,
    RelayLimits,
    Relays,
    choice,
)
from gameproxy.relay.kernel_plane import FIRST_PAUSE, LONGEST_PAUSE
from gameproxy.relay.sockmap import Unavailable, load, tcp
from tests.real.relay_peers import (
    BOTH,
    CHAT,
    CLOSE,
    GAME,
    INT32,
    Peer,
    Session,
    last_close,
    limited,
    numbered,
    on,
    reaches,
    relaying,
    turns,
)
from tests.real.test_relay_conformance import exchange

AFTER = 2.0
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27


async def comes_to(session: Session, plane: str) -> None:
    """Wait until a session is on a plane."""
    await reaches(lambda: session.relay.plane == plane, 1)


@pytest.mark.parametrize("name", ["int32", "varint", "vim-arcade"])
@limited
async def test_handed_over_anywhere(name: str) -> None:
    """Between any two bytes of an exchange both ways the kernel takes over, and passes on what comes after. Within a
    header it does not, and is asked again."""
    stream = exchange(FORMATS[name])
    taken = 0
    clock = Clock()
    with on("sockmap", AFTER, clock) as make:
        for cut in range(len(stream) + 1):
            async with relaying("epoll", format=FORMATS[name], make=make) as session:
                peers = (session.client, session.server)
                for peer in peers:
                    if cut:
                        peer.send_now(stream[:cut])
                await turns()
                await turns()
                assert session.relay.plane == "epoll"
                clock.advance(AFTER)
                is_taken = session.relay.plane == "sockmap"
                taken += is_taken
                for peer in peers:
                    if cut < len(stream):
                        peer.send_now(stream[cut:])
                for peer in peers:
                    await reaches(lambda peer=peer: peer.size, len(stream))
                    assert peer.received == stream
                size = len(stream)
                assert session.relay.traffic == Traffic(3, size, 3, size)
                assert session.relay.plane == ("sockmap" if is_taken else "epoll")
                if not is_taken:
                    clock.advance(FIRST_PAUSE)
                    assert session.relay.plane == "sockmap"
    assert taken > 130


@pytest.mark.parametrize("name", ["int32", "varint", "vim-arcade"])
@limited
async def test_taken_back_anywhere(name: str) -> None:
    """Between any two bytes of an exchange both ways user space takes over from the kernel, and the kernel from it when
    the exchange is over."""
    stream = exchange(FORMATS[name])
    clock = Clock()
    total = 0
    with on("sockmap", 0.0, clock) as make:
        async with relaying("sockmap", format=FORMATS[name], make=make) as session:
            peers = (session.client, session.server)
            for cut in range(len(stream) + 1):
                for peer in peers:
                    if cut:
                        peer.send_now(stream[:cut])
                await turns()
                session.relay.take_back()
                assert session.relay.plane == "epoll"
                for peer in peers:
                    if cut < len(stream):
                        peer.send_now(stream[cut:])
                total += len(stream)
                for peer in peers:
                    while peer.size < total:
                        clock.advance(0.001)
                        await deferLater(reactor, 0)
                    assert peer.received == stream
                    peer.received.clear()
                count = 3 * (cut + 1)
                assert session.relay.traffic == Traffic(count, total, count, total)
                clock.advance(2 * LONGEST_PAUSE)
                assert session.relay.plane == "sockmap"


class Counting(EpollPlane):
    """One that counts how often the reactor wakes it."""

    woken = 0

    def doRead(self) -> None:
        self.woken += 1
        super().doRead()


@limited
async def test_nobody_is_woken(plane: object) -> None:
    """What the kernel passes on wakes nothing in the proxy."""
    epoll = Counting(reactor)
    kernel = KernelPlane(epoll, reactor, load(1))
    async with relaying("sockmap", make=partial(KernelRelay, kernel, 0.0)) as session:
        await turns()
        before = epoll.woken
        for count in range(1, 301):
            session.client.send_now(GAME)
            session.server.send_now(GAME)
            for peer in (session.client, session.server):
                await reaches(lambda peer=peer, count=count: peer.size, count * len(GAME))
        assert epoll.woken == before
        assert session.relay.traffic.client_frames == 300
        session.client.send_now(GAME[:1])
        await comes_to(session, "epoll")
        assert epoll.woken > before
    kernel.close()
    epoll.close()


@limited
async def test_young_sessions_stay() -> None:
    """A session that ends before its time is never handed over, and leaves nothing that would do it."""
    clock = Clock()
    with on("sockmap", AFTER, clock) as make:
        async with relaying("epoll", make=make) as session:
            clock.advance(AFTER - 0.1)
            assert session.relay.plane == "epoll"
            session.client.send(GAME + CLOSE)
            assert (await session.outcome).reason is CloseReason.LEFT
            assert clock.getDelayedCalls() == []


async def _split(session: Session, clock: Clock) -> None:
    """Send a frame whose header comes in two pieces."""
    before = session.server.size
    session.client.send_now(GAME[:1])
    await comes_to(session, "epoll")
    session.client.send_now(GAME[1:])
    while session.server.size < before + len(GAME):
        clock.advance(0.0001)
        await deferLater(reactor, 0)


async def _paused(session: Session, clock: Clock) -> float:
    """How long it takes until the kernel has the session again."""
    start = clock.seconds()
    while session.relay.plane != "sockmap":
        clock.advance(0.001)
        assert clock.seconds() < start + 2 * LONGEST_PAUSE
        await deferLater(reactor, 0)
    return clock.seconds() - start


@limited
async def test_who_splits_every_header() -> None:
    """Each time that a direction comes back at once it stays in user space for twice as long, up to a bound, so that
    nobody makes the proxy hand over all the time; one that has rested in the kernel goes back sooner."""
    clock = Clock()
    with on("sockmap", 0.0, clock) as make:
        async with relaying("sockmap", make=make) as session:
            pauses = []
            for _ in range(10):
                await _split(session, clock)
                pauses.append(await _paused(session, clock))
            for count, pause in enumerate(pauses, 1):
                assert pause == pytest.approx(min(FIRST_PAUSE * 2**count, LONGEST_PAUSE), 0.2)
            clock.advance(LONGEST_PAUSE)
            await _split(session, clock)
            assert await _paused(session, clock) == pytest.approx(LONGEST_PAUSE / 2, 0.2)


@pytest.mark.parametrize(("reader", "writer"), BOTH)
@limited
async def test_a_slow_reader_comes_back(reader: str, writer: str) -> None:
    """While a side does not read, user space has the other's direction when the kernel's part is full; when all is read
    the kernel gets it again."""
    async with relaying("sockmap", small=True) as session:
        slow: Peer = getattr(session, reader)
        fast: Peer = getattr(session, writer)
        slow.transport.pauseProducing()
        fast.send_all(numbered(3_000_000, _Ignored()))
        await comes_to(session, "epoll")
        slow.transport.resumeProducing()
        await reaches(lambda: slow.size, 3_000_000)
        await comes_to(session, "sockmap")
        assert slow.size == fast.sent


class _Ignored:
    """A digest that nobody wants."""

    def update(self, data: bytes) -> None: ...


@limited
async def test_closed_while_much_is_under_way() -> None:
    """When the proxy ends a session, all that the kernel had passed on arrives before its last words, however late it
    is read."""
    async with relaying("sockmap", small=True) as session:
        session.client.transport.pauseProducing()
        session.server.send(GAME * 600)
        await reaches(lambda: session.relay.traffic.server_frames, 600)
        assert session.relay.plane == "sockmap"
        session.relay.close(CloseReason.DRAINING, "")
        await deferLater(reactor, 0.1)
        session.client.transport.resumeProducing()
        await session.client.stream_ended
        received = bytes(session.client.received)
        assert received.startswith(GAME * 600)
        assert b'"draining"' in received[600 * len(GAME) :]


@limited
async def test_nothing_behind_the_last_words() -> None:
    """When the proxy has ended a session, nothing passes in the kernel any more."""
    async with relaying("sockmap") as session:
        session.client.send(GAME)
        await reaches(lambda: session.server.size, len(GAME))
        session.relay.close(CloseReason.DRAINING, "")
        session.client.send_now(GAME)
        await session.server.stream_ended
        assert last_close(session.server) == (1, "draining")
        assert session.relay.traffic.client_frames == 1


@limited
async def test_begun_behind_what_is_not_sent() -> None:
    """What a transport has still to send goes before what the kernel passes on."""
    for _ in range(5):
        async with relaying("sockmap", early=CHAT) as session:
            for peer in (session.client, session.server):
                peer.send_now(GAME)
            for peer in (session.client, session.server):
                await reaches(lambda peer=peer: peer.size, len(CHAT + GAME))
                assert peer.received == CHAT + GAME


class Deaf(KernelPlane):
    """One that never hears of what the program has stopped."""

    def read(self, buffer: memoryview) -> int:
        return 0


@pytest.mark.parametrize("kind", [KernelPlane, Deaf])
@limited
async def test_last_words_and_an_end_at_once(plane: object, kind: type[KernelPlane]) -> None:
    """A CLOSE that comes with the end of the stream right behind it is heard, whichever of the two is told first."""
    epoll = EpollPlane(reactor)
    kernel = kind(epoll, reactor, load(1))
    async with relaying("sockmap", make=partial(KernelRelay, kernel, 0.0)) as session:
        session.client.send_now(GAME[:500])
        await reaches(lambda: session.server.size, 500)
        handle = session.client.transport.getHandle()
        handle.send(GAME[500:] + CLOSE, MSG_MORE)  # in one segment with the end
        handle.shutdown(SHUT_WR)
        assert (await session.outcome).reason is CloseReason.LEFT
        await reaches(lambda: session.server.size, len(GAME) + 1)
        assert last_close(session.server) == (1, "left")
    kernel.close()
    epoll.close()


def lose(connection: Any, what_comes: bool) -> None:
    """Have the kernel throw away what comes to a socket, or no more (socket(7))."""
    everything = create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("H6xQ", 1, addressof(everything))
    name = SO_ATTACH_FILTER if what_comes else SO_DETACH_FILTER
    connection.setsockopt(SOL_SOCKET, name, program)


@limited
async def test_last_words_that_come_again_with_the_end() -> None:
    """A CLOSE is heard of which TCP believes that it was lost, and which it repeats in one segment with the end."""
    async with relaying("sockmap") as session:
        session.client.send(GAME)
        await reaches(lambda: session.server.size, len(GAME))
        client, ours = (s.transport.getHandle() for s in (session.client, session.relay._client))
        lose(client, True)
        session.client.send_now(CLOSE)  # the acknowledgement is lost
        lose(ours, True)
        client.shutdown(SHUT_WR)  # and so is the end, also when TCP tries that alone
        sleep(0.05)
        for connection in (client, ours):
            lose(connection, False)
        until = monotonic() + 10
        while not tcp.received(ours).ended:  # before the proxy reads
            assert monotonic() < until
        assert (await session.outcome).reason is CloseReason.LEFT


@limited
async def test_an_end_before_what_was_left() -> None:
    """What the program has left to user space comes behind what it has for the same side. When that does not read, the
    end of its stream is seen first, and what came before it is not lost."""
    async with relaying("sockmap", small=True) as session:
        session.client.transport.pauseProducing()
        session.server.send(GAME * 600)
        await reaches(lambda: session.relay.traffic.server_frames, 600)
        session.client.send_now(CHAT[:1])
        await comes_to(session, "epoll")
        session.client.send_now(CHAT[1:])
        session.client.transport.loseWriteConnection()
        before = process_time()
        await deferLater(reactor, 0.5)
        assert process_time() - before < 0.1  # though the socket can be read all the time
        session.client.transport.resumeProducing()
        assert (await session.outcome).reason is CloseReason.CLIENT_LOST
        await session.server.stream_ended
        assert session.server.received.startswith(CHAT)
        assert b'"client_lost"' in session.server.received[len(CHAT) :]
        assert session.relay.traffic.client_frames == 1


@limited
async def test_a_stream_that_the_kernel_has_lost() -> None:
    """Where the kernel does not know what comes next, the connection is as one that broke: what had passed arrives."""
    async with relaying("sockmap") as session:
        session.client.send(GAME)
        await reaches(lambda: session.relay.traffic.client_frames, 1)
        session.relay._pair.from_client._record.next -= 1
        session.client.send(CHAT)
        assert (await session.outcome).reason is CloseReason.CLIENT_LOST
        await session.server.stream_ended
        assert session.server.received.startswith(GAME)
        assert last_close(session.server) == (1, "client_lost")
        assert session.relay.traffic.client_frames == 1


@pytest.mark.parametrize("was_in_kernel", [False, True])
@limited
async def test_no_room_to_watch(monkeypatch: pytest.MonkeyPatch, was_in_kernel: bool) -> None:
    """When the system has no room to watch a socket, Twisted's transport reads it; unless it has been in the kernel:
    nobody but its lane knows what the program has left."""

    def fails(plane: EpollPlane, end: object) -> None:
        raise OSError(ENOSPC, "no room")

    plane = "sockmap" if was_in_kernel else "transport"
    with monkeypatch.context() as patch, on("sockmap", 0.0) as make:
        if not was_in_kernel:
            patch.setattr(EpollPlane, "join", fails)
        async with relaying(plane, make=make) as session:
            patch.setattr(EpollPlane, "join", fails)
            session.relay.take_back()
            if was_in_kernel:
                assert (await session.outcome).reason is CloseReason.CLIENT_LOST
            else:
                session.client.send(GAME)
                await reaches(lambda: session.server.size, len(GAME))


@limited
async def test_room_for_no_more() -> None:
    """When there is no room in the kernel a session is relayed without it, and asks again."""
    with on("sockmap", room=1) as make:
        async with relaying("sockmap", make=make) as first, relaying("epoll", make=make) as second:
            second.client.send(GAME)
            await reaches(lambda: second.server.size, len(GAME))
            assert (first.relay.plane, second.relay.plane) == ("sockmap", "epoll")
            first.client.transport.abortConnection()
            await first.gone
            await comes_to(second, "sockmap")


# Whether it is there


def relays(**section: Any) -> Relays:
    """What makes relays for a section ``[proxy]``."""
    return Relays(ProxyConfig(**section), reactor, Dialect("native", INT32))


def refusing(pairs: int) -> Any:
    """In place of what loads the program."""
    raise Unavailable("It is Sunday.")


@limited
async def test_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the program cannot be loaded, auto says why and does without; named, it is refused."""
    monkeypatch.setattr(choice, "load", refusing)
    auto = relays(relay="auto")
    auto.load()
    assert auto.state() == {"configured": "auto", "sockmap": "It is Sunday."}
    with pytest.raises(PlaneUnavailable, match=r"^It is Sunday\.$"):
        relays(relay="sockmap").load()
    for named in ("transport", "epoll"):
        other = relays(relay=named)
        other.load()
        assert other.state()["sockmap"] == f"The configuration names '{named}'."
    with pytest.raises(PlaneUnavailable, match="watches descriptors"):
        Relays(ProxyConfig(relay="sockmap"), Clock(), Dialect("native", INT32))
    unwatched = Relays(ProxyConfig(), Clock(), Dialect("native", INT32))
    unwatched.load()
    assert unwatched.state()["sockmap"] == "The reactor watches no descriptors."


@limited
async def test_loaded_once(plane: object) -> None:
    """It is loaded once, with room for all sessions, and let go of with the relays."""
    both = relays(max_sessions=3)
    both.load()
    both.load()
    assert both.state() == {"configured": "auto", "sockmap": "on"}
    both.close()


@limited
async def test_forgiven_before_it_is_taken() -> None:
    """While what comes may have been sent when nothing was read, a client with limits stays out of the kernel, which
    would hold it against him."""
    section = LimitsConfig(frames_per_second=LimitConfig(mode="enforce", rate=1.0, burst=5.0))
    clock = Clock()
    limits = RelayLimits.of(section, clock, LimitCounts(section.modes))
    with on("sockmap", 0.0, clock) as make:
        async with relaying("sockmap", clock=clock, limits=limits, make=make) as session:
            session.relay.take_back()
            sink = session.relay._from_client
            sink.pauseProducing()
            clock.advance(4.0)
            sink.resumeProducing()
            session.client.send_now(GAME * 8)
            await reaches(lambda: session.server.size, len(GAME * 8))
            for _ in range(3):
                clock.advance(1.0)
                assert session.relay.plane == "epoll"
            clock.advance(2.0)
            assert session.relay.plane == "sockmap"
            session.client.send_now(GAME)
            await reaches(lambda: session.server.size, len(GAME * 9))
            session.client.send_now(GAME * 6)
            assert (await session.outcome).reason is CloseReason.LIMIT_EXCEEDED

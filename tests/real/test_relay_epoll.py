"""The epoll plane itself: its turns, descriptors that come back, and which connections it takes."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory
from twisted.internet.ssl import KeyPair
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from gameproxy.config import ProxyConfig
from gameproxy.dialect import Dialect
from gameproxy.framing import FrameScanner
from gameproxy.interfaces import Outcome, Traffic
from gameproxy.metrics import by_relay
from gameproxy.reasons import CloseReason
from gameproxy.relay import EpollPlane, EpollRelay, PlaneUnavailable, Relays, Terms, TransportRelay
from gameproxy.relay.epoll import ROUND_SOCKETS
from gameproxy.wire import Side, Wire
from tests.fake_transport import FakeTransport
from tests.real.relay_peers import (
    BAD,
    CHAT,
    GAME,
    INT32,
    MakeRelay,
    Session,
    connection,
    limited,
    on,
    reaches,
    relaying,
    turns,
    watched,
)
from tests.real.rig import Rig

WORDS = Dialect("native", INT32)


async def several(stack: AsyncExitStack, make: MakeRelay, count: int) -> list[Session]:
    """Sessions on one plane."""
    return [await stack.enter_async_context(relaying("epoll", make=make)) for _ in range(count)]


@implementer(IPushProducer)
class Heedless:
    """What is paused, and does nothing of it."""

    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def stopProducing(self) -> None: ...


@contextmanager
def failures() -> Iterator[list[dict[str, Any]]]:
    """What is logged of exceptions."""
    found: list[dict[str, Any]] = []

    def observe(event: dict[str, Any]) -> None:
        if "log_failure" in event:
            found.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield found
    finally:
        globalLogPublisher.removeObserver(observe)


# Turns


@limited
async def test_all_have_their_turn() -> None:
    """When much has come of many, a turn of the reactor reads no more than a part of them; those left over are read in
    the next, also one that sends little beside many that flood."""
    plane = EpollPlane(reactor)
    async with AsyncExitStack() as stack:
        sessions = await several(stack, partial(EpollRelay, plane), ROUND_SOCKETS + 8)
        *floods, quiet = sessions
        for session in floods:
            session.client.transport.getHandle().send(INT32.encode(bytes([0x10]) * 1_000_000))
        quiet.client.send_now(GAME)
        plane.doRead()
        read = [session for session in sessions if session.relay.traffic.client_bytes]
        assert 0 < len(read) <= ROUND_SOCKETS
        plane.doRead()
        assert all(session.relay.traffic.client_bytes for session in sessions)
    plane.close()


@limited
async def test_a_turn_ends() -> None:
    """A frame that always comes back at once, as its relays form a ring, does not keep the reactor in one turn."""
    plane = EpollPlane(reactor)
    ends: list[tuple[Wire, Wire]] = []
    for _ in range(2):
        accepted: Deferred[Wire] = Deferred()
        factory = Factory.forProtocol(lambda made=accepted: Wire(reactor, made.callback))
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        dialled: Deferred[Wire] = Deferred()
        factory = Factory.forProtocol(lambda made=dialled: Wire(reactor, made.callback))
        await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(factory)
        ends.append((await accepted, await dialled))
        await port.stopListening()
    (first, second), (third, fourth) = ends
    relays = []
    for client, server, early in ((first, third, CHAT), (fourth, second, b"")):
        scanners = [FrameScanner(INT32, WORDS.server_verdicts) for _ in range(2)]
        sides = Side(client, scanners[0], scanners[0].scan(early)), Side(server, scanners[1], b"")
        relays.append(EpollRelay(plane, *sides, Terms(WORDS, reactor, 8.0), lambda outcome: None))
    for relay in relays:
        relay.start()
    await turns()
    before = relays[0].traffic.client_frames
    plane.doRead()
    assert 0 < relays[0].traffic.client_frames - before < 100
    for relay in relays:
        relay.close(CloseReason.DRAINING, "")
    for wire in (first, second, third, fourth):
        wire.abort()
        await wire.gone
    plane.close()


# What has ended


@limited
async def test_ended_within_a_round() -> None:
    """When a session ends, what has come of its other side in the same round is not passed on any more."""
    plane = EpollPlane(reactor)
    with failures() as logged:
        async with relaying("epoll", make=partial(EpollRelay, plane)) as session:
            session.client.send_now(BAD)
            session.server.send_now(GAME)
            plane.doRead()
            assert session.outcome.called
            assert session.relay.traffic == Traffic()
    assert logged == []
    plane.close()


@limited
async def test_nothing_there_any_more() -> None:
    """A socket that can be read, and then has nothing, as somebody else has read it, stays where it is."""
    plane = EpollPlane(reactor)
    async with AsyncExitStack() as stack:
        first, second = await several(stack, partial(EpollRelay, plane), 2)
        handle = second.wires[0].transport.getHandle()
        first.outcome.addCallback(lambda outcome: handle.recv(len(GAME)))
        first.client.send_now(BAD)
        second.client.send_now(GAME)
        plane.doRead()
        assert await first.outcome == GAME
        assert second.relay.plane == "epoll"
        second.client.send(GAME)
        await reaches(lambda: second.server.size, len(GAME))
    plane.close()


@limited
async def test_broken_before_it_is_read() -> None:
    """A connection that breaks when the plane is about to read it has ended."""
    plane = EpollPlane(reactor)
    async with AsyncExitStack() as stack:
        first, second = await several(stack, partial(EpollRelay, plane), 2)
        handle = second.wires[0].transport.getHandle()

        def reset(outcome: Outcome) -> None:
            handle.recv(len(GAME))
            second.client.transport.connectionLost(Failure(ConnectionAborted()))

        first.outcome.addCallback(reset)
        first.client.send_now(BAD)
        second.client.send_now(GAME)
        with failures() as logged:
            plane.doRead()
        assert second.client.gone.called and logged == []
        assert (await second.outcome).reason is CloseReason.CLIENT_LOST
    plane.close()


@limited
async def test_a_descriptor_that_comes_back() -> None:
    """A session that ends late does not take the socket of another with it that has got its descriptor meanwhile."""
    with on("epoll") as make:
        async with AsyncExitStack() as stack:
            _, late = await several(stack, make, 2)  # the plane itself opens one in between
            before = [wire.transport.fileno() for wire in late.wires]
            for wire in late.wires:
                wire.abort()  # behind the relay's back
            await gatherResults([late.gone, late.client.gone, late.server.gone])
            (session,) = await several(stack, make, 1)
            assert [wire.transport.fileno() for wire in session.wires] == before
            late.relay.close(CloseReason.IDLE, "")
            session.client.send(GAME)
            session.server.send(GAME)
            await reaches(lambda: session.server.size, len(GAME))
            await reaches(lambda: session.client.size, len(GAME))


@limited
async def test_an_exception_breaks_one_session() -> None:
    """What raises while one session is relayed is logged, and breaks its connection; the others go on."""
    with on("epoll") as make, failures() as logged:
        async with AsyncExitStack() as stack:
            broken, well = await several(stack, make, 2)
            broken.outcome.callback(None)  # so that it cannot be told again
            broken.client.send(BAD)
            await broken.client.gone
            assert len(logged) == 1
            well.client.send(GAME)
            await reaches(lambda: well.server.size, len(GAME))


@limited
async def test_what_the_reactor_watches() -> None:
    """The plane in place of its sockets, and when the session ends, those again; when the reactor lets go of the plane,
    its descriptor is closed, and doing that twice changes nothing."""
    plane = EpollPlane(reactor)
    async with relaying("epoll", make=partial(EpollRelay, plane)) as session:
        transports = [wire.transport for wire in session.wires]
        assert watched(plane) == 2
        assert plane in reactor.getReaders()
        assert not any(transport in reactor.getReaders() for transport in transports)
        session.relay.close(CloseReason.IDLE, "")
        assert watched(plane) == 0
        assert all(transport in reactor.getReaders() for transport in transports)
        plane.connectionLost(None)
        assert plane.fileno() == -1
        assert plane not in reactor.getReaders()
        plane.close()


@limited
async def test_resumed_without_having_paused() -> None:
    """When the client has not read all that was written before the relay began, it is told to resume what it has not
    paused: nothing comes of that."""
    plane = EpollPlane(reactor)
    written = GAME * 700

    def make(client: Side, *others: Any) -> EpollRelay:
        client.wire.set_producer(Heedless())
        client.wire.write(written)
        return EpollRelay(plane, client, *others)

    async with relaying("epoll", small=True, make=make) as session:
        await reaches(lambda: session.client.size, len(written))
        await turns()
        assert session.relay.plane == "epoll"
        assert watched(plane) == 2
        session.server.send(GAME)
        await reaches(lambda: session.client.size, len(written + GAME))
    plane.close()


@limited
async def test_no_descriptor_is_left() -> None:
    """When the system has none for the plane itself, a session is relayed by transports."""
    plane = EpollPlane(reactor)

    class Poor(EpollRelay):
        def start(self) -> None:
            _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            try:
                super().start()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    async with relaying("transport", make=partial(Poor, plane)) as session:
        session.client.send(GAME)
        await reaches(lambda: session.server.size, len(GAME))
        session.client.transport.loseConnection()
        assert (await session.outcome).reason is CloseReason.CLIENT_LOST


# What is taken


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Twisted's of OpenSSL's
@limited
async def test_what_it_takes(tmp_path: Path) -> None:
    """TCP connections of Twisted's on sockets, over IPv4 and IPv6, are taken; those encrypted, of other kinds or gone
    are not."""
    plane = EpollPlane(reactor)
    taken = {}
    for host in ("127.0.0.1", "::1"):
        peer, wire = await connection(reactor, host, small=False)
        taken[host] = plane.takes(wire)
        if host == "::1":
            certificate = KeyPair.generate(size=2048).selfSignedCert(1, CN="localhost")
            wire.transport.startTLS(certificate.options())
            taken["tls"] = plane.takes(wire)
        wire.abort()
        await wire.gone
        taken[f"{host}, gone"] = plane.takes(wire)
        await peer.gone
    accepted: Deferred[Wire] = Deferred()
    path = str(tmp_path / "socket")
    factory = Factory.forProtocol(lambda: Wire(reactor, accepted.callback))
    port = await UNIXServerEndpoint(reactor, path).listen(factory)
    dialled: Deferred[Wire] = Deferred()
    factory = Factory.forProtocol(lambda: Wire(reactor, dialled.callback))
    await UNIXClientEndpoint(reactor, path).connect(factory)
    for wire in (await accepted, await dialled):
        taken["unix"] = plane.takes(wire)
        wire.abort()
        await wire.gone
    await port.stopListening()
    wire = Wire(Clock(), lambda wire: None)
    FakeTransport().connect(wire)
    taken["fake"] = plane.takes(wire)
    assert [kind for kind, is_taken in taken.items() if is_taken] == ["127.0.0.1", "::1"]
    assert len(taken) == 7


@limited
async def test_which_relay() -> None:
    """By auto and epoll, sessions between plain connections are relayed by the plane, and all others by transports; by
    transport, all are. A reactor that watches no descriptors is refused when epoll is named."""
    peers, wires = zip(
        *[await connection(reactor, "127.0.0.1", False) for _ in range(2)], strict=True
    )
    fake = Wire(Clock(), lambda wire: None)
    FakeTransport().connect(fake)
    kinds = {"auto": EpollRelay, "epoll": EpollRelay, "transport": TransportRelay}
    for named, expected in kinds.items():
        relays = Relays(ProxyConfig(relay=named), reactor, WORDS)
        for server, kind in ((wires[1], expected), (fake, TransportRelay)):
            sides = [Side(wire, FrameScanner(INT32, None), b"") for wire in (wires[0], server)]
            assert type(relays.between(*sides, lambda outcome: None)) is kind
        relays.close()
    for wire, peer in zip(wires, peers, strict=True):
        wire.abort()
        await peer.gone
    assert Relays(ProxyConfig(relay="auto"), Clock(), WORDS)
    with pytest.raises(PlaneUnavailable, match="a reactor that watches descriptors"):
        Relays(ProxyConfig(relay="epoll"), Clock(), WORDS)


@pytest.mark.parametrize(("named", "plane"), [("auto", "epoll"), ("transport", "transport")])
@pytest_twisted.ensureDeferred
async def test_status_tells(tmp_path: Path, named: str, plane: str) -> None:
    """A running proxy says how many sessions are on which plane; one that has stopped leaves none in the reactor."""
    before = reactor.getReaders()
    async with Rig(tmp_path, proxy_settings=f'relay = "{named}"') as rig:
        client = await rig.join()
        await client.echo(b"\x10hello")
        counts = {"transport": 0, "epoll": 0, "sockmap": 0, plane: 1}
        assert by_relay(rig.proxy.sessions) == counts
        await rig.leave(client)
        assert by_relay(rig.proxy.sessions) == {**counts, plane: 0}
    planes = [reader for reader in reactor.getReaders() if isinstance(reader, EpollPlane)]
    assert [plane for plane in planes if plane not in before] == []

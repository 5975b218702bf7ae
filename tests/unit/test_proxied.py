"""gameproxy.proxied: connections that are no sessions yet, and how many there may be"""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.config_values import network
from gameproxy.proxied import HeaderCounts, ProxiedFactory
from tests.fake_transport import FakeTransport

HEADER = b"PROXY TCP4 203.0.113.7 198.51.100.2 50000 7777\r\n"
BALANCER = IPv4Address("TCP", "10.0.0.1", 40000)


class Room:
    """Room for so many."""

    def __init__(self, size: int) -> None:
        self.left = size

    def expect(self) -> bool:
        if not self.left:
            return False
        self.left -= 1
        return True

    def expect_no_more(self) -> None:
        self.left += 1


class Transport(FakeTransport):
    """One whose protocol can be changed, as those of Twisted."""

    @property
    def protocol(self) -> object:
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: Protocol) -> None:
        self._protocol = protocol  # type: ignore[assignment]  # it is one


class Client(Protocol):
    """What comes of a connection with a header."""

    def __init__(self, room: Room) -> None:
        self.received = b""
        self._room = room
        self.room_when_made = -1

    def connectionMade(self) -> None:
        self.room_when_made = self._room.left

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class ProxiedTests(SynchronousTestCase):
    """A factory on fake transports."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.room = Room(2)
        self.counts = HeaderCounts()
        self.clients: list[Client] = []
        self.full = False
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        test = self

        class Clients(Factory):
            def buildProtocol(self, addr: IAddress | None) -> Client | None:
                if test.full:
                    return None
                test.clients.append(Client(test.room))
                return test.clients[-1]

        trusted = [network(one) for one in ("10.0.0.0/8", "2001:db8::/32", "::1", "fe80::/10")]
        self.factory = ProxiedFactory(self.clock, trusted, 3.0, self.room, self.counts, Clients())

    def observe(self, event: object) -> None:
        """Keep what is logged."""
        self.lines.append(formatEvent(event) or "")  # type: ignore[arg-type]

    def connect(self, address: IAddress = BALANCER) -> Transport | None:
        """A connection; ``None``: it is closed unread."""
        protocol = self.factory.buildProtocol(address)
        if protocol is None:
            return None
        transport = Transport(address)
        transport.connect(protocol)
        return transport

    def test_trusted(self) -> None:
        """Those in the networks may send headers, however their address is written; nobody else may."""
        for host, trusted in (
            ("10.255.0.1", True),
            ("11.0.0.1", False),
            ("::ffff:10.0.0.1", True),
            ("::ffff:11.0.0.1", False),
            ("2001:DB8:1::2", True),
            ("2001:db9::1", False),
            ("::1", True),
            ("fe80::1%eth0", True),
            ("", False),
            ("localhost", False),
        ):
            kind = IPv6Address if ":" in host else IPv4Address
            transport = self.connect(kind("TCP", host, 1))
            self.assertEqual(transport is not None, trusted, host)
            if transport is not None:
                transport.reset()
        self.assertIsNone(self.connect(UNIXAddress(b"/run/balancer")))
        self.assertIsNone(self.factory.buildProtocol(None))
        self.assertEqual(self.counts.untrusted, 7)

    def test_lines(self) -> None:
        """Of each kind of fault there is one line a minute, with how many there were."""
        for _ in range(100):
            self.connect(IPv4Address("TCP", "192.0.2.1", 1))
            bad = self.connect()
            assert bad is not None
            bad.deliver(b"junk")
            self.connect()
            self.clock.advance(3.0)
        self.assertLessEqual(len(self.lines), 3 * 6)
        self.assertEqual(
            self.lines[:3],
            [
                "Closed a connection from '192.0.2.1' to a port of PROXY headers: it is not in"
                " proxy_protocol.trusted (0 like it before).",
                "Closed a connection from '10.0.0.1' to a port of PROXY headers: no PROXY header:"
                " it does not begin as one (0 like it before).",
                "Closed a connection from '10.0.0.1' to a port of PROXY headers: no PROXY header"
                " within 3.0 s (0 like it before).",
            ],
        )
        self.assertIn("(19 like it before)", self.lines[3])
        self.assertEqual((self.counts.untrusted, self.counts.bad, self.counts.late), (100,) * 3)

    def test_room(self) -> None:
        """No more wait than there is room for; whoever became a session, or is gone, gives his back."""
        first, second = self.connect(), self.connect()
        assert first is not None and second is not None
        self.assertIsNone(self.connect())
        first.deliver(HEADER + b"hello")
        self.assertEqual((self.clients[0].received, self.clients[0].room_when_made), (b"hello", 1))
        third = self.connect()
        assert third is not None
        self.assertIsNone(self.connect())
        for end in (lambda: second.reset(), lambda: third.deliver(b"junk")):
            end()
            again = self.connect()
            assert again is not None
            self.assertIsNone(self.connect())
        self.clock.advance(3.0)
        self.assertEqual(self.room.left, 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_room_for_a_session(self) -> None:
        """If there is none when the header is there, the connection is closed, and gives its room back once."""
        self.full = True
        transport = self.connect()
        assert transport is not None
        transport.deliver(HEADER)
        self.assertEqual((transport.how, self.room.left), ("aborted", 2))
        self.assertEqual(self.counts.unfinished, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_after_the_end(self) -> None:
        """What comes after a connection was closed is not read."""
        transport = self.connect()
        assert transport is not None
        expecting = transport.protocol
        transport.deliver(b"junk")
        expecting.dataReceived(HEADER)  # type: ignore[attr-defined]  # as Twisted may, before it tells the end
        self.assertEqual((self.clients, self.counts.bad, self.counts.passed), ([], 1, 0))

    def test_stop(self) -> None:
        """When nobody listens any more, all that wait are closed."""
        transports = [self.connect(), self.connect()]
        self.factory.stopFactory()
        self.assertEqual([one and one.how for one in transports], ["aborted"] * 2)
        self.assertEqual((self.room.left, self.clock.getDelayedCalls()), (2, []))

"""Whether a silent client is still there: how it is asked, and what follows from its silence."""

from __future__ import annotations

import operator
import socket
from contextlib import closing
from functools import partial

from twisted.internet.interfaces import ISystemHandle
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from gameproxy.admission import Admission
from gameproxy.client_side import IDLE_SPREAD, LEAST_IDLE, ClientSide, EarlyBytes, idle_time
from gameproxy.dialect import Dialect
from gameproxy.framing import FORMATS
from gameproxy.testing import MemorySurroundings
from gameproxy.wire import PROBE_TIME, QUESTION_INTERVAL, QUESTIONS, Wire
from tests.fake_transport import FakeTransport

IDLE = 40
STALL_TIMEOUT = 30.0


@implementer(ISystemHandle)
class SocketTransport(FakeTransport):
    """A fake transport on a real socket.

    :ivar keep_alive: what was set.
    """

    def __init__(self, handle: socket.socket) -> None:
        super().__init__()
        self.keep_alive = False
        self._handle = handle

    def getHandle(self) -> socket.socket:
        return self._handle

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keep_alive = enabled


class QuietWire(Wire):
    """A wire whose peer was silent for as long as a test says."""

    quiet = 0.0

    def silence(self) -> float:
        return self.quiet


class Holder:
    """Notes whether the stream has ended."""

    ended = 0

    def data_received(self, data: bytes) -> None:
        raise NotImplementedError

    def stream_ended(self) -> None:
        self.ended += 1


class KeepAliveTestCase(SynchronousTestCase):
    """Has a wire on a socket."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.handle = socket.socket()
        self.addCleanup(self.handle.close)
        self.transport = SocketTransport(self.handle)
        self.holder = Holder()
        self.wire = QuietWire(self.clock, self.hold)
        self.transport.connect(self.wire)

    def hold(self, wire: Wire) -> None:
        wire.holder = self.holder

    def options(self) -> tuple[int, int]:
        """Seconds before the first question, and between two."""
        idle, interval = (
            self.handle.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
        )
        return idle, interval

    def unanswered(self) -> float:
        """Seconds after which the system gives up what is not acknowledged."""
        return self.handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) / 1000


class AskingTests(KeepAliveTestCase):
    """What is asked of the system."""

    def test_asked_when_silent(self) -> None:
        """After its time of silence a peer is asked three times; it is given up after the last, and not before."""
        self.wire.keep_alive(IDLE, STALL_TIMEOUT)
        self.assertTrue(self.transport.keep_alive)
        self.assertEqual(self.options(), (IDLE, QUESTION_INTERVAL))
        last = IDLE + QUESTION_INTERVAL * (QUESTIONS - 1)
        self.assertTrue(last < self.unanswered() < last + QUESTION_INTERVAL)

    def test_in_time(self) -> None:
        """A client that is gone has been noticed after 90 s, whatever chance says."""
        latest = LEAST_IDLE + IDLE_SPREAD - 1 + QUESTION_INTERVAL * QUESTIONS
        self.assertLessEqual(latest, 90)

    def test_who_only_does_not_read(self) -> None:
        """A peer that is there and takes nothing has the time that the operator gives it."""
        self.wire.keep_alive(IDLE, 600.0)
        self.assertEqual(self.unanswered(), 600.0)

    def test_not_all_together(self) -> None:
        """Clients that fall silent together are asked at different times."""
        idle = [idle_time(partial(operator.mul, bytes([number]))) for number in range(256)]
        self.assertEqual(sorted(set(idle)), list(range(LEAST_IDLE, LEAST_IDLE + IDLE_SPREAD)))
        self.assertLessEqual(max(idle.count(time) for time in idle), 9)

    def test_no_socket(self) -> None:
        """A transport in memory asks nobody, and nobody is taken for gone."""
        transport = FakeTransport()
        wire = Wire(self.clock, self.hold)
        transport.connect(wire)
        wire.keep_alive(IDLE, STALL_TIMEOUT)
        wire.probe()
        self.clock.advance(60.0)
        self.assertIsNone(transport.how)
        self.assertEqual(wire.silence(), 0.0)

    def test_no_tcp(self) -> None:
        """Of a UNIX socket nothing is told: nobody is taken for gone."""
        here, there = socket.socketpair()
        with closing(here), closing(there):
            transport = SocketTransport(here)
            wire = Wire(self.clock, self.hold)
            transport.connect(wire)
            wire.keep_alive(IDLE, STALL_TIMEOUT)
            wire.probe()
            self.clock.advance(60.0)
            self.assertIsNone(transport.how)

    def test_silence(self) -> None:
        """The system tells since when nothing was heard of the peer."""
        with closing(socket.create_server(("127.0.0.1", 0))) as port, self.handle as here:
            here.connect(port.getsockname())
            there, _ = port.accept()
            with closing(there):
                there.send(b"x")
                here.recv(1)
                self.assertLess(Wire.silence(self.wire), 5.0)


class ProbeTests(KeepAliveTestCase):
    """A peer that is doubted."""

    def setUp(self) -> None:
        super().setUp()
        self.wire.keep_alive(IDLE, STALL_TIMEOUT)

    def test_gone(self) -> None:
        """One of which nothing is heard in time is lost: its holder is told once, as when a connection breaks."""
        self.wire.probe()
        self.assertEqual(self.options(), (1, 1))
        self.wire.quiet = PROBE_TIME
        self.clock.advance(PROBE_TIME - 0.1)
        self.assertIsNone(self.transport.how)
        self.clock.advance(0.1)
        self.assertEqual((self.transport.how, self.holder.ended), ("aborted", 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_there(self) -> None:
        """One of which something is heard keeps its connection, and is asked as seldom as before; it can be doubted
        again."""
        for _ in range(2):
            self.wire.probe()
            self.wire.quiet = PROBE_TIME - 0.1
            self.clock.advance(PROBE_TIME)
            self.assertIsNone(self.transport.how)
            self.assertEqual(self.options(), (IDLE, QUESTION_INTERVAL))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_doubted_twice(self) -> None:
        """Doubts that come one after the other do not put off the end."""
        self.wire.quiet = PROBE_TIME
        self.wire.probe()
        self.clock.advance(PROBE_TIME - 0.1)
        self.wire.probe()
        self.clock.advance(0.1)
        self.assertEqual(self.transport.how, "aborted")

    def test_breaks_meanwhile(self) -> None:
        """Nothing is left when the connection breaks by itself, however often it was doubted."""
        self.wire.probe()
        self.wire.probe()
        self.transport.reset()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_broken_before(self) -> None:
        """Of a connection that is over nothing is to be found out."""
        self.transport.reset()
        self.wire.probe()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WayTests(SynchronousTestCase):
    """The way from the farm's doubt to the connection."""

    def test_to_the_client(self) -> None:
        """A session that is doubted has its client asked, in any state; one that is over is nobody's."""
        around = MemorySurroundings()
        client = around.connect()
        sessions = Admission(5, 5)
        sessions.enter(client.session)
        sessions.doubt(client.session.id)
        sessions.doubt("another")
        self.assertEqual(client.probes, 1)

    def test_to_the_wire(self) -> None:
        """To ask a client is to probe its wire."""
        probed: list[Wire] = []

        class Noting(Wire):
            def probe(self) -> None:
                probed.append(self)

        int32 = FORMATS["int32"]

        def accept(wire: Wire) -> None:
            ClientSide(wire, int32, Dialect("native", int32), EarlyBytes()).probe()

        wire = Noting(Clock(), accept)
        FakeTransport().connect(wire)
        self.assertEqual(probed, [wire])

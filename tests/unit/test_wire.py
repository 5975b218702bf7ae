"""Wires: who receives, and how a connection is ended."""

from __future__ import annotations

import socket
from contextlib import closing

from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.task import Clock
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides, implementer

from gameproxy.wire import DISCARD_MAX, LINGER, StallWatch, Wire
from tests.fake_transport import BUFFER, FakeTransport


class Recorder:
    """A holder that notes what it is told."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.ended = 0

    def data_received(self, data: bytes) -> None:
        self.received.append(data)

    def stream_ended(self) -> None:
        self.ended += 1


@implementer(IPushProducer)
class Producer:
    """A producer that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class MeasuredWire(Wire):
    """A wire whose system tells what a test says."""

    acked = 0
    unacked = 0

    def acknowledged(self) -> int:
        return self.acked

    def unacknowledged(self) -> int:
        return self.unacked


class WireTestCase(SynchronousTestCase):
    """Has a wire on a fake transport, and a holder that records."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.holder = Recorder()
        self.transport = FakeTransport()
        self.wire = MeasuredWire(self.clock, self.hold)
        self.gone: list[None] = []
        self.wire.gone.addCallback(self.gone.append)
        self.transport.connect(self.wire)

    def hold(self, wire: Wire) -> None:
        """Take the wire that has been made."""
        wire.holder = self.holder

    def assert_over(self, how: str) -> None:
        """The connection exists no more, came to its end so, and has left no timer."""
        self.assertEqual(self.transport.how, how)
        self.assertEqual(self.gone, [None])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class HoldingTests(WireTestCase):
    """While it is not being ended."""

    def test_passes_on_what_comes(self) -> None:
        """The holder of the moment gets what comes; small packets are not held back for more."""
        self.assertTrue(self.transport.no_delay)
        self.transport.deliver(b"one")
        other = Recorder()
        self.wire.holder = other
        self.transport.deliver(b"two")
        self.assertEqual((self.holder.received, other.received), ([b"one"], [b"two"]))

    def test_the_end_of_the_stream_is_told_once(self) -> None:
        """The peer ends its stream, and the connection is lost then: that is one end."""
        self.transport.end()
        self.assertEqual(self.holder.ended, 1)
        self.transport.reset()
        self.assertEqual(self.holder.ended, 1)
        self.assert_over("lost")

    def test_a_reset_is_an_end(self) -> None:
        """A connection that breaks ends the stream."""
        self.transport.reset()
        self.assertEqual(self.holder.ended, 1)
        self.assertTrue(self.wire.ending)
        self.assert_over("lost")

    def test_pausing_keeps_what_comes(self) -> None:
        """What comes while paused waits until reading goes on."""
        self.wire.pause()
        self.transport.deliver(b"data")
        self.assertEqual(self.holder.received, [])
        self.wire.resume()
        self.transport.deliver()
        self.assertEqual(self.holder.received, [b"data"])

    def test_one_producer_at_a_time(self) -> None:
        """A new producer takes the place of the one before; with none, nobody is paused."""
        first, second = Producer(), Producer()
        self.wire.set_producer(first)
        self.wire.set_producer(second)
        self.wire.write(bytes(BUFFER + 1))
        self.transport.take()
        self.wire.set_producer(None)
        self.wire.set_producer(None)
        self.wire.write(bytes(BUFFER + 1))
        self.assertEqual((first.told, second.told), ([], ["pause", "resume"]))

    def test_secure_is_what_the_transport_says(self) -> None:
        """A connection is secure when its transport is."""
        self.assertFalse(self.wire.secure)
        alsoProvides(self.transport, ISSLTransport)
        self.assertTrue(self.wire.secure)

    def test_other_transports(self) -> None:
        """A transport that is no TCP is held as well, and ended by closing it."""
        transport = FakeTransport()
        wire = Wire(self.clock, self.hold)
        wire.makeConnection(OtherTransport(transport))
        wire.write(b"data")
        wire.end(b"bye")
        self.assertEqual(transport.unsent, b"databye")
        self.assertTrue(transport.disconnecting)
        self.assertFalse(transport.no_delay)


class EndingTests(WireTestCase):
    """How a connection is ended."""

    def test_last_words_then_the_end_of_the_stream(self) -> None:
        """All that was written goes out first, then the last words, then the end of the stream, and only then may
        the connection be aborted: a second later."""
        self.wire.write(b"data ")
        self.wire.end(b"bye", stall_timeout=30.0)
        self.assertFalse(self.transport.stream_ended)
        self.transport.take()
        self.assertEqual((self.transport.taken, self.transport.stream_ended), (b"data bye", True))
        self.clock.advance(LINGER - 0.01)
        self.assertIsNone(self.transport.how)
        self.clock.advance(0.01)
        self.assert_over("aborted")

    def test_a_peer_that_closes_ends_it_at_once(self) -> None:
        """When the peer has ended its stream too, nothing is waited for."""
        self.wire.end(b"bye")
        self.transport.take()
        self.transport.end()
        self.transport.take()
        self.assert_over("done")
        self.assertEqual(self.holder.ended, 0)

    def test_a_peer_that_closed_before_gets_all(self) -> None:
        """To a peer that ended its stream first goes what was written, and then the connection is closed."""
        self.wire.write(b"data ")
        self.transport.end()
        self.wire.end(b"bye", peer_closes_first=True, stall_timeout=30.0)
        self.assertIsNone(self.transport.how)
        self.transport.take()
        self.assertEqual(self.transport.taken, b"data bye")
        self.assert_over("done")

    def test_a_reset_while_ending(self) -> None:
        """A connection that breaks while it is being ended leaves nothing behind, and tells nobody but ``gone``."""
        self.wire.end(b"bye", stall_timeout=30.0)
        self.transport.reset()
        self.assert_over("lost")
        self.assertEqual(self.holder.ended, 0)

    def test_what_comes_while_ending_is_discarded(self) -> None:
        """The holder hears nothing after the end; what the peer sends meanwhile is read, so that its end is seen."""
        self.wire.pause()
        self.transport.deliver(b"before")
        self.wire.end(b"bye")
        self.transport.deliver(b"after")
        self.transport.take()
        self.transport.deliver(bytes(DISCARD_MAX))
        self.assertEqual(self.holder.received, [])
        self.assertTrue(self.transport.reading)

    def test_a_peer_that_does_not_stop_sending(self) -> None:
        """More than 64 KiB after our end of the stream are not read; the peer still gets the second to read."""
        self.wire.end(b"bye", stall_timeout=30.0)
        self.transport.take()
        self.transport.deliver(bytes(DISCARD_MAX))
        self.assertTrue(self.transport.reading)
        self.transport.deliver(b"+")
        self.assertFalse(self.transport.reading)
        self.assertIsNone(self.transport.how)
        self.clock.advance(LINGER)
        self.assert_over("aborted")

    def test_sending_does_not_cost_a_slow_reader_its_data(self) -> None:
        """While something is still on its way to the peer, all that it sends is discarded, however much."""
        self.wire.end(b"bye", stall_timeout=30.0)
        self.transport.deliver(bytes(2 * DISCARD_MAX))
        self.wire.unacked = 3
        self.transport.take()
        self.transport.deliver(bytes(2 * DISCARD_MAX))
        self.assertTrue(self.transport.reading)
        self.wire.unacked = 0
        self.transport.deliver(b"+")
        self.assertFalse(self.transport.reading)

    def test_the_system_is_given_time_to_deliver(self) -> None:
        """An abort would throw away what the system has not delivered: as long as that goes on, it is waited for."""
        self.wire.end(b"bye", stall_timeout=8.0)
        self.wire.unacked = 100
        self.transport.take()
        for _ in range(30):
            self.wire.acked += 1
            self.clock.advance(LINGER)
            self.assertIsNone(self.transport.how)
        self.wire.unacked = 0
        self.clock.advance(LINGER)
        self.assert_over("aborted")

    def test_no_progress_of_the_system_ends_it(self) -> None:
        """A peer that takes nothing more is waited for as long as the stall timeout says."""
        self.wire.end(b"bye", stall_timeout=8.0)
        self.wire.unacked = 100
        self.transport.take()
        self.clock.pump([0.5] * 15)
        self.assertIsNone(self.transport.how)
        self.clock.advance(0.5)
        self.assert_over("aborted")

    def test_no_progress_of_the_buffer_ends_it(self) -> None:
        """The same while our own end of the stream is not even out."""
        self.wire.end(b"bye", stall_timeout=8.0)
        self.clock.pump([1.0] * 7)
        self.wire.acked += 1
        self.clock.pump([1.0] * 8)
        self.assertIsNone(self.transport.how)
        self.clock.advance(1.0)
        self.assert_over("aborted")

    def test_without_patience_a_second_is_all(self) -> None:
        """Without a stall timeout all must be over in a second, progress or not."""
        self.wire.write(bytes(1000))
        self.wire.end(b"bye")
        self.clock.advance(0.5)
        self.transport.take(500)
        self.wire.unacked = self.wire.acked = 500
        self.clock.advance(LINGER - 0.5)
        self.assert_over("aborted")

    def test_the_peer_may_close_first(self) -> None:
        """A peer that is to close first gets the last words and a second; then its closing is the end."""
        self.wire.end(b"bye", peer_closes_first=True, stall_timeout=30.0)
        self.transport.take()
        self.transport.deliver(bytes(3 * DISCARD_MAX))
        self.assertEqual((self.transport.taken, self.transport.stream_ended), (b"bye", False))
        self.clock.advance(LINGER - 0.01)
        self.assertFalse(self.transport.stream_ended)
        self.transport.end()
        self.transport.take()
        self.assert_over("done")

    def test_a_peer_that_should_close_first_and_does_not(self) -> None:
        """After its second, the connection is ended as any other."""
        self.wire.end(b"bye", peer_closes_first=True, stall_timeout=30.0)
        self.transport.take()
        self.clock.advance(LINGER)
        self.transport.take()
        self.assertTrue(self.transport.stream_ended)
        self.clock.advance(LINGER)
        self.assert_over("aborted")

    def test_a_second_end_changes_nothing(self) -> None:
        """Only the first end has last words; after it nothing is written, paused or resumed."""
        self.wire.end(b"first")
        self.wire.end(b"second")
        self.wire.write(b"more")
        self.wire.pause()
        self.assertTrue(self.transport.reading)
        self.transport.pauseProducing()
        self.wire.resume()
        self.assertFalse(self.transport.reading)
        self.transport.take()
        self.assertEqual(self.transport.taken, b"first")

    def test_nothing_is_written_while_the_peer_may_close(self) -> None:
        """Nothing follows the last words, also while our end of the stream is still open."""
        self.wire.end(b"bye", peer_closes_first=True)
        self.wire.write(b"more")
        self.assertEqual(self.transport.unsent, b"bye")

    def test_nobody_is_paused_while_ending(self) -> None:
        """Its producer is let go, however much waits to be sent."""
        producer = Producer()
        self.wire.set_producer(producer)
        self.wire.end(bytes(2 * BUFFER))
        self.transport.take()
        self.assertEqual(producer.told, [])

    def test_abort(self) -> None:
        """An abort ends it at once, also in the middle of ending, and also twice."""
        self.wire.end(b"bye", stall_timeout=30.0)
        self.transport.take()
        self.wire.abort()
        self.assert_over("aborted")
        self.wire.abort()
        self.wire.end(b"bye")
        self.assert_over("aborted")
        self.assertEqual(self.holder.ended, 0)


class WrappedTests(WireTestCase):
    """A wire below which something wraps the transport, as TLS does: nothing tells that our end is out."""

    def setUp(self) -> None:
        super().setUp()
        self.wire = MeasuredWire(self.clock, self.hold)
        self.transport = FakeTransport()
        wrapper = ProtocolWrapper(WrappingFactory(None), self.wire)
        self.gone.clear()
        self.wire.gone.addCallback(self.gone.append)
        self.transport.connect(wrapper)
        self.wrapper = wrapper

    def test_ends_by_itself(self) -> None:
        """It gets its second to close, and longer only as long as there is something to deliver."""
        self.wire.end(b"bye", stall_timeout=30.0)
        self.wire.unacked = 3
        self.clock.advance(LINGER)
        self.wire.unacked = 0
        self.assertIsNone(self.transport.how)
        self.clock.advance(LINGER)
        self.assert_over("aborted")
        self.assertEqual(self.transport.unsent, b"bye")

    def test_tls_is_closed(self) -> None:
        """TLS has no half-close: the connection is closed, which tells the peer."""
        alsoProvides(self.wrapper, ISSLTransport)
        self.wire.end(b"bye")
        self.assertTrue(self.transport.disconnecting)


class MeasuringTests(SynchronousTestCase):
    """What the system tells of a real connection."""

    def test_what_the_peer_has_taken_and_has_not(self) -> None:
        """What the peer's system has room for counts as taken; what it has not waits. Through wrappers too."""
        with (
            closing(socket.create_server(("127.0.0.1", 0))) as port,
            closing(socket.socket()) as sender,
        ):
            port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sender.connect(port.getsockname())
            receiver, _ = port.accept()
            with closing(receiver):
                sender.setblocking(False)
                transport = SocketTransport(sender)
                wrapper = HidingWrapper(WrappingFactory(None), Wire(Clock(), lambda wire: None))
                wrapper.makeConnection(transport)
                wire = wrapper.wrappedProtocol
                self.assertEqual(wire.unacknowledged(), 0)
                taken = wire.acknowledged()
                sent = 0
                try:
                    while True:
                        sent += sender.send(bytes(65536))
                except BlockingIOError:
                    pass
                self.assertGreater(wire.acknowledged(), taken)
                self.assertGreater(wire.unacknowledged(), 0)
                self.assertEqual(wire.acknowledged() - taken + wire.unacknowledged(), sent)

    def test_where_nothing_is_told(self) -> None:
        """A transport without a socket, or with one that is not TCP, gives nothing, and no error."""
        here, there = socket.socketpair()
        with closing(here), closing(there):
            for transport in (FakeTransport(), SocketTransport(here)):
                wire = Wire(Clock(), lambda wire: None)
                wire.makeConnection(transport)
                self.assertEqual((wire.acknowledged(), wire.unacknowledged()), (0, 0))


class StallWatchTests(WireTestCase):
    """Progress, and what is none."""

    def setUp(self) -> None:
        super().setUp()
        self.stalls: list[float] = []
        self.watch = StallWatch(
            self.clock, self.wire, 8.0, lambda: self.stalls.append(self.clock.seconds())
        )

    def test_no_progress(self) -> None:
        """Without any progress it calls once, after the timeout."""
        self.clock.pump([0.5] * 40)
        self.assertEqual(self.stalls, [8.0])
        self.assertFalse(self.watch.active())

    def test_progress(self) -> None:
        """One byte within the timeout is progress; after the last one the timeout runs anew, a quarter late at most."""
        for _ in range(10):
            self.clock.pump([1.0] * 7)
            self.wire.acked += 1
        self.assertEqual(self.stalls, [])
        self.clock.pump([1.0] * 7)
        self.assertEqual(self.stalls, [])
        self.clock.pump([1.0] * 3)
        self.assertEqual(len(self.stalls), 1)

    def test_a_clock_that_jumps(self) -> None:
        """A wall clock set forward is one look, not a stall."""
        self.clock.advance(3600.0)
        self.assertEqual(self.stalls, [])

    def test_cancelled(self) -> None:
        """A watch that was cancelled does not call."""
        self.assertTrue(self.watch.active())
        self.watch.cancel()
        self.clock.pump([1.0] * 20)
        self.assertEqual((self.stalls, self.watch.active()), ([], False))


class OtherTransport:
    """A transport that provides no TCP, over a fake one."""

    def __init__(self, below: FakeTransport) -> None:
        self._below = below

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # what it provides is its own affair
            raise AttributeError(name)
        return getattr(self._below, name)


class HidingWrapper(ProtocolWrapper):
    """A wrapper whose handle is something else than the socket, as that of TLS is."""

    def getHandle(self) -> object:
        return object()


class SocketTransport(FakeTransport):
    """A fake transport with a real socket as its handle."""

    def __init__(self, handle: socket.socket) -> None:
        super().__init__()
        self._handle = handle

    def getHandle(self) -> socket.socket:
        return self._handle

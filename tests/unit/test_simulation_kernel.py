"""The simulated world's time, chance and trace."""

from __future__ import annotations

import errno

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.simulation.chance import entropy, stream
from gameproxy.simulation.kernel import EPOCH, Kernel, Livelock
from gameproxy.simulation.network import (
    SYN_LOST,
    SYN_REFUSED,
    SYN_RETRANSMIT_FIRST,
    SYN_RETRIES,
    Conditions,
    Link,
)
from gameproxy.simulation.reactor import SimReactor
from gameproxy.simulation.sockets import SimSocket
from gameproxy.simulation.trace import Trace


class ChanceTests(SynchronousTestCase):
    def test_a_stream_is_its_name_and_seed(self) -> None:
        """The same name gives the same draws; another name, or another seed, others."""
        first = stream(7, "client", 1).getrandbits(64)
        self.assertEqual(stream(7, "client", 1).getrandbits(64), first)
        self.assertNotEqual(stream(7, "client", 2).getrandbits(64), first)
        self.assertNotEqual(stream(8, "client", 1).getrandbits(64), first)

    def test_parts_of_a_name_are_apart(self) -> None:
        """Names are not glued together: ("a", "bc") is not ("ab", "c")."""
        self.assertNotEqual(entropy(1, "a", "bc")(8), entropy(1, "ab", "c")(8))

    def test_known_value(self) -> None:
        """What was drawn on one Python is drawn on all: the value of the first release stays."""
        self.assertEqual(entropy(42, "golden")(8).hex(), "3fd28586eb5958b0")


class LinkTests(SynchronousTestCase):
    def test_lost_for_half_a_minute_at_most(self) -> None:
        """A segment arrives in the end, however much is lost."""
        link = Link(stream(1, "link"), Conditions(loss=1000), loopback=False)
        self.assertEqual(link.delay_of_segment() // 100_000, 254)


class TraceTests(SynchronousTestCase):
    def test_the_hash_is_of_the_lines(self) -> None:
        """Runs with the same lines have the same hash, kept or not; one more line changes it."""
        kept, not_kept = Trace(keep=True), Trace()
        for number in range(2000):
            kept.write(number, "line", number)
            not_kept.write(number, "line", number)
        self.assertEqual(kept.hexdigest(), not_kept.hexdigest())
        self.assertEqual(kept.lines()[1], "1 line 1\n")
        kept.write(1, "more")
        self.assertNotEqual(kept.hexdigest(), not_kept.hexdigest())
        self.assertRaises(ValueError, not_kept.lines)


class KernelTests(SynchronousTestCase):
    def test_events_come_in_order_of_time(self) -> None:
        """What is to come later comes later, and time is what was asked for."""
        kernel, seen = Kernel(1), []
        for delay in (300, 100, 200):
            kernel.after(delay, lambda: seen.append(kernel.now - EPOCH))
        kernel.run()
        self.assertEqual(seen, [100, 200, 300])

    def test_events_of_one_moment_come_in_an_order_of_chance(self) -> None:
        """The order differs from seed to seed, and is the same with the same seed."""

        def order(seed: int) -> list[int]:
            kernel, seen = Kernel(seed), list[int]()
            for number in range(10):
                kernel.after(5, seen.append, number)
            kernel.run()
            return seen

        self.assertEqual(order(1), order(1))
        self.assertNotEqual(order(1), order(2))
        self.assertEqual(sorted(order(2)), list(range(10)))

    def test_what_is_cancelled_does_not_come(self) -> None:
        """Nor does it count as an event."""
        kernel, seen = Kernel(1), []
        kernel.after(5, seen.append, 1).cancel()
        kernel.run()
        self.assertEqual((seen, kernel.events), ([], 0))

    def test_until(self) -> None:
        """A run returns at its moment, with later things still to come."""
        kernel, seen = Kernel(1), []
        kernel.after(5, seen.append, 1)
        kernel.after(15, seen.append, 2)
        self.assertTrue(kernel.run(until=EPOCH + 10))
        self.assertEqual((seen, kernel.now), ([1], EPOCH + 10))
        self.assertFalse(kernel.run())
        self.assertEqual(seen, [1, 2])

    def test_livelock(self) -> None:
        """A moment that never ends is told."""
        kernel = Kernel(1)

        def again() -> None:
            kernel.after(0, again)

        again()
        self.assertRaises(Livelock, kernel.run)


class ConnectingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.kernel = Kernel(1)
        process = self.kernel.add_machine("here", "10.0.0.1").start("p")
        self.kernel.add_machine("there", "10.0.0.2")
        self.socket = SimSocket(process)

    def test_refused(self) -> None:
        """A connection to where nobody listens is refused, and that is counted."""
        self.socket.connect_ex(("10.0.0.2", 80))
        self.kernel.run()
        self.assertEqual(self.kernel.reached, {SYN_REFUSED: 1})
        self.assertEqual(self.socket.connect_ex(("10.0.0.2", 80)), errno.ECONNREFUSED)

    def test_lost(self) -> None:
        """What asks for a connection is lost where the way is cut, again and again until it is given up: all count."""
        self.kernel.network.cut("10.0.0.1", "10.0.0.2")
        self.socket.connect_ex(("10.0.0.2", 80))
        self.kernel.run()
        self.assertEqual(self.kernel.reached, {SYN_LOST: SYN_RETRIES + 1})
        self.assertEqual(self.socket.connect_ex(("10.0.0.2", 80)), errno.ETIMEDOUT)

    def test_answer_lost(self) -> None:
        """So is the answer where the way back is cut."""
        listener = SimSocket(self.kernel.machines["10.0.0.2"].start("q"))
        listener.bind(("10.0.0.2", 80))
        listener.listen(1)
        self.kernel.network.cut("10.0.0.2", "10.0.0.1")
        self.socket.connect_ex(("10.0.0.2", 80))
        self.kernel.run(until=EPOCH + SYN_RETRANSMIT_FIRST)
        self.assertEqual((self.kernel.reached, self.socket.state), ({SYN_LOST: 1}, "connecting"))
        self.kernel.network.mend("10.0.0.2", "10.0.0.1")
        self.kernel.run(until=EPOCH + 2 * SYN_RETRANSMIT_FIRST)
        self.assertEqual((self.kernel.reached, self.socket.state), ({SYN_LOST: 1}, "connected"))


class ReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.kernel = Kernel(1)
        self.process = self.kernel.add_machine("m", "10.0.0.1").start("p")
        self.reactor = SimReactor(self.process)
        self.seen: list[object] = []

    def test_calls_to_come(self) -> None:
        """They come when they are due; reset, delay and cancel do what Twisted says."""
        self.reactor.callLater(1, self.seen.append, "one")
        self.reactor.callLater(2, self.seen.append, "two").cancel()
        self.reactor.callLater(3, self.seen.append, "three").reset(5)
        self.reactor.callLater(4, self.seen.append, "four").delay(2)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 3)
        begin = self.reactor.seconds()
        self.kernel.run()
        self.assertEqual(self.seen, ["one", "three", "four"])
        self.assertEqual(self.reactor.seconds() - begin, 6.0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_reset_to_an_earlier_time(self) -> None:
        """It comes at the earlier time, and once."""
        call = self.reactor.callLater(10, self.seen.append, "soon")
        call.reset(1)
        self.kernel.run(until=EPOCH + 1_000_000)
        self.assertEqual(self.seen, ["soon"])

    def test_what_a_frozen_process_misses(self) -> None:
        """It comes when the process goes on; and never when it has ended."""
        self.reactor.callLater(1, self.seen.append, "late")
        self.process.freeze()
        self.kernel.run()
        self.assertEqual(self.seen, [])
        self.process.thaw()
        self.kernel.run()
        self.assertEqual(self.seen, ["late"])
        self.reactor.callLater(1, self.seen.append, "never")
        self.process.end()
        self.kernel.run()
        self.assertEqual(self.seen, ["late"])

    def test_calls_from_threads_stay_in_order(self) -> None:
        """They are a queue."""
        for number in range(20):
            self.reactor.callFromThread(self.seen.append, number)
        self.kernel.run()
        self.assertEqual(self.seen, list(range(20)))

    def test_skew(self) -> None:
        """A machine's clock may differ, and what was to come in so many seconds still does."""
        self.reactor.callLater(2, self.seen.append, "due")
        self.process.machine.skew = 3_600_000_000
        self.kernel.run(until=EPOCH + 2_000_000)
        self.assertEqual(self.seen, ["due"])

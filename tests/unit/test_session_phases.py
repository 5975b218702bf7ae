"""What a session tells of the time that it takes"""

from __future__ import annotations

from typing import cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.messages import Auth
from gameproxy.metrics import BOUNDS, Durations
from gameproxy.phases import Phase
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.testing import MemoryClient, MemoryFarm, MemorySurroundings

ANN = Auth("guest", name="ann")


class PhaseTests(SynchronousTestCase):
    """Sessions under a clock, in surroundings that hold them up."""

    def setUp(self) -> None:
        self.around = MemorySurroundings()
        self.clock = cast(Clock, self.around.clock)

    def connect(self) -> MemoryClient:
        self.around.authenticator.hold = self.around.farm.hold = self.around.hold = True
        return self.around.connect()

    def test_way(self) -> None:
        """Each part of the way counts from where the one before has ended; all of it is their sum."""
        client = self.connect()
        self.clock.advance(0.5)
        client.session.inputs.authenticate(ANN)
        self.clock.advance(1.0)
        self.around.authenticator.answer()
        self.clock.advance(2.0)
        self.around.farm.serve()
        self.clock.advance(4.0)
        self.around.attempts[0].admit()
        self.assertEqual(
            dict(self.around.phases),
            {
                Phase.EXPECTING: 0.5,
                Phase.AUTHENTICATING: 1.0,
                Phase.SELECTING: 2.0,
                Phase.CONNECTING: 4.0,
                Phase.SETUP: 7.5,
            },
        )

    def test_failed_attempt(self) -> None:
        """An attempt that fails is no connecting that was come through; the next is measured from its own slot."""
        self.around.hold = True
        client = self.around.connect()
        client.session.inputs.authenticate(ANN)
        self.clock.advance(3.0)
        self.around.attempts[0].fail(CloseReason.SERVER_UNREACHABLE)
        self.clock.advance(1.0)
        self.assertNotIn(Phase.CONNECTING, dict(self.around.phases))
        if len(self.around.attempts) > 1:
            self.around.attempts[1].admit()
            self.assertEqual(dict(self.around.phases)[Phase.CONNECTING], 1.0)

    def test_not_come_through(self) -> None:
        """Who ends on the way has come through nothing more; time in a queue that led to no slot is not counted."""
        client = self.connect()
        self.around.authenticator.hold = False
        client.session.inputs.authenticate(ANN)
        self.clock.advance(60.0)
        client.session.inputs.end(Refusal(CloseReason.QUEUE_TIMEOUT))
        client.disconnect()
        self.assertEqual(
            [phase for phase, _ in self.around.phases], [Phase.EXPECTING, Phase.AUTHENTICATING]
        )
        self.assertIsNone(self.around.records[0].relayed_at)

    def test_queue(self) -> None:
        """Who gets a slot at once was not in the queue; who waits was, until it is placed."""
        around = MemorySurroundings(farm=MemoryFarm({"server-1": 1}))
        clock = cast(Clock, around.clock)
        first, second = around.connect(), around.connect()
        first.session.inputs.authenticate(ANN)
        self.assertNotIn(Phase.QUEUED, dict(around.phases))
        clock.advance(1.0)
        second.session.inputs.authenticate(ANN)
        clock.advance(5.0)
        first.session.inputs.end(Refusal(CloseReason.KICKED))
        around.attempts[0].disconnect()
        self.assertEqual(dict(around.phases)[Phase.QUEUED], 5.0)

    def test_clock_set_back(self) -> None:
        """No time is negative, whatever the clock does."""
        client = self.connect()
        self.clock.rightNow -= 10.0
        client.session.inputs.authenticate(ANN)
        self.assertEqual(self.around.phases, [(Phase.EXPECTING, 0.0)])


class DurationsTests(SynchronousTestCase):
    """The histogram."""

    def test_buckets(self) -> None:
        """A bound belongs to the bucket that it ends; what is more than all has a bucket of its own."""
        durations = Durations()
        for seconds in (0.0, BOUNDS[0], BOUNDS[0] + 1e-9, BOUNDS[-1], BOUNDS[-1] + 1):
            durations.add(seconds)
        self.assertEqual(durations.counts[:2], [2, 1])
        self.assertEqual(durations.counts[-2:], [1, 1])
        self.assertAlmostEqual(durations.total, 2 * BOUNDS[0] + 2 * BOUNDS[-1] + 1)

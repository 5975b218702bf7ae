"""gameproxy.admission and gameproxy.metrics"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.admission import REFUSED_MAX, Admission
from gameproxy.interfaces import Outcome, Traffic
from gameproxy.messages import Auth
from gameproxy.metrics import Metrics, by_state, traffic_of
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.session import Session
from gameproxy.testing import MemorySurroundings

ANN = Auth("guest", name="ann")


class AdmissionTest(SynchronousTestCase):
    """gameproxy.admission.Admission"""

    def setUp(self) -> None:
        self.around = MemorySurroundings()

    def session(self) -> Session:
        """Another session."""
        return self.around.connect().session

    def assert_full(self, refusal: Refusal | None) -> None:
        """The refusal says that there is no room, and to come again."""
        assert refusal is not None
        self.assertEqual(refusal.reason, CloseReason.PROXY_FULL)
        self.assertEqual(refusal.retry_after, 5.0)

    def test_max_sessions(self) -> None:
        """As many sessions as there may be are let in; the next is refused until one is over."""
        admission = Admission(2, 10)
        first, second = self.session(), self.session()
        self.assertIsNone(admission.enter(first))
        self.assertIsNone(admission.enter(second))
        admission.identified(first.id)
        self.assert_full(admission.enter(self.session()))
        admission.leave(first.id)
        self.assertIsNone(admission.enter(self.session()))
        self.assert_full(admission.enter(self.session()))

    def test_max_unauthenticated(self) -> None:
        """So it is with those who have not proved who they are; to prove it makes room."""
        admission = Admission(10, 2)
        first = self.session()
        for session in (first, self.session()):
            self.assertIsNone(admission.enter(session))
        self.assert_full(admission.enter(self.session()))
        admission.identified(first.id)
        self.assertIsNone(admission.enter(self.session()))

    def test_expected(self) -> None:
        """Connections that are no sessions yet count as sessions of the unauthenticated, until they are none."""
        for admission in (Admission(2, 10), Admission(10, 2)):
            self.assertIsNone(admission.enter(self.session()))
            self.assertTrue(admission.expect())
            self.assert_full(admission.enter(self.session()))
            admission.expect_no_more()
            self.assertIsNone(admission.enter(self.session()))
            self.assertEqual(admission.limits()["unauthenticated"], 2)

    def test_expected_when_full(self) -> None:
        """When there is no room, so many are waited for and told together as may be told: others are closed at once."""
        admission = Admission(1, 10)
        admission.enter(self.session())
        self.assert_full(admission.enter(self.session()))
        for _ in range(REFUSED_MAX - 1):
            self.assertTrue(admission.expect())
        self.assertFalse(admission.expect())
        self.assertFalse(admission.has_room())
        admission.expect_no_more()
        self.assertTrue(admission.has_room())

    def test_refused_do_not_count(self) -> None:
        """Who is being told that there is no room takes none: neither of the sessions nor of the unauthenticated."""
        admission = Admission(1, 1)
        first = self.session()
        admission.enter(first)
        for _ in range(5):
            self.assert_full(admission.enter(self.session()))
        self.assertEqual(len(admission), 6)
        admission.leave(first.id)
        self.assertIsNone(admission.enter(self.session()))

    def test_refused_are_bounded(self) -> None:
        """When very many are being told that there is no room, more are not even told; but when there is room again,
        they are let in."""
        admission = Admission(1, 1)
        first = self.session()
        admission.enter(first)
        for _ in range(REFUSED_MAX):
            self.assertTrue(admission.has_room())
            admission.enter(self.session())
        self.assertFalse(admission.has_room())
        admission.leave(first.id)
        self.assertTrue(admission.has_room())

    def test_leave(self) -> None:
        """What is over is found no more; to leave twice, or without having come, changes nothing."""
        admission = Admission(2, 2)
        first, second = self.session(), self.session()
        admission.enter(first)
        admission.enter(second)
        self.assertIs(admission.get(first.id), first)
        admission.leave(first.id)
        admission.leave(first.id)
        admission.identified(first.id)
        self.assertIsNone(admission.get(first.id))
        self.assertEqual(list(admission), [second])

    def test_iterate(self) -> None:
        """Sessions may leave while they are gone through, in the order in which they came."""
        admission = Admission(9, 9)
        sessions = [self.session() for _ in range(3)]
        for session in sessions:
            admission.enter(session)
        seen = []
        for session in admission:
            seen.append(session)
            admission.leave(session.id)
        self.assertEqual(seen, sessions)
        self.assertEqual(len(admission), 0)


class MetricsTest(SynchronousTestCase):
    """gameproxy.metrics"""

    def test_ended(self) -> None:
        """Each session that is over is counted once, by its reason, with what it relayed."""
        around, metrics = MemorySurroundings(), Metrics()
        for reason in (CloseReason.LEFT, CloseReason.LEFT, CloseReason.KICKED):
            client = around.connect()
            client.session.inputs.authenticate(ANN)
            around.relays[-1].traffic = Traffic(1, 10, 2, 20)
            around.relays[-1].end(Outcome(reason, ""))
            client.disconnect()
            around.attempts[-1].disconnect()
            metrics.session_ended(around.records[-1])
        self.assertEqual(dict(metrics.ended), {CloseReason.LEFT: 2, CloseReason.KICKED: 1})
        self.assertEqual(metrics.traffic, Traffic(3, 30, 6, 60))

    def test_running(self) -> None:
        """What runs is counted by state; what it relays is told while it does."""
        around = MemorySurroundings()
        sessions = [around.connect().session for _ in range(3)]
        sessions[0].inputs.authenticate(ANN)
        sessions[1].inputs.authenticate(ANN)
        for relay in around.relays:
            relay.traffic = Traffic(1, 2, 3, 4)
        self.assertEqual(by_state(sessions), {"relaying": 2, "expecting": 1})
        self.assertEqual(traffic_of(sessions), Traffic(2, 4, 6, 8))
        self.assertEqual(traffic_of([]), Traffic())

"""gameproxy.admin.sharing and tally: what costs something is found out seldom, and sums never shrink"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.admin.sharing import Shared
from gameproxy.admin.tally import SLICE, tally
from gameproxy.interfaces import SessionRecord, Traffic
from gameproxy.messages import Auth
from gameproxy.metrics import Metrics
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.testing import MemoryClient, MemorySurroundings


class SharedTests(SynchronousTestCase):
    """Something that a test finds out."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.questions: list[Deferred[int]] = []
        self.shared = Shared(self.find, 3.0, self.clock)

    def find(self) -> Deferred[int]:
        self.questions.append(Deferred())
        return self.questions[-1]

    def test_many(self) -> None:
        """All who ask while the question is under way, and while its answer is fresh, have the one answer."""
        askers = [self.shared.get() for _ in range(100)]
        self.assertEqual(len(self.questions), 1)
        self.questions[0].callback(7)
        self.clock.advance(2.9)
        askers += [self.shared.get() for _ in range(100)]
        self.assertEqual([self.successResultOf(asker) for asker in askers], [7] * 200)
        self.assertEqual(len(self.questions), 1)

    def test_fresh(self) -> None:
        """An answer is good for so long from the question on; also when the clock is set back it is asked again."""
        for step in (3.1, -100.0):
            self.shared.get()
            self.questions[-1].callback(1)
            count = len(self.questions)
            self.clock.rightNow += step
            self.shared.get()
            self.assertEqual(len(self.questions), count + 1)
            self.questions[-1].callback(1)
            self.clock.rightNow += 50

    def test_one_question(self) -> None:
        """However long it takes to answer there is no second question."""
        self.shared.get()
        self.clock.advance(1000.0)
        self.shared.get()
        self.assertEqual(len(self.questions), 1)

    def test_cancelled(self) -> None:
        """Who waits no longer hears nothing; the others do."""
        first, second = self.shared.get(), self.shared.get()
        first.cancel()
        self.failureResultOf(first)
        self.questions[0].callback(1)
        self.assertEqual(self.successResultOf(second), 1)

    def test_failure(self) -> None:
        """A failure is everybody's, logged once, and the next who asks has it tried again."""
        askers = [self.shared.get(), self.shared.get()]
        self.questions[0].errback(ZeroDivisionError())
        for asker in askers:
            self.failureResultOf(asker, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.shared.get()
        self.assertEqual(len(self.questions), 2)

    def test_answer_at_once(self) -> None:
        """What is known at once is told at once."""
        shared = Shared(lambda: succeed(3), 1.0, self.clock)
        self.assertEqual(self.successResultOf(shared.get()), 3)


class Around(MemorySurroundings):
    """Counts as a proxy does."""

    def __init__(self) -> None:
        super().__init__(games=("chess",))
        self.metrics = Metrics()

    def ended(self, record: SessionRecord) -> None:
        super().ended(record)
        self.metrics.session_ended(record)


class TallyTests(SynchronousTestCase):
    """Sessions, more than are looked at in one go."""

    def setUp(self) -> None:
        self.around = Around()
        self.clock: Any = self.around.clock
        self.clients: list[MemoryClient] = []

    def relaying(self, count: int) -> None:
        for number in range(count):
            client = self.around.connect()
            client.session.inputs.authenticate(Auth("guest", name=f"p{number}"))
            self.clients.append(client)
            self.around.relays[-1].traffic = Traffic(1, 10, 2, 20)

    def end(self, index: int) -> None:
        """A session is over."""
        client = self.clients[index]
        client.session.inputs.end(Refusal(CloseReason.KICKED))
        self.around.attempts[index].disconnect()
        client.disconnect()

    def tally(self) -> Deferred[Any]:
        sessions = [one.session for one in self.clients if one.session.state != "closed"]
        return Deferred.fromCoroutine(tally(sessions, self.around.metrics, self.clock))

    def test_all(self) -> None:
        """Each session is where it is, and what it has relayed is in the sum, with what the ended ones had."""
        self.relaying(3)
        self.end(0)
        self.clients.append(self.around.connect())
        found = self.successResultOf(self.tally())
        self.assertEqual((found.alive, found.ended), (3, 1))
        self.assertEqual(found.by_place, {("relaying", "chess"): 2, ("expecting", ""): 1})
        self.assertEqual(found.by_relay["transport"], 2)
        self.assertEqual(found.traffic, Traffic(3, 30, 6, 60))

    def test_slices(self) -> None:
        """Others have their turn after each slice of many sessions."""
        self.relaying(2 * SLICE + 1)
        found = self.tally()
        self.assertNoResult(found)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(found).alive, 2 * SLICE + 1)

    def test_end_between_slices(self) -> None:
        """A session that ends while others are looked at is counted once, whether it has been looked at or not."""
        self.relaying(SLICE + 2)
        found = self.tally()
        self.end(0)
        self.end(SLICE + 1)
        self.clock.advance(0)
        count = SLICE + 2
        self.assertEqual(
            self.successResultOf(found).traffic,
            Traffic(count, 10 * count, 2 * count, 20 * count),
        )

    def test_never_smaller(self) -> None:
        """Whatever ends and comes between and during scrapes: no sum is smaller than the one before."""
        self.relaying(SLICE + 50)
        last = 0
        for step in range(20):
            found = self.tally()
            for index in (step, SLICE + step):
                self.end(index)
            self.relaying(1)
            self.clock.advance(0)
            total = self.successResultOf(found).traffic.client_bytes
            self.assertGreaterEqual(total, last)
            last = total

"""gameproxy.sparing_log: a flood of lines becomes a line a second, and nothing goes by unseen"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.sparing_log import PAUSE, SparingLog


class SparingLogTests(SynchronousTestCase):
    """A log under a clock."""

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.clock = Clock()
        self.log = SparingLog(Logger(observer=self.note), self.clock)

    def note(self, event: Any) -> None:
        self.events.append({**event, "at": self.clock.seconds()})

    def emit(self, kind: str, number: int) -> None:
        self.log.emit(kind, LogLevel.warn, "{kind} {number}", kind=kind, number=number)

    @property
    def lines(self) -> list[tuple[float, str]]:
        return [(event["at"], formatEvent(event)) for event in self.events]

    def test_few(self) -> None:
        """What comes seldom is logged as it comes, with all that it is, and leaves nothing behind."""
        for number in range(3):
            self.emit("junk", number)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.clock.advance(PAUSE + 0.01)
        self.assertEqual([text for _, text in self.lines], ["junk 0", "junk 1", "junk 2"])
        self.assertEqual(
            [(event["log_level"], event["number"]) for event in self.events][:1],
            [(LogLevel.warn, 0)],
        )

    def test_flood(self) -> None:
        """Of many there is the first at once, and at the end of each second the latest, with how many were left out;
        all are accounted for."""
        for number in range(5000):
            self.emit("junk", number)
            self.clock.advance(0.001)
        self.clock.advance(2 * PAUSE)
        times = [at for at, _ in self.lines]
        self.assertIn(len(times), (6, 7))  # at each end of a second, as floats have it
        for earlier, later in pairwise(times):
            self.assertGreaterEqual(later - earlier, PAUSE - 1e-6)
        self.assertEqual(self.lines[0], (0.0, "junk 0"))
        self.assertRegex(self.lines[1][1], r"^junk \d+ \(9\d\d more of this kind were left out\)$")
        told = len(self.events) + sum(event.get("left_out", 0) for event in self.events)
        self.assertEqual(told, 5000)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_more(self) -> None:
        """A second one within the second is logged too, later and with nothing left out."""
        self.emit("junk", 0)
        self.emit("junk", 1)
        self.clock.advance(PAUSE)
        self.assertEqual(self.lines, [(0.0, "junk 0"), (PAUSE, "junk 1")])
        self.assertNotIn("left_out", self.events[1])

    def test_pause_after_a_late_line(self) -> None:
        """What comes after a line that was kept back waits for as long again."""
        self.emit("junk", 0)
        self.emit("junk", 1)
        self.clock.advance(PAUSE)
        self.emit("junk", 2)
        self.assertEqual(len(self.lines), 2)
        self.clock.advance(PAUSE)
        self.assertEqual(self.lines[-1], (2 * PAUSE, "junk 2"))

    def test_kinds(self) -> None:
        """One kind does not keep another quiet."""
        for number in range(10):
            self.emit("junk", number)
        self.emit("rare", 0)
        self.assertEqual([text for _, text in self.lines], ["junk 0", "rare 0"])

    def test_clock_set_back(self) -> None:
        """A clock that is set back, by whatever, does not keep a kind quiet until it is where it was."""
        self.emit("junk", 0)
        self.clock.rightNow -= 3600.0
        self.emit("junk", 1)
        self.assertEqual(len(self.lines), 2)

    def test_flush(self) -> None:
        """When nothing comes after it, what is kept back is logged, and no call is left."""
        for number in range(3):
            self.emit("junk", number)
        self.log.flush()
        self.log.flush()
        self.assertEqual(
            [text for _, text in self.lines],
            ["junk 0", "junk 2 (1 more of this kind were left out)"],
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

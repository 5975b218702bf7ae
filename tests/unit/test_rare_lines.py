"""Lines that are told seldom."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.rare_lines import RareLines


class RareLinesTests(SynchronousTestCase):
    """When a line is due."""

    def test_one_an_interval(self) -> None:
        """The first is told at once, then one an interval, with how many were not; each kind for itself."""
        clock = Clock()
        lines = RareLines(clock, 60.0)
        self.assertEqual([lines.due("a") for _ in range(4)], [0, None, None, None])
        self.assertEqual(lines.due("b"), 0)
        clock.advance(59.9)
        self.assertIsNone(lines.due("a"))
        clock.advance(0.1)
        self.assertEqual([lines.due("a"), lines.due("a")], [4, None])
        self.assertEqual(lines.due("b"), 0)

    def test_a_clock_set_back(self) -> None:
        """A clock that is set back silences nobody for longer."""
        clock = Clock()
        clock.advance(1000.0)
        lines = RareLines(clock, 60.0)
        lines.due("a")
        clock.rightNow = 10.0
        self.assertEqual(lines.due("a"), 0)

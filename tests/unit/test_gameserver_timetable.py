"""gameproxy.gameserver.timetable, by what a game server offers of it"""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.defer import Deferred

from tests.game_server_fixture import GameServerTestCase


class TimetableTest(GameServerTestCase):
    """Calls to come"""

    def test_every(self) -> None:
        """A call comes again and again, at its times, until it is cancelled."""
        times: list[float] = []
        start = self.reactor.seconds()
        handle = self.server.every(0.5, lambda: times.append(self.reactor.seconds() - start))
        self.reactor.pass_time(2.25, step=0.25)
        self.assertEqual(times, [0.5, 1.0, 1.5, 2.0])
        handle.cancel()
        handle.cancel()
        self.reactor.pass_time(2.0, step=0.1)
        self.assertEqual(len(times), 4)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_drift(self) -> None:
        """A loop that is a little late each time does not make the calls fewer."""
        times: list[float] = []
        self.server.every(0.05, lambda: times.append(self.reactor.seconds()))
        for _ in range(100):
            self.reactor.advance(0.03)
        self.assertAlmostEqual(len(times), 60, delta=1)

    def test_late(self) -> None:
        """Of calls that were missed, one is made up for, the others are left out."""
        times: list[float] = []
        self.server.every(1.0, lambda: times.append(self.reactor.seconds()))
        self.reactor.advance(10.5)
        self.reactor.settle()
        self.assertEqual(len(times), 2)
        self.reactor.advance(1.0)
        self.assertEqual(len(times), 3)

    def test_clock_set(self) -> None:
        """A clock that is set back an hour does not stop the calls for an hour."""
        times: list[float] = []
        self.server.every(1.0, lambda: times.append(self.reactor.seconds()))
        self.server.loop.seconds = lambda: self.reactor.seconds() - 3600.0  # type: ignore[method-assign]
        self.reactor.pass_time(5.0, step=0.5)
        self.assertEqual(len(times), 5)

    def test_asynchronous(self) -> None:
        """Calls that take their time do not overlap."""
        calls: list[Deferred[None]] = []

        async def call() -> None:
            calls.append(Deferred())
            await calls[-1]

        self.server.every(1.0, call)
        self.reactor.pass_time(5.0, step=0.5)
        self.assertEqual(len(calls), 1)
        calls[0].callback(None)
        self.reactor.settle()
        self.assertEqual(len(calls), 2)

    def test_cancelled_within(self) -> None:
        """A call may cancel itself, and does not come again."""
        count = 0

        def call() -> None:
            nonlocal count
            count += 1
            handle.cancel()

        handle = self.server.every(1.0, call)
        self.reactor.pass_time(5.0, step=0.5)
        self.assertEqual(count, 1)

    def test_fails(self) -> None:
        """A call that fails comes again; that it fails is logged once, until it has worked meanwhile."""
        outcomes = [True, True, False, True, True]

        def call() -> None:
            if outcomes.pop(0):
                raise ZeroDivisionError

        self.server.every(1.0, call)
        self.reactor.pass_time(5.0, step=0.5)
        self.assertEqual((outcomes, len(self.logged)), ([], 2))
        self.assertIn("ZeroDivisionError", self.logged[0])

    def test_later(self) -> None:
        """A call comes once, and not if it is cancelled before; to cancel it then changes nothing."""
        calls: list[Any] = []
        first = self.server.call_later(1.0, lambda: calls.append("first"))
        self.server.call_later(1.0, lambda: calls.append("second")).cancel()
        self.reactor.pass_time(5.0, step=0.5)
        first.cancel()
        self.assertEqual(calls, ["first"])

    def test_wrong_times(self) -> None:
        """What is no time is refused."""
        for wrong in (-1.0, math.nan, math.inf):
            self.assertRaises(ValueError, self.server.call_later, wrong, print)
            self.assertRaises(ValueError, self.server.every, wrong, print)
        self.assertRaises(ValueError, self.server.every, 0.0, print)

    def test_ends_with_the_server(self) -> None:
        """When the game server ends, nothing comes any more."""
        calls: list[Any] = []
        self.server.every(1.0, lambda: calls.append("often"))
        self.server.call_later(1.0, lambda: calls.append("once"))
        self.successResultOf(self.service.stopService())
        self.reactor.pass_time(5.0, step=0.5)
        self.assertEqual(calls, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

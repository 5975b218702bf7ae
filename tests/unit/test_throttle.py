"""gameproxy.throttle, against a model that forgets nobody; and gameproxy.steady_time"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.steady_time import SteadyTime
from gameproxy.throttle import Throttle

CLOSE_ENOUGH = 1e-5
"""Seconds: sums of seconds are not exact."""


class Model:
    """The rate of each key, without bound and without rounding: how many units of time each has taken in advance."""

    def __init__(self, rate: float, burst: float) -> None:
        self.cost = 1 / rate
        self.most = burst / rate
        self.busy_until: dict[int, float] = {}

    def owing(self, now: float) -> int:
        """How many keys owe."""
        return sum(until > now for until in self.busy_until.values())

    def wait(self, key: int, now: float) -> float:
        """How long a key would have to wait."""
        until = max(self.busy_until.get(key, now), now) + self.cost
        return max(0.0, until - now - self.most)

    def count(self, key: int, now: float) -> None:
        """It was let in."""
        self.busy_until[key] = max(self.busy_until.get(key, now), now) + self.cost


COMINGS = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0, 3.0, 20.0])),
    max_size=60,
)
RATES = st.sampled_from([0.5, 1.0, 4.0])
BURSTS = st.sampled_from([1.0, 2.0, 2.5, 5.0])


class ThrottleTests(SynchronousTestCase):
    """What is let in."""

    @given(COMINGS, RATES, BURSTS, st.integers(1, 6))
    def test_nobody_is_forgotten(
        self, comings: list[tuple[int, float]], rate: float, burst: float, size: int
    ) -> None:
        """Whoever comes, how often and in which order: no key gets more than its rate and burst, not by pushing itself
        out of the table either, and the table keeps to its size."""
        clock = Clock()
        throttle, model = Throttle(SteadyTime(clock), rate, burst, size), Model(rate, burst)
        for key, passes in comings:
            clock.advance(passes)
            if throttle.wait(str(key)) == 0.0:
                self.assertLess(model.wait(key, clock.seconds()), CLOSE_ENOUGH)
                model.count(key, clock.seconds())
            self.assertLessEqual(len(throttle), size)

    @given(COMINGS, RATES, BURSTS, st.integers(1, 6))
    def test_exact_with_room(
        self, comings: list[tuple[int, float]], rate: float, burst: float, size: int
    ) -> None:
        """As long as no more keys owe than the table holds, it decides as if it had no bound."""
        clock = Clock()
        throttle, model = Throttle(SteadyTime(clock), rate, burst, size), Model(rate, burst)
        for key, passes in comings:
            clock.advance(passes)
            now = clock.seconds()
            if model.owing(now) >= size and model.busy_until.get(key, now) <= now:
                return
            expected = model.wait(key, now)
            waits = throttle.wait(str(key))
            self.assertAlmostEqual(waits, expected, 4)
            if waits == 0.0:
                model.count(key, now)

    @given(COMINGS, RATES, BURSTS, st.integers(1, 6), st.integers(0, 9))
    def test_nobody_is_locked_out(
        self, comings: list[tuple[int, float]], rate: float, burst: float, size: int, last: int
    ) -> None:
        """However full the table is, and of whom: nobody is told to wait for longer than one takes at the rate, and who
        waits so long is let in."""
        clock = Clock()
        throttle = Throttle(SteadyTime(clock), rate, burst, size)
        for key, passes in comings:
            clock.advance(passes)
            self.assertLess(throttle.wait(str(key)), 1 / rate + CLOSE_ENOUGH)
        waits = throttle.wait(str(last))
        if waits:
            clock.advance(waits)
            self.assertEqual(throttle.wait(str(last)), 0.0)

    def test_a_full_table(self) -> None:
        """Who owes least gives way, and a newcomer owes what that one did."""
        clock = Clock()
        throttle = Throttle(SteadyTime(clock), 1.0, 3.0, 2)
        for key in ("deep", "deep", "deep", "new", "new"):
            self.assertEqual(throttle.wait(key), 0.0)
        self.assertEqual(throttle.wait("other"), 0.0)  # in the place of "new", which owed 2
        self.assertEqual(throttle.wait("new"), 1.0)  # it is not free again
        self.assertEqual(throttle.wait("deep"), 1.0)
        clock.advance(1.0)
        self.assertEqual(throttle.wait("new"), 0.0)

    def test_room_comes_back(self) -> None:
        """Keys that owe nothing any more leave the table as others come, however many there were."""
        clock = Clock()
        throttle = Throttle(SteadyTime(clock), 1.0, 2.0, 100)
        for key in range(100):
            throttle.wait(str(key))
            throttle.wait(str(key))
        clock.advance(2.0)
        for _ in range(200):
            throttle.wait("one")
        self.assertEqual(len(throttle), 1)

    def test_nobody_leaves_in_debt(self) -> None:
        """While the table is tidied, who still owes stays, though what he owed first is over."""
        clock = Clock()
        throttle = Throttle(SteadyTime(clock), 1.0, 5.0)
        for key in ("a", "b", "b", "b"):
            throttle.wait(key)
        clock.advance(0.5)
        throttle.wait("a")
        clock.advance(0.7)
        throttle.wait("c")
        self.assertEqual([throttle.wait("b") for _ in range(3)], [0.0] * 3)
        self.assertAlmostEqual(throttle.wait("b"), 0.8)

    def test_a_clock_that_is_set(self) -> None:
        """A clock that is set back by an hour makes nobody wait for an hour."""
        clock = Clock()
        clock.advance(10_000)
        throttle = Throttle(SteadyTime(clock), 1.0, 1.0)
        self.assertEqual(throttle.wait("a"), 0.0)
        clock.rightNow -= 3600
        self.assertEqual(throttle.wait("a"), 1.0)
        clock.advance(1.0)
        self.assertEqual(throttle.wait("a"), 0.0)


class SteadyTimeTests(SynchronousTestCase):
    """gameproxy.steady_time.SteadyTime"""

    def test_it_never_goes_back(self) -> None:
        """Time passes as the clock goes, and stands while that is set back."""
        clock = Clock()
        time = SteadyTime(clock)
        clock.advance(2.0)
        self.assertEqual(time.seconds(), 2.0)
        clock.rightNow -= 100.0
        self.assertEqual(time.seconds(), 2.0)
        clock.advance(1.5)
        self.assertEqual(time.seconds(), 3.5)

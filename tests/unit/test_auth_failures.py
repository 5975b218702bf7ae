"""gameproxy.auth.failures"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.auth.failures import (
    ADDRESS_FAILURES,
    ADDRESS_INTERVAL,
    USER_FAILURES,
    USER_INTERVAL,
    FailureTable,
    PasswordFailures,
)

NOW = 1_800_000_000.1


class FailureTableTests(SynchronousTestCase):
    """Counting failures by key."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.table = FailureTable(self.clock, burst=3, interval=10.0, size=4)

    def test_burst_then_one_in_an_interval(self) -> None:
        """As many as the burst may come at once, then one for each interval that has passed."""
        for _ in range(3):
            self.assertEqual(self.table.wait("a"), 0.0)
            self.table.count("a")
        self.assertEqual(self.table.wait("a"), 10.0)
        self.clock.advance(4)
        self.assertAlmostEqual(self.table.wait("a"), 6.0, places=3)
        self.clock.advance(6.1)
        self.assertEqual(self.table.wait("a"), 0.0)
        self.table.count("a")
        self.assertAlmostEqual(self.table.wait("a"), 9.9, places=3)

    def test_keys_are_apart(self) -> None:
        """What one key does concerns no other."""
        for _ in range(3):
            self.table.count("a")
        self.assertEqual(self.table.wait("b"), 0.0)

    def test_take_back(self) -> None:
        """What was taken back was never counted; of an unknown key there is nothing to take."""
        for _ in range(3):
            self.table.count("a")
        self.table.take_back("a")
        self.table.take_back("b")
        self.assertEqual(self.table.wait("a"), 0.0)
        self.table.count("a")
        self.assertEqual(self.table.wait("a"), 10.0)

    def test_all_is_forgotten(self) -> None:
        """After a long time the whole burst is there again, and no more than it."""
        self.table.count("a")
        self.clock.advance(1e6)
        for _ in range(3):
            self.assertEqual(self.table.wait("a"), 0.0)
            self.table.count("a")
        self.assertGreater(self.table.wait("a"), 0.0)

    def test_size(self) -> None:
        """The table is bounded: the key that was counted longest ago is forgotten first."""
        for key in "abcd":
            for _ in range(3):
                self.table.count(key)
        self.table.count("a")
        self.table.count("e")
        self.assertEqual(self.table.wait("b"), 0.0)
        self.assertGreater(self.table.wait("a"), 0.0)
        self.assertGreater(self.table.wait("c"), 0.0)

    def test_clock_set_back(self) -> None:
        """A clock that is set back locks nobody out."""
        for _ in range(3):
            self.table.count("a")
        self.clock.rightNow -= 86400
        self.assertEqual(self.table.wait("a"), 0.0)


class PasswordFailuresTests(SynchronousTestCase):
    """Both limits together."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.failures = PasswordFailures(self.clock)

    def test_user_and_address(self) -> None:
        """A user fails a few times from one address, then waits; elsewhere the same user is free, and so are others."""
        for _ in range(USER_FAILURES):
            self.assertEqual(self.failures.begin("zoe", "192.0.2.1"), 0.0)
        self.assertEqual(self.failures.begin("zoe", "192.0.2.1"), USER_INTERVAL)
        self.assertEqual(self.failures.begin("zoe", "192.0.2.2"), 0.0)
        self.assertEqual(self.failures.begin("yan", "192.0.2.1"), 0.0)

    def test_address(self) -> None:
        """An address that tries many users waits for all of them."""
        for number in range(ADDRESS_FAILURES):
            self.assertEqual(self.failures.begin(f"user{number}", "192.0.2.1"), 0.0)
        self.assertEqual(self.failures.begin("zoe", "192.0.2.1"), ADDRESS_INTERVAL)
        self.assertEqual(self.failures.begin("zoe", "192.0.2.2"), 0.0)

    def test_waiting_counts_nothing(self) -> None:
        """Who asks too early does not wait longer for it, and the address pays nothing."""
        for _ in range(USER_FAILURES):
            self.failures.begin("zoe", "192.0.2.1")
        for _ in range(100):
            self.assertEqual(self.failures.begin("zoe", "192.0.2.1"), USER_INTERVAL)
        self.assertEqual(self.failures.begin("yan", "192.0.2.1"), 0.0)

    def test_take_back(self) -> None:
        """Attempts that succeed can go on for ever."""
        for _ in range(100):
            self.assertEqual(self.failures.begin("zoe", "192.0.2.1"), 0.0)
            self.failures.take_back("zoe", "192.0.2.1")

    def test_ipv6(self) -> None:
        """All addresses of an IPv6 /64 are one; those of the next /64 are another."""
        for number in range(USER_FAILURES):
            self.assertEqual(self.failures.begin("zoe", f"2001:db8::{number}"), 0.0)
        self.assertGreater(self.failures.begin("zoe", "2001:db8::ffff:1"), 0.0)
        self.assertEqual(self.failures.begin("zoe", "2001:db8:0:1::1"), 0.0)

    def test_no_ip(self) -> None:
        """What is no IP counts as it is written."""
        for _ in range(USER_FAILURES):
            self.failures.begin("zoe", "unix")
        self.assertGreater(self.failures.begin("zoe", "unix"), 0.0)

"""A session that keeps its player out is doubted: its proxy is told to see whether its client is still there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import orders
from tests.farm_fixture import World, listed


class DoubtTests(SynchronousTestCase):
    """Two proxies of one farm, and a player who may have one session."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.world = World(
            folder / "farm.db", servers=[listed("a", capacity=9)], auth={"duplicates": "refuse"}
        )
        self.one, self.two = self.world.proxy(), self.world.proxy()

    def test_doubted_at_its_proxy(self) -> None:
        """The first session is doubted once for each refusal, within a second, whichever proxy refuses; others are not,
        nor is it when nobody is refused."""
        self.world.client(self.one, player="anna")
        self.world.client(self.one, player="bob")
        self.world.reactor.pass_time(3.0)
        self.assertEqual(self.world.doubted, [])
        for number, farm in enumerate((self.two, self.one), 1):
            refusal = self.world.client(farm, player="anna").refusals[0]
            self.assertEqual((refusal.reason, refusal.retry_after), ("already_connected", 5.0))
            self.world.reactor.pass_time(1.0)
            self.assertEqual(self.world.doubted, ["s1"] * number)
            self.world.reactor.pass_time(5.0)
            self.assertEqual(self.world.doubted, ["s1"] * number)

    def test_each_reads_its_own(self) -> None:
        """A proxy does not read the doubts that concern others."""
        for farm in (self.one, self.two):
            self.world.client(farm)
        self.world.sql("UPDATE slots SET doubted_at = 1.0")
        with closing(sqlite3.connect(self.world.path)) as database:
            found = orders.doubted_sessions(database.cursor(), self.two.proxy)
        self.assertEqual(found, [("s2", 1.0)])

    def test_session_goes_on(self) -> None:
        """A doubt ends nothing: while the session is there its player is refused; when it is over, let in."""
        first = self.world.client(self.one, player="anna")
        self.world.client(self.two, player="anna")
        self.world.reactor.pass_time(2.0)
        self.assertEqual(self.world.evicted, [])
        self.assertEqual(self.world.client(self.two, player="anna").reason, "already_connected")
        self.one.release(first.session)
        self.world.reactor.settle()
        self.assertEqual(self.world.client(self.two, player="anna").server, "a")

    def test_over_meanwhile(self) -> None:
        """A session that ends before its proxy looks is doubted no more."""
        first = self.world.client(self.one, player="anna")
        self.world.client(self.two, player="anna")
        self.one.release(first.session)
        self.world.reactor.pass_time(1.0)
        self.assertEqual(self.world.doubted, [])

    def test_edited(self) -> None:
        """A doubt that somebody wrote by hand is one, whatever it says; one for a session that is not here is none."""
        self.world.client(self.one, player="anna")
        self.world.sql("UPDATE slots SET doubted_at = 'x'")
        self.world.reactor.pass_time(2.0)
        self.assertEqual(self.world.doubted, ["s1"])
        self.world.sql("UPDATE slots SET session = 'another', doubted_at = 2")
        self.world.reactor.pass_time(2.0)
        self.assertEqual(self.world.doubted, ["s1"])

    def test_database_out_of_order(self) -> None:
        """When the doubt cannot be written the player is refused all the same."""
        self.world.client(self.one, player="anna")
        self.world.sql(
            "CREATE TRIGGER broken BEFORE UPDATE OF doubted_at ON slots "
            "BEGIN SELECT RAISE (ABORT, 'broken'); END"
        )
        self.assertEqual(self.world.client(self.two, player="anna").reason, "already_connected")
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.IntegrityError)), 1)
        self.world.reactor.pass_time(1.0)
        self.assertEqual(self.world.doubted, [])

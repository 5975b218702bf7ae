"""What the upkeep knows of the farm without reading it again, and what it does by that."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import GameFarm
from gameproxy.farm.bans import Bans
from gameproxy.farm.pulse import Pulse
from gameproxy.farm.survey import Survey, Surveyor
from gameproxy.farm.sweep import next_sweep, sweep
from gameproxy.farm.upgrades import SCHEMA_VERSION, upgrade
from tests.farm_fixture import FakeProcesses, World, listed


def make_database(name: str) -> sqlite3.Cursor:
    cursor = sqlite3.connect(name, isolation_level=None).cursor()
    upgrade(cursor)
    return cursor


def add_proxy(cursor: sqlite3.Cursor, name: str, pid: int, started: str) -> None:
    cursor.execute(
        "INSERT INTO proxies (id, beat, pid, process_started, place) VALUES (?, 1, ?, ?, 'here')",
        (name, pid, started),
    )


class SurveyorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.name = self.mktemp()
        self.mine, self.theirs = make_database(self.name), make_database(self.name)
        self.processes = FakeProcesses()
        self.now = 1.0
        self.pulse = Pulse("me", lambda: self.now)
        self.surveyor = Surveyor("me", self.pulse, Bans(), self.processes)
        add_proxy(self.mine, "me", 1, "x")
        self.pulse.begin(1.0)

    def tearDown(self) -> None:
        self.mine.connection.close()
        self.theirs.connection.close()

    def read(self) -> Survey:
        self.assertIsNone(self.surveyor.look(self.mine))
        return self.read_now()

    def read_now(self) -> Survey:
        survey = self.surveyor.read(self.mine, None, 0.0)
        assert survey is not None
        return survey

    def known(self) -> Survey:
        """What a look finds unchanged."""
        survey = self.surveyor.look(self.mine)
        assert survey is not None
        return survey

    def test_changes(self) -> None:
        """What was read holds until this connection or another one changes the database."""
        known = self.read()
        self.assertEqual(self.surveyor.look(self.mine), known)
        self.assertEqual(self.surveyor.look(self.mine), known)
        for cursor in (self.mine, self.theirs):
            add_proxy(cursor, f"other {cursor is self.mine}", 2, "x")
            self.assertNotEqual(self.read(), known)
            known = self.known()

    def test_sign_of_life(self) -> None:
        """This proxy's own sign of life is no change, another's is."""
        known = self.read()
        self.assertTrue(self.pulse.renew(self.mine, 2.0))
        self.assertEqual(self.surveyor.look(self.mine), known)
        self.theirs.execute("UPDATE proxies SET beat = 3")
        self.assertFalse(self.pulse.renew(self.mine, 4.0))
        self.assertIsNone(self.surveyor.look(self.mine))

    def test_old_sign_of_life(self) -> None:
        """A sign of life that a backup may have too tells nothing, nor does one from a time that has not come."""
        for now, tells in ((1.0, True), (10.9, True), (11.0, False), (0.9, False)):
            self.now = now
            self.assertEqual(self.pulse.is_there(self.mine), tells, now)
            self.assertEqual(self.surveyor.read(self.mine, None, 0.0) is not None, tells, now)
        self.assertFalse(self.pulse.renew(self.mine, 0.9))
        self.pulse.begin(1.0)
        self.now = 5.0
        self.assertTrue(self.pulse.renew(self.mine, 5.0))

    def test_from_another_time(self) -> None:
        """What is not as this proxy left it, a backup perhaps, is not gone by until all that is missing is back."""
        self.theirs.execute("UPDATE proxies SET beat = 0 WHERE id = 'me'")
        self.assertIsNone(self.surveyor.look(self.mine))
        self.assertIsNone(self.surveyor.read(self.mine, None, 0.0))
        self.theirs.execute("DELETE FROM proxies")
        self.assertIsNone(self.surveyor.read(self.mine, None, 0.0))

    def test_processes(self) -> None:
        """Processes that end are seen though no table says so."""
        self.processes.running[7] = "then"
        add_proxy(self.mine, "other", 7, "then")
        known = self.read()
        (other,) = known.others
        self.assertEqual(known.ended, frozenset())
        del self.processes.running[7]
        self.assertEqual(self.known().ended, {other.process})

    def test_processes_that_are_none(self) -> None:
        """The row of a proxy that names no process, edited to nonsense, says nothing of a process."""
        add_proxy(self.mine, "first", 7, "then")
        add_proxy(self.mine, "second", 8, "then")
        self.mine.execute("UPDATE proxies SET place = x'ff' WHERE id = 'first'")
        self.mine.execute("UPDATE proxies SET pid = '8' || char(0) WHERE id = 'second'")
        survey = self.read()
        self.assertEqual([proxy.process for proxy in survey.others], [None, None])
        self.assertEqual(survey.ended, frozenset())

    def test_changes_while_reading(self) -> None:
        """What is written between the look and the reading, or after it, is seen by the next look."""
        self.assertIsNone(self.surveyor.look(self.mine))
        add_proxy(self.theirs, "before", 2, "x")
        survey = self.read_now()
        self.assertEqual([proxy.id for proxy in survey.others], ["before"])
        add_proxy(self.mine, "after", 2, "x")
        self.assertEqual([proxy.id for proxy in self.read().others], ["after", "before"])

    def test_another_connection(self) -> None:
        """What was read through one connection says nothing of what another one sees, whatever its numbers are."""
        first, second = (make_database(":memory:") for _ in range(2))
        add_proxy(first, "me", 1, "x")
        self.assertIsNone(self.surveyor.look(first))
        self.surveyor.read(first, None, 0.0)
        self.assertIsNotNone(self.surveyor.look(first))
        self.assertIsNone(self.surveyor.look(second))
        for cursor in (first, second):
            cursor.connection.close()

    def test_bans(self) -> None:
        """Sessions are held against the bans when these have changed since they were last."""
        self.mine.execute(
            "INSERT INTO slots (session, proxy, player, address, game, state, queued_at) "
            "VALUES ('s', 'me', 'anna', '192.0.2.1', 'chess', 'queued', 0)"
        )
        self.mine.execute("INSERT INTO bans (kind, subject) VALUES ('player', 'anna')")
        survey = self.read()
        self.assertEqual(survey.evicted, [("s", "banned")])
        again = self.surveyor.read(self.mine, survey.bans_version, 0.0)
        self.assertEqual(again.evicted, [])


class SweepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.cursor = make_database(":memory:")
        self.addCleanup(self.cursor.connection.close)

    def add_closed(self, name: str, started: object, beaten: object) -> None:
        self.cursor.execute(
            "INSERT INTO game_servers (id, game, state, capacity, started_at, heartbeat_at) "
            "VALUES (?, 'chess', 'closed', 1, ?, ?)",
            (name, started, beaten),
        )

    def test_when(self) -> None:
        """The next sweep is due when the first ticket, ban or closed server has had its time; then it is gone."""
        self.assertEqual(next_sweep(self.cursor, 500.0), math.inf)
        self.cursor.execute("INSERT INTO bans (kind, subject) VALUES ('player', 'ever')")
        self.assertEqual(next_sweep(self.cursor, 500.0), math.inf)
        self.add_closed("a", 100.0, 400.0)
        self.assertEqual(next_sweep(self.cursor, 500.0), 4000.0)
        self.cursor.execute(
            "INSERT INTO bans (kind, subject, expires_at) VALUES ('player', 'x', 300.0)"
        )
        self.assertEqual(next_sweep(self.cursor, 500.0), 300.0)
        self.cursor.execute("INSERT INTO used_tickets VALUES ('t', 200.0)")
        for at in (200.0, 300.0, 4000.0):
            self.assertEqual(next_sweep(self.cursor, 500.0), at)
            sweep(self.cursor, at + 0.1)
        self.assertEqual(next_sweep(self.cursor, 500.0), math.inf)

    def test_nonsense(self) -> None:
        """Ends that are no numbers are never due."""
        self.cursor.execute(
            "INSERT INTO bans (kind, subject, expires_at) VALUES ('player', 'x', 'y')"
        )
        self.cursor.execute("INSERT INTO used_tickets VALUES ('t', x'00')")
        self.assertEqual(next_sweep(self.cursor, 500.0), math.inf)

    def test_heartbeats_in_other_words(self) -> None:
        """A game server that wrote milliseconds or a date as its heartbeat is swept by the time of its start."""
        self.add_closed("milliseconds", 1.7e9, 1.7e12)
        self.add_closed("date", 1.7e9, "2023-11-14 22:13:20")
        self.add_closed("nothing known", "then", b"\xff")
        self.assertEqual(next_sweep(self.cursor, 1.7e9), 3600.0)
        for now, left in (1.7e9, 2), (1.7e9 + 3601, 0):
            sweep(self.cursor, now)
            count = self.cursor.execute(
                "SELECT count(*) FROM game_servers WHERE origin = 'started'"
            ).fetchone()
            self.assertEqual(count, (left,))


class UpkeepTests(SynchronousTestCase):
    def world(self) -> tuple[World, GameFarm]:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        world = World(folder / "farm.db", servers=[listed("a")])
        return world, world.proxy()

    def test_backup_copied_over_an_idle_proxy(self) -> None:
        """A proxy that only gives signs of life notices by them that the database is of another time."""
        world, farm = self.world()
        farm.relaying(world.client(farm).slots[0])
        world.reactor.settle()
        world.sql("DELETE FROM slots")
        world.sql("UPDATE proxies SET beat = beat - 60")
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual(world.counts("a")[:2], (0, 1))

    def test_newer_schema(self) -> None:
        """A proxy writes no sign of life into a database of a version that it does not know."""
        world, _ = self.world()
        world.reactor.pass_time(2.0, 0.25)
        world.sql(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        before = world.sql("SELECT beat FROM proxies")
        world.reactor.pass_time(12.0, 0.25)
        self.assertEqual(world.sql("SELECT beat FROM proxies"), before)
        world.sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        world.reactor.pass_time(2.0, 0.25)
        self.assertGreater(world.sql("SELECT beat FROM proxies"), before)

    def test_deleted_while_idle(self) -> None:
        """The database is made again within a second of being deleted, though nobody asks for anything."""
        world, farm = self.world()
        world.reactor.pass_time(10.0, 0.25)
        for file in world.path.parent.glob("farm.db*"):
            file.unlink()
        world.reactor.pass_time(1.0, 0.25)
        self.assertEqual(world.sql("SELECT id FROM proxies"), [(farm.proxy,)])
        self.assertEqual(world.sql("SELECT id, state FROM game_servers"), [("a", "ready")])

    def test_signs_of_life_while_evicting_fails(self) -> None:
        """A fault in ending a session does not make the others believe that the proxy is dead."""
        world, farm = self.world()
        client = world.client(farm)
        before = world.sql("SELECT beat FROM proxies")

        def evict(session: str, reason: object) -> None:
            raise KeyError(session)

        self.patch(farm._reaper, "_on_evict", evict)
        world.sql("UPDATE slots SET evict = 'kicked' WHERE session = ?", client.session)
        world.reactor.pass_time(10.0, 0.25)
        self.assertGreater(world.sql("SELECT beat FROM proxies"), before)
        self.assertTrue(self.flushLoggedErrors(KeyError))

    def test_sign_of_life_after_trouble(self) -> None:
        """When the database could not be read, the next look that succeeds is followed by a sign of life at once."""
        world, _ = self.world()
        before = world.sql("SELECT beat FROM proxies")
        while world.sql("SELECT beat FROM proxies") == before:
            world.reactor.pass_time(0.25)
        before = world.sql("SELECT beat FROM proxies")
        world.reactor.threads.broken = OSError("disk")
        world.reactor.pass_time(2.0, 0.25)
        world.reactor.threads.broken = None
        world.reactor.pass_time(1.0, 0.25)
        self.assertGreater(world.sql("SELECT beat FROM proxies"), before)

    def test_stop_while_looking_at_processes(self) -> None:
        """A proxy that stops while it looks does nothing about a process that has ended, either."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        chess = {"name": "chess", "command": ["chessd"], "capacity": 1, "max_servers": 1}
        world = World(folder / "farm.db", games=[{**chess, "min_ready": 1}])
        farm = world.proxy()
        (server,) = world.starter.started
        world.ready(server)
        world.reactor.pass_time(3.0, 0.25)
        world.reactor.threads.held = True
        world.reactor.pass_time(1.0, 0.25)
        del world.processes.running[world.starter.pids[server]]
        farm.stop()
        world.reactor.threads.held = False
        world.reactor.threads.run()
        world.reactor.settle()
        self.assertEqual(world.starter.cleaned, [])
        self.assertEqual(world.reactor.getDelayedCalls(), [])

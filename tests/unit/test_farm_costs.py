"""What the farm asks of its database, counted: transactions, looks, and the work of a slot."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm.selection import QUERIES
from tests.farm_fixture import Client, World, listed

CLIENTS = 300
MINUTE = 60.0


class Counter:
    """Counts what connections to databases do, from when they are opened.

    :ivar statements: the text of each that ran, in order.
    :ivar steps: of SQLite's machine.
    """

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.steps = 0
        self.connect_uncounted: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect(self, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        """In place of ``sqlite3.connect``."""
        connection = self.connect_uncounted(*args, **kwargs)
        connection.set_trace_callback(self.statements.append)
        connection.set_progress_handler(self._step, 1)
        return connection

    def _step(self) -> int:
        self.steps += 1
        return 0

    def count(self, start: str) -> int:
        """How many statements begin so."""
        return sum(statement.startswith(start) for statement in self.statements)

    def reset(self) -> None:
        self.statements.clear()
        self.steps = 0


class CostTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.counter = Counter()
        self.patch(sqlite3, "connect", self.counter.connect)

    def world(self, **sections: Any) -> World:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        return World(folder / "farm.db", **sections)

    def pass_counted(self, world: World, seconds: float) -> None:
        """Let time pass and count what happens in it."""
        self.counter.reset()
        world.reactor.pass_time(seconds)

    def test_requests_share_transactions(self) -> None:
        """300 sessions that come, relay and go at once cost a few transactions, not 300 each time."""
        world = self.world(servers=[listed("a", CLIENTS)])
        farm = world.proxy()
        self.counter.reset()
        clients = [Client(farm, f"s{number}", "chess") for number in range(CLIENTS)]
        world.reactor.settle()
        self.assertTrue(all(client.has_slot() for client in clients))
        self.assertLessEqual(self.counter.count("COMMIT"), 5)
        self.counter.reset()
        for client in clients:
            farm.relaying(client.slots[0])
        world.reactor.settle()
        self.assertLessEqual(self.counter.count("COMMIT"), 5)
        self.counter.reset()
        for client in clients:
            farm.release(client.session)
        world.reactor.settle()
        self.assertLessEqual(self.counter.count("COMMIT"), 5)
        self.assertEqual(world.counts("a"), (0, 0, CLIENTS, CLIENTS))

    def looks(self) -> int:
        """How often it was asked whether other connections have changed anything."""
        return self.counter.count("PRAGMA data_version")

    def test_idle(self) -> None:
        """An idle proxy makes at most two queries a second, of everything that SQLite is told; and it does look.

        Sessions that relay change nothing in that, nor do listed servers.
        """
        world = self.world(servers=[listed("a"), listed("b")])
        farm = world.proxy()
        for players in (0, 3):
            for _ in range(players):
                farm.relaying(world.client(farm).slots[0])
            world.reactor.pass_time(2.0)
            with self.subTest(players=players):
                self.pass_counted(world, MINUTE / 2)
                self.assertLessEqual(len(self.counter.statements), 2 * MINUTE / 2)
                self.assertEqual(self.counter.count("BEGIN"), 0)
                self.assertGreater(self.looks(), MINUTE / 2)
                self.assertGreaterEqual(self.counter.count("UPDATE proxies"), 5)

    def test_two_idle(self) -> None:
        """Of two idle proxies each reads the farm when the other has given a sign of life, and only then."""
        world = self.world(servers=[listed("a"), listed("b")])
        world.proxy()
        world.reactor.pass_time(2.0)
        world.proxy()
        world.reactor.pass_time(2.0)
        self.pass_counted(world, MINUTE)
        begun, beats = self.counter.count("BEGIN"), self.counter.count("UPDATE proxies")
        self.assertEqual(begun, self.counter.count("COMMIT"))
        self.assertEqual(self.counter.count("BEGIN IMMEDIATE"), 0)
        self.assertTrue(0 < begun <= beats + 2, (begun, beats))
        self.assertGreater(self.looks(), 2 * MINUTE)
        self.assertLessEqual(len(self.counter.statements), 2 * 3.5 * MINUTE)

    def test_idle_with_game_servers(self) -> None:
        """The heartbeats of three game servers that nobody is on have the farm read once each, at most."""
        chess = {"name": "chess", "command": ["chessd"], "capacity": 1, "max_servers": 3}
        world = self.world(games=[{**chess, "min_ready": 3}])
        world.proxy()
        world.reactor.settle()
        for server in list(world.starter.started):
            world.ready(server)
        world.reactor.pass_time(2.0)
        self.assertEqual(len(world.starter.started), 3)
        self.counter.reset()
        heartbeats = 0
        for _ in range(int(MINUTE / 5)):
            for server in world.starter.started:
                self.heartbeat(world, server)
                heartbeats += 1
                world.reactor.pass_time(5 / 3)
        self.assertTrue(0 < self.counter.count("BEGIN") <= heartbeats)
        self.assertEqual(self.counter.count("BEGIN IMMEDIATE"), 0)
        self.assertLessEqual(len(self.counter.statements), 8 * MINUTE)

    def test_sweeps_seldom(self) -> None:
        """However often something expires, it is swept about every five seconds."""
        world = self.world(servers=[listed("a")])
        world.proxy()
        now = world.reactor.seconds()
        for number in range(40):
            world.sql("INSERT INTO used_tickets VALUES (?, ?)", f"{number}", now + number / 2)
        self.pass_counted(world, 25.0)
        self.assertEqual(world.sql("SELECT jti FROM used_tickets"), [])
        self.assertLessEqual(self.counter.count("DELETE FROM used_tickets"), 5)

    def heartbeat(self, world: World, server: str) -> None:
        """As the game server gives it; what that costs is its own."""
        connection = self.counter.connect_uncounted(world.path, isolation_level=None)
        connection.execute(
            "UPDATE game_servers SET heartbeat_at = heartbeat_at + 5 WHERE id = ?", (server,)
        )
        connection.close()

    def test_polls_only_for_who_waits(self) -> None:
        """What other processes write is looked for every 25 ms while somebody waits, and else by the upkeep alone."""
        world = self.world(servers=[listed("a", 1)])
        farm = world.proxy()
        first = world.client(farm)
        farm.relaying(first.slots[0])
        self.pass_counted(world, 10.0)
        self.assertLessEqual(self.looks(), 14)
        second = world.client(farm)
        self.pass_counted(world, 10.0)
        self.assertFalse(second.has_slot())
        self.assertTrue(300 <= self.looks() <= 420, self.looks())
        farm.release(second.session)
        world.reactor.pass_time(0.1)
        self.pass_counted(world, 10.0)
        self.assertLessEqual(self.looks(), 14)

    def steps(self, strategy: str, servers: int) -> int:
        """What a slot costs from acquire to release, on a farm of so many servers."""
        world = self.world(selection={"strategy": strategy})
        farm = world.proxy()
        with sqlite3.connect(world.path) as connection:
            connection.executemany(
                "INSERT INTO game_servers (id, game, state, host, port, capacity) "
                "VALUES (?, 'chess', 'ready', '127.0.0.1', 5000, 10)",
                ((f"s{number:05}",) for number in range(servers)),
            )
            # From empty ones to full ones; a new row starts from what the slots say.
            connection.execute("UPDATE game_servers SET connections = rowid % 11")
        connection.close()
        self.counter.reset()
        client = world.client(farm)
        farm.release(client.session)
        world.reactor.settle()
        self.assertTrue(client.has_slot())
        return self.counter.steps

    def test_flat_work(self) -> None:
        """All of SQLite's work for a slot, not only the selection, is the same with 10 servers and with 10,000."""
        for strategy in QUERIES:
            few, many = self.steps(strategy, 10), self.steps(strategy, 10_000)
            self.assertLess(many, 1.5 * few, strategy)

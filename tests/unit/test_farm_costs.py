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
        self._connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect(self, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        """In place of ``sqlite3.connect``."""
        connection = self._connect(*args, **kwargs)
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

    def test_idle(self) -> None:
        """An idle proxy begins at most two transactions a second, of which one in five seconds writes.

        Sessions that relay change nothing in that, nor does a second proxy.
        """
        world = self.world(servers=[listed("a"), listed("b")])
        farm = world.proxy()
        for players, proxies in ((0, 1), (3, 1), (3, 2)):
            for _ in range(players - len(world.sql("SELECT 1 FROM slots"))):
                farm.relaying(world.client(farm).slots[0])
            if proxies > len(world.nodes):
                world.proxy()
            with self.subTest(players=players, proxies=proxies):
                self.pass_counted(world, MINUTE)
                begun = self.counter.count("BEGIN")
                self.assertEqual(begun, self.counter.count("COMMIT"))
                self.assertLessEqual(begun, 2 * MINUTE * proxies)
                self.assertLessEqual(
                    self.counter.count("BEGIN IMMEDIATE"), (MINUTE / 5 + 1) * proxies
                )
                self.assertGreater(begun, MINUTE)  # it does look

    def test_polls_only_for_who_waits(self) -> None:
        """What other processes write is looked for every 25 ms while somebody waits, and else not at all."""
        world = self.world(servers=[listed("a", 1)])
        farm = world.proxy()
        first = world.client(farm)
        farm.relaying(first.slots[0])
        self.pass_counted(world, 10.0)
        self.assertEqual(self.counter.count("PRAGMA data_version"), 0)
        second = world.client(farm)
        self.pass_counted(world, 10.0)
        self.assertFalse(second.has_slot())
        polls = self.counter.count("PRAGMA data_version")
        self.assertTrue(300 <= polls <= 400, polls)
        farm.release(second.session)
        world.reactor.pass_time(0.1)
        self.pass_counted(world, 10.0)
        self.assertEqual(self.counter.count("PRAGMA data_version"), 0)

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

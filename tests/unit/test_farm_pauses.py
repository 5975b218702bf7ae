"""The pauses between starts of game servers that fail."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import registry
from tests.farm_fixture import World


class PauseTests(SynchronousTestCase):
    def world(self, **game: Any) -> World:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        chess = {"name": "chess", "command": ["chessd"], "capacity": 1, "max_servers": 9, **game}
        return World(folder / "farm.db", games=[chess])

    def pauses(self, world: World, chance: float) -> list[float]:
        """The pauses after ten failures, one after the other."""
        world.proxy()
        connection = sqlite3.connect(world.path, isolation_level=None)
        self.addCleanup(connection.close)
        cursor = connection.cursor()
        now, pauses = 1000.0, []
        for number in range(10):
            cursor.execute(
                "INSERT INTO game_servers (id, game, state, capacity) VALUES (?, 'chess', 'starting', 1)",
                (f"{number}",),
            )
            registry.close_server(cursor, f"{number}", now, chance)
            ((not_before,),) = cursor.execute("SELECT not_before FROM starts").fetchall()
            pauses.append(not_before - now)
            now = not_before
        return pauses

    def test_growing(self) -> None:
        """From 1 s on each pause is the last one's double, up to a minute, and chance makes each a little longer."""
        self.assertEqual(self.pauses(self.world(), 0.0), [1, 2, 4, 8, 16, 32, 48, 48, 48, 48])
        self.assertEqual(self.pauses(self.world(), 1.0), [1.25, 2.5, 5, 10, 20, 40, 60, 60, 60, 60])

    def test_many_at_once(self) -> None:
        """Starts that fail together make one pause: the next start, alone, comes soon."""
        world = self.world(start_attempts=50)
        farm = world.proxy()
        for _ in range(9):
            world.client(farm)
        for server in list(world.starter.started):
            world.starter.end(server)
        self.assertEqual(len(world.starter.started), 9)
        world.reactor.pass_time(2.0, 0.05)
        self.assertEqual(len(world.starter.started), 10)

    def test_not_all_fail(self) -> None:
        """While a start is under way, nobody is refused because others failed."""
        world = self.world(start_attempts=2)
        farm = world.proxy()
        clients = [world.client(farm) for _ in range(3)]
        one, two, three = list(world.starter.started)
        world.starter.end(one)
        world.starter.end(two)
        world.reactor.pass_time(0.1, 0.05)
        self.assertEqual([client.reason for client in clients], [None, None, None])
        world.ready(three)
        world.reactor.pass_time(0.1, 0.05)
        self.assertEqual(clients[0].server, three)
        self.assertEqual([client.reason for client in clients], [None, None, None])

    def test_all_fail(self) -> None:
        """When the last of them fails too, all who waited for them are refused."""
        world = self.world(start_attempts=2)
        farm = world.proxy()
        clients = [world.client(farm) for _ in range(3)]
        for server in list(world.starter.started):
            world.starter.end(server)
        world.reactor.settle()
        self.assertEqual([client.reason for client in clients], ["start_failed"] * 3)

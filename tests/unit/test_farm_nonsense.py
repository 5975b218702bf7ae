"""Rows edited by hand to nonsense, or deleted: the rest of the farm goes on."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import GameFarm
from tests.farm_fixture import Client, World, listed

NONSENSE = [None, -1, 2**62, float("inf"), "many\x1b[31m", b"\xff\x00"]
EDITED = {
    "game_servers": "id <> 'good'",
    "slots": "session <> 's1'",
    "proxies": "id = 'far'",
    "starts": "1",
    "bans": "1",
    "bans_version": "1",
    "used_tickets": "1",
}
"""The tables, and which of their rows somebody edits."""


class NonsenseTests(SynchronousTestCase):
    def world(self) -> tuple[World, GameFarm, Client]:
        """A farm in which every table has rows, and a session that relays on the server ``good`` of the game go."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        chess = {"name": "chess", "command": ["chessd"], "capacity": 6, "max_servers": 2}
        world = World(folder / "farm.db", games=[chess], servers=[listed("good", 500, "go")])
        farm = world.proxy()
        staying = world.client(farm, "go", player="anna")
        farm.relaying(staying.slots[0])
        for _ in range(3):
            world.client(farm, ticket=f"ticket {world.count}")
        for server in world.starter.started[:1]:
            world.ready(server)
        world.reactor.pass_time(0.1)
        world.sql("INSERT INTO starts (game) VALUES ('chess')")
        world.sql("INSERT INTO bans VALUES ('player', 'zed', '', '', 0, NULL)")
        world.sql(
            "INSERT INTO proxies VALUES ('far', ?, 77, 'x', 'here far')", world.reactor.seconds()
        )
        world.sql(
            "INSERT INTO slots (session, proxy, player, address, game, state, queued_at) "
            "VALUES ('waits', 'far', 'p', '', 'chess', 'queued', 0)"
        )
        return world, farm, staying

    def complaints(self, world: World, farm: GameFarm, staying: Client) -> list[object]:
        """What does not work any more."""
        found: list[object] = []
        for game in ("go", "chess"):
            client = world.client(farm, game, ticket=f"ticket {world.count}")
            if client.server != "good" and (game == "go" or client.reason == "internal"):
                found.append((game, client.reason, client.told))
            if any(not 0 < slot.port < 65536 or not slot.host for slot in client.slots):
                found.append(client.slots)
            farm.release(client.session)
            world.reactor.settle()
            if world.sql("SELECT 1 FROM slots WHERE session = ?", client.session):
                found.append("a slot stays behind")
        if world.result(farm.check_address("192.0.2.9")) is not None:
            found.append("nobody may connect")
        for report in (farm.stats, farm.servers, farm.bans):
            if isinstance(world.result(report()), str):
                found.append(report)
        if staying.session in [session for session, _ in world.evicted]:
            found.append("a session was ended")
        return found

    def spoil(self, statement: str, *values: Any) -> list[object]:
        """What does not work any more when somebody has written that."""
        world, farm, staying = self.world()
        try:
            world.sql(statement, *values)
        except sqlite3.Error:
            return []
        world.reactor.pass_time(1.5, 0.75)
        found = self.complaints(world, farm, staying)
        if self.complaints(world, world.proxy(), staying):
            found.append("another proxy")
        return found

    def test_edited(self) -> None:
        """Whatever stands in any column of any row, other game servers serve on, and nobody is told internal."""
        faults: list[str] = []

        def observe(event: Any) -> None:
            if event["log_level"] >= LogLevel.critical:
                faults.append(str(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        world, _, _ = self.world()
        for table, rows in EDITED.items():
            for _, column, *_, hidden in world.sql(f"PRAGMA table_xinfo({table})"):
                for value in NONSENSE if not hidden else ():
                    with self.subTest(table=table, column=column, value=value):
                        statement = f"UPDATE {table} SET {column} = ? WHERE {rows}"
                        self.assertEqual((self.spoil(statement, value), faults), ([], []))

    def test_not_utf_8(self) -> None:
        """Text that is none, in whatever column, hinders neither proxies that run nor those that start."""
        world, _, _ = self.world()
        for table, rows in EDITED.items():
            for _, column, *_, hidden in world.sql(f"PRAGMA table_xinfo({table})"):
                # A game server whose id is none cannot be given to anybody.
                if not hidden and (table, column) != ("game_servers", "id"):
                    with self.subTest(table=table, column=column):
                        statement = (
                            f"UPDATE {table} SET {column} = CAST(x'ff' AS TEXT) WHERE {rows}"
                        )
                        self.assertEqual(self.spoil(statement), [])

    def test_deleted(self) -> None:
        """Rows that are deleted by hand, of any table, are missed by nobody else."""
        for table, rows in EDITED.items():
            with self.subTest(table=table):
                self.assertEqual(self.spoil(f"DELETE FROM {table} WHERE {rows}"), [])

    def test_listed_server_deleted(self) -> None:
        """A game server whose row is deleted under its sessions: they go on, and their end leaves nothing behind."""
        world, farm, staying = self.world()
        world.sql("DELETE FROM game_servers WHERE id = 'good'")
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual(world.evicted, [])
        farm.release(staying.session)
        world.reactor.settle()
        self.assertEqual(world.sql("SELECT 1 FROM slots WHERE session = 's1'"), [])

    def test_bans_are_heeded(self) -> None:
        """Bans count also when what tells of their change was spoiled or deleted."""
        for spoiled in ("UPDATE bans_version SET value = 9e999", "DELETE FROM bans_version"):
            world, farm, _ = self.world()
            world.sql(spoiled)
            world.reactor.pass_time(2.0, 0.25)
            world.sql("INSERT INTO bans VALUES ('player', 'anna', '', '', 0, NULL)")
            self.assertEqual(world.client(farm, "go", player="anna").reason, "banned")
            world.reactor.pass_time(1.0, 0.25)
            self.assertEqual(world.evicted, [("s1", "banned")])

    def test_addresses_that_are_none(self) -> None:
        """The log has each banned address that is none once, cut, and not all of very many."""
        lines: list[str] = []

        def observe(event: Any) -> None:
            if "no IP or CIDR" in str(event.get("log_format")):
                lines.append(event["subject"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        world, _, _ = self.world()
        world.sql("INSERT INTO bans (kind, subject) VALUES ('address', hex(zeroblob(500)))")
        for change in range(200):
            world.sql("INSERT INTO bans (kind, subject) VALUES ('address', ?)", f"odd {change}")
            if change < 3:
                world.reactor.pass_time(1.0, 0.25)
                self.assertEqual(len(lines), change + 2)
        world.reactor.pass_time(1.0, 0.25)
        self.assertEqual((len(lines), max(map(len, lines))), (100, 64))

    def test_failures_are_counted(self) -> None:
        """A start that fails is noted although the numbers of its game were spoiled."""
        world, farm, _ = self.world()
        world.result(farm.start_server("chess"))
        world.sql("UPDATE starts SET failures = 'x', streak = 'many', not_before = 'soon'")
        world.starter.end(world.starter.started[-1])
        world.reactor.pass_time(2.0, 0.25)
        self.assertEqual(
            world.sql("SELECT count(*) FROM game_servers WHERE state = 'closed'"), [(1,)]
        )
        self.assertEqual(world.sql("SELECT streak FROM starts"), [(1,)])

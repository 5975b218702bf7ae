"""Backups that a proxy might take for what it has written itself, or that know less than it does."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.farm_fixture import World, listed
from tests.restored_fixture import ReplacingTestCase


class BackupTests(ReplacingTestCase):
    def test_while_the_proxy_stood_still(self) -> None:
        """A backup is noticed by a proxy that stood still from when it was made to when it was put back, so that the
        proxy's sign of life in it is the last one; whatever the proxy does first."""
        for first in ("look", "release", "acquire"):
            world = self.world(listed("a", capacity=1), listed("b", capacity=1))
            farm = world.proxy()
            gone, stays = self.relaying(world, farm), self.relaying(world, farm)
            self.back_up(world)
            farm.release(gone.session)
            world.reactor.settle()
            world.node(farm).stop()
            world.reactor.pass_time(10.5, 0.25)
            self.restore_backup(world)
            self.assertEqual(world.counts("a")[:2], (0, 1), first)
            if first == "release":
                farm.release(stays.session)
            elif first == "acquire":
                self.assertEqual(world.client(farm).server, None)
            world.node(farm).go_on()
            world.reactor.pass_time(2.0, 0.25)
            there = {"look": (0, 0), "release": (0, 0), "acquire": (1, 0)}[first]
            self.assertEqual((world.counts("a")[:2], world.evicted), (there, []), first)
            self.assertEqual(world.counts("b")[:2], (0, int(first != "release")), first)

    def test_process_not_recorded_yet(self) -> None:
        """A started game server, ready in a backup that does not say which process it is, is known by its proxy: its
        row is closed when the process has ended."""
        world = self.world()
        farm = world.proxy()
        client = world.client(farm)
        (server,) = world.starter.started
        world.ready(server)
        world.reactor.pass_time(1.0, 0.25)
        self.assertEqual(client.server, server)
        self.back_up(world)
        with closing(sqlite3.connect(self.folder / "backup.db", isolation_level=None)) as backup:
            backup.execute(
                "UPDATE game_servers SET pid = NULL, process_started = NULL, place = NULL"
            )
        self.put_backup_back(world)
        pid = world.starter.pids[server]
        self.assertEqual(world.sql("SELECT state, pid FROM game_servers"), [("ready", pid)])
        del world.processes.running[pid]
        world.reactor.pass_time(2.0, 0.25)
        self.assertEqual(world.sql("SELECT state FROM game_servers"), [("closed",)])

    def test_process_recorded_just_before(self) -> None:
        """The same, when the proxy has last read the row before that was recorded."""
        world = self.world()
        farm = world.proxy()
        world.reactor.threads.before = lambda writes: self.lock_after_the_start(world)
        world.client(farm)
        (server,) = world.starter.started
        world.reactor.pass_time(1.0, 0.05)
        self.assertEqual(world.sql("SELECT pid FROM game_servers"), [(None,)])
        self.back_up(world)
        world.reactor.threads.before = lambda writes: None
        world.reactor.threads.locked = False
        while world.sql("SELECT pid FROM game_servers") == [(None,)]:
            world.reactor.pass_time(0.001, 0.001)
        self.put_backup_back(world)
        self.assertEqual(world.sql("SELECT pid FROM game_servers"), [(world.starter.pids[server],)])

    def test_sessions_of_another_proxy(self) -> None:
        """Sessions keep their places though a backup has others of another proxy there that are over, of the same
        players too; whichever proxy notices first. That one's sessions stay as well."""
        for first in (0, 1):
            world = self.world(listed("a", capacity=1), listed("b", capacity=1))
            farms = world.proxy(), world.proxy()
            gone = self.relaying(world, farms[1], player="anna")
            stays = self.relaying(world, farms[1], player="bert")
            self.assertEqual((gone.server, stays.server), ("a", "b"))
            world.reactor.pass_time(5.5, 0.25)
            self.back_up(world)
            farms[1].release(gone.session)
            world.reactor.settle()
            again = self.relaying(world, farms[0], player="anna")
            self.assertEqual(again.server, "a")
            world.reactor.pass_time(10.5, 0.25)
            self.restore_backup(world)
            farms[first].ban("nobody", 1.0, "", "test")
            world.reactor.pass_time(8.0, 0.25)
            self.assertEqual(world.evicted, [], first)
            self.assertEqual(
                world.sql("SELECT server, session FROM slots ORDER BY server"),
                [("a", again.session), ("b", stays.session)],
            )
            self.assertEqual(len(world.sql("SELECT 1 FROM proxies")), 2)

    def lock_after_the_start(self, world: World) -> None:
        world.reactor.threads.locked = bool(world.starter.started)

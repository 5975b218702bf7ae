"""When a game server that is started may run, and what starts that fail, and started servers that cannot be reached,
mean for those who wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.interfaces import AttemptFailed
from gameproxy.reasons import CloseReason
from tests.farm_fixture import World

DIAL = AttemptFailed(CloseReason.SERVER_UNREACHABLE, "connection refused")
FULL = AttemptFailed(CloseReason.REFUSED, "full", busy=True)


class StartingTestCase(SynchronousTestCase):
    def world(self, **game: Any) -> World:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        chess = {"name": "chess", "command": ["chessd"], "capacity": 1, "max_servers": 2, **game}
        return World(folder / "farm.db", games=[chess])


class LaunchTests(StartingTestCase):
    """A process that is started becomes the game server when the farm knows which process that is."""

    def held_launch(self, world: World) -> str:
        """A game server whose process is started, and cannot be recorded: the database is locked since."""

        def lock_after_the_start(writes: bool) -> None:
            world.reactor.threads.locked = bool(world.starter.started)

        world.reactor.threads.before = lock_after_the_start
        world.client(world.proxy())
        (server,) = world.starter.started
        return server

    def unlock(self, world: World) -> None:
        world.reactor.threads.before = lambda writes: None
        world.reactor.threads.locked = False
        world.reactor.pass_time(2.0, 0.05)

    def test_recorded(self) -> None:
        """It runs as soon as its row says which process it is, and not before."""
        world = self.world()
        server = self.held_launch(world)
        world.reactor.pass_time(3.0, 0.05)
        self.assertEqual(world.sql("SELECT pid FROM game_servers"), [(None,)])
        self.assertEqual(world.starter.answers, {})
        self.unlock(world)
        self.assertEqual(world.sql("SELECT pid FROM game_servers"), [(world.starter.pids[server],)])
        self.assertEqual(world.starter.answers, {server: True})

    def test_given_up_meanwhile(self) -> None:
        """It never runs when its row does not wait for it any more: nobody would look after it."""
        for state in ("draining", "closed"):
            world = self.world()
            server = self.held_launch(world)
            world.sql("UPDATE game_servers SET state = ?", state)
            self.unlock(world)
            self.assertEqual(world.starter.answers[server], False, state)
            world.starter.end(server)
            world.reactor.settle()
            row = world.sql("SELECT state FROM game_servers WHERE id = ?", server)
            self.assertEqual(row, [("closed",)], state)

    def test_stopped_meanwhile(self) -> None:
        """It never runs when its proxy stops before that, though it may still be recorded."""
        for unlocked in (False, True):
            world = self.world()
            server = self.held_launch(world)
            (farm,) = world.started
            farm.stop()
            self.assertEqual(world.starter.answers, {server: False})
            if unlocked:
                self.unlock(world)
            world.reactor.pass_time(15.0, 0.25)
            self.assertEqual(world.starter.answers, {server: False})


class FailedStartTests(StartingTestCase):
    def test_in_a_row(self) -> None:
        """Failures with a success between them are not in a row: who waited for both waits on."""
        world = self.world(start_attempts=2)
        farm = world.proxy()
        first, second = world.client(farm), world.client(farm)
        failing, good = world.starter.started
        world.starter.end(failing)
        world.ready(good)
        world.reactor.pass_time(2.0, 0.05)
        self.assertEqual(first.server, good)
        world.starter.end(world.starter.started[2])
        world.reactor.settle()
        self.assertEqual(world.sql("SELECT failures, streak FROM starts"), [(2, 1)])
        self.assertEqual((second.server, second.reason), (None, None))

    def test_all_that_failed_meanwhile(self) -> None:
        """All failures count since a session first began to wait, though it tries a full server every second."""
        world = self.world(start_attempts=3, capacity=5)
        farm = world.proxy()
        client = world.client(farm)
        full = world.starter.started[0]
        world.ready(full)
        ended = 1
        for _ in range(400):
            world.reactor.pass_time(0.05, 0.05)
            if len(client.slots) == client.requests and client.reason is None:
                client.expect(farm.try_another(client.slots[-1], FULL, client.waiting))
            for server in world.starter.started[ended:]:
                world.starter.end(server)
                ended += 1
        self.assertEqual(client.reason, "start_failed")
        self.assertEqual(ended, 4)
        self.assertGreater(client.requests, 3)

    def test_started_servers_do_not_rest(self) -> None:
        """That one session could not reach a started server keeps it from nobody else."""
        world = self.world(max_servers=1)
        farm = world.proxy()
        client = world.client(farm)
        (server,) = world.starter.started
        world.ready(server)
        world.reactor.pass_time(0.05)
        client.expect(farm.try_another(client.slots[0], DIAL, client.waiting))
        world.reactor.settle()
        self.assertEqual(client.reason, "server_unreachable")
        farm.release(client.session)
        self.assertEqual(world.client(farm).server, server)

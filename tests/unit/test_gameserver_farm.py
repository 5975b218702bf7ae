"""gameproxy.gameserver: what a game server tells the farm, and what it reads there"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from gameproxy.gameserver import Game
from tests.game_server_fixture import CLOSE, REFUSED, FarmDatabase, GameServerTestCase


class FarmTestCase(GameServerTestCase):
    """Has a game server in a farm that waits for it.

    :ivar served: fires when the game server has ended.
    """

    def setUp(self) -> None:
        super().setUp()
        file = Path(self.mktemp()).absolute()
        file.parent.mkdir(parents=True, exist_ok=True)
        self.farm = FarmDatabase(file)

    def start(self) -> None:
        """Start it, and let happen what happens at once."""
        self.make(farm=str(self.farm.file))
        self.served = Deferred.fromCoroutine(self.server.serve())
        self.reactor.settle()

    def started(self) -> None:
        """Start it in a farm that waits for it."""
        self.farm.make()
        self.start()
        self.assertEqual(self.farm.row()[0], "ready")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, heartbeat by heartbeat."""
        self.reactor.pass_time(seconds, step=0.5)


class LifeTest(FarmTestCase):
    """From the announcement to the leave"""

    def test_life(self) -> None:
        """It announces itself when it listens, gives signs of life, and takes its leave."""
        self.started()
        now = self.reactor.seconds()
        self.assertEqual(self.farm.row(), ("ready", "192.0.2.5", 5000, now))
        self.pass_time(4.5)
        self.assertEqual(self.farm.row()[3], now)
        self.pass_time(0.5)
        self.assertEqual(self.farm.row()[3], now + 5)
        self.server.shutdown()
        self.reactor.settle()
        self.successResultOf(self.served)
        self.assertEqual(self.farm.row()[0], "draining")
        self.pass_time(10.0)
        self.assertEqual(self.farm.row()[3], now + 5)

    def test_started_first(self) -> None:
        """It does not say that it is ready before the game has started; if that fails, never."""
        started: Deferred[None] = Deferred()

        class Large(Game):
            async def started(self, server: Any) -> None:
                await started

        self.game = Large()
        self.farm.make()
        self.start()
        self.pass_time(20.0)
        self.assertEqual(self.farm.row()[0], "starting")
        started.errback(ZeroDivisionError())
        self.reactor.settle()
        self.failureResultOf(self.served, ZeroDivisionError)
        self.assertEqual(self.farm.row()[0], "starting")

    def test_stopped_while_starting(self) -> None:
        """One that ends while its game starts never says that it is ready, and nothing of it is left."""
        started: Deferred[None] = Deferred()

        class Large(Game):
            async def started(self, server: Any) -> None:
                await started

        self.game = Large()
        self.farm.make()
        self.start()
        self.server.shutdown()
        started.callback(None)
        self.reactor.settle()
        self.successResultOf(self.served)
        self.assertEqual(self.farm.row()[0], "starting")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_heartbeat_alone(self) -> None:
        """A sign of life changes nothing else: a state and a load set by others stay."""
        self.started()
        self.farm.sql("UPDATE game_servers SET state = 'lost', reported_load = 0.5")
        self.pass_time(5.0)
        self.assertEqual(self.farm.row("state, reported_load"), ("lost", 0.5))

    def test_not_waited_for(self) -> None:
        """When the farm does not wait for it (it was too slow, say) it ends."""
        self.farm.make("closed")
        self.start()
        self.successResultOf(self.served)
        self.assertEqual(self.farm.row()[0], "closed")
        self.assertIn("does not wait for game server s1", self.logged[0])

    def test_trouble(self) -> None:
        """A database that cannot be written is tried again until it can, before and after it is announced; the
        players do not notice. A missing one is not made."""
        self.start()
        self.assertFalse(self.farm.file.exists())
        self.farm.make()
        self.pass_time(5.0)
        self.assertEqual(self.farm.row()[0], "ready")
        proxy, _ = self.let_in()
        self.farm.sql("ALTER TABLE game_servers RENAME TO gone")
        self.pass_time(5.0)
        self.server.reserve(1.0)
        self.pass_time(4000.0)
        self.farm.sql("ALTER TABLE gone RENAME TO game_servers")
        self.pass_time(5.0)
        self.assertAlmostEqual(self.farm.row()[3], self.reactor.seconds(), delta=5.0)
        self.assertFalse(proxy.is_ended)
        proxy.close()
        self.farm.sql("DROP TABLE game_servers")
        self.server.shutdown()
        self.reactor.settle()
        self.successResultOf(self.served)
        self.assertIn("The farm could not be told: no such table: game_servers", self.logged)

    def test_drained(self) -> None:
        """From the moment that it is drained, the farm knows; its heart goes on beating while players are in."""
        self.game.draining = lambda server: None
        self.started()
        proxy, _ = self.let_in()
        self.server.drain()
        self.reactor.settle()
        self.assertEqual(self.farm.row()[0], "draining")
        self.pass_time(5.0)
        self.assertEqual(self.farm.row()[3], self.reactor.seconds())
        self.farm.sql(
            "UPDATE game_servers SET state = 'ready'"
        )  # it was lost, say, and is found again
        self.pass_time(5.0)
        self.assertEqual(self.farm.row()[0], "draining")
        proxy.close()
        self.reactor.settle()
        self.successResultOf(self.served)

    def test_drained_before_ready(self) -> None:
        """One that is drained before the database could be told does not say that it is ready."""
        self.game.draining = lambda server: None
        self.start()
        self.let_in()
        self.server.drain()
        self.farm.make()
        self.pass_time(10.0)
        self.assertEqual(self.farm.row()[0], "starting")

    def test_one_after_the_other(self) -> None:
        """What is told is told in order, one at a time: to have left is not overtaken by the announcement."""
        self.farm.make()
        self.reactor.threads.held = True
        self.start()
        self.server.shutdown()
        self.reactor.settle()
        self.assertEqual(len(self.reactor.threads.work), 1)
        self.reactor.threads.held = False
        self.reactor.threads.run()
        self.reactor.settle()
        self.successResultOf(self.served)
        self.assertEqual(self.farm.row()[0], "draining")


class LoadTest(FarmTestCase):
    """What it says of how busy it is"""

    def load(self) -> Any:
        """The load that the farm sees."""
        (load,) = self.farm.row("reported_load")
        return load

    def test_load(self) -> None:
        """The load goes with the next heartbeat, and is taken back with one."""
        self.started()
        self.server.load = 0.25
        self.assertEqual(self.server.load, 0.25)
        self.assertIsNone(self.load())
        self.pass_time(5.0)
        self.assertEqual(self.load(), 0.25)
        self.server.load = None
        self.pass_time(5.0)
        self.assertIsNone(self.load())

    def test_wrong_load(self) -> None:
        """A load is from 0 to 1."""
        self.started()
        for wrong in (-0.1, 1.1, float("nan"), float("inf")):
            with self.assertRaises(ValueError):
                self.server.load = wrong
        for right in (0, 1, 0.5):
            self.server.load = right

    def test_reserved(self) -> None:
        """A reservation is told at once, and so is its end; the game's own load holds again then."""
        self.started()
        self.server.load = 0.25
        self.server.reserve(2.0)
        self.reactor.settle()
        self.assertEqual((self.load(), self.farm.row()[0]), (1.0, "ready"))
        self.pass_time(2.0)
        self.assertEqual(self.load(), 0.25)

    def test_reserved_before_ready(self) -> None:
        """What is reserved before the farm knows of it is told as soon as it does."""
        self.start()
        self.server.reserve(60.0)
        self.farm.make()
        self.pass_time(10.0)
        self.assertEqual(self.load(), 1.0)

    def test_smaller_capacity(self) -> None:
        """A game server with less room than the farm believes says that it is full when it is; one that the farm counts
        right does not."""
        self.started()
        self.let_in("1")
        self.let_in("2")
        self.pass_time(5.0)
        self.assertIsNone(self.load())
        self.server.capacity = 1
        self.pass_time(5.0)
        self.assertEqual(self.load(), 1.0)

    def test_unwell(self) -> None:
        """While the game says that it is not well, or cannot say, no sign of life is given."""
        now = self.reactor.seconds()
        answers: list[object] = [True, False, ZeroDivisionError(), Deferred()]

        class Weak(Game):
            async def healthy(self) -> object:
                answer = answers.pop(0)
                if isinstance(answer, Exception):
                    raise answer
                return await answer if isinstance(answer, Deferred) else answer

        self.game = Weak()
        self.started()
        wait = answers[2]
        assert isinstance(wait, Deferred)
        self.pass_time(100.0)
        self.assertEqual(self.farm.row()[3], now)
        self.assertEqual(len(self.logged), 1)
        answers.append(True)
        wait.callback(True)
        self.reactor.settle()
        self.assertEqual(self.farm.row()[3], self.reactor.seconds())


class UnlistedTest(FarmTestCase):
    """When its row has gone, or says that it is closed"""

    def setUp(self) -> None:
        super().setUp()
        self.started()

    def remove(self) -> None:
        """Its row goes."""
        self.farm.sql("DELETE FROM game_servers")

    def close(self) -> None:
        """Its row says that it is closed."""
        self.farm.sql("UPDATE game_servers SET state = 'closed'")

    def test_missing_for_a_moment(self) -> None:
        """A row that a proxy writes again, as after the database was deleted, is as good as before."""
        for _ in range(3):
            self.remove()
            self.pass_time(25.0)
            self.assertNoResult(self.served)
            self.farm.sql("INSERT INTO game_servers (id, state) VALUES ('s1', 'ready')")
            self.pass_time(5.0)
        self.assertEqual(self.farm.row()[3], self.reactor.seconds())
        self.let_in()

    def test_missing_for_long(self) -> None:
        """When nobody has written it again for 30 s, nobody knows it, and it ends: nobody is in."""
        self.remove()
        self.pass_time(29.0)
        self.assertNoResult(self.served)
        self.pass_time(1.0)
        self.successResultOf(self.served)
        self.assertIn("no row for game server s1 any more", self.logged[0])

    def test_whole_database_missing_for_long(self) -> None:
        """A database that is gone with the folder it was in is no reason to stay for ever."""
        self.farm.file.unlink()
        self.pass_time(29.0)
        self.assertNoResult(self.served)
        self.pass_time(1.0)
        self.successResultOf(self.served)
        self.assertFalse(self.farm.file.exists())

    def test_missing_with_players(self) -> None:
        """Players whose game server's row is missing play on, and it ends when they have left."""
        proxy, _ = self.let_in()
        self.remove()
        self.pass_time(600.0)
        proxy.send(b"\x10still here")
        self.assertEqual(self.game.happened[-1], ("received", b"\x10still here"))
        self.assertNoResult(self.served)
        proxy.close()
        self.pass_time(5.0)
        self.successResultOf(self.served)

    def test_closed(self) -> None:
        """When its row says closed it ends with the next heartbeat: nobody is in. The row stays as it is."""
        self.close()
        self.pass_time(5.0)
        self.successResultOf(self.served)
        self.assertEqual(self.farm.row()[0], "closed")

    def test_closed_with_load(self) -> None:
        """So does one that reports its load."""
        self.server.load = 0.5
        self.close()
        self.pass_time(5.0)
        self.successResultOf(self.served)
        self.assertEqual(self.farm.row("reported_load"), (None,))

    def test_closed_with_players(self) -> None:
        """When its row says closed nobody else is let in, and it ends when those who are in have left."""
        proxy, _ = self.let_in()
        self.close()
        self.pass_time(5.0)
        late = self.connect("2")
        late.ask()
        self.assertEqual(late.notice(), (REFUSED, "draining"))
        late.close()
        self.assertFalse(proxy.is_ended)
        proxy.close()
        self.pass_time(5.0)
        self.successResultOf(self.served)

    def test_bound(self) -> None:
        """An hour after the farm has given it up it ends, though somebody is in, who is told."""
        for give_up in (self.remove, self.close):
            proxy, _ = self.let_in()
            give_up()
            self.pass_time(3590.0)
            self.assertEqual(proxy.frames(), [])
            self.pass_time(10.0)
            self.assertEqual(proxy.notice(), (CLOSE, "draining"))
            proxy.close()
            self.reactor.settle()
            self.successResultOf(self.served)
            self.farm.sql("DROP TABLE game_servers")
            self.started()

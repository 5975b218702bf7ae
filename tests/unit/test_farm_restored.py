"""What a proxy puts back into the database: after trouble, after a backup, and after it was believed dead."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

from gameproxy.farm import GameFarm
from gameproxy.interfaces import AttemptFailed
from gameproxy.reasons import CloseReason
from gameproxy.simulation.lost_answers import connections_that_lose_answers
from tests.farm_fixture import World, listed
from tests.restored_fixture import ReplacingTestCase


class RestoredTests(ReplacingTestCase):
    def disconnect(self, farm: GameFarm) -> None:
        """As after any failed transaction."""
        pool = farm._store._database._pool
        pool.disconnect(pool.connect())

    def believe_dead(self, world: World, farm: GameFarm) -> None:
        """As another proxy that believes it dead."""
        world.sql("DELETE FROM slots WHERE proxy = ?", farm.proxy)
        world.sql("DELETE FROM proxies WHERE id = ?", farm.proxy)

    def test_full_servers_after_trouble(self) -> None:
        """Sessions on a server without a free slot keep theirs when the database was out of order for a while."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        self.relaying(world, farm)
        self.disconnect(farm)
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual((world.evicted, world.counts("a")), ([], (0, 1, 1, 0)))

    def test_others_after_long_trouble(self) -> None:
        """Who opens the database again after nobody could write to it for long takes no other proxy for dead."""
        world = self.world(listed("a"))
        one, two = world.proxy(), world.proxy()
        self.relaying(world, one)
        self.relaying(world, two)
        world.reactor.pass_time(1.0, 0.25)
        world.reactor.threads.locked = True
        world.reactor.pass_time(20.0, 0.25)
        world.reactor.threads.locked = False
        self.disconnect(one)
        one.ban("nobody", 1.0, "", "test")
        world.reactor.pass_time(8.0, 0.25)
        self.assertEqual((world.counts("a"), world.evicted), ((0, 2, 2, 0), []))

    def test_deleted_under_another_s_servers(self) -> None:
        """The first proxy to make a deleted database again has sessions on another one's servers: all stay."""
        world = self.world()
        keeper = world.proxy()
        first = world.client(keeper)
        world.ready(world.starter.started[0])
        world.reactor.pass_time(1.0, 0.25)
        other = world.proxy()
        self.relaying(world, other)
        keeper.relaying(first.slots[0])
        world.reactor.pass_time(1.0, 0.25)
        self.delete(world)
        other.check_address("192.0.2.1")  # so that it is the first to notice
        world.reactor.pass_time(3.0, 0.25)
        self.assertEqual(world.evicted, [])
        self.assertEqual(world.counts(world.starter.started[0])[1], 2)
        self.assertEqual(len(world.sql("SELECT 1 FROM proxies")), 2)

    def test_deleted_before_the_first_look(self) -> None:
        """A proxy that has taken over a dead one's game server knows it, though the database is deleted at once."""
        world = self.world()
        starter = world.proxy()
        world.client(starter)
        [server] = world.starter.started
        world.reactor.pass_time(1.0, 0.25)
        world.kill(starter)
        heir = world.proxy()
        world.reactor.settle()
        self.delete(world)
        heir.check_address("192.0.2.1")  # so that it notices
        world.reactor.pass_time(3.0, 0.25)
        self.assertEqual(world.sql("SELECT id, proxy FROM game_servers"), [(server, heir.proxy)])

    def test_backup_with_ended_sessions(self) -> None:
        """Slots that a backup brings back, of sessions that are over, are given back."""
        world = self.world(listed("a", capacity=3))
        farm = world.proxy()
        gone, stays = self.relaying(world, farm), self.relaying(world, farm)
        self.back_up(world)
        farm.release(gone.session)
        world.reactor.settle()
        self.put_backup_back(world)
        self.assertEqual(world.sql("SELECT session FROM slots"), [(stays.session,)])
        self.assertEqual((world.counts("a"), world.evicted), ((0, 1, 2, 1), []))

    def test_backup_in_which_others_are_in(self) -> None:
        """Sessions keep their slots though a backup has others there that are over, of the same players too, or has
        them on each other's game servers."""
        world = self.world(
            listed("a", capacity=1), listed("b", capacity=1), listed("c", capacity=1)
        )
        farm = world.proxy()
        gone = self.relaying(world, farm, player="anna")
        first, second = self.relaying(world, farm), self.relaying(world, farm)
        self.assertEqual([gone.server, first.server, second.server], ["a", "b", "c"])
        self.back_up(world)
        with closing(sqlite3.connect(self.folder / "backup.db", isolation_level=None)) as backup:
            # As if they had changed places since.
            backup.execute("UPDATE slots SET server = NULL, state = 'queued' WHERE server = 'b'")
            backup.execute("UPDATE slots SET server = 'b' WHERE server = 'c'")
            backup.execute(
                "UPDATE slots SET server = 'c', state = 'connected' WHERE server IS NULL"
            )
        farm.release(gone.session)
        world.reactor.settle()
        again = self.relaying(world, farm, player="anna")
        self.assertEqual(again.server, "a")
        self.put_backup_back(world)
        world.reactor.pass_time(7.0, 0.25)
        self.assertEqual(world.evicted, [])
        self.assertEqual(
            world.sql("SELECT server, session FROM slots ORDER BY server"),
            [("a", again.session), ("b", first.session), ("c", second.session)],
        )
        self.assertEqual([world.counts(server)[:2] for server in "abc"], [(0, 1)] * 3)

    def test_backup_with_the_player_s_last_session(self) -> None:
        """Who came again since has not been replaced by the session that a backup has, which is over."""
        world = self.world(listed("a", capacity=3))
        farm = world.proxy()
        gone = self.relaying(world, farm, player="anna")
        self.back_up(world)
        farm.release(gone.session)
        again = self.relaying(world, farm, player="anna")
        self.put_backup_back(world)
        world.reactor.pass_time(7.0, 0.25)
        self.assertEqual(world.evicted, [])
        self.assertEqual(world.sql("SELECT session FROM slots"), [(again.session,)])

    def test_backup_with_a_waiting_session(self) -> None:
        """A session that has just been counted and is over hinders nothing when a backup has it in the queue."""
        world = self.world()
        farm = world.proxy()
        client = world.client(farm)
        self.back_up(world)
        world.ready(world.starter.started[0])
        world.reactor.pass_time(1.0, 0.25)
        world.reactor.threads.broken = OSError("no")
        farm.relaying(client.slots[0])
        farm.release(client.session)
        world.reactor.pass_time(0.5, 0.25)
        world.reactor.threads.broken = None
        self.put_backup_back(world)
        world.reactor.pass_time(2.0, 0.25)
        self.assertEqual(world.sql("SELECT session FROM slots"), [])

    def test_backup_copied_over(self) -> None:
        """What an older backup brings is noticed also when it was written into the same file."""
        world = self.world(listed("a", capacity=3))
        farm = world.proxy()
        client = self.relaying(world, farm)
        world.sql(
            "INSERT INTO slots (session, server, proxy, player, address, game, state, queued_at) "
            "VALUES ('old', 'a', ?, 'p', '', 'chess', 'connected', 0)",
            farm.proxy,
        )
        world.sql("UPDATE proxies SET beat = beat - 60")
        self.assertEqual(world.client(farm).server, "a")
        world.reactor.pass_time(1.0)
        self.assertEqual((world.counts("a")[:2], world.evicted), ((1, 1), []))
        farm.release(client.session)

    def test_backup_from_before_relaying(self) -> None:
        """Slots that a backup shows on another server or as not yet relaying are what they are now."""
        world = self.world(listed("a"), listed("b"))
        farm = world.proxy()
        client = world.client(farm)
        self.back_up(world)
        farm.relaying(client.slots[0])
        world.reactor.settle()
        world.sql("UPDATE slots SET server = 'b'")
        self.put_backup_back(world)
        self.assertEqual((world.counts("a"), world.counts("b")), ((0, 1, 1, 0), (0, 0, 0, 0)))
        world.sql("UPDATE slots SET server = 'b'")
        self.back_up(world)
        self.put_backup_back(world)
        self.assertEqual((world.counts("a")[:2], world.counts("b")[:2]), ((0, 1), (0, 0)))

    def test_backup_from_before_a_server_was_ready(self) -> None:
        """A started server that a backup shows as starting is ready as it was, and not stopped for being late."""
        world = self.world()
        farm = world.proxy()
        client = world.client(farm)
        (server,) = world.starter.started
        self.back_up(world)
        world.ready(server)
        world.reactor.pass_time(1.0)
        self.assertEqual(client.server, server)
        farm.relaying(client.slots[0])
        world.reactor.settle()
        self.put_backup_back(world)
        ((state, port, pid),) = world.sql("SELECT state, port, pid FROM game_servers")
        self.assertEqual((state, port, pid), ("ready", 5000, world.starter.pids[server]))
        self.assertEqual(world.counts(server), (0, 1, 1, 0))

    def test_not_let_in_before(self) -> None:
        """Who was not let in by a game server, and waits for another, is not sent there again: neither when the
        database is deleted, nor when a backup has the session on that server still."""
        for lose in (self.delete, self.put_backup_back, self.restore_backup):
            world = self.world()
            farm = world.proxy()
            client = world.client(farm)
            bad = world.starter.started[0]
            world.ready(bad)
            world.reactor.pass_time(7.0, 0.25)
            self.assertEqual(client.server, bad)
            self.back_up(world)
            world.reactor.pass_time(7.0, 0.25)
            failure = AttemptFailed(CloseReason.SERVER_UNREACHABLE, "no answer")
            client.expect(farm.try_another(client.slots[0], failure, client.waiting))
            world.reactor.pass_time(1.0, 0.25)
            lose(world)
            world.reactor.pass_time(3.0, 0.25)
            self.assertEqual((client.has_slot(), client.refusals), (False, []), lose.__name__)
            world.ready(world.starter.started[1])
            world.reactor.pass_time(3.0, 0.25)
            self.assertEqual(client.server, world.starter.started[1], lose.__name__)

    def test_deleted_under_a_start(self) -> None:
        """A game server that was started a moment ago, or just now, has its row again: who waits for it gets there."""
        for pause in (0.0, 0.25):
            world = self.world()
            farm = world.proxy()
            world.reactor.pass_time(0.5, 0.25)
            client = world.client(farm)
            world.reactor.pass_time(pause)
            (server,) = world.starter.started
            self.delete(world)
            world.reactor.pass_time(1.0, 0.25)
            ((state, pid),) = world.sql("SELECT state, pid FROM game_servers WHERE id = ?", server)
            self.assertEqual((state, pid), ("starting", world.starter.pids[server]))
            world.ready(server)
            world.reactor.pass_time(1.0, 0.25)
            self.assertEqual((client.server, world.starter.started), (server, [server]))

    def test_deleted_just_when_a_server_was_ready(self) -> None:
        """A game server on which somebody is, and which its proxy has last seen starting, is ready again as it was, and
        not stopped for being late."""
        world = self.world()
        farm = world.proxy()
        world.reactor.pass_time(0.75, 0.05)
        client = world.client(farm)
        (server,) = world.starter.started
        world.ready(server)
        world.reactor.pass_time(0.1, 0.05)
        farm.relaying(client.slots[0])
        world.reactor.settle()
        self.delete(world)
        for _ in range(15):
            world.reactor.pass_time(5.0, 0.25)
            world.sql("UPDATE game_servers SET heartbeat_at = ?", world.reactor.seconds())
        rows = world.sql("SELECT state, host, port, pid FROM game_servers")
        self.assertEqual(rows, [("ready", "127.0.0.1", 5000, world.starter.pids[server])])
        self.assertEqual(world.counts(server)[:2], (0, 1))
        self.assertEqual((world.processes.signals, world.evicted), ([], []))

    def test_row_lost_before_its_server_ran(self) -> None:
        """The row of a game server that is lost between its making and the start is made again by the start."""
        world = self.world()
        farm = world.proxy()
        start = farm._placement._start
        self.patch(
            farm._placement, "_start", lambda *which: world.reactor.callLater(2.0, start, *which)
        )
        world.client(farm)
        self.delete(world)
        world.reactor.pass_time(1.0, 0.25)
        self.assertEqual(world.starter.started, [])
        world.reactor.pass_time(1.5, 0.25)
        first = world.starter.started[0]
        self.assertEqual(
            world.sql("SELECT state, pid FROM game_servers WHERE id = ?", first),
            [("starting", world.starter.pids[first])],
        )

    def test_backup_restored_in_place(self) -> None:
        """A backup from before a server was started, put into the file that all have open, ends no session, though the
        first that a proxy does with it is to read."""
        world = self.world()
        farm = world.proxy()
        world.reactor.pass_time(1.0, 0.25)
        self.back_up(world)
        world.reactor.pass_time(12.0, 0.25)
        client = world.client(farm)
        (server,) = world.starter.started
        world.ready(server)
        world.reactor.pass_time(1.0, 0.25)
        farm.relaying(client.slots[0])
        world.reactor.pass_time(2.0, 0.25)
        self.restore_backup(world)
        self.assertEqual(
            world.counts(server) if world.sql("SELECT 1 FROM game_servers") else None, None
        )
        world.reactor.pass_time(8.0, 0.25)
        self.assertEqual((world.counts(server)[:2], world.evicted), ((0, 1), []))

    def test_lost_answers(self) -> None:
        """A session that is refused, as its proxy does not hear that its slot was committed, leaves no slot: neither
        when the connection is lost with the answer, nor when it is kept."""
        for code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY):
            world = self.world(listed("a"))
            farm = world.proxy()

            def lose(code: int = code) -> None:
                error = sqlite3.OperationalError("no answer")
                error.sqlite_errorcode = code
                raise error

            answers: list[Callable[[], None]] = [lambda: None]
            farm._store._database._pool.connkw["factory"] = connections_that_lose_answers(
                lambda answers=answers: answers[-1]()
            )
            self.disconnect(farm)
            world.reactor.pass_time(1.0, 0.25)
            answers.append(lose)
            client = world.client(farm)
            answers.pop()
            self.assertEqual((client.reason, world.counts("a")[0]), ("internal", 1), code)
            world.reactor.pass_time(8.0, 0.25)
            self.assertEqual((world.counts("a")[:2], world.evicted), ((0, 0), []), code)

    def test_short_sessions_during_trouble(self) -> None:
        """A session that began to relay and ended while the database was out of order is counted once, and gone."""
        world = self.world(listed("a"))
        farm = world.proxy()
        client = world.client(farm)
        world.reactor.threads.broken = OSError("no")
        farm.relaying(client.slots[0])
        farm.release(client.session)
        world.reactor.pass_time(3.0, 0.25)
        world.reactor.threads.broken = None
        self.disconnect(farm)
        world.reactor.pass_time(3.0, 0.25)
        self.assertEqual(world.counts("a"), (0, 0, 1, 1))

    def test_goes_on_after_a_long_stop(self) -> None:
        """A proxy stopped for longer than its life takes its sessions in again, as far as their slots are free."""
        world = self.world(listed("a", capacity=3))
        stopped, other = world.proxy(), world.proxy()
        first, second = self.relaying(world, stopped), self.relaying(world, stopped)
        world.node(stopped).stop()
        world.reactor.pass_time(14.0, 0.25)
        self.assertEqual(world.counts("a")[1], 2)
        world.reactor.pass_time(3.0, 0.25)
        self.assertEqual(world.counts("a")[1], 0)
        self.relaying(world, other)
        self.relaying(world, other)
        world.node(stopped).go_on()
        world.reactor.pass_time(2.0, 0.25)
        self.assertEqual((world.counts("a")[1], world.evicted), (3, [(second.session, "internal")]))
        stopped.release(second.session)
        stopped.release(first.session)
        world.reactor.settle()
        self.assertEqual(world.counts("a")[:2], (0, 2))
        self.assertEqual(len(world.sql("SELECT id FROM proxies")), 2)

    def test_new_session_at_a_proxy_believed_dead(self) -> None:
        """Who comes to a proxy that was removed meanwhile gets a slot at once, behind those that it had already."""
        world = self.world(listed("a", capacity=2))
        farm = world.proxy()
        self.relaying(world, farm)
        self.believe_dead(world, farm)
        self.assertEqual(world.client(farm).server, "a")
        self.assertEqual(world.counts("a")[:2], (1, 1))

    def test_come_again_elsewhere(self) -> None:
        """Who came again at another proxy, while the first was believed dead, has replaced the first session."""
        for duplicates in ("replace", "refuse"):
            world = self.world(listed("a", capacity=9), duplicates=duplicates)
            farm, other = world.proxy(), world.proxy()
            first = self.relaying(world, farm, player="anna")
            guest = {"player": "guest:bert", "mechanism": "guest"}
            self.relaying(world, farm, **guest)
            self.believe_dead(world, farm)
            self.assertEqual(world.client(other, player="anna").server, "a")
            self.assertEqual(world.client(other, **guest).server, "a")
            world.reactor.pass_time(7.0, 0.25)
            self.assertEqual(world.evicted, [(first.session, "replaced")])

    def test_replaced_before(self) -> None:
        """A session that is being ended does not count as its player's when slots are put back."""
        world = self.world(listed("a", capacity=9))
        farm = world.proxy()
        first = self.relaying(world, farm, player="anna")
        self.relaying(world, farm, player="anna")
        self.believe_dead(world, farm)
        world.reactor.pass_time(7.0, 0.25)
        self.assertEqual(world.evicted, [(first.session, "replaced")])
        self.assertEqual(world.counts("a")[1], 2)

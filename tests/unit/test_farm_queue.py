"""Who waits, for what, and how it ends."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm.bans import Bans
from gameproxy.farm.selection import StrategySelector
from gameproxy.farm.slots import SlotTable
from gameproxy.interfaces import AttemptFailed, Waiting
from gameproxy.reasons import CloseReason
from tests.farm_fixture import Client, World, listed

DIAL = AttemptFailed(CloseReason.SERVER_UNREACHABLE, "connection refused")
FULL = AttemptFailed(CloseReason.REFUSED, "full", busy=True)


class QueueTests(SynchronousTestCase):
    def world(self, *servers: object, **sections: Any) -> World:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        return World(folder / "farm.db", servers=servers, **sections)

    def again(self, client: Client, failure: AttemptFailed) -> None:
        client.expect(client.farm.try_another(client.slots[-1], failure, client.waiting))

    def test_order_of_arrival(self) -> None:
        """Who came first gets the first slot that becomes free; the next moves up and is told."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        first, second, third = (world.client(farm) for _ in range(3))
        self.assertEqual((second.told, third.told), ([("queued", 1)], [("queued", 2)]))
        farm.release(first.session)
        world.reactor.settle()
        self.assertEqual((second.server, third.server), ("a", None))
        self.assertEqual(third.told, [("queued", 2), ("queued", 1)])

    def test_nobody_overtakes(self) -> None:
        """While somebody waits, a slot that has just become free is not for those who come now."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        first, second = world.client(farm), world.client(farm)
        farm.release(first.session)
        late = Client(farm, "late", "chess")
        world.reactor.settle()
        self.assertEqual((second.server, late.server), ("a", None))

    def test_order_over_two_proxies(self) -> None:
        """The queue is one for all proxies: a slot freed at one goes to who waits longest at the other."""
        world = self.world(listed("a", capacity=1))
        one, two = world.proxy(), world.proxy()
        first = world.client(one)
        second, third = world.client(two), world.client(one)
        self.assertEqual((second.told, third.told), ([("queued", 1)], [("queued", 2)]))
        one.release(first.session)
        world.reactor.pass_time(0.05)
        self.assertEqual((second.server, third.server), ("a", None))
        self.assertEqual(third.told[-1], ("queued", 1))

    def test_a_database_that_never_answers(self) -> None:
        """Who hears nothing from the database is told so after a while, and leaves nothing behind when it answers."""
        world = self.world(listed("a"), selection={"queue_timeout": 3.0})
        farm = world.proxy()
        had = world.client(farm)
        world.reactor.threads.held = True
        client = world.client(farm)
        self.again(had, DIAL)
        world.reactor.pass_time(9.0, 0.5)
        self.assertEqual((client.refusals, had.refusals), ([], []))
        world.reactor.pass_time(1.5, 0.5)
        for each in (client, had):
            self.assertEqual((each.reason, each.refusals[0].retry_after), ("internal", 5.0))
        world.reactor.threads.held = False
        world.reactor.threads.run()
        world.reactor.settle()
        self.assertEqual(world.sql("SELECT session FROM slots"), [])
        self.assertEqual(len(client.refusals), 1)

    def test_a_slow_answer_takes_nothing_from_the_waiting(self) -> None:
        """Who waits in the queue is refused by queue_timeout, not by the time that an answer may take."""
        world = self.world(listed("a", capacity=1), selection={"queue_timeout": 30.0})
        farm = world.proxy()
        world.client(farm)
        world.reactor.threads.held = True
        client = world.client(farm)
        world.reactor.pass_time(5.0, 0.5)
        world.reactor.threads.held = False
        world.reactor.threads.run()
        world.reactor.pass_time(29.0, 0.5)
        self.assertEqual((client.told, client.refusals), ([("queued", 1)], []))
        world.reactor.pass_time(2.0, 0.5)
        self.assertEqual(client.reason, "queue_timeout")

    def test_a_fault_on_the_way_to_a_slot(self) -> None:
        """Whatever goes wrong in the proxy, a session that asks is refused, at once or in its turn."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        first, waiting = world.client(farm), world.client(farm)
        world.broken_key = ValueError("no key")
        farm.release(first.session)
        world.reactor.settle()
        now = world.client(farm)
        self.assertEqual((waiting.reason, now.reason), ("internal", "internal"))
        world.reactor.settle()
        self.assertEqual(world.sql("SELECT session FROM slots"), [])
        self.assertGreaterEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_a_start_that_goes_wrong(self) -> None:
        """A start that fails in a way nobody thought of is a failed start too."""
        world = self.world(
            games=[
                {
                    "name": "chess",
                    "command": ["x"],
                    "capacity": 1,
                    "max_servers": 1,
                    "start_attempts": 1,
                }
            ]
        )
        world.starter.broken = ValueError("a fault")
        client = world.client(world.proxy())
        world.reactor.pass_time(1.0, 0.25)
        self.assertEqual(client.reason, "start_failed")
        self.flushLoggedErrors(ValueError)

    def test_who_leaves_costs_the_others_nothing(self) -> None:
        """One who waits and is cancelled hears no more, and those behind move up."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        first, second, third = (world.client(farm) for _ in range(3))
        second.result.cancel()
        farm.release(second.session)
        world.reactor.settle()
        self.assertEqual(third.told[-1], ("queued", 1))
        farm.release(first.session)
        world.reactor.settle()
        self.assertEqual((second.server, third.server), (None, "a"))
        self.assertEqual(world.sql("SELECT session FROM slots"), [(third.session,)])

    def test_cancelled_and_released_before_the_database_answered(self) -> None:
        """A session that goes while its slot is being taken leaves nothing behind."""
        world = self.world(listed("a"))
        farm = world.proxy()
        client = Client(farm, "s", "chess")
        client.result.cancel()
        farm.release("s")
        world.reactor.settle()
        self.assertEqual((client.slots, world.counts("a")), ([], (0, 0, 0, 0)))

    def test_over_before_the_database_answered(self) -> None:
        """A session that is over while its slot is being taken hears nothing of it, whether it was cancelled or not."""
        world = self.world(listed("a"))
        farm = world.proxy()
        client = Client(farm, "s", "chess")
        farm.release("s")
        world.reactor.settle()
        self.assertEqual((client.slots, client.refusals, client.told), ([], [], []))
        self.assertEqual(world.counts("a"), (0, 0, 0, 0))

    def test_cancelled_and_not_yet_released(self) -> None:
        """Who has cancelled hears nothing more of its waiting or its slot; that is free when it is over."""
        world = self.world(listed("a", capacity=1), selection={"queue_timeout": 20.0})
        farm = world.proxy()
        first = world.client(farm)
        waiting, asking = world.client(farm), Client(farm, "s", "chess")
        for client in (waiting, asking):
            client.result.cancel()
            client.refusals.clear()
        farm.release(first.session)
        world.reactor.pass_time(30.0, 0.5)
        for client in (waiting, asking):
            self.assertEqual((client.slots, client.refusals), ([], []))
        self.assertEqual((waiting.told, asking.told), ([("queued", 1)], []))
        self.assertEqual(self.flushLoggedErrors(), [])
        last = world.client(farm)
        for client in (waiting, asking):
            farm.release(client.session)
        world.reactor.settle()
        self.assertEqual(last.server, "a")

    def test_back_in_ones_old_position(self) -> None:
        """Who has to wait again stands before those who came later, and is told so."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        first, second, third = (world.client(farm) for _ in range(3))
        self.again(first, FULL)
        world.reactor.settle()
        self.assertEqual((second.server, first.told), ("a", [("queued", 1)]))
        self.assertEqual(third.told, [("queued", 2)])

    def test_gone_during_a_look(self) -> None:
        """Who leaves while the queue is being served is no trouble to those behind."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        first, second, third = (world.client(farm) for _ in range(3))
        world.reactor.threads.held = True
        farm.release(first.session)
        world.reactor.threads.run()
        world.reactor.settle()
        second.result.cancel()
        farm.release(second.session)
        world.reactor.threads.held = False
        world.reactor.threads.run()
        world.reactor.settle()
        self.assertEqual((second.server, third.server), (None, "a"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_look_without_room_does_not_read_the_queue(self) -> None:
        """However many wait: as long as no server has room, looking whether one has costs the same."""
        steps = []
        for size in (10, 1000):
            world = self.world(listed("a", capacity=1))
            farm = world.proxy()
            world.client(farm)
            with closing(sqlite3.connect(world.path)) as connection:
                connection.executemany(
                    "INSERT INTO slots (session, proxy, player, address, game, state, queued_at) "
                    "VALUES (?, ?, 'p', '', 'chess', 'queued', 0)",
                    [(f"x{number}", farm.proxy) for number in range(size)],
                )
                connection.commit()
                count = 0

                def tick() -> int:
                    nonlocal count
                    count += 1
                    return 0

                table = SlotTable(
                    proxy=farm.proxy,
                    games={},
                    duplicates="replace",
                    queue_size=2000,
                    max_load=1.0,
                    selector=StrategySelector("packed", 1.0, bytes),
                    bans=Bans(),
                    entropy=bytes,
                )
                connection.set_progress_handler(tick, 1)
                self.assertEqual(
                    table.look(connection.cursor(), "chess", (), {}, (), 0.0).served, 0
                )
                connection.set_progress_handler(None, 1)
            steps.append(count)
        self.assertEqual(steps[0], steps[1])

    def test_nothing_is_written_while_nothing_changes(self) -> None:
        """Who waits costs no more writes than the upkeep's looks, of which there are 4 in 3 s, and signs of life."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        world.client(farm)
        world.client(farm)
        writes: list[bool] = []
        world.reactor.threads.before = writes.append
        world.reactor.pass_time(15.0, 0.025)
        self.assertLessEqual(sum(writes), 20 + 5)

    def test_one_look_for_a_long_queue(self) -> None:
        """When there is nothing for one who may be given any server, there is nothing for those behind: nobody asks."""
        picks = []

        class Counting:
            def pick(self, cursor: Any, game: str, excluded: Any = ()) -> str | None:
                picks.append(game)
                row = cursor.execute("SELECT id FROM game_servers WHERE open = 1").fetchone()
                return None if row is None else str(row[0])

        world = self.world(listed("a", capacity=1))
        world.selector = Counting()
        farm = world.proxy()
        clients = [world.client(farm) for _ in range(50)]
        picks.clear()
        farm.release(clients[0].session)
        world.reactor.settle()
        self.assertEqual((clients[1].server, clients[2].server), ("a", None))
        self.assertLess(len(picks), 10)

    def test_queue_full(self) -> None:
        """Beyond queue_size nobody waits: told when to come again, and the ticket is not spent."""
        world = self.world(listed("a", capacity=1), selection={"queue_size": 1})
        farm = world.proxy()
        first, second = world.client(farm), world.client(farm)
        third = world.client(farm, ticket="t")
        self.assertEqual(third.reason, "queue_full")
        self.assertGreater(third.refusals[0].retry_after or 0, 0)
        farm.release(second.session)
        farm.release(third.session)
        world.reactor.settle()
        again = world.client(farm, ticket="t")
        self.assertEqual((first.server, again.told), ("a", [("queued", 1)]))

    def test_no_queue_at_all(self) -> None:
        """With queue_size 0 a free slot is given all the same."""
        world = self.world(listed("a", capacity=1), selection={"queue_size": 0})
        farm = world.proxy()
        first, second = world.client(farm), world.client(farm)
        self.assertEqual((first.server, second.reason), ("a", "queue_full"))

    def test_queue_timeout(self) -> None:
        """Who has waited for queue_timeout is refused, and its position is free at once."""
        world = self.world(listed("a", capacity=1), selection={"queue_timeout": 3.0})
        farm = world.proxy()
        first, second = world.client(farm), world.client(farm)
        world.reactor.pass_time(2.0, 0.1)
        third = world.client(farm)
        world.reactor.pass_time(0.9, 0.1)
        self.assertEqual(second.reason, None)
        world.reactor.pass_time(0.2, 0.1)
        self.assertEqual((second.reason, third.told[-1]), ("queue_timeout", ("queued", 1)))
        self.assertEqual(first.server, "a")

    def test_one_who_cannot_be_served_holds_up_nobody(self) -> None:
        """The first in the queue was turned away by the only server with room: the next gets the slot."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        first, second = world.client(farm), world.client(farm)
        self.again(first, FULL)
        world.reactor.settle()
        self.assertEqual((len(first.slots), second.server), (1, "a"))
        self.assertEqual(first.told, [("queued", 1)])

    def test_room_by_hand(self) -> None:
        """Room that somebody makes by hand is first for those who wait, at the very next look at the farm."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        world.client(farm)
        waiting = world.client(farm)
        world.sql("UPDATE game_servers SET capacity = 2")
        late = world.client(farm)
        self.assertEqual((waiting.server, late.told), ("a", [("queued", 1)]))

    def test_no_server(self) -> None:
        """Where there is no game server and none can be started, nobody waits."""
        world = self.world(listed("a", game="go"))
        self.assertEqual(world.client(world.proxy()).reason, "no_server")

    def test_set_draining_by_hand(self) -> None:
        """A state changed by hand is heeded at the next selection."""
        world = self.world(listed("a"), listed("b"))
        farm = world.proxy()
        world.sql("UPDATE game_servers SET state = 'draining' WHERE id = 'a'")
        self.assertEqual(world.client(farm).server, "b")
        world.sql("UPDATE game_servers SET state = 'draining' WHERE id = 'b'")
        self.assertEqual(world.client(farm).reason, "no_server")

    def test_another_after_a_failed_dial(self) -> None:
        """After a failed dial a session gets another server, and the failed one rests for all."""
        world = self.world(listed("a"), listed("b"))
        farm = world.proxy()
        client = world.client(farm)
        self.again(client, DIAL)
        world.reactor.settle()
        self.assertEqual([slot.server for slot in client.slots], ["a", "b"])
        self.assertEqual((world.counts("a")[0], world.counts("b")[0]), (0, 1))
        self.assertEqual(world.client(farm).server, "b")

    def test_who_waits_is_not_sent_to_one_that_rests(self) -> None:
        """A server that rests is given to nobody, though another has room and the strategy would prefer it."""
        world = self.world(listed("a"), listed("b"), selection={"strategy": "least_connections"})
        farm = world.proxy()
        client = world.client(farm)
        self.again(client, DIAL)
        world.reactor.settle()
        self.assertEqual([slot.server for slot in client.slots], ["a", "b"])
        self.assertEqual(world.client(farm).server, "b")

    def test_nothing_left_to_try(self) -> None:
        """When the last server failed, the session ends with that failure; the next is told when to come again."""
        world = self.world(listed("a"))
        farm = world.proxy()
        client = world.client(farm)
        self.again(client, AttemptFailed(CloseReason.HANDSHAKE_FAILED, "bad MAC"))
        world.reactor.settle()
        self.assertEqual(client.reason, "handshake_failed")
        farm.release(client.session)
        later = world.client(farm)
        self.assertEqual(later.reason, "handshake_failed")
        self.assertAlmostEqual(later.refusals[0].retry_after or 0, 1.0, places=3)
        world.reactor.pass_time(1.0, 0.1)
        self.assertEqual(world.client(farm).server, "a")

    def test_rests_grow_and_end(self) -> None:
        """A server rests 1 s, then 2, up to 60; one session that gets in ends that."""
        world = self.world(listed("a"))
        farm = world.proxy()
        pauses = []
        for _ in range(8):
            client = world.client(farm)
            self.again(client, DIAL)
            world.reactor.settle()
            farm.release(client.session)
            pauses.append(world.client(farm).refusals[0].retry_after or 0)
            world.reactor.pass_time(pauses[-1], pauses[-1])
        self.assertEqual([round(p) for p in pauses], [1, 2, 4, 8, 16, 32, 60, 60])
        client = world.client(farm)
        farm.relaying(client.slots[0])
        farm.release(client.session)
        client = world.client(farm)
        self.again(client, DIAL)
        world.reactor.settle()
        self.assertEqual(round(world.client(farm).refusals[0].retry_after or 0), 1)

    def test_attempts(self) -> None:
        """After ``attempts`` failures no other server is tried."""
        world = self.world(*(listed(name) for name in "abcd"))
        farm = world.proxy()
        client = world.client(farm)
        for _ in range(3):
            self.again(client, DIAL)
            world.reactor.settle()
        self.assertEqual([slot.server for slot in client.slots], ["a", "b", "c"])
        self.assertEqual(client.reason, "server_unreachable")

    def test_all_full(self) -> None:
        """When every server answers full, the session waits and tries once a second until queue_timeout."""
        world = self.world(
            listed("a"), listed("b"), selection={"queue_timeout": 5.0, "attempts": 1}
        )
        farm = world.proxy()
        client = world.client(farm)
        attempts = []
        end = world.reactor.seconds() + 6
        begin = world.reactor.seconds()
        while world.reactor.seconds() < end and client.reason is None:
            if len(client.slots) > len(attempts):
                attempts.append((client.slots[-1].server, round(world.reactor.seconds() - begin)))
                self.again(client, FULL)
            world.reactor.pass_time(0.05, 0.05)
        self.assertEqual(client.reason, "queue_timeout")
        self.assertEqual(attempts[:2], [("a", 0), ("b", 0)])
        for server in "ab":
            self.assertTrue(4 <= len([a for a in attempts if a[0] == server]) <= 6, attempts)
        self.assertIn(("queued", 1), client.told)

    def test_a_selector_of_ones_own(self) -> None:
        """A program's own selector decides, and sees what must not be picked."""

        class Last:
            def pick(self, cursor: Any, game: str, excluded: Any = ()) -> str | None:
                rows = cursor.execute("SELECT id FROM game_servers WHERE open = 1 ORDER BY id DESC")
                return next((row[0] for row in rows if row[0] not in excluded), None)

        world = self.world(listed("a"), listed("b"))
        world.selector = Last()
        client = world.client(world.proxy())
        self.again(client, DIAL)
        world.reactor.settle()
        self.assertEqual([slot.server for slot in client.slots], ["b", "a"])

    def test_all_full_and_the_database_out_of_order(self) -> None:
        """A failed transaction does not make a session forget that it may try full servers again."""
        world = self.world(listed("a"))
        farm = world.proxy()
        client = world.client(farm)
        self.again(client, FULL)
        world.reactor.settle()
        world.reactor.threads.locked = True
        world.reactor.pass_time(5.0, 0.25)
        world.reactor.threads.locked = False
        world.reactor.pass_time(2.0, 0.25)
        self.assertEqual(len(client.slots), 2)

    def test_the_fault_of_one(self) -> None:
        """A waiting session whose callback raises is refused, and does not hold up those behind it."""

        class Faulty(Client):
            def waiting(self, waiting: Waiting) -> None:
                super().waiting(waiting)
                if len(self.told) > 1:
                    raise KeyError("fault")

        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        first, second = world.client(farm), world.client(farm)
        faulty = Faulty(farm, "faulty", "chess")
        last = world.client(farm)
        farm.release(second.session)
        world.reactor.settle()
        self.assertEqual(last.told, [("queued", 3), ("queued", 2), ("queued", 1)])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        farm.release(first.session)
        world.reactor.settle()
        self.assertEqual((faulty.reason, last.server), ("internal", "a"))

    def test_told_again_that_it_waits(self) -> None:
        """A session that waits, gets a slot, and has to wait again is told so again."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        first, second = world.client(farm), world.client(farm)
        farm.release(first.session)
        world.reactor.settle()
        self.again(second, FULL)
        world.reactor.settle()
        self.assertEqual(second.told, [("queued", 1), ("queued", 1)])

    def test_refused_for_good(self) -> None:
        """Another reason of the game server's own comes with its message."""
        world = self.world(listed("a"), selection={"attempts": 1})
        client = world.client(world.proxy())
        self.again(client, AttemptFailed(CloseReason.REFUSED, "members only"))
        self.assertEqual(client.refusals[0].message, "members only")

    def test_failures_during_a_rest_do_not_lengthen_it(self) -> None:
        """Many sessions that fail at the same server at once count as one failure."""
        world = self.world(listed("a", capacity=9))
        farm = world.proxy()
        for client in [world.client(farm) for _ in range(5)]:
            self.again(client, DIAL)
        world.reactor.settle()
        self.assertEqual(round(world.client(farm).refusals[0].retry_after or 0), 1)

    def test_same_random_id_again(self) -> None:
        """A started server gets an id that no other has."""
        game = {"name": "go", "command": ["god"], "capacity": 1, "max_servers": 2}
        worlds = [self.world(games=[game]) for _ in range(3)]
        for number, world in enumerate(worlds):
            farm = world.proxy()
            if number == 2:
                world.sql(
                    "INSERT INTO game_servers (id, game, state, capacity) "
                    "VALUES (?, 'go', 'closed', 1)",
                    worlds[0].starter.started[0],
                )
            world.client(farm, game="go")
        one, same, other = (world.starter.started for world in worlds)
        self.assertEqual((one == same, one == other), (True, False))

    def test_try_another_without_a_slot(self) -> None:
        """A session that is over, or whose row somebody deleted, gets nothing."""
        world = self.world(listed("a"), listed("b"))
        farm = world.proxy()
        client = world.client(farm)
        world.sql("DELETE FROM slots")
        self.again(client, DIAL)
        world.reactor.settle()
        self.assertEqual(client.reason, "internal")
        farm.release(client.session)
        self.again(client, DIAL)
        self.assertEqual(len(client.refusals), 2)
        world.reactor.settle()
        self.assertEqual(world.counts("a"), (0, 0, 0, 0))

    def test_same_session_twice(self) -> None:
        """A session's id is good for one slot."""
        world = self.world(listed("a"))
        farm = world.proxy()
        client = world.client(farm)
        client.expect(farm.acquire(client.request, client.waiting))
        self.assertEqual(client.reason, "internal")
        self.assertEqual(world.counts("a"), (1, 0, 0, 0))

    def test_row_lost_while_waiting(self) -> None:
        """One whose row somebody deleted is refused and waits no longer."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        world.client(farm)
        second = world.client(farm)
        world.sql("DELETE FROM slots WHERE session = ?", second.session)
        world.reactor.pass_time(0.05)
        self.assertEqual(second.reason, "internal")


class StartingTests(SynchronousTestCase):
    """Game servers are started for those who wait."""

    def world(self, **game: Any) -> World:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        chess = {"name": "chess", "command": ["chessd"], "capacity": 2, "max_servers": 3, **game}
        return World(folder / "farm.db", games=[chess])

    def test_started_for_who_waits(self) -> None:
        """The first one who comes starts a server and gets a slot within 50 ms of its readiness."""
        world = self.world()
        farm = world.proxy()
        client = world.client(farm)
        self.assertEqual(client.told, [("starting", 1)])
        (server,) = world.starter.started
        self.assertRegex(server, "^chess-[0-9a-f]{6}$")
        pid = world.starter.pids[server]
        self.assertEqual(
            world.sql("SELECT pid, process_started FROM game_servers"),
            [(pid, f"start of {server}")],
        )
        world.ready(server)
        world.reactor.pass_time(0.05)
        self.assertEqual((client.server, client.slots[0].port), (server, 5000))

    def test_as_many_as_needed(self) -> None:
        """Servers are started for all who wait, by capacity, and no more than max_servers."""
        world = self.world()
        one, two = world.proxy(), world.proxy()
        started = []
        for number in range(9):
            world.client(one if number % 2 else two)
            started.append(len(world.starter.started))
        self.assertEqual(started, [1, 1, 2, 2, 3, 3, 3, 3, 3])

    def test_failed_starts(self) -> None:
        """After start_attempts failures in a row who waited for all of them is refused; who came later waits on."""
        world = self.world(start_attempts=2)
        farm = world.proxy()
        first = world.client(farm)
        world.starter.end(world.starter.started[0])
        world.reactor.settle()
        second = world.client(farm)
        self.assertEqual((first.reason, len(world.starter.started)), (None, 1))
        world.reactor.pass_time(2.0, 0.05)
        self.assertEqual(len(world.starter.started), 2)
        world.starter.end(world.starter.started[1])
        world.reactor.settle()
        self.assertEqual((first.reason, second.reason), ("start_failed", None))
        world.reactor.pass_time(3.0, 0.05)
        world.ready(world.starter.started[2])
        world.reactor.pass_time(0.05)
        self.assertEqual(second.server, world.starter.started[2])
        self.assertEqual(world.sql("SELECT streak, failures FROM starts"), [(0, 2)])

    def test_cannot_be_started_at_all(self) -> None:
        """A command that cannot be run is a failed start too."""
        world = self.world(start_attempts=1)
        world.starter.broken = FileNotFoundError("no chessd")
        client = world.client(world.proxy())
        self.assertEqual(client.reason, "start_failed")
        self.flushLoggedErrors()

    def test_start_timeout(self) -> None:
        """A server that is not ready in start_timeout has failed: it is stopped, at last by force."""
        world = self.world(start_timeout=3.0, start_attempts=1, stop_grace=2.0)
        farm = world.proxy()
        client = world.client(farm)
        world.reactor.pass_time(4.0, 0.05)
        self.assertEqual(client.reason, "start_failed")
        pid = world.starter.pids[world.starter.started[0]]
        self.assertEqual(world.processes.signals, [(pid, 15)])
        world.reactor.pass_time(2.0, 0.05)
        self.assertEqual(world.processes.signals[1:], [(pid, 9)])
        world.ready(world.starter.started[0])
        self.assertEqual(world.sql("SELECT state FROM game_servers"), [("draining",)])
        world.starter.end(world.starter.started[0])
        world.reactor.settle()
        self.assertEqual(world.sql("SELECT state FROM game_servers"), [("closed",)])

    def test_another_server_after_a_failure(self) -> None:
        """When a started server cannot be reached, another is started for the session."""
        world = self.world()
        farm = world.proxy()
        client = world.client(farm)
        world.ready(world.starter.started[0])
        world.reactor.pass_time(0.05)
        client.expect(farm.try_another(client.slots[0], DIAL, client.waiting))
        world.reactor.settle()
        self.assertEqual(len(world.starter.started), 2)
        world.ready(world.starter.started[1])
        world.reactor.pass_time(0.05)
        self.assertEqual(client.server, world.starter.started[1])

    def test_all_servers_failed(self) -> None:
        """When as many servers as may be have failed one session, it ends with that."""
        world = self.world(max_servers=1)
        farm = world.proxy()
        client = world.client(farm)
        world.ready(world.starter.started[0])
        world.reactor.pass_time(0.05)
        client.expect(farm.try_another(client.slots[0], DIAL, client.waiting))
        world.reactor.settle()
        self.assertEqual(client.reason, "server_unreachable")

    def test_max_servers_held_by_draining_ones(self) -> None:
        """Who waits while draining servers hold all places gets a new server when one of them has ended."""
        world = self.world(max_servers=1)
        farm = world.proxy()
        world.client(farm)
        (server,) = world.starter.started
        world.ready(server)
        world.sql("UPDATE game_servers SET state = 'draining'")
        world.reactor.pass_time(0.05)
        late = world.client(farm)
        self.assertEqual((len(world.starter.started), late.told), (1, [("queued", 2)]))
        world.starter.end(server)
        world.reactor.settle()
        self.assertEqual(len(world.starter.started), 2)

    def test_one_start_at_a_time_after_a_failure(self) -> None:
        """After a failed start the next one is alone, however many wait; when it is well the others follow."""
        world = self.world(start_attempts=5)
        farm = world.proxy()
        for _ in range(2):
            world.client(farm)
        world.starter.end(world.starter.started[0])
        for _ in range(4):
            world.client(farm)
        world.reactor.pass_time(3.0, 0.05)
        self.assertEqual(len(world.starter.started), 2)
        world.ready(world.starter.started[1])
        world.reactor.pass_time(1.0, 0.05)
        self.assertEqual(len(world.starter.started), 4)

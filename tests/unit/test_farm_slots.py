"""Slots: taking, counting and giving back."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import GameFarm, registry
from tests.farm_fixture import World, listed

NONSENSE_ROW = (
    "INSERT INTO game_servers (id, game, state, host, port, capacity, reported_load) "
    "VALUES (?, 'chess', 'ready', ?, ?, ?, 0.5)"
)
NONSENSE: dict[str | bytes, tuple[object, object, object]] = {
    "no host": (None, 1, 9),
    "empty host": ("", 1, 9),
    "host of bytes": (b"x", 1, 9),
    "no port": ("127.0.0.1", None, 9),
    "port 0": ("127.0.0.1", 0, 9),
    "port beyond": ("127.0.0.1", 65536, 9),
    "port of words": ("127.0.0.1", "http", 9),
    "half a port": ("127.0.0.1", 80.5, 9),
    "no capacity": ("127.0.0.1", 1, 0),
    "negative capacity": ("127.0.0.1", 1, -1),
    "capacity of words": ("127.0.0.1", 1, "many"),
    b"name of bytes": ("127.0.0.1", 1, 9),
}
"""By id: host, port and capacity."""


class SlotTests(SynchronousTestCase):
    def world(self, *servers: object, **sections: object) -> World:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        return World(folder / "farm.db", servers=servers, **sections)

    def test_a_slot_is_taken_counted_and_given_back(self) -> None:
        """A slot is reserved, then connected, then gone, and the server's row says so each time."""
        world = self.world(listed("a"))
        farm = world.proxy()
        client = world.client(farm)
        self.assertEqual((client.server, client.slots[0].port), ("a", 4001))
        self.assertEqual(world.counts("a"), (1, 0, 0, 0))
        farm.relaying(client.slots[0])
        world.reactor.settle()
        self.assertEqual(world.counts("a"), (0, 1, 1, 0))
        farm.release(client.session)
        farm.release(client.session)
        world.reactor.settle()
        self.assertEqual(world.counts("a"), (0, 0, 1, 1))

    def test_over_capacity_never(self) -> None:
        """No writer, not even a careless one, takes a slot that is not there; nor one on a server that is not there."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        world.client(farm)
        for server in ("a", "nobody"):
            with self.assertRaises(sqlite3.IntegrityError):
                world.sql(
                    "INSERT INTO slots (session, server, proxy, player, address, game, state, "
                    "queued_at) VALUES ('x', ?, 'p', 'p', '', 'chess', 'connected', 0)",
                    server,
                )
        world.sql(
            "INSERT INTO slots (session, proxy, player, address, game, state, queued_at) "
            "VALUES ('x', 'p', 'p', '', 'chess', 'queued', 0)"
        )
        with self.assertRaises(sqlite3.IntegrityError):
            world.sql("UPDATE slots SET server = 'a', state = 'reserved' WHERE session = 'x'")
        self.assertEqual(world.counts("a"), (1, 0, 0, 0))

    def test_rows_that_cannot_be(self) -> None:
        """No writer gives a session two slots, or one in an unknown state, without a server, or while it waits."""
        world = self.world(listed("a", capacity=9))
        client = world.client(world.proxy())
        for session, server, state in (
            (client.session, "a", "reserved"),
            ("x", "a", "odd"),
            ("x", None, "reserved"),
            ("x", "a", "queued"),
        ):
            with self.assertRaises(sqlite3.IntegrityError):
                world.sql(
                    "INSERT INTO slots (session, server, proxy, player, address, game, state, "
                    "queued_at) VALUES (?, ?, 'p', 'p', '', 'chess', ?, 0)",
                    session,
                    server,
                    state,
                )
        self.assertEqual(world.counts("a"), (1, 0, 0, 0))

    def test_a_dead_proxy_is_one_delete(self) -> None:
        """Deleting a proxy's row gives back all its slots, and the counts follow."""
        world = self.world(listed("a", capacity=3))
        farm, other = world.proxy(), world.proxy()
        one, _, three = world.client(farm), world.client(farm), world.client(other)
        farm.relaying(one.slots[0])
        other.relaying(three.slots[0])
        world.reactor.settle()
        self.assertEqual(world.counts("a"), (1, 2, 2, 0))
        connection = sqlite3.connect(world.path)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM proxies WHERE id = ?", (farm.proxy,))
        connection.commit()
        connection.close()
        self.assertEqual(world.counts("a"), (0, 1, 2, 1))

    def test_row_deleted_by_hand(self) -> None:
        """Sessions of a server whose row somebody deleted go on and end; when the row is back it counts them."""
        world = self.world(listed("a", capacity=3))
        farm = world.proxy()
        one, two = world.client(farm), world.client(farm)
        world.sql("DELETE FROM game_servers")
        farm.relaying(one.slots[0])
        farm.release(two.session)
        world.reactor.settle()
        other = world.proxy()
        self.assertEqual(world.counts("a"), (0, 1, 1, 0))
        farm.release(one.session)
        world.reactor.settle()
        self.assertEqual(world.counts("a"), (0, 0, 1, 1))
        self.assertEqual(world.client(other).server, "a")

    def test_nonsense_rows_are_never_selected(self) -> None:
        """Whatever somebody writes into a row, it is not selected, and the others are."""
        world = self.world(listed("good"))
        farm = world.proxy()
        for name, row in NONSENSE.items():
            world.sql(NONSENSE_ROW, name, *row)
        self.assertEqual([world.client(farm).server for _ in range(3)], ["good", "good", None])
        world.reactor.pass_time(2.0, 0.25)
        self.assertEqual(world.sql("SELECT count(*) FROM slots WHERE server = 'good'"), [(2,)])

    def test_nobody_waits_for_nonsense(self) -> None:
        """Who could only get a server whose row is nonsense is refused, and does not wait for what never comes."""
        for name, row in NONSENSE.items():
            world = self.world(listed("other", game="go"))
            farm = world.proxy()
            world.sql(NONSENSE_ROW, name, *row)
            self.assertEqual(world.client(farm).reason, "no_server", name)

    def test_nonsense_in_slots(self) -> None:
        """A waiting session whose row somebody scribbled on does not hold up the queue."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        for scribble in ("rubbish", "7", "[7]"):
            first, second = world.client(farm), world.client(farm)
            world.sql("UPDATE slots SET tried = ? WHERE session = ?", scribble, second.session)
            farm.release(first.session)
            world.reactor.settle()
            self.assertEqual(second.server, "a")
            farm.release(second.session)
            world.reactor.settle()

    def test_tickets_are_good_once(self) -> None:
        """A ticket spent at one proxy is spent at all and for good; one refused for other reasons is not."""
        world = self.world(listed("a", capacity=9))
        one, two = world.proxy(), world.proxy()
        self.assertEqual(world.client(one, ticket="t").server, "a")
        self.assertEqual(world.client(two, ticket="t").reason, "auth_failed")
        one.stop()
        two.stop()
        world.reactor.settle()
        farm = world.proxy()
        self.assertEqual(world.client(farm, ticket="t").reason, "auth_failed")
        self.assertEqual(world.client(farm, game="go", ticket="u").reason, "no_server")
        self.assertEqual(world.client(farm, ticket="u").server, "a")

    def test_duplicates_replace(self) -> None:
        """A second session of a player ends the first; guests of one name do not."""
        world = self.world(listed("a", capacity=9))
        farm = world.proxy()
        first = world.client(farm, player="anna")
        second = world.client(farm, player="anna")
        self.assertEqual((second.server, world.evicted), ("a", [(first.session, "replaced")]))
        for _ in range(2):
            world.client(farm, player="guest:anna", mechanism="guest")
        world.reactor.pass_time(2.0, 0.25)
        self.assertEqual(len(world.evicted), 1)

    def test_duplicates_refuse(self) -> None:
        """With duplicates = refuse the second session is the one that ends, at every proxy, until the first is over."""
        world = self.world(listed("a", capacity=9), auth={"duplicates": "refuse"})
        one, two = world.proxy(), world.proxy()
        first = world.client(one, player="anna")
        self.assertEqual(world.client(two, player="anna", ticket="t").reason, "already_connected")
        one.release(first.session)
        world.reactor.settle()
        self.assertEqual(world.client(two, player="anna", ticket="t").server, "a")
        self.assertEqual(world.evicted, [])

    def test_who_is_being_ended_is_no_duplicate(self) -> None:
        """A session that is being ended keeps its player from nothing, and its end stays what it is."""
        for duplicates in ("refuse", "replace"):
            world = self.world(listed("a", capacity=9), auth={"duplicates": duplicates})
            farm = world.proxy()
            first = world.client(farm, player="anna")
            world.sql("UPDATE slots SET evict = 'kicked'")
            self.assertEqual(world.client(farm, player="anna").server, "a")
            world.reactor.pass_time(1.0, 0.25)
            self.assertEqual(world.evicted, [(first.session, "kicked")])

    def test_who_was_refused_has_nothing_to_give_back(self) -> None:
        """The end of a session that got no slot costs no transaction."""
        world = self.world(listed("a"))
        farm = world.proxy()
        refused = world.client(farm, game="go")
        before = world.reactor.threads.count
        farm.release(refused.session)
        world.reactor.settle()
        self.assertEqual((refused.reason, world.reactor.threads.count), ("no_server", before))

    def test_replaced_while_waiting(self) -> None:
        """A waiting session that was replaced is served no more: its slot goes to the next."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        holder = world.client(farm)
        old, new = world.client(farm, player="anna"), world.client(farm, player="anna")
        farm.release(holder.session)
        world.reactor.settle()
        self.assertEqual((old.server, new.server), (None, "a"))

    def test_stop_gives_everything_back(self) -> None:
        """A proxy that stops takes its slots and itself out of the database."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        client = world.client(farm)
        farm.relaying(client.slots[0])
        world.client(farm)
        farm.stop()
        world.reactor.settle()
        self.assertEqual(world.sql("SELECT * FROM slots"), [])
        self.assertEqual(world.sql("SELECT * FROM proxies"), [])
        self.assertEqual(world.counts("a"), (0, 0, 1, 1))
        self.assertEqual(world.reactor.getDelayedCalls(), [])

    def test_listed_servers_follow_the_configuration(self) -> None:
        """A restart applies what changed in [[servers]]; what is no longer listed is closed; draining stays."""
        world = self.world()
        farm = world.proxy(servers=[listed("a"), listed("b"), listed("c")])
        world.sql("UPDATE game_servers SET state = 'draining' WHERE id = 'b'")
        farm.stop()
        world.reactor.settle()
        world.proxy(servers=[listed("a", capacity=7), listed("b")])
        self.assertEqual(
            world.sql("SELECT id, state, capacity FROM game_servers ORDER BY id"),
            [("a", "ready", 7), ("b", "draining", 2), ("c", "closed", 2)],
        )

    def test_listed_by_another_proxy(self) -> None:
        """Servers that another living proxy lists are none of this one's business."""
        world = self.world()
        world.proxy(servers=[listed("a")])
        world.proxy(servers=[listed("b")])
        self.assertEqual(
            world.sql("SELECT id, state FROM game_servers ORDER BY id"),
            [("a", "ready"), ("b", "ready")],
        )

    def test_idle_servers_retire_only_when_empty(self) -> None:
        """Between the look at an idle server and its retirement somebody may take a slot: then it stays."""
        world = self.world()
        farm = world.proxy()
        world.sql(
            "INSERT INTO game_servers (id, game, state, host, port, capacity) "
            "VALUES ('x', 'chess', 'ready', 'h', 1, 9)"
        )
        client = world.client(farm)
        connection = sqlite3.connect(world.path, isolation_level=None)
        self.addCleanup(connection.close)
        self.assertFalse(registry.retire_server(connection.cursor(), "x", "chess", 0))
        farm.release(client.session)
        world.reactor.settle()
        self.assertFalse(registry.retire_server(connection.cursor(), "x", "chess", 1))
        self.assertTrue(registry.retire_server(connection.cursor(), "x", "chess", 0))

    def test_stats(self) -> None:
        """The farm's sums are what its rows add up to; the rows are there for display."""
        world = self.world(listed("a"), listed("b", game="go"))
        farm = world.proxy()
        one = world.client(farm)
        two = world.client(farm)
        farm.relaying(one.slots[0])
        farm.relaying(two.slots[0])
        farm.release(two.session)
        world.client(farm, game="go")
        for _ in range(2):
            world.client(farm)
        world.reactor.settle()
        self.assertEqual(
            world.result(farm.stats()),
            {
                "queue": {"length": 1},
                "farm": {
                    "servers": {"ready": 2},
                    "connections": 1,
                    "connections_added": 2,
                    "connections_removed": 1,
                    "reserved": 2,
                },
            },
        )
        rows = world.result(farm.servers())
        self.assertEqual([(row["id"], row["connections"]) for row in rows], [("a", 1), ("b", 0)])


class BanTests(SynchronousTestCase):
    def world(self) -> tuple[World, GameFarm]:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        world = World(folder / "farm.db", servers=[listed("a", capacity=99)])
        return world, world.proxy()

    def test_players(self) -> None:
        """A banned player is refused, told for how long, and let in when the ban is over."""
        world, farm = self.world()
        farm.ban("anna", 5.0, "shouting", "kick")
        refused = world.client(farm, player="anna", ticket="t")
        self.assertEqual(refused.reason, "banned")
        self.assertAlmostEqual(refused.refusals[0].retry_after or 0, 5.0)
        world.reactor.pass_time(5.0, 0.25)
        self.assertEqual(world.client(farm, player="anna", ticket="t").server, "a")

    def test_addresses(self) -> None:
        """Addresses are banned one by one or by network, in IPv4 or IPv6, however somebody wrote them."""
        world, farm = self.world()
        for subject in (
            "192.0.2.7",
            "198.51.100.9/24",
            " 2001:DB8::/32 ",
            "::ffff:203.0.113.4",
            "rubbish",
            "x",
        ):
            world.sql("INSERT INTO bans (kind, subject) VALUES ('address', ?)", subject)
        banned = ["192.0.2.7", "198.51.100.200", "2001:db8:1::5", "203.0.113.4", "::ffff:192.0.2.7"]
        free = ["192.0.2.8", "198.51.101.1", "2001:db9::1", "203.0.113.5", "not an ip", ""]
        for address in banned:
            self.assertEqual(world.client(farm, address=address).reason, "banned", address)
            self.assertEqual(world.result(farm.check_address(address)), "banned", address)
        for address in free:
            self.assertEqual(world.client(farm, address=address).server, "a", address)
            self.assertEqual(world.result(farm.check_address(address)), None, address)
        self.assertEqual(world.client(farm, address="192.0.2.7").refusals[0].retry_after, None)

    def test_read_at_every_connect(self) -> None:
        """A ban written or lifted by anybody counts from the next connect on."""
        world, farm = self.world()
        self.assertEqual(world.client(farm, player="anna").server, "a")
        world.sql("INSERT INTO bans (kind, subject) VALUES ('player', 'anna')")
        self.assertEqual(world.client(farm, player="anna").reason, "banned")
        world.sql("UPDATE bans SET expires_at = 1")
        self.assertEqual(world.client(farm, player="anna").server, "a")
        world.sql("UPDATE bans SET expires_at = NULL")
        self.assertEqual(world.client(farm, player="anna").reason, "banned")
        world.sql("DELETE FROM bans")
        self.assertEqual(world.client(farm, player="anna").server, "a")

    def test_everybody(self) -> None:
        """A ban of all addresses is one of none in the other family."""
        world, farm = self.world()
        world.sql("INSERT INTO bans (kind, subject) VALUES ('address', '0.0.0.0/0')")
        self.assertEqual(world.client(farm, address="9.9.9.9").reason, "banned")
        self.assertEqual(world.client(farm, address="2001:db8::1").server, "a")

    def test_bans_of_a_new_database(self) -> None:
        """After the database was replaced the bans are those of the new one."""
        world, farm = self.world()
        world.sql("INSERT INTO bans (kind, subject) VALUES ('player', 'anna')")
        self.assertEqual(world.client(farm, player="anna").reason, "banned")
        for file in world.path.parent.glob("farm.db*"):
            file.unlink()
        world.reactor.pass_time(1.0, 0.25)
        world.sql("INSERT INTO bans (kind, subject) VALUES ('player', 'bert')")
        self.assertEqual(world.client(farm, player="bert").reason, "banned")
        self.assertEqual(world.client(farm, player="anna").server, "a")

    def test_a_shorter_ban_does_not_shorten(self) -> None:
        """Who is banned for long stays so; a longer ban lengthens; one for ever stays for ever."""
        world, farm = self.world()

        def until() -> float | None:
            world.reactor.settle()
            value = world.sql("SELECT expires_at FROM bans")[0][0]
            return None if value is None else float(value - world.reactor.seconds())

        farm.ban("anna", 100.0, "", "")
        farm.ban("anna", 50.0, "", "")
        self.assertEqual(until(), 100.0)
        farm.ban("anna", 200.0, "", "")
        self.assertEqual(until(), 200.0)
        farm.ban_subject("player", "anna", None, "", "")
        farm.ban("anna", 300.0, "", "")
        self.assertEqual(until(), None)


class DatabaseTroubleTests(SynchronousTestCase):
    def world(self, **sections: Any) -> World:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        return World(folder / "farm.db", servers=[listed("a", capacity=2)], **sections)

    def test_out_of_order(self) -> None:
        """New sessions are told to come again soon; running ones are not disturbed; all is counted in the end."""
        world = self.world()
        farm = world.proxy()
        playing, leaving = world.client(farm), world.client(farm)
        farm.relaying(playing.slots[0])
        world.reactor.settle()
        world.reactor.threads.broken = sqlite3.OperationalError(
            "attempt to write a readonly database"
        )
        new = world.client(farm)
        self.assertEqual((new.reason, new.refusals[0].retry_after), ("internal", 5.0))
        self.assertEqual(world.result(farm.check_address("192.0.2.1")), "internal")
        farm.relaying(leaving.slots[0])
        farm.release(leaving.session)
        farm.release(new.session)
        world.reactor.pass_time(10.0, 0.25)
        self.assertEqual((world.counts("a"), world.evicted), ((1, 1, 1, 0), []))
        world.reactor.threads.broken = None
        world.reactor.pass_time(1.0, 0.25)
        self.assertEqual(world.counts("a"), (0, 1, 2, 1))
        self.assertEqual(world.client(farm).server, "a")

    def test_waiting_through_it(self) -> None:
        """Who waits goes on waiting."""
        world = self.world()
        farm = world.proxy()
        first, _, third = (world.client(farm) for _ in range(3))
        world.reactor.threads.broken = sqlite3.OperationalError("disk I/O error")
        farm.release(first.session)
        world.reactor.pass_time(5.0, 0.25)
        self.assertEqual((third.server, third.reason), (None, None))
        world.reactor.threads.broken = None
        world.reactor.pass_time(2.0, 0.25)
        self.assertEqual(third.server, "a")

    def test_deleted(self) -> None:
        """After the database is deleted all is there again by itself: servers, live slots, the queue in its order."""
        chess = {"name": "go", "command": ["god"], "capacity": 1, "max_servers": 1}
        world = self.world(games=[chess])
        farm = world.proxy()
        playing, reserved, third, fourth = (world.client(farm) for _ in range(4))
        farm.relaying(playing.slots[0])
        world.client(farm, game="go")
        (server,) = world.starter.started
        world.ready(server)
        world.reactor.pass_time(2.0, 0.05)
        for file in world.path.parent.glob("farm.db*"):
            file.unlink()
        world.reactor.pass_time(1.0, 0.05)
        self.assertEqual(world.counts("a"), (1, 1, 1, 0))
        self.assertEqual(world.counts(server), (1, 0, 0, 0))
        self.assertEqual(world.evicted, [])
        farm.release(reserved.session)
        world.reactor.settle()
        self.assertEqual((third.server, fourth.server), ("a", None))
        self.assertEqual(world.sql("SELECT count(*) FROM proxies"), [(1,)])
        self.assertEqual(len(world.starter.started), 1)

    def test_newer_database(self) -> None:
        """A proxy does not start on a database of a newer version."""
        world = self.world()
        world.sql("PRAGMA user_version = 99")
        with self.assertRaises(AssertionError):
            world.proxy()

"""What the farm does without being asked: dead proxies, lost and idle servers, bans, replaced sessions."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.config import Config
from gameproxy.farm import registry
from gameproxy.farm.keeper import Standstill
from tests.farm_fixture import World, listed


class UpkeepTests(SynchronousTestCase):
    def world(self, *servers: object, **game: Any) -> World:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        chess = {"name": "chess", "command": ["chessd"], "capacity": 2, "max_servers": 3, **game}
        return World(folder / "farm.db", games=[chess], servers=servers)

    def with_server(self, **game: Any) -> tuple[World, Any, str]:
        """A world, a proxy, and a started server that is ready and empty."""
        world = self.world(**game)
        farm = world.proxy()
        client = world.client(farm)
        server = world.starter.started[0]
        world.ready(server)
        world.reactor.pass_time(0.05)
        farm.release(client.session)
        world.reactor.settle()
        return world, farm, server

    def state(self, world: World, server: str) -> str:
        return str(world.sql("SELECT state FROM game_servers WHERE id = ?", server)[0][0])

    def test_lost_and_back(self) -> None:
        """A heartbeat that stands still for 15 s makes a server lost, a new one ready again; sessions stay."""
        world, farm, server = self.with_server()
        client = world.client(farm)
        farm.relaying(client.slots[0])
        world.reactor.pass_time(14.0, 0.25)
        self.assertEqual(self.state(world, server), "ready")
        world.reactor.pass_time(3.0, 0.25)
        self.assertEqual(self.state(world, server), "lost")
        self.assertEqual((world.counts(server)[1], world.evicted), (1, []))
        world.sql("UPDATE game_servers SET heartbeat_at = 1")
        world.reactor.pass_time(1.0, 0.25)
        self.assertEqual(self.state(world, server), "ready")

    def test_regular_heartbeats(self) -> None:
        """A server whose heartbeat moves stays ready, whatever its clock says."""
        world, _, server = self.with_server(stop_when_idle=1000.0)
        for second in range(60):
            world.reactor.pass_time(1.0, 0.5)
            world.sql("UPDATE game_servers SET heartbeat_at = ?", float(second % 7))
        self.assertEqual(self.state(world, server), "ready")

    def test_lost_server_at_a_new_proxy(self) -> None:
        """A proxy that sees a lost server for the first time does not take that for a new heartbeat."""
        world, farm, server = self.with_server()
        world.reactor.pass_time(17.0, 0.25)
        farm.stop()
        world.proxy()
        world.reactor.pass_time(5.0, 0.25)
        self.assertEqual(self.state(world, server), "lost")

    def test_process_ended(self) -> None:
        """When the process has ended its row is closed, by whoever looks after it."""
        world, farm, server = self.with_server()
        farm.stop()
        world.proxy()
        del world.processes.running[world.starter.pids[server]]
        world.reactor.pass_time(1.0, 0.25)
        self.assertEqual(self.state(world, server), "closed")

    def test_restarted_proxy_takes_its_servers_back(self) -> None:
        """After an orderly stop or a kill the next proxy uses the servers that still run."""
        world, farm, server = self.with_server()
        farm.stop()
        world.reactor.settle()
        again = world.proxy()
        client = world.client(again)
        self.assertEqual(client.server, server)
        self.assertEqual(len(world.starter.started), 1)

    def test_killed_proxy_loses_its_slots_when_it_restarts(self) -> None:
        """Slots of a proxy whose process is gone are free as soon as another proxy starts."""
        world = self.world(listed("a", capacity=1))
        dead = world.proxy()
        client = world.client(dead)
        dead.relaying(client.slots[0])
        world.reactor.settle()
        world.kill(dead)
        farm = world.proxy()
        self.assertEqual(world.counts("a"), (0, 0, 1, 1))
        self.assertEqual(world.client(farm).server, "a")

    def test_proxy_deleted_by_the_shell(self) -> None:
        """Slots go with their proxy's row also when that is deleted by a program that heeds no foreign keys."""
        world = self.world(listed("a", capacity=1))
        dead = world.proxy()
        dead.relaying(world.client(dead).slots[0])
        world.reactor.settle()
        world.kill(dead)
        self.assertEqual(world.sql("PRAGMA foreign_keys"), [(0,)])
        world.sql("DELETE FROM proxies")
        self.assertEqual(world.sql("SELECT 1 FROM slots"), [])
        self.assertEqual(world.counts("a"), (0, 0, 1, 1))

    def test_silent_proxy_loses_its_slots(self) -> None:
        """A proxy that cannot be looked up loses its slots 15 s after its last sign of life."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        world.sql(
            "INSERT INTO proxies VALUES ('far', ?, 77, 'x', 'here far')", world.reactor.seconds()
        )
        world.sql(
            "INSERT INTO slots (session, server, proxy, player, address, game, state, queued_at) "
            "VALUES ('x', 'a', 'far', 'p', '', 'chess', 'connected', 0)"
        )
        world.reactor.pass_time(13.0, 0.25)
        self.assertEqual(world.counts("a")[1], 1)
        world.reactor.pass_time(4.0, 0.25)
        self.assertEqual(world.counts("a")[1], 0)
        self.assertEqual(len(world.sql("SELECT id FROM proxies")), 1)
        farm.stop()

    def test_a_sign_of_life_at_the_last_moment(self) -> None:
        """A proxy that gives a sign of life while its silence is being noted keeps its slots."""
        world = self.world(listed("a", capacity=1))
        farm = world.proxy()
        now = world.reactor.seconds()
        world.sql("INSERT INTO proxies VALUES ('far', ?, 77, 'x', 'here far')", now)
        connection = sqlite3.connect(world.path, isolation_level=None)
        self.addCleanup(connection.close)
        world.sql("UPDATE proxies SET beat = ? WHERE id = 'far'", now + 16.0)
        registry.remove_silent_proxies(connection.cursor(), {"far": now})
        self.assertEqual(len(world.sql("SELECT id FROM proxies")), 2)
        registry.remove_silent_proxies(connection.cursor(), {"far": now + 16.0})
        self.assertEqual(world.sql("SELECT id FROM proxies"), [(farm.proxy,)])

    def test_proxy_swept_away_by_mistake(self) -> None:
        """A living proxy whose row is gone comes back, and its slots with it."""
        world = self.world(listed("a"))
        farm = world.proxy()
        client = world.client(farm)
        farm.relaying(client.slots[0])
        world.reactor.settle()
        connection_rows = world.sql("SELECT count(*) FROM slots")
        world.sql("PRAGMA foreign_keys = ON")
        world.sql("DELETE FROM slots")
        world.sql("DELETE FROM proxies")
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual(world.sql("SELECT count(*) FROM slots"), connection_rows)
        self.assertEqual(world.counts("a")[1], 1)

    def test_no_room_after_coming_back(self) -> None:
        """A session whose slot was given to others meanwhile ends with internal."""
        world = self.world(listed("a", capacity=1))
        farm, other = world.proxy(), world.proxy()
        client = world.client(farm)
        farm.relaying(client.slots[0])
        world.reactor.settle()
        world.sql("DELETE FROM slots")
        world.sql("DELETE FROM proxies WHERE id = ?", farm.proxy)
        self.assertEqual(world.client(other).server, "a")
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual(world.evicted, [(client.session, "internal")])
        self.assertEqual(world.counts("a")[0], 1)

    def test_idle_servers_stop(self) -> None:
        """A server without a slot for stop_when_idle is stopped; one that is used is not."""
        world, farm, server = self.with_server(stop_when_idle=10.0, stop_grace=5.0)
        pid = world.starter.pids[server]
        for beat in range(8):
            client = world.client(farm)
            farm.relaying(client.slots[0])
            farm.release(client.session)
            world.reactor.pass_time(5.0, 0.25)
            world.sql("UPDATE game_servers SET heartbeat_at = ?", beat)
        self.assertEqual((self.state(world, server), world.processes.signals), ("ready", []))
        world.reactor.pass_time(8.0, 0.25)
        self.assertEqual(
            (self.state(world, server), world.processes.signals), ("draining", [(pid, 15)])
        )
        world.starter.end(server)
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual((self.state(world, server), len(world.processes.signals)), ("closed", 1))

    def test_idle_from_the_last_session_on(self) -> None:
        """However long the last session was, a server is idle from its end on; meanwhile nobody tries to retire it."""
        world, farm, server = self.with_server(stop_when_idle=10.0)
        client = world.client(farm)
        farm.relaying(client.slots[0])
        writes: list[bool] = []
        for beat in range(8):
            world.reactor.pass_time(5.0, 0.25)
            world.sql("UPDATE game_servers SET heartbeat_at = ?", beat)
            world.reactor.threads.before = writes.append
        # Its signs of life, and no more.
        self.assertLessEqual(sum(writes), 35 / 5 + 1)
        farm.release(client.session)
        world.reactor.pass_time(9.0, 0.25)
        self.assertEqual(self.state(world, server), "ready")
        world.reactor.pass_time(3.0, 0.25)
        self.assertEqual(self.state(world, server), "draining")

    def test_a_server_that_hangs_is_replaced(self) -> None:
        """A lost server that nobody is on is ended after a minute, and holds no place among max_servers for ever."""
        world, farm, server = self.with_server(max_servers=1, stop_grace=5.0, min_ready=1)
        pid = world.starter.pids[server]
        client = world.client(farm)
        world.reactor.pass_time(80.0, 0.25)
        self.assertEqual((self.state(world, server), world.processes.signals), ("lost", []))
        farm.release(client.session)
        world.reactor.pass_time(7.0, 0.25)
        self.assertEqual(world.processes.signals, [(pid, 15), (pid, 9)])
        world.starter.end(server)
        world.reactor.pass_time(1.0, 0.25)
        self.assertEqual((self.state(world, server), len(world.starter.started)), ("closed", 2))

    def test_a_lost_server_has_a_minute(self) -> None:
        """However long it was idle before: a heartbeat within a minute keeps a lost server."""
        world, _, server = self.with_server(stop_when_idle=1000.0)
        for beat in range(4):
            world.sql("UPDATE game_servers SET heartbeat_at = ?", beat)
            world.reactor.pass_time(55.0, 0.25)
            self.assertEqual((self.state(world, server), world.processes.signals), ("lost", []))

    def test_taken_servers_never_stop(self) -> None:
        """A slot that is only reserved keeps a server too."""
        world, farm, server = self.with_server(stop_when_idle=2.0)
        world.client(farm)
        for beat in range(8):
            world.reactor.pass_time(2.0, 0.25)
            world.sql("UPDATE game_servers SET heartbeat_at = ?", beat)
        self.assertEqual((self.state(world, server), world.processes.signals), ("ready", []))

    def test_min_ready(self) -> None:
        """min_ready servers are started at once, kept when idle, and replaced when they end."""
        world = self.world(min_ready=2, stop_when_idle=2.0)
        world.proxy()
        self.assertEqual(len(world.starter.started), 2)
        for server in world.starter.started:
            world.ready(server)
        for beat in range(5):
            world.reactor.pass_time(2.0, 0.25)
            world.sql("UPDATE game_servers SET heartbeat_at = ?", beat)
        self.assertEqual(world.processes.signals, [])
        world.starter.end(world.starter.started[0])
        world.reactor.pass_time(2.0, 0.25)
        self.assertEqual(len(world.starter.started), 3)

    def test_stop_server(self) -> None:
        """farm stop ends a server: asked first, killed with its group after stop_grace; not a listed one."""
        world, farm, server = self.with_server(stop_grace=3.0)
        pid = world.starter.pids[server]
        done: list[bool] = []
        for name in (server, "nobody"):
            farm.stop_server(name).addCallback(done.append)
        world.reactor.pass_time(2.9, 0.1)
        self.assertEqual((done, world.processes.signals), ([True, False], [(pid, 15)]))
        self.assertEqual(self.state(world, server), "draining")
        world.reactor.pass_time(0.2, 0.1)
        self.assertEqual(world.processes.signals[1:], [(pid, 9)])

    def test_what_a_crashed_server_leaves(self) -> None:
        """When a server's process has ended by itself, what is left of its process group is killed at once."""
        world, _, server = self.with_server()
        pid = world.starter.pids[server]
        world.processes.orphans.add(pid)
        world.starter.end(server)
        world.reactor.settle()
        self.assertEqual(
            (self.state(world, server), world.processes.signals), ("closed", [(pid, 9)])
        )

    def test_what_a_stopping_server_leaves(self) -> None:
        """When the first process of a stopping server has ended, the others have the rest of its grace."""
        world, farm, server = self.with_server(stop_grace=3.0)
        pid = world.starter.pids[server]
        farm.stop_server(server)
        world.reactor.pass_time(1.0, 0.1)
        world.processes.orphans.add(pid)
        world.starter.end(server)
        world.reactor.pass_time(1.9, 0.1)
        self.assertEqual(
            (self.state(world, server), world.processes.signals), ("closed", [(pid, 15)])
        )
        world.reactor.pass_time(0.2, 0.1)
        self.assertEqual(world.processes.signals, [(pid, 15), (pid, 9)])

    def test_what_an_adopted_server_leaves(self) -> None:
        """A proxy that took a server over kills what it leaves if it saw it running, not what has its pid later."""
        world, farm, server = self.with_server()
        pid = world.starter.pids[server]
        world.processes.orphans.add(pid)
        for seen in (False, True):
            farm.stop()
            world.reactor.settle()
            if seen:
                world.processes.running[pid] = f"start of {server}"
                world.sql("UPDATE game_servers SET state = 'ready'")
                farm = world.proxy()
                world.reactor.pass_time(1.0, 0.25)
                del world.processes.running[pid]
            else:
                del world.processes.running[pid]
                farm = world.proxy()
            world.reactor.pass_time(1.0, 0.25)
            self.assertEqual(self.state(world, server), "closed")
            self.assertEqual(world.processes.signals, [(pid, 9)] if seen else [])

    def test_start_and_drain_server(self) -> None:
        """Operators start servers up to max_servers, and drain them."""
        world = self.world(max_servers=1)
        farm = world.proxy()
        results: list[Any] = []
        for game in ("chess", "chess", "go"):
            farm.start_server(game).addCallbacks(
                results.append, lambda f: results.append(str(f.value.reason))
            )
        world.reactor.settle()
        (server,) = world.starter.started
        self.assertEqual(results, [server, "no_server", "unknown_game"])
        world.ready(server)
        farm.drain_server(server).addCallback(results.append)
        farm.drain_server("nobody").addCallback(results.append)
        world.reactor.settle()
        self.assertEqual((results[3:], self.state(world, server)), ([True, False], "draining"))

    def test_start_of_a_dead_proxy(self) -> None:
        """A row in state starting whose proxy died before it could start anything is closed in the end."""
        world = self.world(start_timeout=3.0)
        world.proxy()
        world.sql(
            "INSERT INTO game_servers (id, game, state, capacity, started_at, proxy) "
            "VALUES ('chess-x', 'chess', 'starting', 2, ?, 'dead')",
            world.reactor.seconds(),
        )
        world.reactor.pass_time(5.0, 0.25)
        self.assertEqual(self.state(world, "chess-x"), "closed")

    def test_server_of_another_container(self) -> None:
        """A lost server whose process cannot be looked up is closed after five minutes: it holds no place for ever."""
        world = self.world()
        world.proxy()
        world.sql(
            "INSERT INTO game_servers (id, game, state, host, port, capacity, pid, process_started, place) "
            "VALUES ('chess-x', 'chess', 'lost', '127.0.0.1', 5, 2, 9, 'x', 'here far')"
        )
        world.reactor.pass_time(290.0, 0.75)
        self.assertEqual(self.state(world, "chess-x"), "lost")
        world.reactor.pass_time(20.0, 0.75)
        self.assertEqual(self.state(world, "chess-x"), "closed")

    def test_server_that_only_says_nothing(self) -> None:
        """A lost server whose process is there, and sessions on it, may come back, however late."""
        world, farm, server = self.with_server(stop_when_idle=10_000.0)
        world.client(farm)
        world.reactor.pass_time(400.0, 0.75)
        self.assertEqual(self.state(world, server), "lost")

    def test_bans_end_live_sessions(self) -> None:
        """A player or network banned by anybody loses its sessions within a second, once."""
        world = self.world(listed("a", capacity=9))
        farm = world.proxy()
        anna = world.client(farm, player="anna")
        bert = world.client(farm, player="bert", address="198.51.100.7")
        world.client(farm, player="carl")
        world.sql("INSERT INTO bans (kind, subject) VALUES ('address', '198.51.100.0/24')")
        farm.ban("anna", 60.0, "shouting", "kick")
        world.reactor.pass_time(1.0)
        self.assertEqual(
            sorted(world.evicted), [(anna.session, "banned"), (bert.session, "banned")]
        )
        world.reactor.pass_time(3.0, 0.25)
        self.assertEqual(len(world.evicted), 2)

    def test_kicked_through_the_database(self) -> None:
        """A mark on a slot, made by any process, ends the session with that reason within a second."""
        world = self.world(listed("a"))
        farm = world.proxy()
        client, other = world.client(farm), world.client(farm)
        world.sql("UPDATE slots SET evict = 'kicked' WHERE session = ?", client.session)
        world.sql("UPDATE slots SET evict = 'rubbish' WHERE session = ?", other.session)
        world.reactor.pass_time(1.0)
        self.assertEqual(world.evicted, [(client.session, "kicked"), (other.session, "kicked")])

    def test_replaced_at_another_proxy(self) -> None:
        """A player who comes to another proxy ends the session at the first within a second."""
        world = self.world(listed("a", capacity=9))
        one, two = world.proxy(), world.proxy()
        first = world.client(one, player="anna")
        second = world.client(two, player="anna")
        self.assertEqual((second.server, world.evicted), ("a", []))
        world.reactor.pass_time(1.0)
        self.assertEqual(world.evicted, [(first.session, "replaced")])

    def test_expired_tickets_are_forgotten(self) -> None:
        """Used tickets stay as long as they could be used again, and no longer."""
        world = self.world(listed("a", capacity=9))
        farm = world.proxy()
        world.client(farm, ticket="long")
        world.sql("INSERT INTO used_tickets VALUES ('short', ?)", world.reactor.seconds() + 8)
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual(len(world.sql("SELECT jti FROM used_tickets")), 2)
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual(world.sql("SELECT jti FROM used_tickets"), [("long",)])

    def test_closed_servers_are_forgotten(self) -> None:
        """Rows of servers that closed long ago go; what they counted stays, in one row for each game."""
        world = self.world()
        farm = world.proxy()
        now = world.reactor.seconds()
        before: Any = None
        for turn in range(2):
            rows = [("x", 0, 4000, 0), ("y", 3, 4000, 3700), ("z", 2, 4000, 3000), ("g", 5, 0, 0)]
            for name, added, started, beaten in rows:
                world.sql(
                    "INSERT INTO game_servers (id, game, state, capacity, started_at, heartbeat_at) "
                    "VALUES (?, 'chess', 'closed', 1, ?, ?)",
                    f"{name}{turn}",
                    started and now - started,
                    beaten and now - beaten,
                )
                world.sql(
                    "UPDATE game_servers SET connections_added = ?, connections_removed = ? "
                    "WHERE id = ?",
                    added,
                    added,
                    f"{name}{turn}",
                )
            before = world.result(farm.stats())["farm"]
            world.reactor.pass_time(6.0, 0.25)
        after = world.result(farm.stats())["farm"]
        for name in ("connections", "connections_added", "connections_removed", "reserved"):
            self.assertEqual(after[name], before[name])
        self.assertEqual(after["connections_added"], 20)
        self.assertEqual(
            world.sql("SELECT id, connections_added FROM game_servers ORDER BY id"),
            [("closed chess", 16), ("z0", 2), ("z1", 2)],
        )

    def test_expired_bans_are_forgotten(self) -> None:
        """A ban that is over goes; one for ever, or with an end that is no number, stays."""
        world = self.world(listed("a"))
        farm = world.proxy()
        for subject, seconds in (("short", 2.0), ("long", 60.0), ("ever", None)):
            farm.ban_subject("player", subject, seconds, "", "")
        world.reactor.settle()
        world.sql("INSERT INTO bans (kind, subject, expires_at) VALUES ('player', 'odd', 'x')")
        world.reactor.pass_time(8.0, 0.25)
        subjects = [row[0] for row in world.sql("SELECT subject FROM bans ORDER BY subject")]
        self.assertEqual(subjects, ["ever", "long", "odd"])

    def test_an_idle_proxy_is_quiet(self) -> None:
        """With nobody there, the database is asked at most twice a second."""
        world = self.world(listed("a"))
        world.proxy()
        world.reactor.pass_time(1.0)
        before = world.reactor.threads.count
        world.reactor.pass_time(30.0, 0.25)
        self.assertLessEqual(world.reactor.threads.count - before, 60)

    def test_closed_once(self) -> None:
        """While the database can be read and not written, the ends of game servers do not pile up."""
        world, _, server = self.with_server()
        world.reactor.threads.locked = True
        del world.processes.running[world.starter.pids[server]]
        world.reactor.pass_time(20.0, 0.25)
        self.assertEqual(world.starter.cleaned, [server])
        world.reactor.threads.locked = False
        world.reactor.pass_time(2.0, 0.25)
        self.assertEqual(self.state(world, server), "closed")
        self.flushLoggedErrors()

    def test_start_from_the_future(self) -> None:
        """A start whose time lies ahead, since the clock was set back or it was edited, fails in its time too."""
        for time in ("started_at + 1e6", "NULL"):
            world = self.world(start_timeout=10.0)
            world.client(world.proxy())
            world.sql(f"UPDATE game_servers SET started_at = {time}")
            world.reactor.pass_time(9.0, 0.25)
            self.assertEqual(self.state(world, world.starter.started[0]), "starting")
            world.reactor.pass_time(3.0, 0.25)
            self.assertEqual(self.state(world, world.starter.started[0]), "draining")

    def test_database_out_of_reach_counts_for_nothing(self) -> None:
        """Time in which the proxy could not read the database does not make a server lost."""
        world, _, server = self.with_server()
        world.reactor.pass_time(10.0, 0.25)
        world.reactor.threads.broken = OSError("disk")
        world.reactor.pass_time(30.0, 0.25)
        world.reactor.threads.broken = None
        world.reactor.pass_time(2.0, 0.25)
        self.assertEqual(self.state(world, server), "ready")
        world.reactor.pass_time(8.0, 0.25)
        self.assertEqual(self.state(world, server), "lost")
        self.flushLoggedErrors()

    def test_nobody_is_dead_while_nobody_can_write(self) -> None:
        """When the database is locked for long, no proxy takes another's silence for death."""
        world = self.world(listed("a"))
        one, two = world.proxy(), world.proxy()
        clients = [world.client(farm) for farm in (one, two)]
        for farm, client in zip((one, two), clients, strict=True):
            farm.relaying(client.slots[0])
        world.reactor.pass_time(1.0, 0.25)
        world.reactor.threads.locked = True
        world.reactor.pass_time(40.0, 0.25)
        world.reactor.threads.locked = False
        world.reactor.pass_time(10.0, 0.25)
        self.assertEqual(world.counts("a"), (0, 2, 2, 0))
        self.assertEqual(world.evicted, [])

    def test_a_new_configuration(self) -> None:
        """What a changed configuration says counts from then on; who waits for a server that is new gets it."""
        world = self.world(listed("a", capacity=1, game="go"))
        farm = world.proxy()
        world.client(farm, game="go")
        waiting = world.client(farm, game="go")
        config = Config.model_validate(
            {
                "servers": [listed("b", game="go")],
                "auth": {"duplicates": "refuse"},
                "selection": {"attempts": 1},
            }
        )
        self.assertEqual(world.result(farm.reconfigure(config)), None)
        self.assertEqual(waiting.server, "b")
        self.assertEqual(world.result(farm.start_server("chess")), "unknown_game")
        self.assertEqual(self.state(world, "a"), "draining")
        world.client(farm, game="go", player="anna")
        self.assertEqual(world.client(farm, game="go", player="anna").reason, "already_connected")

    def test_a_server_that_is_no_longer_listed(self) -> None:
        """It drains: who is on it stays, nobody else comes, and it is closed when the last one has left; listed again
        meanwhile it is ready at once. One that was drained by hand stays so."""
        world = self.world(listed("a", game="go"))
        farm = world.proxy()
        inside = world.client(farm, game="go")
        self.assertEqual(inside.server, "a")
        farm.relaying(inside.slots[0])
        for servers, state in (([], "draining"), ([listed("a", game="go")], "ready")):
            others = [listed("b", game="go", capacity=1), *servers]
            farm.reconfigure(Config.model_validate({"servers": others}))
            world.reactor.pass_time(6.0, 0.25)
            self.assertEqual(self.state(world, "a"), state)
        world.sql("UPDATE game_servers SET state = 'draining' WHERE id = 'a'")
        farm.reconfigure(Config.model_validate({"servers": [listed("a", game="go")]}))
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual(self.state(world, "a"), "draining")
        farm.reconfigure(Config.model_validate({"servers": [listed("b", game="go")]}))
        self.assertEqual(world.client(farm, game="go").server, "b")
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual((self.state(world, "a"), world.evicted), ("draining", []))
        farm.release(inside.session)
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual(self.state(world, "a"), "closed")
        self.assertEqual(world.counts("a"), (0, 0, 1, 1))

    def test_a_game_that_goes_as_it_starts(self) -> None:
        """A game server whose row is being made when its game leaves the configuration is started still."""
        world = self.world()
        farm = world.proxy()
        world.reactor.threads.held = True
        asked = farm.start_server("chess")
        farm.reconfigure(Config.model_validate({"servers": [listed("b", game="go")]}))
        world.reactor.threads.held = False
        world.reactor.threads.run()
        server = world.result(asked)
        self.assertEqual(self.state(world, server), "starting")
        self.assertIn(server, world.starter.pids)

    def test_servers_of_a_game_that_is_gone(self) -> None:
        """Servers of a game that the configuration no longer names end when they are idle, as by default."""
        world, farm, server = self.with_server()
        farm.reconfigure(Config.model_validate({"servers": [listed("b", game="go")]}))
        for beat in range(130):
            world.reactor.pass_time(5.0, 0.5)
            world.sql("UPDATE game_servers SET heartbeat_at = ?", beat)
        self.assertEqual(self.state(world, server), "draining")
        self.assertEqual([number for _, number in world.processes.signals[:2]], [15, 9])

    def test_operators(self) -> None:
        """Operators see bans, lift them, and kick players wherever they are."""
        world = self.world(listed("a", capacity=9))
        one, two = world.proxy(), world.proxy()
        here = world.client(one, player="guest:x", mechanism="guest")
        there = world.client(two, player="guest:x", mechanism="guest")
        self.assertEqual(world.result(one.kick("guest:x")), 2)
        world.reactor.pass_time(1.0)
        self.assertEqual(
            sorted(world.evicted), [(here.session, "kicked"), (there.session, "kicked")]
        )
        one.ban_subject("address", "192.0.2.0/24", None, "noise", "operator")
        one.ban("anna", 1.0, "", "")
        world.reactor.pass_time(2.0, 0.25)
        (ban,) = world.result(two.bans())
        self.assertEqual((ban["subject"], ban["reason"]), ("192.0.2.0/24", "noise"))
        self.assertEqual(world.result(two.unban("address", "192.0.2.0/24")), True)
        self.assertEqual(world.result(two.unban("address", "192.0.2.0/24")), False)

    def test_what_cannot_be_removed(self) -> None:
        """The row of a server that has ended is closed also when its key cannot be removed."""
        world, _, server = self.with_server()
        world.starter.unclean = PermissionError("no")
        world.starter.end(server)
        world.reactor.settle()
        self.assertEqual((self.state(world, server), world.starter.cleaned), ("closed", [server]))

    def test_listed_by_one_that_goes_on(self) -> None:
        """A server that a living proxy lists is back in seconds when another that listed it leaves, and a third comes,
        or does not list it any more; what was closed by hand stays closed."""
        world = self.world(listed("a"))
        one, two = world.proxy(), world.proxy()
        two.stop()
        world.reactor.settle()
        three = world.proxy(servers=[listed("c")])
        self.assertEqual(self.state(world, "a"), "closed")
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual(self.state(world, "a"), "ready")
        four = world.proxy()
        four.reconfigure(Config.model_validate({"servers": [listed("c")]}))
        world.reactor.settle()
        self.assertEqual(self.state(world, "a"), "closed")
        world.sql("UPDATE game_servers SET state = 'closed' WHERE id = 'c'")
        world.reactor.pass_time(6.0, 0.25)
        self.assertEqual([self.state(world, server) for server in "ac"], ["ready", "closed"])
        for farm in (one, three):
            farm.stop()

    def test_two_proxies_see_the_end(self) -> None:
        """The end of a server that is noticed twice is one end, and no failed start when it had been ready."""
        world, farm, server = self.with_server()
        del world.processes.running[world.starter.pids[server]]
        world.reactor.pass_time(2.0, 0.25)
        world.starter.end(server)
        world.reactor.settle()
        self.assertEqual(self.state(world, server), "closed")
        self.assertEqual(world.sql("SELECT * FROM starts"), [])
        self.assertEqual(world.starter.cleaned, [server, server])
        self.assertFalse(world.result(farm.stop_server(server)))

    def test_ready_at_the_last_moment(self) -> None:
        """A server that becomes ready while its timeout is being noted is ready."""
        world = self.world(start_timeout=2.0)
        farm = world.proxy()
        client = world.client(farm)
        server = world.starter.started[0]
        began = world.reactor.seconds()

        def before(writes: bool) -> None:
            if writes and world.reactor.seconds() >= began + 2.0:
                world.ready(server)

        world.reactor.threads.before = before
        world.reactor.pass_time(4.0, 0.05)
        self.assertEqual((client.server, self.state(world, server)), (server, "ready"))
        self.assertEqual(world.processes.signals, [])

    def test_stop_while_looking(self) -> None:
        """A proxy that stops while it looks does nothing more about what it sees."""
        world = self.world(listed("a"))
        farm = world.proxy()
        client = world.client(farm)
        world.sql("UPDATE slots SET evict = 'kicked'")
        world.reactor.threads.held = True
        world.reactor.pass_time(1.0, 0.25)
        farm.stop()
        world.reactor.threads.held = False
        world.reactor.threads.run()
        world.reactor.settle()
        self.assertEqual((client.server, world.evicted), ("a", []))
        self.assertEqual(world.reactor.getDelayedCalls(), [])

    def test_stop_with_a_kill_ahead(self) -> None:
        """A proxy that stops leaves nothing armed behind it."""
        world, farm, server = self.with_server()
        farm.stop_server(server)
        world.reactor.settle()
        farm.stop()
        world.reactor.settle()
        self.assertEqual(world.reactor.getDelayedCalls(), [])


class StandstillTests(SynchronousTestCase):
    def test_measures(self) -> None:
        """Time is counted from the first sight, and again from each change; what is absent is forgotten."""
        stand = Standstill()
        self.assertEqual((stand.observe({"a": 1}, 5.0), stand.moved), ({"a": 0.0}, []))
        self.assertEqual((stand.observe({"a": 1}, 5.0), stand.moved), ({"a": 5.0}, []))
        self.assertEqual((stand.observe({"a": 2}, 5.0), stand.moved), ({"a": 0.0}, ["a"]))
        self.assertEqual(stand.observe({}, 5.0), {})
        self.assertEqual((stand.observe({"a": 3}, 5.0), stand.moved), ({"a": 0.0}, []))

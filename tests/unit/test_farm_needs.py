"""As many game servers as are needed are started, and no more: by one transaction, for those who can get a slot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.farm_fixture import World, listed

QUEUED = (
    "INSERT INTO slots (session, proxy, player, address, game, state, queued_at) "
    "VALUES (?, ?, ?, '', 'chess', 'queued', 0)"
)
STARTING = (
    "INSERT INTO game_servers (id, game, state, capacity, started_at, proxy) "
    "VALUES (?, 'chess', 'starting', ?, ?, ?)"
)


class NeedsTests(SynchronousTestCase):
    def world(self, max_load: float = 1.0, servers: Sequence[Any] = (), **game: Any) -> World:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        chess = {"name": "chess", "command": ["chessd"], "capacity": 4, "max_servers": 9, **game}
        return World(
            folder / "farm.db", games=[chess], servers=servers, selection={"max_load": max_load}
        )

    def test_only_room_below_max_load_counts(self) -> None:
        """With max_load = 0.5 a server of 4 takes 2: for 8 who wait, 4 are started, and all 8 get in."""
        world = self.world(max_load=0.5)
        farm = world.proxy()
        clients, started = [], []
        for _ in range(8):
            clients.append(world.client(farm))
            started.append(len(world.starter.started))
        self.assertEqual(started, [1, 1, 2, 2, 3, 3, 4, 4])
        for server in world.starter.started:
            world.ready(server)
        world.reactor.pass_time(0.1)
        self.assertTrue(all(client.has_slot() for client in clients))
        self.assertEqual([world.counts(s)[0] for s in world.starter.started], [2, 2, 2, 2])

    def test_by_one_transaction(self) -> None:
        """Whoever finds more waiting than there will be room for makes all the rows that are missing at once."""
        world = self.world(max_load=0.5)
        farm = world.proxy()
        for number in range(7):
            world.sql(QUEUED, f"x{number}", farm.proxy, f"x{number}")
        starting = []
        run = world.reactor.threads.before

        def before(writes: bool) -> None:
            run(writes)
            starting.append(world.sql("SELECT count(*) FROM game_servers")[0][0])

        world.reactor.threads.before = before
        world.client(farm)
        world.reactor.pass_time(0.1)
        self.assertEqual(sorted(set(starting)), [0, 4])
        self.assertEqual(len(world.starter.started), 4)

    def test_never_more_than_max_servers(self) -> None:
        """However many wait, the one transaction that finds them all makes no more rows than there may be."""
        world = self.world(max_servers=3)
        farm = world.proxy()
        for number in range(40):
            world.sql(QUEUED, f"x{number}", farm.proxy, f"x{number}")
        world.client(farm)
        self.assertEqual(len(world.starter.started), 3)

    def test_chance_lengthens_the_pause(self) -> None:
        """After a failed start chance makes the pause up to a quarter longer, so that farms do not start in step."""
        for chance, pause in ((b"\0", 1.0), (b"\x80", 1.125), (b"\xff", 1.25)):
            world = self.world(start_attempts=9)
            world.entropy = lambda size, chance=chance: chance * size
            farm = world.proxy()
            world.client(farm)
            world.starter.end(world.starter.started[0])
            world.reactor.settle()
            ((until,),) = world.sql("SELECT not_before FROM starts")
            self.assertAlmostEqual(until - world.reactor.seconds(), pause, places=2)

    def test_room_of_those_that_start_already(self) -> None:
        """A server that was started with another capacity, or whose row somebody edited, counts for what it says."""
        world = self.world(max_load=0.5)
        farm = world.proxy()
        now = world.reactor.seconds()
        for server, capacity in (("other", 8), ("nonsense", "many"), ("negative", -8)):
            world.sql(STARTING, server, capacity, now, farm.proxy)
        started = []
        for _ in range(5):
            world.client(farm)
            started.append(len(world.starter.started))
        self.assertEqual(started, [0, 0, 0, 0, 1])

    def test_room_for_one_at_least(self) -> None:
        """However small max_load is: an empty server takes one."""
        world = self.world(max_load=0.01)
        farm = world.proxy()
        started = []
        for _ in range(3):
            world.client(farm)
            started.append(len(world.starter.started))
        self.assertEqual(started, [1, 2, 3])

    def test_nothing_is_started_for_those_who_end(self) -> None:
        """A session that is being ended needs no server, though it is in the queue still."""
        world = self.world(capacity=1)
        farm = world.proxy()
        world.client(farm)
        world.sql("UPDATE slots SET evict = 'kicked'")
        world.client(farm)
        self.assertEqual(len(world.starter.started), 1)

    def test_listed_servers_are_not_started_ones(self) -> None:
        """Servers that run elsewhere take nothing from max_servers and min_ready."""
        world = self.world(servers=[listed("a"), listed("b")], max_servers=2, min_ready=2)
        farm = world.proxy()
        self.assertEqual(len(world.starter.started), 2)
        self.assertEqual(world.result(farm.start_server("chess")), "no_server")


class OpenTests(SynchronousTestCase):
    def test_open_means_room(self) -> None:
        """A program's own selector may pick any server with ``open = 1``: when all are full, sessions wait."""

        class First:
            def pick(self, cursor: Any, game: str, excluded: Any = ()) -> str | None:
                rows = cursor.execute("SELECT id FROM game_servers WHERE open = 1 ORDER BY id")
                return next((row[0] for row in rows if row[0] not in excluded), None)

        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        world = World(folder / "farm.db", servers=[listed("a", capacity=1), listed("b", 1)])
        world.selector = First()
        farm = world.proxy()
        clients = [world.client(farm) for _ in range(3)]
        self.assertEqual([client.server for client in clients], ["a", "b", None])
        self.assertEqual((clients[2].told, clients[2].reason), ([("queued", 1)], None))

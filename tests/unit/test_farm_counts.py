"""gameproxy.farm.counts: the farm in few numbers"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import GameFarm
from gameproxy.farm.counts import FarmCounts, GameCounts, Queue, farm_counts
from tests.farm_fixture import World, listed


class FarmCountsTests(SynchronousTestCase):
    """A farm with a game that is started, and two listed game servers of another."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        chess = {"name": "chess", "command": ["chessd"], "capacity": 2, "max_servers": 2}
        servers = [listed("s1", 2, "go"), listed("s2", 3, "go")]
        self.world = World(folder / "farm.db", games=[chess], servers=servers)
        self.farm: GameFarm = self.world.proxy()

    def counts(self, *games: str) -> FarmCounts:
        now = self.world.reactor.seconds()
        found: FarmCounts = self.world.result(
            self.farm.read(lambda cursor: farm_counts(cursor, games, now))
        )
        return found

    def test_servers_and_slots(self) -> None:
        """Servers by state, and slots: connected, reserved and free on those that are ready."""
        first = self.world.client(self.farm, "go")
        self.world.client(self.farm, "go")
        self.farm.relaying(first.slots[0])
        self.world.reactor.settle()
        self.world.sql("UPDATE game_servers SET state = 'draining' WHERE id = 's2'")
        go = self.counts("go").games["go"]
        self.assertEqual(go.servers, {"ready": 1, "draining": 1})
        self.assertEqual((go.connected, go.reserved), (1, 1))
        on_ready = self.world.sql("SELECT capacity - taken FROM game_servers WHERE id = 's1'")
        self.assertEqual(go.free, on_ready[0][0])
        self.assertEqual(self.counts("go").relayed, 1)

    def test_closed(self) -> None:
        """Those that are closed are nothing any more."""
        self.world.sql("UPDATE game_servers SET state = 'closed' WHERE game = 'go'")
        self.assertEqual(self.counts("go").games, {"go": GameCounts()})

    def test_queue(self) -> None:
        """How many wait for each game, and for how long the first has; and how often a start failed."""
        for _ in range(3):
            self.world.client(self.farm)
            self.world.reactor.advance(2.0)
        chess = self.counts("chess").games["chess"]
        self.assertEqual(chess.queue.waiting, 3)
        self.assertAlmostEqual(chess.queue.oldest, 6.0, delta=0.1)
        self.assertEqual(chess.servers, {"starting": 2})
        self.world.starter.end(self.world.starter.started[0])
        self.world.reactor.settle()
        self.assertEqual(self.counts("chess").games["chess"].failed_starts, 1)

    def test_bans(self) -> None:
        """Bans by kind; not those that are over, nor what is of no kind."""
        self.farm.ban_subject("player", "ann", None, "", "")
        self.farm.ban_subject("player", "bob", 5.0, "", "")
        self.farm.ban_subject("address", "192.0.2.0/24", 60.0, "", "")
        self.world.reactor.settle()
        self.world.sql("INSERT INTO bans (kind, subject) VALUES ('planet', 'mars')")
        self.assertEqual(self.counts().bans, {"player": 2, "address": 1})
        self.world.reactor.rightNow += 6.0
        self.assertEqual(self.counts().bans, {"player": 1, "address": 1})

    def test_games_that_are_asked_for(self) -> None:
        """Each game that is asked for is there; what rows say of others, whoever wrote them, is not."""
        self.world.sql(
            "INSERT INTO game_servers (id, game, state, capacity) VALUES ('x', 'rogue', 'ready', 9)"
        )
        self.world.sql("UPDATE game_servers SET state = 'odd' WHERE id = 's1'")
        counts = self.counts("go", "none")
        self.assertEqual(set(counts.games), {"go", "none"})
        self.assertEqual(counts.games["none"], GameCounts(queue=Queue()))
        self.assertEqual(counts.games["go"].servers, {"ready": 1})
        self.assertEqual(counts.proxies, 1)

    def test_spoiled_rows(self) -> None:
        """Whatever somebody wrote where numbers belong, there are numbers."""
        self.world.client(self.farm)
        self.world.sql("UPDATE slots SET queued_at = 'yesterday'")
        self.world.sql("INSERT OR REPLACE INTO starts (game, streak) VALUES ('chess', 'many')")
        chess = self.counts("chess").games["chess"]
        self.assertEqual((type(chess.queue.oldest), chess.failed_starts), (float, 0))

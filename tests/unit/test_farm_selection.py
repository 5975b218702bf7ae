"""Which game server is selected, and at what cost."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm.selection import QUERIES, StrategySelector
from gameproxy.farm.upgrades import upgrade
from tests.farm_fixture import Client, World, counting_entropy, listed


class SelectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.addCleanup(self.connection.close)
        self.cursor = self.connection.cursor()
        upgrade(self.cursor)

    def add(self, server: str, connections: int, capacity: int = 10, **columns: object) -> None:
        self.cursor.execute(
            "INSERT INTO game_servers (id, game, state, host, port, capacity, reported_load) "
            "VALUES (?, ?, ?, '127.0.0.1', 5000, ?, ?)",
            (
                server,
                columns.get("game", "chess"),
                columns.get("state", "ready"),
                capacity,
                columns.get("load"),
            ),
        )
        self.cursor.execute(
            "UPDATE game_servers SET connections = ? WHERE id = ?", (connections, server)
        )

    def pick(
        self, strategy: str, max_load: float = 1.0, excluded: tuple[str, ...] = ()
    ) -> str | None:
        return StrategySelector(strategy, max_load, counting_entropy()).pick(
            self.cursor, "chess", excluded
        )

    def test_packed(self) -> None:
        """The fullest server with room; of equally full ones the first by id; reported load counts if larger."""
        self.add("b", 5)
        self.add("a", 5)
        self.add("full", 10)
        self.add("empty", 0)
        self.assertEqual(self.pick("packed"), "a")
        self.add("reports", 0, load=0.9)
        self.assertEqual(self.pick("packed"), "reports")
        self.assertEqual(self.pick("packed", excluded=("reports", "a")), "b")

    def test_least_connections(self) -> None:
        """The server with the fewest slots taken, of equals the first by id."""
        self.add("b", 1)
        self.add("a", 1, capacity=2)
        self.add("c", 5, capacity=1000)
        self.assertEqual(self.pick("least_connections"), "a")
        self.add("z", 0)
        self.assertEqual(self.pick("least_connections"), "z")
        self.assertEqual(self.pick("least_connections", excluded=("z", "a")), "b")

    def test_random(self) -> None:
        """Each server that suits is selected now and then, and no other."""
        for name in "abc":
            self.add(name, 0)
        self.add("full", 10)
        selector = StrategySelector("random", 1.0, counting_entropy())
        picks = [selector.pick(self.cursor, "chess") for _ in range(30)]
        self.assertEqual([picks.count(name) for name in "abc"], [10, 10, 10])
        self.assertEqual(self.pick("random", excluded=("a", "b", "c")), None)

    def test_who_suits(self) -> None:
        """Only servers of the game, ready, with room and below max_load."""
        for strategy in ("packed", "least_connections", "random"):
            self.cursor.execute("DELETE FROM game_servers")
            self.add("other", 0, game="go")
            self.add("full", 10)
            self.add("busy", 8)
            self.add("reports", 0, load=0.8)
            for state in ("starting", "draining", "lost", "closed", "rubbish"):
                self.add(state, 0, state=state)
            self.assertEqual(self.pick(strategy, max_load=0.8), None)
            self.add("good", 7)
            self.assertEqual(self.pick(strategy, max_load=0.8), "good")

    def test_load_at_the_limit(self) -> None:
        """A server that reports a load of 1 gets nobody, however much room it has."""
        self.add("a", 0, load=1.0)
        self.assertEqual(self.pick("packed"), None)

    def test_flat_cost(self) -> None:
        """The queries walk an index in the order that they need: no full scan, no sorting."""
        arguments = {"game": "chess", "max_load": 1.0, "excluded": "[]"}
        for strategy, index in (("packed", "open_by_load"), ("least_connections", "open_by_taken")):
            plan = [
                row[3]
                for row in self.cursor.execute(f"EXPLAIN QUERY PLAN {QUERIES[strategy]}", arguments)
            ]
            self.assertTrue(
                plan[0].startswith(f"SEARCH game_servers USING COVERING INDEX {index} (game=")
                or plan[0].startswith(f"SEARCH game_servers USING INDEX {index} (game="),
                plan,
            )
            self.assertFalse([line for line in plan if "SCAN game_servers" in line], plan)
            self.assertFalse([line for line in plan if "TEMP B-TREE" in line], plan)

    def test_flat_work(self) -> None:
        """A farm of 2,000 servers costs no more steps than one of 20."""
        steps = []
        for size in (20, 2000):
            self.cursor.execute("DELETE FROM game_servers")
            for number in range(size):
                self.add(f"s{number:04}", number % 11)
            for strategy in QUERIES:
                count = 0

                def tick() -> int:
                    nonlocal count
                    count += 1
                    return 0

                self.connection.set_progress_handler(tick, 1)
                self.assertIsNotNone(self.pick(strategy))
                self.connection.set_progress_handler(None, 1)
                steps.append(count)
        self.assertLess(max(steps), 200, steps)


class ChanceTests(SynchronousTestCase):
    def names(self) -> list[str | None]:
        """What is drawn in the database's thread: where two sessions are sent, and what two servers are called."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        world = World(
            folder / "farm.db",
            games=[{"name": "chess", "command": ["x"], "capacity": 1, "max_servers": 9}],
            servers=[listed(f"go-{n}", game="go", capacity=9) for n in range(9)],
            selection={"strategy": "random"},
        )
        draws: list[bytes] = []
        source = world.entropy

        def entropy(size: int) -> bytes:
            draws.append(source(size))
            return draws[-1]

        world.entropy = entropy
        farm = world.proxy()
        world.reactor.threads.held = True
        clients = [Client(farm, f"{game}{n}", game) for game in ("go", "chess") for n in "ab"]
        for _ in range(3):
            before = len(draws)
            world.reactor.threads.run()
            self.assertEqual(len(draws), before)
            world.reactor.settle()
        return [clients[0].server, clients[1].server, *world.starter.started]

    def test_threads_share_no_chance(self) -> None:
        """Nothing in the database's thread draws from the source of the reactor's; all is the same in every run."""
        names = self.names()
        self.assertEqual((len(names), None in names), (4, False))
        self.assertEqual(self.names(), names)

"""The strategy ``random``: what it picks suits, each as often as the others, at a cost that does not grow."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import selection
from gameproxy.farm.chance import stream_of
from gameproxy.farm.selection import StrategySelector, room_below
from gameproxy.farm.upgrades import upgrade

MAX_LOAD = 0.8
STATES = ["starting", "ready", "draining", "lost", "closed"]


class Farm:
    """The rows of a farm, and the strategy that picks one of them."""

    def __init__(self, max_load: float = 1.0, seed: bytes = b"seed") -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.cursor = self.connection.cursor()
        upgrade(self.cursor)
        self.made = 0
        self.max_load = max_load
        self.selector = StrategySelector("random", max_load, stream_of(seed))

    def close(self) -> None:
        self.connection.close()

    def add(self, taken: Sequence[int], game: str = "chess") -> None:
        """So many servers of capacity 10, with so many sessions on each."""
        names = [f"s{number:05}" for number in range(self.made, self.made + len(taken))]
        self.made += len(taken)
        self.cursor.execute("BEGIN")
        self.cursor.executemany(
            "INSERT INTO game_servers (id, game, state, host, port, capacity) "
            "VALUES (?, ?, 'ready', '127.0.0.1', 5000, 10)",
            [(name, game) for name in names],
        )
        # A new row starts from what the slots say.
        self.cursor.executemany(
            "UPDATE game_servers SET connections = ? WHERE id = ?", zip(taken, names, strict=True)
        )
        self.cursor.execute("COMMIT")

    def pick(self, excluded: Sequence[str] = ()) -> str | None:
        return self.selector.pick(self.cursor, "chess", excluded)

    def suitable(self, excluded: Sequence[str] = ()) -> list[str]:
        """What suits, by the words of the protocol, said once more."""
        rows = self.cursor.execute(
            "SELECT id, connections + reserved, capacity, reported_load FROM game_servers "
            "WHERE state = 'ready' AND game = 'chess' ORDER BY id"
        )
        return [
            server
            for server, taken, capacity, reported in rows
            if taken < capacity
            and max(reported or 0.0, taken / capacity) < self.max_load
            and server not in excluded
        ]

    def lots(self, game: str) -> list[int]:
        rows = self.cursor.execute(
            "SELECT lot FROM game_servers WHERE game = ? AND lot IS NOT NULL ORDER BY lot", (game,)
        )
        return [row[0] for row in rows]


SERVER = st.integers(0, 24)
CHANGE = st.one_of(
    st.tuples(st.just("state"), SERVER, st.sampled_from(STATES)),
    st.tuples(st.just("connections"), SERVER, st.integers(0, 10)),
    st.tuples(st.just("reported_load"), SERVER, st.sampled_from([None, 0.1, 0.79, 0.8, 1.0])),
    st.tuples(st.just("game"), SERVER, st.sampled_from(["chess", "go"])),
    st.tuples(st.just("port"), SERVER, st.sampled_from([None, 5000])),
)
EXCLUDED = st.lists(SERVER.map(lambda number: f"s{number:05}"), max_size=3)


class ChoiceTests(SynchronousTestCase):
    def farm(self, max_load: float = 1.0, seed: bytes = b"seed") -> Farm:
        farm = Farm(max_load, seed)
        self.addCleanup(farm.close)
        return farm

    def assert_even(self, farm: Farm, suitable: Sequence[str], picks: int) -> None:
        """As even as chance is: chi-square within four standard deviations of what is expected of it."""
        counts = Counter(farm.pick() for _ in range(picks))
        self.assertLessEqual(set(counts), set(suitable))
        expected = picks / len(suitable)
        square = sum((counts[name] - expected) ** 2 / expected for name in suitable)
        freedom = len(suitable) - 1
        self.assertLess(abs(square - freedom), 4 * (2 * freedom) ** 0.5)

    @settings(max_examples=150)
    @given(changes=st.lists(CHANGE, max_size=40), excluded=EXCLUDED, seed=st.binary(max_size=4))
    def test_always_suits(
        self, changes: list[tuple[str, int, object]], excluded: list[str], seed: bytes
    ) -> None:
        """Whatever became of the servers: what is picked suits, and one is picked if any suits."""
        with closing(Farm(MAX_LOAD, seed)) as farm:
            farm.add([number % 11 for number in range(25)])
            for column, number, value in changes:
                farm.cursor.execute(
                    f"UPDATE game_servers SET {column} = ? WHERE id = ?", (value, f"s{number:05}")
                )
            suitable = farm.suitable(excluded)
            picks = {farm.pick(excluded) for _ in range(5)}
            self.assertLessEqual(picks, set(suitable) or {None})

    @settings(max_examples=100)
    @given(changes=st.lists(CHANGE, max_size=60))
    def test_lots(self, changes: list[tuple[str, int, object]]) -> None:
        """The lots of a game's usable servers are 1, 2, 3 and so on, whatever became of them."""
        with closing(Farm()) as farm:
            farm.add([0] * 25)
            for column, number, value in changes:
                farm.cursor.execute(
                    f"UPDATE game_servers SET {column} = ? WHERE id = ?", (value, f"s{number:05}")
                )
                for game in ("chess", "go"):
                    (usable,) = farm.cursor.execute(
                        "SELECT count(*) FROM game_servers WHERE game = ? AND usable = 1", (game,)
                    ).fetchone()
                    self.assertEqual(farm.lots(game), list(range(1, usable + 1)))

    def test_even(self) -> None:
        """Each of many servers that suit is picked as often as the others, however they lie between those that do
        not: after a long gap no more often than in a row."""
        farm = self.farm()
        farm.add([0] * 40 + [10] * 400 + [0, 10, 10] * 60 + [0] * 100 + [10] * 80)
        farm.add([0] * 50, game="go")
        suitable = farm.suitable()
        self.assertEqual(len(suitable), 200)
        self.assert_even(farm, suitable, 6000)

    def test_even_after_comings_and_goings(self) -> None:
        """It is so too after servers came and went: those that are left are as likely as those that are new."""
        farm = self.farm()
        farm.add([0] * 2000)
        farm.cursor.execute("UPDATE game_servers SET state = 'closed' WHERE rowid % 40 <> 7")
        farm.cursor.execute("DELETE FROM game_servers WHERE rowid BETWEEN 300 AND 900")
        farm.add([0] * 60)
        suitable = farm.suitable()
        self.assertEqual(len(suitable), 95)
        self.assert_even(farm, suitable, 4000)

    def test_even_among_few(self) -> None:
        """Where only a few of very many suit, these are as likely as each other."""
        farm = self.farm(MAX_LOAD)
        taken = [8, 9, 10] * 1000
        for number, place in enumerate((3, 4, 5, 1500, 2990)):
            taken[place] = number
        farm.add(taken)
        suitable = farm.suitable()
        self.assertEqual(len(suitable), 5)
        self.assert_even(farm, suitable, 1000)

    def test_the_only_one(self) -> None:
        """The only one of 10,000 that suits is found, wherever it is; and that none does is found out too."""
        farm = self.farm(MAX_LOAD)
        farm.add([8 + number % 3 for number in range(10_000)])
        self.assertEqual(farm.pick(), None)
        for name in ("s00000", "s05000", "s09999"):
            farm.cursor.execute("UPDATE game_servers SET connections = 7 WHERE id = ?", (name,))
            self.assertEqual([farm.pick() for _ in range(5)], [name] * 5)
            self.assertEqual(farm.pick([name]), None)
            farm.cursor.execute("UPDATE game_servers SET connections = 8 WHERE id = ?", (name,))

    def test_draws_that_miss(self) -> None:
        """When no draw meets one that suits, one is picked all the same."""
        self.patch(selection, "DRAWS", 0)
        farm = self.farm()
        farm.add([0] * 50)
        self.assertIn(farm.pick(), farm.suitable())

    def test_lots_edited_to_nonsense(self) -> None:
        """Whatever somebody writes there, a server that suits is picked, and servers come and go."""
        farm = self.farm()
        farm.add([0] * 30)
        for nonsense in (None, "x", b"x", -1, 0, 1.5, 2**63 - 1):
            farm.cursor.execute("UPDATE game_servers SET lot = ?", (nonsense,))
            self.assertIn(farm.pick(), farm.suitable())
            farm.cursor.execute("UPDATE game_servers SET state = 'lost' WHERE id = 's00003'")
            self.assertIn(farm.pick(), farm.suitable())
            farm.cursor.execute("UPDATE game_servers SET state = 'ready' WHERE id = 's00003'")
            self.assertIn(farm.pick(), farm.suitable())

    def test_same_in_every_run(self) -> None:
        """The picks follow from the entropy alone."""

        def picks(seed: bytes) -> list[str | None]:
            farm = self.farm(seed=seed)
            farm.add([number % 11 for number in range(100)])
            return [farm.pick() for _ in range(20)]

        self.assertEqual(picks(b"a"), picks(b"a"))
        self.assertNotEqual(picks(b"a"), picks(b"b"))

    def test_flat_work(self) -> None:
        """What a pick costs does not grow from 100 servers to 10,000; it is all draws at most, when few suit."""
        for taken in ([0], [10] * 19 + [0], [8] * 199 + [7]):
            steps = []
            for size in (100, 10_000):
                farm = self.farm(MAX_LOAD)
                farm.add((taken * size)[: size - 10] + [0] * 10)
                count = 0

                def tick() -> int:
                    nonlocal count
                    count += 1
                    return 0

                picks = 200
                farm.connection.set_progress_handler(tick, 1)
                for _ in range(picks):
                    farm.pick()
                farm.connection.set_progress_handler(None, 1)
                steps.append(count / picks)
            # A draw has about 80 steps; a walk over all servers would have 100,000 and more.
            self.assertLess(steps[1], 100 * selection.DRAWS, steps)
            if taken == [0]:
                self.assertLess(steps[1], 1.2 * steps[0])

    def test_indexes(self) -> None:
        """Each of its queries goes straight to the rows of an index that it needs."""
        farm = self.farm()
        arguments = {"game": "chess", "max_load": 1.0, "excluded": "[]", "lot": 1}
        for query, index in (
            (selection._SOME, "open_by_load (game="),
            (selection._LOTS, "servers_by_lot (game="),
            (selection._LOT, "servers_by_lot (game=? AND lot="),
        ):
            plan = [row[3] for row in farm.cursor.execute(f"EXPLAIN QUERY PLAN {query}", arguments)]
            self.assertTrue(any(index in line for line in plan), plan)
            self.assertFalse([line for line in plan if "SCAN game_servers" in line], plan)
            self.assertFalse([line for line in plan if "TEMP B-TREE" in line], plan)


class RoomTests(SynchronousTestCase):
    @given(max_load=st.floats(0.0, 1.0, exclude_min=True), capacity=st.integers(-3, 300))
    def test_room(self, max_load: float, capacity: int) -> None:
        """As many as are given slots one after the other, while the load is below max_load."""
        taken = 0
        while taken < capacity and taken * 1.0 / capacity < max_load:
            taken += 1
        self.assertEqual(room_below(max_load, capacity), taken)

    def test_rounding(self) -> None:
        """Hundredths, which have no exact value, are rounded to nobody's cost."""
        for hundredth in range(1, 101):
            self.assertEqual(room_below(hundredth / 100, 100), hundredth)

"""gameproxy.arena.sight and gameproxy.arena.sense"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.arena.field import HEADINGS, STANDING, TILE, Won
from gameproxy.arena.frames import (
    ArenaFrame,
    BadFrame,
    Input,
    Joined,
    Seen,
    Snapshot,
    encode_arena,
    encode_left,
    encode_won,
)
from gameproxy.arena.sense import choose, way_to
from gameproxy.arena.sight import UNDER_WAY_MAX, Sight
from gameproxy.arena.walls import ARENA, Tile, Walls

TAGGER, SAFE = 0x10, 0x40
EAST, SOUTH_EAST, SOUTH, WEST, NORTH_WEST, NORTH = 1, 2, 3, 5, 6, 7


def at(column: int, row: int, id: int = 1, look: int = 0, sequence: int = 0) -> Seen:
    """A player in the middle of a tile."""
    return Seen(id, column * TILE + TILE // 2, row * TILE + TILE // 2, look, 0, sequence)


class SightTests(SynchronousTestCase):
    """What a client knows."""

    def setUp(self) -> None:
        self.now = 1000.0
        self.round_trips: list[float] = []
        self.sight = Sight(lambda: self.now, self.round_trips.append)
        self.tick = 0

    def begin(self) -> None:
        """The settings and the client's own name have come."""
        self.sight.settings(encode_arena(ARENA))
        self.sight.received(Joined(1, True, "guest:ana").encode())

    def see(
        self,
        *players: Seen,
        sequence: int = 0,
        tick: int | None = None,
        coins: Sequence[Tile] = (),
    ) -> None:
        """A snapshot comes; without players: of the client's own, at 2, 2."""
        self.tick = self.tick + 1 if tick is None else tick
        seen = players or (at(2, 2, sequence=sequence),)
        self.sight.received(Snapshot(self.tick, 9, seen, tuple(coins)).encode())

    def refuses(self, body: bytes, why: str) -> None:
        self.assertIn(why, str(self.assertRaises(BadFrame, self.sight.received, body)))

    def test_knows(self) -> None:
        """It knows the walls, the names, its own player, and how all stands."""
        self.assertIsNone(self.sight.self_seen)
        self.begin()
        self.assertIs(
            self.sight.received(Joined(2, False, "guest:ben").encode()), ArenaFrame.JOINED
        )
        self.see(at(3, 3, id=2), at(2, 2), coins=[Tile(5, 5)])
        self.assertEqual((self.sight.walls, self.sight.me), (ARENA, 1))
        self.assertEqual(self.sight.names, {1: "guest:ana", 2: "guest:ben"})
        self.assertEqual(self.sight.self_seen, at(2, 2))
        self.sight.received(encode_left(2))
        self.assertEqual(self.sight.names, {1: "guest:ana"})

    def test_won(self) -> None:
        """It knows who has won, also after the winner has left."""
        self.begin()
        self.sight.received(Joined(2, False, "guest:ben").encode())
        self.sight.received(encode_won(Won(2, 7)))
        self.sight.received(encode_left(2))
        self.assertEqual(self.sight.last_won, (Won(2, 7), "guest:ben"))

    def test_input(self) -> None:
        """Inputs are numbered from 1, and after 65535 comes 0."""
        self.assertEqual(self.sight.input(EAST), Input(1, EAST).encode())
        for _ in range(0xFFFE):
            self.sight.input(EAST)
        self.assertEqual(self.sight.input(SOUTH, True), Input(0, SOUTH, True).encode())

    def test_round_trip(self) -> None:
        """A round trip is from the input that was heeded last to the first snapshot that says so."""
        self.begin()
        self.see()
        for _ in range(3):
            self.sight.input(EAST)
            self.now += 0.5
        self.see(sequence=2)
        self.now += 1
        self.see(sequence=2)
        self.assertEqual((self.round_trips, self.sight.round_trip), ([1.0], 1.0))
        self.see(sequence=3)
        self.assertEqual(self.round_trips, [1.0, 1.5])

    def test_round_trip_around(self) -> None:
        """So it is when the numbers begin again."""
        self.begin()
        for number in range(1, 0x10002):
            self.sight.input(EAST)
            self.see(sequence=number & 0xFFFF)
        self.assertEqual(len(self.round_trips), 0x10001)

    def test_long_silence(self) -> None:
        """An input that was sent too long ago gives no round trip, and is not held against the game server."""
        self.begin()
        for _ in range(UNDER_WAY_MAX + 5):
            self.sight.input(EAST)
        self.see(sequence=5)
        self.assertEqual(self.round_trips, [])
        self.see(sequence=6)
        self.assertEqual(len(self.round_trips), 1)

    def test_ticks(self) -> None:
        """Ticks rise, and begin again at 0; one that comes twice or earlier cannot be."""
        self.begin()
        self.see(tick=0xFFFFFFFE)
        self.see(tick=3)
        for tick in (3, 2, 0xFFFFFFFF):
            self.refuses(Snapshot(tick, 9, (at(2, 2),), ()).encode(), f"tick {tick} after tick 3")

    def test_impossible(self) -> None:
        """What cannot be is not believed, and it is said why."""
        own = at(2, 2)
        self.refuses(Snapshot(1, 9, (own,), ()).encode(), "a snapshot before the settings")
        self.begin()
        for players, coins, why in (
            ((), (), "a snapshot without the one who gets it"),
            ((own, at(3, 3, id=7)), (), "nobody knows player 7"),
            ((at(0, 2),), (), "player 1 is in a wall"),
            ((Seen(1, 0xFFFF, 0xFFFF, 0, 0, 0),), (), "player 1 is in a wall"),
            ((own,), (Tile(4, 3),), "a coin is in a wall"),
            ((own,), (Tile(200, 3),), "a coin is in a wall"),
            ((at(2, 2, sequence=1),), (), "input 1 was heeded, which has not been sent"),
        ):
            self.refuses(Snapshot(1, 9, players, coins).encode(), why)
            self.setUp()
            self.begin()
        self.refuses(Joined(1, False, "ben").encode(), "player 1 comes in twice")
        self.refuses(Joined(2, True, "ben").encode(), "player 2 comes in twice")
        self.refuses(encode_left(2), "nobody knows player 2")
        self.refuses(encode_won(Won(2, 1)), "nobody knows player 2")
        self.refuses(Input(1, 1).encode(), "a game server does not send INPUT")
        self.refuses(b"", "nothing")
        self.assertRaises(BadFrame, self.sight.settings, b"")


class SenseTests(SynchronousTestCase):
    """How bots decide."""

    def choose(self, me: Seen, *others: Seen, coins: Sequence[Tile] = ()) -> tuple[int, bool]:
        return choose(ARENA, Snapshot(1, 9, (*others, me), tuple(coins)), me)

    def test_nearest_coin(self) -> None:
        """A bot runs to the nearest coin."""
        coins = [Tile(8, 2), Tile(2, 6), Tile(20, 18)]
        self.assertEqual(self.choose(at(2, 2), coins=coins), (SOUTH, False))
        self.assertEqual(self.choose(at(5, 2), coins=coins), (EAST, False))

    def test_coin_at_hand(self) -> None:
        """It runs to a coin in its own tile, or in the next, until that is near enough."""
        me = at(2, 2)
        self.assertEqual(self.choose(me, coins=[Tile(3, 3)]), (SOUTH_EAST, False))
        aside = me._replace(x=me.x - 100)
        self.assertEqual(self.choose(aside, coins=[Tile(2, 2)]), (EAST, False))
        self.assertEqual(self.choose(me, coins=[Tile(2, 2)]), (STANDING, False))

    def test_around_walls(self) -> None:
        """It runs around walls, and past their corners straight on."""
        self.assertEqual(self.choose(at(5, 4), coins=[Tile(3, 4)]), (SOUTH, False))
        self.assertEqual(self.choose(at(3, 2), coins=[Tile(4, 2)]), (EAST, False))
        first, goal = way_to(ARENA, Tile(3, 3), {Tile(4, 2)}) or ()
        self.assertEqual((first, goal), (Tile(3, 2), Tile(4, 2)))

    def test_arrives(self) -> None:
        """From everywhere, the way to a coin leads there, from tile to next tile."""
        goal = Tile(24, 4)
        for start in ARENA.floor:
            tile, steps = start, 0
            while tile != goal:
                way = way_to(ARENA, tile, {goal})
                assert way is not None
                self.assertEqual(way[-1], goal)
                self.assertFalse(ARENA.is_wall(*way[0]))
                tile, steps = way[0], steps + 1
                self.assertLess(steps, 40)

    def test_nothing_to_do(self) -> None:
        """Without coins, or without a way, it stands."""
        self.assertEqual(self.choose(at(2, 2)), (STANDING, False))
        cells = Walls(["#####", "#.#.#", "#####"])
        self.assertIsNone(way_to(cells, Tile(1, 1), {Tile(3, 1)}))

    def test_flees(self) -> None:
        """It runs away from a tagger who is near, though a coin lies there, and dashes if it is very near."""
        coins = [Tile(6, 8)]
        for tagger, dashes in ((5, False), (8, True)):
            heading, dash = self.choose(at(9, 6), at(tagger, 6, id=2, look=TAGGER), coins=coins)
            self.assertEqual((HEADINGS[heading][0], dash), (1, dashes))

    def test_brave(self) -> None:
        """It does not run from a tagger who is far, nor while nobody can tag it, nor from another player."""
        coins = [Tile(9, 7)]
        for me, other in (
            (at(9, 6), at(2, 6, id=2, look=TAGGER)),
            (at(9, 6, look=SAFE), at(9, 5, id=2, look=TAGGER)),
            (at(9, 6), at(9, 5, id=2)),
        ):
            self.assertEqual(self.choose(me, other, coins=coins), (SOUTH, False))

    def test_flees_in_a_corner(self) -> None:
        """In a corner it runs along a wall, and not into it."""
        heading, _ = self.choose(at(1, 1), at(3, 2, id=2, look=TAGGER))
        column, row = HEADINGS[heading]
        self.assertFalse(ARENA.is_wall(1 + column, 1 + row))
        cell = Walls(["###", "#.#", "###"])
        me, tagger = at(1, 1), at(1, 1, id=2, look=TAGGER)
        self.assertEqual(choose(cell, Snapshot(1, 9, (me, tagger), ()), me), (STANDING, True))

    def test_chases(self) -> None:
        """Who is it runs after the nearest player who can be tagged, and dashes when that is near; coins are nothing
        to it."""
        me = at(9, 6, look=TAGGER)
        far, near = at(9, 1, id=2), at(13, 6, id=3)
        coins = [Tile(9, 7)]
        self.assertEqual(self.choose(me, far, near, coins=coins), (EAST, False))
        self.assertEqual(self.choose(me, far, at(11, 6, id=3)), (EAST, True))
        self.assertEqual(self.choose(me, far, at(10, 6, id=3, look=SAFE)), (NORTH, False))
        self.assertEqual(self.choose(me, far, at(10, 6, id=3, look=TAGGER)), (NORTH, False))
        self.assertEqual(self.choose(me, coins=coins), (STANDING, False))

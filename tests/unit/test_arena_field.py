"""gameproxy.arena.field and gameproxy.arena.walls"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.arena import field as rules
from gameproxy.arena.field import (
    DASH_REST_STEPS,
    DASH_SPEED,
    DASH_STEPS,
    FINE,
    HEADINGS,
    PLAYERS_MAX,
    ROUND_STEPS,
    SAFE_STEPS,
    SPEED,
    STUNNED_STEPS,
    TAGGER_SPEED,
    TILE,
    Field,
    Runner,
    Won,
)
from gameproxy.arena.walls import ARENA, Tile, Walls
from gameproxy.testing import seeded_entropy

EAST, SOUTH_EAST, SOUTH, WEST, NORTH = 1, 2, 3, 5, 7
ROOM = Walls(["#" * 22, *(["#" + "." * 20 + "#"] * 20), "#" * 22])


def place(runner: Runner, column: int, row: int) -> None:
    """Put a player into the middle of a tile, where it stands still."""
    runner.x, runner.y = column * TILE + TILE // 2, row * TILE + TILE // 2
    runner.vx = runner.vy = 0


class WallsTests(SynchronousTestCase):
    """The grid."""

    def test_arena(self) -> None:
        """All of the arena's floor can be reached from everywhere on it, by steps straight on."""
        reached = {ARENA.floor[0]}
        border = list(reached)
        while border:
            column, row = border.pop()
            for for_x, for_y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                tile = Tile(column + for_x, row + for_y)
                if not ARENA.is_wall(*tile) and tile not in reached:
                    reached.add(tile)
                    border.append(tile)
        self.assertEqual(reached, set(ARENA.floor))

    def test_outside(self) -> None:
        """Outside there is nothing but wall, also above and to the left."""
        for tile in ((-1, 1), (1, -1), (22, 1), (1, 22)):
            self.assertTrue(ROOM.is_wall(*tile))
        self.assertFalse(ROOM.is_wall(1, 1))

    def test_impossible(self) -> None:
        """Rows that are no field are refused, and it is said why."""
        for rows, why in (
            ([], "3 to 255 tiles"),
            (["##", "##"], "3 to 255 tiles"),
            (["#" * 256] * 3, "3 to 255 tiles"),
            (["###", "#.##", "###"], "same length"),
            (["###", "#..", "###"], "all around"),
            (["###", "..#", "###"], "all around"),
            (["#.#", "#.#", "###"], "all around"),
            (["###", "#.#", "#.#"], "all around"),
            (["###", "###", "###"], "no floor"),
        ):
            with self.assertRaises(ValueError) as caught:
                Walls(rows)
            self.assertIn(why, str(caught.exception))

    def test_equal(self) -> None:
        """Walls with the same rows are the same."""
        self.assertEqual(ROOM, Walls(ROOM.rows))
        self.assertEqual(hash(ROOM), hash(Walls(ROOM.rows)))
        self.assertNotEqual(ROOM, ARENA)
        self.assertNotEqual(ROOM, ROOM.rows)


class FieldTests(SynchronousTestCase):
    """What happens on the field."""

    def setUp(self) -> None:
        self.field = Field(ROOM, seeded_entropy())

    def steps(self, count: int) -> list[Won]:
        return [won for won in (self.field.step() for _ in range(count)) if won is not None]

    def enter(self, count: int) -> list[Runner]:
        """Let players in who can be tagged and run at once, each in a column of its own: 1, 3, 5 and so on."""
        runners = [self.field.enter() for _ in range(count)]
        for number, runner in enumerate(runners):
            runner.safe = runner.stunned = 0
            place(runner, 1 + 2 * number, 1)
        return runners

    def tagged_pair(self) -> tuple[Runner, Runner]:
        """A tagger and another, out of each other's reach."""
        tagger, other = sorted(self.enter(2), key=lambda runner: not runner.tagger)
        place(tagger, 5, 10)
        place(other, 8, 10)
        return tagger, other

    def test_run(self) -> None:
        """A player who wants to speeds up to full speed and stays at it, and comes to a stop when it does not."""
        (runner,) = self.enter(1)
        runner.heading = EAST
        self.steps(10)
        self.assertEqual((runner.vx, runner.vy), (SPEED, 0))
        x = runner.x
        self.steps(1)
        self.assertEqual(runner.x, x + SPEED)
        runner.heading = 0
        self.steps(3)
        self.assertEqual((runner.vx, runner.vy), (0, 0))

    def test_diagonal(self) -> None:
        """A player is as fast diagonally as straight on."""
        (runner,) = self.enter(1)
        runner.heading = SOUTH_EAST
        self.steps(10)
        self.assertEqual(runner.vx, runner.vy)
        self.assertLess(abs((runner.vx**2 + runner.vy**2) ** 0.5 - SPEED), 2)

    def test_wall(self) -> None:
        """A wall stops a player at its face on each side, and one who runs at it askew slides along."""
        (runner,) = self.enter(1)
        place(runner, 5, 5)
        for heading, at in (
            (EAST, (21 * TILE - 1, runner.y)),
            (SOUTH, (21 * TILE - 1, 21 * TILE - 1)),
            (WEST, (TILE, 21 * TILE - 1)),
            (NORTH, (TILE, TILE)),
        ):
            runner.heading = heading
            self.steps(100)
            self.assertEqual((runner.x, runner.y, runner.vx, runner.vy), (*at, 0, 0))
        runner.heading = 4  # to the left, and down
        self.steps(50)
        self.assertEqual((runner.x, runner.vx), (TILE, 0))
        self.assertGreater(runner.y, 10 * TILE)

    def test_fastest(self) -> None:
        """Nobody is as fast as a tile in a step: walls are one tile thick."""
        self.assertLess(max(SPEED, TAGGER_SPEED, DASH_SPEED), TILE)

    def test_dash(self) -> None:
        """A dash is fast, ends soon, and may be had again after a rest."""
        (runner,) = self.enter(1)
        runner.heading = EAST
        self.field.dash(runner)
        self.steps(1)
        self.assertEqual(runner.vx, DASH_SPEED)
        self.steps(DASH_STEPS - 1)
        self.assertEqual((runner.vx, runner.dashing), (DASH_SPEED, 0))
        self.field.dash(runner)
        self.steps(5)
        self.assertEqual((runner.vx, runner.dashing), (SPEED, 0))
        self.steps(DASH_REST_STEPS - DASH_STEPS - 5)
        self.field.dash(runner)
        self.assertEqual(runner.dashing, DASH_STEPS)

    def test_coin(self) -> None:
        """Who comes near a coin has it, and another appears elsewhere."""
        (runner,) = self.enter(1)
        place(runner, 3, 3)
        self.field.coins = {Tile(4, 3): None}
        runner.x -= 1
        self.steps(1)
        self.assertEqual((runner.score, len(self.field.coins)), (0, 8))
        self.field.coins = {Tile(4, 3): None, Tile(3, 5): None}
        runner.x += 1
        self.steps(1)
        self.assertEqual((runner.score, len(self.field.coins)), (1, 8))
        self.assertNotIn(Tile(4, 3), list(self.field.coins)[:1])
        self.assertIn(Tile(3, 5), self.field.coins)

    def test_coins_around(self) -> None:
        """Of four coins that meet where a player is, it has them all; its score has a bound."""
        (runner,) = self.enter(1)
        place(runner, 3, 3)
        runner.x, runner.y = 4 * TILE, 4 * TILE
        runner.score = rules.SCORE_MAX - 3
        self.field.coins = {Tile(3, 3): None, Tile(4, 3): None, Tile(3, 4): None, Tile(4, 4): None}
        self.steps(1)
        self.assertEqual(runner.score, rules.SCORE_MAX)
        self.assertEqual(len(self.field.coins), 8)

    def test_tagger_takes_no_coins(self) -> None:
        """Who is it leaves coins where they are."""
        tagger, _ = self.tagged_pair()
        self.field.coins = dict.fromkeys([Tile(5, 10)])
        self.steps(1)
        self.assertIn(Tile(5, 10), self.field.coins)
        self.assertEqual(tagger.score, 0)

    def test_coins_for_players(self) -> None:
        """There are eight coins, and one more for every two players; never two on a tile, never in a wall."""
        self.assertEqual(len(self.field.coins), 8)
        self.enter(10)
        self.assertEqual(len(self.field.coins), 13)
        self.assertFalse(any(ROOM.is_wall(*coin) for coin in self.field.coins))

    def test_little_room_for_coins(self) -> None:
        """On a field that is too small for all coins there are as many as fit."""
        field = Field(Walls(["#####", "#...#", "#####"]), seeded_entropy())
        self.assertEqual(len(field.coins), 3)

    def test_poor_chance(self) -> None:
        """Chance that is always the same gives different tiles for coins all the same."""
        field = Field(ROOM, lambda size: bytes(size))
        self.assertEqual(len(field.coins), 8)

    def test_alone(self) -> None:
        """Who is alone is not it."""
        (runner,) = self.enter(1)
        self.assertFalse(runner.tagger)

    def test_one_tagger(self) -> None:
        """With two players one is it; when it leaves the other is not, as it is alone then."""
        tagger, other = self.tagged_pair()
        self.assertEqual((tagger.tagger, other.tagger), (True, False))
        self.field.leave(other)
        self.assertFalse(tagger.tagger)

    def test_taggers(self) -> None:
        """There is one tagger for every eight players, however they come and leave."""
        runners = [self.field.enter() for _ in range(PLAYERS_MAX)]

        def taggers() -> int:
            return sum(runner.tagger for runner in self.field.runners.values())

        self.assertEqual(taggers(), 8)
        for runner in runners[:-2]:
            self.field.leave(runner)
            self.assertEqual(taggers(), max(1, len(self.field.runners) // 8))

    def test_chosen_tagger_waits(self) -> None:
        """Who is chosen to be it stands for a moment before it can run and tag."""
        tagger = next(one for one in (self.field.enter(), self.field.enter()) if one.tagger)
        self.assertEqual(tagger.stunned, STUNNED_STEPS)

    def test_tag(self) -> None:
        """Who is touched by the tagger is it, pays, and must stand; who was it is safe."""
        tagger, other = self.tagged_pair()
        self.field.coins.clear()
        other.score = 10
        place(other, 6, 10)
        self.steps(1)
        self.assertEqual((tagger.tagger, tagger.safe), (False, SAFE_STEPS))
        self.assertEqual((other.tagger, other.stunned), (True, STUNNED_STEPS))
        self.assertEqual((tagger.score, other.score), (FINE, 10 - FINE))

    def test_tag_poor(self) -> None:
        """Who has less than the fine pays what it has."""
        tagger, other = self.tagged_pair()
        self.field.coins = dict.fromkeys([Tile(20, 20)])
        other.score = 1
        place(other, 5, 10)
        self.steps(1)
        self.assertEqual((tagger.score, other.score), (1, 0))

    def test_out_of_reach(self) -> None:
        """A tagger touches nobody who is more than a tile away along either axis."""
        tagger, other = self.tagged_pair()
        other.x, other.y = tagger.x + TILE + 1, tagger.y
        self.steps(1)
        self.assertTrue(tagger.tagger)
        other.x, other.y = tagger.x, tagger.y - TILE - 1
        self.steps(1)
        self.assertTrue(tagger.tagger)

    def test_safe(self) -> None:
        """Nobody tags who is safe, until that is over."""
        tagger, other = self.tagged_pair()
        place(other, 5, 10)
        other.safe = 3
        self.steps(2)
        self.assertTrue(tagger.tagger)
        self.steps(1)
        self.assertTrue(other.tagger)

    def test_stunned(self) -> None:
        """Who is stunned neither runs nor dashes nor tags, until that is over."""
        tagger, other = self.tagged_pair()
        place(other, 5, 11)
        tagger.stunned, tagger.heading = 3, WEST
        self.field.dash(tagger)
        x = tagger.x
        self.steps(2)
        self.assertEqual((tagger.x, tagger.tagger, tagger.dash_rest), (x, True, 0))
        self.steps(2)
        self.assertFalse(tagger.tagger)

    def test_tagged_while_dashing(self) -> None:
        """Who is tagged dashes no more."""
        _, other = self.tagged_pair()
        place(other, 5, 10)
        other.dashing = 4
        self.steps(1)
        self.assertEqual(other.dashing, 0)

    def test_ids(self) -> None:
        """A player gets the lowest id that is free."""
        runners = self.enter(3)
        self.assertEqual([runner.id for runner in runners], [0, 1, 2])
        self.field.leave(runners[1])
        self.assertEqual([self.field.enter().id, self.field.enter().id], [1, 3])

    def test_full(self) -> None:
        """There is room for 64 players and no more."""
        for _ in range(PLAYERS_MAX):
            self.assertFalse(self.field.is_full)
            self.field.enter()
        self.assertTrue(self.field.is_full)
        self.assertRaises(ValueError, self.field.enter)

    def test_round(self) -> None:
        """After two minutes who has most coins has won, the first of several; then all begin anew."""
        runners = self.enter(3)
        self.field.steps_left = 2
        self.assertEqual(self.steps(1), [])
        for runner, score in zip(runners, (4, 9, 9), strict=True):
            runner.score = score
        self.field.coins = dict.fromkeys([Tile(20, 20)])
        self.assertEqual(self.steps(1), [Won(1, 9)])
        self.assertEqual([runner.score for runner in runners], [0, 0, 0])
        self.assertEqual(self.field.steps_left, ROUND_STEPS)

    def test_round_without_coins(self) -> None:
        """A round in which nobody has coins, or nobody is there, has no winner."""
        self.assertEqual(self.steps(ROUND_STEPS), [])
        self.assertEqual(self.field.steps_left, ROUND_STEPS)

    @settings(max_examples=30)
    @given(
        st.lists(
            st.tuples(st.integers(0, 7), st.integers(0, 8), st.booleans()), min_size=10, max_size=60
        ),
        st.integers(0, 2**32),
    )
    def test_always(self, inputs: Sequence[tuple[int, int, bool]], seed: int) -> None:
        """Whatever players do, nobody is ever in a wall; and with the same inputs and chance the same happens."""

        def play() -> list[object]:
            field = Field(ARENA, seeded_entropy(str(seed)))
            runners = [field.enter() for _ in range(8)]
            story: list[object] = []
            for who, heading, dash in inputs:
                runners[who].heading = heading
                if dash:
                    field.dash(runners[who])
                for _ in range(5):
                    field.step()
                    for runner in runners:
                        self.assertFalse(ARENA.is_wall(runner.x // TILE, runner.y // TILE))
                        self.assertLessEqual(abs(runner.vx), DASH_SPEED)
                self.assertEqual(sum(runner.tagger for runner in runners), 1)
                story += [[repr(runner) for runner in runners], list(field.coins)]
            return story

        self.assertEqual(play(), play())

    def test_headings(self) -> None:
        """The headings are all ways there are, clockwise from the right."""
        self.assertEqual(len(set(HEADINGS)), 9)
        self.assertEqual(
            [HEADINGS[heading] for heading in (EAST, SOUTH, WEST, NORTH)],
            [(1, 0), (0, 1), (-1, 0), (0, -1)],
        )

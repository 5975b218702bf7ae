"""The game itself: who runs where, who picks up what, and who is it.

Players run about a field and pick up coins. Some of them are taggers: they pick up no coins, but whom they touch is it
in their place, and pays. Everybody may dash now and then. After two minutes who has most coins has won, and it begins
again.

All is whole numbers, and chance comes from outside: with the same inputs in the same steps the same happens. A place is
measured in units, of which a tile has 256; so is a speed, in units for each step. There are 20 steps a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from gameproxy.arena.walls import Tile, Walls
from gameproxy.interfaces import Entropy

T = TypeVar("T")

PLAYERS_MAX: Final = 64
STEPS_PER_SECOND: Final = 20
TILE: Final = 256
"""Units in the side of a tile."""
ROUND_STEPS: Final = 120 * STEPS_PER_SECOND

STANDING: Final = 0
"""The heading of who stands still."""
HEADINGS: Final = (
    (0, 0),
    (1, 0),
    (1, 1),
    (0, 1),
    (-1, 1),
    (-1, 0),
    (-1, -1),
    (0, -1),
    (1, -1),
)
"""For each heading which way it is, in columns and rows: 0 nowhere, then clockwise from 1, to the right, to 8."""

SPEED: Final = 80
"""Of a player at full speed; six tiles a second."""
TAGGER_SPEED: Final = 88
DASH_SPEED: Final = 200
"""Less than a tile: nobody gets through a wall, though only the end of each step is looked at."""
ACCELERATION: Final = 32
"""What a step adds to the speed at most, along each axis; it brakes twice as well."""
DASH_STEPS: Final = 5
DASH_REST_STEPS: Final = 3 * STEPS_PER_SECOND
"""From one dash to the next."""
SAFE_STEPS: Final = 3 * STEPS_PER_SECOND
"""For which nobody tags who has just come in, or has just tagged somebody."""
STUNNED_STEPS: Final = 1 * STEPS_PER_SECOND
"""For which who has been tagged must stand, so that the others get away."""
REACH: Final = TILE
"""How near one must be, along each axis, to touch another player."""
FINE: Final = 3
"""Coins that who is tagged pays to the tagger, if they are there."""
SCORE_MAX: Final = 0xFFFF
PLAYERS_PER_TAGGER: Final = 8


@dataclass(slots=True)
class Runner:
    """A player on the field.

    :ivar id: 0 to 63, lowest free one first; it is another's once this player has left.
    :ivar x: of its place; 0 is the left edge of the field.
    :ivar y: of its place; 0 is the upper edge.
    :ivar vx: its velocity; so is ``vy``.
    :ivar heading: which way it wants to go, an index of :data:`HEADINGS`.
    :ivar dashing: for how many steps it still dashes; ``dash_rest``: in how many it may again.
    :ivar safe: for how many steps nobody can tag it.
    :ivar stunned: for how many steps it cannot move.
    """

    id: int
    x: int
    y: int
    vx: int = 0
    vy: int = 0
    heading: int = STANDING
    score: int = 0
    tagger: bool = False
    dashing: int = 0
    dash_rest: int = 0
    safe: int = SAFE_STEPS
    stunned: int = 0


@dataclass(frozen=True, slots=True)
class Won:
    """How a round has ended: who won, and with how many coins."""

    id: int
    score: int


class Field:
    """A field with players and coins.

    :param entropy: where coins and players appear, and who is it first.
    :ivar runners: the players, by id, in the order in which they came.
    :ivar coins: where coins lie, in the order in which they appeared; one on a tile.
    :ivar tick: steps that have been made.
    :ivar steps_left: until the round is over.
    """

    def __init__(self, walls: Walls, entropy: Entropy) -> None:
        self.walls = walls
        self.runners: dict[int, Runner] = {}
        self.coins: dict[Tile, None] = {}
        self.tick = 0
        self.steps_left = ROUND_STEPS
        self._entropy = entropy
        self._lay_coins()

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more player."""
        return len(self.runners) == PLAYERS_MAX

    def enter(self) -> Runner:
        """Let a player in.

        :raises ValueError: the field is full.
        """
        if self.is_full:
            raise ValueError(f"there are {PLAYERS_MAX} players")
        id = next(id for id in range(PLAYERS_MAX) if id not in self.runners)
        tile = self._one_of(self.walls.floor)
        runner = Runner(id, tile.column * TILE + TILE // 2, tile.row * TILE + TILE // 2)
        self.runners[id] = runner
        self._choose_taggers()
        self._lay_coins()
        return runner

    def leave(self, runner: Runner) -> None:
        """Let a player out, who is in."""
        del self.runners[runner.id]
        self._choose_taggers()

    def dash(self, runner: Runner) -> None:
        """Let a player dash, if it may."""
        if not (runner.dash_rest or runner.stunned):
            runner.dashing = DASH_STEPS
            runner.dash_rest = DASH_REST_STEPS

    def step(self) -> Won | None:
        """Let a twentieth of a second pass.

        :return: who has won, if with this step a round is over in which somebody has coins.
        """
        self.tick += 1
        for runner in self.runners.values():
            self._move(runner)
        self._tag()
        self._pick_up()
        self.steps_left -= 1
        return self._end_round() if self.steps_left == 0 else None

    def _move(self, runner: Runner) -> None:
        for_x, for_y = HEADINGS[runner.heading] if not runner.stunned else HEADINGS[STANDING]
        speed = DASH_SPEED if runner.dashing else TAGGER_SPEED if runner.tagger else SPEED
        if for_x and for_y:
            speed = speed * 181 // 256  # the square root of a half: as fast as straight on
        runner.vx = _towards(runner.vx, for_x * speed, runner.dashing > 0)
        runner.vy = _towards(runner.vy, for_y * speed, runner.dashing > 0)
        runner.dashing -= runner.dashing > 0
        runner.dash_rest -= runner.dash_rest > 0
        runner.safe -= runner.safe > 0
        runner.stunned -= runner.stunned > 0
        # One axis after the other: who runs against a wall at an angle slides along it.
        x = runner.x + runner.vx
        if self.walls.is_wall(x // TILE, runner.y // TILE):
            x, runner.vx = _edge(runner.x, runner.vx), 0
        runner.x = x
        y = runner.y + runner.vy
        if self.walls.is_wall(runner.x // TILE, y // TILE):
            y, runner.vy = _edge(runner.y, runner.vy), 0
        runner.y = y

    def _tag(self) -> None:
        taggers = [one for one in self.runners.values() if one.tagger and not one.stunned]
        for tagger in taggers:
            for other in self.runners.values():
                if (
                    abs(other.x - tagger.x) <= REACH
                    and abs(other.y - tagger.y) <= REACH
                    and not (other.tagger or other.safe)
                ):
                    fine = min(FINE, other.score)
                    other.score -= fine
                    tagger.score = min(tagger.score + fine, SCORE_MAX)
                    tagger.tagger, tagger.safe = False, SAFE_STEPS
                    other.tagger, other.stunned = True, STUNNED_STEPS
                    other.dashing = 0
                    break

    def _pick_up(self) -> None:
        for runner in self.runners.values():
            if runner.tagger:
                continue
            # A coin lies in the middle of its tile, and is in reach within a tile's side: that may be four.
            column, row = (runner.x - TILE // 2) // TILE, (runner.y - TILE // 2) // TILE
            for tile in (
                (column, row),
                (column + 1, row),
                (column, row + 1),
                (column + 1, row + 1),
            ):
                if tile in self.coins:
                    del self.coins[Tile(*tile)]
                    runner.score = min(runner.score + 1, SCORE_MAX)
        self._lay_coins()

    def _end_round(self) -> Won | None:
        # Of those who have as many, the one who has been here longest.
        best = max(self.runners.values(), key=lambda runner: runner.score, default=None)
        won = Won(best.id, best.score) if best is not None and best.score else None
        for runner in self.runners.values():
            runner.score = 0
        self.steps_left = ROUND_STEPS
        return won

    def _choose_taggers(self) -> None:
        """Have one tagger for every eight players, one at least, but none for who is alone."""
        count = len(self.runners)
        wanted = max(1, count // PLAYERS_PER_TAGGER) if count > 1 else 0
        taggers = [one for one in self.runners.values() if one.tagger]
        for surplus in taggers[wanted:]:
            surplus.tagger = False
        for _ in range(wanted - len(taggers)):
            others = [one for one in self.runners.values() if not one.tagger]
            chosen = self._one_of(others)
            chosen.tagger, chosen.stunned = True, STUNNED_STEPS

    def _lay_coins(self) -> None:
        """Have eight coins, and one more for every two players, as far as there is room."""
        wanted = min(8 + len(self.runners) // 2, len(self.walls.floor))
        while len(self.coins) < wanted:
            free = [tile for tile in self.walls.floor if tile not in self.coins]
            self.coins[self._one_of(free)] = None

    def _one_of(self, choices: Sequence[T]) -> T:
        return choices[int.from_bytes(self._entropy(4), "big") % len(choices)]


def _towards(speed: int, wanted: int, at_once: bool) -> int:
    """The next speed on the way to the one that is wanted."""
    if at_once:
        return wanted
    change = 2 * ACCELERATION if abs(wanted) < abs(speed) or wanted * speed < 0 else ACCELERATION
    return max(speed - change, min(speed + change, wanted))


def _edge(place: int, speed: int) -> int:
    """Where the tile of a place ends, along one axis."""
    start = place // TILE * TILE
    return start + TILE - 1 if speed > 0 else start

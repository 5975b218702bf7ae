"""How a bot decides where to run: to the nearest coin, and not into the arms of a tagger."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from functools import lru_cache
from typing import Final

from gameproxy.arena.field import HEADINGS, STANDING, TILE
from gameproxy.arena.frames import Seen, Snapshot
from gameproxy.arena.walls import Tile, Walls

FEAR: Final = 5 * TILE
"""How near a tagger must be, along both axes, to run from it and not to a coin."""
PANIC: Final = 2 * TILE
"""How near it must be to dash."""
LUNGE: Final = 3 * TILE
"""How near a tagger must be to its prey to dash."""
_CLOSE_ENOUGH: Final = TILE // 4
"""How far off a place along one axis is not worth a turn."""
_HEADING_OF: Final = {direction: heading for heading, direction in enumerate(HEADINGS)}


def choose(walls: Walls, snapshot: Snapshot, me: Seen) -> tuple[int, bool]:
    """Decide where to run.

    :return: the heading, and whether to dash.
    """
    others = [one for one in snapshot.players if one.id != me.id]
    if me.tagger:
        prey = {one.tile: one for one in others if not (one.tagger or one.safe)}
        way = way_to(walls, me.tile, prey)
        if way is None:
            return STANDING, False
        nearest = prey[way[-1]]
        return _along(me, way, nearest.x, nearest.y), _distance(me, nearest) < LUNGE
    taggers = [one for one in others if one.tagger]
    if taggers and not me.safe:
        tagger = min(taggers, key=lambda one: _distance(me, one))
        if _distance(me, tagger) < FEAR:
            return _away(walls, me, tagger), _distance(me, tagger) < PANIC
    way = way_to(walls, me.tile, frozenset(snapshot.coins))
    if way is None:
        return STANDING, False
    coin = way[-1]
    return _along(me, way, coin.column * TILE + TILE // 2, coin.row * TILE + TILE // 2), False


def way_to(walls: Walls, start: Tile, goals: Container[Tile]) -> tuple[Tile, ...] | None:
    """The shortest way from a tile to one of several, around walls.

    :return: the first tile after the start, if there is one, and the goal; ``None`` if there is no way.
    """
    if start in goals:
        return (start,)
    neighbours = _neighbours(walls)
    first_of = {next_one: next_one for next_one in neighbours[start]}
    border = deque(first_of)
    while border:
        tile = border.popleft()
        if tile in goals:
            return first_of[tile], tile
        for next_one in neighbours[tile]:
            if next_one not in first_of and next_one != start:
                first_of[next_one] = first_of[tile]
                border.append(next_one)
    return None


@lru_cache(maxsize=4)
def _neighbours(walls: Walls) -> dict[Tile, tuple[Tile, ...]]:
    """For each tile of floor where one gets from it in one step: straight on first, and diagonally past no corner."""
    return {
        tile: tuple(
            Tile(tile.column + for_x, tile.row + for_y)
            for for_x, for_y in sorted(HEADINGS[1:], key=lambda way: way[0] and way[1] and 1)
            if not walls.is_wall(tile.column + for_x, tile.row + for_y)
            and not walls.is_wall(tile.column + for_x, tile.row)
            and not walls.is_wall(tile.column, tile.row + for_y)
        )
        for tile in walls.floor
    }


def _along(me: Seen, way: tuple[Tile, ...], x: int, y: int) -> int:
    """The heading to the next tile of a way; or to a place, when it is in this tile or the next."""
    next_one, goal = way[0], way[-1]
    if next_one != goal:
        x, y = next_one.column * TILE + TILE // 2, next_one.row * TILE + TILE // 2
    return _HEADING_OF[_sign(x - me.x), _sign(y - me.y)]


def _away(walls: Walls, me: Seen, tagger: Seen) -> int:
    """The heading that leads away from a tagger, and not into a wall."""
    here = me.tile

    def distance_after(next_one: Tile) -> int:
        x, y = next_one.column * TILE + TILE // 2, next_one.row * TILE + TILE // 2
        return (x - tagger.x) ** 2 + (y - tagger.y) ** 2

    best = max(_neighbours(walls)[here], key=distance_after, default=here)
    return _HEADING_OF[best.column - here.column, best.row - here.row]


def _sign(difference: int) -> int:
    return (difference > _CLOSE_ENOUGH) - (difference < -_CLOSE_ENOUGH)


def _distance(one: Seen, other: Seen) -> int:
    """In units, along the axis on which it is more."""
    return max(abs(one.x - other.x), abs(one.y - other.y))

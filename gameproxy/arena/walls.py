"""What stands still in the arena: a grid of square tiles, each of them floor or wall.

A tile is named by its column and row; column 0, row 0 is in the upper left corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

SIDE_MAX: Final = 255
"""Most tiles in a row and in a column."""


class Tile(NamedTuple):
    """A place in the grid."""

    column: int
    row: int


class Walls:
    """Where the walls are. All around the field there is one, so that nobody gets out.

    :param rows: a text for each row, ``#`` where a wall is, all of the same length.
    :raises ValueError: the rows are no such field, or have no floor.
    :ivar floor: the tiles where no wall is, row by row.
    """

    def __init__(self, rows: Sequence[str]) -> None:
        self.rows = tuple(rows)
        self.height = len(self.rows)
        self.width = len(self.rows[0]) if self.rows else 0
        if not (3 <= self.width <= SIDE_MAX and 3 <= self.height <= SIDE_MAX):
            raise ValueError(f"a field has 3 to {SIDE_MAX} tiles in a row and in a column")
        if any(len(row) != self.width for row in self.rows):
            raise ValueError("not all rows are of the same length")
        edges = {*self.rows[0], *self.rows[-1], *(row[0] + row[-1] for row in self.rows)}
        if not edges <= {"#", "##"}:
            raise ValueError("there is no wall all around")
        self.floor = tuple(
            Tile(column, row)
            for row, line in enumerate(self.rows)
            for column, character in enumerate(line)
            if character != "#"
        )
        if not self.floor:
            raise ValueError("there is no floor")

    def is_wall(self, column: int, row: int) -> bool:
        """Whether a tile is wall; there is nothing but wall outside the field."""
        inside = 0 <= column < self.width and 0 <= row < self.height
        return not inside or self.rows[row][column] == "#"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Walls) and self.rows == other.rows

    def __hash__(self) -> int:
        return hash(self.rows)


ARENA: Final = Walls(
    (
        "##############################",
        "#............................#",
        "#............................#",
        "#...####..............####...#",
        "#...#......##....##......#...#",
        "#...#....................#...#",
        "#............................#",
        "#..........#......#..........#",
        "#.....##...#......#...##.....#",
        "#.....#................#.....#",
        "#.....#.......##.......#.....#",
        "#.....#................#.....#",
        "#.....##...#......#...##.....#",
        "#..........#......#..........#",
        "#............................#",
        "#...#....................#...#",
        "#...#......##....##......#...#",
        "#...####..............####...#",
        "#............................#",
        "#............................#",
        "##############################",
    )
)
"""The field that is played on: with each tile two characters wide it leaves room for the scores in a terminal of
80 by 24."""

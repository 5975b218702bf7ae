"""The arena as characters: each tile is two of them wide, as characters are half as wide as high."""

from __future__ import annotations

from typing import Final

from rich.cells import cell_len
from rich.text import Text

from gameproxy.arena.field import STEPS_PER_SECOND, TILE
from gameproxy.arena.frames import Seen
from gameproxy.arena.sight import Sight
from gameproxy.escaping import printable

NAME_WIDTH: Final = 12
"""Characters of a name that are shown beside the field."""
_WALL: Final = ("██", "blue")
_FLOOR: Final = ("  ", "")
_COIN: Final = ("$", "bold yellow")
_COLOURS: Final = ("cyan", "green", "magenta", "bright_blue", "bright_green", "bright_magenta")


def shown_name(name: str) -> str:
    """A player's name for a line of its own: no ``guest:`` before it, nothing in it that a terminal would obey."""
    return printable(name.removeprefix("guest:") or name)


def draw_field(sight: Sight, columns: int, rows: int) -> Text:
    """The field, or as much of it around one's own player as there is room for.

    :param columns: how many characters fit in a line; ``rows``: how many lines.
    :return: lines of the same width; empty before the first snapshot.
    """
    walls, snapshot, me = sight.walls, sight.snapshot, sight.self_seen
    if walls is None or snapshot is None or me is None:
        return Text()
    first_column, width = _window(me.tile.column, columns // 2, walls.width)
    first_row, height = _window(me.tile.row, rows, walls.height)
    lines = [
        [
            half
            for column in range(first_column, first_column + width)
            for half in _halves(*(_WALL if walls.is_wall(column, row) else _FLOOR))
        ]
        for row in range(first_row, first_row + height)
    ]

    def put(column: int, row: int, what: tuple[str, str]) -> None:
        """Draw something, if it is in sight; columns are characters here."""
        column, row = column - 2 * first_column, row - first_row
        if 0 <= row < height and 0 <= column < 2 * width:
            lines[row][column] = what

    for coin in snapshot.coins:
        put(2 * coin.column, coin.row, _COIN)
    for player in sorted(snapshot.players, key=lambda one: one.id == me.id):  # oneself above all
        what = _as_character(player, sight.names[player.id], player.id == me.id)
        put(2 * player.x // TILE, player.y // TILE, what)
    text = Text("\n", no_wrap=True, end="").join(Text.assemble(*line) for line in lines)
    text.no_wrap = True
    return text


def draw_scores(sight: Sight, rows: int) -> Text:
    """Who has how many coins: the first ones, and oneself.

    :param rows: how many lines there are.
    """
    snapshot, me = sight.snapshot, sight.self_seen
    if snapshot is None or me is None:
        return Text()
    ranking = sorted(snapshot.players, key=lambda one: -one.score)
    shown = ranking[:rows]
    if me not in shown:
        shown = [*shown[:-1], me]
    lines = [
        Text.assemble(
            ("!" if one.tagger else " ", "bold red"),
            f"{one.score:4} ",
            (
                _fitted(shown_name(sight.names[one.id])),
                "bold reverse" if one is me else _colour_of(one.id),
            ),
        )
        for one in shown
    ]
    text = Text("\n").join(lines)
    text.no_wrap = True
    return text


def time_left(sight: Sight) -> str:
    """Minutes and seconds until the round is over."""
    steps = sight.snapshot.steps_left if sight.snapshot is not None else 0
    minutes, seconds = divmod(-(-steps // STEPS_PER_SECOND), 60)
    return f"{minutes}:{seconds:02}"


def advice(sight: Sight) -> Text:
    """What matters to oneself now, in a line."""
    me = sight.self_seen
    if me is None:
        return Text()
    if me.stunned:
        return Text("You are it! A moment, then touch somebody.", "bold red")
    if me.tagger:
        return Text("You are it! Touch somebody: then they are, and pay you.", "bold red")
    if sight.last_won is not None and sight.snapshot is not None:
        won, name = sight.last_won
        who = "You" if won.id == me.id else shown_name(name)
        return Text(f"{who} won the last round, with {won.score} coins.", "bold yellow")
    if me.safe:
        return Text("Nobody can tag you for a moment.", "green")
    return Text("Pick up coins ($), and keep away from who is it (red).")


def _window(centre: int, room: int, size: int) -> tuple[int, int]:
    """Which part of a side of the field is shown.

    :return: the first tile, and how many.
    """
    shown = max(0, min(room, size))
    return max(0, min(centre - shown // 2, size - shown)), shown


def _halves(characters: str, style: str) -> list[tuple[str, str]]:
    return [(character, style) for character in characters]


def _as_character(player: Seen, name: str, is_me: bool) -> tuple[str, str]:
    letter = "@" if is_me else shown_name(name)[0].upper()
    if cell_len(letter) != 1:
        letter = "?"
    if player.tagger:
        return letter, "bold white on red"
    if is_me:
        return letter, "bold black on bright_white"
    return letter, f"{'dim' if player.safe else 'bold'} {_colour_of(player.id)}"


def _colour_of(id: int) -> str:
    return _COLOURS[id % len(_COLOURS)]


def _fitted(name: str) -> str:
    """A name of so few characters that it fits."""
    while cell_len(name) > NAME_WIDTH:
        name = name[:-1]
    return name
